"""Reading ``predictions.npz``: arrays, their checks, and the cases that are drawn."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml.errors import DataError
from sciml.plotting.extras import Arrays, check_extras, series_of

REQUIRED = ("truth", "prediction", "time")
OLD_UNITS = {"velocity": "m/s", "pressure": "Pa"}
"""Of files that name none: they were written for the cavity only."""
SHOWN: Mapping[str, Sequence[str]] = {
    "dam": ("volume_fraction",),
    "gray_scott": ("species_b",),
    "two_phase_tube": ("volume_fraction",),
}
"""Problem -> the fields that are shown first, where it is neither the velocity nor the first field."""


@dataclass(frozen=True)
class Case:
    """A held-out case; ``truth``, ``prediction``: ``(frames, components, *grid)`` of the field that is shown.

    ``fluid (nx, ny)``: 0 in bodies, None without any (and outside two dimensions). ``series``: "solver" (the solver's
    own), "truth" and "prediction" (from the fields) -> name -> ``(frames,)``; ``series_units``: name -> unit.
    """

    name: str
    title: str
    problem: str
    field: str
    unit: str
    truth: NDArray[Any]
    prediction: NDArray[Any]
    time: NDArray[Any]
    lengths: tuple[float, ...]
    origin: tuple[float, ...]
    reynolds: float | None
    lid_velocity: float | None
    fluid: NDArray[Any] | None = None
    series: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    series_units: Mapping[str, str] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        return len(self.lengths)

    @property
    def vector(self) -> bool:
        return self.truth.shape[1] > 1

    @property
    def label(self) -> str | None:
        """What the colour bar says; None for a velocity, whose magnitude is called speed."""
        if not self.vector:
            return self.field.replace("_", " ")
        return None if self.field == "velocity" else f"|{self.field.replace('_', ' ')}|"


@dataclass(frozen=True)
class Field:
    """A field among the channels."""

    name: str
    unit: str
    channels: slice


def read_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a ``predictions.npz``. Raises DataError when it is damaged, or when its arrays do not fit."""
    try:
        # Opened here: numpy leaves its own handle open when the archive turns out to be damaged.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}; run 'sciml evaluate' to write it again") from None
    if missing := [name for name in REQUIRED if name not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}; run 'sciml evaluate' to write it again")
    truth, prediction, time = arrays["truth"], arrays["prediction"], arrays["time"]
    fits = 4 <= truth.ndim <= 6 and prediction.shape == truth.shape and time.shape == truth.shape[:2]
    if not fits or 0 in truth.shape:
        raise DataError(
            f"{path.name}: truth {truth.shape}, prediction {prediction.shape} and time {time.shape} do "
            "not fit; expected (cases, frames, channels, *grid) with one to three grid axes twice and (cases, frames)"
        )
    n, dim = len(truth), truth.ndim - 3
    expected = {"lengths": (n, dim), "origin": (dim,)}
    for name, shape in expected.items():
        if name in arrays and (arrays[name].shape != shape or not np.isfinite(arrays[name]).all()):
            raise DataError(f"{path.name}: {name} is {arrays[name].tolist()}; expected finite numbers of shape {shape}")
    if "lengths" in arrays and (arrays["lengths"] <= 0).any():
        raise DataError(f"{path.name}: lengths must be positive, got {arrays['lengths'].tolist()}")
    for name in ("subset", "case"):
        if name in arrays and arrays[name].shape != (n,):
            raise DataError(f"{path.name}: {name} has shape {arrays[name].shape}; expected ({n},)")
    if kind_of(arrays) not in ("step", "map", "trajectory"):
        raise DataError(f"{path.name}: kind is {kind_of(arrays)!r}; expected 'trajectory', 'step' or 'map'")
    _check_map(arrays, path.name)
    check_extras(arrays, path.name)
    fields_of(arrays)
    return arrays


def _check_map(arrays: Arrays, name: str) -> None:
    if kind_of(arrays) != "map":
        return
    truth = arrays["truth"]
    n, grid = len(truth), truth.shape[3:]
    if truth.shape[1] != 1:
        raise DataError(f"{name}: a static problem has one frame, not {truth.shape[1]}")
    given = arrays.get("input")
    if given is None or given.ndim != truth.ndim - 1 or (len(given), *given.shape[2:]) != (n, *grid):
        shape = "missing" if given is None else f"of shape {given.shape}"
        raise DataError(
            f"{name}: input is {shape}; a static problem needs ({n}, channels, {', '.join(map(str, grid))})"
        )
    points = arrays.get("points")
    if points is not None and (points.ndim != 3 or (len(points), points.shape[2]) != (n, len(grid))):
        raise DataError(f"{name}: points have shape {points.shape}; expected ({n}, N, {len(grid)})")


def kind_of(arrays: Arrays) -> str:
    """``step`` (a trajectory, rolled out), ``trajectory`` (given at once) or ``map`` (a static problem)."""
    return str(arrays["kind"]) if "kind" in arrays else "step"


def problem_of(arrays: Arrays) -> str:
    """The problem's name; files that name none are of the cavity."""
    return str(arrays["problem"]) if "problem" in arrays else "cavity"


def fields_of(arrays: Arrays) -> list[Field]:
    """The fields among the channels of truth and prediction. Raises DataError when they do not add up."""
    channels, dim = arrays["truth"].shape[2], arrays["truth"].ndim - 3
    names = [str(name) for name in arrays.get("fields", ("velocity",))]
    sizes = [int(n) for n in arrays["components"]] if "components" in arrays else []
    if not sizes:  # older files
        sizes = [dim if name == "velocity" else 1 for name in names]
    units = [str(unit) for unit in arrays["units"]] if "units" in arrays else [OLD_UNITS.get(n, "") for n in names]
    if not len(names) == len(sizes) == len(units) or min(sizes) < 1 or sum(sizes) != channels:
        raise DataError(
            f"predictions.npz: fields {names}, components {sizes} and units {units} do not fit {channels} channels; "
            "expected one of each for each field, and components that add up"
        )
    starts = np.cumsum([0, *sizes])
    return [
        Field(name, unit, slice(int(start), int(start) + size))
        for name, unit, start, size in zip(names, units, starts, sizes, strict=False)
    ]


def preferred(names: Sequence[str], problem: str) -> str:
    """The field that the pictures show: what is preferred for the problem, the velocity, or the first."""
    return next((name for name in (*SHOWN.get(problem, ()), "velocity") if name in names), names[0])


def shown_field(fields: Sequence[Field], problem: str) -> Field:
    """The ``preferred`` field."""
    by_name = {each.name: each for each in fields}
    return by_name[preferred(list(by_name), problem)]


def cases_of(arrays: Arrays) -> Iterator[Case]:
    """The cases of a checked file, in its order."""
    truth, problem = arrays["truth"], problem_of(arrays)
    shown = shown_field(fields_of(arrays), problem)
    for number in range(len(truth)):
        parameters = _parameters(arrays, number)
        subset = str(arrays["subset"][number]) if "subset" in arrays else ""
        index = int(arrays["case"][number]) if "case" in arrays else number
        series, units = series_of(arrays, number)
        reynolds, words = reynolds_of(parameters), [subset, f"test case {index}"]
        if reynolds is not None:
            changing = any(
                f"parameter_{name}" in arrays and np.ptp(_series(arrays, name, number)) > 0 for name in parameters
            )
            words.append(f"Re {reynolds:.0f}{' at the end' if changing else ''}")
        yield Case(
            name="_".join(word for word in (subset, f"case{index}") if word),
            title=", ".join(word for word in words if word),
            problem=problem,
            field=shown.name,
            unit=shown.unit,
            truth=truth[number][:, shown.channels],
            prediction=arrays["prediction"][number][:, shown.channels],
            time=arrays["time"][number],
            lengths=_lengths(arrays, number, parameters),
            origin=tuple(arrays["origin"].tolist()) if "origin" in arrays else (0.0,) * (truth.ndim - 3),
            reynolds=reynolds,
            lid_velocity=parameters.get("lid_velocity"),
            fluid=arrays["fluid"][number] if "fluid" in arrays and truth.ndim == 5 else None,
            series=series,
            series_units=units,
        )


def _lengths(arrays: Arrays, number: int, parameters: Mapping[str, float]) -> tuple[float, ...]:
    if "lengths" in arrays:
        return tuple(arrays["lengths"][number].tolist())
    # Without a box, square cells: the proportion of the grid.
    grid = arrays["truth"].shape[3:]
    names = ("width", "height", "depth")
    return tuple(parameters.get(name, n / max(grid)) for name, n in zip(names, grid, strict=False))


def _series(arrays: Arrays, name: str, case: int) -> NDArray[Any]:
    return np.atleast_1d(arrays[f"parameter_{name}"][case])


def _parameters(arrays: Arrays, case: int) -> dict[str, float]:
    """The physical parameters of a case at its last frame, which is where the profiles are drawn."""
    names = [key.removeprefix("parameter_") for key in arrays if key.startswith("parameter_")]
    return {name: float(_series(arrays, name, case)[-1]) for name in names}


def reynolds_of(parameters: Mapping[str, float]) -> float | None:
    """``U W rho / mu`` of a lid-driven cavity, ``U D rho / mu`` of a cylinder; None for a case that is neither."""
    for speed, length, times in (("lid_velocity", "width", 1.0), ("inlet_velocity", "radius", 2.0)):
        if all(name in parameters for name in (speed, length, "density", "viscosity")):
            inertia = parameters[speed] * times * parameters[length] * parameters["density"]
            return inertia / parameters["viscosity"]
    return None

"""All pictures of a run directory, from what the run wrote; only the steady flows are solved anew, in seconds."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml.errors import CheckpointError, DataError
from sciml.plotting.animation import animate_rollout
from sciml.plotting.curves import loss_curves, rollout_error
from sciml.plotting.fields import triptych
from sciml.plotting.profiles import centreline_profiles
from sciml.plotting.steady import steady_profiles
from sciml.progress import Progress

REQUIRED = ("truth", "prediction", "time")
UNITS = {"velocity": "m/s", "pressure": "Pa"}


@dataclass(frozen=True)
class Case:
    """A held-out case of ``predictions.npz``; ``truth``, ``prediction``: ``(frames, channels, nx, ny)``."""

    name: str
    title: str
    truth: NDArray[Any]
    prediction: NDArray[Any]
    time: NDArray[Any]
    width: float
    height: float
    field: str
    reynolds: float | None
    lid_velocity: float | None


def run_figures(run_directory: str | Path, progress: Progress | None = None) -> list[Path]:
    """Draw the pictures of a run into its ``figures/`` and return their paths.

    From ``surrogate/``, for a cavity: ``profiles_steady_re<Re>.png``, the rollout to steady flow against Ghia's table.

    From ``metrics.jsonl``: ``training.png``. From ``predictions.npz``: ``rollout_error.png`` over all
    held-out cases; for each case in it ``fields_<case>.png`` and ``profiles_<case>.png``; for the first case
    ``rollout_<case>.gif``. What a run has not written (it was stopped, say) is left out with a message.

    ``predictions.npz`` holds, for n cases, ``truth`` and ``prediction (n, frames, channels, nx, ny)``, ``time
    (n, frames)``; if it likes ``fields`` (their names), ``subset`` and ``case (n,)``, physical parameters
    ``parameter_<name>``, ``(n,)`` or ``(n, frames)``; and the errors ``rollout_relative_l2``,
    ``persistence_rollout_relative_l2`` and ``lookup_rollout_relative_l2 (cases, steps)`` of all test cases.

    Raises CheckpointError when the directory holds neither file, DataError when one of them is damaged.
    """
    run, progress = Path(run_directory), progress or Progress()
    figures = run / "figures"
    metrics, predictions = run / "metrics.jsonl", run / "predictions.npz"
    if not metrics.is_file() and not predictions.is_file():
        what = "holds neither metrics.jsonl nor predictions.npz" if run.is_dir() else "is not a directory"
        raise CheckpointError(f"{run} {what}: nothing to draw; give the directory that 'sciml train' wrote")
    summary = _summary(run / "summary.json")
    arrays = _arrays(predictions) if predictions.is_file() else {}
    if not arrays:
        progress.message(f"no {predictions.name} in {run}: the run was not evaluated, its fields are not drawn")
    cases = list(_cases(arrays)) if arrays else []
    written: list[Path] = []
    if (run / "surrogate" / "surrogate.json").is_file():
        from sciml.surrogate import load

        written += steady_profiles(load(run), figures, progress)
    with progress.phase("figures", 2 + 2 * len(cases) + min(len(cases), 1)):
        if metrics.is_file() and (records := read_records(metrics)):
            written.append(figures / "training.png")
            loss_curves(records, title=f"Training of {summary['operator']}", path=written[-1])
        progress.advance(note="training")
        if "rollout_relative_l2" in arrays:
            written.append(figures / "rollout_error.png")
            rollout_error(
                arrays["rollout_relative_l2"],
                persistence=arrays.get("persistence_rollout_relative_l2"),
                lookup=arrays.get("lookup_rollout_relative_l2"),
                name=str(summary["operator"]),
                path=written[-1],
            )
        progress.advance(note="rollout error")
        for number, case in enumerate(cases):
            for path in _case_figures(case, figures, animate=number == 0):
                written.append(path)
                progress.advance(note=path.name)
    return written


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; a last line that was cut off when the run was killed is dropped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines) - 1:
                raise DataError(f"{path} line {number + 1} is not JSON ({error.msg}): the file is damaged") from None
    return [record for record in records if isinstance(record, dict)]


def _case_figures(case: Case, figures: Path, animate: bool) -> Iterator[Path]:
    box: dict[str, Any] = {"width": case.width, "height": case.height}
    last = len(case.truth) - 1
    velocity, unit = case.field == "velocity", UNITS.get(case.field, "")
    truth, prediction = (a if velocity else a[:, 0] for a in (case.truth, case.prediction))
    labels = {"unit": unit, "name": None if velocity else case.field, "title": case.title}
    if animate:
        path = figures / f"rollout_{case.name}.gif"
        yield animate_rollout(truth, prediction, times=case.time, path=path, **labels, **box)
    path = figures / f"fields_{case.name}.png"
    # Early, middle and last: where a rollout goes wrong is seen late, how it starts is seen early.
    rows = sorted({min(2, last), last // 2, last})
    times = case.time[rows]
    triptych(truth[rows], prediction[rows], times=times, streamlines=velocity, path=path, **labels, **box)
    yield path
    if velocity:
        path = figures / f"profiles_{case.name}.png"
        centreline_profiles(
            truth[last],
            prediction[last],
            lid_velocity=case.lid_velocity,
            reynolds=case.reynolds,
            time=float(case.time[last]),
            velocity_unit=unit,
            title=case.title,
            path=path,
            **box,
        )
        yield path


def _cases(arrays: Mapping[str, NDArray[Any]]) -> Iterator[Case]:
    truth, prediction, time = arrays["truth"], arrays["prediction"], arrays["time"]
    if truth.ndim != 5 or prediction.shape != truth.shape or time.shape != truth.shape[:2]:
        raise DataError(
            f"predictions.npz: truth {truth.shape}, prediction {prediction.shape} and time {time.shape} do "
            "not fit; expected (cases, frames, channels, nx, ny) twice and (cases, frames)"
        )
    fields = [str(name) for name in arrays.get("fields", ("velocity",))]
    # A velocity is shown as a vector wherever it stands among the channels; without one, the first channel.
    field = "velocity" if "velocity" in fields else fields[0]
    components = truth.ndim - 3 if field == "velocity" else 1
    channels = slice(fields.index(field), fields.index(field) + components)
    for number in range(len(truth)):
        parameters = _parameters(arrays, number)
        subset = str(arrays["subset"][number]) if "subset" in arrays else ""
        index = int(arrays["case"][number]) if "case" in arrays else number
        reynolds, words = _reynolds(parameters), [subset, f"test case {index}"]
        if reynolds is not None:
            changing = any(
                f"parameter_{name}" in arrays and np.ptp(_series(arrays, name, number)) > 0 for name in parameters
            )
            words.append(f"Re {reynolds:.0f}{' at the end' if changing else ''}")
        nx, ny = truth.shape[3:]
        yield Case(
            name="_".join(word for word in (subset, f"case{index}") if word),
            title=", ".join(word for word in words if word),
            truth=truth[number][:, channels],
            prediction=prediction[number][:, channels],
            time=time[number],
            # Without a box, square cells: the proportion of the grid.
            width=parameters.get("width", nx / max(nx, ny)),
            height=parameters.get("height", ny / max(nx, ny)),
            field=field,
            reynolds=reynolds,
            lid_velocity=parameters.get("lid_velocity"),
        )


def _series(arrays: Mapping[str, NDArray[Any]], name: str, case: int) -> NDArray[Any]:
    return np.atleast_1d(arrays[f"parameter_{name}"][case])


def _parameters(arrays: Mapping[str, NDArray[Any]], case: int) -> dict[str, float]:
    """The physical parameters of a case at its last frame, which is where the profiles are drawn."""
    names = [key.removeprefix("parameter_") for key in arrays if key.startswith("parameter_")]
    return {name: float(_series(arrays, name, case)[-1]) for name in names}


def _reynolds(parameters: Mapping[str, float]) -> float | None:
    """``U W rho / mu`` of a lid-driven cavity; None for a case that is not one."""
    needed = ("lid_velocity", "width", "density", "viscosity")
    if any(name not in parameters for name in needed):
        return None
    speed, width, density, viscosity = (parameters[name] for name in needed)
    return speed * width * density / viscosity


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Opened here: numpy leaves its own handle open when the archive turns out to be damaged.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}; run 'sciml evaluate' to write it again") from None
    if missing := [name for name in REQUIRED if name not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}; run 'sciml evaluate' to write it again")
    return arrays


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    return {"operator": "operator", **(summary if isinstance(summary, dict) else {})}

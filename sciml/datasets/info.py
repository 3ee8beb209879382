"""What a data-set file says about itself: fields, units, parameters, grid, boundaries, origin."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sciml.errors import DataError, did_you_mean
from sciml.version import __version__

SCHEMA = "sciml/1"
AXES = ("x", "y", "z")
OPTIONAL = ("constant_fields", "series")
"""Keys that a description has only where they hold something."""
BOUNDARY_KINDS = ("wall", "moving_wall", "inlet", "outlet", "value", "flux", "periodic")
"""Sides of a flow, then those of a scalar: its prescribed value or its prescribed normal flux; then periodic."""


@dataclass(frozen=True)
class FieldInfo:
    """A cell-centred field: ``components`` consecutive channels of the state.

    ``order`` is the tensor order: 0 a scalar (1 component), 1 a vector (one component for each axis).
    """

    name: str
    components: int
    unit: str
    order: int
    location: str = "cell"


@dataclass(frozen=True)
class FaceFieldInfo:
    """A field on the faces normal to ``axis`` ("x", ...), boundary faces included: ``(B, T, nx+1, ny)``."""

    name: str
    unit: str
    axis: str
    location: str = "face"


@dataclass(frozen=True)
class DatasetInfo:
    """Everything needed to use a file, beside the arrays. Equal infos describe interchangeable files.

    ``fields`` are in the order of the state's channels; ``parameters`` maps name to unit; ``grid`` is
    ``(nx, ny[, nz])``; ``boundaries`` maps every side ("x_low", "x_high", ...) to one of `BOUNDARY_KINDS`;
    ``boundary_parameters`` maps a side to the parameter that sets its value (a moving wall's speed);
    ``constant_fields`` are scalars that do not change in time (which cells are solid); ``series`` maps the name of a
    number that each frame has beside its fields (drag, lift) to its unit;
    ``extra`` is free JSON: whatever a later run needs to make the same file again.

    Raises `DataError` where these do not fit together.
    """

    problem: str
    fields: tuple[FieldInfo, ...]
    parameters: Mapping[str, str]
    grid: tuple[int, ...]
    n_frames: int
    boundaries: Mapping[str, str]
    face_fields: tuple[FaceFieldInfo, ...] = ()
    boundary_parameters: Mapping[str, str] = field(default_factory=dict)
    constant_fields: tuple[FieldInfo, ...] = ()
    series: Mapping[str, str] = field(default_factory=dict)
    solver: str = ""
    seed: int | None = None
    version: str = __version__
    extra: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        object.__setattr__(self, "face_fields", tuple(self.face_fields))
        object.__setattr__(self, "constant_fields", tuple(self.constant_fields))
        object.__setattr__(self, "grid", tuple(int(n) for n in self.grid))
        _check(self)

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the grid's axes, ("x", "y"[, "z"])."""
        return AXES[: len(self.grid)]

    @property
    def n_channels(self) -> int:
        return sum(f.components for f in self.fields)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One name a channel: ``("velocity_x", "velocity_y", "pressure")``."""
        return tuple(name for f in self.fields for name in channel_names(f, self.axes))

    def channels(self, name: str) -> slice:
        """The state's channels that hold field ``name``. Raises `DataError` naming the fields there are."""
        start = 0
        for f in self.fields:
            if f.name == name:
                return slice(start, start + f.components)
            start += f.components
        raise DataError(
            f"no field {name!r} in this {self.problem!r} data set" + did_you_mean(name, (f.name for f in self.fields))
        )

    def face_shape(self, name: str) -> tuple[int, ...]:
        """Grid shape of a face field: along its axis one more than the cells, or as many if periodic."""
        for f in self.face_fields:
            if f.name == name:
                return tuple(
                    n + 1 if axis == f.axis and self.boundaries[f"{axis}_low"] != "periodic" else n
                    for axis, n in zip(self.axes, self.grid, strict=True)
                )
        raise DataError(
            f"no face field {name!r} in this {self.problem!r} data set"
            + did_you_mean(name, (f.name for f in self.face_fields))
        )

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON types, without constant fields and series where there are none: then it is that of the
        versions that knew of neither, which read such files.
        """
        values = json.loads(json.dumps(dataclasses.asdict(_plain(self)), allow_nan=False))
        return {key: value for key, value in values.items() if value or key not in OPTIONAL}

    def to_json(self) -> str:
        """Canonical JSON (sorted keys), from which `from_json` builds an equal info."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DatasetInfo":
        """Raises `DataError` for missing or unknown keys."""
        values = dict(values)
        try:
            values["fields"] = tuple(FieldInfo(**f) for f in values["fields"])
            values["face_fields"] = tuple(FaceFieldInfo(**f) for f in values.get("face_fields", ()))
            values["constant_fields"] = tuple(FieldInfo(**f) for f in values.get("constant_fields", ()))
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise DataError(f"the description of the data set is incomplete or has unknown keys: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "DatasetInfo":
        """Raises `DataError` when ``text`` is not what `to_json` writes."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"the description of the data set is not JSON: {error}") from error
        return cls.from_dict(values)


def channel_names(f: FieldInfo, axes: Iterable[str]) -> list[str]:
    """Names of one field's channels."""
    return [f.name] if f.order == 0 else [f"{f.name}_{axis}" for axis in axes]


def differing_keys(a: DatasetInfo, b: DatasetInfo) -> list[str]:
    """``["seed: 1 and 2", ...]``: where two infos differ, for error messages."""
    x, y = a.to_dict(), b.to_dict()
    return [f"{key}: {x.get(key)!r} and {y.get(key)!r}" for key in x | y if x.get(key) != y.get(key)]


def _plain(info: DatasetInfo) -> DatasetInfo:
    """The same with mappings as dictionaries, which ``asdict`` needs."""
    return dataclasses.replace(
        info,
        **{k: dict(getattr(info, k)) for k in ("parameters", "boundaries", "boundary_parameters", "series", "extra")},
    )


def _check(info: DatasetInfo) -> None:
    if not 1 <= len(info.grid) <= 3 or min(info.grid) < 1:
        raise DataError(f"grid must be (nx[, ny[, nz]]) with positive numbers, got {info.grid}")
    if info.n_frames < 1:
        raise DataError(f"n_frames must be at least 1, got {info.n_frames}")
    names = [*(f.name for f in (*info.fields, *info.face_fields, *info.constant_fields)), *info.series]
    if not info.fields or len(set(names)) != len(names) or not all(n.isidentifier() for n in names):
        raise DataError(f"fields need at least one entry and distinct identifiers as names, got {names}")
    if any(f.components != 1 or f.order for f in info.constant_fields):
        raise DataError(
            "constant fields must be scalars (order 0, 1 component), got (name, order, components) "
            f"{[(f.name, f.order, f.components) for f in info.constant_fields]}"
        )
    taken = sorted({"time", *info.parameters} & set(info.series))
    if taken:
        raise DataError(f"series {taken} are called like a parameter or like the time; give them other names")
    for f in info.fields:
        expected = {0: 1, 1: len(info.grid)}.get(f.order)
        if f.components != expected:
            raise DataError(
                f"field {f.name!r}: a field of order 0 has 1 component and one of order 1 has {len(info.grid)} "
                f"here, got order {f.order} with {f.components}; give each scalar a name of its own"
            )
    for face in info.face_fields:
        if face.axis not in info.axes:
            raise DataError(f"face field {face.name!r}: axis must be one of {info.axes}, got {face.axis!r}")
    sides = {f"{axis}_{end}" for axis in info.axes for end in ("low", "high")}
    if set(info.boundaries) != sides:
        raise DataError(f"boundaries must name the sides {sorted(sides)}, got {sorted(info.boundaries)}")
    for side, kind in info.boundaries.items():
        if kind not in BOUNDARY_KINDS:
            raise DataError(f"boundary {side}: unknown kind {kind!r}" + did_you_mean(str(kind), BOUNDARY_KINDS))
    for side, name in info.boundary_parameters.items():
        if side not in sides or name not in info.parameters:
            raise DataError(
                f"boundary_parameters: {side!r} -> {name!r} must map one of {sorted(sides)} to one of the "
                f"parameters" + did_you_mean(str(name), info.parameters)
            )

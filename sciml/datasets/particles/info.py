"""What a particle file says about itself: the problem, the box, the time between frames, kinds, parameters, origin."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sciml.errors import DataError
from sciml.version import __version__

MAX_KINDS = 127
"""Kinds are stored in one signed byte."""


@dataclass(frozen=True)
class ParticleInfo:
    """Everything needed to use a particle file, beside the arrays. Equal infos describe interchangeable files.

    - ``problem``: its name; ``dim``: 1 to 3; ``interval``: seconds between frames
    - ``bounds``: (low, high) of the box along each axis, metres; ``gravity``: acceleration, m/s^2, one number an axis
    - ``kinds``: names of the kinds of particles, which ``ParticleTrajectory.kind`` indexes
    - ``parameters``: name -> unit of the columns of ``ParticleTrajectory.parameters`` (material of each particle)
    - ``case_parameters``: name -> unit of the numbers of a whole case
    - ``extra``: free text by name: whatever a later run needs to make the same file again

    Lengths are metres, masses kilograms, times seconds (set by convention where a foreign format gives no unit).
    Raises `DataError` where these do not fit together.
    """

    problem: str
    dim: int
    interval: float
    bounds: tuple[tuple[float, float], ...]
    gravity: tuple[float, ...]
    kinds: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    case_parameters: Mapping[str, str] = field(default_factory=dict)
    solver: str = ""
    seed: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    version: str = __version__

    def __post_init__(self) -> None:
        try:
            plain = {
                "dim": int(self.dim),
                "interval": float(self.interval),
                "bounds": tuple((float(low), float(high)) for low, high in self.bounds),
                "gravity": tuple(float(g) for g in self.gravity),
                "kinds": tuple(str(kind) for kind in self.kinds),
            }
        except (TypeError, ValueError) as error:
            raise DataError(
                f"dim and interval must be numbers, bounds (low, high) and gravity a number an axis: {error}"
            ) from error
        for name in ("parameters", "case_parameters", "extra"):
            plain[name] = {str(key): str(value) for key, value in getattr(self, name).items()}
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        _check(self)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of the columns of ``ParticleTrajectory.parameters``."""
        return tuple(self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary of JSON types; the parameters keep their order, which is that of the columns."""
        values = dataclasses.asdict(self)
        values["parameters"] = [[name, unit] for name, unit in self.parameters.items()]
        return json.loads(json.dumps(values))

    def to_json(self) -> str:
        """Canonical JSON (sorted keys), from which `from_json` builds an equal info."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ParticleInfo":
        """Raises `DataError` for missing or unknown keys."""
        try:
            return cls(**{**values, "parameters": dict(values["parameters"])})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"the description of the particles is incomplete or has unknown keys: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "ParticleInfo":
        """Raises `DataError` when ``text`` is not what `to_json` writes."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"the description of the particles is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"the description of the particles must be a dictionary, got {type(values).__name__}")
        return cls.from_dict(values)


def differing_keys(a: ParticleInfo, b: ParticleInfo, ignore: tuple[str, ...] = ()) -> list[str]:
    """``["seed: 1 and 2", ...]``: where two infos differ, for error messages."""
    x, y = a.to_dict(), b.to_dict()
    return [f"{key}: {x[key]!r} and {y[key]!r}" for key in x if x[key] != y[key] and key not in ignore]


def _check(info: ParticleInfo) -> None:
    if info.dim not in (1, 2, 3):
        raise DataError(f"dim must be 1, 2 or 3, got {info.dim}")
    if not (math.isfinite(info.interval) and info.interval > 0):
        raise DataError(f"interval must be a positive number of seconds, got {info.interval}")
    if len(info.bounds) != info.dim or not all(
        math.isfinite(low) and math.isfinite(high) and low < high for low, high in info.bounds
    ):
        raise DataError(f"bounds must be {info.dim} pairs (low, high) with low < high, got {info.bounds}")
    if len(info.gravity) != info.dim or not all(map(math.isfinite, info.gravity)):
        raise DataError(f"gravity must be {info.dim} finite numbers, got {info.gravity}")
    if not 1 <= len(info.kinds) <= MAX_KINDS or len(set(info.kinds)) != len(info.kinds) or not all(info.kinds):
        raise DataError(f"kinds must be 1 to {MAX_KINDS} distinct names, got {info.kinds}")

"""Checks of the box that test functions live on: its sides, its corner, and where test functions vanish."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sciml.errors import ConfigError, did_you_mean
from sciml.physics.boundary import sides


@dataclass(frozen=True)
class Box:
    """``lengths`` and low corner ``origin`` of each axis; ``dirichlet``: the sides where test functions vanish."""

    lengths: tuple[float, ...]
    origin: tuple[float, ...]
    dirichlet: frozenset[str]

    @property
    def dim(self) -> int:
        return len(self.lengths)

    def fixed(self, axis: int) -> tuple[bool, bool]:
        """Whether the low and the high side of ``axis`` are Dirichlet sides."""
        low, high = sides(self.dim)[2 * axis : 2 * axis + 2]
        return low in self.dirichlet, high in self.dirichlet


def checked_box(lengths: Sequence[float], origin: Sequence[float] | None, dirichlet: Iterable[str] | None) -> Box:
    """The box, with the origin 0 and all sides Dirichlet unless said. Raises ``ConfigError``: other than 1 to 3 axes,
    lengths that are not positive, an origin that is not finite or of another dimension, unknown sides."""
    lengths = tuple(float(length) for length in lengths)
    dim = len(lengths)
    origin = (0.0,) * dim if origin is None else tuple(float(x) for x in origin)
    if not 1 <= dim <= 3 or len(origin) != dim:
        raise ConfigError(f"lengths {lengths} and origin {origin}: expected one entry an axis in each, 1 to 3 axes")
    if any(not math.isfinite(length) or length <= 0 for length in lengths):
        raise ConfigError(f"lengths are {lengths}; expected positive numbers")
    if any(not math.isfinite(x) for x in origin):
        raise ConfigError(f"origin is {origin}; expected finite numbers")
    names = sides(dim) if dirichlet is None else [dirichlet] if isinstance(dirichlet, str) else list(dirichlet)
    for name in names:
        if name not in sides(dim):
            raise ConfigError(f"unknown side {name!r} of a {dim}D box{did_you_mean(name, sides(dim))}")
    return Box(lengths, origin, frozenset(names))


def checked_mass(mass: float) -> float:
    """The weight of v^2 in the norm of test functions. Raises ``ConfigError`` where it is negative or not finite."""
    if not (math.isfinite(mass) and mass >= 0):
        raise ConfigError(f"mass is {mass}; expected 0 or a positive number")
    return float(mass)

"""What the four sides of the box do: walls, open sides, and walls with a mouth through which fluid enters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from sciml.errors import ConfigError, did_you_mean

SIDES = ("x_low", "x_high", "y_low", "y_high")


@dataclass(frozen=True)
class Wall:
    """Nothing passes. ``slip``: the fluid slides freely along it; else it sticks."""

    slip: bool = False


@dataclass(frozen=True)
class Open:
    """The box ends in still air of pressure 0: whatever is there leaves, and what enters is air that was at rest."""


@dataclass(frozen=True, eq=False)
class Inlet:
    """A wall with a mouth. ``velocity``: m/s *into* the box through each face of the side, ``(B, n)``, ``(n,)`` or a
    number, 0 where the side is wall; ``fraction``: the volume fraction of water in what enters, same shapes.
    ``slip``: whether fluid slides along the wall part. The velocity along the mouth is 0."""

    velocity: Tensor | float
    fraction: Tensor | float = 1.0
    slip: bool = False


Side: TypeAlias = Wall | Open | Inlet


def checked_sides(
    sides: Mapping[str, Side], batch: int, cells: tuple[int, int], *, dtype: torch.dtype, device: torch.device
) -> dict[str, Side]:
    """All four sides (``Wall()`` where none is given), with the numbers of inlets as ``(B, n)`` tensors.

    Raises ``ConfigError``: an unknown side or kind, shapes that do not fit, velocities that are negative or not
    finite, an inlet through which nothing enters, fractions outside [0, 1].
    """
    unknown = [name for name in sides if name not in SIDES]
    if unknown:
        raise ConfigError(f"There is no side {unknown[0]!r}{did_you_mean(unknown[0], SIDES)}")
    checked: dict[str, Side] = {}
    for name in SIDES:
        side = sides.get(name, Wall())
        if isinstance(side, Inlet):
            shape = (batch, cells[1] if name.startswith("x") else cells[0])
            velocity = _profile(f"The velocity of the inlet {name}", side.velocity, shape)
            fraction = _profile(f"The fraction of the inlet {name}", side.fraction, shape)
            _check_inlet(name, velocity, fraction)
            side = Inlet(velocity.to(device, dtype), fraction.to(device, dtype), side.slip)
        elif not isinstance(side, Wall | Open):
            raise ConfigError(f"The side {name} is {side!r}; it must be a Wall, an Open or an Inlet.")
        checked[name] = side
    return checked


def _profile(what: str, values: Tensor | float, shape: tuple[int, int]) -> Tensor:
    values = torch.as_tensor(values, dtype=torch.float64)
    try:
        return values.broadcast_to(shape)
    except RuntimeError:
        raise ConfigError(f"{what} has the shape {tuple(values.shape)}; expected {shape} = (batch, faces).") from None


def _check_inlet(name: str, velocity: Tensor, fraction: Tensor) -> None:
    bad = (~(torch.isfinite(velocity) & (velocity >= 0))).any(1).nonzero()
    if len(bad):
        raise ConfigError(
            f"The inlet {name} of case {int(bad[0])} has velocities that are negative or not finite; they point into "
            "the box. What leaves does so through an Open side."
        )
    closed = (velocity == 0).all(1).nonzero()
    if len(closed):
        raise ConfigError(
            f"Nothing enters through the inlet {name} of case {int(closed[0])}: its velocity is 0 on every face. Is "
            "its mouth outside the box, or thinner than half a cell? Use a Wall where nothing enters."
        )
    bad = (~((fraction >= 0) & (fraction <= 1))).any(1).nonzero()
    if len(bad):
        raise ConfigError(f"The inlet {name} of case {int(bad[0])} has water fractions outside [0, 1].")

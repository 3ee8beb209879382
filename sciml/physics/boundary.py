"""Boundary conditions of incompressible flow in a box, one per side, and the values they put on the faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from sciml.errors import ConfigError, did_you_mean
from sciml.physics.grid import Grid

AXIS_NAMES = ("x", "y", "z")
Value: TypeAlias = float | Tensor


@dataclass(frozen=True)
class Wall:
    """No slip, no flow through: velocity 0."""


@dataclass(frozen=True, eq=False)
class MovingWall:
    """A wall that slides in its own plane. ``velocity``: one entry per component, a number or ``(B,)``; the
    component normal to the wall must be the number 0. The lid of a cavity: ``MovingWall((lid_speed,
    0.0))``."""

    velocity: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Inlet:
    """Prescribed velocity. ``velocity``: one entry per component, each a number, ``(B,)``, or a profile
    ``(B, *side)``, where ``side`` is the face shape of that component without the axis of the side (for the
    normal component: the cells of the side)."""

    velocity: tuple[Value, ...]


@dataclass(frozen=True)
class Outlet:
    """Zero normal gradient of every component; a uniform correction makes the outflow balance the inflow."""


@dataclass(frozen=True)
class Periodic:
    """The side is glued to the opposite one."""


Boundary: TypeAlias = Wall | MovingWall | Inlet | Outlet | Periodic
Boundaries: TypeAlias = Mapping[str, Boundary]

# Per component i and axis j: what component i is on the low and the high side of axis j; None = zero gradient
# (outlet) or periodic. Shape: the closed face shape of component i with extent 1 along axis j.
Slab: TypeAlias = Tensor | None


@dataclass(frozen=True, eq=False)
class BoundaryValues:
    """Boundary conditions evaluated on a grid.

    ``slabs[i][j] = (low, high)``: values of velocity component i on the two sides of axis j, of the closed
    face shape of component i (n + 1 faces along i also when periodic) with extent 1 along j; None where the
    side is an outlet or periodic. ``outlets``: (axis, end) of every outlet, end 0 = low, 1 = high.
    """

    slabs: tuple[tuple[tuple[Slab, Slab], ...], ...]
    outlets: tuple[tuple[int, int], ...]
    has_inlet: bool


def sides(dim: int) -> tuple[str, ...]:
    """The names of the sides: ``("x_low", "x_high", "y_low", ...)``."""
    return tuple(f"{name}_{end}" for name in AXIS_NAMES[:dim] for end in ("low", "high"))


def check_boundaries(grid: Grid, boundaries: Boundaries) -> None:
    """``ConfigError`` for an unknown or missing side, or a side that does not fit the axis of the grid."""
    names = sides(grid.dim)
    for name in boundaries:
        if name not in names:
            raise ConfigError(f"Unknown side {name!r} in the boundaries{did_you_mean(name, names)}")
    missing = [name for name in names if name not in boundaries]
    if missing:
        raise ConfigError(
            f"The boundaries lack the side(s) {', '.join(missing)}; a {grid.dim}D box has {', '.join(names)}."
        )
    for j, axis in enumerate(grid.axes):
        for name in names[2 * j : 2 * j + 2]:
            boundary = boundaries[name]
            if not isinstance(boundary, Boundary):
                raise ConfigError(
                    f"Side {name!r} is a {type(boundary).__name__}; expected Wall(), MovingWall(...), "
                    "Inlet(...), Outlet() or Periodic()."
                )
            if isinstance(boundary, Periodic) != axis.periodic:
                was = "is Periodic()" if isinstance(boundary, Periodic) else "is not Periodic()"
                state = "periodic" if axis.periodic else "not periodic"
                raise ConfigError(
                    f"Side {name!r} {was} but the {AXIS_NAMES[j]} axis of the grid is {state}; both sides "
                    "of an axis and the axis itself must agree."
                )
            if isinstance(boundary, (MovingWall, Inlet)) and len(boundary.velocity) != grid.dim:
                raise ConfigError(
                    f"The velocity of side {name!r} has {len(boundary.velocity)} components; the grid has "
                    f"{grid.dim} axes."
                )
            if isinstance(boundary, MovingWall) and _nonzero(boundary.velocity[j]):
                raise ConfigError(
                    f"The moving wall {name!r} has a velocity through itself (component {AXIS_NAMES[j]}); use Inlet."
                )


def boundary_values(
    grid: Grid, boundaries: Boundaries, *, dtype: torch.dtype, device: torch.device | str | None = None
) -> BoundaryValues:
    """Evaluate ``boundaries`` on ``grid`` (see ``BoundaryValues``). Raises ``ConfigError`` (sides, shapes,
    batch)."""
    check_boundaries(grid, boundaries)
    names = sides(grid.dim)
    slabs = []
    for i in range(grid.dim):
        per_axis = []
        for j in range(grid.dim):
            pair = [
                _slab(grid, i, j, names[2 * j + end], boundaries[names[2 * j + end]], dtype, device) for end in (0, 1)
            ]
            per_axis.append((pair[0], pair[1]))
        slabs.append(tuple(per_axis))
    outlets = tuple((k // 2, k % 2) for k, name in enumerate(names) if isinstance(boundaries[name], Outlet))
    has_inlet = any(isinstance(boundaries[name], Inlet) for name in names)
    return BoundaryValues(tuple(slabs), outlets, has_inlet)


def _slab(
    grid: Grid,
    i: int,
    j: int,
    name: str,
    boundary: Boundary,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Slab:
    """Component ``i`` on the side ``name`` of axis ``j``."""
    if isinstance(boundary, (Outlet, Periodic)):
        return None
    shape = [axis.n + 1 if k == i else axis.n for k, axis in enumerate(grid.axes)]
    shape[j] = 1
    full = (grid.batch, *shape)
    if isinstance(boundary, Wall):
        return torch.zeros(full, dtype=dtype, device=device)
    value = torch.as_tensor(boundary.velocity[i], dtype=dtype, device=device)
    if value.ndim == 0 or value.shape == (grid.batch,):
        value = value.reshape(-1, *(1,) * grid.dim)
    elif value.ndim == 1 and (grid.dim > 1 or isinstance(boundary, MovingWall)):
        raise ConfigError(
            f"The velocity of side {name!r} has {value.shape[0]} values for a batch of {grid.batch} cases."
        )
    else:
        side = (grid.batch, *(n for k, n in enumerate(shape) if k != j))
        if i != j and grid.axes[i].periodic and value.shape[1:] != side[1:]:
            value = torch.cat([value, value.narrow(1 + i - (i > j), 0, 1)], 1 + i - (i > j))
        if value.shape != side:
            raise ConfigError(
                f"The {AXIS_NAMES[i]} velocity profile of side {name!r} has the shape {tuple(value.shape)}; "
                f"expected a number, ({grid.batch},) or {side}."
            )
        value = value.unsqueeze(1 + j)
    if not bool(torch.isfinite(value).all()):
        case = (~torch.isfinite(value)).nonzero()[0, 0].item()
        raise ConfigError(f"The velocity of side {name!r} is not finite in case {case}.")
    return value.expand(full)


def _nonzero(value: Value) -> bool:
    return bool((torch.as_tensor(value) != 0).any())

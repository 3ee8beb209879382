"""From the declared conditions of a field to rows: kinds, right-hand sides and their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciml.constraints.boundary_values.rows import Location, SideRows, lagrange_weights, side_distances
from sciml.errors import ConfigError, did_you_mean
from sciml.physics import (
    Dirichlet,
    Grid,
    Inlet,
    MovingWall,
    Neumann,
    Outlet,
    Periodic,
    Robin,
    Wall,
    boundary_values,
    check_boundaries,
    sides,
)

OF_VELOCITY = (Wall, MovingWall, Inlet, Outlet)
SMALLEST_SHARE = 1e-3
"""A row whose first point weighs less than this share of its largest weight is refused."""


def side_rows(
    field: str,
    conditions: Mapping[str, Any],
    grid: Grid,
    components: int,
    like: Tensor,
    *,
    order: int = 2,
    location: Location = "cells",
    tangential: bool = False,
) -> list[SideRows]:
    """The rows of a field on every side that is not periodic, in the dtype and on the device of ``like``.

    ``tangential``: of a velocity, none for the component normal to the side.

    Raises ``ConfigError`` for a missing or unknown side, a condition of another kind, values of another shape or not
    finite, too few points, and a mixed condition without weight on the first point.
    """
    velocity = _check_kinds(field, conditions, grid, components)
    width, names = order + 1, sides(grid.dim)
    rows = []
    for index, side in enumerate(names):
        axis, end = divmod(index, 2)
        condition = conditions[side]
        if isinstance(condition, Periodic):
            continue
        cells = grid.axes[axis].n
        points = cells + (location == "nodes")
        if points < 2 * width:
            raise ConfigError(
                f"the {'xyz'[axis]} axis has {points} {location}; boundary values of order {order} on both of its "
                f"sides need at least {2 * width}: use a finer grid{' or order=1' if order > 1 else ''}"
            )
        a, b = _coefficients(field, side, condition, grid.batch, like.device)
        near = side_distances(grid.axes[axis], end, width, location)
        length = grid.lengths[:, axis, None].to(like.device, torch.float64)
        weights = _weights(a, b, near, length)
        lower = torch.nn.functional.pad(_weights(a, b, near[:-1], length), (0, 1))
        if isinstance(condition, Robin):
            _check_first(field, side, weights)
        parts = _parts(condition)
        value = _right_hand_side(field, side, condition, grid, conditions, like, location)
        normal, keep = None, None
        if velocity and tangential:
            normal, keep = axis, like.new_ones(1, components, *value.shape[2:])
            keep[:, axis] = 0
        rows.append(
            SideRows(
                axis,
                end,
                weights.to(like.dtype),
                lower.to(like.dtype),
                value,
                prescribes_value=not isinstance(condition, (Neumann, Robin, Outlet)),
                zero=all(isinstance(part, (int, float)) and part == 0 for part in parts),
                varies=any(isinstance(part, Tensor) and part.ndim > 1 for part in parts),
                normal=normal,
                keep=keep,
            )
        )
    return rows


def _check_kinds(field: str, conditions: Mapping[str, Any], grid: Grid, components: int) -> bool:
    """Whether they are conditions of a velocity. Raises ``ConfigError`` for sides and kinds that do not fit."""
    if any(isinstance(condition, OF_VELOCITY) for condition in conditions.values()):
        if components != grid.dim:
            raise ConfigError(
                f"the field {field!r} has {components} component(s) on a {grid.dim}D grid and the boundary conditions "
                "of a velocity; use Dirichlet, Neumann, Robin or Periodic"
            )
        check_boundaries(grid, conditions)
        return True
    names = sides(grid.dim)
    for side in conditions:
        if side not in names:
            raise ConfigError(f"the conditions of {field!r} name the unknown side {side!r}{did_you_mean(side, names)}")
    missing = [side for side in names if side not in conditions]
    if missing:
        raise ConfigError(
            f"the conditions of {field!r} lack the side(s) {', '.join(missing)}; a {grid.dim}D box has "
            f"{', '.join(names)}"
        )
    for index, side in enumerate(names):
        condition, axis = conditions[side], grid.axes[index // 2]
        if not isinstance(condition, (Dirichlet, Neumann, Robin, Periodic)):
            raise ConfigError(
                f"the condition of {field!r} on {side} is a {type(condition).__name__}; expected Dirichlet, Neumann, "
                "Robin or Periodic, or those of a velocity on all sides"
            )
        if isinstance(condition, Periodic) != axis.periodic:
            state = "periodic" if axis.periodic else "not periodic"
            raise ConfigError(
                f"the condition of {field!r} on {side} is {type(condition).__name__} but that axis of the grid is "
                f"{state}; both sides of an axis and the axis itself must agree"
            )
    return False


def _coefficients(
    field: str, side: str, condition: Any, batch: int, device: torch.device
) -> tuple[float | Tensor, float | Tensor]:
    """a and b of ``a u + b du/dn``: numbers, or ``(B, 1)`` float64."""
    if isinstance(condition, (Neumann, Outlet)):
        return 0.0, 1.0
    if not isinstance(condition, Robin):
        return 1.0, 0.0
    pair = []
    for name, value in (("a", condition.a), ("b", condition.b)):
        value = torch.as_tensor(value, dtype=torch.float64, device=device)
        if value.shape not in ((), (batch,)):
            raise ConfigError(
                f"{name} of the Robin condition of {field!r} on {side} has shape {tuple(value.shape)}; this layer "
                f"takes a number or ({batch},): the coefficients must be the same all along the side"
            )
        _check_finite(f"{name} of the condition of {field!r} on {side}", value)
        pair.append(value.reshape(-1, 1))
    return pair[0], pair[1]


def _weights(a: float | Tensor, b: float | Tensor, distances: list[float], length: Tensor) -> Tensor:
    """The weights of ``a u + b du/dn``, ``(1 or B, width)`` float64."""
    value, slope = torch.tensor(lagrange_weights(distances), dtype=torch.float64, device=length.device).unsqueeze(1)
    if isinstance(b, float) and b == 0:
        return a * value
    return a * value - b * slope / length  # the normal points outwards, the distances inwards


def _check_first(field: str, side: str, weights: Tensor) -> None:
    weights = weights.detach().abs()
    bad = weights[:, 0] <= SMALLEST_SHARE * weights.amax(1)
    if bool(bad.any()):
        raise ConfigError(
            f"a and b of the Robin condition of {field!r} on {side} in case {int(bad.nonzero()[0])} cancel on the "
            "first point, so they do not determine it; expected a and b of the same sign and not both 0"
        )


def _parts(condition: Any) -> tuple[Any, ...]:
    """The numbers and tensors that the right-hand side is made of."""
    if isinstance(condition, (Wall, Outlet)):
        return ()
    return condition.velocity if isinstance(condition, (MovingWall, Inlet)) else (condition.value,)


def _right_hand_side(
    field: str, side: str, condition: Any, grid: Grid, conditions: Mapping[str, Any], like: Tensor, location: Location
) -> Tensor:
    """``(1 or B, 1 or C, *side)``, extent 1 along the axis of the side."""
    axis = sides(grid.dim).index(side) // 2
    parts = _parts(condition)
    shape = tuple(each.n + (location == "nodes") if k != axis else 1 for k, each in enumerate(grid.axes))
    if not parts:
        return like.new_zeros(()).expand(1, 1, *shape)
    if location == "cells" and isinstance(condition, Inlet):
        return _inlet(conditions, grid, axis, sides(grid.dim).index(side) % 2, like)
    what = f"the value of {field!r} on {side}"
    return torch.cat([_value(part, what, shape, axis, grid.batch, like) for part in parts], 1)


def _value(value: Any, what: str, shape: tuple[int, ...], axis: int, batch: int, like: Tensor) -> Tensor:
    """``(B, 1, *shape)`` from a number, ``(B,)`` or ``(B, *side)``."""
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    side = tuple(n for k, n in enumerate(shape) if k != axis)
    if value.shape == (batch, *side):
        value = value.unsqueeze(axis + 1)
    elif value.shape in ((), (batch,)):
        value = value.reshape(-1, *(1,) * len(shape))
    else:
        profile = f" or {(batch, *side)}" if side else ""
        raise ConfigError(f"{what} has shape {tuple(value.shape)}; expected a number, ({batch},){profile}")
    _check_finite(what, value)
    return value.expand(batch, *shape).unsqueeze(1)


def _inlet(conditions: Mapping[str, Any], grid: Grid, axis: int, end: int, like: Tensor) -> Tensor:
    """An inlet's velocity at the cells along the side: its profiles are given at the faces (see ``Inlet``)."""
    slabs = boundary_values(grid, conditions, dtype=like.dtype, device=like.device).slabs
    components = []
    for i in range(grid.dim):
        slab = slabs[i][axis][end]
        if i != axis:
            n = grid.axes[i].n
            slab = 0.5 * (slab.narrow(i + 1, 0, n) + slab.narrow(i + 1, 1, n))
        else:
            slab = slab.narrow(i + 1, 0, 1)
        components.append(slab)
    return torch.stack(components, 1)


def _check_finite(what: str, value: Tensor) -> None:
    finite = torch.isfinite(value.detach())
    if not bool(finite.all()):
        case = int((~finite).nonzero()[0, 0]) if value.ndim else 0
        raise ConfigError(f"{what} is not finite in case {case}")

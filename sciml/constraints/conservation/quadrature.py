"""Weights ``w`` whose sum ``w . u`` is the integral of a field."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics import Grid


def cell_volumes(grid: Grid, fluid: Tensor | None = None) -> Tensor:
    """Finite-volume weights ``(B, *grid)`` float64: the volume of each cell (area, length), 0 where there is no fluid.

    Exact for fields of cell averages, with a front inside a cell as well.
    """
    volumes = torch.ones(grid.batch, *grid.shape, dtype=torch.float64, device=grid.lengths.device)
    for k, axis in enumerate(grid.axes):
        widths = grid.lengths[:, k, None].double() * axis.widths.to(grid.lengths.device)
        volumes = volumes * widths.reshape(-1, *(axis.n if j == k else 1 for j in range(grid.dim)))
    if fluid is None:
        return volumes
    if fluid.shape[1:] != grid.shape or fluid.shape[0] not in (1, grid.batch):
        raise ConfigError(
            f"The fluid mask has the shape {tuple(fluid.shape)}; expected (1 or {grid.batch}, "
            f"{', '.join(str(n) for n in grid.shape)})."
        )
    return volumes * fluid.to(volumes)


def trapezoid_weights(points: Tensor) -> Tensor:
    """Trapezoidal weights ``(..., n)`` float64 of values at rising ``points (..., n)``, from the first to the last.

    Second order for smooth fields only: a front between two points costs up to half a spacing times its height.
    """
    points = _checked(points)
    half = 0.5 * points.diff(dim=-1)
    zero = torch.zeros_like(half[..., :1])
    return torch.cat([half, zero], -1) + torch.cat([zero, half], -1)


def front_weights(points: Tensor, front: Tensor, ends: tuple[float | Tensor, float | Tensor]) -> Tensor:
    """Weights ``(B, n)`` float64 of point values of a field that jumps, or bends, at a known place.

    The integral from ``ends[0]`` to ``ends[1]`` of the field that is linear between neighbouring points on each side
    of ``front (B,)`` and continues the line of its last two points (the value, if there is only one) up to the front
    and to the ends. A side without any point is taken from the other. ``points (n,)`` or ``(B, n)`` rising, n >= 2.
    Second order with the front anywhere; differentiable in the front.
    """
    points = _checked(points)
    front = torch.as_tensor(front, dtype=torch.float64, device=points.device).reshape(-1)
    points = points.expand(len(front), points.shape[-1])
    n = points.shape[-1]
    low, high = (torch.as_tensor(end, dtype=torch.float64, device=points.device).expand(len(front)) for end in ends)
    if bool((low > points[:, 0]).any()) or bool((high < points[:, -1]).any()):
        raise ConfigError("The ends of the integral must lie outside of the points, or on the first and the last.")
    below = (points <= front[:, None]).sum(-1)  # how many points lie on the lower side of the front
    weights = torch.zeros_like(points)
    splits = (below > 0) & (below < n)
    for k in range(n - 1):  # between point k and the next, unless the front is there
        inside = ~(splits & (below == k + 1))
        half = torch.where(inside, 0.5 * (points[:, k + 1] - points[:, k]), 0.0)
        weights = weights + half[:, None] * _one(n, (k, k + 1), points)
    last = (below - 1).clamp(0, n - 1)
    parts = [  # from, to, the point at the edge, its neighbour on the same side, whether there is such a piece
        (points.gather(1, last[:, None])[:, 0], front, last, last - 1, splits, below >= 2),
        (front, points.gather(1, below.clamp(max=n - 1)[:, None])[:, 0], below, below + 1, splits, below <= n - 2),
        (low, points[:, 0], torch.zeros_like(below), torch.ones_like(below), None, below != 1),
        (points[:, -1], high, torch.full_like(below, n - 1), torch.full_like(below, n - 2), None, below != n - 1),
    ]
    for start, stop, edge, neighbour, exists, has_line in parts:
        weights = weights + _line(points, start, stop, edge, neighbour, exists, has_line)
    return weights


def _line(points, start, stop, edge, neighbour, exists, has_line) -> Tensor:
    """Weights of the integral from start to stop of the line through two points, or of the value at the edge."""
    n = points.shape[-1]
    edge, neighbour = edge.clamp(0, n - 1)[:, None], neighbour.clamp(0, n - 1)[:, None]
    length = stop - start
    if exists is not None:
        length = torch.where(exists, length, 0.0)
    x, far = points.gather(1, edge)[:, 0], points.gather(1, neighbour)[:, 0]
    distance = torch.where(has_line, x - far, 1.0)
    slope = torch.where(has_line, length * (0.5 * (start + stop) - x) / distance, 0.0)
    zero = torch.zeros_like(points)
    return zero.scatter_add(1, edge, (length + slope)[:, None]).scatter_add(1, neighbour, -slope[:, None])


def _one(n: int, places: tuple[int, int], like: Tensor) -> Tensor:
    row = torch.zeros(n, dtype=like.dtype, device=like.device)
    row[list(places)] = 1.0
    return row


def _checked(points: Tensor) -> Tensor:
    points = torch.as_tensor(points).double()
    if points.ndim < 1 or points.shape[-1] < 2 or not bool((points.diff(dim=-1) > 0).all()):
        raise ConfigError(
            f"The points have the shape {tuple(points.shape)}; expected at least two that rise strictly along the last "
            "axis."
        )
    return points

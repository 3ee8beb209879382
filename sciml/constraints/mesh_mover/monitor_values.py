"""A monitor read at points: values on a grid of the box, or a function of points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.sampling import sample
from sciml.errors import DataError

Monitor = Tensor | Callable[[Tensor], Tensor]
"""Cell-centred values ``(B, *m)`` on any grid of the box, or a function of points ``(B, *any, d) -> (B, *any)``."""


def monitor_at(monitor: Monitor, points: Tensor, box: Box) -> Tensor:
    """The monitor at ``points (B, *any, d)``, ``(B, *any)``; points beyond a wall are taken to it.

    Values on a grid are sampled multilinearly, and never leave the range of the values (extrapolation in the half cell
    next to a wall could make them negative). Raises ``DataError`` for a function that returns something else.
    """
    if isinstance(monitor, Tensor):
        values = sample(monitor.unsqueeze(1), into_box(points.to(monitor), box), box).squeeze(1)
        each = (-1, *(1,) * (values.ndim - 1))
        low, high = monitor.flatten(1).aminmax(dim=1)
        return values.clamp(low.reshape(each), high.reshape(each))
    values = monitor(into_box(points, box))
    if not isinstance(values, Tensor) or values.shape != points.shape[:-1]:
        given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise DataError(
            f"The monitor gave {given} at points {tuple(points.shape)}: {tuple(points.shape[:-1])} expected."
        )
    return values


def into_box(points: Tensor, box: Box) -> Tensor:
    """Points into the box: clamped to walls, wrapped along periodic axes."""
    columns = []
    for x, length, periodic in zip(points.unbind(-1), box.lengths, box.periodic, strict=True):
        columns.append(x.remainder(length) if periodic else x.clamp(0.0, length))
    return torch.stack(columns, -1)

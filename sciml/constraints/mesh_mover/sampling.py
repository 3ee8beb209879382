"""A field on the uniform grid of a box, read at any points of it."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.multilinear import multilinear
from sciml.errors import ConfigError, DataError

Location = Literal["cell", "node"]


def sample(field: Tensor, points: Tensor, box: Box, location: Location = "cell") -> Tensor:
    """``field (B, C, *n)`` of a uniform grid at ``points (B, *any, d)`` in metres: ``(B, C, *any)``, multilinear.

    ``location``: values at the centres of ``n`` cells, or at the ``n`` corners of ``n - 1`` cells, both ends
    included. Exact for linear fields up to the walls: from cell centres it goes on linearly in the half cell next to
    a wall. Periodic axes wrap. A batch of 1 in either serves every sample of the other. Differentiable in the field
    and the points.

    Raises:
        ConfigError: an unknown location.
        DataError: shapes that do not fit the box, or less than two values along an axis.
    """
    check_location(location)
    shape = check_field(field, points, box)
    at_cells = location == "cell"
    cells = [n if at_cells else n - 1 for n in shape]
    scale = [n / length for n, length in zip(cells, box.lengths, strict=True)]
    index = points.flatten(1, -2) * torch.tensor(scale, dtype=points.dtype, device=points.device)
    if at_cells:
        index = index - 0.5
    if any(box.periodic):
        index = wrapped(index, box, cells)
        if at_cells:
            field = closed(field, box, first=2)
    return multilinear(field, index).unflatten(2, points.shape[1:-1])


def wrapped(index: Tensor, box: Box, cells: list[int]) -> Tensor:
    """Index coordinates ``(..., d)`` taken into the first period of the periodic axes, of ``cells`` points each."""
    return torch.stack(
        [
            i.remainder(n) if periodic else i
            for i, n, periodic in zip(index.unbind(-1), cells, box.periodic, strict=True)
        ],
        -1,
    )


def closed(values: Tensor, box: Box, first: int) -> Tensor:
    """Values with the first layer repeated behind the last one along every periodic axis; axis k of the box is axis
    ``first + k`` of the tensor.
    """
    for axis, periodic in enumerate(box.periodic, first):
        if periodic:
            values = torch.cat([values, values.narrow(axis, 0, 1)], axis)
    return values


def check_location(location: str) -> None:
    """Raises ConfigError for anything but ``"cell"`` and ``"node"``."""
    if location not in get_args(Location):
        raise ConfigError(f"location is {location!r}; choose 'cell' (values at cell centres) or 'node' (at corners)")


def check_field(field: Tensor, points: Tensor, box: Box) -> tuple[int, ...]:
    """Number of values along each axis; raises DataError for shapes that do not fit the box or one another."""
    if field.ndim != box.dim + 2:
        raise DataError(
            f"a field of shape {tuple(field.shape)} does not fit a box of {box.dim} dimensions; expected "
            f"(batch, channels, {', '.join('xyz'[: box.dim])})"
        )
    if points.ndim < 3 or points.shape[-1] != box.dim:
        raise DataError(
            f"points of shape {tuple(points.shape)} are not points of a box of {box.dim} dimensions; expected "
            f"(batch, ..., {box.dim})"
        )
    if len(field) != len(points) and 1 not in (len(field), len(points)):
        raise DataError(
            f"{len(field)} fields cannot be read at the points of {len(points)} samples; give as many, or 1"
        )
    shape = tuple(field.shape[2:])
    if min(shape) < 2:
        raise DataError(f"a field of {shape} values cannot be interpolated; at least 2 are needed along every axis")
    return shape

"""The nodes of a moved mesh as a lattice without gaps: it covers the box up to its walls, or one period of it.

Corners do so already. Cell centres leave half a cell free at every wall, and one cell on a periodic axis. On a
periodic axis the first layer is repeated behind the last, one length further. At a wall every centre next to it gets
a ghost node, its foot on the wall; fields are continued there by their gradient at the centre (differences along the
lattice, turned into space by its Jacobian), which is exact for linear fields and of second order for smooth ones. The
cells between can only fold where the centres next to the wall are out of order along it, whatever their spacing;
continuing the map of the outermost cells instead folds as soon as neighbouring cells differ by more than twice in
width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.sampling import Location


def ghosts(box: Box, location: Location) -> tuple[int, ...]:
    """Layers in front of the first node of each axis: 1 where cell centres meet a wall, 0 elsewhere."""
    return tuple(int(location == "cell" and not periodic) for periodic in box.periodic)


def close_nodes(nodes: Tensor, box: Box, location: Location) -> Tensor:
    """``nodes (B, *m, d)`` to ``(B, *l, d)``: l = m for corners; for centres m + 2 at walls, m + 1 on periodic axes."""
    if location == "node":
        return nodes
    for axis, (length, periodic) in enumerate(zip(box.lengths, box.periodic, strict=True)):
        if periodic:
            shift = torch.zeros(box.dim, dtype=nodes.dtype, device=nodes.device)
            shift[axis] = length
            nodes = torch.cat([nodes, nodes.narrow(1 + axis, 0, 1) + shift], 1 + axis)
    for axis, (length, periodic) in enumerate(zip(box.lengths, box.periodic, strict=True)):
        if not periodic:
            here = torch.arange(box.dim, device=nodes.device) == axis
            low, high = _ends(nodes, 1 + axis)
            nodes = torch.cat([low.masked_fill(here, 0.0), nodes, high.masked_fill(here, length)], 1 + axis)
    return nodes


def close_values(values: Tensor, nodes: Tensor, box: Box, location: Location) -> Tensor:
    """``values (B, C, *m)`` on the lattice of ``close_nodes``, of which ``nodes (B, *l, d)`` is the result."""
    if location == "node":
        return values
    walls = [axis for axis, periodic in enumerate(box.periodic) if not periodic]
    if walls and len(values) < len(nodes):
        values = values.expand(len(nodes), *values.shape[1:])
    for axis, periodic in enumerate(box.periodic):
        if periodic:
            values = torch.cat([values, values.narrow(2 + axis, 0, 1)], 2 + axis)
    nodes = nodes.movedim(-1, 1)
    # the ghosts of the walls not yet reached are left out, those of the walls behind take part
    for done, axis in enumerate(walls):
        inner = nodes
        for other in walls[done + 1 :]:
            inner = inner.narrow(2 + other, 1, inner.shape[2 + other] - 2)
        last = inner.shape[2 + axis] - 1
        low = _continued(values, inner, axis, (0, 1, 2), box)
        high = _continued(values, inner, axis, (last, last - 1, last - 2), box)
        values = torch.cat([low, values, high], 2 + axis)
    return values


def _ends(nodes: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    return nodes.narrow(axis, 0, 1), nodes.narrow(axis, nodes.shape[axis] - 1, 1)


def _continued(values: Tensor, nodes: Tensor, axis: int, layers: tuple[int, int, int], box: Box) -> Tensor:
    """Values of one layer of ghosts, from the layers (ghost, next to the wall, behind it) of ``nodes (B, d, *l)``;
    ``values (B, C, *)`` has no ghosts on this axis.
    """
    ghost, near, far = (nodes.narrow(2 + axis, layer, 1) for layer in layers)
    offset = layers[0] - layers[1]
    first = 0 if offset < 0 else values.shape[2 + axis] - 1
    near_value = values.narrow(2 + axis, first, 1)
    far_value = values.narrow(2 + axis, first - offset, 1)
    # row a of the Jacobian: the derivative of the nodes, and of the values, along lattice axis a
    rows, right = [], []
    for a in range(box.dim):
        if a == axis:
            rows.append(offset * (near - far))
            right.append(offset * (near_value - far_value))
        else:
            rows.append(_difference(near, 2 + a, box.periodic[a]))
            right.append(_difference(near_value, 2 + a, box.periodic[a]))
    # Cramer's rule for the component of the gradient along the wall's normal
    cofactors = [_cofactor([row.unbind(1) for row in rows], a, axis) for a in range(box.dim)]
    determinant = sum(row[:, axis] * cofactor for row, cofactor in zip(rows, cofactors, strict=True))
    slope = sum(cofactor[:, None] * change for cofactor, change in zip(cofactors, right, strict=True))
    return near_value + slope * ((ghost - near)[:, axis] / determinant)[:, None]


def _difference(f: Tensor, axis: int, periodic: bool) -> Tensor:
    """Along an axis: central, and one-sided at its ends; on a closed periodic axis central there too."""
    n = f.shape[axis]
    step = f.narrow(axis, 1, n - 1) - f.narrow(axis, 0, n - 1)
    first, last = step.narrow(axis, 0, 1), step.narrow(axis, n - 2, 1)
    ends = (last, first) if periodic else (first, last)
    step = torch.cat([ends[0], step, ends[1]], axis)
    return 0.5 * (step.narrow(axis, 0, n) + step.narrow(axis, 1, n))


def _cofactor(matrix: list[tuple[Tensor, ...]], row: int, column: int) -> Tensor:
    rows = [r for r in range(len(matrix)) if r != row]
    columns = [c for c in range(len(matrix)) if c != column]
    if len(rows) == 1:
        minor = matrix[rows[0]][columns[0]]
    else:
        (a, b), (c, d) = ([matrix[r][k] for k in columns] for r in rows)
        minor = a * d - b * c
    return minor if (row + column) % 2 == 0 else -minor

"""What a mesh is worth: volumes, folds, and how evenly the monitor is shared out among its cells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box, cell_corner, check_corners
from sciml.constraints.mesh_mover.monitor_values import Monitor, monitor_at

GAUSS_2 = ((0.5 - 12**-0.5, 0.5), (0.5 + 12**-0.5, 0.5))
GAUSS_3 = ((0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18))
"""Gauss points and weights on [0, 1]."""


def cell_volumes(corners: Tensor) -> Tensor:
    """Signed volume of each cell ``(B, n_1, …, n_d)``, m^d; negative where a cell is turned over.

    2D: half the cross product of the diagonals (shoelace). 3D: the integral of the Jacobian of the trilinear map,
    quadratic along each axis and so exact by two Gauss points an axis.
    """
    dim = check_corners(corners)
    if dim == 2:
        first = cell_corner(corners, (1, 1)) - cell_corner(corners, (0, 0))
        second = cell_corner(corners, (0, 1)) - cell_corner(corners, (1, 0))
        return determinant(torch.stack((first, second), -1)) / 2
    return sum(weight * jacobian for _, jacobian, weight in _quadrature(corners, GAUSS_2))


def corner_jacobians(corners: Tensor) -> Tensor:
    """The least of the determinants of the edges that meet at the 2^d corners of each cell ``(B, n_1, …, n_d)``.

    In m^d: of a uniform mesh it is the volume of a cell. In 2D a bilinear cell is a one-to-one image exactly where it
    is positive; in 3D it must be.
    """
    dim = check_corners(corners)
    edges = [corners.diff(dim=axis + 1) for axis in range(dim)]
    cells = [n - 1 for n in corners.shape[1:-1]]
    least = None
    for which in product((0, 1), repeat=dim):
        at = [_meeting(edges[axis], axis, which, cells) for axis in range(dim)]
        jacobian = determinant(torch.stack(at, -1))
        least = jacobian if least is None else torch.minimum(least, jacobian)
    return least


def folded(corners: Tensor) -> Tensor:
    """Number of cells of each mesh with a corner Jacobian that is not positive, whole numbers ``(B,)``."""
    return (~(corner_jacobians(corners) > 0)).flatten(1).sum(1)


def mass(corners: Tensor, monitor: Monitor, box: Box) -> Tensor:
    """Integral of the monitor over each cell ``(B, n_1, …, n_d)``, by 3^d Gauss points of the multilinear map.

    ``monitor``: cell-centred values on any grid of the box ``(B, *m)``, or a function of points, as for
    ``monge_ampere``.
    """
    points, jacobians, weights = zip(*_quadrature(corners, GAUSS_3), strict=True)
    values = monitor_at(monitor, torch.stack(points, 1), box).unbind(1)
    return sum(w * m * jacobian for w, m, jacobian in zip(weights, values, jacobians, strict=True))


def equidistribution_spread(corners: Tensor, monitor: Monitor, box: Box) -> Tensor:
    """Standard deviation over mean of ``mass`` over the cells of each mesh ``(B,)``; 0: equidistributed."""
    masses = mass(corners, monitor, box).flatten(1)
    return masses.std(1, correction=0) / masses.mean(1)


def determinant(columns: Tensor) -> Tensor:
    """Determinant of 2 x 2 or 3 x 3 matrices in the last two axes, by formula: faster than an LU."""
    if columns.shape[-1] == 2:
        (a, b), (c, d) = (row.unbind(-1) for row in columns.unbind(-2))
        return a * d - b * c
    x, y, z = columns.unbind(-1)
    return (torch.linalg.cross(x, y, dim=-1) * z).sum(-1)


def _meeting(edges: Tensor, axis: int, which: tuple[int, ...], cells: list[int]) -> Tensor:
    """Of the edges along an axis, the one of each cell that ends at its corner ``which``."""
    for other, high in enumerate(which):
        if other != axis:
            edges = edges.narrow(other + 1, high, cells[other])
    return edges


def _quadrature(corners: Tensor, rule: tuple[tuple[float, float], ...]) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Image, Jacobian and weight of each point of a tensor-product rule in every cell."""
    dim = check_corners(corners)
    edges = [corners.diff(dim=axis + 1) for axis in range(dim)]
    for nodes in product(rule, repeat=dim):
        local = [s for s, _ in nodes]
        columns = [_along(edge, local, skip=axis) for axis, edge in enumerate(edges)]
        yield _along(corners, local), determinant(torch.stack(columns, -1)), math.prod(w for _, w in nodes)


def _along(values: Tensor, local: list[float], skip: int | None = None) -> Tensor:
    """Linear interpolation along every axis but one, at the local coordinates of each cell."""
    for axis, s in enumerate(local):
        if axis != skip:
            n = values.shape[axis + 1] - 1
            values = (1 - s) * values.narrow(axis + 1, 0, n) + s * values.narrow(axis + 1, 1, n)
    return values

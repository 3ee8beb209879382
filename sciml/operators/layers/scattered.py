"""Values at scattered points as fields on a grid."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.operators.layers.coordinates import cell_coordinates


def nearest_values(
    values: Tensor, points: Tensor, grid: Sequence[int], periodic: Sequence[bool] | None = None
) -> tuple[Tensor, Tensor]:
    """Each cell takes the value of its nearest point (a Voronoi tessellation), and how far away that is.

    So a network on a grid reads any number of points at any places [Fukami et al. 2021, Nature Machine Intelligence
    3:945].

    Args:
        values: ``(B, C, N)``.
        points: ``(B, N, dim)``, or ``(1, N, dim)`` for all cases, as fractions of the box.
        grid: cells along each axis.
        periodic: for each axis whether the distance goes around the box.

    Returns:
        The values ``(B, C, *grid)`` and the distances ``(B, 1, *grid)`` in units of the mean spacing of the points
        ``N**(-1 / dim)``.
    """
    cells = 0.5 * (cell_coordinates(grid, like=points)[0].flatten(1).mT + 1)  # (cells, dim)
    squares = points.new_zeros(points.shape[0], len(cells), points.shape[1])
    for axis in range(len(grid)):
        apart = (cells[:, axis, None] - points[:, None, :, axis]).abs()
        if periodic is not None and periodic[axis]:
            apart = torch.minimum(apart, 1 - apart)
        squares = squares + apart.square()
    nearest, index = squares.min(-1)
    found = values.gather(2, index.unsqueeze(1).expand(values.shape[0], values.shape[1], -1))
    distance = nearest.sqrt().unsqueeze(1) * points.shape[1] ** (1 / len(grid))
    distance = distance.expand(values.shape[0], -1, -1)
    return found.unflatten(2, tuple(grid)), distance.unflatten(2, tuple(grid))

"""Orientation of the water surface in the cells that it crosses, from the fractions of 3 x 3 cells.

All in coordinates of the unit cell, where a straight surface stays straight and fractions do not depend on the cell's
size: the normal there is ``m = (n_x h_x, n_y h_y)`` with ``n`` the normal in physical units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError

_MARGIN = 64  # roundings of the data type within which a cell is full or empty


def mixed_cells(fraction: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of the fraction (0 or 1) without the cells that the surface crosses, and the indices ``(M,)`` of
    the latter in the flattened ``fraction (B, nx, ny)``.

    A cell counts as full or empty within ``_MARGIN`` roundings: closer than that the fraction carries no shape. What
    such a cell holds of the other fluid stays until the surface passes.
    """
    filled = fraction.contiguous().round()  # whose memory is addressed below
    crossed = (fraction - filled).abs_() > _MARGIN * torch.finfo(fraction.dtype).eps
    cells = crossed.flatten().nonzero().squeeze(1)
    filled.view(-1).index_fill_(0, cells, 0.0)
    return filled, cells


def neighbourhoods(fraction: Tensor, cells: Tensor, fluid: Tensor | None = None) -> Tensor:
    """The fractions ``(3, 3, M)`` around ``cells`` (indices into the flattened ``fraction (B, nx, ny)``).

    Beyond a side of the box and in a solid (``fluid`` False) the value of the nearest open neighbour within the
    3 x 3 cells continues (zero gradient: the surface meets a wall at a right angle); at a convex corner of a solid
    the mean of both.
    """
    nx, ny = fraction.shape[-2:]
    rows, j = cells // ny, cells % ny
    i = rows % nx
    steps = torch.arange(-1, 2, device=cells.device)[:, None]
    at_x = ((i + steps).clamp_(0, nx - 1) + (rows - i)) * ny
    index = at_x[:, None] + (j + steps).clamp_(0, ny - 1)
    values = fraction.take(index)
    if fluid is None:
        return values
    opened = fluid.take(index)
    if bool(opened.all()):
        return values
    middle = values[1, 1]
    for i, j in ((0, 1), (2, 1), (1, 0), (1, 2)):
        values[i, j] = torch.where(opened[i, j], values[i, j], middle)
    for i, j in ((0, 0), (0, 2), (2, 0), (2, 2)):
        along_x, along_y = values[i, 1], values[1, j]
        only_x, only_y = opened[i, 1] & ~opened[1, j], opened[1, j] & ~opened[i, 1]
        continued = torch.where(only_x, along_x, torch.where(only_y, along_y, 0.5 * (along_x + along_y)))
        values[i, j] = torch.where(opened[i, j], values[i, j], continued)
    return values


def cell_normals(around: Tensor) -> Tensor:
    """Normals ``(2, M)`` out of the water in unit-cell coordinates from ``(3, 3, M)`` fractions.

    Mixed Youngs-centred (Aulisa, Manservisi, Scardovelli and Zaleski, J. Comput. Phys. 225 (2007) 2301): the slope of
    the surface as a height above x or above y (the flatter one) by central differences of three-cell sums, or the
    gradient of Youngs (1982) where that is steeper.
    """
    lines = torch.stack([around, around.transpose(0, 1)])  # (axis, line across the axis, cell of the line, M)
    # ends first, so that a mirrored neighbourhood gives the mirrored normal to the last bit
    sums = (lines[:, :, 0] + lines[:, :, 2]).add_(lines[:, :, 1])
    drop = sums[:, 0] - sums[:, 2]
    youngs = drop + (lines[:, 0, 1] - lines[:, 2, 1])
    size, of_youngs = drop.abs(), youngs.abs()
    flat = size[0] <= size[1]  # the surface is a height above x
    centred = torch.where(torch.stack([flat, ~flat]), 0.5 * drop, drop.sign())
    steeper = torch.where(flat, 2 * of_youngs[0] > size[0] * of_youngs[1], 2 * of_youngs[1] > size[1] * of_youngs[0])
    # neither axis has the flatter height: Youngs, so that transposing commutes with the choice
    return torch.where(steeper | (size[0] == size[1]), youngs, centred)


def interface_normals(fraction: Tensor, spacing: Tensor, fluid: Tensor | None = None) -> Tensor:
    """Unit normals ``(B, 2, nx, ny)`` out of the water in physical units; 0 where no surface is and in solids.

    ``fraction (B, nx, ny)``; ``spacing (B, 2)``: cell sizes; ``fluid (B, nx, ny)``: False in solids, or None.
    Raises ``ConfigError`` for other shapes.
    """
    batch, nx, ny = fraction.shape
    if spacing.shape != (batch, 2):
        raise ConfigError(f"spacing must be ({batch}, 2), the cell sizes of every case; got {tuple(spacing.shape)}.")
    _, cells = mixed_cells(fraction)
    normal = cell_normals(neighbourhoods(fraction, cells, fluid)) / spacing[cells // (nx * ny)].T
    result = fraction.new_zeros(2, fraction.numel())
    result[:, cells] = normal / normal.norm(dim=0).clamp(min=torch.finfo(fraction.dtype).tiny)
    return result.unflatten(1, fraction.shape).transpose(0, 1)

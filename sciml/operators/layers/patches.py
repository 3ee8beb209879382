"""Space to depth and back: a patch of p cells per axis becomes p^dim channels of one coarse cell."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def to_patches(x: Tensor, patch_size: int) -> Tensor:
    """``(B, C, *grid)`` to ``(B, C p^dim, *(grid / p))``; channel order (C, offset in x, offset in y, ...).

    In 2D this is ``pixel_unshuffle``. Every grid axis has to be a multiple of ``patch_size``.
    """
    p, dim = patch_size, x.ndim - 2
    if p == 1:
        return x
    batch, channels, *grid = x.shape
    x = x.reshape(batch, channels, *(size for n in grid for size in (n // p, p)))
    cells, offsets = range(2, 2 + 2 * dim, 2), range(3, 3 + 2 * dim, 2)
    return x.permute(0, 1, *offsets, *cells).reshape(batch, channels * p**dim, *(n // p for n in grid))


def from_patches(x: Tensor, patch_size: int) -> Tensor:
    """``(B, C p^dim, *grid)`` to ``(B, C, *(grid p))``: inverse of ``to_patches`` (2D: ``pixel_shuffle``)."""
    p, dim = patch_size, x.ndim - 2
    if p == 1:
        return x
    batch, channels, *grid = x.shape
    x = x.reshape(batch, channels // p**dim, *[p] * dim, *grid)
    order = [axis for i in range(dim) for axis in (2 + dim + i, 2 + i)]
    return x.permute(0, 1, *order).reshape(batch, channels // p**dim, *(n * p for n in grid))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last cell of every grid axis until its length is a multiple of ``multiple``."""
    missing = [math.ceil(n / multiple) * multiple - n for n in x.shape[2:]]
    if not any(missing):
        return x
    return F.pad(x, pad_high(missing), mode="replicate")


def pad_high(cells: Sequence[int]) -> list[int]:
    """Argument of ``F.pad`` that appends ``cells[i]`` cells at the high end of grid axis i."""
    return [amount for n in reversed(cells) for amount in (0, n)]


def crop(x: Tensor, grid: Sequence[int]) -> Tensor:
    """The first ``grid[i]`` cells of every grid axis."""
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    return x[(slice(None), slice(None), *(slice(n) for n in grid))]

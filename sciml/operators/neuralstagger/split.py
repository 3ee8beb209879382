"""A fine grid as interleaved coarse ones: ``split`` and ``merge``, exact inverses that only move numbers."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.errors import DataError
from sciml.operators.layers.patches import pad_high

AXES = "xyz"


def split(x: Tensor, factors: Sequence[int]) -> Tensor:
    """``(B, C, *grid)`` to its phases ``(B, S, C, *(grid / factors))`` with ``S = prod(factors)``.

    Phase (p, q) is ``x[..., p::s_x, q::s_y]``: every s-th cell from the p-th on. Phases are numbered with the last axis
    fastest.

    Raises:
        DataError: the factors do not divide the grid, or are not one for each axis.
    """
    batch, channels, *grid = x.shape
    coarse = coarse_grid(grid, factors)
    dim = len(grid)
    x = x.reshape(batch, channels, *itertools.chain(*zip(coarse, factors, strict=True)))
    cells, offsets = range(2, 2 + 2 * dim, 2), range(3, 3 + 2 * dim, 2)
    return x.permute(0, *offsets, 1, *cells).reshape(batch, math.prod(factors), channels, *coarse)


def merge(phases: Tensor, factors: Sequence[int]) -> Tensor:
    """The inverse of ``split``: ``(B, S, C, *coarse)`` to ``(B, C, *(coarse * factors))``, bit for bit.

    Raises:
        DataError: there are not as many phases and axes as the factors say.
    """
    batch, count, channels, *coarse = phases.shape
    dim = len(coarse)
    if count != math.prod(factors) or dim != len(factors):
        raise DataError(
            f"merge: phases of shape {tuple(phases.shape)} are {count} on a grid of {dim} axes; the factors "
            f"{tuple(factors)} make {math.prod(factors)} on {len(factors)}"
        )
    phases = phases.reshape(batch, *factors, channels, *coarse)
    order = [axis for i in range(dim) for axis in (2 + dim + i, 1 + i)]
    return phases.permute(0, 1 + dim, *order).reshape(
        batch, channels, *(n * s for n, s in zip(coarse, factors, strict=True))
    )


def coarse_grid(grid: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    """Cells of a phase along each axis.

    Raises:
        DataError: the factors do not divide the grid, or are not one for each axis.
    """
    if len(grid) != len(factors):
        raise DataError(
            f"a grid of {len(grid)} axes, {tuple(grid)}, cannot be split by {len(factors)} factors {tuple(factors)}; "
            "expected one for each axis"
        )
    for axis, n, factor in zip(AXES, grid, factors, strict=False):
        if n % factor:
            divisors = [s for s in range(1, n + 1) if n % s == 0]
            near = min(divisors, key=lambda s: abs(s - factor))
            raise DataError(
                f"a grid of {tuple(grid)} cells cannot be split by {tuple(factors)}: {factor} does not divide the {n} "
                f"cells along {axis}; use a factor that does, {near} is the nearest, or a grid of "
                f"{math.ceil(n / factor) * factor} cells"
            )
    return tuple(n // factor for n, factor in zip(grid, factors, strict=True))


def pad_to_factors(x: Tensor, factors: Sequence[int]) -> Tensor:
    """Repeat the last cell of every grid axis until the axis' factor divides its length."""
    missing = [-n % factor for n, factor in zip(x.shape[2:], factors, strict=True)]
    return F.pad(x, pad_high(missing), mode="replicate") if any(missing) else x


def phase_offsets(factors: Sequence[int], like: Tensor) -> Tensor:
    """Where each phase lies in a coarse cell, ``(2 p + 1) / s - 1`` in (-1, 1) for each axis, ``(S, dim)``."""
    axes = [(2 * torch.arange(factor, device=like.device, dtype=like.dtype) + 1) / factor - 1 for factor in factors]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)

"""Tiles of a space-time grid of residual rows: who owns which row, who are neighbours, who blends where.

Rows of an axis with n rows go to k tiles of n // k or n // k + 1 rows. Tiles of unequal size are padded to the same
number of rows; padding has the weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sciml.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Interface:
    """The faces at which two neighbours along one axis have to agree.

    ``positions``: the row above every plane of such faces: the first row of the upper tile, or, where tiles overlap,
    the two ends of the overlap. For every face: ``places (L,)``, its flat number in ``(len(positions), *rows of the
    other axes)``; the neighbours ``low (L,)`` and ``high (L,)``; ``share (L,)``, one over the number of faces between
    these two there.
    """

    axis: int
    positions: tuple[int, ...]
    places: Tensor
    low: Tensor
    high: Tensor
    share: Tensor


@dataclass(frozen=True, eq=False)
class Tiling:
    """``tiles`` along each axis of ``row_shape``.

    ``rows (K, M)``: flat numbers of the rows of each tile; ``valid (K, M)``: whether they count, or are padding;
    ``owner (*row_shape)``: the tile that owns each row; ``interfaces``: between neighbours. ``blend (R, K)``: for tiles
    that overlap, the partition of unity at every row; else None.
    """

    tiles: tuple[int, ...]
    row_shape: tuple[int, ...]
    rows: Tensor
    valid: Tensor
    owner: Tensor
    interfaces: tuple[Interface, ...]
    blend: Tensor | None

    @property
    def count(self) -> int:
        return len(self.rows)


@lru_cache(maxsize=16)
def tiling_of(
    row_shape: tuple[int, ...],
    tiles: tuple[int, ...],
    periodic: tuple[bool, ...],
    overlap: int = 0,
    faces: tuple[int, ...] | None = None,
) -> Tiling:
    """The tiling of a grid.

    ``overlap``: rows that a tile reaches into each neighbour; ``faces``: at how many faces of a plane normal to each
    axis two neighbours have to agree, spread at random (always the same ones); None: at all.

    Raises ``ConfigError`` for counts that do not belong to the axes, more tiles than rows, or an overlap that reaches
    through a whole neighbour.
    """
    if len(tiles) != len(row_shape) or any(not isinstance(k, int) or k < 1 for k in tiles):
        raise ConfigError(
            f"tiles are {tiles}; expected {len(row_shape)} counts of at least 1, one for each axis of the rows "
            f"{row_shape} (time first, where there is time)"
        )
    for axis, (n, k) in enumerate(zip(row_shape, tiles, strict=True)):
        if k > n:
            raise ConfigError(f"{k} tiles along axis {axis} of {n} residual rows: a tile has at least one row")
        if k > 1 and overlap >= n // k:
            raise ConfigError(
                f"the overlap of {overlap} rows reaches through tiles of {n // k} rows along axis {axis}; use less "
                "overlap or fewer tiles"
            )
    edges = [_edges(n, k) for n, k in zip(row_shape, tiles, strict=True)]
    numbers = torch.arange(math.prod(row_shape)).reshape(row_shape)
    members, weights = [], []
    for axis, (n, k) in enumerate(zip(row_shape, tiles, strict=True)):
        owned = [_reach(edges[axis], part, n, overlap if k > 1 else 0, periodic[axis]) for part in range(k)]
        members.append(owned)
        weights.append(_partition(edges[axis], n, overlap if k > 1 else 0, periodic[axis]))
    blocks = []
    for part in torch.cartesian_prod(*[torch.arange(k) for k in tiles]).reshape(-1, len(tiles)).tolist():
        block = numbers
        for axis, index in enumerate(part):
            block = block.index_select(axis, members[axis][index])
        blocks.append(block.flatten())
    most = max(len(block) for block in blocks)
    rows = torch.stack([torch.cat([block, block[:1].expand(most - len(block))]) for block in blocks])
    valid = torch.stack([torch.arange(most) < len(block) for block in blocks])
    return Tiling(
        tiles=tiles,
        row_shape=row_shape,
        rows=rows,
        valid=valid,
        owner=_owner(edges, row_shape, tiles),
        interfaces=_interfaces(edges, row_shape, tiles, periodic, overlap, faces),
        blend=_product(weights) if overlap else None,
    )


def _edges(n: int, k: int) -> list[int]:
    """First row of every tile, and n."""
    return [part * n // k for part in range(k + 1)]


def _reach(edges: Sequence[int], part: int, n: int, overlap: int, periodic: bool) -> Tensor:
    """Rows of a tile with what it reaches into its neighbours."""
    low, high = edges[part] - overlap, edges[part + 1] + overlap
    return torch.arange(low, high) % n if periodic else torch.arange(max(low, 0), min(high, n))


def _partition(edges: Sequence[int], n: int, overlap: int, periodic: bool) -> Tensor:
    """Weights ``(n, k)`` that add up to 1 in every row: 1 inside a tile, sin^2 over the overlaps."""
    x = torch.arange(n, dtype=torch.float64) + 0.5
    k = len(edges) - 1
    weights = torch.zeros(n, k, dtype=torch.float64)
    copies = (-n, 0, n) if periodic and k > 1 else (0,)
    for part in range(k):
        for shift in copies:
            low, high = edges[part] + shift, edges[part + 1] + shift
            rising = torch.ones_like(x) if not periodic and part == 0 else _rise(x - low, overlap)
            falling = torch.ones_like(x) if not periodic and part == k - 1 else _rise(high - x, overlap)
            inside = torch.ones_like(x) if k == 1 else rising * falling
            weights[:, part] += inside
    return weights


def _rise(distance: Tensor, overlap: int) -> Tensor:
    """From 0 to 1 as the signed distance goes from -overlap to overlap."""
    if not overlap:
        return (distance > 0).to(distance)
    return torch.sin(0.25 * torch.pi * (1 + (distance / overlap).clamp(-1, 1))) ** 2


def _product(weights: Sequence[Tensor]) -> Tensor:
    """Partitions of the axes ``(n_i, k_i)`` to that of the grid, ``(R, K)``."""
    result = weights[0]
    for weight in weights[1:]:
        result = torch.einsum("ak,bl->abkl", result, weight).flatten(2).flatten(0, 1)
    return result


def _owner(edges: Sequence[Sequence[int]], shape: tuple[int, ...], tiles: tuple[int, ...]) -> Tensor:
    owner = torch.zeros(shape, dtype=torch.long)
    for axis, (n, k) in enumerate(zip(shape, tiles, strict=True)):
        part = torch.searchsorted(torch.tensor(edges[axis][1:]), torch.arange(n), right=True)
        owner = owner * k + part.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return owner


def _interfaces(
    edges: Sequence[Sequence[int]],
    shape: tuple[int, ...],
    tiles: tuple[int, ...],
    periodic: tuple[bool, ...],
    overlap: int,
    faces: tuple[int, ...] | None,
) -> tuple[Interface, ...]:
    owner = _owner(edges, shape, tiles)
    generator = torch.Generator().manual_seed(0)
    result = []
    for axis, (n, k) in enumerate(zip(shape, tiles, strict=True)):
        most = None if faces is None else faces[axis]
        boundaries = edges[axis][(0 if periodic[axis] else 1) : -1] if k > 1 else []
        moved = owner.movedim(axis, 0)
        positions: list[int] = []
        parts: list[tuple[Tensor, ...]] = []
        for row in boundaries:
            above, below = moved[row].flatten(), moved[(row - 1) % n].flatten()
            pairs = torch.stack([below, above], 1)
            for plane in (row - overlap, row + overlap) if overlap else (row,):
                start = len(positions) * len(above)
                positions.append(plane % n if periodic[axis] else plane)
                for low, high in pairs.unique(dim=0).tolist():
                    found = ((below == low) & (above == high)).nonzero().flatten()
                    chosen = found[torch.randperm(len(found), generator=generator)[:most]].sort().values
                    whole = torch.ones_like(chosen)
                    share = torch.full(chosen.shape, 1 / len(chosen), dtype=torch.float64)
                    parts.append((start + chosen, low * whole, high * whole, share))
        if parts:
            columns = [torch.cat(column) for column in zip(*parts, strict=True)]
            result.append(Interface(axis, tuple(positions), *columns))
    return tuple(result)

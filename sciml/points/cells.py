"""Neighbour search by a cell list, in torch alone and on any device.

Points are sorted by the number of the cell they lie in; cells are as wide as the radius, so that all neighbours of a
query lie in the 3^d cells around it, which along the last axis are consecutive: 3^(d-1) ranges of the sorted points
(Allen and Tildesley, Computer Simulation of Liquids, 1987, section 5.3.2; sorted instead of linked as in Green,
Particle Simulation using CUDA, 2010). The scene number is part of the cell number, so that scenes do not meet.

Candidates are compared in blocks of bounded size: memory is that of the result and of one block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sciml.errors import DataError

SLACK = 1 + 1e-6
"""Candidates are looked for a little beyond the radius: the search may round, the comparison that follows decides."""

BLOCK = 1 << 22
"""Candidates that are compared at once; about 60 bytes each."""

CELLS = 1 << 62
"""Cell numbers must fit in int64."""

SAMPLE = 64
"""Queries that the first radius of ``nearest_in_cells`` is measured on."""

DOUBLINGS = 12
"""How often ``nearest_in_cells`` doubles the radius for the queries that have not found enough."""


class Ranges(NamedTuple):
    """Where the candidates of every query are: ``order[start : start + count]`` for each of its rows of cells."""

    order: Tensor  # (N,) points sorted by cell
    start: Tensor  # (M, 3^(d-1))
    count: Tensor  # (M, 3^(d-1))


def cell_pairs(
    points: Tensor,
    radius: float,
    queries: Tensor | None = None,
    batch: Tensor | None = None,
    query_batch: Tensor | None = None,
    *,
    include_self: bool = False,
    block: int = BLOCK,
) -> Tensor:
    """What ``radius_pairs`` gives, for checked arguments that are not empty."""
    x = points.detach().double()
    y, scenes = (x, batch) if queries is None else (queries.detach().double(), query_batch)
    ranges = _ranges(x, y, radius, batch, scenes)
    parts = []
    for query, point in _candidates(ranges, block):
        keep = _squared_distance(x, point, y, query) <= radius * radius
        if queries is None and not include_self:
            keep &= point != query
        key = (query[keep] * len(x) + point[keep]).sort().values  # blocks come in the order of the queries
        query = key // len(x)
        parts.append(torch.stack([key - query * len(x), query]))
    return torch.cat(parts, 1) if parts else torch.empty((2, 0), dtype=torch.int64, device=x.device)


def nearest_in_cells(
    points: Tensor,
    queries: Tensor,
    k: int,
    batch: Tensor | None = None,
    query_batch: Tensor | None = None,
    *,
    crowd: int = 256,
    block: int = BLOCK,
) -> tuple[Tensor, Tensor]:
    """Index and distance ``(M, k)``, float64, nearest first, ties by index; -1 and inf where a cell list does not pay.

    The radius at which most of some sampled queries find k points serves them all; it is doubled for those that find
    fewer. A query with more than ``crowd`` k candidates (far from a dense cluster, say) or with too few after all
    doublings is left: finding its neighbours so would take time in proportion to all points.
    """
    x, y = points.detach().double(), queries.detach().double()
    index = torch.full((len(y), k), -1, dtype=torch.int64, device=y.device)
    distance = torch.full((len(y), k), torch.inf, dtype=torch.float64, device=y.device)
    radius = _first_radius(x, y, k, batch, query_batch)
    todo = torch.arange(len(y), device=y.device)
    for _ in range(DOUBLINGS):
        ranges = _ranges(x, y[todo], radius, batch, None if query_batch is None else query_batch[todo])
        bearable = ranges.count.sum(1) <= crowd * k
        todo, ranges = todo[bearable], Ranges(ranges.order, ranges.start[bearable], ranges.count[bearable])
        found = torch.zeros(len(todo), dtype=torch.int64, device=y.device)
        for query, point in _candidates(ranges, block):
            square = _squared_distance(x, point, y, todo[query])
            keep = square <= radius * radius
            query, point, square = query[keep], point[keep], square[keep]
            here = query.bincount(minlength=len(todo))
            found += here
            enough = here >= k
            by = _by_distance(query, point, square)
            place = (here.cumsum(0) - here)[enough][:, None] + torch.arange(k, device=y.device)
            index[todo[enough]], distance[todo[enough]] = point[by][place], square[by][place].sqrt()
        todo = todo[found < k]
        if len(todo) == 0:
            break
        radius *= 2
    return index, distance


def _first_radius(x: Tensor, y: Tensor, k: int, batch: Tensor | None, query_batch: Tensor | None) -> float:
    """The radius at which nine of ten sampled queries find k points, compared with all points of their scene."""
    kth = []
    for query in torch.linspace(0, len(y) - 1, min(SAMPLE, len(y))).long().tolist():
        there = x if batch is None or query_batch is None else x[batch == query_batch[query]]
        kth.append((there - y[query]).square().sum(1).topk(k, largest=False).values[-1])
    radius = SLACK * float(torch.stack(kth).sqrt().quantile(0.9))
    if radius > 0:
        return radius
    size = float((x.amax(0) - x.amin(0)).max())  # the sampled queries lie upon k points each
    return 1e-6 * size if size > 0 else 1.0


def _ranges(x: Tensor, y: Tensor, radius: float, batch: Tensor | None, query_batch: Tensor | None) -> Ranges:
    """Sort the points x by cell and find the rows of cells around the queries y, cells as wide as the radius."""
    dim = x.shape[1]
    low = torch.minimum(x.amin(0), y.amin(0))
    extent = float((torch.maximum(x.amax(0), y.amax(0)) - low).max())
    # Wider than the radius by what x - low and the division may round: neighbours are in neighbouring cells for sure.
    width = radius * SLACK + 4 * torch.finfo(torch.float64).eps * extent
    cells = ((torch.cat([x, y]) - low) / width).floor().long() + 1
    scenes = 1 if batch is None or query_batch is None else int(torch.cat([batch, query_batch]).max()) + 1
    shape = _shape(cells)
    if _volume(shape) * scenes > CELLS:
        cells = torch.stack([_without_gaps(column) for column in cells.T], 1)
        shape = _shape(cells)
    if _volume(shape) * scenes > CELLS:
        raise DataError(
            f"The points span {extent:.3g} and the radius is {radius:.3g}: more cells than can be numbered. The radius "
            "is too small, or points have run away."
        )
    strides = [_volume(shape[axis + 1 :]) for axis in range(dim)]
    key = (cells * torch.tensor(strides, device=x.device)).sum(1)
    if batch is not None and query_batch is not None:
        key = key + torch.cat([batch, query_batch]) * _volume(shape)
    ordered, order = key[: len(x)].sort(stable=True)
    steps = itertools.product((-1, 0, 1), repeat=dim - 1)
    rows = [sum(a * b for a, b in zip(step, strides[:-1], strict=True)) for step in steps]
    centre = key[len(x) :, None] + torch.tensor(rows, dtype=torch.int64, device=x.device)
    start = torch.searchsorted(ordered, centre - 1)
    return Ranges(order, start, torch.searchsorted(ordered, centre + 1, right=True) - start)


def _shape(cells: Tensor) -> list[int]:
    """Cells along every axis, the empty one numbered 0 included: it also ends the row before it."""
    return [int(largest) + 1 for largest in cells.amax(0).tolist()]


def _volume(shape: list[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def _without_gaps(cells: Tensor) -> Tensor:
    """Renumber the cells of one axis from 1 so that one empty cell stands for any number of them."""
    values, index = torch.unique(cells, return_inverse=True)
    steps = torch.cat([values.new_ones(1), values.diff().clamp(max=2)])
    return steps.cumsum(0)[index]


def _candidates(ranges: Ranges, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(query, point) of all candidates, in blocks of whole queries of about ``block`` candidates, in their order."""
    order, start, count = ranges
    total = count.sum(1).cumsum(0)
    if len(total) == 0 or int(total[-1]) == 0:
        return
    device = start.device
    marks = torch.arange(block, max(int(total[-1]), block + 1), block, device=device)
    ends = torch.searchsorted(total, marks).add_(1).unique().tolist()
    first = 0
    for end in [*ends, len(total)]:
        if end == first:
            continue
        number, begin = count[first:end].flatten(), start[first:end].flatten()
        row = torch.repeat_interleave(number)
        before = number.cumsum(0) - number
        position = torch.arange(len(row), device=device) + (begin - before)[row]
        yield row // start.shape[1] + first, order[position]
        first = end


def _squared_distance(x: Tensor, i: Tensor, y: Tensor, j: Tensor) -> Tensor:
    """|x_i - y_j|^2 axis by axis, each operation rounded: the same number on every device and in numpy."""
    total = torch.zeros(len(i), dtype=x.dtype, device=x.device)
    for a, b in zip(x.T, y.T, strict=True):
        difference = a[i] - b[j]
        total += difference * difference
    return total


def _by_distance(query: Tensor, point: Tensor, square: Tensor) -> Tensor:
    """The permutation that sorts by query, then distance, then point."""
    by = point.argsort(stable=True)
    by = by[square[by].argsort(stable=True)]
    return by[query[by].argsort(stable=True)]

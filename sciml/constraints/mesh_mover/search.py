"""Points that Newton's method does not find, looked for in every cell whose bounding box holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.cell_map import CellMaps, nearest, newton_step
from sciml.errors import SolverError

ITERATIONS = 50
CHUNK = 1 << 24
"""Comparisons of points with cells at once."""

SLACK = 1e-9
"""How far outside a cell its point may come to lie, in index coordinates: round-off."""


def search(maps: CellMaps, points: Tensor, sample: Tensor, number: Tensor) -> Tensor:
    """Index coordinates ``(d, N)`` of ``points (d, N)`` of the samples ``sample (N,)``, by trying every cell near.

    Raises SolverError where no cell of the mesh holds a point; ``number (N,)`` names it in the message.
    """
    found = torch.full_like(points, torch.nan)
    low, high = _bounds(maps)
    per_chunk = max(1, CHUNK // low.shape[-1])
    for chunk in torch.arange(points.shape[1], device=points.device).split(per_chunk):
        which, cell = _candidates(maps, points[:, chunk], sample[chunk], low, high)
        which = chunk[which]
        place, inside = _solve(maps, cell, points[:, which])
        found[:, which[inside]] = maps.wrapped(maps.corner_of(cell[inside]) + place[:, inside].clamp(0, 1))
    missing = torch.isnan(found[0])
    if missing.any():
        first = missing.nonzero()[0, 0]
        samples = sorted(set(sample[missing].tolist()))
        at = ", ".join(f"{x:.6g}" for x in points[:, first].tolist())
        more = " and more" if len(samples) > 8 else ""
        raise SolverError(
            f"no cell of the moved mesh holds {int(missing.sum())} of the targets, in the samples {samples[:8]}{more}; "
            f"the first is target {int(number[first])} of sample {int(sample[first])}, at ({at}). The mesh is folded "
            "there or does not reach its walls: check it with quality.folded, or mend it with validity.unfolded"
        )
    return found


def _bounds(maps: CellMaps) -> tuple[Tensor, Tensor]:
    """Bounding boxes of the cells, low and high corners ``(B, d, cells)``."""
    low = high = maps.nodes
    for axis, n in enumerate(maps.cells, 1):
        low = torch.minimum(low.narrow(axis, 0, n), low.narrow(axis, 1, n))
        high = torch.maximum(high.narrow(axis, 0, n), high.narrow(axis, 1, n))
    return low.flatten(1, -2).transpose(1, 2), high.flatten(1, -2).transpose(1, 2)


def _candidates(maps: CellMaps, points: Tensor, sample: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (point, row of the table) of which the cell's bounding box holds the point."""
    slack = SLACK * max(maps.box.lengths)
    mesh = sample if len(maps.nodes) > 1 else torch.zeros_like(sample)
    near = torch.ones(len(sample), low.shape[-1], dtype=torch.bool, device=points.device)
    for axis in range(maps.box.dim):
        centre, half = 0.5 * (high + low)[mesh, axis], 0.5 * (high - low)[mesh, axis] + slack
        distance = points[axis, :, None] - centre
        if maps.box.periodic[axis]:
            length = maps.box.lengths[axis]
            distance = distance - length * (distance / length).round()
        near &= distance.abs() <= half
    which, cell = near.nonzero(as_tuple=True)
    return which, mesh[which] * low.shape[-1] + cell


def _solve(maps: CellMaps, cell: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Place in the cell ``(d, N)`` of each point, and whether it is in it."""
    place = torch.full_like(points, 0.5)
    for _ in range(ITERATIONS):
        step, _ = newton_step(*maps.evaluate(cell, place), points, maps.box)
        place = (place + step).clamp(-0.25, 1.25)
    position, _ = maps.evaluate(cell, place)
    exact = nearest(points - position, maps.box).abs().amax(0) <= SLACK * max(maps.box.lengths)
    return place, exact & (place >= -SLACK).all(0) & (place <= 1 + SLACK).all(0)

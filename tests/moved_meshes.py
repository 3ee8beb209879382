"""Strongly moved meshes without folds, for tests: waves, jumps of the cell size, and noise. All float64."""

import itertools
import math

import torch

from sciml.constraints.mesh_mover import Box, corner_jacobians, unfolded

BOXES = {
    "walls": Box((1.0, 1.7)),
    "periodic": Box((1.3, 0.8), (True, True)),
    "mixed": Box((1.0, 1.7), (False, True)),
    "walls 3d": Box((1.0, 1.7, 0.8)),
    "periodic 3d": Box((1.0, 1.7, 0.8), (True, True, True)),
    "mixed 3d": Box((1.0, 1.7, 0.8), (True, False, False)),
}


def cells_for(box):
    return (13, 11) if box.dim == 2 else (7, 6, 8)


def lengths_of(box):
    return torch.tensor(box.lengths, dtype=torch.float64)


def wavy(box, cells, batch, seed=0, least=0.05):
    """Random displacements of a few modes, with rotation, scaled until the worst corner has ``least`` of its area."""
    draw = torch.Generator().manual_seed(seed)
    grid = box.corners(cells, dtype=torch.float64)
    unit = grid / lengths_of(box)
    moves = torch.zeros(batch, *grid.shape, dtype=torch.float64)
    for axis, wave in itertools.product(range(box.dim), itertools.product(range(3), repeat=box.dim)):
        # on walls the displacement along the normal is a sine, so the boundary slides
        shape = torch.randn(batch, *(1,) * box.dim, generator=draw, dtype=torch.float64) / (1 + sum(wave)) ** 2
        for other, k in enumerate(wave):
            u = unit[..., other]
            if box.periodic[other]:
                phase = 2 * math.pi * torch.rand(batch, *(1,) * box.dim, generator=draw, dtype=torch.float64)
                shape = shape * torch.cos(2 * math.pi * k * u + phase)
            else:
                shape = shape * (torch.sin(math.pi * (k + 1) * u) if other == axis else torch.cos(math.pi * k * u))
        moves[..., axis] += box.lengths[axis] * shape
    return scaled_to_the_brink(box, cells, grid, moves, least)


def jumping(box, cells, batch, seed=0, ratio=100.0):
    """Jumps of the cells' width from one cell to the next along every axis, of ``ratio`` and random ones below it, then
    bent by a smooth map.
    """
    draw = torch.Generator().manual_seed(seed)
    axes = []
    for n, length in zip(cells, box.lengths, strict=True):
        level = torch.rand(batch, 3, generator=draw, dtype=torch.float64).mul(math.log(ratio)).exp()
        level[:, 0], level[:, 1] = 1.0, ratio
        where = torch.rand(batch, 3, 1, generator=draw, dtype=torch.float64)
        cell = (torch.arange(n) + 0.5) / n
        width = torch.where((cell - where).abs() < 0.2, level[..., None], 1.0).amax(1)
        edges = torch.cat([torch.zeros(batch, 1, dtype=torch.float64), width.cumsum(1)], 1)
        axes.append(length * edges / edges[:, -1:])
    product = torch.stack([torch.stack(torch.meshgrid(*(a[b] for a in axes), indexing="ij"), -1) for b in range(batch)])
    lengths = lengths_of(box)
    unit = product / lengths
    bend = torch.sin(2 * math.pi * unit) * torch.sin(2 * math.pi * unit.roll(1, -1)) * 0.05
    return product + bend * lengths


def noisy(box, cells, batch, seed=0, least=0.05):
    """Every corner on its own, as far as the worst corner Jacobian allows."""
    draw = torch.Generator().manual_seed(seed)
    grid = box.corners(cells, dtype=torch.float64)
    moves = 2 * torch.rand(batch, *grid.shape, generator=draw, dtype=torch.float64) - 1
    for axis, periodic in enumerate(box.periodic):
        if periodic:
            moves.narrow(1 + axis, cells[axis], 1).copy_(moves.narrow(1 + axis, 0, 1))
        else:
            for end in (0, cells[axis]):
                moves.select(1 + axis, end)[..., axis] = 0.0
    return scaled_to_the_brink(box, cells, grid, moves, least)


def scaled_to_the_brink(box, cells, grid, moves, least):
    corners, _ = unfolded(grid + 10 * moves, box, least)
    smallest = corner_jacobians(corners).flatten(1).amin(1)
    assert (smallest > 0).all()
    return corners

"""Which cell of a moved mesh holds a point, and where in it: Newton's method on the piecewise multilinear map."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.cell_map import CellMaps, newton_step
from sciml.constraints.mesh_mover.lattice import close_nodes, ghosts
from sciml.constraints.mesh_mover.sampling import Location, check_location
from sciml.constraints.mesh_mover.search import search
from sciml.errors import DataError

ITERATIONS = 40
"""Of Newton's method, before the points that are left are searched for."""

TOLERANCE = 1e-10
"""Of the position over the longest side, before the last step, which leaves about its square."""

OUTSIDE = 1e-5
"""How far beyond a wall a target may lie, over the side's length: the round-off of float32 positions."""


@torch.no_grad()
def locate(nodes: Tensor, targets: Tensor, box: Box, location: Location = "cell") -> Tensor:
    """Index coordinates ``xi (B, *any, d)`` at which the moved mesh lies at ``targets (B, *any, d)``: node
    ``(i, j)`` has ``xi = (i, j)``, and x(xi) is multilinear between neighbours.

    ``nodes (B, *m, d)``: moved cell centres (``quality.centres_of``) or, with ``location="node"``, moved corners. From
    the outermost centres on the mesh goes on to their feet on the wall (``lattice``), at -1 and m. On periodic axes xi
    is in [0, m) or, for corners, [0, m - 1). A batch of 1 in either serves every sample of the other.

    Newton's method from the place on the uniform mesh, in float64; points that it does not find are searched for in
    all cells. Has no gradient (``interpolate`` has). Returned in the dtype of the targets.

    Raises:
        ConfigError: an unknown location.
        DataError: shapes that do not fit the box, positions that are not finite, or targets beyond a wall.
        SolverError: no cell holds a target, which says that the mesh is folded; names sample and target.
    """
    check_location(location)
    check_nodes(nodes, targets, box)
    lattice = close_nodes(nodes.double(), box, location)
    offset = ghosts(box, location)
    maps = CellMaps(lattice, box)
    points = _inside(targets.double(), box)
    batch = max(len(nodes), len(targets))
    points = points.flatten(1, -2).expand(batch, -1, -1)
    sample = torch.arange(batch, device=points.device)[:, None].expand(batch, points.shape[1]).flatten()
    flat = points.reshape(-1, box.dim).t().contiguous()
    index = _start(flat, maps)
    open_ = _newton(maps, index, flat, sample)
    if len(open_):
        index[:, open_] = search(maps, flat[:, open_], sample[open_], open_ % points.shape[1])
    index = index.t().reshape(batch, *targets.shape[1:-1], box.dim)
    return (index - torch.tensor(offset, dtype=index.dtype, device=index.device)).to(targets.dtype)


def _start(points: Tensor, maps: CellMaps) -> Tensor:
    """Where the points ``(d, N)`` lie on the uniform mesh, as coordinates of the closed lattice."""
    scale = [cells / length for cells, length in zip(maps.cells, maps.box.lengths, strict=True)]
    return maps.wrapped(points * torch.tensor(scale, dtype=points.dtype, device=points.device)[:, None])


def _newton(maps: CellMaps, index: Tensor, points: Tensor, sample: Tensor) -> Tensor:
    """Improves ``index (d, N)`` in place; returns the places at which it does not converge."""
    tolerance = TOLERANCE * max(maps.box.lengths)
    active = torch.arange(points.shape[1], device=points.device)
    here, goal, case = index, points, sample
    for iteration in range(ITERATIONS):
        step, error = newton_step(*maps.position(here, case), goal, maps.box)
        # far jumps first; then from cell to cell; then less than a cell, which ends cycles between neighbours
        limit = 8.0 if iteration < 8 else 1.0 if iteration < 20 else 0.5
        found = error <= tolerance
        moved = maps.wrapped(here + step.clamp(-limit, limit))
        index[:, active[found]] = moved[:, found]
        left = ~found
        active = active[left]
        if not len(active):
            break
        here, goal, case = moved[:, left], goal[:, left], case[left]
    return active


def _inside(targets: Tensor, box: Box) -> Tensor:
    """Targets taken onto the wall from as little beyond it as round-off brings them."""
    coordinates = []
    for axis, (x, length, periodic) in enumerate(zip(targets.unbind(-1), box.lengths, box.periodic, strict=True)):
        if periodic:
            coordinates.append(x.remainder(length))
            continue
        beyond = ((x < -OUTSIDE * length) | (x > (1 + OUTSIDE) * length)).flatten(1)
        if beyond.any():
            first, which = (int(i) for i in beyond.nonzero()[0])
            raise DataError(
                f"{int(beyond.sum())} targets lie beyond the walls {'xyz'[axis]} = 0 and {length:g} of the box; the "
                f"first is target {which} of sample {first}, at {'xyz'[axis]} = {float(x.flatten(1)[first, which]):g}. "
                "Give targets in the box, or make the axis periodic"
            )
        coordinates.append(x.clamp(0.0, length))
    return torch.stack(coordinates, -1)


def check_nodes(nodes: Tensor, targets: Tensor, box: Box) -> None:
    """Raises DataError for shapes that do not fit the box or one another, and for positions that are not finite."""
    if nodes.ndim != box.dim + 2 or nodes.shape[-1] != box.dim or min(nodes.shape[1:-1]) < 2:
        raise DataError(
            f"nodes of shape {tuple(nodes.shape)} are no mesh of a box of {box.dim} dimensions; expected (batch, "
            f"{', '.join('xyz'[: box.dim])}, {box.dim}) with at least 2 nodes along every axis"
        )
    if targets.ndim < 3 or targets.shape[-1] != box.dim:
        raise DataError(
            f"targets of shape {tuple(targets.shape)} are not points of a box of {box.dim} dimensions; expected "
            f"(batch, ..., {box.dim})"
        )
    if len(nodes) != len(targets) and 1 not in (len(nodes), len(targets)):
        raise DataError(f"meshes of {len(nodes)} samples do not fit targets of {len(targets)}; give as many, or 1")
    for name, given in (("nodes", nodes), ("targets", targets)):
        if not torch.isfinite(given).all():
            raise DataError(f"some {name} are not finite; check the mesh that was given")

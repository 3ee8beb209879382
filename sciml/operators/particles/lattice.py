"""The nodes of a regular lattice that lie near particles, for several scenes at once and without the empty ones.

Each scene has a lattice of its own, anchored at the lower corner of its box, or of its particles along axes without a
lower wall. Only nodes within the ball radius of a particle are made: their integer coordinates become one key, equal
keys one node. So neither memory nor time depends on the size of the box.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.operators.particles.edges import Edges


@dataclass(frozen=True)
class Lattice:
    """``M`` nodes, and the pairs of ``N`` particles and nodes that are nearer than the ball radius."""

    position: Tensor
    """Of the nodes, ``(M, d)``, sorted by scene."""
    batch: Tensor
    """Scene of each node ``(M,)``."""
    to_nodes: Edges
    """The pairs sorted by node."""
    apart: Tensor
    """Particle minus node of these pairs in units of the ball radius, ``(pairs, d)``."""
    particles: int

    @functools.cached_property
    def window(self) -> Tensor:
        """``(1 - |apart|^2)^2`` of each pair ``(pairs, 1)``: falls smoothly to 0 at the ball radius."""
        return (1 - self.apart.square().sum(1, keepdim=True)).clamp(min=0).square()

    @functools.cached_property
    def order(self) -> Tensor:
        """The pairs sorted by particle ``(pairs,)``."""
        return self.to_nodes.source.argsort(stable=True)

    @functools.cached_property
    def to_particles(self) -> Edges:
        """The pairs ``order``, with particles as receivers."""
        pairs = self.to_nodes
        return Edges(pairs.receiver[self.order], pairs.source[self.order], self.particles)


def occupied_lattice(position: Tensor, batch: Tensor, low: Tensor, spacing: float, radius: float) -> Lattice:
    """The lattice nodes within ``radius`` of a particle of their scene.

    Args:
        position: ``(N, d)``.
        batch: scene of each particle ``(N,)``, sorted.
        low: lower corner of each scene's box ``(B, d)``, minus infinity where there is no wall.
        spacing: of the nodes.
        radius: of the ball around each.

    Raises:
        DataError: the particles of the scenes are so far apart that their nodes cannot be numbered.
    """
    n, dim = position.shape
    origin = torch.where(low.isfinite(), low, _corner(position, batch, len(low)))
    scaled = (position - origin[batch]) / spacing
    base = scaled.detach().floor()
    reach = radius / spacing
    steps = torch.arange(1 - math.ceil(reach), math.ceil(reach) + 1, device=position.device)
    along = (scaled.detach() - base).unsqueeze(-1) - steps  # (N, d, steps): to the candidates along each axis
    squares = along.square()
    total = squares[:, 0]
    for axis in range(1, dim):
        total = total.unsqueeze(-1) + squares[:, axis].view(n, *[1] * axis, len(steps))
    found = (total < reach**2).nonzero()
    particle = found[:, 0]
    cells = base.long().index_select(0, particle) + steps[found[:, 1:]]  # (pairs, d)
    key = _numbered(cells, batch[particle], len(low))
    key, order = key.sort(stable=True)
    _, node, counts = key.unique_consecutive(return_inverse=True, return_counts=True)
    particle, cells = particle[order], cells[order]
    first = counts.cumsum(0) - counts
    scene = batch[particle[first]]
    nodes = cells[first].to(position) * spacing + origin[scene]
    apart = (scaled.index_select(0, particle) - cells.to(position)) / reach
    return Lattice(nodes, scene, Edges(particle, node, len(scene)), apart, n)


def _corner(position: Tensor, batch: Tensor, scenes: int) -> Tensor:
    """Lowest coordinates of each scene's particles ``(B, d)``."""
    index = batch.unsqueeze(1).expand_as(position)
    return position.new_zeros(scenes, position.shape[1]).scatter_reduce(0, index, position, "amin", include_self=False)


def _numbered(cells: Tensor, batch: Tensor, scenes: int) -> Tensor:
    """One number for scene and integer coordinates ``(pairs, d)``, in the order of scene, x, y[, z]."""
    if not len(cells):
        return batch
    low, high = cells.amin(0), cells.amax(0)
    extents = (high - low + 1).tolist()
    count = scenes
    for extent in extents:
        count *= extent
    if count >= 2**63 or min(extents) < 1:
        raise DataError(
            f"the particles of {scenes} scene(s) spread over {' x '.join(map(str, extents))} lattice nodes, too "
            "many to number; has a rollout diverged, or is the radius in other units than the positions?"
        )
    key = batch
    for axis, extent in enumerate(extents):
        key = key * extent + (cells[:, axis] - low[axis])
    return key

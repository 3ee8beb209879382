"""Interpolation from a moved mesh with a learned correction that cannot break its consistency."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from sciml.constraints.mesh_mover import Box, locate
from sciml.constraints.mesh_mover.interpolation import attached, check_fields, lattice_index
from sciml.constraints.mesh_mover.lattice import close_nodes, close_values
from sciml.constraints.mesh_mover.multilinear import cells_of, strides
from sciml.constraints.mesh_mover.sampling import Location
from sciml.errors import ConfigError

OFFSETS = (-1, 0, 1, 2)
"""Nodes of the stencil along each axis, counted from the low corner of the target's cell."""

RING_AXES = {2: 2, 3: 1}
"""Along how many axes at once a node may lie outside the cell: the edges of the ring in 3D would double the cost."""


class CorrectedInterpolation(nn.Module):
    """``constraints.mesh_mover.interpolate`` with more nodes and learned weights: the cell's and a ring.

    The stencil has 4 x 4 nodes in 2D; in 3D the 8 of the cell and the 4 beyond each of its 6 faces. The weight of node
    k is the isoparametric one (0 in the ring) plus c_k. The correction c is what a two-layer perceptron makes of where
    the nodes lie around the target, each axis in units of the stencil's own size, less its part in the span of 1 and
    the nodes' positions: sum c_k = 0 and sum c_k x_k = 0. So constants and linear fields stay exact whatever is
    learned, and the result is linear in the values. Zero at the start. Stencils are cut off at walls by repeating the
    last node, and go round periodic axes.

    ``hidden``: width of the perceptron; ``dim``: of the box. Raises ConfigError.
    """

    def __init__(self, hidden: int = 32, *, dim: int = 2) -> None:
        super().__init__()
        if dim not in (2, 3) or hidden < 1:
            raise ConfigError(f"hidden={hidden}, dim={dim}: expected a positive width, and 2 or 3 dimensions")
        self.dim = dim
        nodes = len(offsets(dim))
        self.network = nn.Sequential(nn.Linear((nodes + 1) * dim, hidden), nn.GELU(), nn.Linear(hidden, nodes))
        nn.init.zeros_(self.network[2].weight)
        nn.init.zeros_(self.network[2].bias)

    def forward(
        self,
        values: Tensor,
        nodes: Tensor,
        targets: Tensor,
        box: Box,
        xi: Tensor | None = None,
        location: Location = "cell",
    ) -> Tensor:
        """As ``interpolate``, which says what the arguments are and what is raised: ``(B, C, *any)``."""
        if box.dim != self.dim:
            raise ConfigError(f"an interpolation made for {self.dim} dimensions (dim=) cannot serve a box of {box.dim}")
        check_fields(values, nodes, targets, box, xi, location)
        if xi is None:
            xi = locate(nodes, targets, box, location)
        lattice = close_nodes(nodes, box, location)
        index = lattice_index(xi, box, location).flatten(1, -2)
        if torch.is_grad_enabled() and (nodes.requires_grad or targets.requires_grad):
            index = attached(index, lattice, targets.flatten(1, -2), box)
        known = close_values(values, lattice, box, location)
        result = self._weighted(known, lattice, index.to(values.dtype), box)
        return result.unflatten(2, targets.shape[1:-1])

    def _weighted(self, values: Tensor, nodes: Tensor, index: Tensor, box: Box) -> Tensor:
        """``values (B, C, *l)`` on the closed lattice ``nodes (B, *l, d)`` at ``index (B, P, d)``: ``(B, C, P)``."""
        corner = cells_of(index, nodes.shape[1:-1])
        fraction = index - corner
        place, image = stencil(corner, nodes.shape[1:-1], box, nodes.dtype)
        batch = max(len(values), len(nodes), len(index))
        position = _gather(nodes.flatten(1, -2).movedim(-1, 1), place, batch) + image.movedim(-1, 1)
        weights = isoparametric(fraction)
        around = position - (weights[:, None] * position).sum(-1, keepdim=True)
        around = around / around.square().mean(-1, keepdim=True).sqrt()
        features = torch.cat([around.movedim(1, 2).flatten(2), (fraction - 0.5).expand(len(around), -1, -1)], -1)
        correction = without_moments(self.network(features), around)
        return (_gather(values.flatten(2), place, batch) * (weights + correction)[:, None]).sum(-1)


def offsets(dim: int) -> list[tuple[int, ...]]:
    """Of the K = 16 (2D) or 32 (3D) nodes of the stencil from the low corner of the cell."""
    every = itertools.product(OFFSETS, repeat=dim)
    return [offset for offset in every if sum(o in (-1, 2) for o in offset) <= RING_AXES[dim]]


def stencil(corner: Tensor, shape: torch.Size, box: Box, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Places in the flattened lattice of the nodes around the cells ``corner (B, P, d)``, ``(B, P, K)``, and how
    far (metres) their positions lie round the periodic axes, ``(B, P, K, d)`` of type ``dtype``.
    """
    index = (corner[:, :, None] + torch.tensor(offsets(box.dim), device=corner.device)).unbind(-1)
    places, images = [], []
    for i, n, length, periodic in zip(index, shape, box.lengths, box.periodic, strict=True):
        # the last layer of a closed periodic axis is the first one again
        places.append(i.remainder(n - 1) if periodic else i.clamp(0, n - 1))
        turns = ((i - places[-1]) // (n - 1)).to(dtype) if periodic else torch.zeros_like(i, dtype=dtype)
        images.append(length * turns)
    place = sum(i * step for i, step in zip(places, strides(shape), strict=True))
    return place, torch.stack(images, -1)


def isoparametric(fraction: Tensor) -> Tensor:
    """Multilinear weights ``(B, P, K)`` on the stencil at the place ``fraction (B, P, d)`` in the cell."""
    axes = [torch.stack([torch.zeros_like(s), 1 - s, s, torch.zeros_like(s)], -1) for s in fraction.unbind(-1)]
    weights = axes[0]
    for axis in axes[1:]:
        weights = (weights[..., None] * axis[:, :, None]).flatten(2)
    if fraction.shape[-1] == 2:
        return weights
    every = list(itertools.product(OFFSETS, repeat=3))
    return weights[..., [every.index(offset) for offset in offsets(3)]]


def without_moments(weights: Tensor, around: Tensor) -> Tensor:
    """``weights (B, P, K)`` less their part in the span of 1 and of the coordinates ``around (B, d, P, K)``: the
    nearest ones with zero sum and zero first moment, by Gram and Schmidt's orthogonalisation.
    """
    weights = weights - weights.mean(-1, keepdim=True)
    basis: list[Tensor] = []
    for x in around.unbind(1):
        direction = x - x.mean(-1, keepdim=True)
        for other in basis:
            direction = direction - (direction * other).sum(-1, keepdim=True) * other
        direction = direction / direction.norm(dim=-1, keepdim=True)
        basis.append(direction)
        weights = weights - (weights * direction).sum(-1, keepdim=True) * direction
    return weights


def _gather(values: Tensor, place: Tensor, batch: int) -> Tensor:
    """``values (B, C, N)`` at ``place (B, P, K)``: ``(B, C, P, K)``."""
    channels = values.shape[1]
    flat = place.flatten(1)[:, None].expand(batch, channels, -1)
    return values.expand(batch, -1, -1).gather(2, flat).unflatten(2, place.shape[1:])

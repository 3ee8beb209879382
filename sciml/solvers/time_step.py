"""Step-size limits of the incompressible solver."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.physics.boundary import BoundaryValues
from sciml.physics.stencils import Metric, closed


def convection_rate(
    velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...], values: BoundaryValues
) -> Tensor:
    """max over cells and boundary values of sum_i |u_i| / h_i, ``(B,)``: 1 / (the step at CFL number 1)."""
    cells = torch.zeros(())
    for u, m in zip(velocity, metrics, strict=True):
        speed = closed(u, m).abs()
        larger = torch.maximum(speed.narrow(m.dim, 0, m.n), speed.narrow(m.dim, 1, m.n))
        cells = cells + larger * m.inverse_width
    rate = cells.flatten(1).amax(1)
    for j in range(len(metrics)):
        for end in (0, 1):
            side = torch.zeros_like(rate)
            for i, m in enumerate(metrics):
                slab = values.slabs[i][j][end]
                if slab is not None:
                    side = side + slab.flatten(1).abs().amax(1) * m.inverse_width.flatten(1).amax(1)
            rate = torch.maximum(rate, side)
    return rate


def diffusion_rate(viscosity: Tensor, metrics: tuple[Metric, ...]) -> Tensor:
    """nu / h^2 at the finest cell, ``(B,)``: 1 / (the step at diffusion number 1)."""
    finest = torch.stack([m.inverse_width.flatten(1).amax(1) for m in metrics]).amax(0)
    return viscosity * finest**2

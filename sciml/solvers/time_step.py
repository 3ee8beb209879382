"""Step-size limits of the incompressible solver."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.physics.boundary import BoundaryValues
from sciml.physics.stencils import Metric, closed


def convection_rate(velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...], values: BoundaryValues) -> Tensor:
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


def stable_cfl(velocity: tuple[Tensor, ...], viscosity: Tensor, metrics: tuple[Metric, ...]) -> Tensor:
    """Largest CFL number ``(B,)`` at which diffusion outweighs the growth of Adams-Bashforth advection.

    Per step the central-difference wave of angle t per cell grows by (C sin t)^4 / 4 (second-order
    Adams-Bashforth has no stable stretch of the imaginary axis) and is damped by 2 C (1 - cos t) / Re_c, with
    the cell Reynolds number Re_c = |u| h / nu. To this order damping wins for every t when C is at most
    f = (6.75 / Re_c)^(1/3); f / (1 + 0.38 f^2) stays just below the limit of the exact amplification factor.
    """
    cell_reynolds = torch.zeros_like(viscosity)
    for u, m in zip(velocity, metrics, strict=True):
        inner = closed(u, m).narrow(m.dim, 0, m.n).abs() / m.inverse_width
        cell_reynolds = torch.maximum(cell_reynolds, inner.flatten(1).amax(1) / viscosity)
    first_order = (6.75 / cell_reynolds.clamp(min=1.0)) ** (1 / 3)
    return first_order / (1 + 0.38 * first_order**2)

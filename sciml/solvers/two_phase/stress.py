"""Viscous stress between two fluids on the staggered grid, explicit and implicit.

At the corners the viscosity is the harmonic mean of the fluid cells around: where the thin fluid touches the thick one
it transmits only what the thin one can, and no light face feels the viscosity of the heavy fluid.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from sciml.solvers.two_phase.banded import BandedSystem
from sciml.solvers.two_phase.domain import Domain, Faces


def viscous_force(velocity: Faces, viscosity: Tensor, domain: Domain) -> Faces:
    """div(mu (grad u + grad u^T)) ``(N/m^3)`` at the faces, from the dynamic viscosity ``(B, nx, ny)`` of the cells."""
    u, v = velocity
    dx, dy = domain.size(0), domain.size(1)
    du = pad(u, (1, 1)).diff(dim=2) * domain.shear[0] / dy
    dv = pad(v, (0, 0, 1, 1)).diff(dim=1) * domain.shear[1] / dx
    tau = _at_corners(viscosity, domain) * (du + dv)
    tau_x = pad(2 * viscosity * u.diff(dim=1) / dx, (0, 0, 1, 1), mode="replicate")
    tau_y = pad(2 * viscosity * v.diff(dim=2) / dy, (1, 1), mode="replicate")
    return tau_x.diff(dim=1) / dx + tau.diff(dim=2) / dy, tau_y.diff(dim=2) / dy + tau.diff(dim=1) / dx


def implicit_change(rate: Faces, viscosity: Tensor, mobility: Faces, dt: Tensor, domain: Domain) -> Faces:
    """The change of the velocity in the step ``dt (B,)`` when ``rate`` is its rate of change at the beginning, viscous
    stress included: (rho / dt - A) change = rho rate, with A the part of the stress of a component that depends on the
    same component. Backward Euler but for what couples the components, stable for any step. 0 on closed faces."""
    corner = _at_corners(viscosity, domain)
    dx, dy = domain.spacing.unbind(1)
    x = _change(rate[0], viscosity, corner * domain.shear[0], mobility[0], dt, dx, dy)
    y = _change(rate[1].mT, viscosity.mT, (corner * domain.shear[1]).mT, mobility[1].mT, dt, dy, dx)
    return x, y.mT.contiguous()


def _change(
    rate: Tensor, viscosity: Tensor, corner: Tensor, mobility: Tensor, dt: Tensor, along: Tensor, across: Tensor
) -> Tensor:
    """Of the component along the leading axis."""
    free = (mobility > 0).to(rate)
    weight = free / torch.where(mobility > 0, mobility, 1.0) / dt[:, None, None]
    x = 2 * viscosity / along[:, None, None] ** 2
    y = corner / across[:, None, None] ** 2
    around = pad(x, (0, 0, 1, 0)) + pad(x, (0, 0, 0, 1)) + y[..., 1:] + y[..., :-1]
    diagonal = torch.where(free > 0, weight + around, 1.0)
    both_x, both_y = free[:, 1:] * free[:, :-1], free[..., 1:] * free[..., :-1]
    system = BandedSystem(diagonal, x * both_x, y[..., 1:-1] * both_y)
    return system.solve(weight * dt[:, None, None] * rate)


def _at_corners(viscosity: Tensor, domain: Domain) -> Tensor:
    thinness = _around(pad(domain.fluid / viscosity, (1, 1, 1, 1)))
    count = _around(pad(domain.fluid, (1, 1, 1, 1)))
    return count / torch.where(count > 0, thinness, 1.0)


def _around(cells: Tensor) -> Tensor:
    """Sum of the four cells at every corner."""
    rows = cells[:, 1:] + cells[:, :-1]
    return rows[..., 1:] + rows[..., :-1]

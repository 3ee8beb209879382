"""The pressure equation div(1/rho grad p) = f, solved directly."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.solvers.two_phase.banded import BandedSystem
from sciml.solvers.two_phase.domain import Domain, Faces
from sciml.solvers.two_phase.operators import divergence, gradient


def solve_direct(rhs: Tensor, mobility: Faces, domain: Domain) -> Tensor:
    """p ``(B, nx, ny)`` with div(mobility grad p) = ``rhs``; ``mobility`` is 0 on closed faces.

    Without open sides p is 0 in one fluid cell and ``rhs`` must sum to 0. One step of refinement brings the residual
    to round-off also at a density ratio of 1000. Raises ``SolverError`` naming the case when a density is not positive
    and finite.
    """
    system = _system(mobility, domain)
    p = -system.solve(rhs)
    return p - system.solve(rhs - _apply(p, mobility, domain))


def _apply(p: Tensor, mobility: Faces, domain: Domain) -> Tensor:
    gx, gy = gradient(p, domain)
    return divergence((mobility[0] * gx, mobility[1] * gy), domain)


def _system(mobility: Faces, domain: Domain) -> BandedSystem:
    """Minus the operator; solid cells are unknowns of their own."""
    nx, ny = domain.cells
    x = mobility[0] / domain.size(0) ** 2
    y = mobility[1] / domain.size(1) ** 2
    to_sides = torch.ones(nx + 1).to(x), torch.ones(ny + 1).to(y)  # an open side is half a cell away
    for factors in to_sides:
        factors[[0, -1]] = 2.0
    x, y = x * to_sides[0][:, None], y * to_sides[1]
    diagonal = x[:, 1:] + x[:, :-1] + y[..., 1:] + y[..., :-1] + (1 - domain.fluid)
    if not domain.open_sides:  # p = 0 in the first fluid cell: a resistance to ground, through which nothing flows
        grounded = domain.fluid.flatten(1).argmax(1, keepdim=True)
        flat = diagonal.flatten(1)
        diagonal = flat.scatter(1, grounded, 2 * flat.gather(1, grounded)).reshape(diagonal.shape)
    return BandedSystem(diagonal, x[:, 1:-1], y[..., 1:-1])

"""Particles that several tests of the material point method share."""

import torch
from torch import Tensor

from sciml.solvers.mpm import DruckerPrager, FixedCorotated, Fluid, HerschelBulkley, MPMSolver, NeoHookean, VonMises

MATERIALS = {
    "jelly": FixedCorotated(1e4, 0.3),
    "rubber": NeoHookean(1e4, 0.3),
    "water": Fluid(5.0),
    "honey": Fluid(5.0, viscosity=1.0),
    "plasticine": VonMises(1e4, 0.3, 100.0),
    "bingham": HerschelBulkley(1e4, 0.3, 50.0, 2.0),
    "goop": HerschelBulkley(1e4, 0.3, 50.0, 2.0, exponent=0.6),
    "sand": DruckerPrager(1e4, 0.3, 30.0, cohesion=5.0),
}
SOLIDS = [name for name in MATERIALS if name not in ("water", "honey")]


def lattice(lower, upper, spacing, dtype=torch.float64) -> Tensor:
    """Cell-centred lattice ``(P, d)`` that fills a box."""
    axes = []
    for low, high in zip(lower, upper, strict=True):
        n = round((high - low) / spacing)
        axes.append(low + (high - low) * (torch.arange(n, dtype=dtype) + 0.5) / n)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(lower))


def box(d=2, cell=1 / 16, *, gravity=9.81, dtype=torch.float64, **options) -> MPMSolver:
    """A unit box with gravity along the last axis."""
    return MPMSolver((0,) * d, (1,) * d, cell, gravity=(0.0,) * (d - 1) + (-gravity,), dtype=dtype, **options)


def fill(solver, position, material, *, velocity=None, density=1000.0, cell_particles=2, **options):
    """A state of particles ``cell_particles`` along each axis of a cell."""
    velocity = torch.zeros_like(position) if velocity is None else velocity
    volume = torch.full((len(position),), (solver.cell / cell_particles) ** position.shape[1], dtype=position.dtype)
    return solver.start(position, velocity, volume, density, material, **options)


def steps(solver, state, dt, count):
    for _ in range(count):
        state = solver.step(state, dt)
    return state


def random_deformation(count, d, size=0.2, seed=0, dtype=torch.float64) -> Tensor:
    """Deformation gradients ``(d, d, P)`` near the identity."""
    noise = torch.randn(d, d, count, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return torch.eye(d, dtype=dtype)[..., None] + size * noise


def random_rotation(count, d, seed=1) -> Tensor:
    """Rotations ``(d, d, P)``, float64."""
    q = torch.linalg.qr(torch.randn(count, d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))[0]
    q[:, 0] *= torch.linalg.det(q)[:, None]
    return q.movedim(0, -1).contiguous()

"""The particles of one or several scenes, and what they conserve."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.solvers.mpm.algebra import components_first
from sciml.solvers.mpm.materials import Material


@dataclass(frozen=True, eq=False)
class Group:
    """The particles ``index`` ``(P_m,)`` (None: all) made of one material."""

    material: Material
    index: Tensor | None

    def of(self, x: Tensor) -> Tensor:
        """The columns of this group of a tensor ``(..., P)``."""
        return x if self.index is None else x.index_select(-1, self.index)


@dataclass(frozen=True, eq=False)
class MPMState:
    """All particles at one time; tensors in public layout ``(P, ...)``.

    Made by ``MPMSolver.start``. ``position`` m, ``velocity`` m/s, ``affine`` ``(P, d, d)`` velocity gradient C of
    APIC in 1/s, ``deformation`` ``(P, d, d)`` elastic deformation gradient (of a fluid J^(1/d) I), ``stress``
    ``(P, d, d)`` Kirchhoff stress in Pa that belongs to it, ``swelling`` ``(P,)`` logarithmic volume gained by
    sand, ``mass`` kg, ``volume`` undeformed m^d, ``batch`` ``(P,)`` scene numbers, ``scenes`` their count,
    ``order`` the rows of the concatenated groups back to particles (None: already in order), ``time`` s.
    """

    position: Tensor
    velocity: Tensor
    affine: Tensor
    deformation: Tensor
    stress: Tensor
    swelling: Tensor
    mass: Tensor
    volume: Tensor
    batch: Tensor
    scenes: int
    groups: tuple[Group, ...]
    order: Tensor | None
    time: float

    @property
    def density(self) -> Tensor:
        """Undeformed density ``(P,)``."""
        return self.mass / self.volume

    def regroup(self, parts: list[Tensor]) -> Tensor:
        """One tensor ``(..., P)`` from the parts ``(..., P_m)`` of the groups."""
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return whole if self.order is None else whole.index_select(-1, self.order)

    def of_scenes(self, values: Tensor) -> Tensor:
        """Sums ``(B, ...)`` over the particles of each scene of ``(P, ...)``."""
        total = values.new_zeros(self.scenes, *values.shape[1:])
        return total.index_add_(0, self.batch, values)


def linear_momentum(state: MPMState) -> Tensor:
    """sum m v ``(B, d)`` in kg m/s."""
    return state.of_scenes(state.mass[:, None] * state.velocity)


def angular_momentum(state: MPMState, cell: float) -> Tensor:
    """sum m (x v^T - v x^T) of the grid velocities ``(B, d (d - 1) / 2)`` in kg m^2/s, about the origin.

    With the affine part m cell^2 / 4 (C^T - C) that APIC keeps on the particle (Jiang et al. 2015, section 5.3);
    components (0, 1) in 2D, (0, 1), (0, 2), (1, 2) in 3D.
    """
    outer = state.position[:, :, None] * state.velocity[:, None]
    spin = state.mass[:, None, None] * (outer + cell**2 / 4 * state.affine.transpose(1, 2))
    rows, columns = torch.triu_indices(outer.shape[1], outer.shape[1], 1, device=outer.device)
    return state.of_scenes((spin - spin.transpose(1, 2))[:, rows, columns])


def energies(state: MPMState, gravity: Tensor, cell: float) -> dict[str, Tensor]:
    """Energies of each scene ``(B,)`` in J: kinetic, affine, potential, elastic, and their sum total.

    "kinetic" m v^2 / 2 of the particles, "affine" m cell^2 |C|^2 / 8 of the motion about them, "potential" -m g x,
    "elastic" stored in the deformation. In a box at rest the total never grows: friction, viscosity, plastic flow
    and the transfers only take from it.
    """
    result = {
        "kinetic": state.mass / 2 * (state.velocity**2).sum(1),
        "affine": state.mass * cell**2 / 8 * (state.affine**2).sum((1, 2)),
        "potential": -state.mass * (state.position @ gravity),
        "elastic": elastic_energy(state),
    }
    result["total"] = result["kinetic"] + result["affine"] + result["potential"] + result["elastic"]
    return {name: state.of_scenes(values) for name, values in result.items()}


def elastic_energy(state: MPMState) -> Tensor:
    """Stored energy of every particle ``(P,)`` in J."""
    deformation = components_first(state.deformation)
    density = state.density
    return state.volume * state.regroup([g.material.energy(g.of(deformation), g.of(density)) for g in state.groups])


def pressure(state: MPMState) -> Tensor:
    """Mean Cauchy pressure of every particle -tr tau / (d J) ``(P,)`` in Pa."""
    d = state.position.shape[1]
    return -state.stress.diagonal(dim1=1, dim2=2).sum(1) / (d * torch.linalg.det(state.deformation))

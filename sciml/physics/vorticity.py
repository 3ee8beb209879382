"""Vorticity equation of an incompressible flow on a doubly periodic box, pseudo-spectral.

    dw/dt + u . grad w = nu Laplacian w - mu w + f,   u = (d psi/dy, -d psi/dx),   Laplacian psi = -w

with the kinematic viscosity nu, a linear drag mu and a source f with zero mean. The mean flow is zero. All fields are
``(B, 1, nx, ny)``, or ``(B, 2, nx, ny)`` for a velocity; everything is batched and differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.physics.spectral import PeriodicBox


class VorticityEquation:
    """The terms of the equation on a ``box``: what a solver and a residual share.

    ``viscosity (B,)`` in m^2/s, ``drag (B,)`` in 1/s, ``source (B, 1, nx, ny)`` in 1/s^2; without the last two there
    are none. Attribute ``linear (B, 1, *k)``: the symbol of viscosity and drag, in 1/s.
    """

    def __init__(
        self, box: PeriodicBox, viscosity: Tensor, drag: Tensor | None = None, source: Tensor | None = None
    ) -> None:
        self.box = box
        self.viscosity = viscosity.to(device=box.device, dtype=box.dtype)
        self.drag = torch.zeros_like(self.viscosity) if drag is None else drag.to(self.viscosity)
        self.source = None if source is None else source.to(device=box.device, dtype=box.dtype)
        self.linear = _column(self.viscosity) * box.laplacian - _column(self.drag)
        kx, ky = box.wavenumbers
        # u . grad w = (dxx - dyy)(u v) + dxy (v v - u u) takes four transforms, one less than the usual form
        # (Basdevant, J. Comput. Phys. 50 (1983) 209).
        self._products = torch.cat([kx**2 - ky**2, (kx * ky).expand_as(box.laplacian)], 1) * box.dealias
        ones = box.dealias.expand_as(box.laplacian)
        self._velocity = box.velocity_from_vorticity(torch.complex(ones, torch.zeros_like(ones)))
        self._source = None if self.source is None else box.forward(self.source) * box.dealias

    def nonlinear(self, vorticity: Tensor) -> Tensor:
        """Spectrum of -u . grad w + f, free of aliasing errors; of ``(B, 1, *k)``, or of frames ``(B, T, 1, *k)``."""
        framed = vorticity.ndim == 5
        velocity, symbols = (x.unsqueeze(1) if framed else x for x in (self._velocity, self._products))
        u, v = self.box.inverse(velocity * vorticity).unbind(-3)
        products = self.box.forward(torch.stack([u * v, (v - u) * (v + u)], -3))
        transport = (symbols * products).sum(-3, keepdim=True)
        if self._source is None:
            return transport
        return transport + (self._source.unsqueeze(1) if framed else self._source)

    def rate(self, vorticity: Tensor) -> Tensor:
        """The largest rate of ``nonlinear`` in 1/s, ``(B,)``: max sum_i \\|u_i\\| k_i, with what the source adds.

        A source f of wavenumber k gives the speed f t / k in the time t, which the step has to stand too.
        """
        speed = self.box.inverse(self._velocity * vorticity).abs()
        rate = (speed * self.box.largest[:, :, None, None]).sum(1).flatten(1).amax(1)
        if self._source is None:
            return rate
        kick = self.box.inverse(self._velocity * self._source).abs()
        return rate + (kick * self.box.largest[:, :, None, None]).sum(1).flatten(1).amax(1).sqrt()

    def right_hand_side(self, vorticity: Tensor) -> Tensor:
        """dw/dt of a vorticity field, ``(B, 1, nx, ny)`` in 1/s^2."""
        spectrum = self.box.forward(vorticity)
        return self.box.inverse(self.linear * spectrum + self.nonlinear(spectrum))

    def velocity(self, vorticity: Tensor) -> Tensor:
        """Velocity ``(B, 2, nx, ny)`` of a vorticity field, with zero mean."""
        return self.box.inverse(self.box.velocity_from_vorticity(self.box.forward(vorticity)))


def vorticity_residual(before: Tensor, after: Tensor, dt: Tensor, *, equation: VorticityEquation) -> Tensor:
    """Residual ``(B, 1, nx, ny)`` in 1/s^2 of the equation between two frames, trapezoidal in time.

        (w_1 - w_0) / dt - (R(w_0) + R(w_1)) / 2,   R the right-hand side

    ``before``, ``after (B, 1, nx, ny)``, ``dt (B,)``. For a solution that the grid resolves it is O(dt^2).
    """
    change = (after - before) / _column(dt.to(before))
    return change - 0.5 * (equation.right_hand_side(before) + equation.right_hand_side(after))


@dataclass(frozen=True, eq=False)
class EnergyBudget:
    """Means over the box, each ``(B,)``: d energy / dt = injection - dissipation - drag (times the density)."""

    energy: Tensor
    """<u . u> / 2 in m^2/s^2."""
    enstrophy: Tensor
    """<w^2> / 2 in 1/s^2."""
    injection: Tensor
    """<psi f> in m^2/s^3: the power of the source."""
    dissipation: Tensor
    """nu <w^2> in m^2/s^3."""
    drag: Tensor
    """mu <u . u> in m^2/s^3."""


def energy_budget(vorticity: Tensor, *, equation: VorticityEquation) -> EnergyBudget:
    """Energy, enstrophy and the terms of the energy equation of a vorticity field ``(B, 1, nx, ny)``."""
    box = equation.box
    spectrum = box.forward(vorticity)
    energy = 0.5 * box.mean_square(box.velocity_from_vorticity(spectrum)).sum(1)
    enstrophy = 0.5 * box.mean_square(spectrum).sum(1)
    injection = torch.zeros_like(energy)
    if equation.source is not None:
        stream = box.inverse(-box.inverse_laplacian(spectrum))
        injection = (stream * equation.source).flatten(1).mean(1)
    return EnergyBudget(energy, enstrophy, injection, 2 * equation.viscosity * enstrophy, 2 * equation.drag * energy)


def _column(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)

"""Diffusion through a soil that holds solute back (Freundlich sorption): R(u) u_t = D u_xx on 0 < x < L.

R(u) = 1 + (1 - p) / p rho_s k n u^(n - 1), as in PDEBench (Takamoto et al., arXiv:2210.07182). u is prescribed at
x = 0. At x = L the solute that diffuses out is carried off at the velocity v: -D u_x = v u. PDEBench's paper prints
this condition as u(1) = D u_x(1); its generator uses the sign written here (with v = 1), and so must we: with the
other sign solute flows in where there already is some, and the solution grows without bound.

Cell-centred finite volumes on n equal cells; u is ``(B, n)``. All is differentiable in u and in the parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GUARD = 1e-6
"""R is evaluated at max(u, 0) + GUARD, as in PDEBench: for n < 1 the slope of the isotherm is infinite at u = 0."""


@dataclass(frozen=True, eq=False)
class Soil:
    """Properties of the soil and the solute, each ``(B,)``.

    ``diffusivity`` D in m^2/s, ``porosity`` p in (0, 1), ``bulk_density`` rho_s in kg/m^3, ``freundlich`` k and
    ``exponent`` n of the isotherm k u^n.
    """

    diffusivity: Tensor
    porosity: Tensor
    bulk_density: Tensor
    freundlich: Tensor
    exponent: Tensor

    def to(self, like: Tensor) -> Soil:
        """In the dtype and on the device of ``like``."""
        return Soil(*(getattr(self, name).to(like) for name in self.__dataclass_fields__))


def retardation(u: Tensor, soil: Soil) -> Tensor:
    """R(u) ``(B, n)``, at least 1, monotone in u and constant for u <= 0."""
    strength = (1 - soil.porosity) / soil.porosity * soil.bulk_density * soil.freundlich * soil.exponent
    return 1 + strength[:, None] * (u.clamp(min=0.0) + GUARD) ** (soil.exponent[:, None] - 1)


def solute_flux(u: Tensor, soil: Soil, length: Tensor, inlet: Tensor, exit_velocity: Tensor | float = 1.0) -> Tensor:
    """-D u_x at the faces, ``(B, n + 1)``; ``length``, ``inlet (B,)``.

    The side values are half a cell from the centres. At x = L with g = 2 D / h, -D u_x = g (u_n - u_L) = v u_L gives
    the flux v g / (v + g) u_n.
    """
    conductance = (soil.diffusivity * u.shape[1] / length)[:, None]
    side = 2 * conductance
    inner = -conductance * u.diff(dim=1)
    out = exit_velocity * side / (exit_velocity + side) * u[:, -1:]
    return torch.cat([side * (inlet[:, None] - u[:, :1]), inner, out], 1)


def sorption_rate(u: Tensor, soil: Soil, length: Tensor, inlet: Tensor, exit_velocity: Tensor | float = 1.0) -> Tensor:
    """u_t = D u_xx / R(u) of every cell, ``(B, n)``."""
    flux = solute_flux(u, soil, length, inlet, exit_velocity)
    return -flux.diff(dim=1) * (u.shape[1] / length)[:, None] / retardation(u, soil)


def sorption_spectral_radius(u: Tensor, soil: Soil, length: Tensor, inlet: Tensor) -> Tensor:
    """Bound 4 D / (h^2 min R) on the decay rates of the modes, ``(B,)``, for values between those of u and the inlet.

    R is monotone, so its least value is at the smallest or at the largest u that the maximum principle allows.
    """
    ends = torch.stack([u.amin(1).clamp(max=0.0), torch.maximum(u.amax(1), inlet)], 1)
    return 4 * soil.diffusivity * (u.shape[1] / length) ** 2 / retardation(ends, soil).amin(1)


def sorption_residual(
    before: Tensor,
    after: Tensor,
    dt: Tensor,
    soil: Soil,
    length: Tensor,
    inlet: Tensor,
    exit_velocity: Tensor | float = 1.0,
) -> Tensor:
    """u_t - D u_xx / R(u) between two frames ``dt (B,)`` apart, trapezoidal in time: ``(B, n)`` in 1/s times u."""
    rates = [sorption_rate(u, soil, length, inlet, exit_velocity) for u in (before, after)]
    return (after - before) / dt[:, None] - 0.5 * (rates[0] + rates[1])

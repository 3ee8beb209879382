"""Kirchhoff stress tau = P F^T and stored energy W of hyperelastic laws, per undeformed volume.

F is the (elastic) deformation gradient ``(d, d, P)``, B = F F^T, V = sqrt B, J = det F; moduli are numbers or
``(P,)``. Two-dimensional laws are plane strain with the in-plane strain only. Every law is isotropic:
tau(Q F) = Q tau(F) Q^T, tau(I) = 0 and W(I) = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.solvers.mpm.algebra import (
    determinant,
    deviator,
    identity,
    matmul_transposed,
    plus_spherical,
    spherical,
    trace,
)
from sciml.solvers.mpm.spectral import diagonal_in, eigen, isotropic

Modulus = float | Tensor
SMALLEST_STRETCH = 1e-4  # of log V: keeps the logarithm finite when a particle is crushed


def lame(young: Modulus, poisson: Modulus) -> tuple[Modulus, Modulus]:
    """(mu, lambda) in Pa from Young's modulus and Poisson's ratio (three-dimensional and plane-strain
    relation)."""
    return young / (2 * (1 + poisson)), young * poisson / ((1 + poisson) * (1 - 2 * poisson))


def left_stretch(f: Tensor) -> Tensor:
    """V of the polar decomposition F = V R with a proper rotation R (det R = 1).

    Where det F < 0 the smallest eigenvalue of V is negative, so that an inverted particle is pushed back
    (Irving et al., SCA 2004). In two dimensions by Cayley and Hamilton: V = (B + J I) / sqrt(tr B + 2 J).
    """
    b, j = matmul_transposed(f, f), determinant(f)
    if len(f) == 2:
        return plus_spherical(b, j) / (trace(b) + 2 * j).clamp_min(1e-12).sqrt()
    values, vectors = eigen(b)
    root = values.clamp_min(SMALLEST_STRETCH**2).sqrt()
    smallest = values == values.amin(0)
    root = torch.where(smallest & (j.detach() < 0), -root, root)
    return isotropic(b, values, vectors, root, 0.5 / root)


def fixed_corotated_stress(f: Tensor, mu: Modulus, lam: Modulus) -> Tensor:
    """2 mu (F - R) F^T + lambda J (J - 1) I (Stomakhin et al., SCA 2012)."""
    j = determinant(f)
    return plus_spherical(2 * mu * (matmul_transposed(f, f) - left_stretch(f)), lam * j * (j - 1))


def fixed_corotated_energy(f: Tensor, mu: Modulus, lam: Modulus) -> Tensor:
    """mu |F - R|^2 + lambda / 2 (J - 1)^2 ``(P,)``."""
    squares = trace(matmul_transposed(f, f)) - 2 * trace(left_stretch(f)) + len(f)
    return mu * squares + lam / 2 * (determinant(f) - 1) ** 2


def neo_hookean_stress(f: Tensor, mu: Modulus, lam: Modulus) -> Tensor:
    """mu (B - I) + lambda log J I (Bonet and Wood, Nonlinear Continuum Mechanics, section 6.4)."""
    return plus_spherical(mu * matmul_transposed(f, f), lam * _log_volume(f) - mu)


def neo_hookean_energy(f: Tensor, mu: Modulus, lam: Modulus) -> Tensor:
    """mu / 2 (tr B - d) - mu log J + lambda / 2 (log J)^2 ``(P,)``."""
    log_j = _log_volume(f)
    return mu / 2 * (trace(matmul_transposed(f, f)) - len(f)) - mu * log_j + lam / 2 * log_j**2


def _log_volume(f: Tensor) -> Tensor:
    return determinant(f).clamp_min(SMALLEST_STRETCH).log()


def hencky_strain(f: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithmic strain E = log V = 1/2 log B ``(d, d, P)`` and its eigenvectors ``(d, d, P)``."""
    b = matmul_transposed(f, f)
    values, vectors = eigen(b)
    values = values.clamp_min(SMALLEST_STRETCH**2)
    return isotropic(b, values, vectors, values.log() / 2, 0.5 / values), vectors


def exponential(e: Tensor, vectors: Tensor) -> Tensor:
    """exp(E) ``(d, d, P)`` of a symmetric E with the given eigenvectors."""
    values = diagonal_in(vectors, e.detach())
    result = values.exp()
    return isotropic(e, values, vectors, result, result)


def hencky_stress(e: Tensor, mu: Modulus, lam: Modulus) -> Tensor:
    """2 mu E + lambda tr E I from the Hencky strain (Simo, CMAME 99 (1992) 61)."""
    return plus_spherical(2 * mu * e, lam * trace(e))


def hencky_energy(e: Tensor, mu: Modulus, lam: Modulus) -> Tensor:
    """mu |E|^2 + lambda / 2 (tr E)^2 ``(P,)``."""
    return mu * (e * e).sum((0, 1)) + lam / 2 * trace(e) ** 2


def tait_pressure(j: Tensor, stiffness: Modulus, exponent: Modulus) -> Tensor:
    """(K / n) (J^-n - 1), no tension: zero for J > 1 (Monaghan, J. Comput. Phys. 110 (1994) 399).

    ``stiffness`` K = density times sound speed squared, Pa.
    """
    return stiffness / exponent * (j.clamp_max(1) ** -exponent - 1)


def tait_energy(j: Tensor, stiffness: Modulus, exponent: Modulus) -> Tensor:
    """The integral of -p dJ from 1 ``(P,)``, for exponent > 1."""
    j, n = j.clamp_max(1), exponent
    return stiffness / n * (j ** (1 - n) / (n - 1) + j - n / (n - 1))


def newtonian_stress(j: Tensor, pressure: Tensor, rate: Tensor, viscosity: Modulus) -> Tensor:
    """-J p I + 2 eta J dev(D), D = sym of the velocity gradient ``(d, d, P)``."""
    if not isinstance(viscosity, Tensor) and viscosity == 0:
        return spherical(-j * pressure, len(rate))
    return plus_spherical(viscosity * j * deviator(rate + rate.transpose(0, 1)), -j * pressure)


def isotropic_deformation(j: Tensor, d: int) -> Tensor:
    """J^(1/d) I: all that a fluid remembers."""
    return identity(d, j)[..., None] * (j.sqrt() if d == 2 else j ** (1 / 3))

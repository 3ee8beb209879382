"""Plastic return maps in Hencky strain: trial strain E ``(d, d, P)`` -> admissible strain.

With the Hencky law tau = 2 mu E + lambda tr E I a map only scales the deviator e = E - (tr E / d) I and shifts
the trace, so it commutes with E: no eigenvectors are needed here (Simo, CMAME 99 (1992) 61). The deformation
follows as F <- exp(E_new - E) F.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.solvers.mpm.algebra import deviator, norm, plus_spherical, trace
from sciml.solvers.mpm.laws import Modulus

NEWTON_STEPS = 6


def von_mises(e: Tensor, mu: Modulus, yield_stress: Modulus) -> Tensor:
    """Perfect plasticity: |dev tau| <= sqrt(2/3) yield_stress (the stress of uniaxial yield); tr E stays."""
    dev = deviator(e)
    limit = math.sqrt(2 / 3) * yield_stress / (2 * mu)
    return plus_spherical((limit / norm(dev)).clamp_max(1) * dev, trace(e) / len(e))


def herschel_bulkley(
    e: Tensor, mu: Modulus, yield_stress: Modulus, consistency: Modulus, exponent: Modulus, dt: float
) -> Tensor:
    """Viscoplastic flow over one step (backward Euler; Yue et al., ACM TOG 34 (2015) 160, in Hencky strain).

    In steady simple shear at the rate g it gives the shear stress yield_stress / sqrt(3) + consistency g^exponent.
    With r = sqrt(2) |plastic rate| and Y = |dev tau| - sqrt(2/3) yield_stress of the trial state it solves
    sqrt(2) consistency r^exponent + sqrt(2) mu dt r = Y.
    """
    dev = deviator(e)
    trial = 2 * mu * norm(dev)
    excess = (trial - math.sqrt(2 / 3) * yield_stress).clamp_min(0)
    rate = flow_rate(excess / math.sqrt(2), consistency, exponent, mu * dt)
    return plus_spherical((1 - math.sqrt(2) * mu * dt * rate / trial) * dev, trace(e) / len(e))


def flow_rate(excess: Tensor, consistency: Modulus, exponent: Modulus, elastic: Modulus) -> Tensor:
    """r >= 0 ``(P,)`` with consistency r^exponent + elastic r = excess (zero where excess is zero).

    Newton's method on log(left) = log(excess) in u = log r: the left side is a log-sum-exp, convex with a slope
    between exponent and 1, so that the iteration converges from anywhere; the last step alone carries the
    gradient, which makes it the one of the implicit function.
    """
    if not isinstance(exponent, Tensor) and exponent == 1:
        return excess / (consistency + elastic)
    some = excess > 0
    target = torch.where(some, excess, torch.ones_like(excess))
    with torch.no_grad():
        u = (target / (consistency + elastic)).log()
        for _ in range(NEWTON_STEPS):
            u = u - _flow_residual(u, target, consistency, exponent, elastic)
    u = u - _flow_residual(u, target, consistency, exponent, elastic)
    return torch.where(some, u.exp(), torch.zeros_like(excess))


def _flow_residual(u: Tensor, target: Tensor, consistency: Modulus, exponent: Modulus, elastic: Modulus) -> Tensor:
    """Newton correction in u = log r."""
    viscous, linear = consistency * torch.exp(exponent * u), elastic * u.exp()
    total = viscous + linear
    with torch.no_grad():
        slope = (exponent * viscous + linear) / total
    return (total / target).log() / slope


def drucker_prager_slope(friction_angle: Modulus, d: int) -> Modulus:
    """alpha of |dev tau| <= -alpha tr tau for a Mohr-Coulomb friction angle in degrees.

    In two dimensions sin(phi) / sqrt(2) is exact; in three sqrt(2/3) 2 sin(phi) / (3 - sin(phi)) agrees in
    triaxial compression (Klar et al., ACM TOG 35 (2016) 103). The latter in 2D would be 8 % too weak at 30 degrees.
    """
    s = _sine(friction_angle)
    return s / math.sqrt(2) if d == 2 else math.sqrt(2 / 3) * 2 * s / (3 - s)


def _sine(angle: Modulus) -> Modulus:
    return torch.deg2rad(angle).sin() if isinstance(angle, Tensor) else math.sin(math.radians(angle))


def _cotangent(angle: Modulus) -> Modulus:
    return 1 / (torch.deg2rad(angle).tan() if isinstance(angle, Tensor) else math.tan(math.radians(angle)))


def drucker_prager(
    e: Tensor, swelling: Tensor, mu: Modulus, lam: Modulus, friction_angle: Modulus, cohesion: Modulus
) -> tuple[Tensor, Tensor]:
    """Cone |dev tau| <= -alpha (tr tau - d cohesion cot(phi)), without dilatancy; returns (strain, swelling).

    ``swelling`` ``(P,)`` >= 0 is the logarithmic volume gained while the grains were apart: it has to be pressed
    out again before they carry load (Tampubolon et al., ACM TOG 36 (2017) 105); without it sand that
    separates and meets again gains volume for ever.
    """
    d = len(e)
    bulk = d * lam + 2 * mu
    apex = d * cohesion * _cotangent(friction_angle) / bulk
    volume = trace(e) + swelling - apex
    dev = deviator(e)
    limit = (-bulk / (2 * mu) * drucker_prager_slope(friction_angle, d) * volume).clamp_min(0)
    scale = (limit / norm(dev)).clamp_max(1)
    return plus_spherical(scale * dev, (volume.clamp_max(0) + apex) / d), volume.clamp_min(0)

"""Goop: a viscoplastic fluid (Bingham, or Herschel and Bulkley) that sticks to the walls, like cream or thick paint."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sciml.problems.cases import Parameter
from sciml.problems.particles.base import SCENE_PARAMETERS, ParticleProblem, Range
from sciml.solvers.mpm import HerschelBulkley

SHEAR_MODULUS, BULK_MODULUS = 2e4, 3e5
"""Pa, below the yield stress: soft enough for long time steps, stiff enough to keep the density within a few %."""
YOUNG = 9 * BULK_MODULUS * SHEAR_MODULUS / (3 * BULK_MODULUS + SHEAR_MODULUS)
POISSON = (3 * BULK_MODULUS - 2 * SHEAR_MODULUS) / (6 * BULK_MODULUS + 2 * SHEAR_MODULUS)


class Goop(ParticleProblem):
    """It flows where the stress is above the yield stress, and slumps to a heap."""

    name = "goop"
    title = "Goop: a viscoplastic fluid that slumps and sticks, as particles"
    subsets = ("drop", "column", "blocks", "pool", "obstacle")
    parameters = (
        Parameter("yield_stress", "Pa", "stress above which it flows", sign="nonnegative"),
        Parameter("consistency", "Pa s", "viscosity of what exceeds the yield stress"),
        *SCENE_PARAMETERS,
    )
    ranges = MappingProxyType({"yield_stress": Range(30.0, 3e3, "log"), "consistency": Range(3.0, 100.0, "log")})
    walls = "stick"

    def material(self, values: Mapping[str, float]) -> HerschelBulkley:
        return HerschelBulkley(YOUNG, POISSON, values["yield_stress"], values["consistency"])

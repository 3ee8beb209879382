"""Dry sand: friction between grains by Drucker and Prager, Coulomb friction at the walls."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sciml.problems.cases import Parameter
from sciml.problems.particles.base import SCENE_PARAMETERS, ParticleProblem, Range
from sciml.solvers.mpm import Coulomb, DruckerPrager

YOUNG, POISSON = 5e5, 0.3
"""Stiffness (Pa) of the grains' packing: it hardly changes how sand flows, and softer is quicker to solve."""
WALL_FRICTION = 0.5


class Sand(ParticleProblem):
    """Piles and collapsing columns, which come to rest at a slope that the friction angle sets."""

    name = "sand"
    title = "Sand: piles and collapsing columns, as particles"
    subsets = ("drop", "column", "blocks", "pool", "obstacle")
    parameters = (Parameter("friction_angle", "degree", "angle of internal friction"), *SCENE_PARAMETERS)
    ranges = MappingProxyType({"friction_angle": Range(20.0, 45.0)})
    density = 1600.0
    walls = Coulomb(WALL_FRICTION)

    def material(self, values: Mapping[str, float]) -> DruckerPrager:
        return DruckerPrager(YOUNG, POISSON, values["friction_angle"])

"""Water, or something more viscous: a weakly compressible Newtonian fluid that slides along the walls."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sciml.problems.cases import Parameter
from sciml.problems.particles.base import SCENE_PARAMETERS, ParticleProblem, Range
from sciml.solvers.mpm import Fluid

SOUND_SPEED = 20.0
"""m/s. The density changes by about g H / c^2, 1 % under 0.5 m of water, and by v^2 / (2 c^2), 2 % where a stream of
4 m/s is stopped; real water (1500 m/s) would need time steps 75 times shorter and look the same."""


class Water(ParticleProblem):
    """Drops, dam breaks, splashes. In a box of a metre the viscosity of oil to honey gives Reynolds numbers (of a drop
    of 0.3 m at 4 m/s) of 1200 to 24: a few hundred sparse points cannot follow the spray of a thinner fluid.
    """

    name = "water"
    title = "Water: drops, dam breaks and splashes, as particles"
    subsets = ("drop", "column", "blocks", "pool", "obstacle")
    parameters = (Parameter("viscosity", "Pa s", "dynamic viscosity"), *SCENE_PARAMETERS)
    ranges = MappingProxyType({"viscosity": Range(1.0, 50.0, "log")})

    def material(self, values: Mapping[str, float]) -> Fluid:
        return Fluid(SOUND_SPEED, values["viscosity"])

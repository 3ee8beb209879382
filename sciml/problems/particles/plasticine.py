"""Plasticine: elastic up to a yield stress, then it keeps the shape that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sciml.problems.cases import Parameter
from sciml.problems.particles.base import SCENE_PARAMETERS, ParticleProblem, Range
from sciml.solvers.mpm import Coulomb, VonMises

POISSON = 0.25
WALL_FRICTION = 0.4


class Plasticine(ParticleProblem):
    """Bodies that are dented or flattened where they hit something, and stay so."""

    name = "plasticine"
    title = "Plasticine: bodies that stay dented, as particles"
    subsets = ("drop", "blocks", "obstacle")
    parameters = (
        Parameter("young", "Pa", "Young's modulus"),
        Parameter("yield_stress", "Pa", "stress in tension at which it flows (von Mises)"),
        *SCENE_PARAMETERS,
    )
    ranges = MappingProxyType({"young": Range(1e5, 8e5, "log"), "yield_stress": Range(3e3, 3e4, "log")})
    density = 1400.0
    walls = Coulomb(WALL_FRICTION)

    def material(self, values: Mapping[str, float]) -> VonMises:
        return VonMises(values["young"], POISSON, values["yield_stress"])

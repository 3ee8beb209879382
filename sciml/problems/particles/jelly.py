"""Jelly: elastic bodies that bounce, between walls without friction."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sciml.problems.cases import Parameter
from sciml.problems.particles.base import SCENE_PARAMETERS, ParticleProblem, Range
from sciml.solvers.mpm import FixedCorotated


class Jelly(ParticleProblem):
    """Bodies that keep their shape, from a soft pudding to firm rubber."""

    name = "jelly"
    title = "Jelly: elastic bodies that bounce, as particles"
    subsets = ("drop", "blocks", "obstacle")
    parameters = (
        Parameter("young", "Pa", "Young's modulus"),
        Parameter("poisson", "1", "Poisson's ratio, below 0.5"),
        *SCENE_PARAMETERS,
    )
    ranges = MappingProxyType({"young": Range(6e4, 5e5, "log"), "poisson": Range(0.1, 0.4)})

    def material(self, values: Mapping[str, float]) -> FixedCorotated:
        return FixedCorotated(values["young"], values["poisson"])

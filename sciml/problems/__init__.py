"""The problems that the package generates, solves and trains on."""

from typing import Any

from sciml.errors import ConfigError, did_you_mean
from sciml.problems.base import Problem
from sciml.problems.burgers import Burgers
from sciml.problems.cases import CaseFamily, Parameter, Sample
from sciml.problems.cavity import Cavity
from sciml.problems.cylinder import Cylinder
from sciml.problems.dam import Dam
from sciml.problems.darcy import Darcy
from sciml.problems.diffusion_sorption import DiffusionSorption
from sciml.problems.gray_scott import GrayScott
from sciml.problems.particles import Goop, Jelly, ParticleProblem, Plasticine, Sand, Water
from sciml.problems.periodic_flow import PeriodicFlow
from sciml.problems.tube import Tube
from sciml.problems.two_phase_tube import TwoPhaseTube
from sciml.problems.vorticity import Vorticity

PROBLEMS: dict[str, type[Problem]] = {
    "burgers": Burgers,
    "cavity": Cavity,
    "cylinder": Cylinder,
    "dam": Dam,
    "darcy": Darcy,
    "diffusion_sorption": DiffusionSorption,
    "gray_scott": GrayScott,
    "periodic_flow": PeriodicFlow,
    "tube": Tube,
    "two_phase_tube": TwoPhaseTube,
    "vorticity": Vorticity,
}
"""Fields on a grid."""
PARTICLE_PROBLEMS: dict[str, type[ParticleProblem]] = {
    "goop": Goop,
    "jelly": Jelly,
    "plasticine": Plasticine,
    "sand": Sand,
    "water": Water,
}
"""Materials as particles."""

__all__ = [
    "PARTICLE_PROBLEMS",
    "PROBLEMS",
    "Burgers",
    "CaseFamily",
    "Cavity",
    "Cylinder",
    "Dam",
    "Darcy",
    "DiffusionSorption",
    "Goop",
    "GrayScott",
    "Jelly",
    "Parameter",
    "ParticleProblem",
    "PeriodicFlow",
    "Plasticine",
    "Problem",
    "Sample",
    "Sand",
    "Tube",
    "TwoPhaseTube",
    "Vorticity",
    "Water",
    "get_problem",
]


def get_problem(name: str, dim: int | None = None) -> Any:
    """The problem of this name, in ``dim`` dimensions (by default the first that it has): a ``Problem``, or a
    ``ParticleProblem``.

    ``"particles"`` is a problem without a solver, for files of one's own.

    Raises ``ConfigError`` that suggests the nearest name for an unknown one, or says in which dimensions it exists.
    """
    known: dict[str, type[CaseFamily]] = {**PROBLEMS, **PARTICLE_PROBLEMS}
    if name == "particles":
        from sciml.problems.particles.own import OwnParticles

        return OwnParticles(dim)
    if name not in known:
        from sciml.problems.weak import WEAK_PROBLEMS

        if name in WEAK_PROBLEMS:
            raise ConfigError(
                f"problem {name!r} exists in weak form alone, which the operator dgno learns: "
                f"sciml.problems.weak.get_weak_problem({name!r})"
            )
        raise ConfigError(f"unknown problem {name!r}{did_you_mean(name, {*known, *WEAK_PROBLEMS})}")
    return known[name](dim)

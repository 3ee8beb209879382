"""Materials as particles in a box: water, sand, jelly, plasticine and goop, in 2D and 3D."""

from sciml.problems.particles.base import ParticleProblem
from sciml.problems.particles.goop import Goop
from sciml.problems.particles.jelly import Jelly
from sciml.problems.particles.plasticine import Plasticine
from sciml.problems.particles.sand import Sand
from sciml.problems.particles.scene import Body, Scene, solve_scene, solve_scenes
from sciml.problems.particles.water import Water

__all__ = [
    "Body",
    "Goop",
    "Jelly",
    "ParticleProblem",
    "Plasticine",
    "Sand",
    "Scene",
    "Water",
    "solve_scene",
    "solve_scenes",
]

"""Operators that step particles: from their last velocities and their neighbours to their accelerations."""

from sciml.operators.particles.base import ParticleOperator
from sciml.operators.particles.giorom import GIOROM
from sciml.operators.particles.gns import GNS
from sciml.operators.particles.graph import particle_graph

__all__ = ["GIOROM", "GNS", "ParticleOperator", "particle_graph"]

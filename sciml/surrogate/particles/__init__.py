"""Surrogates of particles: few points are stepped, all are brought along.

surrogate = sciml.load("runs/water/giorom/...")
scene = scene_of(trajectory, info, slice(0, surrogate.history + 1))
for frame in surrogate.dense_rollout(scene, steps=100):
    ...
"""

from sciml.surrogate.particles.normaliser import ParticleNormaliser
from sciml.surrogate.particles.scene import Scene, join, scene_of
from sciml.surrogate.particles.surrogate import Frame, ParticleSurrogate

__all__ = ["Frame", "ParticleNormaliser", "ParticleSurrogate", "Scene", "join", "scene_of"]

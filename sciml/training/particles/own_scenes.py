"""The loss of scenes that the network itself advances: to stay with the true ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sciml.surrogate.particles import ParticleSurrogate
from sciml.training.parallel import World
from sciml.training.particles.config import ParticleTaskConfig
from sciml.training.particles.pool import OwnScenes, ScenePool
from sciml.training.particles.task import ParticleLoss, pseudo_huber


class OwnScenesLoss(ParticleLoss):
    """As ``ParticleLoss``, of one step from where the network's own steps have led.

    Training on true frames alone teaches a network to repeat the accelerations that it reads, which is almost right
    there and wrong in a rollout, where they are its own. Here the target leads back to the true particles x*, as a
    critically damped spring does in about ``relaxation`` frames T,

        a = a* + 2 (v* - v) / T + (x* - x) / T^2,

    all in units of frames.

    Args:
        pool: the scenes; they go on as the surrogate moves them.
    """

    def __init__(self, surrogate: ParticleSurrogate, task: ParticleTaskConfig, pool: ScenePool) -> None:
        super().__init__(surrogate, task, pool.noise)
        self.pool = pool

    def begin(self, fraction: float) -> None:
        """Before each step: how much of training is spent."""
        self.pool.limit_to(1.0 if self.task.grow == 0 else fraction / self.task.grow)

    def forward(self, batch: OwnScenes, generator: torch.Generator) -> Tensor:  # type: ignore[override]
        """The loss of these scenes, which it advances."""
        scene, surrogate, relaxation = batch.scene, self.surrogate, self.task.relaxation
        before, now, later = batch.truth
        behind, slower = now - scene.position, now - before - scene.displacements[-1]
        target = later - 2 * now + before + 2 * slower / relaxation + behind / relaxation**2
        normalised = surrogate(scene)
        wanted = surrogate.normaliser.normalised(target, scene.gravity[scene.batch])
        loss = pseudo_huber((normalised - wanted)[~scene.fixed], self.task.huber).mean()
        self.pool.store(batch, surrogate.moved(scene, normalised.detach(), later))
        return self.with_following(loss, batch.following)

    def memory(self, world: World) -> dict[int, Any]:
        """What a checkpoint has to keep."""
        return self.pool.memory(world)

    def recall(self, memory: dict[int, Any]) -> None:
        """Go on from it."""
        self.pool.recall(memory)

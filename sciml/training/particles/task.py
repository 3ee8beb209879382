"""The loss of particles: normalised accelerations under random-walk noise, and of the points brought along."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sciml.surrogate.particles import ParticleSurrogate, Scene
from sciml.surrogate.particles.companions import Companions
from sciml.training.particles.config import ParticleTaskConfig
from sciml.training.particles.data import Following, ParticleBatch

_TINY = 1e-12


class ParticleLoss(nn.Module):
    """Mean over free particles of the error of the normalised acceleration, over one step or several.

    The error is squared where it is small and linear where it is large (``task.huber``): a few particles that hit
    something are accelerated a hundred times more than most.

    The newest frames carry a random walk (Sanchez-Gonzalez et al. 2020): the target lets a step correct the velocity,
    not the position. Where not all points are stepped, the error of those brought along is added.

    Args:
        surrogate: what is trained.
        task: noise (in units of the velocities' standard deviation), mirroring.
        noise: standard deviation of the random walk's last velocity in metres a frame.
    """

    def __init__(self, surrogate: ParticleSurrogate, task: ParticleTaskConfig, noise: float) -> None:
        super().__init__()
        self.surrogate, self.task, self.noise = surrogate, task, noise
        self._parts: dict[str, Tensor] = {}

    def forward(self, batch: ParticleBatch, generator: torch.Generator) -> Tensor:
        """The loss of a batch; ``generator`` draws noise and mirrors."""
        scene, future = batch.scene, batch.future
        if self.task.mirror:
            scene, future = mirrored(scene, future, generator)
        walk = random_walk(scene, self.noise, generator)
        scene, shift = replace(scene, history=scene.history + walk), walk[-1]
        gravity, free = scene.gravity[scene.batch], ~scene.fixed
        loss = torch.zeros((), device=scene.history.device)
        for target in future:
            normalised = self.surrogate(scene)
            before, now = scene.history[-2:]
            wanted = self.surrogate.normaliser.normalised(target + shift - 2 * now + before, gravity)
            loss = loss + pseudo_huber((normalised - wanted)[free], self.task.huber).mean() / len(future)
            if len(future) > 1:
                scene = scene.moved(self.surrogate.moved(scene, normalised, target))
        return self.with_following(loss, batch.following)

    def with_following(self, loss: Tensor, following: Following | None) -> Tensor:
        """Plus the loss of the points brought along, where there are any."""
        self._parts["acceleration_loss"] = loss.detach()
        if following is None:
            return loss
        along = self.following_loss(following)
        self._parts["upsampling_loss"] = along.detach()
        return loss + along

    def following_loss(self, following: Following) -> Tensor:
        """Root mean square error of the points brought along, in units of the radius, with the gradient of its
        logarithm: it has the same weight beside the accelerations however small the error is.
        """
        upsampler = self.surrogate.upsampler
        assert upsampler is not None
        companions = Companions(upsampler, following.scene, following.stepped)
        sparse = following.scene.position[following.stepped]
        anchor = companions.anchor(sparse, following.scene.position)
        leaders = following.later[following.stepped][companions.leaders]
        target = following.later[companions.followers]
        error = (upsampler(anchor, leaders) - target).square().sum(1).mean() / self.surrogate.stepper.radius**2
        logarithm = 0.5 * (error + _TINY).log()
        return logarithm + (logarithm.exp() - logarithm).detach()

    def numbers(self) -> dict[str, float]:
        """The two parts of the last loss."""
        return {name: float(value) for name, value in self._parts.items()}


def pseudo_huber(error: Tensor, delta: float | None) -> Tensor:
    """``2 delta^2 (sqrt(1 + |e|^2 / delta^2) - 1)`` of each row: ``|e|^2`` near 0, ``2 delta |e|`` far away; of no
    ``delta`` the square.
    """
    square = error.square().sum(-1)
    return square if delta is None else 2 * delta**2 * ((1 + square / delta**2).sqrt() - 1)


def random_walk(scene: Scene, std: float, generator: torch.Generator) -> Tensor:
    """Noise for the positions ``(F, N, d)`` of free particles: a random walk of velocities, summed up.

    The velocity steps are independent, so that the last velocity has the standard deviation ``std``; the oldest frame
    has none.
    """
    frames = len(scene.history)
    steps = torch.randn(frames - 1, *scene.history.shape[1:], generator=generator).to(scene.history)
    walk = steps.mul(std / (frames - 1) ** 0.5).cumsum(0).cumsum(0)
    return torch.cat([torch.zeros_like(walk[:1]), walk]) * ~scene.fixed[:, None]


def mirrored(scene: Scene, future: Tensor, generator: torch.Generator) -> tuple[Scene, Tensor]:
    """Each scene reflected, or not, along each axis that has no gravity: about the middle of its box."""
    sign = torch.where(torch.rand(scene.gravity.shape, generator=generator) < 0.5, -1.0, 1.0).to(scene.gravity)
    sign = torch.where(scene.gravity == 0, sign, 1.0)[scene.batch]
    if scene.bounds is None:
        centre = torch.zeros_like(sign)
    else:
        centre = scene.bounds.mean(-1)[scene.batch]
    turned = replace(scene, history=centre + sign * (scene.history - centre))
    return turned, centre + sign * (future - centre)

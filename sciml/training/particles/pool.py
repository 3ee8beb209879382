"""Scenes that the network itself advances beside the true frames, to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.surrogate.particles import Scene, join
from sciml.training.particles.data import Following, SparseWindows
from sciml.training.particles.task import mirrored, random_walk
from sciml.training.pool import Flow, Pool
from sciml.training.sampling import shuffled_batch, step_generator

LOST = 1.5
"""A scene whose particles are so many connectivity radii off (r.m.s.) tells nothing about the true one any more."""


@dataclass(frozen=True)
class Watched:
    """A true window: the scene at its start, all frames ``(history + 1 + steps, N, d)``, what the upsampler learns."""

    start: Scene
    frames: Tensor
    following: Following | None


@dataclass(frozen=True)
class OwnScenes:
    """Some places of the pool: their numbers and particle counts, the scenes as the network left them, the true frames
    ``truth (3, N, d)`` before, now and next, and what the upsampler learns from.
    """

    places: list[int]
    sizes: list[int]
    scene: Scene
    truth: Tensor
    following: Following | None

    def to(self, device: torch.device) -> OwnScenes:
        """The same on a device."""
        following = None if self.following is None else self.following.to(device)
        return replace(self, scene=self.scene.to(device), truth=self.truth.to(device), following=following)


class ScenePool(Pool[Watched]):
    """Windows of true frames whose first ones the network gets, under noise, and which it then follows by itself.

    Args:
        windows: the training windows, as long as a life.
        noise, mirror: as in ``ParticleLoss``; drawn once for each scene.
        seed: of the order of the windows, of noise and of mirrors.
        lost: r.m.s. distance from the true particles, in metres, at which a scene is given up.
        options: those of ``Pool``.
    """

    def __init__(
        self, windows: SparseWindows, *, noise: float, mirror: bool, seed: int, lost: float, **options: int
    ) -> None:
        super().__init__(**options)
        self.windows, self.noise, self.mirror, self.seed, self.lost = windows, noise, mirror, seed, lost

    def __len__(self) -> int:
        return len(self.windows)

    def start(self, number: int) -> Flow[Watched]:
        (index,) = shuffled_batch(len(self.windows), 1, number, self.seed)
        window = self.windows.batch([index])
        scene, future = window.scene, window.future
        generator = step_generator(self.seed, number, 3)
        if self.mirror:
            scene, future = mirrored(scene, future, generator)
        noisy = scene.history + random_walk(scene, self.noise, generator)
        watched = Watched(scene, torch.cat([scene.history, future]), window.following)
        return Flow(number, watched, 0, noisy)

    def batch(self, indices: Sequence[int]) -> OwnScenes:
        """The scenes of these places."""
        flows = self.occupied(indices)
        now = self.windows.task.history
        scenes = [replace(flow.given.start, history=flow.state) for flow in flows]
        truth = [flow.given.frames[now + flow.age - 1 : now + flow.age + 2] for flow in flows]
        # One scene a step is enough for the upsampler, which learns fast; each step has one, as DDP wants.
        following = next((flow.given.following for flow in flows if flow.given.following is not None), None)
        return OwnScenes(list(indices), [len(scene) for scene in scenes], join(scenes), torch.cat(truth, 1), following)

    def store(self, batch: OwnScenes, after: Tensor) -> None:
        """Where the particles ``(N, d)`` of all scenes are a frame later."""
        history = batch.scene.moved(after.detach()).history.cpu()
        lag = (after.detach() - batch.truth[2]).square().sum(-1).cpu()
        for place, part, far in zip(batch.places, history.split(batch.sizes, 1), lag.split(batch.sizes), strict=True):
            sound = bool(far.mean().sqrt() < self.lost)  # false for NaN too
            self.advance(place, part.clone(), sound)

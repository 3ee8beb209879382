"""What a particle surrogate steps: the last frames of some particles, what they are made of, the box around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.errors import DataError

if TYPE_CHECKING:
    from sciml.datasets.particles import ParticleInfo, ParticleTrajectory


@dataclass(frozen=True)
class Scene:
    """One scene, or several that do not touch, in physical units.

    Attributes:
        history: positions ``(F, N, d)`` in metres of the last F frames, the newest last.
        kind: ``(N,)`` what a particle is, an index into the surrogate's ``kinds``.
        fixed: ``(N,)`` whether it moves as prescribed (an obstacle) and not by itself.
        parameters: ``(N, P)`` material parameters, columns as the surrogate's ``parameters``.
        batch: ``(N,)`` scene of each particle, sorted.
        bounds: ``(B, d, 2)`` the box of each scene, low and high; None: no walls.
        gravity: ``(B, d)`` in m/s^2.
    """

    history: Tensor
    kind: Tensor
    fixed: Tensor
    parameters: Tensor
    batch: Tensor
    bounds: Tensor | None
    gravity: Tensor

    def __len__(self) -> int:
        return self.history.shape[1]

    @property
    def position(self) -> Tensor:
        """Where the particles are now, ``(N, d)``."""
        return self.history[-1]

    @property
    def displacements(self) -> Tensor:
        """Differences of successive frames ``(F - 1, N, d)``, the newest last."""
        return self.history.diff(dim=0)

    def moved(self, position: Tensor) -> Scene:
        """One frame later, with the particles at ``position (N, d)``."""
        return replace(self, history=torch.cat([self.history[1:], position[None]]))

    def select(self, particles: Tensor) -> Scene:
        """These particles only, in this order; an order that mixes scenes is refused."""
        batch = self.batch[particles]
        if bool((batch.diff() < 0).any()):
            raise DataError("the chosen particles mix scenes: they have to be in the order of the scenes")
        return replace(
            self,
            history=self.history[:, particles],
            kind=self.kind[particles],
            fixed=self.fixed[particles],
            parameters=self.parameters[particles],
            batch=batch,
        )

    def with_particles(self, more: Scene) -> Scene:
        """With further particles of the same scenes, as an inlet adds them between two steps: they come last in each
        scene.

        Raises ``DataError`` if they have another number of frames, axes or parameters.
        """
        ours, theirs = ((*s.history.shape[::2], s.parameters.shape[1]) for s in (self, more))
        if ours != theirs:
            raise DataError(
                f"the particles to add have (frames, axes, parameters) = {theirs}, those of the scene {ours}"
            )
        order = torch.cat([self.batch, more.batch]).argsort(stable=True)
        joined = {
            name: torch.cat([getattr(self, name), getattr(more, name)])[order]
            for name in ("kind", "fixed", "parameters", "batch")
        }
        return replace(self, history=torch.cat([self.history, more.history], 1)[:, order], **joined)

    def to(self, device: torch.device | str) -> Scene:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)

    def double(self) -> Scene:
        """The same in float64."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value.double() for name, value in given.items() if value.is_floating_point()})


def scene_of(
    trajectory: ParticleTrajectory, info: ParticleInfo, frames: slice, particles: Tensor | None = None
) -> Scene:
    """The scene at the last of these frames of a trajectory, with all of its particles or some.

    Raises ``DataError`` if there are not so many frames.
    """
    chosen = slice(None) if particles is None else particles
    history = trajectory.position[frames][:, chosen]
    if frames.start is None or frames.start < 0 or len(history) != frames.stop - frames.start:
        raise DataError(
            f"the trajectory has {len(trajectory.position)} frames; frames {frames.start} to {frames.stop} were asked "
            "for (the stepper reads some frames before the one it starts from)"
        )
    return Scene(
        history,
        trajectory.kind[chosen],
        trajectory.fixed[chosen],
        trajectory.parameters[chosen],
        torch.zeros(history.shape[1], dtype=torch.int64),
        torch.tensor(info.bounds, dtype=history.dtype)[None],
        torch.tensor(info.gravity, dtype=history.dtype)[None],
    )


def join(scenes: Sequence[Scene]) -> Scene:
    """Several scenes as one, numbered in this order; either all have bounds or none."""
    if not scenes:
        raise DataError("there is no scene to join")
    counts = torch.tensor([0, *(len(scene.gravity) for scene in scenes)]).cumsum(0)
    walls = [scene.bounds for scene in scenes if scene.bounds is not None]
    if len(walls) not in (0, len(scenes)):
        raise DataError("some of the scenes have bounds and some have none; give all of them bounds, or none")
    return Scene(
        torch.cat([scene.history for scene in scenes], 1),
        torch.cat([scene.kind for scene in scenes]),
        torch.cat([scene.fixed for scene in scenes]),
        torch.cat([scene.parameters for scene in scenes]),
        torch.cat([scene.batch + int(first) for scene, first in zip(scenes, counts[:-1], strict=True)]),
        torch.cat(walls) if walls else None,
        torch.cat([scene.gravity for scene in scenes]),
    )

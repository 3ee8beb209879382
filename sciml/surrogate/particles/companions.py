"""The particles of a scene that are not stepped: which are, and how the others are brought along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.points import farthest_points, random_points
from sciml.surrogate.particles.scene import Scene

if TYPE_CHECKING:
    from sciml.operators.particles.upsampler import Anchor, KernelUpsampler


def choose(scene: Scene, points: int | None, sampling: str, seed: int) -> Tensor:
    """The particles of each scene that are stepped, about ``points`` of them, sorted.

    Every kind of particle gets its share, and one at least. ``sampling``: ``"farthest"`` from one another, from a start
    that the seed draws, or ``"random"``.
    """
    if points is None:
        return torch.arange(len(scene), device=scene.batch.device)
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    groups, sizes = _groups(scene).unique(return_inverse=False, return_counts=True)
    totals = torch.bincount(scene.batch)
    for group, size in zip(groups.tolist(), sizes.tolist(), strict=True):
        members = (_groups(scene) == group).nonzero()[:, 0]
        share = points * size / int(totals[scene.batch[members[0]]])
        count = min(size, max(1, round(share)))
        if sampling == "random":
            picked = random_points(size, count, generator)
        else:
            start = int(torch.randint(size, (), generator=generator))
            picked = farthest_points(scene.position[members], count, start=start)
        chosen.append(members[picked.to(members.device)])
    return torch.cat(chosen).sort().values


class Companions:
    """The free particles of a scene that are not among those ``stepped``, each following stepped ones of its own kind.

    Args:
        upsampler: says how they follow.
        scene: all particles.
        stepped: numbers of those that are stepped, sorted.

    Raises:
        DataError: a scene has free particles of a kind of which none is stepped.
    """

    def __init__(self, upsampler: KernelUpsampler, scene: Scene, stepped: Tensor) -> None:
        self.upsampler, self.stepped = upsampler, stepped
        group = _groups(scene)
        rest = ~scene.fixed
        rest[stepped] = False
        followers = rest.nonzero()[:, 0]
        leaders = (~scene.fixed[stepped]).nonzero()[:, 0]
        # The neighbour search wants groups in order, numbered from 0.
        self.followers = followers[group[followers].argsort(stable=True)]
        self.leaders = leaders[group[stepped[leaders]].argsort(stable=True)]
        names, self.leader_group = group[stepped[self.leaders]].unique(return_inverse=True)
        own = torch.searchsorted(names, group[self.followers]).clamp(max=max(len(names) - 1, 0))
        if len(self.followers) and (not len(names) or bool((names[own] != group[self.followers]).any())):
            raise DataError(
                "some particles are of a kind of which none is stepped in their scene; step one of each kind at least"
            )
        self.follower_group = own

    def anchor(self, sparse: Tensor, dense: Tensor) -> Anchor:
        """Look for the neighbours of all followers, the particles being at ``sparse (n, d)`` and ``dense (N, d)``.

        Where no gradients are wanted it is prepared for many frames.
        """
        anchor = self.upsampler.anchor(
            sparse[self.leaders], dense[self.followers], batch=self.leader_group, query_batch=self.follower_group
        )
        return anchor if torch.is_grad_enabled() else self.upsampler.prepared(anchor)

    def held(self, anchor: Anchor, sparse: Tensor) -> Anchor:
        """The anchor with the learned correction as it is with the stepped particles at ``sparse (n, d)``."""
        return self.upsampler.held(anchor, sparse[self.leaders])

    def moved(self, anchor: Anchor, sparse: Tensor, dense: Tensor) -> Tensor:
        """All particles ``(N, d)`` once the stepped ones are at ``sparse``; fixed ones stay as in ``dense``."""
        moved = dense.clone()
        moved[self.stepped] = sparse
        if len(self.followers):
            moved[self.followers] = self.upsampler(anchor, sparse[self.leaders]).to(dense.dtype)
        return moved


class Following:
    """Followers through a rollout: neighbours anew every ``anchor_every`` frames (None: never), the learned correction
    every ``correct_every``. The particles start at ``sparse (n, d)`` and ``dense (N, d)``.
    """

    def __init__(
        self, companions: Companions, sparse: Tensor, dense: Tensor, anchor_every: int | None, correct_every: int
    ) -> None:
        self.companions, self.anchor_every, self.correct_every = companions, anchor_every, correct_every
        self._anchored(sparse, dense)

    def _anchored(self, sparse: Tensor, dense: Tensor) -> None:
        self.anchor = self.used = self.companions.anchor(sparse, dense)
        self.age = 0

    def moved(self, sparse: Tensor, dense: Tensor) -> Tensor:
        """As ``Companions.moved``, one frame further."""
        if self.correct_every > 1 and self.age % self.correct_every == 0:
            self.used = self.companions.held(self.anchor, sparse)
        self.age += 1
        return self.companions.moved(self.used, sparse, dense)

    def arrived(self, sparse: Tensor, dense: Tensor) -> None:
        """The particles are at these places now: look for neighbours, if it is time."""
        if self.age == self.anchor_every:
            self._anchored(sparse, dense)


def _groups(scene: Scene) -> Tensor:
    """A number for each pair of scene and kind, in the order of the scenes."""
    return scene.batch * (int(scene.kind.max()) + 1 if len(scene) else 1) + scene.kind

"""Which samples a training step sees: pure functions of seed and step, so that resuming needs no generator state."""

from __future__ import annotations

import torch


class Shuffled:
    """A source of training batches that visits each of its samples once an epoch.

    A source that chooses otherwise (all samples of a step from one of its parts, say) has an ``indices`` of its own.
    """

    def __len__(self) -> int:
        raise NotImplementedError

    def indices(self, size: int, step: int, seed: int) -> list[int]:
        """Positions of the ``size`` samples of a step, those of all processes together."""
        return shuffled_batch(len(self), size, step, seed)


def step_generator(seed: int, step: int, rank: int = 0) -> torch.Generator:
    """A generator for the draws of one step on one process."""
    mixed = (seed * 1_000_003 + step) * 4099 + rank
    return torch.Generator().manual_seed(mixed % (2**63))


def shuffled_batch(length: int, size: int, step: int, seed: int) -> list[int]:
    """Indices of a step's batch: an epoch visits each once, in an order that depends on seed and epoch only."""
    indices: list[int] = []
    start = step * size
    while len(indices) < size:
        epoch, offset = divmod(start + len(indices), length)
        order = torch.randperm(length, generator=step_generator(seed, epoch, 1))
        indices += order[offset : offset + size - len(indices)].tolist()
    return indices

"""The loss of steps without data: what the equation leaves over of them; and the same beside data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciml.surrogate import Surrogate
from sciml.training.by_equation.pool import FieldPool, States
from sciml.training.loop import Source
from sciml.training.parallel import World
from sciml.training.tasks import common_units

SMALLEST = 0.05
"""Defects are relative to the size of the state, or to this many natural units where it is smaller (a flow at rest)."""


class EquationLoss(nn.Module):
    """Mean over cases, frames and fields of ``||defect|| / ||u||``: ``Problem.trajectory_defect`` of the frames that
    the surrogate predicts, from frame to frame, with the state that it started from.

    In these units it weighs like the relative error of a step (``losses.relative_l2``).

    Args:
        surrogate: the model; it reads one frame.
        pool: where the states come from, and where they go on to.
        calls: calls of the network, one after the other, that a step differentiates through.
        grow: share of training in which the flows of the pool grow to their full length.
    """

    def __init__(self, surrogate: Surrogate, pool: FieldPool, *, calls: int = 1, grow: float = 0.5) -> None:
        super().__init__()
        self.surrogate, self.pool, self.calls, self.grow = surrogate, pool, calls, grow

    def begin(self, fraction: float) -> None:
        """Before each step: how much of training is spent."""
        self.pool.limit_to(1.0 if self.grow == 0 else fraction / self.grow)

    def forward(self, batch: States, generator: torch.Generator) -> Tensor:
        """The loss of these states, which it advances."""
        surrogate, window = self.surrogate, batch.state.unsqueeze(1)
        groups = [field.components for field in surrogate.fields.values()]
        losses = []
        for _ in range(self.calls):
            scaled, scale = surrogate.predict_frames(window, batch.parameters, batch.interval)
            frames = scaled * scale.unsqueeze(1)
            sequence = torch.cat([window, frames], 1)
            defect = surrogate.problem.trajectory_defect(sequence, batch.parameters, batch.interval)
            losses.append(relative_defect(defect / scale.unsqueeze(1), scaled, common_units(scale, groups), groups))
            window = frames[:, -1:]
        self.pool.store(batch, window[:, 0])
        return torch.stack(losses).mean()

    def memory(self, world: World) -> dict[str, Any]:
        """What a checkpoint has to keep."""
        return self.pool.memory(world)

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on from it."""
        self.pool.recall(memory)


def relative_defect(defect: Tensor, state: Tensor, weight: Tensor, groups: Sequence[int]) -> Tensor:
    """Mean of ``||defect|| / max(||state||, SMALLEST)`` over cases, frames and fields; both ``(B, K, C, *grid)`` in
    scaled units, ``weight (B, C, 1...)`` turns them to common ones. The state is taken as it is, without gradient.
    """
    weight = weight.unsqueeze(1)
    sizes = []
    for each in (defect * weight, state.detach() * weight):
        parts = each.split(list(groups), 2)
        sizes.append(torch.stack([part.square().sum(2).flatten(2).mean(2) for part in parts], 2))
    left, size = sizes
    return ((left + 1e-16) / size.clamp(min=SMALLEST**2)).sqrt().mean()


@dataclass(frozen=True)
class Both:
    """A batch of data and states of the pool."""

    data: Any
    states: States

    def to(self, device: torch.device) -> Both:
        return Both(self.data.to(device), self.states.to(device))


class BothSources:
    """Training samples of data, each with a place of the pool."""

    def __init__(self, data: Source, pool: FieldPool) -> None:
        self.data, self.pool = data, pool

    def __len__(self) -> int:
        return len(self.data)

    def indices(self, size: int, step: int, seed: int) -> list[Any]:
        """Pairs of a sample and a place."""
        return list(zip(self.data.indices(size, step, seed), self.pool.indices(size, step, seed), strict=True))

    def batch(self, indices: Sequence[Any]) -> Both:
        """Both batches."""
        samples, places = zip(*indices, strict=True)
        return Both(self.data.batch(samples), self.pool.batch(places))


class WeightedLoss(nn.Module):
    """``(1 - weight)`` times the loss of the data plus ``weight`` times that of the equation."""

    def __init__(self, data: nn.Module, equation: EquationLoss, weight: float) -> None:
        super().__init__()
        self.data, self.equation, self.weight = data, equation, weight
        self.begin, self.memory, self.recall = equation.begin, equation.memory, equation.recall
        self._parts: dict[str, Tensor] = {}

    def forward(self, batch: Both, generator: torch.Generator) -> Tensor:
        """The loss of a batch; ``generator`` draws what the loss of the data draws."""
        data, equation = self.data(batch.data, generator), self.equation(batch.states, generator)
        self._parts = {"data_loss": data.detach(), "equation_loss": equation.detach()}
        return (1 - self.weight) * data + self.weight * equation

    def numbers(self) -> dict[str, float]:
        """The two parts of the last loss."""
        return {name: float(value) for name, value in self._parts.items()}

"""States to learn from without data: fields that start as random cases do and that the network advances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.problems.base import Problem
from sciml.training.pool import Flow, Pool
from sciml.training.random_cases import RandomCases

LARGEST = 10.0
"""A state larger than so many times the natural unit of its field has diverged: its place is given to a new case."""

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class States:
    """Places of the pool: their numbers, ``state (B, C, *grid)``, ``parameters`` name -> (B,), ``interval (B,)``."""

    places: list[int]
    state: Tensor
    parameters: Parameters
    interval: Tensor

    def to(self, device: torch.device) -> States:
        """The state on a device."""
        return replace(self, state=self.state.to(device, non_blocking=True))


class FieldPool(Pool[Parameters]):
    """Flows of random cases; what is given of each are its parameters.

    Args:
        cases: where new cases come from.
        problem: makes their first states.
        interval: seconds between frames.
        options: those of ``Pool``.
    """

    def __init__(self, cases: RandomCases, problem: Problem, interval: float, **options: int) -> None:
        super().__init__(**options)
        self.cases, self.problem, self.interval = cases, problem, interval

    def __len__(self) -> int:
        return len(self.cases)

    def start(self, number: int) -> Flow[Parameters]:
        parameters = self.cases.batch([number]).parameters
        return Flow(number, parameters, 0, self.problem.start(parameters, self.cases.resolution)[0].float())

    def batch(self, indices: Sequence[int]) -> States:
        """The flows of these places."""
        flows = self.occupied(indices)
        return States(
            list(indices),
            torch.stack([flow.state for flow in flows]),
            {name: torch.cat([flow.given[name] for flow in flows]) for name in flows[0].given},
            torch.full((len(flows),), self.interval, dtype=torch.float64),
        )

    def store(self, states: States, after: Tensor) -> None:
        """Where the flows are after the network's call, ``(B, C, *grid)``."""
        after = after.detach().cpu()
        scales = self.problem.scales(states.parameters)
        unit = torch.cat([scales[name] for name in self.problem.learned], -1)
        sound = (after.flatten(2).abs().amax(2) < LARGEST * unit).all(1)  # false for NaN too
        for place, state, good in zip(states.places, after.unbind(0), sound.tolist(), strict=True):
            self.advance(place, state.clone(), good)

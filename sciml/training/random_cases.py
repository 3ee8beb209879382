"""Cases to train on that nobody solved: an endless row of random ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.errors import SolverError
from sciml.problems.base import Problem
from sciml.training.config import TrainConfig

DRAWS = 20
"""Tries to draw a case that the grid resolves, where it does not resolve every case of a subset."""

RANGE_CASES = 256
"""Training cases that the ranges and the statistics of the conditions are taken from."""


@dataclass(frozen=True)
class Cases:
    """Cases by their numbers: parameters name -> ``(B,)``, draws included."""

    parameters: dict[str, Tensor]

    def to(self, device: torch.device) -> Cases:
        """The same: parameters stay where they are checked; the surrogate makes fields of them on its device."""
        return replace(self)


class RandomCases:
    """Training samples: an endless row of random cases of a subset, each a function of the seed and its number.

    No case is seen twice and none is solved. A draw that the grid does not resolve is replaced by another.
    """

    def __init__(self, problem: Problem, subset: str, seed: int, resolution: int, epoch: int) -> None:
        self.problem, self.seed, self.resolution, self.epoch = problem, seed, resolution, epoch
        self.kinds = problem.case_subsets(len(problem.mixture or problem.subsets), subset)

    def __len__(self) -> int:
        return self.epoch

    def indices(self, size: int, step: int, seed: int) -> list[int]:
        """The next ``size`` cases; the seed of the configuration is in the cases."""
        return list(range(step * size, (step + 1) * size))

    def batch(self, indices: Sequence[int]) -> Cases:
        """The cases of these numbers."""
        drawn = [self._case(index) for index in indices]
        return Cases({name: torch.cat([case[name] for case in drawn]) for name in drawn[0]})

    def _case(self, index: int) -> dict[str, Tensor]:
        subset = self.kinds[index % len(self.kinds)]
        # Far from the seeds that generation uses: a training case is never a test case.
        seed = ((self.seed + 1) * 1_000_003 + index) * 4099 + 2**40
        for attempt in range(DRAWS):
            with suppress(SolverError):
                return self.problem.sample(1, subset, seed + attempt, self.resolution).parameters
        return self.problem.sample(1, subset, seed, self.resolution).parameters


def random_cases(config: TrainConfig, problem: Problem) -> RandomCases:
    """Where the cases of a run without data come from."""
    data = config.data
    return RandomCases(problem, data.subset, config.seed, data.resolution, data.cases.train)

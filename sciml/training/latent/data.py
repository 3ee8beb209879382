"""The cases of a run on a weak problem: input functions, and the solutions of those that have one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.problems.weak import WeakProblem
from sciml.progress import Progress
from sciml.training.latent.config import LatentDataConfig
from sciml.training.sampling import Shuffled

PART = 50
"""Cases that are solved between two reports of progress."""


@dataclass(frozen=True)
class LatentBatch:
    """``inputs (B, P)``, ``solutions (B, C, N)`` (zeros where there is none), ``labelled (B,)``, in physical units."""

    inputs: Tensor
    solutions: Tensor
    labelled: Tensor

    def to(self, device: torch.device) -> LatentBatch:
        """The same on a device."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            solutions=self.solutions.to(device),
            labelled=self.labelled.to(device),
        )


class LatentCases(Shuffled):
    """Cases in memory: ``inputs (N, P)`` and the solutions of the first of them."""

    def __init__(self, inputs: Tensor, solutions: Tensor) -> None:
        self.inputs, self.solutions = inputs.float(), solutions.float()

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: Sequence[int]) -> LatentBatch:
        """The cases of these numbers."""
        chosen = torch.tensor(indices)
        labelled = chosen < len(self.solutions)
        if not bool(labelled.any()):
            empty = self.solutions.new_zeros(len(chosen), *self.solutions.shape[1:2], 0)
            return LatentBatch(self.inputs[chosen], empty, labelled)
        solutions = self.solutions[chosen.clamp(max=len(self.solutions) - 1)]
        return LatentBatch(self.inputs[chosen], solutions, labelled)


@dataclass(frozen=True)
class LatentSplit:
    """The parts of a run's cases; ``parameters`` of the test cases say what they are at any resolution."""

    train: LatentCases
    validation: LatentCases
    test: LatentCases
    parameters: dict[str, Tensor]


def prepare_latent(problem: WeakProblem, data: LatentDataConfig, progress: Progress) -> LatentSplit:
    """Draw the cases of all parts and solve those that are learned from or judged by."""
    counts = (data.cases.train, data.cases.validation, data.cases.test)
    labelled = (data.labelled, counts[1], counts[2])
    parts = []
    parameters: dict[str, Tensor] = {}
    with progress.phase("solve", sum(labelled)):
        for index, (count, solved) in enumerate(zip(counts, labelled, strict=True)):
            # Seeds of their own: a training set of another size leaves the test cases as they are.
            parameters = problem.draw_cases(count, (data.seed * 3 + index) * 1_000_003 + 17)
            inputs = problem.inputs(parameters)
            solutions = [inputs.new_zeros(0, sum(f.components for f in problem.fields), len(problem.points))]
            for part in inputs[:solved].split(PART) if solved else ():
                solutions.append(problem.solve(part))
                progress.advance(len(part))
            parts.append(LatentCases(inputs, torch.cat(solutions)))
    return LatentSplit(*parts, parameters)

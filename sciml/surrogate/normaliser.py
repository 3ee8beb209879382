"""Mean and standard deviation that networks see the fields and conditions in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class Normaliser(nn.Module):
    """Mean and standard deviation of scaled fields, increments and conditions, pooled over the training cases.

    Increments are those of the training pairs: of one frame to the next, or between any two frames of a trajectory.
    ``input_mean``, ``input_std``: of the fields that a map reads; a step reads the fields that it predicts.
    """

    def __init__(self, statistics: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        statistics = {"input_mean": statistics["mean"], "input_std": statistics["std"], **statistics}
        for name in ("mean", "std", "increment_std", "condition_mean", "condition_std", "input_mean", "input_std"):
            self.register_buffer(name, torch.tensor(statistics[name], dtype=torch.float32))

    mean: Tensor
    std: Tensor
    increment_std: Tensor
    condition_mean: Tensor
    condition_std: Tensor
    input_mean: Tensor
    input_std: Tensor

    def as_dict(self) -> dict[str, list[float]]:
        """The statistics as plain lists, for ``config.json``."""
        return {name: buffer.tolist() for name, buffer in self.named_buffers()}

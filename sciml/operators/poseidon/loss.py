"""The published training loss."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def grouped_loss(prediction: Tensor, target: Tensor, p: int, groups: Sequence[int] | None) -> Tensor:
    """Mean over groups of channels of ``mean|y - x|^p / mean|y|^p``; without groups ``mean|y - x|^p``.

    Both means go over the whole batch. ``groups``: boundaries of the groups in the channels, e.g. (0, 1, 3, 4).
    """
    error, size = (prediction - target).abs(), target.abs()
    if p == 2:
        error, size = error.square(), size.square()
    if groups is None:
        return error.mean()
    parts = [(error[:, a:b].mean() / (size[:, a:b].mean() + 1e-10)) for a, b in itertools.pairwise(groups)]
    return torch.stack(parts).mean()

"""Losses between a predicted and a true state in scaled (dimensionless) units, ``(B, C, *grid)`` each.

``groups`` are the channels of each field: velocity components belong together, pressure counts on its own. With
``fluid (B, *grid)`` bool only the cells where it is true count; None: all.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Loss = Callable[..., Tensor]
"""``(prediction, target, groups, fluid=None)``."""
_TINY = 1e-12


def _within(fluid: Tensor | None, *fields: Tensor) -> tuple[Any, ...]:
    """Fields ``(B, C, *grid)`` with zeros outside the fluid, and the cells over those that count (1 without a mask)."""
    if fluid is None:
        return (*fields, 1.0)
    solid = ~fluid.unsqueeze(1)
    return (*(values.masked_fill(solid, 0.0) for values in fields), fluid.numel() / fluid.sum())


def _squares(values: Tensor, groups: Sequence[int]) -> Tensor:
    """Sum of squares of each group of channels, ``(B, groups)``."""
    return torch.stack([part.square().flatten(1).sum(1) for part in values.split(list(groups), 1)], 1)


def relative_l2(prediction: Tensor, target: Tensor, groups: Sequence[int], fluid: Tensor | None = None) -> Tensor:
    """Mean over samples and fields of ``||p - y|| / ||y||``: every sample weighs the same, however fast its flow."""
    prediction, target, _ = _within(fluid, prediction, target)
    return (_squares(prediction - target, groups) / (_squares(target, groups) + _TINY)).add(_TINY).sqrt().mean()


def _sizes(values: Tensor, groups: Sequence[int]) -> Tensor:
    """Mean magnitude of each group of channels over everything else, ``(groups,)``."""
    return torch.stack([part.abs().mean() for part in values.split(list(groups), 1)])


def relative_l1(prediction: Tensor, target: Tensor, groups: Sequence[int], fluid: Tensor | None = None) -> Tensor:
    """Mean over fields of ``mean |p - y| / mean |y|``, the means over samples, components and cells together.

    Poseidon's training loss (Herde et al. 2024). A sample weighs by its size, so that one at rest is harmless. There
    the fields are standardised; here, as in every loss, they are in natural units, the mean of a field included in
    ``|y|``.
    """
    prediction, target, _ = _within(fluid, prediction, target)
    return (_sizes(prediction - target, groups) / (_sizes(target, groups) + _TINY)).mean()


def nmse(prediction: Tensor, target: Tensor, groups: Sequence[int], fluid: Tensor | None = None) -> Tensor:
    """Mean over samples and fields of ``||p - y||^2 / ||y||^2`` (CFDBench's training loss)."""
    prediction, target, _ = _within(fluid, prediction, target)
    return (_squares(prediction - target, groups) / (_squares(target, groups) + _TINY)).mean()


def mse(prediction: Tensor, target: Tensor, groups: Sequence[int], fluid: Tensor | None = None) -> Tensor:
    """Mean squared error over everything."""
    prediction, target, share = _within(fluid, prediction, target)
    return (prediction - target).square().mean() * share


def mae(prediction: Tensor, target: Tensor, groups: Sequence[int], fluid: Tensor | None = None) -> Tensor:
    """Mean absolute error over everything."""
    prediction, target, share = _within(fluid, prediction, target)
    return (prediction - target).abs().mean() * share


LOSSES: dict[str, Loss] = {"relative_l2": relative_l2, "relative_l1": relative_l1, "nmse": nmse, "mse": mse, "mae": mae}

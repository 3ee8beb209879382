"""The width at which one network has as many weights as another."""

from collections.abc import Callable

import torch
from torch import nn


def count(make: Callable[..., nn.Module], *arguments: int) -> int:
    """Number of weights of ``make(*arguments)``, which is not kept and takes no memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(*arguments).parameters())


def same_size(make: Callable[[int], nn.Module], other: Callable[[], nn.Module]) -> int:
    """The width of the networks of ``make``, which grow with it, whose number of weights is nearest to that of
    ``other``.
    """
    wanted, low, high = count(other), 1, 2
    while count(make, high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(make, middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(count(make, width) - wanted))

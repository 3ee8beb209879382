"""A perceptron: linear layers with GELU between them."""

import itertools
from collections.abc import Sequence

from torch import nn


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given widths with GELU between them."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        layers += [nn.GELU()] if i else []
        layers.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*layers)

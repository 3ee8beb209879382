"""From the values of an input function at fixed points to a distribution of the latent vector."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from sciml.errors import ConfigError


def perceptron_encoder(n_inputs: int, widths: Sequence[int], outputs: int) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them: ``(B, n_inputs)`` to ``(B, outputs)``."""
    layers: list[nn.Module] = []
    before = n_inputs
    for width in widths:
        layers += [nn.Linear(before, width), nn.SiLU()]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, outputs))


def convolution_encoder(shape: Sequence[int], channels: Sequence[int], outputs: int) -> nn.Sequential:
    """3-wide convolutions of stride 2 with SiLU, then a perceptron: ``(B, prod(shape))`` to ``(B, outputs)``.

    Raises ``ConfigError`` for more than three axes.
    """
    if not 1 <= len(shape) <= 3:
        raise ConfigError(f"dgno: encoder 'convolution' needs inputs on a grid of 1 to 3 axes; their shape is {shape}")
    convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(shape)]
    layers: list[nn.Module] = [nn.Unflatten(1, (1, *shape))]
    before, size = 1, list(shape)
    for width in channels:
        layers += [convolution(before, width, 3, stride=2, padding=1), nn.SiLU()]
        before, size = width, [(n + 1) // 2 for n in size]
    return nn.Sequential(*layers, nn.Flatten(), perceptron_encoder(before * math.prod(size), (256, 128), outputs))

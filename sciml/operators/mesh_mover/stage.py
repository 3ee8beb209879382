"""The network of a stage: a small U-Net whose padding continues the fields evenly at walls and round periodic axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.operators.layers.linear import under_func

LEVELS = 2
"""Times that the grid is halved: the cells of each axis are a multiple of 2^LEVELS."""


class Convolution(nn.Module):
    """3^d convolution; at walls the fields are mirrored, which for one layer of cells repeats the last one."""

    def __init__(self, dim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.inner = (nn.Conv2d, nn.Conv3d)[dim - 2](in_channels, out_channels, 3)

    def forward(self, x: Tensor, periodic: Sequence[bool]) -> Tensor:
        for mode, wanted in (("circular", True), ("replicate", False)):
            width = [1 if axis == wanted else 0 for axis in reversed(periodic) for _ in range(2)]
            if any(width):
                x = functional.pad(x, width, mode=mode)
        return self.inner(x)


class Stage(nn.Module):
    """Features ``(B, in_channels, *n)`` to one field ``(B, *n)``, zero at the start."""

    def __init__(self, dim: int, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        widths = [hidden_channels * 2 ** min(level, 1) for level in range(LEVELS + 1)]
        before = [in_channels, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.ModuleList([Convolution(dim, first, width), Convolution(dim, width, width)])
            for first, width in zip(before, widths, strict=True)
        )
        pointwise = (nn.Conv2d, nn.Conv3d)[dim - 2]
        self.up = nn.ModuleList(
            pointwise(widths[level] + widths[level + 1], widths[level], 1) for level in range(LEVELS)
        )
        self.last = Convolution(dim, widths[0], widths[0])
        self.out = pointwise(widths[0], 1, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.pool = (functional.avg_pool2d, functional.avg_pool3d)[dim - 2]

    def forward(self, x: Tensor, periodic: Sequence[bool]) -> Tensor:
        if x.ndim == 4 and not under_func():  # the layout that convolutions on a CPU and on tensor cores want
            x = x.contiguous(memory_format=torch.channels_last)
        kept = []
        for level, (first, second) in enumerate(self.down):
            if level:
                x = self.pool(x, 2)
            x = functional.gelu(second(functional.gelu(first(x, periodic)), periodic))
            kept.append(x)
        x = kept.pop()
        for mix in reversed(self.up):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = functional.gelu(mix(torch.cat([x, kept.pop()], 1)))
        return self.out(functional.gelu(self.last(x, periodic))).squeeze(1)

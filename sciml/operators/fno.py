"""Fourier neural operator."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.errors import ConfigError, did_you_mean
from sciml.operators.base import Operator
from sciml.operators.layers.condition import Condition
from sciml.operators.layers.coordinates import cell_coordinates
from sciml.operators.layers.patches import crop, from_patches, pad_high, pad_to_multiple, to_patches
from sciml.operators.layers.pointwise import Pointwise
from sciml.operators.layers.spectral import SpectralConv
from sciml.operators.stored import check_positive

BLOCKS = ("residual", "postactivation")


class FNO(Operator):
    """Pointwise layers and convolutions in Fourier space [Li et al. 2021, arXiv:2010.08895].

    Lifting (two pointwise layers), ``n_layers`` blocks, projection (two pointwise layers). With the spectral
    convolution K, pointwise linear maps W and M and a gate g per channel, a block is

    - ``block="residual"``: ``x + M gelu(K x + W x)``;
    - ``block="postactivation"``: ``s(M x' + g x)`` with ``x' = s(K x + W x)``, M a two-layer perceptron of
      half the width and s = gelu except in the last block. This is the block of ``neuraloperator`` 2.0 with
      its defaults: equal to rounding with ``patch_size=1, padding=0`` (tests/operators/test_fno_parity.py).

    Any grid: each axis is padded by repeating its last cell to a multiple of ``patch_size``, and the output
    is cropped. Parameters and time enter the lifting as if they were constant channels.

    Args:
        n_modes: frequencies kept per axis, both signs together; its length is the number of grid axes. They
            count on the patched grid; see SpectralConv.
        patch_size: cells per axis that become channels; 2 instead of 1 quarters the cost of a layer in 2D.
        padding: zero cells appended to each axis as a fraction of its length, in the lifted space, because a
            Fourier series takes the domain for periodic. 0 for periodic domains.
        coordinates: append the coordinates of the cells, in (-1, 1), as channels.

    Shapes: ``x (B, in_channels, *grid)``, ``parameters (B, n_parameters)``, ``time (B,)`` to
    ``(B, out_channels, *grid)``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape.
    """

    name = "fno"

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Modes for each axis; a periodic box needs no padding."""
        modes = {"n_modes": [{1: 32, 2: 23, 3: 11}[dim]] * dim}
        return modes | {"padding": 0.0} if periodic else modes

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        n_parameters: int = 0,
        time_conditioning: bool = False,
        hidden_channels: int = 32,
        n_layers: int = 4,
        n_modes: Sequence[int] = (23, 23),
        patch_size: int = 2,
        padding: float = 0.125,
        block: str = "residual",
        coordinates: bool = True,
    ) -> None:
        dim = len(n_modes)
        super().__init__(
            in_channels, out_channels, dim=dim, n_parameters=n_parameters, time_conditioning=time_conditioning
        )
        check_positive("fno", hidden_channels=hidden_channels, n_layers=n_layers, patch_size=patch_size)
        check_positive("fno", **{f"n_modes[{i}]": m for i, m in enumerate(n_modes)})
        if padding < 0:
            raise ConfigError(f"fno: padding is {padding}; expected a fraction of the axis, 0 or more")
        if block not in BLOCKS:
            raise ConfigError(f"fno: unknown block {block!r}{did_you_mean(block, BLOCKS)}")
        self.patch_size = patch_size
        self.padding = padding
        self.coordinates = coordinates
        width, patch = hidden_channels, patch_size**dim

        self.condition = Condition(n_parameters, time_conditioning)
        self.lifting = nn.Sequential(
            Pointwise(in_channels * patch + dim * coordinates, 2 * width),
            nn.GELU(),
            Pointwise(2 * width, width),
        )
        # A linear map of the condition, added: what constant channels would give, without tiling them.
        self.lift_condition = None
        if self.condition.features:
            self.lift_condition = nn.Linear(self.condition.features, 2 * width, bias=False)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, n_modes)
            if block == "residual"
            else PostactivationBlock(width, n_modes, last=layer == n_layers - 1)
            for layer in range(n_layers)
        )
        self.projection = nn.Sequential(
            Pointwise(width, 2 * width), nn.GELU(), Pointwise(2 * width, out_channels * patch)
        )

    def forward(self, x: Tensor, *, time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        self.check_input(x, parameters, time)
        grid = x.shape[2:]
        x = to_patches(pad_to_multiple(x, self.patch_size), self.patch_size)
        coarse = x.shape[2:]
        if self.coordinates:
            c = cell_coordinates(coarse, like=x, extent=[n / self.patch_size for n in grid])
            x = torch.cat([x, c.expand(x.shape[0], *c.shape[1:])], dim=1)

        condition = self.condition(x, parameters, time)
        x = self.lifting[0](x)
        if self.lift_condition is not None:
            x = x + self.lift_condition(condition).reshape(*x.shape[:2], *[1] * self.dim)
        x = self.lifting[2](self.lifting[1](x))

        if self.padding:
            x = F.pad(x, pad_high([round(self.padding * n) for n in coarse]))
        for block in self.blocks:
            x = block(x)
        x = self.projection(crop(x, coarse))
        return crop(from_patches(x, self.patch_size), grid)


class ResidualBlock(nn.Module):
    """``x + M gelu(K x + W x)``."""

    def __init__(self, channels: int, n_modes: Sequence[int]) -> None:
        super().__init__()
        self.spectral = SpectralConv(channels, channels, n_modes)
        self.skip = Pointwise(channels, channels)
        self.mix = Pointwise(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.gelu(self.spectral(x) + self.skip(x)))


class PostactivationBlock(nn.Module):
    """``s(M s(K x + W x) + g x)``, s = gelu, or the identity in the last block."""

    def __init__(self, channels: int, n_modes: Sequence[int], last: bool) -> None:
        super().__init__()
        dim = len(n_modes)
        half = max(channels // 2, 1)
        self.activation = nn.Identity() if last else nn.GELU()
        self.spectral = SpectralConv(channels, channels, n_modes)
        self.skip = Pointwise(channels, channels)
        self.mix = nn.Sequential(Pointwise(channels, half), nn.GELU(), Pointwise(half, channels))
        self.gate = nn.Parameter(torch.ones(channels, *[1] * dim))

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.spectral(x) + self.skip(x))
        return self.activation(self.mix(h) + self.gate * x)

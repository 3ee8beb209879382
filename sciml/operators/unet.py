"""U-Net on patches, conditioned on parameters by feature-wise modulation."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.errors import ConfigError, DataError
from sciml.operators.base import Operator
from sciml.operators.layers.condition import Condition
from sciml.operators.layers.convolution import CONV, CONV_TRANSPOSE, same_convolution
from sciml.operators.layers.coordinates import cell_coordinates
from sciml.operators.layers.linear import under_func
from sciml.operators.layers.patches import crop, from_patches, pad_to_multiple, to_patches
from sciml.operators.stored import check_positive


class UNet(Operator):
    """Convolutions at several resolutions with skip connections [Ronneberger et al. 2015, arXiv:1505.04597].

    Patches of ``patch_size`` cells per axis become channels, then per level: ``n_layers`` residual blocks and
    a convolution of stride 2 on the way down; a transposed one, the skip and ``n_layers`` blocks on the way
    up. The parameters scale and shift the features of every block (FiLM, arXiv:1709.07871). Convolutions pad
    with zeros, which tells them where the walls are; ``coordinates`` append the position as channels.

    Any grid: each axis is padded by repeating its last cell to a multiple of
    ``patch_size * 2^(levels - 1)``, and the output is cropped.

    Args:
        dim: number of grid axes, 1 to 3.
        hidden_channels: width of each level, finest first; a number w stands for (w, 4w/3, 2w, 8w/3).
        n_layers: residual blocks per level and side.
        embedding_channels: width of the embedding of parameters and time.
        periodic: whether the box is periodic: convolutions then go around it. The grid must be a multiple of
            ``patch_size * 2^(levels - 1)`` along each axis.

    Shapes: ``x (B, in_channels, *grid)``, ``parameters (B, n_parameters)``, ``time (B,)`` to
    ``(B, out_channels, *grid)``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape.
    """

    name = "unet"

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Its own arguments of these names."""
        return {"dim": dim, "periodic": periodic}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dim: int = 2,
        n_parameters: int = 0,
        time_conditioning: bool = False,
        hidden_channels: int | Sequence[int] = (48, 64, 96, 128),
        n_layers: int = 1,
        patch_size: int = 2,
        embedding_channels: int = 64,
        coordinates: bool = True,
        periodic: bool = False,
    ) -> None:
        super().__init__(
            in_channels, out_channels, dim=dim, n_parameters=n_parameters, time_conditioning=time_conditioning
        )
        if isinstance(hidden_channels, int):
            hidden_channels = [round(hidden_channels * factor / 3) for factor in (3, 4, 6, 8)]
        widths = list(hidden_channels)
        if not widths:
            raise ConfigError("unet: hidden_channels is empty; expected a width for each level")
        check_positive("unet", n_layers=n_layers, patch_size=patch_size, embedding_channels=embedding_channels)
        check_positive("unet", **{f"hidden_channels[{i}]": width for i, width in enumerate(widths)})
        self.patch_size = patch_size
        self.coordinates = coordinates
        self.periodic = periodic
        self.multiple = patch_size * 2 ** (len(widths) - 1)

        self.condition = Condition(n_parameters, time_conditioning)
        features = embedding_channels if self.condition.features else 0
        self.embedding = None
        if features:
            self.embedding = nn.Sequential(
                nn.Linear(self.condition.features, features),
                nn.GELU(),
                nn.Linear(features, features),
                nn.GELU(),
            )
        conv, conv_transpose, patch = CONV[dim], CONV_TRANSPOSE[dim], patch_size**dim

        def blocks(channels: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(channels, features, dim, periodic) for _ in range(n_layers))

        pairs = list(itertools.pairwise(widths))
        self.stem = same_convolution(dim, in_channels * patch + dim * coordinates, widths[0], periodic)
        self.down_blocks = nn.ModuleList(blocks(width) for width in widths)
        self.down = nn.ModuleList(conv(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.up = nn.ModuleList(conv_transpose(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.up_blocks = nn.ModuleList(blocks(width) for width in widths[:-1])
        self.head = same_convolution(dim, widths[0], out_channels * patch, periodic)

    def forward(self, x: Tensor, *, time: Tensor | None = None, parameters: Tensor | None = None) -> Tensor:
        self.check_input(x, parameters, time)
        grid = x.shape[2:]
        if self.periodic and any(n % self.multiple for n in grid):
            raise DataError(
                f"unet: the grid {tuple(grid)} is not a multiple of {self.multiple} along each axis, which a periodic "
                "network with these levels and patches needs"
            )
        condition = self.condition(x, parameters, time)
        embedding = None if self.embedding is None else self.embedding(condition)

        x = to_patches(pad_to_multiple(x, self.multiple), self.patch_size)
        if self.coordinates:
            c = cell_coordinates(x.shape[2:], like=x, extent=[n / self.patch_size for n in grid])
            x = torch.cat([x, c.expand(x.shape[0], *c.shape[1:])], dim=1)
        if self.dim == 2 and not under_func():  # the layout that convolutions on a CPU and on tensor cores want
            x = x.contiguous(memory_format=torch.channels_last)

        x = self.stem(x)
        skips = []
        for level, blocks in enumerate(self.down_blocks):
            for block in blocks:
                x = block(x, embedding)
            if level < len(self.down):
                skips.append(x)
                x = self.down[level](x)
        for level in reversed(range(len(self.up))):
            x = self.up[level](x) + skips[level]
            for block in self.up_blocks[level]:
                x = block(x, embedding)
        return crop(from_patches(self.head(x), self.patch_size), grid)


class ResidualBlock(nn.Module):
    """``x + conv(gelu(conv(s norm(x) + b)))`` with s, b from the embedding; the identity before training.

    The norm is over all channels and cells of a sample (one group), which keeps the ratio of channels.
    """

    def __init__(self, channels: int, embedding_features: int, dim: int, periodic: bool) -> None:
        super().__init__()
        # With an embedding its linear layer supplies scale and shift; a second set in the norm would be idle.
        self.norm = nn.GroupNorm(1, channels, affine=not embedding_features)
        self.film = nn.Linear(embedding_features, 2 * channels) if embedding_features else None
        self.conv1 = same_convolution(dim, channels, channels, periodic)
        self.conv2 = same_convolution(dim, channels, channels, periodic)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.norm(x)
        if self.film is not None:
            scale, shift = self.film(embedding).reshape(x.shape[0], 2, -1, *[1] * (x.ndim - 2)).unbind(1)
            h = torch.addcmul(shift, h, 1.0 + scale)
        return x + self.conv2(F.gelu(self.conv1(h)))

"""Convolutions by the number of grid axes."""

from torch import nn

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, type[nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def same_convolution(dim: int, in_channels: int, out_channels: int, periodic: bool) -> nn.Module:
    """A convolution over 3 cells along each axis that keeps the grid; beyond its ends are zeros, or the other end."""
    mode = "circular" if periodic else "zeros"
    return CONV[dim](in_channels, out_channels, 3, padding=1, padding_mode=mode)

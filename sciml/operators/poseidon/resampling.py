"""Spectral resampling of fields between grids."""

import torch
from torch import Tensor

from sciml.operators.poseidon.windows import Size


def resample(x: Tensor, grid: Size) -> Tensor:
    """Fourier interpolation of ``x (B, C, *n)`` to ``grid``: the frequencies that both grids have are kept.

    On n cells these are ``-(n // 2) .. (n - 1) // 2`` (the real part is taken of what an even n leaves unpaired), in
    amplitudes, so a constant stays what it is. Any two sizes, even or odd, on each axis.
    """
    if tuple(x.shape[2:]) == tuple(grid):
        return x
    dtype = torch.promote_types(x.dtype, torch.float32)  # there is no half-precision transform
    spectrum = torch.fft.fft2(x.to(dtype), norm="forward")
    for axis, n in zip((2, 3), grid, strict=True):
        spectrum = _resize(spectrum, axis, n)
    return torch.fft.ifft2(spectrum, norm="forward").real.to(x.dtype)


def _resize(spectrum: Tensor, axis: int, n: int) -> Tensor:
    """The frequencies 0, 1, .., -2, -1 of an axis of n cells: cut, or filled with zeros in the middle."""
    given = spectrum.shape[axis]
    kept = min(given, n)
    negative = kept // 2
    parts = [spectrum.narrow(axis, 0, kept - negative), spectrum.narrow(axis, given - negative, negative)]
    if n > given:
        shape = [*spectrum.shape[:axis], n - given, *spectrum.shape[axis + 1 :]]
        parts.insert(1, spectrum.new_zeros(shape))
    return torch.cat(parts, axis)

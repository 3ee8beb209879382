"""Convolution in Fourier space, cut off at low frequencies."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SpectralConv(nn.Module):
    """One matrix per frequency: ``irfft(W(k) rfft(x)(k))`` [Li et al. 2021, arXiv:2010.08895].

    Low frequencies only; the others become zero. ``n_modes[i]`` counts those kept on axis i, both signs
    together: from -(m // 2) to (m - 1) // 2 for m modes. Of a real field the last axis stores the half
    0 to m // 2. An odd m treats all axes alike; an even one has one more negative frequency, as in
    ``neuraloperator``. On a grid with fewer frequencies than modes the weights of the lowest are used.

    The transform is normalised by 1/N forward, so a coefficient is an amplitude and does not depend on the
    resolution. The weight is stored real, ``(*modes, in, out, 2)`` with rising frequency: optimisers and
    sharding (FSDP2) do not mix real with complex parameters.

    Shapes: ``(B, in, *grid)`` to ``(B, out, *grid)``.
    """

    def __init__(self, in_channels: int, out_channels: int, n_modes: Sequence[int]) -> None:
        super().__init__()
        self.n_modes = tuple(n_modes)
        kept = (*self.n_modes[:-1], self.n_modes[-1] // 2 + 1)
        # Variance of a complex weight 2 / (in + out), as Glorot: the spectrum keeps its size on average.
        deviation = (2.0 / (in_channels + out_channels)) ** 0.5
        self.weight = nn.Parameter(deviation * 0.5**0.5 * torch.randn(*kept, in_channels, out_channels, 2))

    def forward(self, x: Tensor) -> Tensor:
        *_, last = grid = x.shape[2:]
        dim = len(grid)
        dtype = torch.promote_types(x.dtype, torch.float32)  # there is no half-precision transform
        spectrum = torch.fft.rfft(x.to(dtype), dim=-1, norm="forward")
        weight = self.weight.to(dtype)

        half = min(last // 2 + 1, weight.shape[dim - 1])
        spectrum = spectrum[..., :half]
        weight = weight.narrow(dim - 1, 0, half)
        # One axis after the other: the later transforms then see the kept frequencies only.
        for axis, (n, m) in enumerate(zip(grid[:-1], self.n_modes[:-1], strict=True)):
            kept = min(n, m)
            spectrum = _keep_low(torch.fft.fft(spectrum, dim=2 + axis, norm="forward"), kept, 2 + axis)
            weight = weight.narrow(axis, m // 2 - kept // 2, kept)

        modes = tuple(range(2, 2 + dim))
        product = _complex_matmul(spectrum.permute(*modes, 0, 1), weight)
        spectrum = product.permute(dim, dim + 1, *range(dim))

        for axis, n in enumerate(grid[:-1]):
            spectrum = torch.fft.ifft(_fill_high(spectrum, n, 2 + axis), dim=2 + axis, norm="forward")
        return torch.fft.irfft(spectrum, n=last, dim=-1, norm="forward").to(x.dtype)


def _complex_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """``x (*, B, in)`` complex times ``weight (*, in, out, 2)``, as ``Re(x) W + i Im(x) W``.

    One product of real matrices, because a complex batched product on a CPU is a loop over single ones.
    """
    parts = torch.cat([x.real, x.imag], dim=-2) @ weight.flatten(-2)
    products = torch.view_as_complex(parts.unflatten(-1, (-1, 2)))
    batch = x.shape[-2]
    return products[..., :batch, :] + 1j * products[..., batch:, :]


def _keep_low(spectrum: Tensor, kept: int, axis: int) -> Tensor:
    """The ``kept`` lowest of the frequencies 0, 1, .., -2, -1 on ``axis``, in rising order."""
    n, negative = spectrum.shape[axis], kept // 2
    low, high = spectrum.narrow(axis, n - negative, negative), spectrum.narrow(axis, 0, kept - negative)
    return torch.cat([low, high], dim=axis)


def _fill_high(spectrum: Tensor, n: int, axis: int) -> Tensor:
    """The inverse of ``_keep_low``: n frequencies 0, 1, .., -2, -1 with zeros between the kept ones."""
    kept = spectrum.shape[axis]
    negative = kept // 2
    shape = [*spectrum.shape[:axis], n - kept, *spectrum.shape[axis + 1 :]]
    low, high = spectrum.narrow(axis, 0, negative), spectrum.narrow(axis, negative, kept - negative)
    return torch.cat([high, spectrum.new_zeros(shape), low], dim=axis)

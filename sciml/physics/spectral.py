"""Fourier series on a periodic box: what pseudo-spectral code for one to three dimensions shares.

A real field on cell centres x = (i + 1/2) h is held as its ``rfftn`` spectrum ``(B, C, *k)`` (last axis halved), the
derivative along axis i is the product with ``1j k_i``, k_i = 2 pi m / L_i, and products are freed of aliasing errors by
the 2/3 rule (Orszag, J. Atmos. Sci. 28 (1971) 1074). The offset of half a cell changes neither derivatives nor
products; it matters only where coefficients of a known function are put on the grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.grid import check_positive


class PeriodicBox:
    """Wavenumbers of a box with ``shape`` cells and side lengths ``lengths (B, dim)``, one box a case.

    Attributes (real, broadcastable to a spectrum ``(B, C, *k)``):
        wavenumbers: k_i in rad/m of every axis, without the Nyquist frequency (0 there): the odd derivatives of that
            mode vanish at the grid points.
        laplacian: the symbol -|k|^2 ``(B, 1, *k)``, with the Nyquist frequency.
        dealias: 1 for the modes that the 2/3 rule keeps (3 |m_i| < n_i on every axis), else 0; ``(1, 1, *k)``.
        largest: largest kept k_i, ``(B, dim)``.

    Raises ``ConfigError`` for lengths that are not positive or of another shape.
    """

    def __init__(
        self,
        shape: Sequence[int],
        lengths: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape, self.dim = tuple(int(n) for n in shape), len(shape)
        if lengths.ndim != 2 or lengths.shape[1] != self.dim:
            raise ConfigError(f"lengths have shape {tuple(lengths.shape)}; expected (cases, {self.dim})")
        check_positive("lengths", lengths.detach())
        self.batch, self.dtype, self.device = lengths.shape[0], dtype, torch.device(device)
        self.lengths = lengths.to(device=self.device, dtype=torch.float64)
        self.spectrum_shape = (*self.shape[:-1], self.shape[-1] // 2 + 1)
        self._axes = tuple(range(-self.dim, 0))

        modes = [self._modes(axis) for axis in range(self.dim)]
        units = [self._column(2 * math.pi / self.lengths[:, axis]) for axis in range(self.dim)]
        odd = [torch.where(2 * m.abs() == n, 0.0, m) for m, n in zip(modes, self.shape, strict=True)]
        self.wavenumbers = tuple((m * unit).to(dtype) for m, unit in zip(odd, units, strict=True))
        self.laplacian = -sum((m * unit) ** 2 for m, unit in zip(modes, units, strict=True)).to(dtype)
        kept = torch.ones(1, 1, *self.spectrum_shape, dtype=torch.bool, device=self.device)
        for m, n in zip(modes, self.shape, strict=True):
            kept = kept & (3 * m.abs() < n)
        self.dealias = kept.to(dtype)
        cut = torch.tensor([(n - 1) // 3 for n in self.shape], dtype=torch.float64, device=self.device)
        self.largest = (2 * math.pi * cut / self.lengths).to(dtype)
        # In the halved layout every mode with 0 < m < n/2 of the last axis stands for its conjugate too.
        last = modes[-1]
        self._weight = torch.where((last == 0) | (2 * last == self.shape[-1]), 1.0, 2.0).to(dtype)
        high = torch.zeros_like(kept)
        for m, n in zip(modes, self.shape, strict=True):
            high = high | (9 * m.abs() > 2 * n)
        self._high = high.to(dtype)

    def _modes(self, axis: int) -> Tensor:
        """Whole mode numbers m along an axis, shaped to broadcast over ``(B, C, *k)``."""
        n = self.shape[axis]
        frequencies = torch.fft.rfftfreq if axis == self.dim - 1 else torch.fft.fftfreq
        values = frequencies(n, 1 / n, dtype=torch.float64, device=self.device)
        view = [1] * (self.dim + 2)
        view[axis + 2] = -1
        return values.reshape(view)

    def _column(self, values: Tensor) -> Tensor:
        """``(B,)`` shaped to broadcast over ``(B, C, *k)``."""
        return values.reshape(-1, 1, *(1,) * self.dim)

    # ------------------------------------------------------------------------------------------------- transforms

    def forward(self, field: Tensor) -> Tensor:
        """Spectrum ``(B, C, *k)`` of a field ``(B, C, *grid)``, or ``(B, T, C, *k)`` of its frames.

        Raises ``DataError`` for another grid.
        """
        if field.ndim not in (self.dim + 2, self.dim + 3) or tuple(field.shape[-self.dim :]) != self.shape:
            raise DataError(f"field has shape {tuple(field.shape)}; expected (cases, components, *{self.shape})")
        return torch.fft.rfftn(field, dim=self._axes)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """Field ``(B, C, *grid)`` of a spectrum ``(B, C, *k)``, or ``(B, T, C, *grid)`` of its frames."""
        return torch.fft.irfftn(spectrum, s=self.shape, dim=self._axes)

    # ------------------------------------------------------------------------------------------------ derivatives

    def derivative(self, spectrum: Tensor, axis: int) -> Tensor:
        """Spectrum of the derivative along ``axis``."""
        return 1j * self.wavenumbers[axis] * spectrum

    def gradient(self, spectrum: Tensor) -> Tensor:
        """Spectra of all first derivatives: ``(B, C, *k)`` to ``(B, C * dim, *k)``, the axis running fastest."""
        parts = torch.stack([self.derivative(spectrum, axis) for axis in range(self.dim)], 2)
        return parts.flatten(1, 2)

    def inverse_laplacian(self, spectrum: Tensor) -> Tensor:
        """Spectrum of phi with zero mean and Laplacian phi = the field less its mean."""
        symbol = self.laplacian
        return spectrum * torch.where(symbol == 0, 0.0, 1 / torch.where(symbol == 0, 1.0, symbol))

    def velocity_from_vorticity(self, vorticity: Tensor) -> Tensor:
        """Spectrum ``(B, 2, *k)`` of the velocity (d psi/dy, -d psi/dx), Laplacian psi = -w, from ``(B, 1, *k)``.

        In two dimensions, with zero mean velocity; the mean vorticity of a periodic flow is zero and is ignored.
        """
        stream = -self.inverse_laplacian(vorticity)
        return torch.cat([self.derivative(stream, 1), -self.derivative(stream, 0)], 1)

    # ---------------------------------------------------------------------------------------------------- spectra

    def mean_square(self, spectrum: Tensor) -> Tensor:
        """Mean square over the box of every component, ``(B, C)``, by Parseval's identity."""
        return (self._weight * _square(spectrum)).flatten(2).sum(2) / math.prod(self.shape) ** 2

    def tail_share(self, spectrum: Tensor) -> Tensor:
        """Share ``(B,)`` of the variance (all components) in the modes above two thirds of the 2/3 rule's cut-off.

        For a resolved field it is small, and so are the errors of cutting the series off. Variance at round-off of
        the mean counts as none.
        """
        energy = (self._weight * _square(spectrum)).sum(1, keepdim=True).flatten(1)
        mean, rest = energy[:, 0], energy[:, 1:].sum(1)
        tail = (energy * self._high.flatten(1)).sum(1)
        smallest = torch.finfo(energy.dtype)
        return tail / (rest + smallest.eps * mean).clamp(min=smallest.tiny)


def _square(spectrum: Tensor) -> Tensor:
    """|z|^2, with a gradient at 0 too."""
    return spectrum.real**2 + spectrum.imag**2

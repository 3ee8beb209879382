"""Leray's projection on periodic boxes, for derivatives whose symbol is i times a real row kappa(k).

u - kappa (kappa . u) / |kappa|^2 at each wavenumber; the mean, and what the derivative does not see, stay.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics import Grid, PeriodicBox

Symbol = Literal["spectral", "central"]


class PeriodicProjection:
    """``spectral``: kappa = k as in ``physics.PeriodicBox`` (0 at the Nyquist frequency of an even axis);
    ``central``: kappa = sin(k h) / h, the difference of the two neighbours over 2 h.

    Computed in float64. Raises ``ConfigError`` if an axis is not periodic or not uniform.
    """

    def __init__(self, grid: Grid, symbol: Symbol, device: torch.device | str) -> None:
        for axis, name in zip(grid.axes, "xyz", strict=False):
            if not axis.periodic or not axis.uniform:
                raise ConfigError(
                    f"The {symbol} divergence needs a uniform periodic grid, and the {name} axis is "
                    f"{'stretched' if axis.periodic else 'not periodic'}. method='mac' works on every grid."
                )
        self._box = PeriodicBox(grid.shape, grid.lengths, dtype=torch.float64, device=device)
        self._spacing = [
            self._box.lengths[:, k].reshape(-1, *(1,) * (grid.dim + 1)) / n for k, n in enumerate(grid.shape)
        ]
        waves = self._box.wavenumbers
        if symbol == "central":
            waves = tuple(torch.sin(k * h) / h for k, h in zip(waves, self._spacing, strict=True))
        self._symbol, self._central = torch.cat(torch.broadcast_tensors(*waves), 1), symbol == "central"
        square = self._symbol.square().sum(1, keepdim=True)
        self._inverse = torch.where(square > 0, 1 / torch.where(square > 0, square, 1.0), 0.0)

    def project(self, u: Tensor) -> Tensor:
        """``u (B, dim, *grid)`` float64 without divergence."""
        spectrum = self._box.forward(u)
        excess = (self._symbol * spectrum).sum(1, keepdim=True) * self._inverse
        return self._box.inverse(spectrum - self._symbol * excess)

    def residual(self, u: Tensor) -> Tensor:
        """rms of h div u over the rms of |u|, ``(B,)``; h the smallest spacing."""
        if self._central:
            parts = [
                (u[:, k : k + 1].roll(-1, k + 2) - u[:, k : k + 1].roll(1, k + 2)) / (2 * h)
                for k, h in enumerate(self._spacing)
            ]
            rest = torch.cat(parts, 1).sum(1)
        else:
            spectrum = 1j * (self._symbol * self._box.forward(u)).sum(1, keepdim=True)
            rest = self._box.inverse(spectrum)[:, 0]
        h = torch.stack([s.flatten() for s in self._spacing]).amin(0)
        size = u.square().sum(1).flatten(1).mean(1)
        return h * (rest.square().flatten(1).mean(1) / torch.where(size == 0, 1.0, size)).sqrt()

"""The potential of a learned mesh: a series of cosines (walls) or Fourier modes (periodic axes).

x = xi + grad phi, Laplacian(phi) = s. The source s is given at the centres of a grid; its coefficients over -|k|^2
are those of phi, and the gradient is summed in closed form at the corners of any grid: a corner on a wall stays on it,
whatever the network says, because the derivative of each cosine vanishes there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from sciml.constraints.mesh_mover import Box


def axis_modes(n: int, length: float, periodic: bool, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values and slopes ``(n, P)`` of the n modes that n centres tell apart, and their wavenumbers ``(n,)``; float64.

    Walls: cos(k x), k = i pi / L. Periodic: cos(k x), then sin(k x), k = 2 pi i / L.
    """
    i = torch.arange(n, dtype=torch.float64)
    if not periodic:
        k = math.pi * i / length
        phase = k[:, None] * places
        return torch.cos(phase), -k[:, None] * torch.sin(phase), k
    even = i < n / 2
    k = 2 * math.pi * torch.where(even, i, n - i) / length
    phase = k[:, None] * places
    cosine, sine = torch.cos(phase), torch.sin(phase)
    return torch.where(even[:, None], cosine, sine), k[:, None] * torch.where(even[:, None], -sine, cosine), k


class Series:
    """Coefficients of the potential from sources at the centres of ``cells``; kept by ``series``."""

    def __init__(self, box: Box, cells: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        self.box, self.cells, self.dtype, self.device = box, cells, dtype, device
        self.to_modes: list[Tensor] = []
        square = torch.zeros((), dtype=torch.float64)
        for length, periodic, n in zip(box.lengths, box.periodic, cells, strict=True):
            centres = (torch.arange(n, dtype=torch.float64) + 0.5) * length / n
            values, _, k = axis_modes(n, length, periodic, centres)
            self.to_modes.append((values / values.square().sum(1, keepdim=True)).to(device, dtype))
            square = square.unsqueeze(-1) + k.square()
        square.view(-1)[0] = torch.inf  # the mean of a potential means nothing
        self.inverse = (-1 / square).to(device, dtype)

    def coefficients(self, source: Tensor) -> Tensor:
        """Of phi, from the source at the centres ``(B, *cells)``; the source's mean is ignored."""
        return _along_axes(source, self.to_modes) * self.inverse

    def corners(self, coefficients: Tensor, cells: Sequence[int] | None = None) -> Tensor:
        """The mesh xi + grad phi ``(B, *(n + 1), d)`` of as many cells as wanted."""
        cells = self.cells if cells is None else tuple(cells)
        values, slopes = _corner_modes(self.box, self.cells, cells, self.dtype, self.device)
        moved = []
        for axis in range(self.box.dim):
            modes = [slopes[j] if j == axis else values[j] for j in range(self.box.dim)]
            moved.append(_along_axes(coefficients, modes))
        return self.box.corners(cells, dtype=self.dtype, device=self.device) + torch.stack(moved, -1)

    def potential(self, coefficients: Tensor, cells: Sequence[int]) -> Tensor:
        """phi at the corners ``(B, *(n + 1))``, square metres."""
        values, _ = _corner_modes(self.box, self.cells, tuple(cells), self.dtype, self.device)
        return _along_axes(coefficients, values)


@lru_cache(maxsize=32)
def series(box: Box, cells: tuple[int, ...], dtype: torch.dtype, device: str) -> Series:
    """The series of a box and a grid of sources, made once and kept."""
    with torch.inference_mode(False), torch.no_grad():
        return Series(box, cells, dtype, device)


@lru_cache(maxsize=32)
def _corner_modes(
    box: Box, modes: tuple[int, ...], cells: tuple[int, ...], dtype: torch.dtype, device: str
) -> tuple[list[Tensor], list[Tensor]]:
    """Values and slopes of the modes at the corners of ``cells``, transposed ``(n + 1, modes)``, of each axis."""
    values, slopes = [], []
    with torch.inference_mode(False), torch.no_grad():
        for length, periodic, m, n in zip(box.lengths, box.periodic, modes, cells, strict=True):
            places = torch.arange(n + 1, dtype=torch.float64) * length / n
            value, slope, _ = axis_modes(m, length, periodic, places)
            if periodic:
                value[:, -1], slope[:, -1] = value[:, 0], slope[:, 0]
            else:
                slope[:, 0] = slope[:, -1] = 0.0  # sin(pi i) is zero, and not 1e-16
            values.append(value.T.to(device, dtype).contiguous())
            slopes.append(slope.T.to(device, dtype).contiguous())
    return values, slopes


def _along_axes(field: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """A matrix ``(out, in)`` applied along each axis of ``(B, *in)``."""
    for axis, matrix in enumerate(matrices, start=1):
        field = torch.movedim(torch.movedim(field, axis, -1) @ matrix.T, -1, axis)
    return field

"""The box that a mesh fills, and its uniform grid.

A *moved mesh* is the image x(xi) of a uniform grid of cells. It is stored by the positions of its corners, ``(B, n_1 +
1, …, n_d + 1, d)`` metres. Corners on a wall slide along it; on a periodic axis the last layer of corners is the first
one a length further.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from sciml.errors import ConfigError


@dataclass(frozen=True)
class Box:
    """The box [0, L_1] x … x [0, L_d], d = 2 or 3; lengths in metres.

    ``periodic``: for each axis whether it is; not given: walls all round. Raises ``ConfigError``.
    """

    lengths: tuple[float, ...]
    periodic: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        lengths = tuple(float(length) for length in self.lengths)
        periodic = tuple(bool(axis) for axis in self.periodic) or (False,) * len(lengths)
        if len(lengths) not in (2, 3):
            raise ConfigError(f"A box has 2 or 3 lengths, not {len(lengths)}: {lengths}.")
        if not all(math.isfinite(length) and length > 0 for length in lengths):
            raise ConfigError(f"The lengths of a box must be positive numbers, not {lengths}.")
        if len(periodic) != len(lengths):
            raise ConfigError(f"periodic={self.periodic} has {len(periodic)} values for a box of {len(lengths)} axes.")
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "periodic", periodic)

    @property
    def dim(self) -> int:
        """Number of axes."""
        return len(self.lengths)

    def spacing(self, cells: Sequence[int]) -> tuple[float, ...]:
        """Width of a cell of the uniform grid along each axis, metres."""
        return tuple(length / n for length, n in zip(self.lengths, self.checked_cells(cells), strict=True))

    def corners(
        self, cells: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> Tensor:
        """Corners of the uniform grid ``(n_1 + 1, …, n_d + 1, d)``; the last lie exactly at the lengths."""
        cells = self.checked_cells(cells)
        return self._grid([torch.arange(n + 1, dtype=torch.float64) / n for n in cells], dtype, device)

    def centres(
        self, cells: Sequence[int], *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> Tensor:
        """Centres of the cells of the uniform grid ``(n_1, …, n_d, d)``."""
        cells = self.checked_cells(cells)
        return self._grid([(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in cells], dtype, device)

    def checked_cells(self, cells: Sequence[int]) -> tuple[int, ...]:
        """``cells`` as a tuple; ``ConfigError`` where they do not fit the box."""
        cells = tuple(cells)
        if len(cells) != self.dim or not all(isinstance(n, int) and n >= 3 for n in cells):
            raise ConfigError(f"cells={cells}: a mesh of this box needs {self.dim} whole numbers of at least 3.")
        return cells

    def _grid(self, fractions: list[Tensor], dtype: torch.dtype, device: torch.device | str | None) -> Tensor:
        axes = [f * length for f, length in zip(fractions, self.lengths, strict=True)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).to(dtype=dtype, device=device)


def centres_of(corners: Tensor) -> Tensor:
    """Mean of the 2^d corners of each cell ``(B, n_1, …, n_d, d)``: the image of its centre under the multilinear map.

    Not wrapped: on a periodic axis a centre may lie outside [0, L].
    """
    dim = check_corners(corners)
    return sum(cell_corner(corners, which) for which in product((0, 1), repeat=dim)) / 2**dim


def cell_corner(corners: Tensor, which: Sequence[int]) -> Tensor:
    """One corner of every cell ``(B, n_1, …, n_d, d)``; ``which``: 0 (low) or 1 (high) for each axis."""
    for axis, high in enumerate(which, start=1):
        corners = corners.narrow(axis, high, corners.shape[axis] - 1)
    return corners


def check_corners(corners: Tensor) -> int:
    """The dimension of a mesh; raises ``ConfigError`` unless its shape is ``(B, n_1 + 1, …, n_d + 1, d)``."""
    dim = corners.shape[-1] if corners.ndim else 0
    if dim not in (2, 3) or corners.ndim != dim + 2 or min(corners.shape[1:-1]) < 2:
        raise ConfigError(
            f"The corners of a mesh have the shape (B, nx + 1, ny + 1, 2) or (B, nx + 1, ny + 1, nz + 1, 3), not "
            f"{tuple(corners.shape)}."
        )
    return dim

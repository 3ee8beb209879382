"""The normal velocity on walls and inlets, as the staggered grid holds it.

A velocity at the cell centres is the mean of the two faces of each cell, ``u_k = (f_k + f_{k+1}) / 2``, so that along a
line of n cells between two sides with the prescribed normal velocities f_0 and f_n

    sum_k (-1)^(n-1-k) u_k = (f_n - (-1)^n f_0) / 2:

one row for each line of cells, which the solver's own velocities obey to round-off. Nothing else is said about a
velocity on its boundary by the staggered grid: the velocity along a wall acts through the fluxes beside it only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.physics import Grid, boundary_values


@dataclass(frozen=True, eq=False)
class NormalRows:
    """The rows of one component along its own axis.

    Attributes:
        axis: of the component and the lines.
        signs: ``(n,)``, alternating, the last 1.
        value: right-hand side, ``(B, *grid)`` with extent 1 along the axis.
    """

    axis: int
    signs: Tensor
    value: Tensor

    def distance(self, u: Tensor) -> Tensor:
        """``(sum signs u - value) / sqrt(n)`` of each line of the velocity ``u (B, dim, *grid)``, ``(B, lines)``."""
        return (self._rest(u) / -(len(self.signs) ** 0.5)).flatten(1)

    def target(self) -> Tensor:
        """``value / sqrt(n)`` of each line, ``(B, lines)``."""
        return (self.value / len(self.signs) ** 0.5).flatten(1)

    def moved(self, u: Tensor) -> Tensor:
        """The component after the orthogonal projection onto the rows, ``(B, *grid)``."""
        return u[:, self.axis] + self._along(u.ndim - 2) * self._rest(u) / len(self.signs)

    def _rest(self, u: Tensor) -> Tensor:
        component = u[:, self.axis]
        return self.value - (self._along(u.ndim - 2) * component).sum(self.axis + 1, keepdim=True)

    def _along(self, dim: int) -> Tensor:
        return self.signs.reshape(1, *(-1 if k == self.axis else 1 for k in range(dim)))


def normal_rows(conditions: Mapping[str, Any], grid: Grid, like: Tensor) -> list[NormalRows]:
    """The rows of the axes with prescribed normal velocities at both ends (an outlet prescribes none)."""
    slabs = boundary_values(grid, conditions, dtype=like.dtype, device=like.device).slabs
    rows = []
    for axis, each in enumerate(grid.axes):
        low, high = slabs[axis][axis]
        if low is None or high is None:
            continue
        signs = (-1.0) ** torch.arange(each.n - 1, -1, -1, dtype=like.dtype, device=like.device)
        rows.append(NormalRows(axis, signs, 0.5 * (high - (-1) ** each.n * low)))
    return rows

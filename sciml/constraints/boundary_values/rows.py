"""A condition on one side of a box as linear rows on the points next to it: ``sum_m w_m u_m = value``.

Value and slope on the side are those of the polynomial through the first points, so a row has the weights

    w = a l(0) - b l'(0) / length        for   a u + b du/dn = value,

with l_m the Lagrange polynomials of the points' distances from the side. Through three cell centres at 1/2, 3/2 and
5/2 cells: l(0) = (15, -10, 3) / 8 and l'(0) = (-2, 3, -1) / cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sciml.physics import Axis

Location = str
"""``"cells"``: values at the cell centres, the sides half a cell outside; ``"nodes"``: at the corners of the cells."""


@dataclass(frozen=True, eq=False)
class SideRows:
    """The rows of one field on one side, one for each point along the side and each component.

    Attributes:
        axis, end: the side: 0 low, 1 high.
        weights: from the first point inwards, ``(1 or B, width)``: the same all along the side.
        lower: the weights of the polynomial of one degree less.
        value: right-hand side, ``(1 or B, 1 or C, *side)`` with extent 1 along the axis.
        prescribes_value: a Dirichlet condition.
        zero: the right-hand side is 0 whatever the parameters.
        varies: the right-hand side varies along the side.
        normal: the component that has no rows here, being left to another constraint.
        keep: 1 where a row holds and 0 where it is left out, ``(1 or B, 1 or C, *side)``; None: everywhere 1.
    """

    axis: int
    end: int
    weights: Tensor
    lower: Tensor
    value: Tensor
    prescribes_value: bool
    zero: bool
    varies: bool
    normal: int | None = None
    keep: Tensor | None = None

    @property
    def name(self) -> str:
        return f"{'xyz'[self.axis]}_{('low', 'high')[self.end]}"

    def points(self, u: Tensor) -> Tensor:
        """The points of ``u (B, C, *grid)`` that the rows act on, in the order of the array."""
        dim, width = self.axis + 2, self.weights.shape[1]
        return u.narrow(dim, 0 if self.end == 0 else u.shape[dim] - width, width)

    def apply(self, u: Tensor, weights: Tensor | None = None) -> Tensor:
        """``sum_m w_m u_m``, with extent 1 along the axis; ``u`` may be the values on another side."""
        weights = self.weights if weights is None else weights
        return (self._along(weights, u.ndim) * self.points(u)).sum(self.axis + 2, keepdim=True)

    def moved(self, u: Tensor) -> Tensor:
        """``points(u)`` after the orthogonal projection onto the rows: u + w (value - w.u) / |w|^2."""
        step = self.kept((self.value - self.apply(u)) / self.square(u.ndim))
        return self.points(u) + self._along(self.weights, u.ndim) * step

    def distance(self, u: Tensor) -> Tensor:
        """``(w.u - value) / |w|``: how far u is from each row, in the unit of u; 0 for rows that are left out."""
        return self.kept((self.apply(u) - self.value) / self.square(u.ndim).sqrt())

    def kept(self, numbers: Tensor) -> Tensor:
        """One number for each row, 0 for those that are left out."""
        return numbers if self.keep is None else self.keep * numbers

    def square(self, ndim: int) -> Tensor:
        """``|w|^2`` to broadcast against a field."""
        return self.weights.square().sum(1).reshape(-1, *(1,) * (ndim - 1))

    def first(self, ndim: int) -> Tensor:
        """The weight of the first point, to broadcast against a field."""
        return self.weights[:, 0].reshape(-1, *(1,) * (ndim - 1))

    def _along(self, weights: Tensor, ndim: int) -> Tensor:
        weights = weights if self.end == 0 else weights.flip(1)
        shape = [1] * ndim
        shape[0], shape[self.axis + 2] = weights.shape
        return weights.reshape(shape)


def side_distances(axis: Axis, end: int, width: int, location: Location) -> list[float]:
    """Distances of the first points from a side, as shares of the length of the axis."""
    points = axis.centres if location == "cells" else axis.faces
    near = points[:width] if end == 0 else 1 - points.flip(0)[:width]
    return near.tolist()


def lagrange_weights(distances: Sequence[float]) -> tuple[list[float], list[float]]:
    """l_m(0) and l_m'(0) of the Lagrange polynomials through the points at these distances."""
    values, slopes = [], []
    for m, x in enumerate(distances):
        others = [y for k, y in enumerate(distances) if k != m]
        values.append(math.prod(-y / (x - y) for y in others))
        slopes.append(
            sum(
                math.prod(-y / (x - y) for k, y in enumerate(others) if k != j) / (x - other)
                for j, other in enumerate(others)
            )
        )
    return values, slopes

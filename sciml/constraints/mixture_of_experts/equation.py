"""An equation on one grid, as the mixture of experts sees it: linear terms of a field, then a pointwise function.

A field is ``offset + lift(basis) @ w``: the offset holds what is known (an initial field), the lifted basis fields are
free. A residual row depends on a few linear terms of the field (its value, its derivatives, at one or two time levels)
in one point only:

    rows(u) = function(terms(u), coefficients)

so that the terms of the basis fields, taken once on the whole grid, give the residual for any weights without further
differentiation. All is in float64 and in physical units; rows and traces are scaled to be of order 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sciml.errors import DataError


class Equation(ABC):
    """A partial differential equation on one grid for ``batch`` cases.

    Attributes:
        shape: of a field: ``(frames, *grid)``, or the grid alone for a static equation. A basis is ``(B, N, *shape)``,
            dimensionless.
        row_shape: of the residual rows; each axis belongs to the same axis of ``shape``.
        periodic: whether each axis is periodic.
        scale: the unit of the field, ``(B,)``.
        offset: the part of the field that is known, ``(B, *shape)``.
        coefficients: what ``function`` needs beside the terms, broadcastable to ``(B, *row_shape)``.
        guess: a field ``(B, *shape)`` that weights are searched from; None: the offset.
        conditions_in_rows: whether the residual rows next to a boundary contain its condition. Then condition rows are
            imposed on independent tiles only, which would know nothing of the boundary otherwise.
    """

    name: ClassVar[str]
    conditions_in_rows: ClassVar[bool] = True

    shape: tuple[int, ...]
    row_shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    scale: Tensor
    offset: Tensor
    coefficients: tuple[Tensor, ...] = ()
    guess: Tensor | None = None

    @property
    def batch(self) -> int:
        return self.offset.shape[0]

    def lift(self, basis: Tensor) -> Tensor:
        """The fields that the weights multiply, ``(B, N, *shape)`` in physical units, from dimensionless ones."""
        return basis * self.scale.reshape(-1, *(1,) * (basis.ndim - 1))

    @property
    def inputs(self) -> Tensor:
        """What is known of the field and may tell a network about it, dimensionless ``(B, channels, *shape)``."""
        return (self.offset / column(self.scale, self.offset.ndim)).unsqueeze(1)

    @abstractmethod
    def terms(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, ...]:
        """Linear terms ``(B, C, *row_shape)`` of C fields ``(B, C, *shape)``.

        ``homogeneous``: with boundary values and sources 0, as for basis fields. The terms of a whole field are those
        of ``offset`` (not homogeneous) plus those of the lifted basis times the weights.
        """

    @abstractmethod
    def function(self, values: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
        """Residual rows from the values of the terms, point by point, ``(P, ...)``; of order 1."""

    @abstractmethod
    def traces(self, field: Tensor, axis: int, positions: Sequence[int]) -> Tensor:
        """What has to be continuous between row ``r - 1`` and row ``r`` of an axis, for every r of ``positions``.

        ``(B, C, quantities, len(positions), *rows of the other axes)``, of order 1; the first quantity is the field's
        value in units of ``scale``. Of fields ``(B, C, *shape)``. On a periodic axis r = 0 is between the last row and
        the first.
        """

    def quantities(self, axis: int) -> int:
        """How many quantities ``traces`` gives at a face of an axis: value and flux, unless a subclass says more."""
        return 2

    def conditions(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, Tensor] | None:
        """Boundary conditions: linear rows ``(B, C, L)`` that should be 0, of order 1, and where they belong.

        The second is the flat number ``(L,)`` in ``row_shape`` of the residual row next to each. None: no conditions.
        """
        return None

    def rows(self, field: Tensor) -> Tensor:
        """Residual rows ``(B, *row_shape)`` of a whole field ``(B, *shape)``."""
        terms = self.terms(field.unsqueeze(1), homogeneous=False)
        return self.function([term[:, 0] for term in terms], self.coefficients)

    @abstractmethod
    def trajectory(self, field: Tensor) -> dict[str, Tensor]:
        """The problem's fields and ``time``, as ``problem.solve`` returns them, from a field ``(B, *shape)``."""

    def check_basis(self, basis: Tensor) -> None:
        """Raises ``DataError`` for a basis of another shape or one that is not finite."""
        expected = (self.batch, "N", *self.shape)
        if basis.ndim != len(expected) or basis.shape[0] != self.batch or tuple(basis.shape[2:]) != self.shape:
            raise DataError(
                f"the basis has shape {tuple(basis.shape)}; the equation {self.name!r} expects "
                f"({', '.join(map(str, expected))}) with N basis fields"
            )
        if basis.shape[1] < 1:
            raise DataError("the basis has no fields (N = 0); give the operator at least one output channel")
        bad = ~torch.isfinite(basis).flatten(2).all(2)
        if bool(bad.any()):
            case, number = bad.nonzero()[0].tolist()
            raise DataError(
                f"basis field {number} of case {case} is not finite; the operator's output holds NaN or inf (lower the "
                "learning rate, or clip gradients)"
            )


def fold(field: Tensor) -> Tensor:
    """``(B, C, ...)`` to ``(B C, ...)``."""
    return field.flatten(0, 1)


def repeat(values: Tensor, count: int) -> Tensor:
    """``(B, ...)`` to ``(B count, ...)``: what ``fold`` of ``count`` fields a case belongs to."""
    return values.repeat_interleave(count, 0)


def face_pair(field: Tensor, axis: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Means and differences of the cells r - 1 and r of an axis of ``(B, C, *cells)``, with the axis moved to 2."""
    n = field.shape[axis + 2]
    high = torch.as_tensor(list(positions), device=field.device)
    low = (high - 1) % n
    moved = field.movedim(axis + 2, 2)
    below, above = moved.index_select(2, low), moved.index_select(2, high)
    return 0.5 * (below + above), above - below


def column(values: Tensor, ndim: int) -> Tensor:
    """``(B,)`` shaped to broadcast over ``ndim`` dimensions."""
    return values.reshape(-1, *(1,) * (ndim - 1))

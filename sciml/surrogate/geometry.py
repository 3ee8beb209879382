"""Where the fluid is, as a surrogate needs it: channels that the operator reads, and the cells that stay at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sciml.constraints import Constraint, Context
from sciml.problems.base import Problem


@dataclass(frozen=True)
class Geometry:
    """Of each case of a batch: ``solid (B, *grid)`` bool, and what operators read of it, ``inputs (B, G, *grid)``."""

    solid: Tensor
    inputs: Tensor

    def masked(self, values: Tensor) -> Tensor:
        """``values (B, ..., *grid)`` with exact zeros in the solid cells, whatever stood there."""
        between = values.ndim - self.solid.ndim
        solid = self.solid.reshape(len(self.solid), *(1,) * between, *self.solid.shape[1:])
        return values.masked_fill(solid, 0.0)


class ZeroInSolid(Constraint):
    """Fields that are zero where there is no fluid (``context.fluid``): the orthogonal projection onto them.

    A prediction obeys it before any other constraint is imposed. One that knows no obstacles (of the values on the
    sides) would write into them, and blanking its result would take away what it imposed: as an affine constraint among
    the others it holds together with them.
    """

    name = "zero-in-solid"
    affine = True

    def forward(self, u: Tensor, context: Context) -> Tensor:
        assert context.fluid is not None
        return u.masked_fill(~context.fluid.to(u.device).unsqueeze(1), 0.0)

    def residual(self, u: Tensor, context: Context) -> Tensor:
        """The share of the field's size that is in the solid."""
        whole = u.double().square().flatten(1).sum(1)
        rest = (u - self(u, context)).double().square().flatten(1).sum(1)
        return (rest / whole.where(whole > 0, 1.0)).sqrt()


def geometry_of(
    problem: Problem, parameters: Mapping[str, Tensor], grid: Sequence[int], like: Tensor
) -> Geometry | None:
    """The geometry of cases with parameters ``(B,)`` on a grid, on the device and in the dtype of ``like``; None for a
    problem without obstacles.
    """
    fluid = problem.fluid_cells(parameters, grid)
    if fluid is None:
        return None
    return Geometry(~fluid.to(like.device), problem.geometry_inputs(parameters, grid).to(like))

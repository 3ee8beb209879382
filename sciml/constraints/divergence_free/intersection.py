"""Orthogonal projection onto what two linear spaces U and V have in common, given the projections onto each.

With Q = 1 - P_U the nearest field of both to y is P_V (y - lambda), where lambda in the range of Q solves

    Q P_V Q lambda = Q P_V y.

For divergence-free fields V and fields U that vanish in a solid, the eigenvalues of the operator are the squared
cosines of angles that do not depend on the grid, so conjugate gradients need a number of steps that hardly grows with
it, and pockets of fluid, solids that touch and cells without neighbours need no special care: the system may be
singular, but it is consistent (Kaasschieter, J. Comput. Appl. Math. 24 (1988) 265).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.errors import SolverError

STALLED = 50
"""A case whose residual has not fallen for this many iterations is at round-off, or has no solution."""

ACCEPTED = 20.0
"""Times the tolerance: what a case may stall at."""

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two linear spaces of fields ``(B, ...)``.

    ``outside``: Q, the part of a field outside U; ``onto``: P_V; ``weight``: of the inner product in which both are
    orthogonal, broadcastable against a field; ``tolerance``: of Q P_V (y - lambda) relative to y.
    """

    outside: Map
    onto: Map
    weight: Tensor
    tolerance: float
    max_iterations: int = 1000


def multiplier(y: Tensor, pair: Pair) -> Tensor:
    """(Q P_V Q)^+ Q y: with it P_V y - P_V ``multiplier(P_V y)`` is in both. Differentiable any number of times in y.

    Raises ``SolverError`` naming the case that does not converge.
    """
    return _Multiplier.apply(y, pair)


class _Multiplier(torch.autograd.Function):
    """The map is linear and self-adjoint in the weighted inner product, so it is its own backward pass."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, pair: Pair) -> Tensor:
        ctx.pair = pair
        return _conjugate_gradients(y.detach(), pair)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        weight = ctx.pair.weight
        return weight * _Multiplier.apply(gradient / weight, ctx.pair), None


def _conjugate_gradients(y: Tensor, pair: Pair) -> Tensor:
    """The best iterate of each case: below round-off the residual of a singular system grows again."""
    scale = _norm(y, pair.weight)
    r = pair.outside(y)
    x, p, rr = torch.zeros_like(r), r, _dot(r, r, pair.weight)
    best, least, since = x, rr, torch.zeros_like(rr)
    for _ in range(pair.max_iterations):
        active = ~(least.sqrt() <= pair.tolerance * scale) & (since < STALLED)  # true for NaN too
        if not bool(active.any()):
            break
        ap = pair.outside(pair.onto(p))
        alpha = torch.where(active, rr / _dot(p, ap, pair.weight), 0.0)
        x, r = x + _column(alpha, x) * p, r - _column(alpha, x) * ap
        previous, rr = rr, _dot(r, r, pair.weight)
        p = r + _column(torch.where(active, rr / previous, 0.0), x) * p
        better = rr < least
        best, since = torch.where(_column(better, x), x, best), torch.where(better, 0.0, since + 1)
        least = torch.where(better, rr, least)
    relative = least.sqrt() / torch.where(scale == 0, 1.0, scale)
    if bool((relative <= ACCEPTED * pair.tolerance).all()):
        return best
    worst = int(torch.nan_to_num(relative, nan=torch.inf).argmax())
    raise SolverError(
        f"The projection beside the obstacles of case {worst} stopped at {float(relative[worst]):.1e} of the velocity "
        f"({pair.tolerance:.1e} was asked for, in at most {pair.max_iterations} iterations). Is the velocity finite, "
        "and can what flows into each pocket of fluid leave it?"
    )


def _dot(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    return (weight * x * y).flatten(1).sum(1)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return _dot(x, x, weight).sqrt()


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))

"""How far apart two sets of points are, whichever point of one belongs to which of the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sciml.errors import ConfigError, DataError, SolverError
from sciml.points.checks import check_alike, check_points
from sciml.points.neighbours import nearest

BLOCK = 1 << 20
"""Pairs of points whose cost is in memory at once."""

RELAXATION = 1.8
"""Of Sinkhorn's iteration: at a blur of 5 % it takes some 30 steps with it, 150 without."""


def chamfer(a: Tensor, b: Tensor, *, squared: bool = False) -> Tensor:
    """mean_i min_j |a_i - b_j| + mean_j min_i |a_i - b_j|, a number; ``squared``: of the squared distances (Fan, Su and
    Guibas, CVPR 2017, arXiv 1612.00603, with means instead of sums).

    ``a (N, d)``, ``b (M, d)``. Differentiable in both with the nearest points held; time N log M + M log N.

    Raises ``DataError`` for an empty set or coordinates that are not finite, ``ConfigError`` for wrong shapes.
    """
    _check_sets(a, b)
    total = 0.0
    for x, y in ((a, b), (b, a)):
        way = x - y[nearest(y, x, 1)[0][:, 0]]
        distance = way.square().sum(1) if squared else torch.linalg.vector_norm(way, dim=1)
        total = total + distance.mean()
    return total


def sinkhorn(
    a: Tensor,
    b: Tensor,
    *,
    blur: float | None = None,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> Tensor:
    """Sinkhorn divergence S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 of two sets of equally heavy points, a number.

    OT(a, b) = min_P sum P_ij |a_i - b_j|^2 + blur^2 KL(P | 1/(N M)) over the plans P with the marginals 1/N and 1/M
    (Feydy et al., AISTATS 2019, arXiv 1810.08278). S >= 0, 0 only for equal sets, and tends to the squared
    2-Wasserstein distance as the blur goes to 0 and to the squared distance of the centres as it grows.

    ``a (N, d)``, ``b (M, d)``; ``blur``: a length, details below which do not count, by default 5 % of the diagonal of
    the box around both; ``tolerance``: of the marginals, in sum of absolute values; its error in S is of second order.
    Differentiable once in a and b. Every iteration takes time N M, memory is bounded: draw some thousand points of
    larger sets.

    Raises ``DataError`` for an empty set or coordinates that are not finite, ``ConfigError`` for wrong arguments,
    ``SolverError`` when the iteration does not converge.
    """
    _check_sets(a, b)
    both = torch.cat([a.detach(), b.detach()]).double()
    low, high = both.amin(0), both.amax(0)
    size = float(torch.linalg.vector_norm(high - low))
    blur = 0.05 * size if blur is None else float(blur)
    if not (0 < blur < math.inf or size == 0) or not tolerance > 0 or max_iterations < 1:
        raise ConfigError(
            f"blur is {blur}, tolerance {tolerance} and max_iterations {max_iterations}; all must be positive."
        )
    unit = size if size > 0 else 1.0  # lengths are measured by the diagonal
    x, y = ((both - (low + high) / 2) / unit).split([len(a), len(b)])
    width = blur / unit if size > 0 else 1.0
    # The error in S is about blur^2 times that of the marginals squared: a wide blur asks for better ones.
    search = _Search(width, tolerance / max(1.0, width), max_iterations)
    f, g = _potentials(x, y, search)
    p, q = _potential(x, search), _potential(y, search)
    value = f.mean() + g.mean() - p.mean() - q.mean()
    # Danskin: the plans can be held. Then the gradient of OT(a, b) at a_i is 2 / N (a_i - its mean partner), and a_i
    # drops out of the difference with OT(a, a).
    epsilon = search.blur**2
    to_a = 2 / len(x) * (_partners(x, x, p, epsilon) - _partners(x, y, g, epsilon))
    to_b = 2 / len(y) * (_partners(y, y, q, epsilon) - _partners(y, x, f, epsilon))
    return _WithGradient.apply(a, b, unit**2 * value, unit * to_a, unit * to_b)


class _Search(NamedTuple):
    blur: float
    tolerance: float
    max_iterations: int


class _WithGradient(torch.autograd.Function):
    """A value that was computed together with its gradient."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor, value: Tensor, to_a: Tensor, to_b: Tensor) -> Tensor:
        ctx.save_for_backward(to_a.to(a.dtype), to_b.to(b.dtype))
        return value.to(a.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        to_a, to_b = ctx.saved_tensors
        return gradient * to_a, gradient.to(to_b.dtype) * to_b, None, None, None


def _potentials(x: Tensor, y: Tensor, search: _Search) -> tuple[Tensor, Tensor]:
    """The dual potentials ``(N,)``, ``(M,)`` of OT(x, y): Sinkhorn's iteration in the log domain, from the diagonal of
    the box (1) down to the blur by halves, then over-relaxed (Thibault et al., Algorithms 14 (2021) 143) once it is
    near."""
    f, g = x.new_zeros(len(x)), x.new_zeros(len(y))
    blurs = _annealing(search)
    error = math.inf
    for k in range(search.max_iterations):
        blur = blurs[min(k, len(blurs) - 1)]
        epsilon, last = blur**2, k >= len(blurs) - 1
        relaxation = RELAXATION if last and error < 1 else 1.0
        new = _soft_minimum(x, y, g, epsilon)
        error = float(((f - new) / epsilon).expm1().abs().mean())
        if last and error < search.tolerance:
            return new, _soft_minimum(y, x, new, epsilon)
        f = torch.lerp(f, new, relaxation)
        g = torch.lerp(g, _soft_minimum(y, x, f, epsilon), relaxation)
    raise _not_converged(search, error)


def _potential(x: Tensor, search: _Search) -> Tensor:
    """The one potential ``(N,)`` of OT(x, x): half of every step, which converges in a few (Feydy et al., section
    3.1)."""
    p, blurs = x.new_zeros(len(x)), _annealing(search)
    error = math.inf
    for k in range(search.max_iterations):
        epsilon = blurs[min(k, len(blurs) - 1)] ** 2
        new = _soft_minimum(x, x, p, epsilon)
        error = float(((p - new) / epsilon).expm1().abs().mean())
        p = torch.lerp(p, new, 0.5)
        if k >= len(blurs) - 1 and error < search.tolerance:
            return p
    raise _not_converged(search, error)


def _annealing(search: _Search) -> list[float]:
    halvings = max(0, math.ceil(-math.log2(search.blur)))
    return [*(0.5**k for k in range(halvings)), search.blur]


def _not_converged(search: _Search, error: float) -> SolverError:
    return SolverError(
        f"After {search.max_iterations} Sinkhorn iterations with a blur of {search.blur:.2g} diagonals the marginals "
        f"are wrong by {error:.1e}; {search.tolerance:.1e} was asked for. Raise the blur, the tolerance or "
        "max_iterations."
    )


def _soft_minimum(x: Tensor, y: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """-epsilon log mean_j exp((g_j - |x_i - y_j|^2) / epsilon), ``(N,)``."""
    parts = [torch.logsumexp(exponents, 1) for exponents in _exponents(x, y, g, epsilon)]
    return x.square().sum(1) - epsilon * (torch.cat(parts) - math.log(len(y)))


def _partners(x: Tensor, y: Tensor, g: Tensor, epsilon: float) -> Tensor:
    """The mean of the y_j that the plan with potential g gives to every x_i, ``(N, d)``."""
    return torch.cat([exponents.softmax(1) @ y for exponents in _exponents(x, y, g, epsilon)])


def _exponents(x: Tensor, y: Tensor, g: Tensor, epsilon: float) -> Iterator[Tensor]:
    """(g_j - |y_j|^2 + 2 x_i y_j) / epsilon, ``(some of N, M)`` at a time: what differs along j in the plan."""
    level = (g - y.square().sum(1)) / epsilon
    for rows in x.split(max(1, BLOCK // len(y))):
        yield torch.addmm(level, rows, y.T, alpha=2 / epsilon)


def _check_sets(a: Tensor, b: Tensor) -> None:
    for name, points in (("a", a), ("b", b)):
        check_points(name, points)
        if len(points) == 0:
            raise DataError(f"The set {name} is empty; a distance needs at least one point in both.")
    check_alike(("a", a), ("b", b))

"""Linear equations and ``v >= 0`` together for a diagonal weight, by Newton's method on the multipliers."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.conservation.affine_projection import apply_rows, apply_transposed, factorise, gram
from sciml.errors import SolverError

ROUNDING = 1e-12
"""Mismatch of the equations, relative to the sum of their absolute terms, that counts as none."""


def nonnegative_update(mean: Tensor, variance: Tensor, rows: Tensor, target: Tensor, noise: Tensor | None) -> Tensor:
    """The v ``(..., n)`` >= 0 with ``G v = b`` that is nearest to the mean, ``min sum (v - mean)^2 / variance``.

    With ``noise (..., m)`` the equations are met as far as ``+ sum (G v - b)^2 / noise`` asks for: v is then the mode
    of the Gaussian posterior cut off at zero. All in float64: ``mean (..., n)``, ``variance (..., n)``,
    ``rows (..., m, n)``, ``target (..., m)``. A value of variance 0 stays, or becomes 0 if it is negative.

    The multipliers y of the equations are the roots of ``F(y) = G max(mean + variance G^T y, 0) + noise y - b``, the
    gradient of a convex, piecewise quadratic function: a Newton method with a line search ends after finitely many
    steps at the set of values that are not zero. The result is the affine projection among those, through which
    gradients flow (they are those of the set of zeros found: not defined where a value is just about to become zero).

    Raises ``SolverError`` naming the case if no v >= 0 satisfies the equations.
    """
    free = _free_values(mean.detach(), variance.detach(), rows.detach(), target.detach(), noise)
    free_mean, free_variance = torch.where(free, mean, 0.0), torch.where(free, variance, 0.0)
    factor = factorise(rows, free_variance, noise=noise, drop_dependent=True)
    result = factor.correct(free_mean, target).clamp(min=0)
    if noise is None:
        _check_met(result.detach(), rows.detach(), target.detach())
    return result


def _mismatch(v: Tensor, rows: Tensor, target: Tensor) -> Tensor:
    """|G v - b| relative to the sum of absolute terms, the largest over the rows ``(...)``."""
    terms = apply_rows(rows.abs(), v.abs()) + target.abs()
    gap = (apply_rows(rows, v) - target).abs()
    return torch.where(terms > 0, gap / terms, 0.0).amax(-1)


def _check_met(v: Tensor, rows: Tensor, target: Tensor) -> None:
    mismatch = _mismatch(v, rows, target)
    if bool((mismatch > 1e3 * ROUNDING).any()):
        worst = int(mismatch.argmax())
        wanted = target.expand(mismatch.shape + target.shape[-1:]).reshape(-1, target.shape[-1])[worst].tolist()
        raise SolverError(
            f"No non-negative values of case {worst} have the totals {', '.join(f'{t:.6g}' for t in wanted)}: the "
            f"nearest miss them by {float(mismatch.flatten()[worst]):.1e} (relative). With non-negative weights a "
            "total must not be negative; drop the non-negativity or correct the target."
        )


@torch.no_grad()
def _free_values(mean: Tensor, variance: Tensor, rows: Tensor, target: Tensor, noise: Tensor | None) -> Tensor:
    """Which values are not zero at the solution, ``(..., n)`` bool."""
    extra = 0.0 if noise is None else noise
    whole = gram(rows, rows * variance.unsqueeze(-2)).diagonal(dim1=-2, dim2=-1) + extra
    floor = torch.diag_embed(1e-14 * torch.where(whole > 0, whole, 1.0))

    def values(y: Tensor) -> Tensor:
        return mean + variance * apply_transposed(rows, y)

    def objective(y: Tensor) -> Tensor:  # the dual function, up to a constant
        shift = apply_transposed(rows, y)
        positive = variance > 0
        inactive = torch.where(positive, -0.5 * mean.square() / torch.where(positive, variance, 1.0), 0.0)
        terms = torch.where(values(y) > 0, shift * (mean + 0.5 * variance * shift), inactive)
        return terms.sum(-1) + (0.5 * extra * y.square() - target * y).sum(-1)

    y = factorise(rows, variance, noise=noise, drop_dependent=True).multipliers(target - apply_rows(rows, mean))
    free = values(y) > 0
    for _ in range(100):
        slope = apply_rows(rows, torch.where(free, values(y), 0.0)) + extra * y - target
        matrix = gram(rows, rows * torch.where(free, variance, 0.0).unsqueeze(-2)) + floor
        if noise is not None:
            matrix = matrix + torch.diag_embed(noise.expand(matrix.shape[:-1]))
        step = -torch.linalg.solve(matrix, slope.expand(matrix.shape[:-1]))
        descent = (slope * step).sum(-1)
        before, size = objective(y), torch.ones_like(descent)
        for _ in range(40):
            worse = objective(y + size.unsqueeze(-1) * step) > before + 1e-4 * size * descent + 1e-14 * before.abs()
            if not bool(worse.any()):
                break
            size = torch.where(worse, 0.5 * size, size)
        y = y + size.unsqueeze(-1) * step
        new = values(y) > 0
        settled = (new == free).all(-1) & (size == 1)
        free = new
        if bool(settled.all()):
            break
    return free

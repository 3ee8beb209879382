"""The nearest values that satisfy linear equations, ``u - W G^T (G W G^T + N)^-1 (G u - b)``.

With ``N = 0`` the result satisfies ``G u = b`` and is the nearest to ``u`` in the norm ``|v|^2 = v^T W^-1 v``. ``W``
is symmetric positive (semi)definite: a diagonal, ``variance (..., n)``, or full, ``covariance (..., n, n)``, as the
prior of a Gaussian update; without either it is the identity. Everything is done in float64 and returned in the type of
``u``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, DataError

DEPENDENT = 1e-12
"""A row counts as a combination of those before it when the squared sine of its angle to them is below this."""


@dataclass(frozen=True, eq=False)
class Factor:
    """What ``factorise`` computes once for fixed ``G`` and ``W``.

    ``rows (..., m, n)``: G; ``weighted (..., m, n)``: G W; ``scale (..., m)``: square roots of the diagonal of
    ``G W G^T + N``, ``cholesky (..., m, m)``: lower factor of that matrix scaled to a unit diagonal; ``kept (..., m)``:
    0 for rows that were left out as dependent, None if none may be; ``exact``: N = 0.
    """

    rows: Tensor
    weighted: Tensor
    scale: Tensor
    cholesky: Tensor
    kept: Tensor | None
    exact: bool

    def multipliers(self, mismatch: Tensor) -> Tensor:
        """``(G W G^T + N)^-1 mismatch``, ``(..., m)``."""
        right = mismatch / self.scale
        if self.kept is not None:
            right = right * self.kept
        solution = torch.cholesky_solve(right.unsqueeze(-1), self.cholesky).squeeze(-1)
        if self.kept is not None:
            solution = solution * self.kept
        return solution / self.scale

    def root(self) -> Tensor:
        """U ``(..., m, n)`` with ``U^T U = W G^T (G W G^T + N)^-1 G W``."""
        return torch.linalg.solve_triangular(self.cholesky, self.weighted / self.scale.unsqueeze(-1), upper=False)

    def correct(self, u: Tensor, target: Tensor) -> Tensor:
        """The formula at the head of this module for float64 ``u (..., n)`` and ``target (..., m)``."""
        result = u - apply_transposed(self.weighted, self.multipliers(apply_rows(self.rows, u) - target))
        if self.exact and self.rows.shape[-2] > 1:  # what rounding left, for rows that are nearly dependent
            with torch.no_grad():
                rest = apply_transposed(self.weighted, self.multipliers(apply_rows(self.rows, result) - target))
            result = result - rest
        return result


def apply_rows(rows: Tensor, u: Tensor) -> Tensor:
    """``G u (..., m)`` for ``rows (..., m, n)`` and ``u (..., n)``."""
    return torch.einsum("...mn,...n->...m", rows, u)


def apply_transposed(rows: Tensor, multipliers: Tensor) -> Tensor:
    """``G^T y (..., n)`` for ``rows (..., m, n)`` and ``multipliers (..., m)``."""
    return torch.einsum("...mn,...m->...n", rows, multipliers)


def weighted_rows(rows: Tensor, variance: Tensor | None, covariance: Tensor | None) -> Tensor:
    """``G W (..., m, n)``."""
    if covariance is not None:
        return rows @ covariance
    return rows if variance is None else rows * variance.unsqueeze(-2)


def gram(rows: Tensor, weighted: Tensor) -> Tensor:
    """``G W G^T (..., m, m)``."""
    return weighted @ rows.transpose(-1, -2)


def factorise(
    rows: Tensor,
    variance: Tensor | None = None,
    covariance: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    target: Tensor | None = None,
    drop_dependent: bool = False,
) -> Factor:
    """Factorise ``G W G^T + N`` for float64 inputs that were checked.

    ``noise (..., m)``: the diagonal of N, None for 0. Raises ``ConfigError`` naming a row that is dependent on those
    before it, and with ``target (..., m)`` whether it contradicts them; with ``drop_dependent`` such a row gets the
    multiplier 0 instead.
    """
    weighted = weighted_rows(rows, variance, covariance)
    matrix = gram(rows, weighted)
    if noise is not None:
        matrix = matrix + torch.diag_embed(noise.expand(matrix.shape[:-1]))
    diagonal = matrix.detach().diagonal(dim1=-2, dim2=-1)
    empty = ~(diagonal > 0)
    if bool(empty.any()) and not drop_dependent:
        *case, row = empty.nonzero()[0].tolist()
        raise ConfigError(
            f"Row {row} of the constraints{_case(case)} sums nothing that may change: its entries are zero, or the "
            "variance is zero wherever they are not. Remove the row, or give these values a variance."
        )
    scale = torch.where(empty, 1.0, diagonal).sqrt()
    matrix = matrix / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    kept = None
    if drop_dependent:
        kept = _independent(matrix.detach(), ~empty)
        both = kept.unsqueeze(-1) & kept.unsqueeze(-2)
        matrix = torch.where(both, matrix, torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device))
        kept = kept.to(matrix.dtype)
    factor, info = torch.linalg.cholesky_ex(matrix)
    pivots = factor.detach().diagonal(dim1=-2, dim2=-1).square()
    if kept is None and bool(((info > 0) | (pivots.amin(-1) < DEPENDENT)).any()):
        _refuse_dependent(matrix.detach(), pivots, info, scale, target)
    return Factor(rows, weighted, scale, factor, kept, noise is None)


def _independent(matrix: Tensor, candidates: Tensor) -> Tensor:
    """Which of the candidate rows of a Gram matrix of unit diagonal are independent of those before them."""
    kept = candidates.clone()
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(matrix.shape[-1]):
        trial = torch.where(kept.unsqueeze(-1) & kept.unsqueeze(-2), matrix, identity)
        factor, info = torch.linalg.cholesky_ex(trial)
        pivots = factor.diagonal(dim1=-2, dim2=-1).square()
        first = _first_dependent(pivots, info)
        if not bool((first >= 0).any()):
            break
        places = torch.arange(matrix.shape[-1], device=matrix.device)
        kept = kept & (places != first.unsqueeze(-1))
    return kept


def _first_dependent(pivots: Tensor, info: Tensor) -> Tensor:
    """The first row without a pivot of its own, ``(...)``; -1 where there is none."""
    size = pivots.shape[-1]
    places = torch.arange(size, device=pivots.device)
    failed = info.unsqueeze(-1).to(places.dtype) - 1  # cholesky stopped here; what follows is not meaningful
    small = (pivots < DEPENDENT) & ((failed < 0) | (places < failed))
    small = small | (places == failed)
    return torch.where(small.any(-1), small.to(torch.int64).argmax(-1), -1)


def _refuse_dependent(matrix: Tensor, pivots: Tensor, info: Tensor, scale: Tensor, target: Tensor | None) -> None:
    first = _first_dependent(pivots, info)
    case = (first >= 0).nonzero()[0].tolist()
    where = tuple(case)
    row = int(first[where])
    matrix, scale = matrix[where], scale.expand(matrix.shape[:-1])[where]
    combination = torch.linalg.lstsq(matrix[:row, :row], matrix[:row, row].unsqueeze(-1)).solution.squeeze(-1)
    others = [str(k) for k in range(row) if abs(float(combination[k])) > 1e-6]
    verdict = ""
    if target is not None:
        scaled = target.detach().expand(first.shape + target.shape[-1:])[where] / scale
        gap = float((scaled[row] - combination @ scaled[:row]).abs())
        contradicts = gap > 1e-9 * float(scaled[: row + 1].abs().sum())
        verdict = " Its target contradicts theirs: nothing satisfies all." if contradicts else " Its target agrees."
    raise ConfigError(
        f"Row {row} of the constraints{_case(case)} is a linear combination of row(s) {', '.join(others)} wherever the "
        f"variance is not zero.{verdict} Remove it, or state how far the constraints may be missed (noise)."
    )


def _case(case: list[int]) -> str:
    return f" (case {case[0] if len(case) == 1 else tuple(case)})" if case else ""


def check_finite(name: str, values: Tensor) -> None:
    """``DataError`` naming the first entry that is not finite."""
    good = torch.isfinite(values)
    if not bool(good.all()):
        place = tuple((~good).nonzero()[0].tolist()) if values.ndim else ()
        raise DataError(f"The {name} is {values[place].item()} at index {place}; it must be finite.")


def checked_rows(rows: Tensor, n: int) -> Tensor:
    """``rows (..., m, n)`` in float64. Raises ``ConfigError`` for another shape, ``DataError`` if not finite."""
    rows = torch.as_tensor(rows)
    if rows.ndim < 2 or rows.shape[-1] != n or rows.shape[-2] < 1:
        raise ConfigError(
            f"The rows of the constraints have the shape {tuple(rows.shape)}; expected (m, {n}), one row of {n} "
            f"weights for each constraint, or (B, m, {n})."
        )
    check_finite("matrix of constraint rows", rows)
    return rows.double()


def checked_target(target: Tensor | float, m: int, device: torch.device) -> Tensor:
    """``target (..., m)`` in float64; a number serves all rows. Raises ``ConfigError`` or ``DataError``."""
    target = torch.as_tensor(target, dtype=torch.float64, device=device)
    if target.ndim == 0:
        target = target.expand(m)
    if target.shape[-1] != m:
        raise ConfigError(f"The target has the shape {tuple(target.shape)} for {m} constraint(s); expected (..., {m}).")
    check_finite("target of the constraints", target)
    return target


def checked_weights(
    variance: Tensor | None, covariance: Tensor | None, n: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """``variance (..., n)`` or ``covariance (..., n, n)`` in float64.

    Raises ``ConfigError`` if both are given, for wrong shapes, or a matrix that is not symmetric, ``DataError`` for
    values that are negative (on the diagonal) or not finite.
    """
    if variance is not None and covariance is not None:
        raise ConfigError("Both a variance and a covariance were given; give the diagonal or the full matrix.")
    if variance is not None:
        variance = torch.as_tensor(variance, dtype=torch.float64, device=device)
        if variance.ndim == 0 or variance.shape[-1] != n:
            raise ConfigError(f"The variance has the shape {tuple(variance.shape)}; expected (..., {n}).")
        _check_not_negative("variance", variance)
    if covariance is not None:
        covariance = torch.as_tensor(covariance, dtype=torch.float64, device=device)
        if covariance.shape[-2:] != (n, n):
            raise ConfigError(f"The covariance has the shape {tuple(covariance.shape)}; expected (..., {n}, {n}).")
        _check_not_negative("diagonal of the covariance", covariance.diagonal(dim1=-2, dim2=-1))
        check_finite("covariance", covariance)
        skew = (covariance - covariance.transpose(-1, -2)).abs().amax()
        if bool(skew > 1e-6 * covariance.abs().amax()):
            raise ConfigError(f"The covariance is not symmetric: it differs from its transpose by {float(skew):.1e}.")
    return variance, covariance


def _check_not_negative(name: str, values: Tensor) -> None:
    check_finite(name, values)
    if bool((values < 0).any()):
        place = tuple((values < 0).nonzero()[0].tolist())
        raise DataError(
            f"The {name} is {values[place].item():g} at index {place}; it must not be negative. A network should "
            "predict its logarithm or pass it through softplus."
        )


class AffineProjection(nn.Module):
    """The projection for fixed rows and weights: the factor is computed once.

    ``AffineProjection(rows, target)(u)`` with ``rows (m, n)`` (or ``(B, m, n)``), ``target (m,)`` or ``(B, m)`` and
    ``u (..., n)``, any floating type. ``variance (n,)`` or ``covariance (n, n)`` is the weight W; it says in which norm
    the result is the nearest: cells of large variance change most. Rows, targets and weights are fixed numbers; for
    gradients to them, or weights that a network predicts, use ``gaussian_update``.

    Raises ``ConfigError`` (shapes, dependent rows, by number) and ``DataError`` (not finite, negative variance).
    """

    def __init__(
        self,
        rows: Tensor,
        target: Tensor | float = 0.0,
        *,
        variance: Tensor | None = None,
        covariance: Tensor | None = None,
    ) -> None:
        super().__init__()
        rows = torch.as_tensor(rows).detach()
        rows = checked_rows(rows, rows.shape[-1] if rows.ndim else 0)
        variance, covariance = checked_weights(variance, covariance, rows.shape[-1], rows.device)
        if variance is not None:
            variance = variance.detach()
        if covariance is not None:
            covariance = covariance.detach()
        # Not buffers: those would follow ``module.float()`` or ``.bfloat16()``, and the factor stays in float64.
        self._target = checked_target(target, rows.shape[-2], rows.device).detach()
        self._factor = factorise(rows, variance, covariance, target=self._target)

    def forward(self, u: Tensor, target: Tensor | float | None = None) -> Tensor:
        """The nearest ``u (..., n)`` with ``G u = target`` (that of the constructor where None)."""
        self._move(u.device)
        n, m = self._factor.rows.shape[-1], self._factor.rows.shape[-2]
        if u.ndim == 0 or u.shape[-1] != n:
            raise ConfigError(f"u has the shape {tuple(u.shape)}; the rows of the constraints expect (..., {n}).")
        check_finite("field to project", u)
        wanted = self._target if target is None else checked_target(target, m, u.device)
        return self._factor.correct(u.double(), wanted).to(u.dtype)

    def mismatch(self, u: Tensor, target: Tensor | float | None = None) -> Tensor:
        """``G u - target (..., m)`` in float64."""
        self._move(u.device)
        wanted = self._target if target is None else checked_target(target, self._target.shape[-1], u.device)
        return apply_rows(self._factor.rows, u.double()) - wanted

    def _move(self, device: torch.device) -> None:
        if self._target.device != device:
            old = self._factor
            self._target = self._target.to(device)
            self._factor = Factor(
                *(part.to(device) for part in (old.rows, old.weighted, old.scale, old.cholesky)), None, old.exact
            )

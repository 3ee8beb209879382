"""Darcy's equation by preconditioned conjugate gradients, batched, each case to its own convergence.

The preconditioner is the constant-coefficient operator with the same kinds of sides, inverted directly by fast
diagonalisation. Its inverse times the operator has eigenvalues between the smallest and the largest coefficient, so
the number of iterations depends on the contrast of the coefficient and not on the grid. Where the coefficient changes
little from cell to cell the inverse is scaled by a^-1/2 on both sides, which for a smooth coefficient takes out the
contrast as well (Concus and Golub, SIAM J. Numer. Anal. 10 (1973) 1103); across jumps it would do harm.

Gradients follow from the implicit function theorem: with the discrete residual r(u; a, f, g) = 0,
du = -A^-1 dr, and A is symmetric, so a backward pass is one more solve with the same matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sciml.errors import ConfigError, SolverError
from sciml.physics.boundary import sides
from sciml.physics.darcy import Sides, check_sides, conductances, darcy_residual, homogeneous_operator, side_values
from sciml.physics.fast_diagonalisation import FastDiagonalisation, eigenbasis
from sciml.physics.grid import check_positive, uniform_axis

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-7}
"""Default relative residual by the dtype of the coefficient: the iteration itself is always in float64."""

SMOOTH = 1.5
"""A coefficient whose neighbouring cells differ by less than this factor counts as smooth."""

LinearMap = Callable[[Tensor], Tensor]


def solve_darcy(
    coefficient: Tensor,
    source: Tensor | float,
    lengths: Tensor,
    boundaries: Sides,
    *,
    tolerance: float | None = None,
    max_iterations: int = 200,
) -> Tensor:
    """u ``(B, *grid)`` with -div(a grad u) = f, in the dtype of the coefficient a ``(B, *grid)``.

    ``source``: f, a number, ``(B,)`` or ``(B, *grid)``; ``lengths (B, dim)``; ``boundaries``: ``physics.darcy.Sides``;
    ``tolerance``: of |r| / |f + boundary terms| in the Euclidean norm per case, by default 1e-10 (1e-7 for float32).
    Differentiable once in a, f, the prescribed values and the lengths.

    Raises ``ConfigError`` for wrong shapes or a coefficient that is not positive and finite, ``SolverError`` naming
    the case that does not converge in ``max_iterations``.
    """
    dim = coefficient.ndim - 1
    lengths = _checked_lengths(coefficient, lengths)
    check_sides(boundaries, dim)
    _check_finite("coefficient", coefficient)
    check_positive("coefficient", coefficient.detach())
    source = _source(source, coefficient)
    tolerance = TOLERANCES.get(coefficient.dtype, 1e-7) if tolerance is None else tolerance
    if not tolerance > 0 or max_iterations < 1:
        raise ConfigError(f"tolerance is {tolerance} and max_iterations {max_iterations}; both must be positive.")

    a, f, sizes = coefficient.double(), source.double(), lengths.double()
    values = {
        name: None if value is None else torch.as_tensor(value, dtype=a.dtype, device=a.device)
        for name, value in boundaries.items()
    }
    with torch.no_grad():
        faces = conductances(a, sizes, values)
        side_values(values, a)  # refuses wrong shapes

        def apply(u: Tensor) -> Tensor:
            return homogeneous_operator(u, faces, sizes)

        precondition = _preconditioner(a, sizes, values)

        def solve(right: Tensor) -> Tensor:
            return conjugate_gradients(apply, right, precondition, tolerance, max_iterations)

        u = solve(-darcy_residual(torch.zeros_like(a), a, f, sizes, values))
    differentiable = [a, f, sizes, *(value for value in values.values() if value is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in differentiable):
        u = _Implicit.apply(u, darcy_residual(u, a, f, sizes, values), solve)
    return u.to(coefficient.dtype)


def conjugate_gradients(
    apply: LinearMap, right: Tensor, precondition: LinearMap, tolerance: float, max_iterations: int
) -> Tensor:
    """x ``(B, ...)`` with apply(x) = right for a symmetric positive definite map, |r| <= tolerance |right| per case.

    A case that has converged stands still while others go on. Raises ``SolverError`` naming the worst case when
    ``max_iterations`` do not suffice or a value is not finite.
    """
    wanted = tolerance * _norm(right)
    x, r = torch.zeros_like(right), right
    z = precondition(r)
    p, rz = z, _dot(r, z)
    for _ in range(max_iterations):
        active = ~(_norm(r) <= wanted)  # true for NaN too
        if not bool(active.any()):
            return x
        ap = apply(p)
        alpha = torch.where(active, rz / _dot(p, ap), 0.0)
        x = x + _column(alpha, x) * p
        r = r - _column(alpha, x) * ap
        z = precondition(r)
        previous, rz = rz, _dot(r, z)
        p = z + _column(torch.where(active, rz / previous, 0.0), z) * p
    relative = _norm(r) / _norm(right).clamp(min=torch.finfo(right.dtype).tiny)
    if bool((relative <= tolerance).all()):
        return x
    worst = int(torch.nan_to_num(relative, nan=torch.inf).argmax())
    raise SolverError(
        f"Conjugate gradients left case {worst} at a relative residual of {float(relative[worst]):.1e} after "
        f"{max_iterations} iterations; {tolerance:.1e} was asked for. Raise max_iterations or the tolerance, or lower "
        "the contrast of the coefficient."
    )


class _Implicit(torch.autograd.Function):
    """The identity on the solution u, whose backward pass sends -A^-1 grad to the residual."""

    @staticmethod
    def forward(ctx, u: Tensor, residual: Tensor, solve: LinearMap) -> Tensor:
        ctx.solve = solve
        return u.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, -ctx.solve(gradient), None


def _preconditioner(a: Tensor, lengths: Tensor, boundaries: Sides) -> LinearMap:
    names = sides(a.ndim - 1)
    kinds = ["neumann" if boundaries[name] is None else "dirichlet" for name in names]
    bases = tuple(
        eigenbasis(uniform_axis(n), "cell", kinds[2 * axis], kinds[2 * axis + 1]) for axis, n in enumerate(a.shape[1:])
    )
    same = bool((lengths == lengths[:1]).all())  # then one factor serves all cases
    poisson = FastDiagonalisation(bases, lengths[:1] if same else lengths, dtype=a.dtype, device=a.device)
    factor = -poisson.poisson_factor()
    column = (-1, *(1,) * (a.ndim - 1))
    scale = torch.where((_largest_jump(a) < SMOOTH).reshape(column), a.rsqrt(), 1.0)
    if not bool((scale != 1).any()):
        return lambda r: poisson.apply(r, factor)
    return lambda r: scale * poisson.apply(scale * r, factor)


def _largest_jump(a: Tensor) -> Tensor:
    """Largest ratio of neighbouring cells, ``(B,)``."""
    logs = a.log()
    jumps = [logs.diff(dim=axis).abs().flatten(1).amax(1) for axis in range(1, a.ndim)]
    return torch.stack(jumps).amax(0).exp()


def _checked_lengths(coefficient: Tensor, lengths: Tensor) -> Tensor:
    dim, lengths = coefficient.ndim - 1, torch.as_tensor(lengths)
    if not 1 <= dim <= 3 or min(coefficient.shape[1:]) < 2:
        raise ConfigError(
            f"The coefficient has shape {tuple(coefficient.shape)}; expected (B, n_1[, n_2[, n_3]]), n_i >= 2."
        )
    if lengths.shape != (coefficient.shape[0], dim):
        raise ConfigError(f"lengths have shape {tuple(lengths.shape)}; expected {(coefficient.shape[0], dim)}.")
    check_positive("length", lengths.detach())
    return lengths.to(coefficient)


def _source(source: Tensor | float, coefficient: Tensor) -> Tensor:
    source = torch.as_tensor(source, dtype=coefficient.dtype, device=coefficient.device)
    if source.ndim == 1 and len(source) == coefficient.shape[0]:
        source = source.reshape(-1, *(1,) * (coefficient.ndim - 1))
    elif source.ndim not in (0, coefficient.ndim):
        raise ConfigError(
            f"The source has shape {tuple(source.shape)}; expected a number, ({coefficient.shape[0]},) or "
            f"{tuple(coefficient.shape)}."
        )
    try:
        source = source.expand(coefficient.shape)
    except RuntimeError:
        raise ConfigError(f"The source has shape {tuple(source.shape)}; expected {tuple(coefficient.shape)}.") from None
    _check_finite("source", source)
    return source


def _check_finite(name: str, values: Tensor) -> None:
    bad = ~torch.isfinite(values.detach()).flatten(1).all(1)
    if bool(bad.any()):
        raise ConfigError(f"The {name} of case {int(bad.nonzero()[0])} is not finite.")


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1))


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))

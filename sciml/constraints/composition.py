"""Several constraints at once, and the wrapper that makes the output of any operator obey them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from sciml.constraints.base import Constraint, Context
from sciml.errors import ConfigError, DataError, SolverError

APART = 1e-6
"""Relative distance from a constraint at which it counts as violated."""
ITERATIONS = 300
"""Most iterations of ``project_together``: constraints that need more contradict one another, or nearly."""


class Constrained(nn.Module):
    """Any operator, ours or another module, followed by constraints on its output.

    Args:
        operator: a module whose output is ``(B, C, *grid)`` in the units of the context.
        constraints: imposed as by ``impose``.

    ``forward(*inputs, context=..., **options)`` gives everything but the context to the operator.
    """

    def __init__(self, operator: nn.Module, constraints: Sequence[Constraint]) -> None:
        super().__init__()
        for constraint in constraints:
            if not isinstance(constraint, Constraint):
                raise ConfigError(f"{constraint!r} is no Constraint; give instances such as DivergenceFree()")
        self.operator = operator
        self.constraints = nn.ModuleList(constraints)

    def forward(self, *inputs: Any, context: Context, **options: Any) -> Tensor:
        """The operator's output, made to obey."""
        return impose(list(self.constraints), self.operator(*inputs, **options), context)  # type: ignore[arg-type]

    def residuals(self, u: Tensor, context: Context) -> dict[str, Tensor]:
        """How far a field is from each constraint, name -> ``(B,)``."""
        return residuals(list(self.constraints), u, context)  # type: ignore[arg-type]


def residuals(constraints: Sequence[Constraint], u: Tensor, context: Context) -> dict[str, Tensor]:
    """``residual`` of each constraint, ``labels`` -> ``(B,)``."""
    found = [constraint.residual(u, context) for constraint in constraints]
    return dict(zip(labels(constraints), found, strict=True))


def labels(constraints: Sequence[Constraint]) -> list[str]:
    """The name of each constraint; a second one of the same name is numbered."""
    names = [constraint.name for constraint in constraints]
    counts = [names[: index + 1].count(name) for index, name in enumerate(names)]
    return [name if count == 1 else f"{name} {count}" for name, count in zip(names, counts, strict=True)]


def impose(constraints: Sequence[Constraint], u: Tensor, context: Context) -> Tensor:
    """``u (B, C, *grid)`` made to obey all of them.

    In the given order, neighbours that are ``affine`` together: the result is then the nearest field that obeys every
    one of these. A constraint that is not affine obeys itself, and may take away from those before it: put it first, or
    look at ``residuals``.

    Raises:
        DataError: u is not finite, or does not fit the context's grid.
        SolverError: affine constraints that contradict one another.
    """
    check_field(u, context)
    for affine, group in groupby(constraints, lambda constraint: constraint.affine):
        members = list(group)
        if affine and len(members) > 1:
            u = project_together(members, u, context)
        else:
            for constraint in members:
                u = constraint(u, context)
    return u


def check_field(u: Tensor, context: Context) -> None:
    """Raise ``DataError`` for a field that does not fit the grid, or is not finite (unless it is being compiled)."""
    if u.ndim != context.grid.dim + 2 or tuple(u.shape[2:]) != context.grid.shape:
        raise DataError(
            f"the field has shape {tuple(u.shape)}; expected (batch, channels, "
            f"{', '.join(str(n) for n in context.grid.shape)}) on this grid"
        )
    if u.shape[0] != context.grid.batch:
        raise DataError(f"the field has {u.shape[0]} cases, the context's grid {context.grid.batch}")
    if not torch.compiler.is_compiling() and not torch.isfinite(u).all():
        case = int((~torch.isfinite(u)).flatten(1).any(1).nonzero()[0, 0])
        raise DataError(f"the field of case {case} holds NaN or infinite values: no constraint can be imposed on it")


def project_together(constraints: Sequence[Constraint], u: Tensor, context: Context) -> Tensor:
    r"""The orthogonal projection of ``u`` onto what all affine constraints allow.

    With the projections :math:`P_i`, a field obeys all of them where :math:`x = T(x)`, :math:`T = P_1 .. P_k .. P_1`.
    The linear part L of T is symmetric and positive, so that conjugate gradients solve :math:`(1 - L) x = T(0)`; from
    ``u`` they converge to the solution nearest to it. (Alternating projections, T over and over, find the same point
    more slowly: Bauschke, Borwein, SIAM Review 38 (1996) 367.) Where :math:`P_1 u` obeys the others it is the answer.
    The gradient is the projection of the gradient.

    Raises:
        SolverError: no convergence, because the constraints contradict one another in some case, or nearly.
    """
    # In single precision the last digits would be those of the iteration, not of the constraints.
    tolerance = 1e-9 if u.dtype != torch.float64 else 1e-14
    found = _Together.apply(u.double(), _Projections(constraints, context, u, tolerance), True)
    return found.to(u.dtype)


class _Projections:
    """The projections, and their linear parts, as functions of tensors in float64."""

    def __init__(self, constraints: Sequence[Constraint], context: Context, like: Tensor, tolerance: float) -> None:
        self.constraints, self.context, self.tolerance = constraints, context, tolerance
        self.names = " and ".join(constraint.name for constraint in constraints)
        zero = torch.zeros_like(like, dtype=torch.float64)
        with torch.no_grad():
            self.shifts = [constraint(zero, context) for constraint in constraints]

    def project(self, index: int, x: Tensor, affine: bool) -> Tensor:
        """One of them, or its linear part."""
        if affine:
            return self.constraints[index](x, self.context)
        # As large as the shift, which would otherwise swallow a small x in the rounding.
        shift = self.shifts[index]
        unit, length = _size(shift), _size(x)
        size = _column(torch.where(unit > 0, unit, 1.0) / torch.where(length > 0, length, 1.0), x)
        return (self.constraints[index](x * size, self.context) - shift) / size

    def around(self, x: Tensor, affine: bool) -> Tensor:
        """T, or its linear part."""
        last = len(self.constraints) - 1
        for index in [*range(last), *range(last, -1, -1)]:
            x = self.project(index, x, affine)
        return x

    def largest_move(self, x: Tensor, affine: bool, first: int = 0) -> tuple[Tensor, int]:
        """How far those from ``first`` on still move ``x``, a share of its size ``(B,)``, and which moves it most."""
        moves = [_size(self.project(index, x, affine) - x) for index in range(first, len(self.constraints))]
        shares = [move / (_size(x) + move).clamp(min=torch.finfo(x.dtype).tiny) for move in moves]
        worst = max(range(len(shares)), key=lambda index: float(shares[index].max()))
        return torch.stack(shares).amax(0), worst + first


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, projections: _Projections, affine: bool) -> Tensor:
        ctx.projections = projections
        x = projections.project(0, u, affine)
        if bool((projections.largest_move(x, affine, 1)[0] <= projections.tolerance).all()):
            return x
        x = _conjugate_gradients(u, projections, affine)
        share, which = projections.largest_move(x, affine)
        if affine and bool((share > APART).any()):
            case = int(share.argmax())
            raise SolverError(
                f"the constraints {projections.names} cannot hold together in case {case}: the field that comes "
                f"nearest is {float(share[case]):.2g} of its size away from {projections.constraints[which].name}. "
                "Impose one of them only, or mend the boundary values that contradict one another"
            )
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _Together.apply(gradient, ctx.projections, False), None, None


def _conjugate_gradients(u: Tensor, projections: _Projections, affine: bool) -> Tensor:
    """The solution nearest to ``u`` of ``x = T(x)``, or of ``x = L x`` if not ``affine``."""
    residual = projections.around(u, affine) - u
    x, direction, square = u, residual, _dot(residual, residual)
    scale = _dot(u, u) + sum(_dot(shift, shift) for shift in projections.shifts if affine)
    scale = torch.where(scale > 0, scale, 1.0)
    for _ in range(ITERATIONS):
        active = square > projections.tolerance**2 * scale
        if not bool(active.any()):
            return x
        image = direction - projections.around(direction, False)
        curvature = _dot(direction, image)
        step = torch.where(active & (curvature > 0), square / torch.where(curvature > 0, curvature, 1.0), 0.0)
        x = x + _column(step, u) * direction
        residual = residual - _column(step, u) * image
        before, square = square, torch.where(active, _dot(residual, residual), square)
        ratio = torch.where(active, square / torch.where(active, before, 1.0), 0.0)
        direction = residual + _column(ratio, u) * direction
    case = int((square / scale).argmax())
    raise SolverError(
        f"the constraints {projections.names} nearly contradict one another in case {case}: after {ITERATIONS} "
        f"iterations {float((square[case] / scale[case]).sqrt()):.2g} of the field is left over. Impose one of them"
    )


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _size(x: Tensor) -> Tensor:
    return _dot(x, x).sqrt()


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))

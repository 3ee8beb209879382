"""Solve a batch of non-linear least-squares problems, and differentiate the solution."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.constraints.least_squares.hessian import Stationary, SymmetricSolver, condition, curvature_ratio, polish
from sciml.constraints.least_squares.implicit import Adjoint, attach
from sciml.constraints.least_squares.loop import Outcome, column_scale, is_stationary, levenberg_marquardt
from sciml.constraints.least_squares.problem import Linearisation, Problem, in_float64
from sciml.constraints.least_squares.report import GaussNewtonWarning, LeastSquaresWarning, Options, Report, Status
from sciml.errors import ConfigError, SolverError, did_you_mean

GRADIENTS = ("full", "gauss-newton", "none")
ON_FAILURE = ("warn", "raise", "mask")
GAUSS_NEWTON_LIMIT = 0.01
"""The Gauss-Newton gradient warns where it may be wrong by more than this fraction."""


@dataclass(frozen=True, eq=False)
class Solution:
    """``weights``: in the shape of the start and the type of the terms, differentiable; ``report``: how it went."""

    weights: Tensor
    report: Report


def least_squares(
    problem: Problem,
    start: Tensor,
    *,
    options: Options | None = None,
    gradient: str = "full",
    on_failure: str = "warn",
) -> Solution:
    """Minimise the sum of squares of each problem of a batch by Levenberg-Marquardt, in float64.

    Args:
        problem: a ``PointwiseProblem`` or ``GenericProblem``.
        start: first weights, ``(P, K N)`` or ``(P, size)``; no gradient flows to it.
        options: tolerances and limits.
        gradient: how the weights depend on the problem's tensors in the backward pass. ``"full"``: with the full
            Hessian, exact at the stationary point to which the weights are polished. ``"gauss-newton"``: with J'J
            alone, right where the residual vanishes at the solution; warns (``GaussNewtonWarning``) where it may be
            wrong by more than 1 %. ``"none"``: no gradient and no polish; the weights are exact to the tolerances.
        on_failure: of items that do not converge or have no gradient. ``"warn"``: a ``LeastSquaresWarning`` with
            counts; ``"raise"``: a ``SolverError`` naming the first; ``"mask"``: nothing is said. In the first and last
            case the item keeps its best weights, its gradient is zero, and the report counts it.

    A basis that is rank-deficient is solved, the ridge deciding what the rows leave open, and reported as
    ``deficient``.
    The Hessian at a saddle point is inverted as it is; nothing is added to it in the backward pass only, which would
    bias the gradient.

    Raises ``ConfigError`` for an unknown option, or where a gradient is wanted and the residual uses a trainable tensor
    that is not among the problem's; ``DataError`` for wrong shapes; ``SolverError`` as above.
    """
    for name, value, known in (("gradient", gradient, GRADIENTS), ("on_failure", on_failure, ON_FAILURE)):
        if value not in known:
            raise ConfigError(f"{name} is {value!r}{did_you_mean(str(value), known)}")
    options = options or Options()
    wanted = gradient != "none" and torch.is_grad_enabled() and any(t.requires_grad for t in problem.parameters)
    # Derivatives of the residual are needed also inside inference_mode, where autograd records nothing.
    with torch.inference_mode(False):
        with torch.no_grad():
            w = in_float64(_recordable(problem.pack(_recordable(start.detach()))))
            data = problem.prepare(*(_recordable(tensor.detach()) for tensor in problem.parameters))
            if wanted:
                _refuse_hidden_tensors(problem, data, w)
            data = problem.prepare_solve(data)
            outcome = levenberg_marquardt(problem, data, w, options)
            adjoint = None
            if gradient == "none":
                local = problem.linearise(outcome.w, data)
                report = _report(problem, data, outcome, local)
            else:
                end = polish(problem, data, outcome.w, options.polish)
                outcome = Outcome(end.w, _status_after_polish(outcome.status, end, options), outcome.iterations)
                adjoint, zero = _adjoint(problem, outcome, end, gradient, options) if wanted else (None, None)
                report = _report(problem, data, outcome, end.local, end.newton_step, zero)
        speak(report, on_failure)
        w = outcome.w if adjoint is None else attach(outcome.w, adjoint, problem.parameters)
        dtype = problem.dtype or start.dtype
        return Solution(problem.unpack(w).to(dtype), report)


def _adjoint(
    problem: Problem, outcome: Outcome, end: Stationary, gradient: str, options: Options
) -> tuple[Adjoint, Tensor]:
    """How to differentiate, and which items get a zero gradient."""
    solver = end.solver
    good = (outcome.status <= int(Status.COST)) & (end.newton_step <= options.stationarity)
    if gradient == "gauss-newton":
        solver = SymmetricSolver.of(end.local.matrix, column_scale(end.local.matrix.diagonal()))
        _warn_of_curvature(curvature_ratio(solver, end.curvature), good)
    good = good & solver.nonsingular
    index = None if bool(good.all()) else torch.nonzero(good)[:, 0]
    solver = solver if index is None else solver.select(index)
    return Adjoint(problem, solver, index, gradient == "gauss-newton"), ~good


def _status_after_polish(status: Tensor, end: Stationary, options: Options) -> Tensor:
    """Newton steps may have finished what the iteration had not."""
    positive = end.solver.factor.ok & (end.newton_step <= options.step_tolerance)
    done = positive | is_stationary(end.local, end.w, end.local.matrix.diagonal(), options)
    unfinished = (status == int(Status.MAX_ITERATIONS)) | (status == int(Status.STALLED))
    return torch.where(unfinished & done, int(Status.GRADIENT), status)


def _report(
    problem: Problem,
    data: Any,
    outcome: Outcome,
    local: Linearisation,
    newton_step: Tensor | None = None,
    zero_gradient: Tensor | None = None,
) -> Report:
    estimate, deficient = condition(local.matrix, problem.ridge)
    squares = 2 * problem.cost(outcome.w, data) - problem.ridge * outcome.w.square().sum(1)
    shape = problem.item_shape(len(outcome.w))
    none = torch.zeros_like(deficient)
    return Report(
        status=outcome.status.reshape(shape),
        iterations=outcome.iterations.reshape(shape),
        cost=local.cost.reshape(shape),
        residual_norm=squares.clamp(min=0).sqrt().reshape(shape),
        gradient_norm=local.gradient.norm(dim=1).reshape(shape),
        newton_step=(torch.full_like(local.cost, torch.nan) if newton_step is None else newton_step).reshape(shape),
        condition=estimate.reshape(shape),
        deficient=deficient.reshape(shape),
        zero_gradient=(none if zero_gradient is None else zero_gradient).reshape(shape),
    )


def speak(report: Report, on_failure: str) -> None:
    """Warn of what the report says went wrong, or raise ``SolverError``, or (``"mask"``) say nothing."""
    trouble = "" if on_failure == "mask" else report.trouble()
    if not trouble:
        return
    advice = "Look at report.status and report.condition; more points, a larger ridge or another start may help."
    if on_failure == "raise":
        raise SolverError(f"{trouble[0].upper()}{trouble[1:]}. {advice}")
    warnings.warn(f"{trouble[0].upper()}{trouble[1:]}. {advice}", LeastSquaresWarning, stacklevel=3)


def _warn_of_curvature(ratio: Tensor, good: Tensor) -> None:
    ratio = torch.where(good, ratio, 0.0)
    wrong = int((ratio > GAUSS_NEWTON_LIMIT).sum())
    if wrong:
        warnings.warn(
            f"The Gauss-Newton gradient of {wrong} of {len(ratio)} least-squares problems is wrong: what it leaves out "
            f"is up to {float(ratio.max()):.2g} of what it keeps (the residual does not vanish at the solution). Use "
            'gradient="full".',
            GaussNewtonWarning,
            stacklevel=4,
        )


def _refuse_hidden_tensors(problem: Problem, data: Any, w: Tensor) -> None:
    first = torch.zeros(1, dtype=torch.int64, device=w.device)
    with torch.enable_grad():
        rows = problem.rows(w[first], problem.select(data, first))
    if rows.requires_grad:
        raise ConfigError(
            "The residual uses a tensor that requires a gradient and is not among the problem's: it would get none. "
            "Pass it as a coefficient (PointwiseProblem) or in theta (GenericProblem), or detach it."
        )


def _recordable(tensor: Tensor) -> Tensor:
    """Tensors made under inference_mode cannot take part in a graph; their copies can."""
    return tensor.clone() if tensor.is_inference() else tensor

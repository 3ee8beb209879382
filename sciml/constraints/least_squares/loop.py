"""Levenberg-Marquardt on a batch: each problem has its own damping, its own stop, and leaves when it is done.

The step solves (J'J + lambda D) s = -J'r with D the largest diagonal of J'J seen so far (Marquardt's scaling as in
More, Lecture Notes in Mathematics 630 (1978) 105, which makes the method independent of the units of the weights).
The damping follows Nielsen (IMM-REP-1999-05, Technical University of Denmark): by the ratio rho of the fall in cost to
the predicted one, lambda <- lambda max(1/3, 1 - (2 rho - 1)^3) after a step that is taken, lambda <- nu lambda, nu <- 2
nu after one that is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.constraints.least_squares.linear import BlockBanded
from sciml.constraints.least_squares.problem import Linearisation, Problem
from sciml.constraints.least_squares.report import Options, Status

ACCEPT = 1e-4
"""Least fraction of the predicted fall in cost for a step to be taken."""
ROUND_OFF = 1e-15
"""A gradient this small beside sqrt(D) |w|_D is rounding: residuals of order |w|_D cannot be known better."""
QR_UNKNOWNS = 256
"""QR of a dense Jacobian with more unknowns than this takes longer (0.5 s for 5000 x 1024) than the few refused steps
that raise the damping until Cholesky succeeds."""
RUNNING = -1


@dataclass(frozen=True, eq=False)
class Outcome:
    """``w (I, n)``, ``status (I,)``, ``iterations (I,)``."""

    w: Tensor
    status: Tensor
    iterations: Tensor


@dataclass(eq=False)
class _State:
    """The problems that are still in the batch. All ``(I',)`` but ``w``, ``scale (I', n)``."""

    index: Tensor
    w: Tensor
    scale: Tensor
    damping: Tensor
    growth: Tensor
    status: Tensor
    iterations: Tensor

    def select(self, keep: Tensor) -> _State:
        return _State(**{name: value[keep] for name, value in vars(self).items()})


def levenberg_marquardt(problem: Problem, data: Any, start: Tensor, options: Options) -> Outcome:
    """Minimise from ``start (I, n)``; ``data`` as ``problem.prepare_solve`` returns it. Never raises for a problem that
    cannot be solved: its status says so, and its weights are the best that were found."""
    items = start.shape[0]
    whole = torch.full((items,), RUNNING, device=start.device)
    result = Outcome(start.clone(), whole, torch.zeros_like(whole))
    ones = torch.ones(items, dtype=start.dtype, device=start.device)
    state = _State(
        torch.arange(items, device=start.device),
        start.clone(),
        torch.zeros_like(start),
        options.damping * ones,
        2 * ones,
        result.status.clone(),
        result.iterations.clone(),
    )
    every = options.check_every or (1 if start.device.type == "cpu" else 4)
    local = problem.linearise(state.w, data)
    _test_point(state, local, options)
    for iteration in range(options.max_iterations):
        if iteration % every == 0:
            running = state.status == RUNNING
            n_running = int(running.sum())
            if n_running == 0:
                break
            if 2 * n_running < len(running):
                _store(state, result)
                keep = torch.nonzero(running)[:, 0]
                state, data = state.select(keep), problem.select(data, keep)
                local = problem.linearise(state.w, data)
        if _advance(problem, data, state, local, options):
            local = problem.linearise(state.w, data)
            _test_point(state, local, options)
    state.status = torch.where(state.status == RUNNING, int(Status.MAX_ITERATIONS), state.status)
    _store(state, result)
    return result


def damped_step(local: Linearisation, scale: Tensor, damping: Tensor, wanted: Tensor) -> Tensor:
    """s with (J'J + damping diag(scale)) s = -J'r, ``(I, n)``: by Cholesky in scaled unknowns, and for those of the
    ``wanted`` items where that breaks down by QR of [J; sqrt(damping diag(scale))], which does not square the condition
    number. With more than ``QR_UNKNOWNS`` unknowns the step is what Cholesky gives: it may be NaN, to be refused.
    """
    root = scale.rsqrt()
    factor = local.matrix.scaled(root, damping[:, None]).cholesky()
    step = -root * factor.solve(root * local.gradient)
    broken = torch.nonzero(wanted & ~factor.definite())[:, 0]
    if step.shape[1] > QR_UNKNOWNS:
        return torch.where(factor.ok[:, None], step, torch.nan)
    if len(broken):
        step[broken] = _qr_step(local, root[broken], damping[broken], broken)
    return step


def column_scale(diagonal: Tensor) -> Tensor:
    """D from the diagonal of J'J; 1 for a column that is zero."""
    return torch.where(diagonal > 0, diagonal, 1.0)


def _qr_step(local: Linearisation, root: Tensor, damping: Tensor, index: Tensor) -> Tensor:
    jacobian, r = local.jacobian(index)
    finite = (torch.isfinite(jacobian).all((1, 2)) & torch.isfinite(r).all(1))[:, None]
    jacobian = torch.where(finite[..., None], jacobian, 0.0) * root[:, None]
    identity = torch.eye(root.shape[1], dtype=root.dtype, device=root.device)
    q, upper = torch.linalg.qr(torch.cat([jacobian, damping.sqrt()[:, None, None] * identity], 1))
    right = -(q[:, : r.shape[1]].mT @ torch.where(finite, r, 0.0)[..., None])
    return root * torch.linalg.solve_triangular(upper, right, upper=True)[..., 0]


def _advance(problem: Problem, data: Any, state: _State, local: Linearisation, options: Options) -> bool:
    """One step of all problems that are running; whether any was taken."""
    running = state.status == RUNNING
    state.scale = torch.maximum(state.scale, local.matrix.diagonal())
    scale, damping = column_scale(state.scale), state.damping
    step = damped_step(local, scale, damping, running)
    trial = state.w + step
    cost = problem.cost(trial, data)
    predicted = 0.5 * (step * (damping[:, None] * scale * step - local.gradient)).sum(1)
    ratio = (local.cost - cost) / predicted
    taken = running & torch.isfinite(cost) & (predicted > 0) & (ratio > ACCEPT)

    shrink = (1 - (2 * ratio - 1) ** 3).clamp(min=1 / 3)
    state.damping = torch.where(taken, damping * shrink, torch.where(running, damping * state.growth, damping))
    state.growth = torch.where(taken, 2.0, torch.where(running, 2 * state.growth, state.growth))
    state.iterations = state.iterations + running
    # Damping shortens the step by about 1 + lambda: the undamped one is what must be negligible.
    undamped = 1 + damping
    small_step = undamped * _norm(step, scale) <= options.step_tolerance * _norm(state.w, scale)
    negligible = options.cost_tolerance * local.cost
    small_fall = (undamped * predicted <= negligible) & ((local.cost - cost).abs() <= negligible)
    for met, status in (
        (state.damping > options.max_damping, Status.STALLED),
        (small_fall, Status.COST),
        (small_step, Status.STEP),
    ):
        state.status = torch.where(running & met, int(status), state.status)
    state.w = torch.where(taken[:, None], trial, state.w)
    return bool(taken.any())


def _test_point(state: _State, local: Linearisation, options: Options) -> None:
    """Stop where the gradient vanishes, or is not a number."""
    running = state.status == RUNNING
    finite = torch.isfinite(local.cost) & torch.isfinite(local.gradient).all(1) & _finite(local.matrix)
    zero = is_stationary(local, state.w, torch.maximum(state.scale, local.matrix.diagonal()), options)
    state.status = torch.where(running & finite & zero, int(Status.GRADIENT), state.status)
    state.status = torch.where(finite, state.status, int(Status.NONFINITE))


def is_stationary(local: Linearisation, w: Tensor, diagonal: Tensor, options: Options) -> Tensor:
    """Where max_i |g_i| / sqrt(D_i) is negligible beside |r|, or mere rounding."""
    scale = column_scale(diagonal)
    steepest = (local.gradient.abs() * scale.rsqrt()).amax(1)
    length = (2 * local.cost).sqrt()
    return steepest <= options.gradient_tolerance * length + ROUND_OFF * _norm(w, scale)


def _finite(matrix: BlockBanded) -> Tensor:
    return torch.isfinite(matrix.diagonal()).all(1)


def _norm(x: Tensor, scale: Tensor) -> Tensor:
    """sqrt(x' D x)."""
    return (scale * x.square()).sum(1).sqrt()


def _store(state: _State, result: Outcome) -> None:
    result.w[state.index] = state.w
    result.status[state.index] = state.status
    result.iterations[state.index] = state.iterations

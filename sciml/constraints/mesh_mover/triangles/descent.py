"""Limited-memory BFGS for a batch of problems at once, each with its own steps, preconditioned.

Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.4, with a preconditioner in place of the scaled identity
and a backtracking line search (Armijo) that takes infinite values for walls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 10
"""Pairs of steps and changes of the gradient that are kept."""

DECREASE, HALVINGS = 1e-4, 12
"""Share of the predicted decrease that a step must bring, and how often it is halved before a problem is given up."""


@dataclass
class Descent:
    """``x (B, n)`` with the ``values (B,)``, after ``iterations (B,)``; ``converged (B,)``: to the tolerance."""

    x: Tensor
    values: Tensor
    iterations: Tensor
    converged: Tensor


def descend(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    iterations: int,
    tolerance: float,
    longest: float,
) -> Descent:
    """Minimise ``function`` ``(B, n) -> (B,)`` from ``x (B, n)``, where it is finite.

    ``precondition``: the product with an approximate inverse of the second derivatives, ``(B, n) -> (B, n)``. A problem
    has converged when the decrease that a step promises (the gradient times the step) is below ``tolerance`` times the
    value; it stops too where no step along the line decreases it, which rounding brings about. ``longest``: largest
    change of an entry of x in one step.
    """
    x = x.detach()
    values, gradient = _with_gradient(function, x)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    going = torch.isfinite(values)
    converged, used = torch.zeros_like(going), torch.zeros_like(going, dtype=torch.int64)
    for _ in range(iterations):
        step = -_product(gradient, history, precondition)
        slope = (gradient * step).sum(1)
        converged |= going & (-slope <= tolerance * values.abs())
        going &= ~converged
        if not bool(going.any()):
            break
        length = torch.where(going, (longest / step.abs().amax(1)).clamp(max=1), 0.0)
        for _ in range(HALVINGS):
            new = x + length.unsqueeze(1) * step
            new_values, new_gradient = _with_gradient(function, new)
            worse = ~(new_values <= values + DECREASE * length * slope)  # a length of 0 is never worse
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        going &= ~worse
        new, new_gradient = _chosen(worse, x, new), _chosen(worse, gradient, new_gradient)
        new_values = torch.where(worse, values, new_values)
        used += going
        change, moved = new_gradient - gradient, new - x
        product = (change * moved).sum(1)
        useful = going & (product > 1e-10 * change.norm(dim=1) * moved.norm(dim=1))
        inverse = torch.where(useful, 1 / torch.where(useful, product, 1), 0.0)  # 0: a pair that changes nothing
        history = [*history[-MEMORY + 1 :], (moved, change, inverse)]
        x, values, gradient = new, new_values, new_gradient
    return Descent(x, values, used, converged)


def _with_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = function(x)
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return values.detach(), gradient


def _product(
    gradient: Tensor, history: list[tuple[Tensor, Tensor, Tensor]], precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """The two-loop recursion."""
    factors = []
    for step, change, inverse in reversed(history):
        factor = inverse * (step * gradient).sum(1)
        gradient = gradient - factor.unsqueeze(1) * change
        factors.append(factor)
    product = precondition(gradient)
    for (step, change, inverse), factor in zip(history, reversed(factors), strict=True):
        product = product + (factor - inverse * (change * product).sum(1)).unsqueeze(1) * step
    return product


def _chosen(first: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(first.unsqueeze(1), x, y)

"""Gradients through the solution of a least-squares problem, without differentiating the iteration.

At a stationary point g(w, theta) = grad_w f = 0, so dw = -H^-1 (dg/dtheta) dtheta with the full Hessian H = J'J + sum
r_i Hess(r_i), and for a loss L the backward pass is: y = H^-1 dL/dw, then dL/dtheta = -d/dtheta <y, g(w, theta)> with y
and w held fixed. The second is one reverse pass over the user's function, through plain differentiable operations.

Second derivatives: y is itself a function of (v, w, theta), H(w, theta) y = v, and differentiating that gives z = H^-1
dL/dy, -d/d(w, theta) <z, H(w, theta) y> in the same way, again to any order.

Inside ``backward`` the saved w carries the grad_fn of the Function itself. What is differentiated uses aliases
(``view_as``) of w and theta: derivatives with respect to these stop there, instead of walking back into the Function
without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from sciml.constraints.least_squares.hessian import SymmetricSolver
from sciml.constraints.least_squares.problem import Problem


@dataclass(frozen=True, eq=False)
class Adjoint:
    """How to differentiate: the problem, the solver of its Hessian for the items that have a gradient, their index
    (None: all), and whether the Gauss-Newton matrix stands in for the Hessian."""

    problem: Problem
    solver: SymmetricSolver
    index: Tensor | None
    gauss_newton: bool

    def choose(self, x: Tensor) -> Tensor:
        """The items that have a gradient."""
        return x if self.index is None else x[self.index]

    def slope(self, w: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """g = grad_w f, with a graph."""
        data = self._data(parameters)
        w = self.choose(w)
        return grad(self.problem.cost(w, data).sum(), w, create_graph=True)[0]

    def form(self, w: Tensor, parameters: Sequence[Tensor], z: Tensor, y: Tensor) -> Tensor:
        """sum over the items of <z, H y>, with a graph."""
        data = self._data(parameters)
        w = self.choose(w)
        if self.gauss_newton:
            rows = self.problem.rows(w, data)
            weight = torch.zeros_like(rows).requires_grad_()
            pulled = grad(rows, w, weight, create_graph=True)[0]  # J' weight, linear in weight: its derivative is J
            products = [grad(pulled, weight, x, create_graph=True)[0] for x in (z, y)]
            return (products[0] * products[1]).sum()
        slope = grad(self.problem.cost(w, data).sum(), w, create_graph=True)[0]
        return (grad(slope, w, y, create_graph=True)[0] * z).sum()

    def _data(self, parameters: Sequence[Tensor]):
        data = self.problem.prepare(*parameters)
        return data if self.index is None else self.problem.select(data, self.index)


def attach(w: Tensor, adjoint: Adjoint, parameters: Sequence[Tensor]) -> Tensor:
    """The weights ``w (I, n)`` with their derivatives in ``parameters``."""
    return _Implicit.apply(w, adjoint, *parameters)


class _Implicit(torch.autograd.Function):
    """The identity on w, whose backward pass is the implicit function theorem's."""

    @staticmethod
    def forward(ctx, w: Tensor, adjoint: Adjoint, *parameters: Tensor) -> Tensor:
        result = w.clone()
        ctx.adjoint = adjoint
        ctx.save_for_backward(result, *parameters)
        return result

    @staticmethod
    def backward(ctx, v: Tensor):
        w, *parameters = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        keep = torch.is_grad_enabled()
        y = _AdjointSolve.apply(ctx.adjoint.choose(v), ctx.adjoint, w, *parameters)
        with torch.enable_grad():
            (w,) = _aliases([w], [True], keep)
            parameters = _aliases(parameters, needs, keep)
            pairing = (ctx.adjoint.slope(w, parameters) * y).sum()
            gradients = _gradients(-pairing, parameters, needs, keep)
        return None, None, *gradients


class _AdjointSolve(torch.autograd.Function):
    """y = H(w, theta)^-1 v for the items that have a gradient."""

    @staticmethod
    def forward(ctx, v: Tensor, adjoint: Adjoint, w: Tensor, *parameters: Tensor) -> Tensor:
        y = adjoint.solver.solve(v)
        ctx.adjoint = adjoint
        ctx.save_for_backward(y, w, *parameters)
        return y

    @staticmethod
    def backward(ctx, v: Tensor):
        y, w, *parameters = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        keep = torch.is_grad_enabled()
        z = _AdjointSolve.apply(v, ctx.adjoint, w, *parameters)
        if not any(needs):
            return z, None, *(None for _ in needs)
        with torch.enable_grad():
            y = y.view_as(y) if keep else y.detach()
            inputs = _aliases([w, *parameters], [True, *needs[1:]], keep)
            form = ctx.adjoint.form(inputs[0], inputs[1:], z, y)
            gradients = _gradients(-form, inputs, needs, keep)
        return z, None, *gradients


def _aliases(tensors: Sequence[Tensor], needs: Sequence[bool], keep: bool) -> list[Tensor]:
    """Tensors to differentiate with respect to: connected to the originals if the graph is kept, else cut off."""
    if keep:
        return [
            t.view_as(t) if t.requires_grad else t.detach().requires_grad_(n)
            for t, n in zip(tensors, needs, strict=True)
        ]
    return [t.detach().requires_grad_(n) for t, n in zip(tensors, needs, strict=True)]


def _gradients(scalar: Tensor, tensors: Sequence[Tensor], needs: Sequence[bool], keep: bool) -> list[Tensor | None]:
    wanted = [t for t, need in zip(tensors, needs, strict=True) if need]
    if not wanted:
        return [None for _ in needs]
    found = iter(grad(scalar, wanted, create_graph=keep, materialize_grads=True))
    return [next(found) if need else None for need in needs]

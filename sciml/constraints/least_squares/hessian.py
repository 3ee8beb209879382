"""Solving with the Hessian at the solution: Newton polish, the adjoint's matrix, and how well it is conditioned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.constraints.least_squares.linear import BlockBanded, BlockCholesky
from sciml.constraints.least_squares.loop import column_scale
from sciml.constraints.least_squares.problem import Linearisation, Problem

ROUND_OFF_STEP = 1e-14
"""A Newton step that is this fraction of the weights is rounding."""
POWER_ITERATIONS = 8


@dataclass(frozen=True, eq=False)
class SymmetricSolver:
    """x -> A^-1 x in columns scaled to unit diagonal: by Cholesky, and by eigenvectors for the items ``index`` whose
    matrix is not positive definite to working precision. ``nonsingular (I,)`` says where the result can be used."""

    root: Tensor
    factor: BlockCholesky
    index: Tensor
    vectors: Tensor
    inverse: Tensor
    nonsingular: Tensor

    @staticmethod
    def of(matrix: BlockBanded, scale: Tensor) -> SymmetricSolver:
        """The solver of ``matrix``; ``scale (I, n)``: the diagonal that the unknowns are scaled by."""
        root = scale.rsqrt()
        scaled = matrix.scaled(root)
        factor = scaled.cholesky()
        n = scale.shape[1]
        tiny = 10 * n * torch.finfo(scale.dtype).eps
        index = torch.nonzero(~factor.definite())[:, 0]
        nonsingular = torch.ones(len(scale), dtype=torch.bool, device=scale.device)
        dense = scaled.select(index).dense() if len(index) else scale.new_zeros(0, n, n)
        finite = torch.isfinite(dense).all((1, 2))
        values, vectors = torch.linalg.eigh(torch.where(finite[:, None, None], dense, 0.0))
        size = values.abs()
        usable = size > tiny * size.amax(1, keepdim=True) if len(index) else size > 0
        nonsingular[index] = finite & usable.all(1)
        inverse = torch.where(usable, 1 / values, 0.0)
        return SymmetricSolver(root, factor, index, vectors, inverse, nonsingular)

    def solve(self, right: Tensor) -> Tensor:
        """A^-1 right, ``(I, n)``."""
        x = self.factor.solve(self.root * right)
        if len(self.index):
            part = self.vectors.mT @ (self.root * right)[self.index][..., None]
            x = x.index_copy(0, self.index, (self.vectors @ (self.inverse[..., None] * part))[..., 0])
        return self.root * x

    def select(self, index: Tensor) -> SymmetricSolver:
        """The solver of these items."""
        position = torch.full((len(self.root),), -1, device=index.device)
        position[self.index] = torch.arange(len(self.index), device=index.device)
        chosen = position[index]
        kept = chosen[chosen >= 0]
        return SymmetricSolver(
            self.root[index],
            self.factor.select(index),
            torch.nonzero(chosen >= 0)[:, 0],
            self.vectors[kept],
            self.inverse[kept],
            self.nonsingular[index],
        )


@dataclass(frozen=True, eq=False)
class Stationary:
    """Where the weights ended, with what the adjoint needs there.

    ``w (I, n)``; ``local``: the linearisation at w; ``curvature``: sum r_i Hess(r_i); ``solver``: of the full Hessian;
    ``newton_step (I,)``: the remaining Newton step beside the weights.
    """

    w: Tensor
    local: Linearisation
    curvature: BlockBanded
    solver: SymmetricSolver
    newton_step: Tensor


def polish(problem: Problem, data: Any, w: Tensor, steps: int) -> Stationary:
    """At most ``steps`` Newton steps with the full Hessian from ``w (I, n)``, of the items whose gradient they reduce.

    Levenberg-Marquardt stops where the cost no longer falls, which leaves an error of the square root of that in the
    weights; the adjoint formula holds at a stationary point only.
    """
    here, moves = _expand(problem, data, w, problem.linearise(w, data))
    for _ in range(steps):
        trial = here.w + moves
        local = problem.linearise(trial, data)
        better = (here.newton_step > ROUND_OFF_STEP) & here.solver.factor.ok & torch.isfinite(local.cost)
        better &= local.cost <= here.local.cost * (1 + 1e-9) + torch.finfo(w.dtype).tiny
        better &= _steepness(local) < _steepness(here.local)
        if not bool(better.any()):
            break
        w = torch.where(better[:, None], trial, here.w)
        here, moves = _expand(problem, data, w, local if bool(better.all()) else problem.linearise(w, data))
    return here


def condition(matrix: BlockBanded, ridge: float) -> tuple[Tensor, Tensor]:
    """Condition number of the column-scaled Jacobian from its J'J, and whether the ridge alone holds its weakest
    direction; both ``(I,)``. By power and inverse iteration: a lower bound, mostly within a few per cent."""
    scale = column_scale(matrix.diagonal())
    root = scale.rsqrt()
    scaled = matrix.scaled(root)
    factor = scaled.cholesky()
    strong = weak = _start_vector(scale)
    for _ in range(POWER_ITERATIONS):
        strong = torch.nn.functional.normalize(scaled.matmul(strong), dim=1)
        weak = torch.nn.functional.normalize(factor.solve(weak), dim=1)
    largest = (strong * scaled.matmul(strong)).sum(1)
    smallest = (weak * scaled.matmul(weak)).sum(1)
    regular = factor.ok & (smallest > torch.finfo(scale.dtype).eps * largest)
    held = ridge * (root * weak).square().sum(1) > 0.5 * smallest
    return torch.where(regular, (largest / smallest).sqrt(), torch.inf), held | ~regular


def curvature_ratio(gauss_newton: SymmetricSolver, curvature: BlockBanded) -> Tensor:
    """The largest |x' S x| / x' J'J x with S = sum r_i Hess(r_i), ``(I,)``: the relative error of a Gauss-Newton
    adjoint. By power iteration with (J'J)^-1 S, which is self-adjoint in the inner product of J'J."""
    x = _start_vector(gauss_newton.root)
    ratio = x.new_zeros(len(x))
    for _ in range(POWER_ITERATIONS):
        length = x.norm(dim=1, keepdim=True)
        x = gauss_newton.solve(curvature.matmul(x / torch.where(length > 0, length, 1.0)))
        ratio = x.norm(dim=1)
    return ratio


def _expand(problem: Problem, data: Any, w: Tensor, local: Linearisation) -> tuple[Stationary, Tensor]:
    """The Hessian at w and the Newton step from there."""
    curvature = problem.curvature(w, data)
    scale = column_scale(local.matrix.diagonal())
    solver = SymmetricSolver.of(local.matrix + curvature, scale)
    move = -solver.solve(local.gradient)
    size = (scale * w.square()).sum(1).sqrt() + (2 * local.cost).sqrt()
    length = (scale * move.square()).sum(1).sqrt()
    relative = torch.where(length > 0, length / size, length)
    return Stationary(w, local, curvature, solver, relative), move


def _steepness(local: Linearisation) -> Tensor:
    return (local.gradient.square() / column_scale(local.matrix.diagonal())).sum(1)


def _start_vector(like: Tensor) -> Tensor:
    """The same pseudo-random direction for all items, so that a result depends on nothing but its item."""
    phase = torch.arange(1, like.shape[1] + 1, dtype=like.dtype, device=like.device)
    return torch.nn.functional.normalize(torch.sin(phase * phase).expand_as(like), dim=1)

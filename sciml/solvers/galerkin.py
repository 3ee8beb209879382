"""Finite-element solutions of a scalar weak form on a box, by Newton's method with sparse direct solves.

The Jacobian of r(U), U the nodal values of a Q1 interpolant, couples a node to its 3^d neighbours only, so it is found
exactly from 3^d directional derivatives: those along the sums of the unit vectors of nodes three apart (Curtis, Powell
and Reid, J. Inst. Math. Appl. 13 (1974) 117). It needs no assembly by hand: any equation that can be differentiated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from sciml.errors import SolverError
from sciml.physics.weak import HatSpace

Residual = Callable[[Tensor], Tensor]
"""Nodal values ``(B, N)`` of a batch -> tested residual ``(B, J)``."""


def solve_galerkin(
    residual: Residual, space: HatSpace, start: Tensor, *, tolerance: float = 1e-10, max_iterations: int = 20
) -> Tensor:
    """Nodal values ``(B, N)`` float64 with ``residual`` zero, from ``start (B, N)``, whose values on Dirichlet sides
    stay.

    It ends when the dual norm of every residual is ``tolerance`` times that of the start with zeros inside (or of the
    start itself). Steps are halved while they do not lower the residual.

    Raises ``SolverError`` naming a case that does not converge in ``max_iterations``.
    """
    free, colours, pattern = _structure(space)
    values = start.double().clone()
    found = residual(values)
    size = space.dual_square(found).sqrt()
    goal = tolerance * size.clamp(min=torch.finfo(torch.float64).tiny)
    for _ in range(max_iterations):
        if bool((size <= goal).all()):
            return values
        slopes = [torch.func.jvp(residual, (values,), (seed.expand_as(values),))[1] for seed in colours]
        step = torch.zeros_like(values)
        step[:, free] = _newton_step(torch.stack(slopes), found, pattern)
        length = torch.ones_like(size)
        for _ in range(30):
            trial = values + length.unsqueeze(1) * step
            after = residual(trial)
            new = space.dual_square(after).sqrt()
            worse = ~(new < size) & (size > goal)
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        values, found, size = trial, after, new
    late = (~(size <= goal)).nonzero()
    if len(late):
        case = int(late[0, 0])
        raise SolverError(
            f"the finite-element solution of case {case} did not converge: after {max_iterations} Newton steps its "
            f"residual is {float(size[case]):.3g}, asked for was {float(goal[case]):.3g}; check that the equation has "
            "a solution, or start nearer to it"
        )
    return values


def _structure(space: HatSpace) -> tuple[Tensor, list[Tensor], list[tuple[np.ndarray, np.ndarray, int]]]:
    """Free nodes ``(J,)``, the seeds ``(1, N)``, and for each neighbour offset the rows, columns and colours."""
    shape = tuple(n + 1 for n in space.cells)
    place = np.indices(shape).reshape(len(shape), -1)
    colour = np.ravel_multi_index(tuple(place % 3), (3,) * len(shape))
    seeds = [torch.tensor(colour == c, dtype=torch.float64).unsqueeze(0) for c in range(3 ** len(shape))]
    free = space.free.cpu().numpy()
    unknown = np.full(place.shape[1], -1)
    unknown[free] = np.arange(len(free))
    pattern = []
    for offset in itertools.product((-1, 0, 1), repeat=len(shape)):
        near = place[:, free] + np.array(offset)[:, None]
        there = ((near >= 0) & (near < np.array(shape)[:, None])).all(0)
        node = np.ravel_multi_index(tuple(near[:, there]), shape)
        rows, columns = np.nonzero(there)[0], unknown[node]
        kept = columns >= 0
        pattern.append((rows[kept], columns[kept], colour[node[kept]]))
    return space.free, seeds, pattern


def _newton_step(slopes: Tensor, residual: Tensor, pattern: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Tensor:
    """-J^-1 r ``(B, J)`` of each case, from directional derivatives ``(colours, B, J)``."""
    rows, columns, colours = (np.concatenate(each) for each in zip(*pattern, strict=True))
    entries = slopes.detach().cpu().numpy()[colours, :, rows]  # (entries, B)
    count = residual.shape[1]
    steps = [
        spsolve(sparse.csc_matrix((entries[:, case], (rows, columns)), (count, count)), -found)
        for case, found in enumerate(residual.detach().cpu().numpy())
    ]
    return torch.as_tensor(np.stack(steps)).to(residual)

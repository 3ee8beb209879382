"""Inequalities ``H v >= 0`` on the mode of a Gaussian, by a dual active-set method."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError, did_you_mean

INEQUALITIES = ("nonnegative", "nonincreasing", "nondecreasing")


def inequality_rows(names: tuple[str, ...], n: int, *, device: torch.device) -> Tensor:
    """``H (rows, n)`` float64 of the named inequalities between neighbours in order along the n values."""
    for name in names:
        if name not in INEQUALITIES:
            raise ConfigError(f"Unknown inequality {name!r}{did_you_mean(str(name), INEQUALITIES)}")
    identity = torch.eye(n, dtype=torch.float64, device=device)
    if "nonincreasing" in names and "nondecreasing" in names:
        raise ConfigError("Values cannot be both 'nonincreasing' and 'nondecreasing' unless constant; choose one.")
    if "nonincreasing" in names or "nondecreasing" in names:
        falls = "nonincreasing" in names
        steps = identity[:-1] - identity[1:] if falls else identity[1:] - identity[:-1]
        if "nonnegative" in names:  # that of the lowest value suffices
            steps = torch.cat([steps, identity[-1:] if falls else identity[:1]])
        return steps
    return identity


def constrained_mode(mean: Tensor, covariance: Tensor, inequality: Tensor) -> Tensor:
    """v ``(..., n)`` that minimises ``(v - mean)^T covariance^+ (v - mean)`` with ``H v >= 0``, all in float64.

    ``covariance (..., n, n)`` may be singular: v - mean then stays in its range, so that linear equations which the
    mean satisfies exactly and the covariance knows of (``G covariance = 0``) still hold. With w = H v: w = q + M y,
    w >= 0, y >= 0, w y = 0, where q = H mean and M = H covariance H^T; v = mean + covariance H^T y. The set of
    inequalities that hold with equality comes from the dual active-set method of Goldfarb and Idnani (Math.
    Programming 27 (1983) 1), finite for a positive semidefinite M; v then follows from it by one linear solve, through
    which gradients flow. One case after the other, one dense solve per change of the set: for some hundred values.

    Raises ``SolverError`` naming the case if no v satisfies the inequalities.
    """
    cross = inequality @ covariance  # H C (..., k, n)
    matrix, q = cross @ inequality.T, torch.einsum("kn,...n->...k", inequality, mean)
    batch = torch.broadcast_shapes(matrix.shape[:-2], q.shape[:-1])
    k = q.shape[-1]
    flat_q = q.detach().expand(*batch, k).reshape(-1, k).cpu()  # many small steps with a decision after each
    flat_matrix = matrix.detach().expand(*batch, k, k).reshape(-1, k, k).cpu()
    active = torch.stack([_active_set(flat_matrix[i], flat_q[i], i) for i in range(len(flat_q))]).reshape(*batch, k)
    active = active.to(q.device)
    both = active.unsqueeze(-1) & active.unsqueeze(-2)
    held = torch.where(both, matrix, torch.eye(k, dtype=q.dtype, device=q.device))
    multipliers = torch.linalg.solve(held, torch.where(active, -q, 0.0))
    return mean + torch.einsum("...kn,...k->...n", cross, multipliers)


def _active_set(matrix: Tensor, q: Tensor, case: int) -> Tensor:
    """Which of the k inequalities hold with equality, ``(k,)`` bool, from M ``(k, k)`` and q ``(k,)``."""
    k = len(q)
    w, y = q.clone(), torch.zeros_like(q)
    active: list[int] = []
    scale = matrix.diagonal().clamp(min=0).sqrt()
    allowed = 1e-12 * (float(q.abs().max()) + float(scale.max()))
    for _ in range(20 * k + 20):
        p = int(w.argmin())
        if float(w[p]) >= -allowed:
            return torch.zeros(k, dtype=torch.bool, device=q.device).index_fill(
                0, torch.tensor(active, dtype=torch.int64, device=q.device), True
            )
        pushed = 0.0  # multiplier of p so far
        while True:
            others = torch.tensor(active, dtype=torch.int64, device=q.device)
            rates = torch.linalg.solve(matrix[others][:, others], matrix[others, p])
            direction = matrix[:, p] - matrix[:, others] @ rates  # dw / dy_p with the active w held at 0
            full = float(-w[p] / direction[p]) if float(direction[p]) > 1e-11 * float(scale[p]) ** 2 else torch.inf
            ratios = torch.where(rates > 0, y[others] / rates, torch.inf)
            partial = float(ratios.min()) if active else torch.inf
            step = min(full, partial)
            if step == torch.inf:
                raise SolverError(
                    f"No values of case {case} satisfy the inequalities together with the linear constraints "
                    f"(inequality {p} is missed by {-float(w[p]):.2e}). Check the targets: those of values and "
                    "weights that are not negative must not be so either."
                )
            w = w + step * direction
            y[others] = y[others] - step * rates
            pushed += step
            if full <= partial:
                active.append(p)
                y[p] = pushed
                w[torch.tensor(active, device=q.device)] = 0.0
                break
            released = active.pop(int(ratios.argmin()))
            y[released] = 0.0
    raise SolverError(f"The active-set method did not settle in {20 * k + 20} changes for case {case}.")

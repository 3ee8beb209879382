"""Learning to move meshes, on the Monge-Ampère equation alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from sciml.constraints.mesh_mover import Box, corner_jacobians
from sciml.errors import ConfigError, SolverError
from sciml.operators.mesh_mover.mover import Imbalance, MeshMover, imbalance
from sciml.operators.mesh_mover.random_monitors import random_box, random_monitors
from sciml.progress import Progress

Draw = Callable[[torch.Generator], tuple[Tensor, Box]]
"""Monitors ``(B, *n)`` to learn from, and their box."""

EARLY = 0.1
"""Weight of the meshes between stages: they are means to an end, but the first stages learn sooner by it."""
LEAST, BARRIER = 0.1, 10.0
"""Corner Jacobians below this share of the uniform one cost the square of what is missing, times the barrier."""


def mover_loss(mover: MeshMover, monitor: Tensor, box: Box) -> Tensor:
    """Mean over cells and samples of r^2 (see ``MeshMover``), of the mesh and, with less weight, of those before it.

    Args:
        monitor: ``(B, *n)`` on any grid of the box.
    """
    unit = mover.unit_box(box)
    monitor = mover.resampled(monitor, unit)
    seen: list[Imbalance] = []
    source = mover.sources(monitor, unit, seen.append)
    basis = mover.series(unit, monitor)
    corners = basis.corners(basis.coefficients(source))
    residual, _, _ = imbalance(corners, monitor.log(), unit)
    # The first mesh is the uniform one: nothing is to be learned from it.
    early = sum((_cost(each, unit) for each in seen[1:]), torch.zeros(()))
    return _cost(Imbalance(residual, corners), unit) + EARLY * early


def _cost(found: Imbalance, box: Box) -> Tensor:
    uniform = math.prod(box.spacing([n - 1 for n in found.corners.shape[1:-1]]))
    missing = functional.relu(LEAST - corner_jacobians(found.corners) / uniform)
    return found.residual.square().mean() + BARRIER * missing.square().mean()


def fit_mesh_mover(
    mover: MeshMover,
    *,
    draw: Draw | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    batch_size: int = 8,
    learning_rate: float = 3e-3,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[float]:
    """Train a mover; the loss of every step.

    Args:
        draw: what is learned from; default: monitors of random bumps, fronts, rings and plateaus in random boxes. Of
            your own fields: ``lambda generator: (curvature_monitor(fields[chosen], box), box)``.
        minutes, steps: the budget, one of them; the learning rate anneals to zero over it.
        batch_size: of the default ``draw``.

    Raises:
        ConfigError: no budget, or both.
        SolverError: the loss is not finite.
    """
    if (minutes is None) == (steps is None):
        raise ConfigError("fit_mesh_mover: give minutes or steps, one of them")
    generator = torch.Generator().manual_seed(seed)
    device = next(mover.parameters()).device
    draw = draw or default_draw(mover, batch_size)
    optimizer = torch.optim.AdamW(mover.parameters(), lr=learning_rate, weight_decay=1e-4)
    losses: list[float] = []
    started = time.perf_counter()
    progress, told = progress or Progress(), 0.0
    with progress.phase("training the mesh mover", 1.0):
        while True:
            share = len(losses) / steps if steps is not None else (time.perf_counter() - started) / (60 * minutes)
            progress.advance(min(share, 1.0) - told, f"loss {losses[-1]:.4f}" if losses else "")
            told = min(share, 1.0)
            if share >= 1:
                return losses
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(1, share / 0.03 + 0.01) * 0.5 * (1 + math.cos(math.pi * share))
            monitor, box = draw(generator)
            loss = mover_loss(mover, monitor.to(device), box)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise SolverError(
                    f"the loss of the mesh mover is {losses[-1]} in step {len(losses)}: lower learning_rate (now "
                    f"{learning_rate}), or look for monitors of extreme range (a smaller share, more smoothing)"
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(mover.parameters(), 1.0)
            optimizer.step()


def default_draw(mover: MeshMover, batch_size: int) -> Draw:
    """Random monitors of random fields in a random box."""

    def draw(generator: torch.Generator) -> tuple[Tensor, Box]:
        box = random_box(mover.dim, generator)
        return random_monitors(batch_size, mover.grid(box), box, generator), box

    return draw

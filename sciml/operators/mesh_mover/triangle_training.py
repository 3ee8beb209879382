"""Training of triangle movers: by Huang's functional of the meshes that they make, nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles import Triangulation
from sciml.errors import ConfigError, SolverError
from sciml.operators.mesh_mover.random_shapes import random_shapes
from sciml.operators.mesh_mover.triangle_mover import TriangleMover

Draw = Callable[[int, torch.Generator], Tensor]
"""(count, generator) -> fields ``(count, C, N)`` at the nodes of the fixed mesh."""

WARM_UP = 0.05
"""Share of the training in which the learning rate rises."""

LARGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class TriangleFit:
    """What a training did: ``losses``, one a step, the mean functional of a batch (about 1 is uniform)."""

    losses: list[float]
    seconds: float


def triangle_mover_loss(mover: TriangleMover, fields: Tensor, triangulation: Triangulation) -> Tensor:
    """Mean of Huang's functional over the meshes of ``fields (B, C, N)``, a scalar."""
    moved = mover(fields, triangulation)
    return mover.functional(moved.points, triangulation, moved.monitor).mean()


def shapes_at_nodes(triangulation: Triangulation, *, finest: float = 0.03) -> Draw:
    """Draws of ``random_shapes`` over the box around the triangulation, float32."""
    low, high = triangulation.points.aminmax(dim=0)

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return random_shapes(count, low, high, generator, finest=finest)(triangulation.points.unsqueeze(0)).float()

    return draw


def fit_triangle_mover(
    mover: TriangleMover,
    draw: Draw,
    triangulation: Triangulation,
    *,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 4,
    rate: float = 3e-3,
) -> TriangleFit:
    """Train ``mover`` in place on new fields of ``draw`` in every step: AdamW, warm-up and cosine, clipped gradients.

    Either ``minutes`` of wall-clock time or a number of ``steps`` (which repeats to the last bit on one machine). The
    fields of step k depend on ``seed`` and k alone. Raises ``ConfigError`` for none or both of them, or if they are not
    positive; ``SolverError`` where the loss is not finite.
    """
    if (minutes is None) == (steps is None) or not (minutes or 0) + (steps or 0) > 0 or batch_size < 1 or rate <= 0:
        raise ConfigError(
            f"minutes is {minutes}, steps {steps}, batch_size {batch_size} and rate {rate}; expected either minutes or "
            "steps, and all above 0"
        )
    optimiser = torch.optim.AdamW(mover.parameters(), lr=rate, weight_decay=1e-4)
    place = next(mover.parameters())
    begun = time.monotonic()
    losses: list[float] = []
    while True:
        spent = len(losses) / steps if steps is not None else (time.monotonic() - begun) / (60 * minutes)
        if spent >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (spent + 1e-3) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * spent))
        generator = torch.Generator().manual_seed(1_000_003 * seed + len(losses))
        loss = triangle_mover_loss(mover, draw(batch_size, generator).to(place), triangulation)
        if not bool(torch.isfinite(loss)):
            raise SolverError(
                f"the functional of step {len(losses)} is {loss.item()}; lower the rate (now {rate}), or look for "
                "fields of draw that are not finite"
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mover.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        losses.append(loss.item())
    return TriangleFit(losses, time.monotonic() - begun)

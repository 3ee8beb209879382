"""Random fields to train movers on: sums of bumps, fronts and rings, known at any point."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def random_shapes(
    count: int, low: Tensor, high: Tensor, generator: torch.Generator, *, finest: float = 0.03
) -> Callable[[Tensor], Tensor]:
    """``count`` functions of the plane: points ``(B, P, 2)`` -> values ``(count, 1, P)``, B = ``count`` or 1.

    Each is the sum of one to three shapes of random sizes, places and signs in the box from ``low (2,)`` to ``high
    (2,)``: Gaussian bumps, tanh fronts along sine curves, and rings. The widths are drawn (in their logarithm) from
    ``finest`` to four times that, over the shorter side of the box. Float64.
    """
    low, high = low.double().cpu(), high.double().cpu()
    side = float((high - low).min())

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64, generator=generator)

    shapes = 3
    kind = torch.randint(3, (count, shapes, 1), generator=generator)
    centre = low + (high - low) * uniform(count, shapes, 1, 2)
    width = side * finest * 4 ** uniform(count, shapes, 1)
    angle, phase = 2 * math.pi * uniform(2, count, shapes, 1)
    radius = side * (0.1 + 0.25 * uniform(count, shapes, 1))
    sway = side * 0.15 * uniform(count, shapes, 1)
    number = torch.randint(1, shapes + 1, (count, 1, 1), generator=generator)
    height = (0.4 + 0.6 * uniform(count, shapes, 1)) * (1 - 2 * (uniform(count, shapes, 1) < 0.5).double())
    height = height * (torch.arange(shapes).unsqueeze(-1) < number)

    def values(points: Tensor) -> Tensor:
        away = points.double().cpu().unsqueeze(1) - centre  # (count, shapes, P, 2)
        distance = away.norm(dim=-1)
        bump = (-0.5 * (distance / (2 * width)).square()).exp()
        across = away[..., 0] * angle.cos() + away[..., 1] * angle.sin()
        along = away[..., 1] * angle.cos() - away[..., 0] * angle.sin()
        front = ((across + sway * (2 * math.pi * along / side + phase).sin()) / width).tanh()
        ring = (-((distance - radius) / width).square()).exp()
        found = torch.where(kind == 0, bump, torch.where(kind == 1, front, ring))
        return (height * found).sum(1, keepdim=True).to(points)

    return values

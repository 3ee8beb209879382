"""Wendland's compactly supported radial function of smoothness C4.

    v(r) = (1 - r)^(l + 2) ((l^2 + 4 l + 3) r^2 + (3 l + 6) r + 3) / 3  for r < 1, else 0,    l = floor(d / 2) + 3

in d dimensions (Wendland, Adv. Comput. Math. 4 (1995) 389, phi_{d,2} scaled to v(0) = 1), and its derivative

    v'(r) / r = -(l + 3) (l + 4) / 3 (1 - r)^(l + 1) (1 + (l + 1) r),

so the gradient is smooth at the centre.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wendland(offset: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """v(|offset| / radius) ``(...)`` and its gradient ``(..., d)`` in 1/length at ``offset (..., d)`` from the
    centre."""
    scaled = offset / radius
    level = offset.shape[-1] // 2 + 3
    r = torch.linalg.vector_norm(scaled, dim=-1)
    inside = (1 - r).clamp(min=0)
    power = inside ** (level + 1)
    value = power * inside * ((level**2 + 4 * level + 3) * r**2 + (3 * level + 6) * r + 3) / 3
    slope = -(level + 3) * (level + 4) / (3 * radius) * power * (1 + (level + 1) * r)
    return value, slope.unsqueeze(-1) * scaled

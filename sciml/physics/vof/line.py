"""Area under a straight line in a rectangle and the inverse, in closed form.

Water lies where ``m . x < constant``, with ``m = (m_x, m_y)`` pointing out of the water and the lower left corner of
the rectangle as the origin. Scardovelli and Zaleski, J. Comput. Phys. 164 (2000) 228, in two dimensions: mirrored so
that both components are non-negative, in coordinates of the unit square and scaled to ``m_1 + m_2 = 1``,
``m_1 <= m_2``, the area is

    V = constant^2 / (2 m_1 m_2)          constant <= m_1
    V = (constant - m_1 / 2) / m_2        m_1 <= constant <= 1 / 2
    V(constant) = 1 - V(1 - constant)     above.

No difference of nearly equal numbers occurs, so the two functions invert one another to round-off. Both components
come stacked, ``(2, ...)``; the other shapes broadcast against ``...``. Not meant to be differentiated.
"""

from __future__ import annotations

import torch
from torch import Tensor


def line_constant(normal: Tensor, fraction: Tensor) -> Tensor:
    """The constant for which the line cuts ``fraction`` (in [0, 1]) off the unit square.

    ``normal``: ``m (2, ...)`` of any scale. For a cell of size ``h`` and the normal ``n`` in physical units,
    ``m = (n_x h_x, n_y h_y)``. A zero normal has no line; its constant is the fraction, and ``area_below`` then gives
    that fraction of any box.
    """
    low, smaller, scale = _mirrored(normal)
    larger = 1 - smaller
    part = torch.minimum(fraction, 1 - fraction).clamp_(min=0)
    linear = torch.addcmul(0.5 * smaller, larger, part)
    constant = torch.where(linear < smaller, (2 * smaller * larger * part).sqrt_(), linear)
    return torch.addcmul(low, scale, torch.where(fraction > 0.5, 1 - constant, constant))


def area_below(normal: Tensor, constant: Tensor, box: Tensor | None = None) -> Tensor:
    """Area of ``{0 <= x <= box_x, 0 <= y <= box_y, m . x <= constant}``.

    ``normal``: ``m (2, ...)``; ``box (2, ...)``: sides, which may be 0; None: the unit square.
    """
    low, smaller, scale = _mirrored(normal if box is None else normal * box)
    larger = 1 - smaller
    constant = ((constant - low) / scale).clamp_(0, 1)
    part = torch.minimum(constant, 1 - constant)
    # the quadratic branch is not taken where ``smaller`` is 0
    quadratic = part * part / (2 * smaller * larger).clamp_(min=1e-37)
    area = torch.where(part < smaller, quadratic, (part - 0.5 * smaller) / larger)
    area = torch.where(constant > 0.5, 1 - area, area)
    return area if box is None else area * (box[0] * box[1])


def _mirrored(normal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the mirroring takes off the constant, the smaller component of the normal scaled to the sum 1, the scale."""
    size, low = normal.abs(), normal.clamp(max=0)
    scale = size[0] + size[1]
    scale.masked_fill_(scale == 0, 1.0)
    return low[0] + low[1], torch.minimum(size[0], size[1]) / scale, scale

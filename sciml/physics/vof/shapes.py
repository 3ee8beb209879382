"""Exact fractions of simple shapes of water on a uniform grid of the box ``[0, L_x] x [0, L_y]``.

All return ``(B, nx, ny)`` float64 in [0, 1], exactly 0 and 1 in cells wholly outside and inside. Lengths and places
are in any one unit; a ``(2,)`` tensor or a number serves every case. Shapes that share no cell can be added.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics.vof.line import area_below


def half_plane(lengths: Tensor, shape: tuple[int, int], normal: Tensor, offset: Tensor | float) -> Tensor:
    """Water where ``normal . x < offset``. ``lengths, normal (B, 2)``, ``offset (B,)``.

    Raises ``ConfigError`` for a zero normal or wrong shapes.
    """
    lengths, (normal, offset) = _operands(lengths, {"normal": (normal, 2), "offset": (offset, None)})
    if not bool((normal != 0).any(1).all()):
        raise ConfigError(f"normal must not be zero, got {normal.tolist()}.")
    spacing = lengths / torch.tensor(shape, dtype=torch.float64, device=lengths.device)
    x, y = (edges[:, :-1] for edges in _edges(lengths, shape))
    reach = offset[:, None, None] - normal[:, 0, None, None] * x[:, :, None] - normal[:, 1, None, None] * y[:, None]
    return area_below((normal * spacing).T[:, :, None, None], reach)


def rectangle(lengths: Tensor, shape: tuple[int, int], low: Tensor, high: Tensor) -> Tensor:
    """Water between the corners ``low`` and ``high``, all ``(B, 2)``; may reach beyond the box.

    Raises ``ConfigError`` where ``high`` is below ``low`` or for wrong shapes.
    """
    lengths, (low, high) = _operands(lengths, {"low": (low, 2), "high": (high, 2)})
    if bool((high < low).any()):
        raise ConfigError(f"high must not be below low; got low {low.tolist()}, high {high.tolist()}.")
    covered = []
    for axis, edges in enumerate(_edges(lengths, shape)):
        inside = torch.minimum(edges[:, 1:], high[:, axis, None]) - torch.maximum(edges[:, :-1], low[:, axis, None])
        covered.append((inside / (edges[:, 1:] - edges[:, :-1])).clamp(0, 1))
    return covered[0][:, :, None] * covered[1][:, None]


def disc(lengths: Tensor, shape: tuple[int, int], centre: Tensor, radius: Tensor | float) -> Tensor:
    """Water in a disc. ``lengths, centre (B, 2)``, ``radius (B,)``; may reach beyond the box.

    Second difference over the corners of a cell of the area of the disc below and left of a point.
    Raises ``ConfigError`` for a radius that is not positive or wrong shapes.
    """
    lengths, (centre, radius) = _operands(lengths, {"centre": (centre, 2), "radius": (radius, None)})
    if not bool((radius > 0).all()):
        raise ConfigError(f"radius must be positive, got {radius.tolist()}.")
    x, y = ((edges - centre[:, axis, None]) / radius[:, None] for axis, edges in enumerate(_edges(lengths, shape)))
    cell = (x[:, 1:] - x[:, :-1])[:, :, None] * (y[:, 1:] - y[:, :-1])[:, None]
    fraction = (_disc_area(x[:, :, None], y[:, None]).diff(dim=1).diff(dim=2) / cell).clamp(0, 1)
    # the difference is exact to some 1e-16 / cell area only: cells that the circle does not cross are known exactly
    nearest = [torch.maximum(torch.maximum(e[:, :-1], -e[:, 1:]), e.new_zeros(())) for e in (x, y)]
    farthest = [torch.maximum(e[:, :-1].abs(), e[:, 1:].abs()) for e in (x, y)]
    fraction[_square_distance(nearest) >= 1] = 0
    fraction[_square_distance(farthest) <= 1] = 1
    return fraction


def _disc_area(a: Tensor, b: Tensor) -> Tensor:
    """Area of the unit disc in ``x < a, y < b``: the integral over x of the part of each chord below b."""
    a, b = a.clamp(-1, 1), b.clamp(-1, 1)
    half_width = (1 - b * b).sqrt()  # of the chord at height b
    middle = torch.minimum(torch.maximum(a, -half_width), half_width)
    half_discs = _segment(middle) + _segment(half_width)
    reach = b * (middle + half_width)
    return torch.where(b < 0, half_discs + reach, 2 * (_segment(a) + 0.25 * torch.pi) - half_discs + reach)


def _segment(x: Tensor) -> Tensor:
    """The integral of sqrt(1 - x^2) from 0."""
    return 0.5 * (x * (1 - x * x).sqrt() + x.asin())


def _square_distance(along: list[Tensor]) -> Tensor:
    return along[0].square()[:, :, None] + along[1].square()[:, None]


def _edges(lengths: Tensor, shape: tuple[int, int]) -> list[Tensor]:
    """The cell faces of both axes, ``(B, nx + 1)`` and ``(B, ny + 1)``."""
    return [
        torch.arange(n + 1, dtype=torch.float64, device=lengths.device) * (lengths[:, axis, None] / n)
        for axis, n in enumerate(shape)
    ]


def _operands(
    lengths: Tensor, given: dict[str, tuple[Tensor | float, int | None]]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """``lengths`` and what else is given as float64 with one row per case."""
    lengths = lengths.to(torch.float64)
    if lengths.ndim != 2 or lengths.shape[1] != 2 or not bool((lengths > 0).all()):
        raise ConfigError(f"lengths must be (B, 2) and positive; got {lengths.tolist()}.")
    result = []
    for name, (values, components) in given.items():
        values = torch.as_tensor(values, dtype=torch.float64, device=lengths.device)
        shape = (len(lengths),) if components is None else (len(lengths), components)
        try:
            result.append(values.expand(shape))
        except RuntimeError as error:
            raise ConfigError(f"{name} must be {shape}, got {tuple(values.shape)}.") from error
    return lengths, tuple(result)

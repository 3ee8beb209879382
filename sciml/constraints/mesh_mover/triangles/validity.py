"""Scaling a displacement back until no triangle is folded."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.fans import fan_excess
from sciml.constraints.mesh_mover.triangles.quality import signed_areas
from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.errors import ConfigError, DataError

TOLERANCE = 1e-3
"""To which the scale is found."""

WIDEST = 0.95
"""``fan_excess`` up to which neighbours on a circle may be apart; at 1 the functional is infinite."""


def unfolded_triangles(points: Tensor, triangulation: Triangulation, least: float = 0.05) -> tuple[Tensor, Tensor]:
    """Nodes ``(B, N, 2)`` scaled back towards the fixed mesh until no triangle is folded, and the scale ``(B,)``.

    The displacement times the largest s in [0, 1], to 1e-3 and by bisection, sample by sample, for which every triangle
    keeps more than ``least`` of its area in the fixed mesh, and neighbours on a circle stay near each other
    (``fan_excess``). Nodes on circles stay on them. Where s = 1, ``points`` come back bit for bit. Differentiable in
    ``points``, s as a constant.

    Raises ``ConfigError`` unless 0 <= least < 1, ``DataError`` for nodes of a wrong shape or not finite.
    """
    if not 0 <= least < 1:
        raise ConfigError(f"least is {least}; expected 0 <= least < 1, a share of the areas of the fixed mesh")
    triangulation.check_nodes(points, "the nodes")
    if not bool(torch.isfinite(points).all()):
        raise DataError("the moved nodes have coordinates that are not finite; nothing can be scaled back")
    displacement = triangulation.displacement(points)
    with torch.no_grad():
        scale = _largest_scale(points, displacement, triangulation, least)
    scaled = triangulation.move(scale[:, None, None] * displacement)
    return torch.where((scale == 1)[:, None, None], points, scaled), scale


def _largest_scale(points: Tensor, displacement: Tensor, triangulation: Triangulation, least: float) -> Tensor:
    high = points.new_ones(len(points))
    valid = _valid(points, triangulation, least)
    if bool(valid.all()):
        return high
    low = torch.where(valid, high, torch.zeros_like(high))
    while float((high - low).max()) > TOLERANCE:
        middle = (low + high) / 2
        moved = triangulation.move(middle[:, None, None] * displacement)
        valid = _valid(moved, triangulation, least)
        low, high = torch.where(valid, middle, low), torch.where(valid, high, middle)
    return low


def _valid(points: Tensor, triangulation: Triangulation, least: float) -> Tensor:
    areas = signed_areas(points, triangulation) > least * triangulation.tables(points).areas
    return areas.all(1) & (fan_excess(points, triangulation) < WIDEST).all(1)

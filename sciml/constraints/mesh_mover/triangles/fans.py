"""Triangles from the centre of a circle to neighbours on it: what keeps the polygon of the nodes close to the circle.

The domain is bounded by chords. No triangle folds when two neighbours slide apart until their chord cuts through a
hole, and the triangles outside gain room by it; so the angles between neighbours are limited.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.quality import determinant
from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation

FARTHEST = 4.0
"""How far neighbours on a circle may move apart, as a multiple of their angle in the fixed mesh."""


def fan_matrices(points: Tensor, triangulation: Triangulation) -> Tensor:
    """``(B, F, 2, 2)``, columns from the centre of the circle to the two nodes of each fan."""
    tables = triangulation.tables(points)
    return (points[:, tables.fans] - tables.fan_centres.unsqueeze(1)).mT


def fan_excess(points: Tensor, triangulation: Triangulation) -> Tensor:
    """How far each fan ``(B, F)`` is open beyond its angle in the fixed mesh: 0 up to there, 1 at the limit.

    The limit is ``FARTHEST`` times the angle of the fixed mesh, or half-way from that to a straight angle, if that is
    less. Infinite where the nodes have changed places.
    """
    before = _angles(fan_matrices(triangulation.tables(points).points.unsqueeze(0), triangulation))
    after = _angles(fan_matrices(points, triangulation))
    farthest = torch.minimum(FARTHEST * before, (before + torch.pi) / 2)
    excess = ((after - before) / (farthest - before)).clamp(min=0)
    return torch.where(after > 0, excess, torch.inf)


def _angles(matrices: Tensor) -> Tensor:
    first, second = matrices.unbind(-1)
    return torch.atan2(determinant(matrices), (first * second).sum(-1))

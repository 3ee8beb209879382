"""Is a moved triangulation valid, and how good is it: signed areas, folds, shapes, equidistribution."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation


def signed_areas(points: Tensor, triangulation: Triangulation) -> Tensor:
    """Areas ``(B, T)`` of the triangles of the nodes ``points (B, N, 2)``, negative where a triangle is turned over."""
    return 0.5 * determinant(edge_matrices(points, triangulation))


def folded_triangles(points: Tensor, triangulation: Triangulation) -> Tensor:
    """Numbers ``(B,)`` of the triangles without positive area.

    None means that the moved mesh covers the domain once, as the fixed one does: the map that is linear on each
    triangle keeps the boundary and its orientation, so it is one-to-one.
    """
    return (signed_areas(points, triangulation) <= 0).sum(-1)


def height_ratios(points: Tensor, triangulation: Triangulation) -> Tensor:
    """Least height over longest edge of each triangle ``(B, T)``, 1 for equilateral ones; signed as the area."""
    corners = points[:, triangulation.tables(points).triangles]
    longest = (corners - corners.roll(-1, -2)).square().sum(-1).amax(-1)
    return (4 / 3**0.5) * signed_areas(points, triangulation) / longest.clamp(min=torch.finfo(points.dtype).tiny)


def mass_spread(points: Tensor, triangulation: Triangulation, density: Tensor) -> Tensor:
    """Standard deviation over mean ``(B,)`` of the masses area x ``density (B, T)`` of the triangles."""
    masses = signed_areas(points, triangulation) * density
    return masses.std(-1, correction=0) / masses.mean(-1)


def edge_matrices(points: Tensor, triangulation: Triangulation) -> Tensor:
    """``(B, T, 2, 2)``, columns b - a and c - a of each triangle a, b, c."""
    a, b, c = points[:, triangulation.tables(points).triangles].unbind(2)
    return torch.stack([b - a, c - a], -1)


def determinant(matrices: Tensor) -> Tensor:
    """Of ``(*, 2, 2)``: two products, many times faster than the general factorisation of a batch."""
    return matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]

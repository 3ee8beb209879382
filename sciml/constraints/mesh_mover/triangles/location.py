"""In which triangle of a (moved) triangulation a point lies: a walk from neighbour to neighbour, batched.

Devillers, Pion, Teillaud, Walking in a triangulation, Int. J. Found. Comput. Sci. 13 (2002) 181. A walk that ends at
the boundary (of a hole, say) or takes too long is taken up by the triangles of the nearest centroids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.quality import determinant
from sciml.constraints.mesh_mover.triangles.triangulation import Tables, Triangulation

STEPS = 64
"""Triangles that a walk visits before it is given up."""

NEAREST = 32
"""Centroids among whose triangles the best is taken where a walk did not arrive."""


def barycentric(corners: Tensor, targets: Tensor) -> Tensor:
    """Barycentric coordinates ``(*, 3)`` of ``targets (*, 2)`` in the triangles ``corners (*, 3, 2)``."""
    a, b, c = corners.unbind(-2)
    edges = torch.stack([b - a, c - a], -1)
    area = determinant(edges)
    away = targets - a
    second = determinant(torch.stack([away, edges[..., 1]], -1)) / area
    third = determinant(torch.stack([edges[..., 0], away], -1)) / area
    return torch.stack([1 - second - third, second, third], -1)


@torch.no_grad()
def find_triangles(
    triangulation: Triangulation, points: Tensor, targets: Tensor, start: Tensor | None = None
) -> Tensor:
    """Numbers ``(B, P)`` of the triangles of the nodes ``points (B, N, 2)`` that hold ``targets (B, P, 2)``.

    ``start (B, P)``: triangles to begin from (by default those of the nearest centroids), for many targets of which
    one knows about where they are. A target outside the mesh gets the triangle that it is least far outside of, among
    those with the nearest centroids.
    """
    tables = triangulation.tables(points)
    batch, count = targets.shape[:2]
    flat = targets.reshape(-1, 2)
    nodes = points.reshape(-1, 2)
    first = torch.arange(batch, device=points.device).repeat_interleave(count) * triangulation.n_nodes
    if start is None:
        found = _nearest(points, tables, targets, 1)[..., 0].flatten()
    else:
        found = start.flatten().clone()
    lost = _walk(tables, nodes, flat, first, found)
    if len(lost):
        samples = (lost // count).unique().tolist()
        for sample in samples:
            rows = lost[lost // count == sample]
            found[rows] = _best_of_nearest(tables, points[sample], flat[rows])
    return found.reshape(batch, count)


def _walk(tables: Tables, nodes: Tensor, targets: Tensor, first: Tensor, found: Tensor) -> Tensor:
    """Write the triangle of every target into ``found`` and return the numbers of those that did not arrive."""
    inside = -16 * torch.finfo(nodes.dtype).eps
    going = torch.arange(len(targets), device=targets.device)
    lost = []
    for _ in range(STEPS):
        current = found[going]
        corners = nodes[first[going, None] + tables.triangles[current]]
        least, side = barycentric(corners, targets[going]).min(-1)
        outside = ~(least >= inside)
        going, side = going[outside], side[outside]
        following = tables.neighbours[found[going], side]
        end = following < 0
        lost.append(going[end])
        going = going[~end]
        if len(going) == 0:
            break
        found[going] = following[~end]
    return torch.cat([*lost, going])


def _nearest(points: Tensor, tables: Tables, targets: Tensor, count: int) -> Tensor:
    """Triangles ``(B, P, count)`` with the nearest centroids."""
    from scipy.spatial import cKDTree  # here: its import takes longer than that of all problems

    centroids = points[:, tables.triangles].mean(2).cpu().numpy()
    asked = targets.cpu().numpy()
    found = [
        torch.as_tensor(cKDTree(tree).query(query, count)[1]).reshape(len(query), count)
        for tree, query in zip(centroids, asked, strict=True)
    ]
    return torch.stack(found).to(points.device)


def _best_of_nearest(tables: Tables, points: Tensor, targets: Tensor) -> Tensor:
    """Of each target that of the ``NEAREST`` triangles that holds it, or that it is least far outside of."""
    count = min(NEAREST, len(tables.triangles))
    near = _nearest(points.unsqueeze(0), tables, targets.unsqueeze(0), count)[0]
    corners = points[tables.triangles[near]]
    weights = barycentric(corners, targets.unsqueeze(1))
    nearest = torch.einsum("pkv,pkvd->pkd", weights.clamp(min=0) / weights.clamp(min=0).sum(-1, keepdim=True), corners)
    away = (nearest - targets.unsqueeze(1)).norm(dim=-1)
    return near.gather(1, away.argmin(1, keepdim=True))[:, 0]

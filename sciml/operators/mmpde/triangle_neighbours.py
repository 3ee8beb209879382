"""Who sends messages to whom on a triangulation: neighbours along its edges, and nodes several edges away."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles import Triangulation
from sciml.operators.mmpde.neighbours import ListNeighbours


def triangle_neighbours(triangulation: Triangulation, reach: int, like: Tensor) -> ListNeighbours:
    """The neighbours of each node ``reach`` edges away, in the fixed mesh; made once for each device and precision.

    For ``reach`` 1 those that it shares an edge with. Beyond, as far again along each edge as the reach says: the node
    nearest to x_i + reach (x_j - x_i), if the way to there (at each whole edge) does not leave the domain. A layer so
    sees farther at the same cost, and neither around nor through an obstacle.
    """
    key = ("neighbours", reach, like.device, like.dtype)
    return triangulation.kept(key, lambda: _made(triangulation, reach, like))


def _made(triangulation: Triangulation, reach: int, like: Tensor) -> ListNeighbours:
    edges = triangulation.mesh.edges
    pairs = torch.cat([edges, edges.flip(1)])
    if reach > 1:
        pairs = _far(triangulation, pairs, reach)
    points = triangulation.points.to(like.device, like.dtype)
    return ListNeighbours.of_points(pairs.T.to(like.device), points)


def _far(triangulation: Triangulation, pairs: Tensor, reach: int) -> Tensor:
    """(sender, receiver) ``(E, 2)`` of nodes ``reach`` times as far apart as ``pairs``."""
    from scipy.spatial import cKDTree  # here: its import takes longer than that of all problems

    points, receivers = triangulation.points, pairs[:, 1]
    step = points[pairs[:, 0]] - points[receivers]
    inside = torch.ones(len(pairs), dtype=torch.bool)
    for edge in range(2, reach + 1):
        inside &= triangulation.mesh.find(points[receivers] + edge * step)[0] >= 0
    receivers = receivers[inside]
    senders = torch.as_tensor(cKDTree(points.numpy()).query((points[receivers] + reach * step[inside]).numpy())[1])
    # never the receiver itself: the node at the end of the edge is nearer
    return torch.stack([senders, receivers], 1).unique(dim=0)

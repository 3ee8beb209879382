"""Values at the nodes of a triangulation, wherever these are, as a linear function on every triangle."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.location import barycentric, find_triangles
from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.errors import DataError

OUTSIDE = 0.5
"""How far outside its triangle a target may lie, over the height of the triangle: linear extrapolation up to there.

Nodes on an arc lie outside the polygon of the other nodes on it, by much less.
"""


def sample_triangles(
    values: Tensor,
    triangulation: Triangulation,
    points: Tensor | None,
    targets: Tensor,
    *,
    start: Tensor | None = None,
    clamp: bool = False,
) -> Tensor:
    """Values ``(B, C, P)`` at ``targets (B, P, 2)`` of the P1 function with ``values (B, C, N)`` at the nodes.

    ``points (B, N, 2)``: where the nodes are; None for the fixed mesh. So both ways: from the fixed mesh to moved
    nodes with ``points=None, targets=moved``, back with ``points=moved, targets=fixed``. Exact for constants and linear
    functions, differentiable in values, points and targets. ``start (B, P)``: triangles near the targets, if known (see
    ``find_triangles``). A batch of one fits any batch, for each of values, points and targets. ``clamp``: targets
    outside take the value of about the nearest point of the mesh, however far they are, instead of a linear
    extrapolation.

    Raises ``DataError`` for tensors of wrong shapes or with coordinates that are not finite, and targets outside the
    mesh (or in a hole of it) by more than half a triangle.
    """
    points, targets = _checked(values, triangulation, points, targets)
    found = find_triangles(triangulation, points, targets, start)
    nodes = triangulation.tables(points).triangles[found]  # (B, P, 3)
    batch = len(nodes)
    corners = points.gather(1, nodes.reshape(batch, -1, 1).expand(-1, -1, 2)).reshape(*nodes.shape, 2)
    weights = barycentric(corners, targets)
    if clamp:
        weights = weights.clamp(min=0)
        weights = weights / weights.sum(-1, keepdim=True)
    else:
        _check_inside(weights, targets)
    picked = values.expand(batch, -1, -1).gather(2, nodes.reshape(batch, 1, -1).expand(-1, values.shape[1], -1))
    return (picked.reshape(batch, values.shape[1], *nodes.shape[1:]) * weights.unsqueeze(1)).sum(-1)


def _checked(
    values: Tensor, triangulation: Triangulation, points: Tensor | None, targets: Tensor
) -> tuple[Tensor, Tensor]:
    if values.ndim != 3 or values.shape[2] != triangulation.n_nodes:
        raise DataError(
            f"values have shape {tuple(values.shape)}; expected (batch, channels, {triangulation.n_nodes}), one value "
            "a node of the triangulation"
        )
    if targets.ndim != 3 or targets.shape[2] != 2 or not bool(torch.isfinite(targets).all()):
        raise DataError(f"targets have shape {tuple(targets.shape)}; expected finite coordinates (batch, P, 2)")
    if points is None:
        points = triangulation.tables(targets).points.unsqueeze(0)
    triangulation.check_nodes(points, "the nodes")
    batches = {len(values), len(points), len(targets)} - {1}
    if len(batches) > 1:
        raise DataError(
            f"values, points and targets have batches of {len(values)}, {len(points)} and {len(targets)}; expected "
            "one number, or 1"
        )
    batch = max(batches, default=1)
    return points.expand(batch, -1, -1), targets.expand(batch, -1, -1)


def _check_inside(weights: Tensor, targets: Tensor) -> None:
    outside = ~(weights.detach().amin(-1) >= -OUTSIDE)
    if bool(outside.any()):
        sample, first = outside.nonzero()[0].tolist()
        raise DataError(
            f"{int(outside.sum())} of {outside.numel()} targets lie outside the triangulation (or in a hole of it); "
            f"the first is target {first} of sample {sample} at {targets[sample, first].tolist()}"
        )

"""Nodes of triangulations that have moved, with what brings fields to them and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles import Triangulation, find_triangles
from sciml.constraints.mesh_mover.triangles.location import barycentric


@dataclass(frozen=True)
class Stencil:
    """Values at targets are those of three ``nodes (B, N, 3)`` times ``weights (B, N, 3)``, which sum to 1."""

    nodes: Tensor
    weights: Tensor

    @classmethod
    def of(cls, triangulation: Triangulation, points: Tensor, targets: Tensor) -> Stencil:
        """The linear interpolation between nodes at ``points (B, N, 2)`` at ``targets (B, N, 2)``."""
        nodes = triangulation.tables(points).triangles[find_triangles(triangulation, points, targets)]
        corners = points.gather(1, nodes.flatten(1).unsqueeze(-1).expand(-1, -1, 2)).unflatten(1, nodes.shape[1:])
        return cls(nodes, barycentric(corners, targets))

    def __call__(self, values: Tensor) -> Tensor:
        """``(B, C, N)`` of ``values (B, C, N)``."""
        flat = self.nodes.flatten(1).unsqueeze(1).expand(-1, values.shape[1], -1)
        weights = self.weights.to(values.dtype).unsqueeze(1)
        return (values.gather(2, flat).unflatten(2, self.nodes.shape[1:]) * weights).sum(-1)

    def __getitem__(self, rows: Tensor) -> Stencil:
        return Stencil(self.nodes[rows], self.weights[rows])


@dataclass(frozen=True)
class MovedNodes:
    """Where the nodes of a triangulation have moved to, ``points (B, N, 2)``, as a transfer of ``GraphBranches``.

    ``there``: from the fixed nodes to the moved ones, ``back``: from them to the fixed ones, both linear on triangles,
    so exact for constants and linear fields. To find the triangles takes as long as a layer of messages: for states
    that are seen again and again, as those of a training set, keep this and take what a batch needs, ``moved[rows]``.
    """

    points: Tensor
    there: Stencil
    back: Stencil

    @classmethod
    @torch.no_grad()
    def of(cls, points: Tensor, triangulation: Triangulation) -> MovedNodes:
        """Of ``points (B, N, 2)``, no triangle folded. ``DataError`` for points of another shape."""
        triangulation.check_nodes(points, "the moved nodes")
        fixed = triangulation.tables(points).points.expand(len(points), -1, -1)
        there, back = Stencil.of(triangulation, fixed, points), Stencil.of(triangulation, points, fixed)
        return cls(points, there, back)

    def __getitem__(self, rows: Tensor) -> MovedNodes:
        """Those of the samples ``rows``: whole numbers or truth values, one axis."""
        return MovedNodes(self.points[rows], self.there[rows], self.back[rows])


class Still:
    """The transfer between nodes that have not moved."""

    def there(self, values: Tensor) -> Tensor:
        return values

    def back(self, values: Tensor) -> Tensor:
        return values

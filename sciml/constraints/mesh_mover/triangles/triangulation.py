"""Triangulations whose nodes move: which triangles there are, and the displacements that keep the domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.boundary import Circle, boundary_motion, check_not_folded
from sciml.errors import DataError
from sciml.physics.weak.mesh import TriangleMesh


@dataclass(frozen=True)
class Tables:
    """The numbers of a triangulation on one device, lengths in one precision.

    ``points (N, 2)``; ``triangles (T, 3)``, anticlockwise; ``neighbours (T, 3)``: the triangle across the edge opposite
    to each vertex, -1 outside; ``areas (T,)``; ``edge_matrices (T, 2, 2)``: columns b - a and c - a of the triangle a,
    b, c. Degrees of freedom of an admissible displacement ``(n,)``: of the node ``dof_nodes`` along ``dof_directions
    (n, 2)``; ``turning`` as in ``BoundaryMotion``, with the ``tangents (c, 2)`` anticlockwise and the ``arms (c, 2)``
    from the centre. ``fans (F, 2)``: the edges between two turning nodes, in the direction in which they are
    anticlockwise as seen from their centres ``fan_centres (F, 2)``, and the triangles ``fan_triangles (F,)`` that have
    these edges.
    """

    points: Tensor
    triangles: Tensor
    neighbours: Tensor
    areas: Tensor
    edge_matrices: Tensor
    dof_nodes: Tensor
    dof_directions: Tensor
    turning: Tensor
    tangents: Tensor
    arms: Tensor
    fans: Tensor
    fan_centres: Tensor
    fan_triangles: Tensor


class Triangulation:
    """``points (N, 2)``, metres, and ``triangles (T, 3)`` of their numbers: the fixed mesh, whose connectivity stays.

    Nodes inside move freely; those on straight sides slide along them; those on the boundary and on one of the
    ``circles`` (centre x, centre y, radius) turn around its centre; corners, nodes of other curved boundaries and the
    nodes ``fixed`` stay. So the domain stays too, whatever the displacement (a circle is the polygon of its nodes).

    ``mesh``: the same as a ``TriangleMesh``; ``size``: the mean length of an edge, metres.

    Raises ``DataError`` for arrays of a wrong shape, coordinates that are not finite, triangles of nodes that do not
    exist or without area, triangles that overlap because the mesh is folded, nodes that no triangle has;
    ``ConfigError`` for a circle without a node of the boundary.
    """

    def __init__(
        self, points: Tensor, triangles: Tensor, *, circles: Sequence[Circle] = (), fixed: Iterable[int] = ()
    ) -> None:
        self.mesh = TriangleMesh(points, triangles)
        self.points, self.triangles = self.mesh.vertices, self.mesh.triangles
        check_not_folded(self.triangles, len(self.points))
        unused = (self.triangles.flatten().bincount(minlength=len(self.points)) == 0).nonzero().flatten()
        if len(unused):
            raise DataError(f"{len(unused)} nodes belong to no triangle, the first is {int(unused[0])}; leave them out")
        self.motion = boundary_motion(self.points, self.triangles, circles, fixed)
        self._kept: dict[Any, Any] = {}

    @classmethod
    def of(cls, mesh: TriangleMesh, *, circles: Sequence[Circle] = (), fixed: Iterable[int] = ()) -> Triangulation:
        """The triangulation of a mesh of ``sciml.physics.weak``."""
        return cls(mesh.vertices, mesh.triangles, circles=circles, fixed=fixed)

    @property
    def n_nodes(self) -> int:
        """N."""
        return len(self.points)

    @property
    def n_triangles(self) -> int:
        """T."""
        return len(self.triangles)

    @cached_property
    def area(self) -> float:
        """Of the domain, square metres."""
        return float(self.mesh.areas.sum())

    @cached_property
    def size(self) -> float:
        """Mean length of an edge, metres."""
        ends = self.points[self.mesh.edges]
        return float((ends[:, 1] - ends[:, 0]).norm(dim=1).mean())

    @cached_property
    def node_areas(self) -> Tensor:
        """A third of the area of the triangles around each node ``(N,)``, float64: they sum to ``area``."""
        thirds = (self.mesh.areas / 3).repeat_interleave(3)
        return torch.zeros(self.n_nodes, dtype=torch.float64).index_add(0, self.triangles.flatten(), thirds)

    def tables(self, like: Tensor) -> Tables:
        """Its numbers on the device and in the precision of ``like``."""
        key = (like.device, like.dtype)
        return self.kept(key, lambda: self._made(*key))

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once for each ``key``: matrices of the fixed mesh, say, and their factors."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def move(self, displacement: Tensor) -> Tensor:
        """Where the nodes are ``(B, N, 2)`` after the admissible part of ``displacement (B, N, 2)``, metres.

        Of nodes on straight sides the part along them counts, of nodes on circles the part along the tangent, as the
        length of the arc; of fixed nodes nothing. A displacement of zero gives the fixed nodes bit for bit.
        """
        self.check_nodes(displacement, "the displacement")
        tables = self.tables(displacement)
        return self._moved(self._amounts(displacement, tables), tables)

    def displacement(self, points: Tensor) -> Tensor:
        """The admissible displacement ``(B, N, 2)`` that ``move`` makes these ``points (B, N, 2)`` of."""
        self.check_nodes(points, "the nodes")
        tables = self.tables(points)
        difference = points - tables.points
        if len(tables.turning):
            arms, radii = tables.arms, tables.arms.norm(dim=1)
            now = arms + difference[:, tables.turning]
            angle = torch.atan2(arms[:, 0] * now[..., 1] - arms[:, 1] * now[..., 0], (arms * now).sum(-1))
            arcs = (angle * radii).unsqueeze(-1) * tables.tangents
            difference = difference.index_copy(1, tables.turning, arcs)
        return self.expand(self.reduce(difference))

    def reduce(self, vectors: Tensor) -> Tensor:
        """Components ``(B, n)`` of ``vectors (B, N, 2)`` at the nodes along the degrees of freedom."""
        return self._amounts(vectors, self.tables(vectors))

    def expand(self, amounts: Tensor) -> Tensor:
        """The transpose of ``reduce``: vectors ``(B, N, 2)`` of ``amounts (B, n)``."""
        tables = self.tables(amounts)
        vectors = amounts.unsqueeze(-1) * tables.dof_directions
        return amounts.new_zeros(len(amounts), self.n_nodes, 2).index_add(1, tables.dof_nodes, vectors)

    def check_nodes(self, vectors: Tensor, what: str) -> None:
        """``DataError`` unless ``vectors`` is ``(B, N, 2)`` and floating."""
        if vectors.ndim != 3 or vectors.shape[1:] != (self.n_nodes, 2) or not vectors.is_floating_point():
            raise DataError(
                f"{what} have shape {tuple(vectors.shape)} and type {vectors.dtype}; expected floating numbers "
                f"(batch, {self.n_nodes}, 2), one vector a node of the triangulation"
            )

    def _amounts(self, vectors: Tensor, tables: Tables) -> Tensor:
        return (vectors[:, tables.dof_nodes] * tables.dof_directions).sum(-1)

    def _moved(self, amounts: Tensor, tables: Tables) -> Tensor:
        displacement = self.expand(amounts)
        if len(tables.turning):
            arms, tangents = tables.arms, tables.tangents
            radii = arms.norm(dim=1)
            angle = ((displacement[:, tables.turning] * tangents).sum(-1) / radii).unsqueeze(-1)
            # cos(a) - 1 as -2 sin^2(a / 2): nothing is lost for small angles
            turned = -2 * (angle / 2).sin().square() * arms + angle.sin() * (radii.unsqueeze(-1) * tangents)
            displacement = displacement.index_copy(1, tables.turning, turned)
        return tables.points + displacement

    def _made(self, device: torch.device, dtype: torch.dtype) -> Tables:
        motion, points = self.motion, self.points
        inner = torch.ones(self.n_nodes, dtype=torch.bool)
        inner[motion.nodes] = False
        inside = inner.nonzero().flatten()
        axes = torch.eye(2, dtype=points.dtype)
        arms = points[motion.turning] - motion.centres
        tangents = torch.nn.functional.normalize(torch.stack([-arms[:, 1], arms[:, 0]], 1))
        fans, fan_centres, fan_triangles = self._fans()
        nodes = torch.cat([inside, inside, motion.sliding, motion.turning])
        directions = torch.cat([axes.repeat_interleave(len(inside), 0), motion.directions, tangents])
        return Tables(
            points=points.to(device, dtype),
            triangles=self.triangles.to(device),
            neighbours=self._neighbours().to(device),
            areas=self.mesh.areas.to(device, dtype),
            edge_matrices=self.mesh.jacobians.to(device, dtype),
            dof_nodes=nodes.to(device),
            dof_directions=directions.to(device, dtype),
            turning=motion.turning.to(device),
            tangents=tangents.to(device, dtype),
            arms=arms.to(device, dtype),
            fans=fans.to(device),
            fan_centres=fan_centres.to(device, dtype),
            fan_triangles=fan_triangles.to(device),
        )

    def _fans(self) -> tuple[Tensor, Tensor, Tensor]:
        """Edges between two nodes that turn around one centre, anticlockwise around it, the centres, the triangles."""
        motion, points = self.motion, self.points
        centres = torch.full_like(points, torch.nan)
        centres[motion.turning] = motion.centres
        owners, sides = (self.mesh.edge_counts[self.mesh.triangle_edges] == 1).nonzero(as_tuple=True)
        edges = self.mesh.edges[self.mesh.triangle_edges[owners, sides]]
        turning = (centres[edges[:, 0]] == centres[edges[:, 1]]).all(1)  # NaN equals nothing
        edges, owners = edges[turning], owners[turning]
        around = centres[edges[:, 0]]
        first, second = (points[edges] - around.unsqueeze(1)).unbind(1)
        backwards = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
        return torch.where(backwards.unsqueeze(1), edges.flip(1), edges), around, owners

    def _neighbours(self) -> Tensor:
        """``(T, 3)``: the triangle across the edge opposite to vertex k, -1 where there is none."""
        edges = self.mesh.triangle_edges.roll(-1, 1)  # from 01, 12, 20 to those opposite to vertices 0, 1, 2
        owners = torch.arange(self.n_triangles).repeat_interleave(3)
        total = torch.zeros(len(self.mesh.edges), dtype=torch.int64).index_add(0, edges.flatten(), owners)
        other = total[edges] - torch.arange(self.n_triangles).unsqueeze(1)
        return other.masked_fill(self.mesh.edge_counts[edges] == 1, -1)

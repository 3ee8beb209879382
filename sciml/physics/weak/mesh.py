"""Meshes of triangles: vertices, triangles, edges, and the edges of the boundary by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Where = Callable[[Tensor], Tensor]

SLACK = 1e-6
"""How far outside a triangle, over the size of the mesh, a point still counts as in it (float32 coordinates)."""

NEAREST = 8
"""Centroids among which the triangle of a point is looked for before all triangles are."""


class TriangleMesh:
    """``vertices (V, 2)`` and ``triangles (T, 3)`` of their numbers, both kept as float64 and int64 on the CPU.

    ``boundaries``: name -> function of midpoints ``(E, 2)`` of edges to ``(E,)`` bool, asked about the edges that
    belong to one triangle only; an edge goes to the first name that takes it, and may have none. Triangles are stored
    anticlockwise. ``boundary_edges``: name -> ``(E, 2)`` vertices.

    Raises ``DataError`` for arrays of a wrong shape, vertices that are not finite, triangles of numbers that do not
    exist or without area, an edge of three triangles; ``ConfigError`` for a name that gets no edge.
    """

    dim = 2

    def __init__(self, vertices: Tensor, triangles: Tensor, boundaries: Mapping[str, Where] | None = None) -> None:
        self.vertices, self.triangles = _checked(vertices, triangles)
        edges = self.edges[self.edge_counts == 1]
        midpoints = self.vertices[edges].mean(1)
        left = torch.ones(len(edges), dtype=torch.bool)
        self.boundary_edges: dict[str, Tensor] = {}
        for name, where in (boundaries or {}).items():
            chosen = left & where(midpoints)
            if not bool(chosen.any()):
                raise ConfigError(f"boundary {name!r} has none of the {len(edges)} edges of the boundary of the mesh")
            self.boundary_edges[name] = edges[chosen]
            left = left & ~chosen

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor, Tensor]:
        pairs = torch.stack([self.triangles, self.triangles.roll(-1, 1)], -1).flatten(0, 1).sort(1).values
        edges, inverse, counts = pairs.unique(dim=0, return_inverse=True, return_counts=True)
        return edges, inverse.reshape(-1, 3), counts

    @property
    def edges(self) -> Tensor:
        """Vertices of every edge ``(E, 2)``, each edge once, the lower number first."""
        return self._edges[0]

    @property
    def triangle_edges(self) -> Tensor:
        """Edges ``(T, 3)`` of each triangle: from its vertex 0 to 1, 1 to 2 and 2 to 0."""
        return self._edges[1]

    @property
    def edge_counts(self) -> Tensor:
        """Triangles ``(E,)`` of each edge: 1 on the boundary, 2 inside."""
        return self._edges[2]

    @cached_property
    def jacobians(self) -> Tensor:
        """``(T, 2, 2)``, d x_i / d xi_k of the map from the triangle (0, 0), (1, 0), (0, 1) to each triangle."""
        a, b, c = self.vertices[self.triangles].unbind(1)
        return torch.stack([b - a, c - a], -1)

    @property
    def areas(self) -> Tensor:
        """``(T,)``, in the square of the unit of the vertices."""
        return torch.linalg.det(self.jacobians) / 2

    @property
    def angles(self) -> Tensor:
        """Interior angles ``(T, 3)`` in degrees, at each vertex."""
        corners = self.vertices[self.triangles]
        out, back = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
        cross = out[..., 0] * back[..., 1] - out[..., 1] * back[..., 0]
        return torch.rad2deg(torch.atan2(cross.abs(), (out * back).sum(-1)))

    def nodes(self, degree: int) -> Tensor:
        """Nodes ``(N, 2)`` of the elements: the vertices, and with degree 2 the midpoints of the edges after them."""
        check_degree(degree)
        if degree == 1:
            return self.vertices
        return torch.cat([self.vertices, self.vertices[self.edges].mean(1)])

    def triangle_nodes(self, degree: int) -> Tensor:
        """Numbers of the nodes of each triangle, ``(T, 3)`` or ``(T, 6)``, in the order of ``shape_functions``."""
        check_degree(degree)
        if degree == 1:
            return self.triangles
        return torch.cat([self.triangles, len(self.vertices) + self.triangle_edges], 1)

    def boundary_nodes(self, names: Iterable[str], degree: int) -> Tensor:
        """Numbers ``(n,)`` of the nodes on the named boundaries, ascending. ``ConfigError``: no such name."""
        check_degree(degree)
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self.boundary_edges:
                raise ConfigError(f"the mesh has no boundary {name!r}{did_you_mean(name, self.boundary_edges)}")
        on = torch.zeros(len(self.nodes(degree)), dtype=torch.bool)
        for name in names:
            edges = self.boundary_edges[name]
            on[edges.flatten()] = True
            if degree == 2:
                on[len(self.vertices) + self.edge_numbers(edges)] = True
        return on.nonzero().flatten()

    def edge_numbers(self, edges: Tensor) -> Tensor:
        """Numbers ``(n,)`` in ``edges`` of edges ``(n, 2)`` of the mesh, the lower vertex first."""
        count = len(self.vertices)
        return torch.searchsorted(self.edges[:, 0] * count + self.edges[:, 1], edges[:, 0] * count + edges[:, 1])

    def find(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Triangle ``(P,)``, or -1 outside the mesh, and coordinates in it ``(P, 2)`` of ``points (P, 2)``.

        The coordinates are those of the reference triangle (0, 0), (1, 0), (0, 1). The triangles of the nearest
        centroids are tried first, then, for what they do not hold, all.
        """
        points = _checked_points(points)
        found = torch.full((len(points),), -1)
        local = torch.zeros(len(points), 2, dtype=torch.float64)
        if len(points) == 0:
            return found, local
        nearest = min(NEAREST, len(self.triangles))
        near = torch.as_tensor(self._centroids.query(points.numpy(), nearest)[1]).reshape(len(points), nearest)
        self._try(points, near, torch.arange(len(points)), found, local)
        every = torch.arange(len(self.triangles))
        # in parts, so that the candidates of a part fit into some 100 MB
        for part in (found < 0).nonzero().flatten().split(max(1, 2_000_000 // len(every))):
            self._try(points[part], every.expand(len(part), -1), part, found, local)
        return found, local

    def locate(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """As ``find``; raises ``DataError`` naming the first of the points that lie outside the mesh."""
        found, local = self.find(points)
        outside = (found < 0).nonzero().flatten()
        if len(outside):
            first = int(outside[0])
            raise DataError(
                f"{len(outside)} of {len(points)} points lie outside the domain (or in a hole of it); the first is "
                f"point {first} at {points[first].tolist()}"
            )
        return found, local

    @cached_property
    def _centroids(self) -> cKDTree:
        from scipy.spatial import cKDTree  # here: its import takes longer than that of all problems

        return cKDTree(self.vertices[self.triangles].mean(1).numpy())

    @cached_property
    def _inverse_jacobians(self) -> Tensor:
        return torch.linalg.inv(self.jacobians)

    @cached_property
    def _least_heights(self) -> Tensor:
        corners = self.vertices[self.triangles]
        return 2 * self.areas / (corners - corners.roll(-1, 1)).norm(dim=-1).amax(1)

    def _try(self, points: Tensor, candidates: Tensor, rows: Tensor, found: Tensor, local: Tensor) -> None:
        """Write the best of the ``candidates (P, K)`` of each point into ``found`` and ``local`` at ``rows``."""
        offsets = points.unsqueeze(1) - self.vertices[self.triangles[candidates, 0]]
        xi = (self._inverse_jacobians[candidates] @ offsets.unsqueeze(-1)).squeeze(-1)
        depth = torch.minimum(xi.amin(-1), 1 - xi.sum(-1))
        best = depth.argmax(1, keepdim=True)
        heights = self._least_heights[candidates.gather(1, best).squeeze(1)]
        extent = float((self.vertices.amax(0) - self.vertices.amin(0)).max())
        inside = depth.gather(1, best).squeeze(1) * heights >= -SLACK * extent
        found[rows[inside]] = candidates.gather(1, best).squeeze(1)[inside]
        local[rows[inside]] = xi.gather(1, best.unsqueeze(-1).expand(-1, 1, 2)).squeeze(1)[inside]


def check_degree(degree: int) -> None:
    """``ConfigError`` for elements that are neither linear nor quadratic."""
    if degree not in (1, 2):
        raise ConfigError(f"the degree of the elements is {degree!r}; expected 1 (linear) or 2 (quadratic)")


def _checked(vertices: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    vertices = torch.as_tensor(vertices).detach().to("cpu", torch.float64)
    triangles = torch.as_tensor(triangles).detach().to("cpu", torch.int64)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or not bool(torch.isfinite(vertices).all()):
        raise DataError(f"vertices have shape {tuple(vertices.shape)}; expected finite coordinates (V, 2)")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or len(triangles) == 0:
        raise DataError(f"triangles have shape {tuple(triangles.shape)}; expected (T, 3), at least one")
    if int(triangles.min()) < 0 or int(triangles.max()) >= len(vertices):
        raise DataError(
            f"triangles have the vertex numbers {int(triangles.min())} to {int(triangles.max())}; there are "
            f"{len(vertices)} vertices, numbered from 0"
        )
    a, b, c = vertices[triangles].unbind(1)
    double_area = torch.linalg.det(torch.stack([b - a, c - a], -1))
    longest = torch.stack([b - a, c - b, a - c]).square().sum(-1).amax(0)
    flat = double_area.abs() <= 1e-12 * longest
    if bool(flat.any()):
        raise DataError(f"triangle {int(flat.nonzero()[0])} has no area; {int(flat.sum())} triangles have none")
    turned = triangles[:, [0, 2, 1]]
    triangles = torch.where((double_area < 0).unsqueeze(1), turned, triangles)
    pairs = torch.stack([triangles, triangles.roll(-1, 1)], -1).flatten(0, 1).sort(1).values
    if int(pairs.unique(dim=0, return_counts=True)[1].max()) > 2:
        raise DataError("an edge belongs to three triangles or more; expected a mesh of the plane")
    return vertices, triangles


def _checked_points(points: Tensor) -> Tensor:
    if points.ndim != 2 or points.shape[1] != 2:
        raise DataError(f"points have shape {tuple(points.shape)}; expected (P, 2)")
    points = points.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(points).all()):
        raise DataError("points have coordinates that are not finite")
    return points

"""Finite-element functions of one case on the uniform grid of its channel. Lengths are in diameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sciml.physics.weak.elements import shape_functions
from sciml.physics.weak.mesh import TriangleMesh
from sciml.physics.weak.quadrature import gauss_legendre
from sciml.solvers.flow_past_cylinder.stream_function import StreamFunction

if TYPE_CHECKING:
    from scipy.sparse import csr_array

RADIUS = 0.5
GAUSS_POINTS = 3
"""On every face of the grid: exact for the quadratic velocity where a face lies in one triangle."""


def interpolation(mesh: TriangleMesh, degree: int, points: Tensor, centre: Tensor) -> csr_array:
    """``(P, N)``: values of the elements at ``points (P, 2)`` of the fluid around the disc at ``centre (2,)``.

    The polygon that stands for the disc sticks out of it at its corners: points that it covers are moved outwards to
    its corners' radius. Raises ``DataError`` for points outside the channel.
    """
    from scipy.sparse import csr_array  # here: only meshes of triangles need it

    corners = mesh.vertices[mesh.boundary_nodes(["disc"], 1)]
    reach = (corners - centre).norm(dim=1).max()
    triangles, local = mesh.find(points)
    outside = (triangles < 0).nonzero().flatten()
    if len(outside):
        offset = points[outside] - centre
        distance = offset.norm(dim=1, keepdim=True)
        moved = torch.where(distance < reach, centre + offset * (reach / distance), points[outside])
        triangles[outside], local[outside] = mesh.locate(moved)
    values, _ = shape_functions(degree, local)
    numbers = mesh.triangle_nodes(degree)[triangles]
    rows = torch.arange(len(points)).unsqueeze(1).expand_as(numbers)
    shape = (len(points), len(mesh.nodes(degree)))
    return csr_array((values.flatten().numpy(), (rows.flatten().numpy(), numbers.flatten().numpy())), shape=shape)


class GridSampler:
    """Values on ``shape`` cells of a channel of ``lengths (2,)`` with a disc at ``centre (2,)``."""

    def __init__(self, mesh: TriangleMesh, lengths: Tensor, centre: Tensor, shape: tuple[int, int]) -> None:
        self.shape = shape
        spacing = [float(length) / n for length, n in zip(lengths, shape, strict=True)]
        edges = [torch.arange(n + 1, dtype=torch.float64) * d for n, d in zip(shape, spacing, strict=True)]
        middles = [edge[:-1] + d / 2 for edge, d in zip(edges, spacing, strict=True)]
        self._cells, self._velocity = _wet_rows(mesh, 2, _grid(*middles), centre)
        _, self._pressure = _wet_rows(mesh, 1, _grid(*middles), centre)
        nodes, weights = gauss_legendre(GAUSS_POINTS)
        self._faces = []
        for axis in (0, 1):
            along = 1 - axis  # the coordinate that changes along the face
            total = 0
            for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
                lines = [edges[0], edges[1]]
                lines[along] = edges[along][:-1] + node * spacing[along]
                wet, rows = _wet_rows(mesh, 2, _grid(*lines), centre)
                total = total + weight * spacing[along] * _spread(wet, rows)
            self._faces.append(total)
        solid = ((_grid(*edges) - centre).norm(dim=1) < RADIUS).reshape(shape[0] + 1, shape[1] + 1)
        self._stream_function = StreamFunction(lengths, shape, solid.numpy())

    def velocity(self, nodal: np.ndarray) -> np.ndarray:
        """``(2, nx, ny)`` at the centres of cells, 0 in the disc, of ``nodal (N2, 2)``."""
        return np.stack([self._at_cells(self._velocity @ nodal[:, k]) for k in (0, 1)])

    def pressure(self, nodal: np.ndarray) -> np.ndarray:
        """``(1, nx, ny)`` at the centres of cells, 0 in the disc, of ``nodal (N1,)``."""
        return self._at_cells(self._pressure @ nodal)[None]

    def stream_function(self, nodal: np.ndarray) -> np.ndarray:
        """``(nx + 1, ny + 1)`` at the corners of cells, of the velocity ``nodal (N2, 2)``."""
        nx, ny = self.shape
        fluxes = [self._faces[0] @ nodal[:, 0], self._faces[1] @ nodal[:, 1]]
        return self._stream_function(fluxes[0].reshape(nx + 1, ny), fluxes[1].reshape(nx, ny + 1))

    def _at_cells(self, values: np.ndarray) -> np.ndarray:
        grid = np.zeros(self._cells.shape)
        grid[self._cells] = values
        return grid.reshape(self.shape)


def _grid(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack(torch.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)


def _wet_rows(mesh: TriangleMesh, degree: int, points: Tensor, centre: Tensor) -> tuple[np.ndarray, csr_array]:
    """Which points ``(P,)`` are not in the disc, and the interpolation to those."""
    wet = (points - centre).norm(dim=1) >= RADIUS
    return wet.numpy(), interpolation(mesh, degree, points[wet], centre)


def _spread(chosen: np.ndarray, rows: csr_array) -> csr_array:
    """``rows`` at the ``chosen`` places of a matrix that is 0 elsewhere."""
    from scipy.sparse import csr_array

    starts = np.concatenate([[0], np.cumsum(np.where(chosen, np.diff(rows.indptr)[np.cumsum(chosen) - 1], 0))])
    return csr_array((rows.data, rows.indices, starts), shape=(len(chosen), rows.shape[1]))

"""Fluxes through the faces of a grid that are free of divergence, nearest to given ones: by a stream function.

psi at the corners of the cells minimises sum over x faces of (psi_j+1 - psi_j - F)^2 / dy^2 and over y faces of
(psi_i - psi_i+1 - G)^2 / dx^2: a five-point Laplace equation. psi is given on the inflow and on the walls, one unknown
constant at all corners in the disc, and free at the outflow. So every section of the channel carries what enters, to
round-off, and no cell gains or loses water. (A quadratic psi on the triangles would make the face velocities piecewise
linear, of lower order than the velocity itself.)
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sciml.physics.weak.sparse import symmetric_factor


class StreamFunction:
    """On ``shape`` cells of a channel of ``lengths``; ``solid (nx + 1, ny + 1)``: corners in the disc."""

    def __init__(self, lengths: Tensor, shape: tuple[int, int], solid: np.ndarray) -> None:
        from scipy.sparse import csr_array, eye_array, kron

        self.corners = (shape[0] + 1, shape[1] + 1)
        (nx, ny), (dx, dy) = shape, (float(length) / n for length, n in zip(lengths, shape, strict=True))
        height = float(lengths[1])
        y = np.arange(ny + 1) * dy
        given = np.zeros(self.corners)
        given[0] = y**2 * (3 * height - 2 * y) / height**2  # the integral of the inflow
        given[:, 0], given[:, -1] = 0, height
        unknown = np.full(self.corners, -1)
        free = ~solid
        free[0] = free[:, 0] = free[:, -1] = False
        n_free = int(free.sum())
        unknown[free] = np.arange(n_free)
        unknown[solid] = n_free
        rows = np.flatnonzero(unknown >= 0)
        columns = unknown.reshape(-1)[rows]
        size = (given.size, n_free + int(solid.any()))
        self._expand = csr_array((np.ones(len(rows)), (rows, columns)), shape=size)
        along_y = kron(eye_array(nx + 1), _difference(ny), format="csr")
        along_x = -kron(_difference(nx), eye_array(ny + 1), format="csr")
        self._weighted = [along_y.T / dy**2, along_x.T / dx**2]
        matrix = self._weighted[0] @ along_y + self._weighted[1] @ along_x
        self._given = given.reshape(-1)
        self._lift = self._expand.T @ (matrix @ self._given)
        self._factors = symmetric_factor(self._expand.T @ matrix @ self._expand)

    def __call__(self, flux_x: np.ndarray, flux_y: np.ndarray) -> np.ndarray:
        """psi ``(nx + 1, ny + 1)`` of the fluxes ``(nx + 1, ny)`` along x and ``(nx, ny + 1)`` along y."""
        right = self._weighted[0] @ flux_x.reshape(-1) + self._weighted[1] @ flux_y.reshape(-1)
        solution = self._given + self._expand @ self._factors.solve(self._expand.T @ right - self._lift)
        return solution.reshape(self.corners)


def _difference(n: int):
    from scipy.sparse import diags_array

    return diags_array([-np.ones(n), np.ones(n)], offsets=[0, 1], shape=(n, n + 1))

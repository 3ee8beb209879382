"""Water that comes back through the outflow: the directional do-nothing condition.

nu du/dn - p n = (u . n)_- u / 2, with (u . n)_- the negative part (Braack and Mucha, J. Comput. Math. 32 (2014) 507).
Without the right side a vortex that leaves may pull in energy without bound; with no inward flow both are the same.
"""

from __future__ import annotations

import numpy as np
import torch

from sciml.physics.weak.quadrature import gauss_legendre
from sciml.solvers.flow_past_cylinder.discretisation import Discretisation

GAUSS_POINTS = 4
"""Exact for the degree 6 of the integrand where u . n keeps its sign."""


class Backflow:
    """1/2 int (u . n)_- u v over the outflow, n along x."""

    def __init__(self, space: Discretisation) -> None:
        position, weights = gauss_legendre(GAUSS_POINTS)
        ends = torch.stack([1 - position, position], 1)
        bubble = 4 * ends.prod(1, keepdim=True)
        self._values = torch.cat([ends * (2 * ends - 1), bubble], 1).numpy()  # (q, 3): both ends, middle
        edges = space.mesh.boundary_edges["outflow"]
        middles = space.n_vertices + space.mesh.edge_numbers(edges)
        self._nodes = torch.cat([edges, middles.unsqueeze(1)], 1).numpy()  # (E, 3)
        low, high = space.mesh.vertices[edges].unbind(1)
        self._weights = (high - low).norm(dim=1, keepdim=True).numpy() * (weights.numpy() / 2)  # (E, q)

    def add(self, right: np.ndarray, velocity: np.ndarray) -> None:
        """Add it ``(N2, 2)``, of the nodal ``velocity (N2, 2)``, to ``right``, in place."""
        nodal = velocity[self._nodes]  # (E, 3, 2)
        if nodal[..., 0].min() < 0:
            at_points = self._values @ nodal
            inward = self._weights * np.minimum(at_points[..., 0], 0)
            np.add.at(right, self._nodes, self._values.T @ (inward[..., None] * at_points))

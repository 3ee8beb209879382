"""The convective term of quadratic elements: int v_i (u . grad) u_c, of all triangles at once.

On triangles with straight edges grad = J^-T d / d xi, so with the contravariant velocity a = 2 |T| J^-1 u the integral
is one over the reference triangle, int v_i a_k d u_c / d xi_k: two products with small constant matrices and one sum
over the triangles of each node. The rule is exact: u, its gradient and the test function have the degrees 2, 1 and 2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sciml.physics.weak.elements import shape_functions, triangle_quadrature

EXACT = 5
"""Degree of the integrand."""


class Convection:
    """int v_i (u . grad) u_c on triangles whose quadratic nodes have the ``numbers (T, 6)`` and maps ``jacobians``
    ``(T, 2, 2)``, of one mesh or of several beside one another (``n_nodes`` in all)."""

    def __init__(self, numbers: Tensor, jacobians: Tensor, n_nodes: int) -> None:
        from scipy.sparse import csr_array  # here: only meshes of triangles need it

        local, weights = triangle_quadrature(EXACT)
        values, slopes = shape_functions(2, local)
        self._n_points = len(weights)
        # one product gives the value and both slopes at the points of the rule
        self._evaluate = torch.cat([values, slopes[..., 0], slopes[..., 1]]).numpy()  # (3 q, 6)
        self._test = (weights.unsqueeze(1) * values).T.contiguous().numpy()  # (6, q)
        # w_q v_i(q) d v_j / d xi_k (q), (q, 36) for k = 0, 1
        self._products = torch.einsum("q,qi,qjk->kqij", weights, values, slopes).flatten(2).numpy()
        determinant = torch.linalg.det(jacobians)
        self._double_area = determinant.numpy()
        scaled = determinant[:, None, None] * torch.linalg.inv(jacobians)
        self._inverse = scaled.permute(1, 2, 0).contiguous().numpy()  # (2, 2, T)
        flat = numbers.T.flatten().numpy()  # triangles last, so that all that follows runs along them
        ones, columns = np.ones(len(flat)), np.arange(len(flat))
        self._numbers = flat
        self._gather = csr_array((ones, (flat, columns)), shape=(n_nodes, len(flat)))

    def __call__(self, velocity: np.ndarray, background: np.ndarray | None = None) -> np.ndarray:
        """``(N, 2)`` of the nodal ``velocity (N, 2)``; with the ``carriers`` of a ``background`` flow w0, of
        ((u - w0) . grad) u."""
        at_points = self._at_points(velocity)
        carriers = self._contravariant(at_points)
        return self._carried(carriers if background is None else carriers - background, at_points)

    def carriers(self, velocity: np.ndarray) -> np.ndarray:
        """2 |T| J^-1 u ``(2, q, T)`` at the points of the rule."""
        return self._contravariant(self._at_points(velocity))

    def transport(self, carriers: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """int v_i (w0 . grad) u_c ``(N, 2)`` for the flow w0 of ``carriers``."""
        return self._carried(carriers, self._at_points(velocity))

    def rates(self, carriers: np.ndarray) -> np.ndarray:
        """``(T,)``: the largest |d lambda_k / dt| of the three barycentric coordinates lambda_k along the flow; its
        inverse is the time in which the flow crosses the triangle."""
        fastest = np.maximum(np.abs(carriers).max(0), np.abs(carriers[0] + carriers[1]))
        return fastest.max(0) / self._double_area

    def local_matrices(self, carriers: np.ndarray) -> np.ndarray:
        """int v_i (w0 . grad) v_j ``(T, 6, 6)`` of the triangles whose ``carriers (2, q, T)`` are given."""
        return (carriers[0].T @ self._products[0] + carriers[1].T @ self._products[1]).reshape(-1, 6, 6)

    def _at_points(self, velocity: np.ndarray) -> np.ndarray:
        """Value and slopes along both reference axes ``(2, 3, q, T)``."""
        nodal = velocity.T.take(self._numbers, axis=1).reshape(2, 6, -1)
        return (self._evaluate @ nodal).reshape(2, 3, self._n_points, -1)

    def _contravariant(self, at_points: np.ndarray) -> np.ndarray:
        u, v = at_points[:, 0]
        return np.stack([along[0] * u + along[1] * v for along in self._inverse])

    def _carried(self, carriers: np.ndarray, at_points: np.ndarray) -> np.ndarray:
        term = carriers[0] * at_points[:, 1]
        term += carriers[1] * at_points[:, 2]
        local = (self._test @ term).reshape(2, -1)
        return np.stack([self._gather @ local[0], self._gather @ local[1]], 1)

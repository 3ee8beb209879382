"""The matrix of the momentum equation on the free nodes, refactorised whenever its background flow changes.

The pattern never changes, so the ordering for little fill is found once and values go straight to their places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciml.physics.weak.sparse import symmetric_factor

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import SuperLU


class MomentumMatrix:
    """a M + nu K + C ``(n, n)`` of the ``free (n,)`` nodes, in an order of little fill.

    ``mass``, ``stiffness``: of all nodes; ``numbers (T, 6)``: nodes of its triangles. ``order (n,)``: the
    free nodes in the order of the rows.
    """

    def __init__(self, mass: csr_array, stiffness: csr_array, numbers: np.ndarray, free: np.ndarray) -> None:
        self.order = free[np.argsort(symmetric_factor(mass[free][:, free]).perm_c)]
        n = len(self.order)
        place = np.full(mass.shape[0], -1)
        place[self.order] = np.arange(n)
        i, j = (place[part] for part in (np.repeat(numbers, 6, 1).ravel(), np.tile(numbers, 6).ravel()))
        self._kept = np.flatnonzero((i >= 0) & (j >= 0))
        keys, self._slots = np.unique(j[self._kept] * n + i[self._kept], return_inverse=True)
        self._rows = (keys % n).astype(np.int32)
        self._starts = np.searchsorted(keys, np.arange(n + 1) * n).astype(np.int32)
        self._parts = []
        for matrix in (mass, stiffness):
            chosen = matrix[self.order][:, self.order].tocsc()
            chosen.sort_indices()
            self._parts.append(chosen.data)

    def factors(self, mass: float, viscosity: float, convection: np.ndarray) -> SuperLU:
        """LU factors of mass M + viscosity K + the matrix of ``convection (T, 6, 6)`` per triangle."""
        from scipy.sparse import csc_array  # here: only meshes of triangles need it
        from scipy.sparse.linalg import splu

        values = mass * self._parts[0] + viscosity * self._parts[1]
        values += np.bincount(self._slots, weights=convection.reshape(-1)[self._kept], minlength=len(values))
        n = len(self.order)
        matrix = csc_array((values, self._rows, self._starts), shape=(n, n))
        # heavy on its diagonal, symmetric in its pattern: no pivoting; small panels suit these small supernodes
        options = {"SymmetricMode": True}
        return splu(matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, relax=4, panel_size=1, options=options)

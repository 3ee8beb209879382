"""Residual of Stokes flow in its natural norm, of nodal values: quadratic velocity, linear pressure on triangles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.elements import Elements, gradient_matrices, stiffness_matrix
from sciml.physics.weak.mesh import TriangleMesh
from sciml.physics.weak.sparse import DenseEnergy, SparseMap, energy_of, symmetric_factor

if TYPE_CHECKING:
    from scipy.sparse import csr_array

EXACT = 4
"""Degree of the quadrature: of the product of two quadratic functions, the highest in the matrices."""


def taylor_hood_matrices(mesh: TriangleMesh) -> tuple[csr_array, list[csr_array]]:
    """int grad v_i . grad v_j ``(N2, N2)`` and int q_i d v_j / d x_k ``(N1, N2)``, k = 0, 1: v quadratic, q linear."""
    quadratic, linear = Elements(mesh, 2, EXACT), Elements(mesh, 1, EXACT)
    return stiffness_matrix(quadratic), gradient_matrices(linear, quadratic)


class TaylorHood:
    """-mu Laplacian u + grad p = 0, div u = 0 for u quadratic and p linear on each triangle, given by nodal values.

    ``dirichlet``: names of the boundaries on which u is given; on the others the natural condition is mu du/dn = p n.
    ``points (N2, 2)``: nodes of u, vertices first; p has its nodes at the first N1 of them. Momentum is tested with
    the quadratic functions v that vanish on Dirichlet boundaries, r_v = int mu grad u . grad v - p div v, mass with the
    linear q, s_q = int q div u. Both vanish exactly at the solution of ``sciml.solvers.StokesSolver``.

    Raises ``ConfigError`` for a viscosity that is not positive, an unknown boundary or none.
    """

    def __init__(
        self,
        mesh: TriangleMesh,
        viscosity: float,
        *,
        dirichlet: Iterable[str] = ("inflow", "wall", "disc"),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        from scipy.sparse import block_array  # here: only meshes of triangles need it

        if not (0 < viscosity < float("inf")):
            raise ConfigError(f"viscosity is {viscosity}; expected a positive number")
        self.points = mesh.nodes(2).to(device, dtype)
        fixed = mesh.boundary_nodes(dirichlet, 2)
        free = torch.ones(len(self.points), dtype=torch.bool)
        free[fixed] = False
        if len(fixed) == 0 or not bool(free.any()):
            raise ConfigError("no node of the velocity is fixed, or all are; name the boundaries on which u is given")
        self.n_tests, self.n_pressures = int(free.sum()), len(mesh.vertices)
        chosen = free.numpy()
        stiffness, divergence = taylor_hood_matrices(mesh)
        rows = stiffness[chosen]
        thrust = [(-1 / viscosity * part.T).tocsr()[chosen] for part in divergence]
        system = block_array([[rows, None, thrust[0]], [None, rows, thrust[1]], [*divergence, None]])
        self._system = SparseMap(system, dtype=dtype, device=device)
        self._energy = energy_of(rows[:, chosen], dtype=dtype, device=device)
        schur = _schur_complement(rows[:, chosen], [part[:, chosen] for part in divergence])
        self._schur = DenseEnergy(schur, dtype=dtype, device=device)

    def residual(self, velocity: Tensor, pressure: Tensor) -> tuple[Tensor, Tensor]:
        """r / mu ``(B, 2, J)`` in m^2/s and s ``(B, N1)`` in m^2/s of ``velocity (B, 2, N2)``, ``pressure (B, N1)``.

        Raises ``DataError`` for other shapes.
        """
        n2, n1 = len(self.points), self.n_pressures
        if velocity.shape[1:] != (2, n2) or pressure.shape != (len(velocity), n1):
            raise DataError(
                f"velocity has shape {tuple(velocity.shape)} and pressure {tuple(pressure.shape)}; expected "
                f"(B, 2, {n2}) and (B, {n1})"
            )
        rows = self._system(torch.cat([velocity.flatten(1), pressure], 1))
        return rows[:, : 2 * self.n_tests].unflatten(1, (2, self.n_tests)), rows[:, 2 * self.n_tests :]

    def square(self, velocity: Tensor, pressure: Tensor) -> Tensor:
        """r^T K^-1 r / mu^2 + s^T S^-1 s ``(B,)``, m^2/s^2, K of the Laplacian, S = D K^-1 D^T, D the divergence.

        Between (3 - sqrt(5)) / 2 and (3 + sqrt(5)) / 2 times int |grad e|^2 + e_p^T S e_p / mu^2 for the errors e of u
        and e_p of p, as K and S are the blocks of the ideal preconditioner (Murphy, Golub and Wathen, SIAM J. Sci.
        Comput. 21 (2000) 1969). With the mass matrix in the place of S the lower bound contains the square of the
        inf-sup constant, 0.03 in a channel twice as long as high: candidates that lose water on the way have small
        residuals then, and are what is learned first.
        """
        momentum, mass = self.residual(velocity, pressure)
        momentum = self._energy.dual_square(momentum.flatten(0, 1)).unflatten(0, (-1, 2)).sum(1)
        return momentum + self._schur.dual_square(mass)


def _schur_complement(stiffness: csr_array, divergence: list[csr_array]) -> Tensor:
    """sum_k D_k K^-1 D_k^T ``(N1, N1)``."""
    factors = symmetric_factor(stiffness)
    return torch.as_tensor(sum(part @ factors.solve(part.T.toarray()) for part in divergence))

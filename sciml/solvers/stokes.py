"""Stokes flow by Taylor-Hood finite elements: quadratic velocity, linear pressure, one sparse factorisation.

-mu Laplacian u + grad p = f, div u = 0, with u given on the inflow, u = 0 on walls and no stress, mu du/dn = p n, on
every boundary that is neither. The pair satisfies the inf-sup condition (Taylor and Hood, Computers & Fluids 1 (1973)
73): velocities converge with the third power of the mesh size in L2, pressures with the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError, SolverError
from sciml.physics.weak.elements import Elements, shape_functions
from sciml.physics.weak.mesh import TriangleMesh
from sciml.physics.weak.taylor_hood import taylor_hood_matrices

AtPoints = Callable[[Tensor], Tensor]

FORCE_DEGREE = 5
"""Degree for which the integral of a force times a shape function is exact."""


class StokesSolver:
    """Any number of inflows on one mesh.

    ``mesh``: in metres; ``viscosity``: mu, Pa s; ``inflow`` and ``walls``: names of its boundaries. A node on both is
    the wall's. ``velocity_points (N2, 2)``: vertices, then midpoints of edges; ``pressure_points (N1, 2)``: vertices;
    ``inflow_points (n, 2)``: velocity points on the inflow, those on walls included. A mesh without a boundary that is
    neither inflow nor wall leaves the pressure undetermined up to a constant, and is refused.

    Raises ``ConfigError`` for a viscosity that is not positive, an unknown boundary or none that is free.
    """

    def __init__(
        self,
        mesh: TriangleMesh,
        viscosity: float,
        *,
        inflow: str = "inflow",
        walls: Iterable[str] = ("wall", "disc"),
    ) -> None:
        from scipy.sparse import block_array  # here: only meshes of triangles need them
        from scipy.sparse.linalg import splu

        if not (0 < viscosity < float("inf")):
            raise ConfigError(f"viscosity is {viscosity}; expected a positive number")
        walls = [walls] if isinstance(walls, str) else list(walls)
        self.mesh, self.viscosity = mesh, float(viscosity)
        self.velocity_points, self.pressure_points = mesh.nodes(2), mesh.nodes(1)
        self._inflow = mesh.boundary_nodes([inflow], 2)
        self.inflow_points = self.velocity_points[self._inflow]
        fixed = mesh.boundary_nodes([inflow, *walls], 2)
        on_wall = torch.zeros(len(self.velocity_points), dtype=torch.bool)
        on_wall[mesh.boundary_nodes(walls, 2)] = True
        self._free_inflow = ~on_wall[self._inflow]
        named = sum(len(mesh.boundary_edges[name]) for name in {inflow, *walls})
        if named == int((mesh.edge_counts == 1).sum()):
            raise ConfigError(
                f"inflow {inflow!r} and walls {walls} are the whole boundary; leave an outflow, or nothing fixes the "
                "level of the pressure"
            )

        self._elements = Elements(mesh, 2, FORCE_DEGREE)
        stiffness, (d_x, d_y) = taylor_hood_matrices(mesh)
        stiffness = self.viscosity * stiffness
        matrix = block_array([[stiffness, None, -d_x.T], [None, stiffness, -d_y.T], [-d_x, -d_y, None]]).tocsc()
        n2, n1 = len(self.velocity_points), len(self.pressure_points)
        free = np.ones(2 * n2 + n1, dtype=bool)
        free[fixed.numpy()] = free[n2 + fixed.numpy()] = False
        self._free = np.flatnonzero(free)
        self._matrix = matrix
        try:
            self._factors = splu(matrix[self._free][:, self._free], permc_spec="COLAMD")
        except RuntimeError as error:
            raise SolverError(f"the Stokes matrix of this mesh has no factorisation: {error}") from None

    def solve(self, inflow: Tensor | AtPoints, force: AtPoints | None = None) -> tuple[Tensor, Tensor]:
        """Velocity ``(B, 2, N2)`` and pressure ``(B, 1, N1)`` at the nodes, float64.

        ``inflow``: velocity along x at ``inflow_points``, ``(B, n)``, or a function of points ``(n, 2)`` to that; what
        it says on walls is not used. ``force``: function of points ``(Q, 2)`` to a force per volume ``(2, Q)``.
        Raises ``DataError`` for another shape or values that are not finite.
        """
        profile = self._checked("inflow", inflow(self.inflow_points) if callable(inflow) else inflow)
        n2, n1 = len(self.velocity_points), len(self.pressure_points)
        given = torch.zeros(len(profile), 2 * n2 + n1, dtype=torch.float64)
        given[:, self._inflow[self._free_inflow]] = profile[:, self._free_inflow]
        solution = given.numpy().T.copy()
        right = -(self._matrix @ solution)[self._free]
        if force is not None:
            right += self._load(force)[self._free, None]
        solution[self._free] = self._factors.solve(np.asfortranarray(right))
        solved = torch.as_tensor(solution.T.copy())
        if not bool(torch.isfinite(solved).all()):
            raise SolverError("the Stokes flow is not finite; check the mesh and the size of the inflow")
        return solved[:, : 2 * n2].unflatten(1, (2, n2)), solved[:, 2 * n2 :].unsqueeze(1)

    def evaluate(self, velocity: Tensor, pressure: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The finite-element functions ``(B, 2, P)`` and ``(B, 1, P)`` at any ``points (P, 2)`` of the domain.

        ``velocity`` and ``pressure``: from ``solve``. Raises ``DataError`` for points outside the mesh.
        """
        triangles, local = self.mesh.locate(points)
        parts = []
        for degree, nodal in ((2, velocity), (1, pressure)):
            values, _ = shape_functions(degree, local)
            parts.append((nodal[..., self.mesh.triangle_nodes(degree)[triangles]] * values).sum(-1))
        return parts[0], parts[1]

    def _load(self, force: AtPoints) -> np.ndarray:
        elements = self._elements
        values = force(elements.points.reshape(-1, 2)).double()
        expected = (2, elements.weights.numel())
        if values.shape != expected or not bool(torch.isfinite(values).all()):
            raise DataError(f"force gives {tuple(values.shape)}; expected finite values {expected}")
        local = torch.einsum(
            "tq,ctq,qn->ctn", elements.weights, values.unflatten(1, elements.weights.shape), elements.values
        )
        load = torch.zeros(2, elements.n_nodes, dtype=torch.float64)
        load.index_add_(1, elements.numbers.flatten(), local.flatten(1))
        return np.concatenate([load.flatten().numpy(), np.zeros(len(self.pressure_points))])

    def _checked(self, name: str, values: Tensor) -> Tensor:
        expected = len(self.inflow_points)
        if values.ndim != 2 or values.shape[1] != expected:
            raise DataError(f"{name} has shape {tuple(values.shape)}; expected (cases, {expected})")
        values = values.detach().to("cpu", torch.float64)
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"{name} of case {int((~torch.isfinite(values)).any(1).nonzero()[0])} is not finite")
        return values

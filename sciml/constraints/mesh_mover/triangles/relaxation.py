"""The classical mover of a triangulation: descent on Huang's functional."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.descent import descend
from sciml.constraints.mesh_mover.triangles.fans import fan_excess
from sciml.constraints.mesh_mover.triangles.functional import ALIGNMENT, Density, huang_functional
from sciml.constraints.mesh_mover.triangles.monitors import check_triangle_monitor
from sciml.constraints.mesh_mover.triangles.quality import folded_triangles
from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.errors import ConfigError, DataError
from sciml.physics.weak.elements import Elements, stiffness_matrix
from sciml.physics.weak.sparse import DenseEnergy, SparseEnergy, energy_of


@dataclass(frozen=True)
class RelaxedTriangles:
    """Moved nodes ``points (B, N, 2)``, metres; of each sample the ``functional (B,)``, the ``iterations (B,)`` of the
    descent and whether it ``converged (B,)``.
    """

    points: Tensor
    functional: Tensor
    iterations: Tensor
    converged: Tensor


def relax(
    monitor: Density,
    triangulation: Triangulation,
    *,
    reference: str = "mesh",
    alignment: float = ALIGNMENT,
    iterations: int = 100,
    tolerance: float = 1e-3,
    start: Tensor | None = None,
) -> RelaxedTriangles:
    """The nodes moved to where the monitor wants them: the descent of ``huang_functional``, never folded.

    ``monitor``: positive values ``(B, N)`` at the nodes of the fixed mesh, or a function of points ``(B, P, 2) -> (B,
    P)`` (then of ``start``'s batch, or of one). ``reference``, ``alignment``: see ``huang_functional``. ``start (B, N,
    2)``: nodes to begin from, by default the fixed ones; a network's mesh, say, to be polished in few ``iterations``.
    ``tolerance``: decrease of the functional, relative, that a step must promise to go on. Any domain that can be
    triangulated.

    Raises ``ConfigError`` for another reference, ``DataError`` for a monitor that is not positive and finite, and a
    start of a wrong shape or folded.
    """
    if iterations < 0 or tolerance < 0:
        raise ConfigError(f"iterations is {iterations} and tolerance {tolerance}; expected neither to be negative")
    points = _started(monitor, triangulation, start)
    solver = displacement_energy(triangulation, points)

    def functional(amounts: Tensor) -> Tensor:
        moved = triangulation.move(triangulation.expand(amounts))
        return huang_functional(moved, triangulation, monitor, reference=reference, alignment=alignment)

    found = descend(
        functional,
        triangulation.reduce(triangulation.displacement(points)),
        # of the second derivatives at the fixed mesh this is the order of magnitude: 1 over the area
        lambda gradient: triangulation.area * solver.dual(gradient),
        iterations=iterations,
        tolerance=tolerance,
        longest=triangulation.size,
    )
    moved = triangulation.move(triangulation.expand(found.x))
    return RelaxedTriangles(moved, found.values, found.iterations, found.converged)


def displacement_energy(triangulation: Triangulation, like: Tensor) -> DenseEnergy | SparseEnergy:
    """int |grad v|^2 of admissible displacements v, linear on triangles, in their degrees of freedom ``(n,)``.

    Its ``dual(f)`` solves -Lap v = f: the smooth displacement that follows a force at the nodes.
    """
    key = ("displacement", like.device, like.dtype)
    return triangulation.kept(key, lambda: _made(triangulation, like))


def _made(triangulation: Triangulation, like: Tensor) -> DenseEnergy | SparseEnergy:
    from scipy.sparse import csr_array  # here: only meshes of triangles need it

    stiffness = stiffness_matrix(Elements(triangulation.mesh, 1, 1))
    tables = triangulation.tables(triangulation.points)
    count, n_dofs = triangulation.n_nodes, len(tables.dof_nodes)
    rows, columns = tables.dof_nodes.numpy(), torch.arange(n_dofs).numpy()
    matrix = 0
    for direction in tables.dof_directions.T.numpy():
        basis = csr_array((direction, (rows, columns)), shape=(count, n_dofs))
        matrix = matrix + basis.T @ stiffness @ basis
    return energy_of(matrix.tocsr(), dtype=like.dtype, device=like.device)


def _started(monitor: Density, triangulation: Triangulation, start: Tensor | None) -> Tensor:
    if isinstance(monitor, Tensor):
        check_triangle_monitor(monitor, triangulation)
    if start is None:
        like = monitor if isinstance(monitor, Tensor) else triangulation.points
        batch = len(monitor) if isinstance(monitor, Tensor) else 1
        return triangulation.tables(like).points.expand(batch, -1, -1)
    triangulation.check_nodes(start, "the nodes to start from")
    if isinstance(monitor, Tensor) and len(monitor) not in (1, len(start)):
        raise DataError(f"{len(monitor)} monitors were given for {len(start)} meshes to start from")
    bad = ~torch.isfinite(start).flatten(1).all(1) | (folded_triangles(start, triangulation) > 0)
    bad |= ~(fan_excess(start, triangulation) < 1).all(1)
    if bool(bad.any()):
        raise DataError(
            f"the mesh of sample {int(bad.nonzero()[0])} to start from is folded or not finite; scale it back first, "
            "by unfolded_triangles"
        )
    return start.detach()

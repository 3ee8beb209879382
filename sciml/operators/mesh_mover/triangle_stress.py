"""From stresses at the nodes of a triangulation to smooth displacements: the elliptic part of a triangle mover."""

from __future__ import annotations

from torch import Tensor

from sciml.constraints.mesh_mover.triangles import Triangulation, displacement_energy
from sciml.physics.weak.elements import Elements, gradient_matrices
from sciml.physics.weak.sparse import SparseMap


def displacement_of_stress(stress: Tensor, triangulation: Triangulation) -> Tensor:
    """The admissible displacement d ``(B, N, 2)``, metres, with int grad d : grad v = int S : grad v for all v.

    ``stress (B, 3, N)``: s_xx, s_xy, s_yy of the symmetric S at the nodes, linear on triangles. For S = s I this is
    -Lap d = -grad s, so d is the gradient of a potential with Laplacian s where the boundary is far away: s is how much
    a neighbourhood grows. Whatever S, the displacement is continuous, slides on the boundary, and sees the whole
    domain.
    """
    stiff = displacement_energy(triangulation, stress)
    forces = _divergence(triangulation, stress)(stress.flatten(1)).unflatten(-1, (2, -1)).mT
    return triangulation.expand(stiff.dual(triangulation.reduce(forces)))


def _divergence(triangulation: Triangulation, like: Tensor) -> SparseMap:
    """``(2 N, 3 N)``: int S : grad v for the shape functions v of the nodes, along x, then along y."""
    return triangulation.kept(("divergence", like.device, like.dtype), lambda: _made(triangulation, like))


def _made(triangulation: Triangulation, like: Tensor) -> SparseMap:
    from scipy.sparse import block_array  # here: only meshes of triangles need it

    elements = Elements(triangulation.mesh, 1, 2)
    along_x, along_y = (matrix.T for matrix in gradient_matrices(elements, elements))
    matrix = block_array([[along_x, along_y, None], [None, along_x, along_y]]).tocsr()
    return SparseMap(matrix, dtype=like.dtype, device=like.device)

"""First and second derivatives at the nodes of a triangulation, recovered from values at the nodes around.

Zienkiewicz and Zhu, Int. J. Numer. Meth. Eng. 33 (1992) 1331 (patches); Vallet et al., Int. J. Numer. Meth. Eng. 72
(2007) 899 (quadratic fits for the Hessian among other ways).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.errors import DataError
from sciml.physics.weak.sparse import SparseMap

RINGS = 2
"""Rings of neighbours that the patch of a node begins with; it grows until the fit has one solution."""

DEFICIENT = 1e-4
"""Least singular value of a patch's fit over the largest (lengths in units of the patch), below which it grows."""


def recovery_matrix(triangulation: Triangulation) -> SparseMap:
    """Node values ``(*, N)`` -> ``(*, 5 N)``: d_x, d_y, d_xx, d_xy, d_yy at all nodes, one after the other.

    Of the quadratic polynomial that fits the values at the nodes within two rings best (least squares): exact for
    quadratic functions, up to the boundary. Kept by the triangulation. Float64, CPU.

    Raises ``DataError`` where the whole mesh has too few nodes for a quadratic polynomial.
    """
    return triangulation.kept("recovery", lambda: _made(triangulation))


def _made(triangulation: Triangulation) -> SparseMap:
    from scipy.sparse import csr_array, eye_array  # here: only meshes of triangles need it

    points, count = triangulation.points, triangulation.n_nodes
    first, second = torch.cat([triangulation.mesh.edges, triangulation.mesh.edges.flip(1)]).T.numpy()
    step = csr_array((torch.ones(len(first)).numpy(), (first, second)), shape=(count, count)) + eye_array(count)
    reach = step.tocsr()
    for _ in range(RINGS - 1):
        reach = (reach @ step).tocsr()
    rows, columns, weights = [], [], []
    left = torch.arange(count)
    while len(left):
        patches, inside = _padded(reach, left)
        fits, good = _fits(points, left, patches, inside)
        grown = (reach @ step).tocsr()
        if not bool(good.all()) and grown.nnz == reach.nnz:
            raise DataError(
                f"the triangulation of {count} nodes has too few around node {int(left[~good][0])} for second "
                "derivatives; use a finer mesh"
            )
        of_nodes, members = inside[good].nonzero(as_tuple=True)
        for k in range(5):
            rows.append(left[good][of_nodes] + k * count)
            columns.append(patches[good][of_nodes, members])
            weights.append(fits[good][of_nodes, k, members])
        left, reach = left[~good], grown
    entries = torch.cat(weights).numpy(), (torch.cat(rows).numpy(), torch.cat(columns).numpy())
    return SparseMap(csr_array(entries, shape=(5 * count, count)), dtype=torch.float64)


def _padded(reach, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes ``(n, most)`` of the patches of ``nodes``, and which of them are meant (the rest fills up)."""
    starts = torch.as_tensor(reach.indptr).long()
    sizes = starts.diff()[nodes]
    offsets = torch.arange(int(sizes.max()))
    inside = offsets < sizes.unsqueeze(1)
    places = torch.where(inside, starts[nodes].unsqueeze(1) + offsets, 0)
    return torch.as_tensor(reach.indices).long()[places], inside


def _fits(points: Tensor, nodes: Tensor, patches: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Weights ``(n, 5, most)`` of a patch's values in the derivatives, and which fits have one solution ``(n,)``."""
    away = points[patches] - points[nodes].unsqueeze(1)
    scale = (away.norm(dim=-1) * inside).amax(1)[:, None, None]
    x, y = (away / scale).unbind(-1)
    terms = torch.stack([torch.ones_like(x), x, y, x * x / 2, x * y, y * y / 2], -1) * inside.unsqueeze(-1)
    left, sizes, right = torch.linalg.svd(terms, full_matrices=False)
    good = (inside.sum(1) >= 6) & (sizes[:, -1] > DEFICIENT * sizes[:, 0])
    inverse = right.mT @ (left / torch.where(sizes > 0, sizes, 1).unsqueeze(1)).mT  # (n, 6, most)
    powers = torch.tensor([1, 1, 2, 2, 2]).unsqueeze(-1)
    return inverse[:, 1:] / scale**powers, good

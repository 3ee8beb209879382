"""Linear and quadratic Lagrange elements on triangles: shape functions, quadrature, matrices.

Ciarlet, The Finite Element Method for Elliptic Problems, 1978, section 2.2; quadrature of Strang and Fix, An Analysis
of the Finite Element Method, 1973, section 4.3, with the collapsed product of Gauss rules for higher degrees.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics.weak.mesh import TriangleMesh, check_degree
from sciml.physics.weak.quadrature import gauss_legendre, tensor_product

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def shape_functions(degree: int, local: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(q, n)`` and gradients ``(q, n, 2)`` at ``local (q, 2)`` in the triangle (0, 0), (1, 0), (0, 1).

    Degree 1: n = 3, one a vertex; degree 2: n = 6, those of the vertices and then of the edges 01, 12, 20.
    """
    check_degree(degree)
    slopes = local.new_tensor([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]])
    corners = torch.cat([1 - local.sum(-1, keepdim=True), local], -1)  # barycentric coordinates
    if degree == 1:
        return corners, slopes.expand(len(local), 3, 2)
    following = corners.roll(-1, -1)
    values = torch.cat([corners * (2 * corners - 1), 4 * corners * following], -1)
    at_vertices = (4 * corners - 1).unsqueeze(-1) * slopes
    at_edges = 4 * (corners.unsqueeze(-1) * slopes.roll(-1, 0) + following.unsqueeze(-1) * slopes)
    return values, torch.cat([at_vertices, at_edges], 1)


def triangle_quadrature(exact: int) -> tuple[Tensor, Tensor]:
    """Points ``(q, 2)`` and weights ``(q,)`` on the triangle (0, 0), (1, 0), (0, 1), float64.

    Exact for polynomials up to the degree ``exact``: 1, 3, 6 and 7 points up to the degrees 1, 2, 4 and 5, beyond that
    the square of a whole number. Raises ``ConfigError`` for a degree below 1.
    """
    if isinstance(exact, bool) or not isinstance(exact, int) or exact < 1:
        raise ConfigError(
            f"the degree that the quadrature is exact for is {exact!r}; expected a whole number, 1 or more"
        )
    if exact <= 5:
        # orbits of three points: weight (of area 1) and the coordinate that two of the three barycentric ones share
        centre, orbits = _symmetric_rule(exact)
        corners = [torch.full((1, 3), 1 / 3, dtype=torch.float64)] if centre else []
        weights = [centre] if centre else []
        for weight, shared in orbits:
            point = torch.tensor([1 - 2 * shared, shared, shared], dtype=torch.float64)
            corners += [point.roll(turn).unsqueeze(0) for turn in range(3)]
            weights += [weight] * 3
        return torch.cat(corners)[:, 1:], torch.tensor(weights, dtype=torch.float64) / 2
    # (s, t) in the square -> (s, (1 - s) t): the factor 1 - s costs one degree along s
    count = exact // 2 + 1
    square, weights = tensor_product([gauss_legendre((exact + 1) // 2 + 1), gauss_legendre(count)])
    s, t = square.unbind(1)
    return torch.stack([s, (1 - s) * t], 1), weights * (1 - s)


def _symmetric_rule(exact: int) -> tuple[float, list[tuple[float, float]]]:
    if exact == 1:
        return 1.0, []
    if exact == 2:
        return 0.0, [(1 / 3, 1 / 6)]
    if exact <= 4:
        root = math.sqrt(38 - 44 * math.sqrt(0.4))
        shared = [(8 - math.sqrt(10) + sign * root) / 18 for sign in (1, -1)]
        root = math.sqrt(213125 - 53320 * math.sqrt(10))
        weights = [(620 + sign * root) / 3720 for sign in (1, -1)]
        return 0.0, list(zip(weights, shared, strict=True))
    root = math.sqrt(15)
    return 0.225, [((155 + sign * root) / 1200, (6 + sign * root) / 21) for sign in (1, -1)]


class Elements:
    """Shape functions of one degree at the quadrature points of every triangle of a mesh, float64.

    ``values (q, n)``, ``gradients (T, q, n, 2)``, ``weights (T, q)``, ``points (T, q, 2)``, ``numbers (T, n)`` of the
    nodes.
    """

    def __init__(self, mesh: TriangleMesh, degree: int, exact: int) -> None:
        local, weights = triangle_quadrature(exact)
        self.values, slopes = shape_functions(degree, local)
        self.gradients = torch.einsum("qnk,tki->tqni", slopes, torch.linalg.inv(mesh.jacobians))
        self.weights = 2 * mesh.areas.unsqueeze(1) * weights
        origin = mesh.vertices[mesh.triangles[:, 0]]
        self.points = origin.unsqueeze(1) + torch.einsum("tik,qk->tqi", mesh.jacobians, local)
        self.numbers = mesh.triangle_nodes(degree)
        self.n_nodes = len(mesh.nodes(degree))


def mass_matrix(elements: Elements) -> csr_array:
    """int v_i v_j, ``(N, N)``."""
    local = torch.einsum("tq,qi,qj->tij", elements.weights, elements.values, elements.values)
    return assembled(elements, elements, local)


def stiffness_matrix(elements: Elements) -> csr_array:
    """int grad v_i . grad v_j, ``(N, N)``."""
    local = torch.einsum("tq,tqid,tqjd->tij", elements.weights, elements.gradients, elements.gradients)
    return assembled(elements, elements, local)


def gradient_matrices(rows: Elements, columns: Elements) -> list[csr_array]:
    """int q_i d v_j / d x_k for k = 0, 1: ``(N_rows, N_columns)`` each; both on the same points."""
    local = torch.einsum("tq,qi,tqjd->dtij", rows.weights, rows.values, columns.gradients)
    return [assembled(rows, columns, part) for part in local]


def assembled(rows: Elements, columns: Elements, local: Tensor) -> csr_array:
    """The sum ``(N_rows, N_columns)`` of the matrices ``local (T, n_rows, n_columns)`` of the triangles."""
    from scipy.sparse import coo_array  # here: only meshes of triangles need it

    i = rows.numbers.unsqueeze(2).expand_as(local).flatten()
    j = columns.numbers.unsqueeze(1).expand_as(local).flatten()
    shape = (rows.n_nodes, columns.n_nodes)
    return coo_array((local.flatten().numpy(), (i.numpy(), j.numpy())), shape=shape).tocsr()

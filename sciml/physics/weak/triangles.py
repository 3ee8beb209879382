"""Linear or quadratic finite elements on triangles as test functions: residuals and their dual norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.elements import Elements, assembled, stiffness_matrix
from sciml.physics.weak.fields import Fields
from sciml.physics.weak.mesh import TriangleMesh
from sciml.physics.weak.sparse import SparseMap, energy_of


class TriangleSpace:
    """Test functions v_j: the shape functions of the nodes that are not on a Dirichlet boundary.

    ``degree``: 1, linear, nodes at the vertices, or 2, quadratic, and at the midpoints of edges. ``dirichlet``: names
    of boundaries of the mesh; on the rest the natural condition flux . n = 0 belongs to the weak form. ``order``:
    degree of polynomials that the quadrature is exact for, by default that of the product of two shape functions.

    ``points (Q, 2)`` and ``weights (Q,)``: quadrature points, those of a triangle one after the other; ``nodes (N,
    2)``: all nodes; ``free (J,)``: which of them have a test function. The norm of test functions is int |grad v|^2.
    Matrices are made in float64. Raises ``ConfigError`` for another degree, an unknown boundary, no Dirichlet boundary
    (constants would have no energy), a mesh without a free node; ``DataError`` for tensors of a wrong shape.
    """

    dim = 2

    def __init__(
        self,
        mesh: TriangleMesh,
        degree: int = 1,
        *,
        dirichlet: Iterable[str],
        order: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        from scipy.sparse import diags_array, vstack  # here: only meshes of triangles need it

        self.mesh, self.degree, self.dtype, self.device = mesh, degree, dtype, torch.device(device)
        self.dirichlet = frozenset([dirichlet] if isinstance(dirichlet, str) else dirichlet)
        fixed = mesh.boundary_nodes(sorted(self.dirichlet), degree)
        self.order = 2 * degree if order is None else order
        elements = Elements(mesh, degree, self.order)
        free = torch.ones(elements.n_nodes, dtype=torch.bool)
        free[fixed] = False
        if not self.dirichlet or not bool(free.any()):
            raise ConfigError(
                f"of {len(free)} nodes {len(fixed)} lie on the Dirichlet boundaries {sorted(self.dirichlet)}; expected "
                "at least one on them and one off them"
            )
        self.free = free.nonzero().flatten().to(self.device)
        self.points = elements.points.reshape(-1, 2).to(self.device, dtype)
        self.weights = elements.weights.reshape(-1).to(self.device, dtype)
        self.nodes = mesh.nodes(degree).to(self.device, dtype)

        # rows: the values at all points, then the derivatives by x, then by y
        values = elements.values.expand(len(mesh.triangles), -1, -1)
        at_points = _PointRows(elements)
        slopes = elements.gradients.unbind(-1)
        interpolation = vstack([assembled(at_points, elements, part) for part in (values, *slopes)]).tocsr()
        weight = elements.weights.reshape(-1).numpy()
        count, chosen = len(weight), free.numpy()
        weighted = diags_array(torch.as_tensor(weight).repeat(3).numpy()) @ interpolation
        self._interpolation = SparseMap(interpolation, dtype=dtype, device=self.device)
        # a transpose, as ``test`` sums over the points: flux and source apart, as often only one of them is given
        self._source = SparseMap(weighted[:count][:, chosen].T, dtype=dtype, device=self.device)
        self._flux = SparseMap(weighted[count:][:, chosen].T, dtype=dtype, device=self.device)
        stiffness = stiffness_matrix(elements if self.order >= 2 * (degree - 1) else Elements(mesh, degree, 2 * degree))
        self._energy = energy_of(stiffness[chosen][:, chosen], dtype=dtype, device=self.device)

    @property
    def n_tests(self) -> int:
        """J, the number of test functions."""
        return len(self.free)

    def test(self, flux: Tensor | None, source: Tensor | None) -> Tensor:
        """r_j = sum_q w_q (flux . grad v_j + source v_j), ``(B, J)``, of ``flux (B, Q, 2)`` and ``source (B, Q)``."""
        parts = []
        if flux is not None:
            self._check("flux", flux, (len(self.weights), 2))
            parts.append(self._flux(flux.mT.flatten(1)))
        if source is not None:
            self._check("source", source, (len(self.weights),))
            parts.append(self._source(source))
        if not parts:
            raise ConfigError("neither flux nor source is given; expected at least one")
        return sum(parts[1:], parts[0])

    def dual(self, r: Tensor) -> Tensor:
        """K^-1 r ``(B, J)`` of a residual ``r (B, J)``."""
        self._check("r", r, (self.n_tests,))
        return self._energy.dual(r)

    def dual_square(self, r: Tensor) -> Tensor:
        """r^T K^-1 r ``(B,)``: the square of the dual (H^-1) norm of the residual ``r (B, J)`` on this space."""
        self._check("r", r, (self.n_tests,))
        return self._energy.dual_square(r)

    def interpolate(self, nodal: Tensor) -> Fields:
        """The finite-element function of ``nodal (B, C, N)``, its values and gradients at the quadrature points."""
        if nodal.ndim != 3 or nodal.shape[-1] != len(self.nodes):
            raise DataError(f"nodal has shape {tuple(nodal.shape)}; expected (B, C, {len(self.nodes)})")
        rows = self._interpolation(nodal).unflatten(-1, (3, -1))
        return Fields(rows[:, :, 0], rows[:, :, 1:].mT)

    def _check(self, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if value.ndim != len(shape) + 1 or tuple(value.shape[1:]) != shape:
            raise DataError(f"{name} has shape {tuple(value.shape)}; expected (B, {', '.join(map(str, shape))})")


class _PointRows:
    """The quadrature points as the rows of a matrix that ``assembled`` fills."""

    def __init__(self, elements: Elements) -> None:
        self.n_nodes = elements.weights.numel()
        self.numbers = torch.arange(self.n_nodes).reshape(elements.weights.shape)

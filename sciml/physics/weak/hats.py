"""Finite-element hats on a box as test functions: Q1 elements, Gauss points, residuals and their dual norm.

The box is cut into equal cells; v_j is 1 at its node, 0 at every other, and a product of linear functions in each cell
(Ciarlet, The Finite Element Method for Elliptic Problems, 1978, section 2.2). With a solution of the form
u_h = sum_j u_j v_j the residuals of a weak form are the rows of its finite-element system.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.box import checked_box, checked_mass
from sciml.physics.weak.fields import Fields
from sciml.physics.weak.quadrature import gauss_legendre, tensor_product
from sciml.physics.weak.tensor_energy import TensorEnergy


class HatSpace:
    """Hats of the nodes that are not on a Dirichlet side, on a box of ``cells`` equal cells an axis, 1 to 3 axes.

    ``lengths`` and ``origin`` (default 0): sides and low corner of the box, in the units of the points. ``dirichlet``:
    names of sides (``x_low``, ``x_high``, ...) on which test functions vanish, all by default; on the others the
    natural condition flux . n = 0 belongs to the weak form. ``order``: Gauss points an axis and cell, exact to the
    degree 2 order - 1 in each coordinate. ``mass``: the norm of test functions is int |grad v|^2 + mass v^2 (in
    1/length^2), necessary where no side is fixed.

    ``points (Q, d)`` and ``weights (Q,)``: all Gauss points, those of a cell one after the other, cells in C order.
    ``nodes (N, d)``: all nodes in C order; ``free (J,)``: which of them have a test function. Matrices are made in
    float64. Raises ``ConfigError`` for arguments that make no mesh or no test function, ``DataError`` for tensors
    of a wrong shape.
    """

    def __init__(
        self,
        cells: Sequence[int],
        lengths: Sequence[float],
        *,
        origin: Sequence[float] | None = None,
        dirichlet: Iterable[str] | None = None,
        order: int = 2,
        mass: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        box = checked_box(lengths, origin, dirichlet)
        self.lengths, self.origin, self.dirichlet, self.dim = box.lengths, box.origin, box.dirichlet, box.dim
        self.cells, self.mass = _checked_cells(cells, self.dim), checked_mass(mass)
        if not self.dirichlet and self.mass == 0:
            raise ConfigError(
                "no side is a Dirichlet side, so constants are test functions without energy and the dual norm is "
                "infinite; give mass > 0, e.g. 1 / length^2, or name a side"
            )
        self.order, self.dtype, self.device = order, dtype, torch.device(device)
        self._free = [_free_range(n, axis, box.fixed(axis)) for axis, n in enumerate(self.cells)]
        self.spacings = tuple(length / n for length, n in zip(self.lengths, self.cells, strict=True))

        rule = gauss_legendre(order)
        local, weights = tensor_product([rule] * self.dim)
        self._n_local = len(weights)
        h = torch.tensor(self.spacings, dtype=torch.float64)
        low = torch.tensor(self.origin, dtype=torch.float64)
        cell = _lattice([torch.arange(n, dtype=torch.float64) for n in self.cells])
        node = _lattice([torch.arange(n + 1, dtype=torch.float64) for n in self.cells])
        weights = weights * h.prod()
        self.points = (low + (cell.unsqueeze(1) + local) * h).reshape(-1, self.dim).to(self.device, dtype)
        self.weights = weights.repeat(len(cell)).to(self.device, dtype)
        self.nodes = (low + node * h).to(self.device, dtype)
        numbers = torch.arange(len(node)).reshape([n + 1 for n in self.cells])
        for axis, (first, end) in enumerate(self._free):
            numbers = numbers.narrow(axis, first, end - first)
        self.free = numbers.reshape(-1).to(self.device)

        value, gradient = _corner_hats(local, h)  # (G, 2^d), (G, d, 2^d)
        self._values = value.T.to(self.device, dtype).contiguous()
        self._gradients = gradient.flatten(0, 1).T.to(self.device, dtype).contiguous()
        self._weighted_values = (weights[:, None] * value).to(self.device, dtype)
        self._weighted_gradients = (weights[:, None, None] * gradient).flatten(0, 1).to(self.device, dtype)
        self._energy = TensorEnergy(
            self.cells, self.spacings, self._free, mass=self.mass, dtype=dtype, device=self.device
        )

    @property
    def n_tests(self) -> int:
        """J, the number of test functions."""
        return len(self.free)

    def test(self, flux: Tensor | None, source: Tensor | None) -> Tensor:
        """r_j = sum_q w_q (flux . grad v_j + source v_j), ``(B, J)``, of ``flux (B, Q, d)`` and ``source (B, Q)``."""
        n_points, local = len(self.weights), None
        if flux is not None:
            self._check("flux", flux, (n_points, self.dim))
            local = flux.reshape(-1, self._n_local * self.dim) @ self._weighted_gradients
        if source is not None:
            self._check("source", source, (n_points,))
            rows = source.reshape(-1, self._n_local)
            local = rows @ self._weighted_values if local is None else local.addmm(rows, self._weighted_values)
        if local is None:
            raise ConfigError("neither flux nor source is given; expected at least one")
        # from the corners of the cells to the nodes: every node sums what the cells around it give
        local = local.reshape(-1, *self.cells, *(2,) * self.dim)
        for axis, (n, (first, end)) in enumerate(zip(self.cells, self._free, strict=True)):
            low, high = local.unbind(self.dim + 1)
            before = [0, 0] * (low.ndim - 2 - axis)
            local = F.pad(low, [*before, -first, end - n]) + F.pad(high, [*before, 1 - first, end - n - 1])
        return local.flatten(1)

    def dual_square(self, r: Tensor) -> Tensor:
        """r^T K^-1 r ``(B,)``: the square of the dual (H^-1) norm of the residual ``r (B, J)`` on this space."""
        self._check("r", r, (self.n_tests,))
        return self._energy.inverse_square(r)

    def dual(self, r: Tensor) -> Tensor:
        """K^-1 r ``(B, J)``: nodal values of the Riesz representative of the residual ``r (B, J)``."""
        self._check("r", r, (self.n_tests,))
        return self._energy.solve(r)

    def interpolate(self, nodal: Tensor) -> Fields:
        """The Q1 interpolant of nodal values ``(B, C, N)`` at the Gauss points, with its gradient."""
        if nodal.ndim != 3 or nodal.shape[2] != len(self.nodes):
            raise DataError(f"nodal values have shape {tuple(nodal.shape)}; expected (B, C, {len(self.nodes)})")
        corners = nodal.reshape(-1, *(n + 1 for n in self.cells))
        for axis, n in enumerate(self.cells):
            corners = torch.stack([corners.narrow(axis + 1, 0, n), corners.narrow(axis + 1, 1, n)], -1)
        corners, shape = corners.reshape(-1, 2**self.dim), (*nodal.shape[:2], len(self.weights))
        return Fields((corners @ self._values).reshape(shape), (corners @ self._gradients).reshape(*shape, self.dim))

    def at_points(self, cellwise: Tensor) -> Tensor:
        """``(B, *cells)``, one number a cell (a piecewise constant coefficient), at the Gauss points ``(B, Q)``."""
        self._check("the cellwise coefficient", cellwise, self.cells)
        return cellwise.reshape(-1, math.prod(self.cells), 1).expand(-1, -1, self._n_local).flatten(1)

    def extend(self, values: Tensor) -> Tensor:
        """Values ``(..., J)`` of the nodes with a test function to all nodes ``(..., N)``, 0 on Dirichlet sides."""
        whole = values.new_zeros(*values.shape[:-1], len(self.nodes))
        return whole.index_copy(-1, self.free, values)

    def _check(self, name: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if value.ndim != len(shape) + 1 or tuple(value.shape[1:]) != shape:
            expected = ", ".join(str(n) for n in shape)
            raise DataError(f"{name} has shape {tuple(value.shape)}; expected (B, {expected})")


def _lattice(axes: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))


def _corner_hats(local: Tensor, spacings: Tensor) -> tuple[Tensor, Tensor]:
    """Hats ``(G, 2^d)`` of the corners of a cell and their gradients ``(G, d, 2^d)`` at ``local (G, d)`` in [0, 1]."""
    dim = local.shape[1]
    corners = _lattice([torch.arange(2, dtype=torch.float64)] * dim)
    factors = torch.where(corners == 1, local.unsqueeze(1), 1 - local.unsqueeze(1))  # (G, 2^d, d)
    slopes = (2 * corners - 1) / spacings
    gradient = [slopes[:, axis] * factors[..., [k for k in range(dim) if k != axis]].prod(-1) for axis in range(dim)]
    return factors.prod(-1), torch.stack(gradient, 1)


def _checked_cells(cells: Sequence[int], dim: int) -> tuple[int, ...]:
    cells = tuple(cells)
    if len(cells) != dim or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in cells):
        raise ConfigError(f"cells are {cells}; expected {dim} whole number(s), 1 or more, one a length")
    return cells


def _free_range(cells: int, axis: int, fixed: tuple[bool, bool]) -> tuple[int, int]:
    """First node of an axis with a test function, and one past the last."""
    first, end = int(fixed[0]), cells + 1 - int(fixed[1])
    if first >= end:
        raise ConfigError(
            f"axis {axis} has {cells} cell between two Dirichlet sides: no test function is left; use two cells or more"
        )
    return first, end

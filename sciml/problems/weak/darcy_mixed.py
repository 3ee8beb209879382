"""Darcy flow in its mixed weak form: permeability of cells -> pressure and flux, each a field of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.physics.weak import Fields, darcy_balance_form, darcy_flux_mismatch
from sciml.problems.weak.base import Ansatz
from sciml.problems.weak.darcy import WeakDarcy


class WeakDarcyMixed(WeakDarcy):
    """s = a grad u, -div s = f in the unit square, u = 0 on its sides: the cases of ``WeakDarcy``.

    What is learned is u at the nodes of the mesh (then a bilinear finite element) and s at the Gauss points of its
    cells, where it may jump with a. The residual is that of the balance, int s . grad v_j - f v_j, in the dual norm,
    and of the law of Darcy, int |s - a grad u|^2 / a: with ``m`` the geometric mean of a case's permeability

        (r^T K^-1 r + m int |s - a grad u|^2 / a) / f^T K^-1 f

    zero at the finite-element solution of ``WeakDarcy`` and its flux alone. Solutions are stored and compared at the
    centres of the cells.
    """

    name = "darcy_mixed"
    title = "Darcy flow, pressure and flux"
    fields = (FieldInfo("pressure", 1, "Pa", order=0), FieldInfo("flux", 2, "m/s", order=1))

    def __init__(self, subset: str | None = None, resolution: int | None = None) -> None:
        super().__init__(subset, resolution)
        self.points = self.input_points

    @property
    def n_residuals(self) -> int:
        """Hats, and both components of the law of Darcy at every Gauss point."""
        space = self.space(self.input_points)
        return space.n_tests + 2 * len(space.points)

    def solve(self, inputs: Tensor, refine: int = 1) -> Tensor:
        """Pressure and flux ``(B, 3, N)`` at the centres of the cells, of the finite-element solution."""
        n, count = self.cells, len(inputs)
        nodal = self.solve_finely(inputs, refine)
        space = self.space(nodal, refine)
        cells = self.cellwise(inputs, refine)
        solution = space.interpolate(nodal.unsqueeze(1))
        # The mean over the Gauss points of a cell is the value at its centre: there is no higher term than x y.
        value = solution.value[:, 0].reshape(count, -1, 4).mean(-1)
        slope = solution.gradient[:, 0].reshape(count, -1, 4, 2).mean(2)
        fine = torch.stack([value, *(cells.flatten(1).unsqueeze(-1) * slope).unbind(-1)], 1)
        # The fine cells at the centre of a coarse one: the one in the middle, or four around it.
        blocks = fine.reshape(count, 3, n, refine, n, refine)
        middle = slice((refine - 1) // 2, refine // 2 + 1)
        return blocks[:, :, :, middle, :, middle].mean((3, 5)).flatten(2)

    def collocation(self, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """The nodes, then the Gauss points."""
        space = self.space(like)
        return torch.cat([space.nodes, space.points])

    def residual_square(self, points: Tensor, candidate: Fields | Tensor, inputs: Tensor) -> Tensor:
        """Balance and law of Darcy together, relative to f."""
        assert isinstance(candidate, Tensor)
        space = self.space(candidate)
        count = len(space.nodes)
        coefficient = space.at_points(inputs.unflatten(1, self.shape(1)))
        pressure = space.interpolate(candidate[:, :1, :count])
        flux = candidate[:, 1:, count:]
        # The forms read no gradient of the flux.
        fields = Fields(
            torch.cat([pressure.value, flux], 1),
            torch.cat([pressure.gradient, torch.zeros_like(flux).unsqueeze(-1).expand(-1, -1, -1, 2)], 1),
        )
        balance = darcy_balance_form(space, self.density).square(fields)
        law = inputs.log().mean(1).exp() * darcy_flux_mismatch(space, fields, coefficient)
        return (balance + law) / self.lift_square(space, coefficient)

    def ansatz(self, points: Tensor, inputs: Tensor, gradient: bool = False) -> Ansatz:
        """u = unit sin(pi x) sin(pi y) N_1, s = f (sin(pi y) N_2, sin(pi x) N_3) / (10 m): no flux along a side."""
        pressure = super().ansatz(points, inputs, gradient)
        size = self.density / 10
        x, y = (math.pi * points).unbind(-1)
        factor = torch.cat([pressure.factor, size * torch.stack([y.sin(), x.sin()])])
        zero = factor.new_zeros(1, 3, 1)
        if pressure.factor_gradient is None:
            return Ansatz(zero, factor)
        none = torch.zeros_like(x)
        along = size * math.pi * torch.stack([torch.stack([none, y.cos()], -1), torch.stack([x.cos(), none], -1)])
        return Ansatz(zero, factor, zero.unsqueeze(-1), torch.cat([pressure.factor_gradient, along]))

"""The vorticity equation on a periodic box: nine terms, u, v, w_x, w_y of two frames and a linear one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sciml.constraints.mixture_of_experts.equation import column, face_pair
from sciml.constraints.mixture_of_experts.evolution import EvolutionEquation, levels
from sciml.physics import VorticityEquation


class VorticityOnTiles(EvolutionEquation):
    """The spectral terms of ``sciml.physics.VorticityEquation``; the velocity by Biot and Savart's law.

    Velocity and gradient are those of the modes that the 2/3 rule keeps, as there; their product is taken point by
    point and keeps the modes above the cut, which the problem's residual drops: the two agree in every mode that the
    rule keeps. The velocity of a basis field is that of the field on the whole box, so that within a tile the equation
    is that of the stream function: continuous across tiles have to be w, nu dw/dn *and* both velocity components (in
    box lengths per duration).

    ``equation``: box, viscosity, drag and source in float64; ``initial (B, nx, ny)``, ``times (B, T)``, ``unit (B,)``
    of the vorticity.
    """

    name: ClassVar[str] = "vorticity"
    field_name = "vorticity"

    def __init__(self, equation: VorticityEquation, initial: Tensor, times: Tensor, unit: Tensor) -> None:
        box = equation.box
        super().__init__(initial, times, box.lengths, unit, equation.viscosity, periodic=True, ramp="linear")
        self.equation, self.box = equation, box
        source = equation.source
        forcing = torch.zeros_like(self.initial) if source is None else self._kept(source)[:, 0]
        self.coefficients = (self.row_scale, forcing.unsqueeze(1))

    def _kept(self, field: Tensor) -> Tensor:
        return self.box.inverse(self.box.forward(field) * self.box.dealias)

    def lift(self, basis: Tensor) -> Tensor:
        """Without the mean over the box, as that of every periodic vorticity is zero."""
        lifted = super().lift(basis)
        return lifted - lifted.mean((-2, -1), keepdim=True)

    def _velocity(self, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        stream = -self.box.inverse_laplacian(spectrum)
        return self.box.inverse(self.box.derivative(stream, 1)), -self.box.inverse(self.box.derivative(stream, 0))

    def terms(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, ...]:
        """u, v, w_x, w_y of the first frame and of the second; dw/dt less the mean of viscosity and drag."""
        spectrum = self.box.forward(field.flatten(1, 2))
        kept = spectrum * self.box.dealias
        linear = self.box.inverse(self.equation.linear * spectrum)
        slopes = [self.box.inverse(self.box.derivative(kept, axis)) for axis in (0, 1)]
        both = [
            levels(term.unflatten(1, field.shape[1:3])) for term in (*self._velocity(kept), *slopes, linear)
        ]  # (first, second) of every term
        damping = 0.5 * sum(both.pop())
        return (*(term for level in zip(*both, strict=True) for term in level), self.change(field) - damping)

    def function(self, values: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
        u0, v0, x0, y0, u1, v1, x1, y1, linear = values
        scale, source = coefficients
        return scale * (linear + 0.5 * (u0 * x0 + v0 * y0 + u1 * x1 + v1 * y1) - source)

    def quantities(self, axis: int) -> int:
        return 1 if axis == 0 else 4

    def space_traces(self, field: Tensor, axis: int, positions: Sequence[int]) -> Tensor:
        vorticity = super().space_traces(field, axis, positions)
        velocity = self._velocity(self.box.forward(field.flatten(1, 2)))
        means = [face_pair(part.unflatten(1, field.shape[1:3]), axis, positions)[0] for part in velocity]
        unit = column(self.lengths[:, axis - 1] / self.times[:, -1], field.ndim + 1)
        return torch.cat([vorticity, torch.stack(means, 2) / unit], 2)

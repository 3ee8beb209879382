"""Diffusion with sorption, u_t = D u_xx / R(u): four terms, the value and D u_xx of both frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sciml.constraints.mixture_of_experts.equation import column, fold, repeat
from sciml.constraints.mixture_of_experts.evolution import EvolutionEquation, levels
from sciml.physics import Soil, retardation, solute_flux


class SorptionOnTiles(EvolutionEquation):
    """The finite volumes of ``sciml.physics.sorption_residual``, boundary conditions included.

    ``initial (B, n)``, ``times (B, T)``; ``soil``, ``length (B,)``, ``inlet (B,)``, ``exit_velocity`` as there. The
    unit is the inlet's concentration. The initial field jumps at the inlet, so the ramp is a step.
    """

    name: ClassVar[str] = "diffusion_sorption"
    field_name = "concentration"

    def __init__(
        self, initial: Tensor, times: Tensor, soil: Soil, length: Tensor, inlet: Tensor, exit_velocity: float
    ) -> None:
        super().__init__(initial, times, length[:, None], inlet, soil.diffusivity, periodic=False, ramp="step")
        self.soil = soil.to(self.initial)
        self.inlet, self.exit_velocity = inlet.to(self.initial), exit_velocity
        constants = [getattr(self.soil, name) for name in self.soil.__dataclass_fields__]
        shaped = [column(value, 3) for value in constants]
        self.coefficients = (*shaped, self.row_scale, self.step[:, :, None])
        # From the initial field, often near 0 where R is steep, one in four searches ended in a wrong minimum.
        self.guess = self.inlet[:, None, None].expand(-1, *self.shape)

    def terms(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, ...]:
        """u_0, u_1, (D u_xx)_0, (D u_xx)_1."""
        batch, count, frames, cells = field.shape
        each = count * frames
        inlet = torch.zeros_like(self.inlet) if homogeneous else self.inlet
        soil = Soil(*(repeat(getattr(self.soil, name), each) for name in self.soil.__dataclass_fields__))
        length = repeat(self.lengths[:, 0], each)
        flux = solute_flux(fold(fold(field)), soil, length, repeat(inlet, each), self.exit_velocity)
        diffusion = -flux.diff(dim=1) * (cells / length)[:, None]
        return (*levels(field), *levels(diffusion.reshape(batch, count, frames, cells)))

    def function(self, values: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
        before, after, diffusion_before, diffusion_after = values
        *constants, scale, step = coefficients
        soil = Soil(*(value.flatten(1)[:, 0] for value in constants))
        mean = sum(
            diffusion / retardation(u.flatten(1), soil).reshape(u.shape)
            for u, diffusion in ((before, diffusion_before), (after, diffusion_after))
        )
        return scale * ((after - before) / step - 0.5 * mean)

    def conditions(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, Tensor]:
        """u = inlet at x = 0 and -D u_x = v u at x = L, for every frame but the first.

        Side values by linear extrapolation from two cells; the second row is divided by v, so that both are of order 1.
        """
        body = field[:, :, 1:]
        inlet = torch.zeros_like(self.inlet) if homogeneous else self.inlet
        low = 1.5 * body[..., 0] - 0.5 * body[..., 1] - column(inlet, 3)
        slope = (body[..., -1] - body[..., -2]) * column(body.shape[-1] / self.lengths[:, 0], 3)
        side = 1.5 * body[..., -1] - 0.5 * body[..., -2]
        high = side + column(self.soil.diffusivity, 3) * slope / self.exit_velocity
        rows = torch.cat([low, high], 2) / column(self.scale, 3)
        first = torch.arange(self.row_shape[0], device=field.device) * self.row_shape[1]
        return rows, torch.cat([first, first + self.row_shape[1] - 1])

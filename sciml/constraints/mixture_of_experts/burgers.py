"""Burgers' equation in one dimension, u_t + u u_x = nu u_xx: five terms, two factors of two frames and a linear one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sciml.constraints.mixture_of_experts.equation import column
from sciml.constraints.mixture_of_experts.evolution import EvolutionEquation, levels
from sciml.errors import ConfigError
from sciml.physics import burgers_box, odd_extension


class BurgersOnTiles(EvolutionEquation):
    """The spectral terms of ``sciml.physics.burgers_residual``, periodic or between walls.

    u and u_x are those of the modes that the 2/3 rule keeps, as there; their product is taken point by point and keeps
    the modes above the cut, which the problem's residual drops: the two agree in every mode that the rule keeps.

    ``initial (B, n)``, ``times (B, T)``, ``length``, ``viscosity``, ``amplitude (B,)``, the unit of the velocity.
    Raises ``ConfigError`` in more than one dimension.
    """

    name: ClassVar[str] = "burgers"
    field_name = "velocity"

    def __init__(
        self,
        initial: Tensor,
        times: Tensor,
        length: Tensor,
        viscosity: Tensor,
        amplitude: Tensor,
        *,
        walls: bool = False,
    ) -> None:
        if initial.ndim != 2:
            raise ConfigError(
                f"initial has shape {tuple(initial.shape)}; experts for Burgers' equation are one-dimensional: (B, n)"
            )
        super().__init__(initial, times, length[:, None], amplitude, viscosity, periodic=not walls, ramp="linear")
        self.walls = walls
        grid = self.shape[1:]
        self.box = burgers_box(grid, self.lengths, walls=walls, dtype=torch.float64, device=initial.device)
        self.coefficients = (self.row_scale,)

    def terms(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, ...]:
        """u_0, u_1, (u_x)_0, (u_x)_1 and (u_1 - u_0) / dt - nu (u_xx,0 + u_xx,1) / 2."""
        count, cells = field.shape[1], field.shape[3]
        spectrum = self.box.forward((odd_extension(field) if self.walls else field).flatten(1, 2))

        def physical(values: Tensor) -> Tensor:
            return self.box.inverse(values)[..., :cells].unflatten(1, (count, -1))

        kept = spectrum * self.box.dealias
        diffusion = column(self.diffusivity, 4) * physical(self.box.laplacian * spectrum)
        linear = self.change(field) - 0.5 * sum(levels(diffusion))
        return (*levels(physical(kept)), *levels(physical(self.box.derivative(kept, 0))), linear)

    def function(self, values: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
        before, after, slope_before, slope_after, linear = values
        return coefficients[0] * (linear + 0.5 * (before * slope_before + after * slope_after))

    def conditions(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, Tensor] | None:
        """u = 0 at the walls, by linear extrapolation from two cells, for every frame but the first."""
        if not self.walls:
            return None
        body = field[:, :, 1:] / column(self.scale, 4)
        low, high = (1.5 * body[..., i] - 0.5 * body[..., j] for i, j in ((0, 1), (-1, -2)))
        first = torch.arange(self.row_shape[0], device=field.device) * self.row_shape[1]
        return torch.cat([low, high], 2), torch.cat([first, first + self.row_shape[1] - 1])

"""Darcy flow, -div(a grad u) = f: one term, the finite-volume operator; the problem for the weights is linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sciml.constraints.mixture_of_experts.equation import Equation, column, face_pair, fold, repeat
from sciml.errors import DataError
from sciml.physics import darcy_operator, face_fluxes
from sciml.physics.boundary import sides
from sciml.physics.darcy import Sides, check_sides


class DarcyOnTiles(Equation):
    """The finite volumes of ``sciml.physics.darcy_residual``, boundary values included.

    ``permeability (B, nx, ny)``, ``source``, ``unit (B,)`` of the pressure, ``lengths (B, 2)``; ``boundaries``: side ->
    pressure (a number or ``(B,)``), or None for no flux. Raises ``ConfigError`` and ``DataError`` for bad ones.
    """

    name: ClassVar[str] = "darcy"

    def __init__(self, permeability: Tensor, source: Tensor, unit: Tensor, lengths: Tensor, boundaries: Sides) -> None:
        if permeability.ndim != 3 or not bool((torch.isfinite(permeability) & (permeability > 0)).all()):
            raise DataError(
                f"permeability {tuple(permeability.shape)} is not a positive finite field (B, nx, ny); check it"
            )
        self.permeability = permeability.double()
        check_sides(boundaries, 2)
        self.shape = self.row_shape = tuple(permeability.shape[1:])
        self.periodic = (False, False)
        self.lengths, self.scale = lengths.to(self.permeability), unit.to(self.permeability)
        self.boundaries = boundaries
        self.offset = torch.zeros_like(self.permeability)
        source = column(source.to(self.permeability), 3)
        self.coefficients = (source, 1 / source.abs().clamp(min=torch.finfo(torch.float64).tiny))

    @property
    def inputs(self) -> Tensor:
        """The logarithm of the permeability in units of source area / unit of the pressure."""
        unit = self.coefficients[0].flatten() * self.lengths.prod(1) / self.scale
        return (self.permeability / column(unit.abs(), 3)).log().unsqueeze(1)

    def _sides(self, homogeneous: bool, count: int) -> Sides:
        values = {}
        for side, value in self.boundaries.items():
            if value is None:
                values[side] = None
            elif homogeneous:
                values[side] = 0.0
            else:
                values[side] = repeat(torch.as_tensor(value).to(self.scale).expand(self.batch), count)
        return values

    def terms(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, ...]:
        """-div(a grad u)."""
        count = field.shape[1]
        applied = darcy_operator(
            fold(field), repeat(self.permeability, count), repeat(self.lengths, count), self._sides(homogeneous, count)
        )
        return (applied.unflatten(0, field.shape[:2]),)

    def function(self, values: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
        source, inverse = coefficients
        return inverse * (values[0] - source)

    def traces(self, field: Tensor, axis: int, positions: Sequence[int]) -> Tensor:
        """Pressure, and the flux -a du/dn in units of source times side."""
        count = field.shape[1]
        mean, _ = face_pair(field, axis, positions)
        fluxes = face_fluxes(
            fold(field), repeat(self.permeability, count), repeat(self.lengths, count), self._sides(True, count)
        )[axis]
        chosen = fluxes.unflatten(0, field.shape[:2]).movedim(axis + 2, 2)[:, :, list(positions)]
        unit = self.coefficients[1].reshape(-1) / self.lengths[:, axis]
        return torch.stack([mean / column(self.scale, 4), chosen * column(unit, 4)], 2)

    def conditions(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, Tensor]:
        """The pressure on the sides that have one, by linear extrapolation from two cells."""
        numbers = torch.arange(self.row_shape[0] * self.row_shape[1], device=field.device).reshape(self.row_shape)
        rows, places = [], []
        for side, (axis, end) in zip(sides(2), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
            value = self._sides(homogeneous, 1)[side]
            if value is None:
                continue
            i, j = (-1, -2) if end else (0, 1)
            near, next_ = field.select(axis + 2, i), field.select(axis + 2, j)
            value = value if isinstance(value, float) else column(value, 3)
            rows.append((1.5 * near - 0.5 * next_ - value) / column(self.scale, 3))
            places.append(numbers.select(axis, i))
        return torch.cat(rows, 2), torch.cat(places)

    def trajectory(self, field: Tensor) -> dict[str, Tensor]:
        """``permeability``, ``pressure (B, 1, 1, nx, ny)`` and ``time (B, 1)``."""
        time = torch.zeros(self.batch, 1, dtype=torch.float64, device=field.device)
        return {"permeability": self.permeability[:, None, None], "pressure": field[:, None, None], "time": time}

"""Equations in time: rows between two frames, trapezoidal, and the initial field imposed exactly.

    u(t_f, x) = u_0(x) + ramp(t_f) b(t_f, x),    ramp(0) = 0

so that no weights can change the first frame. Rows are those of the problem's own residual,
(u_1 - u_0) / dt - (R(u_0) + R(u_1)) / 2, pointwise in the terms of both frames, times (T - 1) dt / unit: the error that
an interval makes, in units of an even share of the field. Where all intervals are equal this is duration / unit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from sciml.constraints.mixture_of_experts.equation import Equation, column, face_pair
from sciml.errors import ConfigError, DataError

Ramp = Literal["linear", "step"]


class EvolutionEquation(Equation):
    """Base of equations u_t = R(u) for one field.

    ``initial (B, *grid)``; ``times (B, T)`` from 0, T >= 2; ``scale (B,)`` the unit of the field; ``diffusivity (B,)``
    in m^2/s. ``ramp``: "linear",
    t / t_end, for solutions that start smoothly; "step", 1 from the second frame on, for those that start with a jump
    (there b would grow as 1 / t). Raises ``ConfigError`` for other shapes or a ramp that does not exist.
    """

    def __init__(
        self,
        initial: Tensor,
        times: Tensor,
        lengths: Tensor,
        scale: Tensor,
        diffusivity: Tensor,
        *,
        periodic: bool,
        ramp: Ramp,
    ) -> None:
        grid = tuple(initial.shape[1:])
        if times.ndim != 2 or times.shape[0] != initial.shape[0] or times.shape[1] < 2:
            raise ConfigError(
                f"times have shape {tuple(times.shape)}; expected ({initial.shape[0]}, T) with at least two frames"
            )
        if ramp not in ("linear", "step"):
            raise ConfigError(f"unknown ramp {ramp!r}; known: linear, step")
        self.initial = initial.double()
        self.times = times.to(self.initial)
        self.lengths, self.scale = lengths.to(self.initial), scale.to(self.initial)
        self.diffusivity = diffusivity.to(self.initial)
        self.shape = (times.shape[1], *grid)
        self.row_shape = (times.shape[1] - 1, *grid)
        self.periodic = (False, *(periodic,) * len(grid))
        self.offset = self.initial.unsqueeze(1).expand(-1, *self.shape)
        ones = torch.ones_like(self.times)
        ones[:, 0] = 0.0
        self._ramp = self.times / self.times[:, -1:] if ramp == "linear" else ones
        self.step = self.times.diff(dim=1)
        weight = self.row_shape[0] * self.step / self.scale[:, None]
        self.row_scale = weight.reshape(*weight.shape, *(1,) * len(grid))

    def lift(self, basis: Tensor) -> Tensor:
        factor = self._ramp * self.scale[:, None]
        return basis * factor.reshape(len(factor), 1, -1, *(1,) * (basis.ndim - 3))

    def change(self, field: Tensor) -> Tensor:
        """(u_1 - u_0) / dt of fields ``(B, C, T, *grid)``."""
        return field.diff(dim=2) / self.step.reshape(len(field), 1, -1, *(1,) * (field.ndim - 3))

    def traces(self, field: Tensor, axis: int, positions: Sequence[int]) -> Tensor:
        """In time the value of the frame that two tiles share; in space see ``space_traces``."""
        if axis == 0:
            chosen = field[:, :, list(positions)]
            return (chosen / column(self.scale, field.ndim)).unsqueeze(2)
        return self.space_traces(field[:, :, 1:], axis, positions)

    def quantities(self, axis: int) -> int:
        return 1 if axis == 0 else 2

    def space_traces(self, field: Tensor, axis: int, positions: Sequence[int]) -> Tensor:
        """Value and diffusive flux D du/dn of fields ``(B, C, T - 1, *grid)``, in units of ``scale`` and of what
        carries the unit through the box in the whole time, scale * length / duration."""
        mean, difference = face_pair(field, axis, positions)
        length, duration = self.lengths[:, axis - 1], self.times[:, -1]
        flux = difference * column(self.diffusivity * duration * field.shape[axis + 2] / length**2, field.ndim)
        return torch.stack([mean, flux], 2) / column(self.scale, field.ndim + 1)

    @property
    @abstractmethod
    def field_name(self) -> str:
        """The problem's name of the field."""

    def trajectory(self, field: Tensor) -> dict[str, Tensor]:
        return {self.field_name: field.unsqueeze(2), "time": self.times}


def levels(term: Tensor) -> tuple[Tensor, Tensor]:
    """A term of every frame ``(B, C, T, *grid)`` at the first and at the second frame of every row."""
    return term[:, :, :-1], term[:, :, 1:]


def check_initial(initial: Tensor, batch: int, grid: tuple[int, ...]) -> Tensor:
    """``initial (B, 1, *grid)`` as ``(B, *grid)`` float64. Raises ``DataError`` for another shape."""
    if tuple(initial.shape) != (batch, 1, *grid):
        raise DataError(f"initial has shape {tuple(initial.shape)}; expected {(batch, 1, *grid)}")
    return initial[:, 0].double()

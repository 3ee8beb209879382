"""The cases of a batch: their geometry in units of the diameter, their Reynolds number, and what cannot be solved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError

MAX_REYNOLDS = 300.0
"""On the diameter and the mean speed. Beyond, wakes are three-dimensional and the default meshes too coarse."""

LEAST_GAP = 1.1
"""Radii that a disc keeps from the sides of its channel, at least: room for two triangles."""


@dataclass(frozen=True, eq=False)
class CylinderCases:
    """Checked parameters, each ``(B,)`` or ``(B, 2)`` float64 in SI units.

    Raises ``ConfigError`` for other shapes, values that are not positive and finite, a disc that touches or
    crosses a side of its channel or leaves a gap of less than ``LEAST_GAP`` radii, and a
    Reynolds number above ``MAX_REYNOLDS``.
    """

    lengths: Tensor
    centre: Tensor
    radius: Tensor
    speed: Tensor
    viscosity: Tensor

    def __post_init__(self) -> None:
        batch = len(torch.as_tensor(self.radius).reshape(-1))
        for name, shape in (
            ("lengths", (batch, 2)),
            ("centre", (batch, 2)),
            ("radius", (batch,)),
            ("speed", (batch,)),
            ("viscosity", (batch,)),
        ):
            value = torch.as_tensor(getattr(self, name)).detach().to("cpu", torch.float64)
            if value.shape != shape:
                raise ConfigError(f"{name} has shape {tuple(value.shape)}; expected {shape}, one row per case")
            bad = ~(torch.isfinite(value) & (value > 0)).reshape(batch, -1).all(1)
            if bool(bad.any()):
                case = int(bad.nonzero()[0])
                raise ConfigError(f"{name} of case {case} is {value[case].tolist()}; expected positive finite numbers")
            object.__setattr__(self, name, value)
        self._check_room()
        self._check_reynolds()

    @property
    def diameter(self) -> Tensor:
        return 2 * self.radius

    @property
    def reynolds(self) -> Tensor:
        """U D / nu ``(B,)`` with the mean speed of the inflow."""
        return self.speed * self.diameter / self.viscosity

    @property
    def time_unit(self) -> Tensor:
        """D / U ``(B,)`` in seconds."""
        return self.diameter / self.speed

    def gap(self, case: int) -> float:
        """Between the disc and the nearest side of its channel, in diameters."""
        room = torch.cat([self.centre[case], self.lengths[case] - self.centre[case]]).min()
        return float((room - self.radius[case]) / self.diameter[case])

    def scaled_lengths(self, case: int) -> tuple[float, float]:
        """Length and height of the channel in diameters."""
        return tuple((self.lengths[case] / self.diameter[case]).tolist())

    def scaled_centre(self, case: int) -> tuple[float, float]:
        """Centre of the disc in diameters."""
        return tuple((self.centre[case] / self.diameter[case]).tolist())

    def _check_room(self) -> None:
        gaps = torch.cat([self.centre, self.lengths - self.centre], 1) - self.radius.unsqueeze(1)
        least, side = gaps.min(1)
        bad = (least < LEAST_GAP * self.radius * (1 - 1e-9)).nonzero().flatten()
        if len(bad) == 0:
            return
        case = int(bad[0])
        name = ("the inlet", "the wall y = 0", "the outlet", "the wall y = Ly")[int(side[case])]
        gap = float(least[case])
        touches = abs(gap) < 1e-9 * float(self.radius[case])
        how = "touches" if touches else "crosses" if gap < 0 else f"comes within {gap:.3g} m of"
        centre, lengths = (
            [float(f"{value:.6g}") for value in pair[case].tolist()] for pair in (self.centre, self.lengths)
        )
        raise ConfigError(
            f"the disc of case {case}, radius {float(self.radius[case]):.4g} m at {centre}, {how} "
            f"{name} of its channel of {lengths} m; expected a gap of {LEAST_GAP} radii at "
            "least: move the disc or make it smaller"
        )

    def _check_reynolds(self) -> None:
        bad = (self.reynolds > MAX_REYNOLDS * (1 + 1e-9)).nonzero().flatten()
        if len(bad):
            case = int(bad[0])
            raise ConfigError(
                f"the Reynolds number of case {case} is {float(self.reynolds[case]):.4g}; expected {MAX_REYNOLDS:g} at "
                "most, on the diameter and the mean speed: lower the speed or the radius, or raise the viscosity"
            )

"""What the problems of a liquid under a gas share: fields, parameters of the gas, and a solver's frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.errors import ConfigError
from sciml.problems import mac
from sciml.problems.cases import Parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sciml.solvers.two_phase import Side, TwoPhaseState
    from sciml.solvers.two_phase.solver import PressureWay

SOLVER = "MAC projection, geometric volume of fluid (Weymouth-Yue), density-weighted pressure"

FIELDS = (
    FieldInfo("superficial_velocity", 2, "m/s", order=1),
    FieldInfo("volume_fraction", 1, "1", order=0),
    FieldInfo("velocity", 2, "m/s", order=1),
    FieldInfo("pressure", 1, "Pa", order=0),
)
"""Volume flux of the liquid (its volume fraction times the velocity), share of the cell that is liquid, velocity of
whatever is there, pressure above that of still gas at the same height.

The gas is dragged along and hardly acts on the liquid: jets of it fill the velocity field, so networks learn the
first two, which tell each other how they go on."""

LEARNED = ("superficial_velocity", "volume_fraction")

FACE_FIELDS = mac.face_fields(2)

GAS = (
    Parameter("gas_density", "kg/m^3", "density of the gas above the liquid", default=1.2),
    Parameter("gas_viscosity", "Pa s", "dynamic viscosity of the gas", default=1.8e-5),
    Parameter("gravity", "m/s^2", "gravitational acceleration, in -y", sign="nonnegative", default=9.81),
)


def steady_parameters(values: Mapping[str, Tensor]) -> None:
    """Raise ``ConfigError`` for a parameter that changes in time."""
    for name, value in values.items():
        if value.ndim > 1:
            raise ConfigError(f"{name} changes in time; a flow with a free surface has one value of each parameter")


def solve(
    values: Mapping[str, Tensor],
    times: Tensor,
    lengths: Tensor,
    fraction: Tensor,
    sides: Mapping[str, Side],
    *,
    fluid: Tensor | None = None,
    pressure: PressureWay,
    dtype: torch.dtype,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """The trajectory dictionary of liquid and gas, from rest with the volume ``fraction (B, nx, ny)`` at time 0.

    ``values``: ``density``, ``viscosity`` and those of ``GAS``; ``times (B, T)``; ``lengths (B, 2)``; ``fluid (B, 1,
    nx, ny)``: 0 in solid cells, where fields are set to 0. Fields have ``dtype``; the volume of the liquid, in m^3 per
    metre across the plane, is the series ``liquid_volume``. The solver works in float64.
    """
    from sciml.solvers.two_phase import TwoPhaseSolver

    solver = TwoPhaseSolver(
        lengths,
        tuple(fraction.shape[1:]),
        densities=(values["density"], values["gas_density"]),
        viscosities=(values["viscosity"], values["gas_viscosity"]),
        gravity=values["gravity"],
        sides=sides,
        solid=None if fluid is None else fluid[:, 0] == 0,
        pressure=pressure,
        device=device,
    )
    state = solver.initial_state(fraction.to(device))
    frames: dict[str, list[Tensor]] = {}
    volume = []
    for frame in range(times.shape[1]):
        if frame > 0:
            state = solver.advance(state, times[:, frame] - times[:, frame - 1])
        for name, field in _frame(state, fluid).items():
            frames.setdefault(name, []).append(field.to(dtype))
        volume.append(solver.volume(state).double().cpu())
    fields = {name: torch.stack(field, 1) for name, field in frames.items()}
    return {**fields, "liquid_volume": torch.stack(volume, 1), "time": times}


def _frame(state: TwoPhaseState, fluid: Tensor | None) -> dict[str, Tensor]:
    u, v = state.velocity
    velocity = torch.stack([0.5 * (u[:, 1:] + u[:, :-1]), 0.5 * (v[:, :, 1:] + v[:, :, :-1])], 1)
    fraction, pressure = state.fraction.unsqueeze(1), state.pressure.unsqueeze(1)
    if fluid is not None:
        solid = fluid.to(fraction.device) == 0
        velocity, fraction, pressure = (x.masked_fill(solid, 0.0) for x in (velocity, fraction, pressure))
    return {
        "superficial_velocity": fraction * velocity,
        "volume_fraction": fraction,
        "velocity": velocity,
        "pressure": pressure,
        "face_velocity_x": u,
        "face_velocity_y": v,
    }


def continuity(trajectory: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
    """Divergence of the face velocities in 1/s, ``(B, T, nx, ny)``, for boxes of sides ``lengths (B, 2)``."""
    faces = [trajectory[f"face_velocity_{axis}"] for axis in "xy"]
    shape = (faces[0].shape[2] - 1, faces[0].shape[3])
    h = (lengths.to(faces[0]) / faces[0].new_tensor(shape)).reshape(-1, 1, 1, 1, 2)
    return faces[0].diff(dim=2) / h[..., 0] + faces[1].diff(dim=3) / h[..., 1]


def scales(speed: Tensor, density: Tensor) -> dict[str, Tensor]:
    """Units of the fields for a speed V: V, 1 and ``rho V^2``."""
    velocity = torch.stack([speed, speed], -1)
    return {
        "superficial_velocity": velocity,
        "volume_fraction": torch.ones_like(speed).unsqueeze(-1),
        "velocity": velocity,
        "pressure": (density * speed**2).unsqueeze(-1),
    }


def diagnosed_volume(frames: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
    """``liquid_volume (B, T)`` in m^3 per metre from the volume fraction alone, for boxes of sides ``lengths (B, 2)``.

    Raises ``ConfigError`` without it.
    """
    if "volume_fraction" not in frames:
        raise ConfigError("the liquid's volume needs the field volume_fraction, which is missing")
    fraction = frames["volume_fraction"].double()
    cell = lengths.to(fraction).prod(1) / (fraction.shape[3] * fraction.shape[4])
    return {"liquid_volume": fraction.sum((2, 3, 4)) * cell.unsqueeze(1)}

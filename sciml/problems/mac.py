"""What the problems on the MAC grid share: a solver's trajectory as a dictionary, and the residual of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.datasets import FaceFieldInfo, FieldInfo
from sciml.errors import ConfigError

if TYPE_CHECKING:
    from sciml.physics import Boundaries, Grid
    from sciml.solvers import FlowState, IncompressibleSolver

AXES = "xyz"


def flow_fields(dim: int, pressure_unit: str = "Pa") -> tuple[FieldInfo, ...]:
    """Velocity and pressure at the cell centres."""
    return (FieldInfo("velocity", dim, "m/s", order=1), FieldInfo("pressure", 1, pressure_unit, order=0))


def face_fields(dim: int) -> tuple[FaceFieldInfo, ...]:
    """The velocity component normal to the faces of every axis."""
    return tuple(FaceFieldInfo(f"face_velocity_{axis}", "m/s", axis) for axis in AXES[:dim])


def value_at(values: Tensor, frame: int) -> Tensor:
    """A parameter ``(B,)``, or ``(B, T)`` where it changes in time, from ``frame`` to the next: ``(B,)``."""
    return values if values.ndim == 1 else values[:, frame]


def check_covers(name: str, values: Tensor, frames: int) -> None:
    """Raise ``ConfigError`` if a parameter that changes in time ends before the trajectory does."""
    if values.ndim == 2 and values.shape[1] < frames - 1:
        raise ConfigError(f"{name} has {values.shape[1]} times, the trajectory {frames} frames")


def march(
    solver: IncompressibleSolver,
    state: FlowState,
    times: Tensor,
    density: Tensor,
    *,
    driving: Tensor | None = None,
    boundaries: Callable[[Tensor], Boundaries] | None = None,
    pressure_at_frames: bool = True,
) -> dict[str, Tensor]:
    """Advance ``state`` through ``times (B, T)`` and return the trajectory dictionary.

    ``density (B,)`` turns the solver's kinematic pressure into Pa. ``driving``: the boundary parameter, ``(B,)`` or
    ``(B, T)``; where it changes from one frame to the next, ``boundaries(values (B,))`` gives the new conditions.

    The solver's pressure belongs to the middle of its last step. ``pressure_at_frames`` takes one further step, of
    the same size and then dropped, and keeps the mean of the pressures half a step before and after the frame.
    """
    column = density.to(solver.device, solver.dtype).reshape(-1, *(1,) * solver.grid.dim)
    names = [f"face_velocity_{axis}" for axis in AXES[: solver.grid.dim]]
    frames: dict[str, list[Tensor]] = {name: [] for name in ("velocity", "pressure", *names)}
    for frame in range(times.shape[1]):
        if frame > 0:
            if driving is not None and boundaries is not None and _changes(driving, frame):
                solver = solver.with_boundaries(boundaries(driving[:, frame - 1]))
            state = solver.advance(state, (times[:, frame] - times[:, frame - 1]).to(solver.device))
        pressure = state.pressure
        if pressure_at_frames and state.previous_step is not None:
            pressure = 0.5 * (pressure + solver.step(state, state.previous_step).pressure)
        frames["velocity"].append(solver.centred_velocity(state))
        frames["pressure"].append((column * pressure).unsqueeze(1))
        for name, faces in zip(names, state.velocity, strict=True):
            frames[name].append(faces)
    return {**{name: torch.stack(values, 1) for name, values in frames.items()}, "time": times}


def trajectory_residual(
    trajectory: Mapping[str, Tensor],
    grid: Grid,
    density: Tensor,
    viscosity: Tensor,
    boundaries: Callable[[int], Mapping[str, Any]],
) -> dict[str, tuple[Tensor, ...]]:
    """Discrete Navier-Stokes residual of a trajectory's face velocities, differentiable.

    ``viscosity (B,)``: kinematic; ``boundaries(t)``: the conditions from frame t to frame t + 1. ``momentum``: per
    component ``(B, T - 1, unknown faces)`` in m/s^2, between consecutive frames (trapezoidal in time, so it is small
    only for frames as close as solver steps); ``continuity``: ``((B, T, *grid),)`` in 1/s.
    """
    from sciml import physics

    faces = tuple(trajectory[f"face_velocity_{axis}"] for axis in AXES[: grid.dim])
    kinematic = trajectory["pressure"][:, :, 0] / density.to(faces[0]).reshape(-1, 1, *(1,) * grid.dim)
    momentum = physics.trajectory_residual(
        faces, kinematic, trajectory["time"], grid=grid, boundaries=boundaries, viscosity=viscosity
    )
    continuity = [
        physics.continuity_residual(tuple(u[:, t] for u in faces), grid=grid) for t in range(faces[0].shape[1])
    ]
    return {"momentum": momentum, "continuity": (torch.stack(continuity, 1),)}


def _changes(driving: Tensor, frame: int) -> bool:
    """Whether the value that acts up to ``frame`` differs from the one before it."""
    return driving.ndim == 2 and not torch.equal(driving[:, frame - 1], driving[:, max(frame - 2, 0)])

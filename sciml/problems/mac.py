"""What the problems on the MAC grid share: a solver's trajectory as a dictionary, and the residual of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
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


def trajectory_defect(
    frames: Tensor, interval: Tensor, viscosity: Tensor, setting: Callable[[int], tuple[Grid, Boundaries]]
) -> Tensor:
    """What the momentum equation leaves over of the steps between frames ``(B, K + 1, dim, *grid)`` of the velocity at
    the cell centres: ``(B, K, dim, *grid)`` in m/s.

    The sum of two fields that are orthogonal to one another. One is the defect (``physics.StepPreconditioner``) of the
    frames' face velocities, at the centres. The other is what each later frame has outside the velocities that come
    from faces without divergence and with the normal velocities of the sides: all of a leak, nearly all of a gradient.
    The faces are those behind the nearest such velocity (``constraints.divergence_free``), found in float64; those of
    the solver's frames are its own. What the first frame has outside does not count.

    ``interval (B,)``; ``viscosity (B,)``: kinematic; ``setting(n)``: the grid and the conditions on its sides of every
    case, n times in a row.
    """
    kind = frames.device.type
    # Products of matrices in half precision would leave more over than the equation does.
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return _trajectory_defect(frames, interval, viscosity, setting)


def _trajectory_defect(
    frames: Tensor, interval: Tensor, viscosity: Tensor, setting: Callable[[int], tuple[Grid, Boundaries]]
) -> Tensor:
    from sciml.constraints.divergence_free.cells import CellProjection
    from sciml.constraints.divergence_free.prescribed import Prescribed
    from sciml.physics import StepPreconditioner, acceleration, faces_to_centres
    from sciml.physics.stencils import unknown_of_stored

    batch, count = frames.shape[:2]
    steps = count - 1
    grid, sides = setting(count)
    prescribed = Prescribed(grid, sides, frames.device)
    velocity = frames.flatten(0, 1).double()
    nearest = CellProjection(prescribed).faces(velocity)
    outside = velocity - faces_to_centres(nearest, prescribed.metrics)

    faces = tuple(f.to(frames.dtype) for f in nearest)
    viscosity = viscosity.to(frames.device)
    rates = acceleration(faces, grid=grid, boundaries=sides, viscosity=viscosity.repeat_interleave(count, 0))
    grid, sides = setting(steps)
    h = interval.to(frames.device).repeat_interleave(steps, 0)
    half = (0.5 * h).to(frames.dtype).reshape(-1, *(1,) * grid.dim)
    preconditioner = StepPreconditioner(
        grid, sides, viscosity.repeat_interleave(steps, 0), h, dtype=frames.dtype, device=frames.device
    )
    residual = []  # of the momentum equation times the step, its pressure left out
    for u, rate, metric in zip(faces, rates, preconditioner.metrics, strict=True):
        inner, rate = (x.unflatten(0, (batch, count)) for x in (unknown_of_stored(u, metric), rate))
        change, twice = inner[:, 1:] - inner[:, :-1], rate[:, 1:] + rate[:, :-1]
        residual.append(torch.addcmul(change.flatten(0, 1), half, twice.flatten(0, 1), value=-1))
    defect = faces_to_centres(preconditioner(tuple(residual)), preconditioner.metrics)
    return defect.unflatten(0, (batch, steps)) + outside.unflatten(0, (batch, count))[:, 1:].to(defect)


def _changes(driving: Tensor, frame: int) -> bool:
    """Whether the value that acts up to ``frame`` differs from the one before it."""
    return driving.ndim == 2 and not torch.equal(driving[:, frame - 1], driving[:, max(frame - 2, 0)])

"""Checks of the particles a simulation starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.solvers.mpm.materials import Material
from sciml.solvers.mpm.state import Group, MPMState

if TYPE_CHECKING:
    from sciml.solvers.mpm.solver import MPMSolver

Indices = Tensor | Sequence[int]
MaterialsOf = Material | Sequence[tuple[Material, Indices]]


def start(
    solver: MPMSolver,
    position: Tensor,
    velocity: Tensor,
    volume: Tensor,
    density: float | Tensor,
    materials: MaterialsOf,
    batch: Tensor | None,
    deformation: Tensor | None,
) -> MPMState:
    """The particles of ``MPMSolver.start``, their stress still to be found."""
    count, d = position.shape[0] if position.ndim else 0, solver.grid.dim
    if count == 0:
        raise DataError("there are no particles: give at least one")
    shapes = {"position": (position, (count, d)), "velocity": (velocity, (count, d)), "volume": (volume, (count,))}
    if isinstance(density, Tensor) and density.ndim:
        shapes["density"] = (density, (count,))
    if deformation is not None:
        shapes["deformation"] = (deformation, (count, d, d))
    for name, (value, shape) in shapes.items():
        if tuple(value.shape) != shape:
            raise DataError(f"{name} has shape {tuple(value.shape)}, expected {shape}")
        if not bool(value.isfinite().all()):
            bad = int((~value.isfinite().reshape(count, -1).all(1)).nonzero()[0])
            raise DataError(f"{name} is not finite: the first such particle is number {bad}")
    like = solver.gravity
    volume = volume.to(like)
    density = torch.as_tensor(density).to(like).expand(count)
    for name, value in (("volume", volume), ("density", density)):
        if not bool((value > 0).all()):
            raise DataError(f"{name} must be positive, got {value.min().item():g}")
    batch, scenes = _checked_batch(batch, count, solver.device)
    _check_places(solver, position.to(like), batch)
    groups, order = _groups(materials, count, like)
    zeros = torch.zeros(d, d, count, dtype=like.dtype, device=like.device)
    if deformation is None:
        deformation = torch.eye(d, dtype=like.dtype, device=like.device).expand(count, d, d)
    return MPMState(
        position=_stored(position.to(like)),
        velocity=_stored(velocity.to(like)),
        affine=zeros.movedim(-1, 0),
        deformation=_stored(deformation.to(like)),
        stress=zeros.movedim(-1, 0),
        swelling=zeros[0, 0],
        mass=density * volume,
        volume=volume,
        batch=batch,
        scenes=scenes,
        groups=groups,
        order=order,
        time=0.0,
    )


def _stored(x: Tensor) -> Tensor:
    """The same ``(P, ...)``, in memory components first."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def _checked_batch(batch: Tensor | None, count: int, device: torch.device) -> tuple[Tensor, int]:
    if batch is None:
        return torch.zeros(count, dtype=torch.int64, device=device), 1
    if batch.shape != (count,) or batch.dtype != torch.int64:
        raise DataError(
            f"batch must be ({count},) int64 scene numbers, got {tuple(batch.shape)} {str(batch.dtype)[6:]}"
        )
    if int(batch[0]) < 0 or bool((batch[1:] < batch[:-1]).any()):
        raise DataError("batch must be ascending scene numbers from 0: sort the particles by scene")
    counts = torch.bincount(batch)
    if bool((counts == 0).any()):
        raise DataError(f"scene {int((counts == 0).nonzero()[0])} of {len(counts)} has no particles")
    return batch.to(device), len(counts)


def _check_places(solver: MPMSolver, position: Tensor, batch: Tensor) -> None:
    low, high = (torch.tensor(c, dtype=position.dtype, device=position.device) for c in (solver.lower, solver.upper))
    places = {f"outside the box {solver.lower} ... {solver.upper}": ((position < low) | (position > high)).any(1)}
    for number, obstacle in enumerate(solver.obstacles):
        places[f"inside obstacle {number}"] = obstacle.depth(position, 0.0) < 0
    for where, bad in places.items():
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise DataError(
                f"{int(bad.sum())} of {len(position)} particles lie {where}: the first is number {first} of scene "
                f"{int(batch[first])} at {position[first].tolist()}"
            )


def _groups(materials: MaterialsOf, count: int, like: Tensor) -> tuple[tuple[Group, ...], Tensor | None]:
    """The groups, and where each particle is found in their concatenation (None: in order)."""
    if isinstance(materials, Material):
        return (Group(materials.cast(like, count), None),), None
    pairs = [(m, torch.as_tensor(index, dtype=torch.int64, device=like.device)) for m, index in materials]
    pairs = [(m, index) for m, index in pairs if len(index)]
    named = torch.cat([index for _, index in pairs]) if pairs else torch.zeros(0, dtype=torch.int64)
    if named.numel() and (int(named.min()) < 0 or int(named.max()) >= count):
        raise DataError(
            f"materials name particle {int(named.max())}, but there are {count} (numbers 0 ... {count - 1})"
        )
    times = torch.bincount(named, minlength=count)
    if bool((times != 1).any()):
        first = int((times != 1).nonzero()[0])
        raise DataError(f"every particle needs exactly one material: particle {first} has {int(times[first])}")
    order = torch.argsort(named)
    in_order = bool((named == torch.arange(count, device=named.device)).all())
    if len(pairs) == 1 and in_order:
        return (Group(pairs[0][0].cast(like, count), None),), None
    return tuple(Group(m.cast(like, len(index)), index) for m, index in pairs), None if in_order else order

"""Momentum, energy and volume of particles from their positions alone: what a rollout should keep.

``positions (T, N, d)`` in metres, ``masses (N,)`` in kg (2D: per metre of depth), ``interval`` in seconds between
frames. Velocities are differences of two frames, those of the time half-way between them, so that what depends on them
has T - 1 entries. Everything is float64. Leave fixed particles out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.errors import DataError


def frame_velocities(positions: Tensor, interval: float) -> Tensor:
    """(x_(t+1) - x_t) / interval, ``(T - 1, N, d)``."""
    _check(positions, None, interval)
    return positions.double().diff(dim=0) / interval


def centre_of_mass(positions: Tensor, masses: Tensor) -> Tensor:
    """``(T, d)``."""
    _check(positions, masses)
    weights = masses.double() / masses.double().sum()
    return torch.einsum("n,tnd->td", weights, positions.double())


def momentum(positions: Tensor, masses: Tensor, interval: float) -> Tensor:
    """sum m v, ``(T - 1, d)`` kg m/s."""
    _check(positions, masses, interval)
    return torch.einsum("n,tnd->td", masses.double(), frame_velocities(positions, interval))


def angular_momentum(positions: Tensor, masses: Tensor, interval: float) -> Tensor:
    """sum m (x - c) x v about the centre of mass c, at the middle of two frames: ``(T - 1, 1)`` in 2D, ``(T - 1, 3)``
    in 3D, kg m^2/s.
    """
    _check(positions, masses, interval)
    velocity = frame_velocities(positions, interval)
    middle = (positions[1:].double() + positions[:-1].double()) / 2
    arm = middle - torch.einsum("n,tnd->td", masses.double() / masses.double().sum(), middle)[:, None]
    if positions.shape[2] == 2:
        turning = (arm[..., 0] * velocity[..., 1] - arm[..., 1] * velocity[..., 0])[..., None]
    else:
        turning = torch.linalg.cross(arm, velocity)
    return torch.einsum("n,tnd->td", masses.double(), turning)


def kinetic_energy(positions: Tensor, masses: Tensor, interval: float) -> Tensor:
    """sum m v^2 / 2, ``(T - 1,)`` J."""
    _check(positions, masses, interval)
    return 0.5 * torch.einsum("n,tnd->t", masses.double(), frame_velocities(positions, interval).square())


def potential_energy(positions: Tensor, masses: Tensor, gravity: Sequence[float]) -> Tensor:
    """-sum m g . x, ``(T,)`` J: 0 at the origin."""
    _check(positions, masses)
    pull = torch.as_tensor(gravity, dtype=torch.float64, device=positions.device)
    return -torch.einsum("n,tnd,d->t", masses.double(), positions.double(), pull)


def occupied_volume(positions: Tensor, cell: float) -> Tensor:
    """Cells of side ``cell`` that hold a particle times their size, ``(T,)`` m^d.

    Of a filled body that is more than its volume by about half a cell along its surface; compare like with like. Cells
    must hold several particles each or the number is noise: a cell of the solver's grid, or two spacings, is right.
    """
    _check(positions, None, cell, "cell")
    places = torch.floor(positions.double() / cell).long()
    counts = [len(torch.unique(frame, dim=0)) for frame in places]
    return torch.tensor(counts, dtype=torch.float64, device=positions.device) * cell ** positions.shape[2]


def _check(positions: Tensor, masses: Tensor | None, positive: float = 1.0, name: str = "interval") -> None:
    if positions.ndim != 3 or positions.shape[2] not in (2, 3) or 0 in positions.shape:
        raise DataError(f"positions have the shape {tuple(positions.shape)}; expected (frames, particles, 2 or 3)")
    if masses is not None and masses.shape != positions.shape[1:2]:
        raise DataError(f"masses have the shape {tuple(masses.shape)}; expected ({positions.shape[1]},)")
    if not 0 < positive < float("inf"):
        raise DataError(f"{name} is {positive}; it must be positive")

"""Boundary conditions on the grid velocity: walls of the box and obstacles.

Every condition acts on the velocity relative to the surface. ``"slip"``: no flow into it, free otherwise;
``"stick"``: none at all; ``Coulomb(friction)``: slip, and the tangential velocity loses up to friction times the
normal velocity taken away (dry friction with a separating contact).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError, did_you_mean
from sciml.solvers.mpm.transfer import OFFSET, MPMGrid


@dataclass(frozen=True)
class Coulomb:
    """Dry friction with the coefficient ``friction`` >= 0 (0 is slip)."""

    friction: float

    def __post_init__(self) -> None:
        if not 0 <= self.friction < float("inf"):
            raise ConfigError(f"Coulomb: friction must be a number >= 0, got {self.friction}")


Contact = str | Coulomb


def check_contact(kind: object) -> Contact:
    """The kind itself; ConfigError for anything but "slip", "stick" or a ``Coulomb``."""
    if isinstance(kind, Coulomb) or kind in ("slip", "stick"):
        return kind  # type: ignore[return-value]
    raise ConfigError(f"unknown contact {kind!r}{did_you_mean(str(kind), ['slip', 'stick', 'Coulomb(friction)'])}")


class Walls:
    """The 2 d walls of the box.

    ``kinds``: one contact for all, or a pair (low, high) for every axis. A wall acts on the nodes outside it and on the
    first one inside (half a cell).
    """

    def __init__(self, kinds: Contact | Sequence[tuple[Contact, Contact]], grid: MPMGrid):
        self.grid = grid
        pairs = [(kinds, kinds)] * grid.dim if isinstance(kinds, (str, Coulomb)) else [tuple(pair) for pair in kinds]
        if len(pairs) != grid.dim or any(len(pair) != 2 for pair in pairs):
            raise ConfigError(
                f"walls must be one contact or a (low, high) pair for each of the {grid.dim} axes, got {kinds!r}"
            )
        self.faces = {(axis, end): check_contact(pairs[axis][end]) for axis in range(grid.dim) for end in (0, 1)}
        # Slip as bounds of the velocity and stick as a factor: one operation for all walls together.
        like = grid.origin
        shape = (grid.dim, 1, *grid.nodes)
        low = torch.full(shape, -float("inf"), dtype=like.dtype, device=like.device)
        high, free = -low, torch.ones(shape[1:], dtype=like.dtype, device=like.device)
        for (axis, end), kind in self.faces.items():
            if kind == "stick":
                self._slab(free[None], axis, end).zero_()
            else:
                self._slab((high if end else low)[axis : axis + 1], axis, end).zero_()
        self.solid = self._solid()
        self.bounds = (low.view(grid.dim, 1, -1), high.view(grid.dim, 1, -1))
        self.free = free.view(1, -1) if "stick" in self.faces.values() else None

    def _solid(self) -> Tensor:
        """Solid fraction ``(size,)`` of the volume of every node: what of its weight lies beyond the walls."""
        free = torch.ones(1, dtype=self.grid.origin.dtype, device=self.grid.origin.device)
        for n in self.grid.cells:
            inside = torch.arange(n + 4, dtype=free.dtype, device=free.device) - OFFSET
            axis = 1 - solid_fraction(inside) - solid_fraction(n - inside)
            free = (free[:, None] * axis).view(-1)
        return 1 - free

    def _slab(self, field: Tensor, axis: int, end: int) -> Tensor:
        """The three layers of nodes of one wall, of a field ``(k, B, *nodes)``."""
        return field.narrow(2 + axis, field.shape[2 + axis] - 3 if end else 0, 3)

    def apply(self, velocity: Tensor) -> Tensor:
        """Grid velocity ``(d, B, size)`` with the conditions of the walls."""
        for (axis, end), kind in self.faces.items():
            if isinstance(kind, Coulomb) and kind.friction > 0:
                velocity = self._rub(velocity, axis, end, kind.friction)
        velocity = velocity.clamp(*self.bounds)
        return velocity if self.free is None else velocity * self.free

    def _rub(self, velocity: Tensor, axis: int, end: int, friction: float) -> Tensor:
        """Coulomb friction along one wall; the wall itself (no flow into it) comes after."""
        field = velocity.view(self.grid.dim, -1, *self.grid.nodes)
        slab = self._slab(field, axis, end)
        taken = (slab[axis] if end else -slab[axis]).clamp_min(0)
        along = [k for k in range(self.grid.dim) if k != axis]
        speed = (slab[along] ** 2).sum(0).clamp_min(1e-30).sqrt()
        factor = (1 - friction * taken / speed).clamp_min(0)
        slab = torch.stack([slab[k] * factor if k in along else slab[k] for k in range(self.grid.dim)])
        inner = field.narrow(2 + axis, 0 if end else 3, field.shape[2 + axis] - 3)
        return torch.cat([inner, slab] if end else [slab, inner], 2 + axis).view_as(velocity)


def solid_fraction(distance: Tensor) -> Tensor:
    """Part of the weight of a node (quadratic B-spline) that lies beyond a plane surface at ``distance`` cells."""
    u = distance.clamp(-1.5, 1.5)
    size = u.abs()
    tail = torch.where(size < 0.5, 0.5 - 0.75 * size + size**3 / 3, (1.5 - size) ** 3 / 6)
    return torch.where(u < 0, 1 - tail, tail)


def contact_velocity(velocity: Tensor, normal: Tensor, surface: Tensor, kind: Contact) -> Tensor:
    """Velocity ``(d, ..., n)`` of nodes in contact with a surface of outward unit normal and velocity,
    both broadcastable to it."""
    if kind == "stick":
        return surface.expand_as(velocity)
    relative = velocity - surface
    into = (relative * normal).sum(0).clamp_max(0)
    relative = relative - into * normal
    if isinstance(kind, Coulomb) and kind.friction > 0:
        # A separating node (into = 0) is free; one pressed in slides with what friction leaves of its speed.
        outward = (relative * normal).sum(0).clamp_min(0) * normal
        along = relative - outward
        speed = (along * along).sum(0).clamp_min(1e-30).sqrt()
        relative = outward + along * (1 + kind.friction * into / speed).clamp_min(0)
    return relative + surface

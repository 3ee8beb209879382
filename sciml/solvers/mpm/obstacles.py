"""Rigid obstacles given by a signed distance, at rest or moving as prescribed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.solvers.mpm.transfer import MPMGrid
from sciml.solvers.mpm.walls import Contact, check_contact, contact_velocity, solid_fraction

Distance = Callable[[Tensor], Tensor]
Displacement = Callable[[float], Sequence[float]]


@dataclass(frozen=True)
class Disk:
    """Disk or ball: |x - centre| - radius."""

    centre: tuple[float, ...]
    radius: float

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise ConfigError(f"Disk: radius must be positive, got {self.radius}")

    def __call__(self, x: Tensor) -> Tensor:
        """Signed distance ``(M,)`` of points ``(M, d)``, negative inside."""
        return (x - torch.tensor(self.centre, dtype=x.dtype, device=x.device)).norm(dim=-1) - self.radius


@dataclass(frozen=True)
class Box:
    """Box with edges along the axes from ``lower`` to ``upper``."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.lower) != len(self.upper) or any(a >= b for a, b in zip(self.lower, self.upper, strict=True)):
            raise ConfigError(f"Box: lower {self.lower} must lie below upper {self.upper} along every axis")

    def __call__(self, x: Tensor) -> Tensor:
        """Signed distance ``(M,)`` of points ``(M, d)``, negative inside."""
        low, high = (torch.tensor(c, dtype=x.dtype, device=x.device) for c in (self.lower, self.upper))
        outside = torch.maximum(low - x, x - high)
        return outside.clamp_min(0).norm(dim=-1) + outside.amax(-1).clamp_max(0)


@dataclass(frozen=True, eq=False)
class Obstacle:
    """A rigid obstacle for the particles of every scene.

    ``distance``: signed distance in metres ``(M, d) -> (M,)``, negative inside (``Disk``, ``Box`` or any differentiable
    function), in the position at time 0; ``contact``: "slip", "stick" or ``Coulomb``; ``displacement``: translation
    in metres at a time in seconds, None at rest. Thinner than two cells it lets the two sides feel each other.
    """

    distance: Distance
    contact: Contact = "slip"
    displacement: Displacement | None = None

    def __post_init__(self) -> None:
        check_contact(self.contact)

    def shift(self, time: float, like: Tensor) -> Tensor:
        """Translation ``(d,)`` at a time."""
        if self.displacement is None:
            return torch.zeros(like.shape[-1], dtype=like.dtype, device=like.device)
        return torch.as_tensor(self.displacement(time), dtype=like.dtype, device=like.device)

    def depth(self, x: Tensor, time: float) -> Tensor:
        """Signed distance ``(M,)`` of points ``(M, d)`` at a time."""
        return self.distance(x - self.shift(time, x))


class ObstacleNodes:
    """The grid nodes of one obstacle: those inside it and up to half a cell outside, as at the walls."""

    def __init__(self, obstacle: Obstacle, grid: MPMGrid):
        self.obstacle = obstacle
        self.positions = grid.node_positions()
        distance = obstacle.depth(self.positions, 0.0)
        if distance.shape != self.positions.shape[:1] or not bool(distance.isfinite().all()):
            raise ConfigError(
                f"the distance of an obstacle must give a finite number for each of {len(self.positions)} points, "
                f"got shape {tuple(distance.shape)}"
            )
        self.cell = grid.cell
        self.fixed = self._touched(0.0) if obstacle.displacement is None else None

    def _touched(self, time: float) -> tuple[Tensor, Tensor, Tensor]:
        """Node numbers ``(n,)``, outward unit normals ``(d, 1, n)`` (the gradient of the distance) and the solid
        fraction of all nodes ``(size,)``."""
        moved = self.positions - self.obstacle.shift(time, self.positions)
        distance = self.obstacle.distance(moved)
        nodes = (distance < self.cell / 2).nonzero()[:, 0]
        with torch.inference_mode(False), torch.enable_grad():  # also where the caller wants no gradients
            x = moved[nodes].detach().clone().requires_grad_()
            (normal,) = torch.autograd.grad(self.obstacle.distance(x).sum(), x)
        normal = normal.nan_to_num(0.0)
        normal = (normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-12)).T[:, None]
        return nodes, normal, solid_fraction(distance / self.cell)

    def at(self, time: float, dt: float) -> ContactNodes:
        """The nodes in contact, over the step from ``time``."""
        nodes, normal, solid = self.fixed if self.fixed is not None else self._touched(time)
        here, there = (self.obstacle.shift(t, self.positions) for t in (time, time + dt))
        surface = ((there - here) / dt)[:, None, None]
        return ContactNodes(nodes, normal, surface, solid, self.obstacle.contact)


@dataclass(frozen=True, eq=False)
class ContactNodes:
    """Nodes ``(n,)`` in contact with an obstacle, outward normals ``(d, 1, n)``, velocity of its surface
    ``(d, 1, 1)``, and the solid fraction of all nodes ``(size,)``."""

    nodes: Tensor
    normal: Tensor
    surface: Tensor
    solid: Tensor
    contact: Contact

    def apply(self, velocity: Tensor) -> Tensor:
        """Grid velocity ``(d, B, size)`` with the condition of the obstacle."""
        inside = velocity.index_select(2, self.nodes)
        return velocity.index_copy(2, self.nodes, contact_velocity(inside, self.normal, self.surface, self.contact))

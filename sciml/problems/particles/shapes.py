"""Shapes in two and three dimensions: what bodies and obstacles look like before they move.

An outline is a set of points within the unit ball; ``Placed`` moves, turns and scales it. A ``Block`` is a box along
the axes, for what stands at walls. Lengths in metres, float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Generator, Tensor

from sciml.problems.draws import uniform

OUTLINES = ("ball", "box", "ellipsoid", "hull", "blob")
"""What ``random_outline`` chooses from."""
HARD_OUTLINES = ("ring", "cross")
"""With a hole and with arms: kinds that no random choice gives."""
SLENDEREST = 0.5
"""Least ratio of the axes of a box or an ellipsoid."""
BLOB_WAVES = 5
BLOB_AMPLITUDE = 0.45
"""Sum of the amplitudes of a blob's waves, relative to its mean radius."""
BLOB_FREQUENCIES = (1.5, 4.0)
"""Least and largest frequency of a blob's waves, in periods of 2 pi along a unit length."""
HULL_CORNERS = {2: (5, 8), 3: (10, 14)}
RING_HOLE = {2: 0.55, 3: 0.4}
"""Radius of the hole of a ring (3D: torus) of radius 1."""
CROSS_ARM = 0.35
"""Width of an arm over its length."""
MEASURE_POINTS = {2: 256, 3: 72}
"""Lattice points along the unit ball's diameter that ``measure`` counts with: to about 0.2 %."""


class Outline(Protocol):
    """A set of points within the unit ball."""

    def inside(self, points: Tensor) -> Tensor:
        """Whether points ``(M, d)`` belong to it, ``(M,)`` bool."""
        ...


@dataclass(frozen=True)
class Ball:
    """The unit ball."""

    def inside(self, points: Tensor) -> Tensor:
        return points.square().sum(1) <= 1


@dataclass(frozen=True)
class Box:
    """|x_i| <= sides_i; the corners lie on the unit ball if the sides ``(d,)`` have norm 1."""

    sides: Tensor

    def inside(self, points: Tensor) -> Tensor:
        return (points.abs() <= self.sides).all(1)


@dataclass(frozen=True)
class Ellipsoid:
    """Of half axes ``(d,)``, the longest 1."""

    axes: Tensor

    def inside(self, points: Tensor) -> Tensor:
        return (points / self.axes).square().sum(1) <= 1


@dataclass(frozen=True)
class Hull:
    """Convex: normals ``(f, d)`` . x <= offsets ``(f,)`` for all faces f."""

    normals: Tensor
    offsets: Tensor

    def inside(self, points: Tensor) -> Tensor:
        return (points @ self.normals.T <= self.offsets).all(1)


@dataclass(frozen=True)
class Blob:
    """Star-shaped and smooth: in the direction n the radius is R (1 + sum_j a_j sin(k_j . n + p_j)).

    ``waves (w, d)`` are the k_j, ``phases`` and ``amplitudes (w,)``; R = 1 / (1 + sum_j a_j).
    """

    waves: Tensor
    phases: Tensor
    amplitudes: Tensor

    def inside(self, points: Tensor) -> Tensor:
        distance = points.norm(dim=1)
        direction = points / distance.clamp(min=1e-12)[:, None]
        waviness = torch.sin(direction @ self.waves.T + self.phases) @ self.amplitudes
        return distance * (1 + self.amplitudes.sum()) <= 1 + waviness


@dataclass(frozen=True)
class Ring:
    """2D: an annulus from radius ``hole`` to 1. 3D: the torus about the last axis between those radii."""

    hole: float

    def inside(self, points: Tensor) -> Tensor:
        thickness = (1 - self.hole) / 2
        along = points[:, :2].norm(dim=1) - (1 - thickness)
        return along.square() + points[:, 2:].square().sum(1) <= thickness**2


@dataclass(frozen=True)
class Cross:
    """One bar along each axis, of which the width over the length is ``arm``."""

    arm: float

    def inside(self, points: Tensor) -> Tensor:
        dim = points.shape[1]
        half = 1 / math.sqrt(1 + (dim - 1) * self.arm**2)
        sides = torch.full((dim, dim), half * self.arm, dtype=points.dtype).fill_diagonal_(half)
        return (points[:, None].abs() <= sides).all(2).any(1)


def measure(outline: Outline, dim: int) -> float:
    """Area or volume of an outline, by counting lattice points."""
    count = MEASURE_POINTS[dim]
    axis = (torch.arange(count, dtype=torch.float64) + 0.5) * (2 / count) - 1
    points = torch.cartesian_prod(*[axis] * dim)
    return float(outline.inside(points).double().mean()) * 2**dim


class Shape(Protocol):
    """A set of points in space with a bounding box and an area or volume ``content``."""

    @property
    def lower(self) -> Tensor: ...

    @property
    def upper(self) -> Tensor: ...

    @property
    def centre(self) -> Tensor: ...

    @property
    def content(self) -> float: ...

    def inside(self, points: Tensor) -> Tensor:
        """Whether points ``(M, d)`` belong to it, ``(M,)`` bool."""
        ...


@dataclass(frozen=True)
class Placed:
    """An outline that is turned by the rotation ``axes (d, d)``, scaled by ``radius`` and moved to ``centre (d,)``."""

    outline: Outline
    centre: Tensor
    radius: float
    axes: Tensor

    @cached_property
    def lower(self) -> Tensor:
        return self.centre - self.radius

    @cached_property
    def upper(self) -> Tensor:
        return self.centre + self.radius

    @cached_property
    def content(self) -> float:
        return measure(self.outline, len(self.centre)) * self.radius ** len(self.centre)

    def inside(self, points: Tensor) -> Tensor:
        return self.outline.inside((points - self.centre) @ self.axes / self.radius)


@dataclass(frozen=True)
class Block:
    """The box from ``lower (d,)`` to ``upper (d,)``, tensors or lists."""

    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))

    @cached_property
    def centre(self) -> Tensor:
        return (self.lower + self.upper) / 2

    @cached_property
    def content(self) -> float:
        return float((self.upper - self.lower).prod())

    def inside(self, points: Tensor) -> Tensor:
        return ((points >= self.lower) & (points <= self.upper)).all(1)


def ball(centre: Tensor | Sequence[float], radius: float) -> Placed:
    """The ball (2D: disk) of this centre ``(d,)`` and radius."""
    centre = torch.as_tensor(centre, dtype=torch.float64)
    return Placed(Ball(), centre, radius, torch.eye(len(centre), dtype=centre.dtype))


def random_outline(dim: int, generator: Generator) -> Outline:
    """One of ``OUTLINES`` with random proportions."""
    return named_outline(OUTLINES[int(torch.randint(len(OUTLINES), (), generator=generator))], dim, generator)


def named_outline(name: str, dim: int, generator: Generator) -> Outline:
    """One of ``OUTLINES`` or ``HARD_OUTLINES`` with random proportions."""
    if name == "ball":
        return Ball()
    if name == "box":
        sides = _ratios(dim, generator)
        return Box(sides / sides.norm())
    if name == "ellipsoid":
        return Ellipsoid(_ratios(dim, generator))
    if name == "hull":
        return _random_hull(dim, generator)
    if name == "blob":
        return _random_blob(dim, generator)
    return Ring(RING_HOLE[dim]) if name == "ring" else Cross(CROSS_ARM)


def random_rotation(dim: int, generator: Generator) -> Tensor:
    """A rotation matrix ``(d, d)``, uniform among all."""
    q, r = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    q[:, 0] *= torch.sign(torch.linalg.det(q))
    return q


def random_placed(outline: Outline, content: float, generator: Generator, dim: int, *, turned: bool = True) -> Placed:
    """An outline scaled to an area or volume of ``content`` about the origin, in a random direction if ``turned``."""
    radius = (content / measure(outline, dim)) ** (1 / dim)
    axes = random_rotation(dim, generator) if turned else torch.eye(dim, dtype=torch.float64)
    return Placed(outline, torch.zeros(dim, dtype=torch.float64), radius, axes)


def lattice(shape: Shape, spacing: float, generator: Generator, jitter: float = 0.25) -> Tensor:
    """Points in a shape ``(N, d)``, in a square lattice each moved at random by up to ``jitter`` spacings along each
    axis. Row k of the lattice lies at (k + 1/2) spacings, so that a block of whole spacings is filled evenly.
    """
    low = torch.floor(shape.lower / spacing).long()
    high = torch.ceil(shape.upper / spacing).long()
    axes = [torch.arange(int(a), int(b), dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    cells = torch.cartesian_prod(*axes)
    shift = 2 * jitter * (torch.rand(cells.shape, generator=generator, dtype=torch.float64) - 0.5)
    points = (cells + 0.5 + shift) * spacing
    return points[shape.inside(points)]


def _ratios(dim: int, generator: Generator) -> Tensor:
    ratios = [1.0, *(uniform(generator, SLENDEREST, 1.0) for _ in range(dim - 1))]
    return torch.tensor(ratios, dtype=torch.float64)


def _random_hull(dim: int, generator: Generator) -> Hull:
    """The hull of points on the unit ball, one in each equal sector of the circle in 2D."""
    from scipy.spatial import ConvexHull  # here: its import takes longer than that of all problems

    least, most = HULL_CORNERS[dim]
    corners = int(torch.randint(least, most + 1, (), generator=generator))
    if dim == 2:
        sectors = torch.arange(corners, dtype=torch.float64)
        angle = (sectors + 0.8 * torch.rand(corners, generator=generator, dtype=torch.float64)) * (
            2 * math.pi / corners
        )
        points = torch.stack([angle.cos(), angle.sin()], 1)
    else:
        points = torch.randn(corners, dim, generator=generator, dtype=torch.float64)
        points = points / points.norm(dim=1, keepdim=True)
    faces = torch.from_numpy(ConvexHull(points.numpy()).equations)
    return Hull(faces[:, :-1], -faces[:, -1])


def _random_blob(dim: int, generator: Generator) -> Blob:
    waves = torch.randn(BLOB_WAVES, dim, generator=generator, dtype=torch.float64)
    low, high = BLOB_FREQUENCIES
    frequency = low + (high - low) * torch.rand(BLOB_WAVES, 1, generator=generator, dtype=torch.float64)
    phases = 2 * math.pi * torch.rand(BLOB_WAVES, generator=generator, dtype=torch.float64)
    amplitudes = torch.rand(BLOB_WAVES, generator=generator, dtype=torch.float64) + 0.1
    amplitudes = BLOB_AMPLITUDE * amplitudes / amplitudes.sum()
    return Blob(waves / waves.norm(dim=1, keepdim=True) * frequency, phases, amplitudes)

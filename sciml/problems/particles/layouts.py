"""Where bodies start and how fast: random layouts of the unit box, one function for each subset.

A layout knows no material: water and jelly can start alike. Axis 1 (y) points up; bodies keep a distance from one
another and from the walls unless they are meant to touch them. Metres and seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from sciml.problems.draws import uniform
from sciml.problems.particles.shapes import Block, Placed, Shape, ball, named_outline, random_outline, random_placed

UP = 1
"""The axis against gravity."""
GAP = 0.03
"""Least distance between bodies, and of a body in the air from a wall."""
CONTENT = {2: (0.065, 0.15), 3: (0.018, 0.032)}
"""Least and largest area (m^2) or volume (m^3) of all bodies of a layout together."""
SPEED = 2.0
SPIN = 3.0
"""Largest speed (m/s) and rate of rotation (rad/s) at the start."""
TRIES = 2000
"""Random places that are tried for several bodies before new ones are drawn."""


@dataclass(frozen=True)
class Motion:
    """A body of this shape that starts with ``velocity (d,)`` m/s of its centre and turns with ``spin`` rad/s: ``(1,)``
    in 2D, anticlockwise, and ``(3,)`` about the axes in 3D.
    """

    shape: Shape
    velocity: Tensor
    spin: Tensor


@dataclass(frozen=True)
class Layout:
    """Bodies that move and obstacles (balls) that do not."""

    bodies: tuple[Motion, ...]
    obstacles: tuple[Placed, ...] = ()


def layout(kind: str, number: int, dim: int) -> Layout:
    """The layout of a kind (``LAYOUTS``) that the whole ``number`` selects."""
    return LAYOUTS[kind](dim, torch.Generator().manual_seed(number))


def drop(dim: int, generator: Generator) -> Layout:
    """One body in the air."""
    return _one_in_the_air(random_outline(dim, generator), dim, generator)


def ring(dim: int, generator: Generator) -> Layout:
    """One ring (3D: torus) in the air."""
    return _one_in_the_air(named_outline("ring", dim, generator), dim, generator)


def cross(dim: int, generator: Generator) -> Layout:
    """One cross in the air."""
    return _one_in_the_air(named_outline("cross", dim, generator), dim, generator)


def column(dim: int, generator: Generator) -> Layout:
    """A column at rest on the floor, against the wall at either end of x (in 3D in a corner)."""
    content = uniform(generator, *CONTENT[dim])
    slenderness = uniform(generator, 0.8, 2.2)  # height over width
    width = (content / slenderness) ** (1 / dim)
    sides = torch.full((dim,), width, dtype=torch.float64)
    sides[UP] = slenderness * width
    lower = torch.zeros(dim, dtype=torch.float64)
    for axis in range(dim):
        if axis != UP and uniform(generator, 0.0, 1.0) < 0.5:
            lower[axis] = 1 - sides[axis]
    return Layout((at_rest(Block(lower, lower + sides)),))


def blocks(dim: int, generator: Generator) -> Layout:
    """Two or three bodies."""
    count = 2 + int(torch.randint(2, (), generator=generator))
    content = uniform(generator, *CONTENT[dim])
    while True:
        shares = [uniform(generator, 0.7, 1.3) for _ in range(count)]
        bodies = [
            random_placed(random_outline(dim, generator), content * share / sum(shares), generator, dim)
            for share in shares
        ]
        for _ in range(TRIES):
            places = [_anywhere(body, generator) for body in bodies]
            if _apart(places):
                return Layout(tuple(_moving(body, generator) for body in places))


def pool(dim: int, generator: Generator) -> Layout:
    """A body above a layer at rest that covers the floor."""
    depth = uniform(generator, 0.05, 0.09) if dim == 2 else uniform(generator, 0.05, 0.07)
    upper = torch.ones(dim, dtype=torch.float64)
    upper[UP] = depth
    content = 0.4 * uniform(generator, *CONTENT[dim])
    body = random_placed(random_outline(dim, generator), content, generator, dim)
    body = _anywhere(body, generator, floor=depth + GAP)
    return Layout((at_rest(Block(torch.zeros(dim, dtype=torch.float64), upper)), _moving(body, generator)))


def obstacle(dim: int, generator: Generator) -> Layout:
    """A body in the air above a fixed ball (2D: disk)."""
    body = random_placed(random_outline(dim, generator), uniform(generator, *CONTENT[dim]), generator, dim)
    radius = uniform(generator, 0.07, 0.11)
    highest = 1 - 2 * GAP - 2 * body.radius - radius  # leaves room for the body
    centre = torch.tensor([uniform(generator, 0.35, 0.65) for _ in range(dim)], dtype=torch.float64)
    centre[UP] = uniform(generator, radius + 0.02, max(radius + 0.02, min(0.4, highest)))
    fixed = ball(centre, radius)
    body = _anywhere(body, generator, floor=float(fixed.upper[UP]) + GAP)
    near = centre + 0.5 * (body.centre - centre)  # half way to the side: most bodies hit the ball
    near[UP] = body.centre[UP]
    return Layout((_moving(replace(body, centre=_within(near, body.radius)), generator),), (fixed,))


LAYOUTS: dict[str, Callable[[int, Generator], Layout]] = {
    "drop": drop,
    "column": column,
    "blocks": blocks,
    "pool": pool,
    "obstacle": obstacle,
    "ring": ring,
    "cross": cross,
}
"""Kinds of layouts: a case names one by its place here, so that new ones go to the end."""


def at_rest(shape: Shape) -> Motion:
    """The shape without motion."""
    dim = len(shape.lower)
    return Motion(shape, torch.zeros(dim, dtype=torch.float64), torch.zeros(1 if dim == 2 else 3, dtype=torch.float64))


def _one_in_the_air(outline, dim: int, generator: Generator) -> Layout:
    body = random_placed(outline, uniform(generator, *CONTENT[dim]), generator, dim)
    return Layout((_moving(_anywhere(body, generator, floor=0.2), generator),))


def _moving(body: Shape, generator: Generator) -> Motion:
    """In a random direction that does not point upwards, up to ``SPEED`` and ``SPIN``."""
    dim = len(body.lower)
    direction = torch.randn(dim, generator=generator, dtype=torch.float64)
    direction[UP] = -direction[UP].abs()
    velocity = uniform(generator, 0.0, SPEED) * direction / direction.norm()
    if dim == 2:
        return Motion(body, velocity, torch.tensor([uniform(generator, -SPIN, SPIN)], dtype=torch.float64))
    axis = torch.randn(3, generator=generator, dtype=torch.float64)
    return Motion(body, velocity, uniform(generator, 0.0, SPIN) * axis / axis.norm())


def _anywhere(body: Placed, generator: Generator, floor: float = 0.0) -> Placed:
    """Somewhere between the walls, the ceiling and ``floor``; as high as it can if that is too high for it."""
    dim = len(body.centre)
    low, high = GAP + body.radius, 1 - GAP - body.radius
    centre = torch.tensor([uniform(generator, low, high) for _ in range(dim)], dtype=torch.float64)
    share = (centre[UP] - low) / (high - low)
    low = min(floor + low, high)
    centre[UP] = low + share * (high - low)
    return replace(body, centre=centre)


def _within(centre: Tensor, radius: float) -> Tensor:
    return centre.clamp(GAP + radius, 1 - GAP - radius)


def _apart(bodies: list[Placed]) -> bool:
    """Whether the balls around the bodies are ``GAP`` or more from one another."""
    return all(
        math.dist(a.centre.tolist(), b.centre.tolist()) >= a.radius + b.radius + GAP
        for i, a in enumerate(bodies)
        for b in bodies[:i]
    )

"""Where the supports of compactly supported test functions lie in a box: a regular grid or a Latin hypercube.

On Dirichlet sides test functions vanish, so centres keep the distance of the radius from them; towards other sides
they go up to the side itself, and their supports are cut there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics.weak.box import Box, checked_box


def room_for_centres(box: Box, radius: float) -> list[tuple[float, float]]:
    """Lowest and highest coordinate of a centre on each axis.

    Raises ``ConfigError`` for a radius that is not positive or leaves no room between two Dirichlet sides.
    """
    if not 0 < radius < float("inf"):
        raise ConfigError(f"the radius of the test functions is {radius}; expected a positive number")
    room = []
    for axis, (start, length) in enumerate(zip(box.origin, box.lengths, strict=True)):
        low, high = (radius if fixed else 0.0 for fixed in box.fixed(axis))
        if low + high > length:
            raise ConfigError(
                f"test functions of the radius {radius} do not fit between the Dirichlet sides of axis {axis}, "
                f"{length} apart; give a radius of {length / 2} at most"
            )
        room.append((start + low, start + length - high))
    return room


def grid_centres(
    counts: Sequence[int],
    lengths: Sequence[float],
    radius: float,
    *,
    origin: Sequence[float] | None = None,
    dirichlet: Iterable[str] | None = None,
) -> Tensor:
    """A regular grid of ``counts`` centres an axis, ``(J, d)`` float64 in C order, from end to end of their room.

    The neighbours' distance is that of the test functions; a radius of 1.5 to 3 of it lets them overlap well. Raises
    ``ConfigError`` for counts that do not fit the box, and as ``room_for_centres``.
    """
    box = checked_box(lengths, origin, dirichlet)
    room = room_for_centres(box, radius)
    if len(counts) != box.dim or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts):
        raise ConfigError(f"counts are {tuple(counts)}; expected {box.dim} whole number(s), 1 or more, one a length")
    axes = [
        torch.linspace(low, high, n, dtype=torch.float64) if n > 1 else torch.tensor([(low + high) / 2]).double()
        for n, (low, high) in zip(counts, room, strict=True)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, box.dim)


def random_centres(
    n: int,
    lengths: Sequence[float],
    radius: float,
    *,
    seed: int,
    origin: Sequence[float] | None = None,
    dirichlet: Iterable[str] | None = None,
) -> Tensor:
    """``n`` centres ``(n, d)`` float64 by Latin hypercube: one in each of n equal parts of every axis of their room.

    (McKay, Beckman and Conover, Technometrics 21 (1979) 239.) A pure function of ``seed``. Raises ``ConfigError`` for
    n below 1, and as ``room_for_centres``.
    """
    box = checked_box(lengths, origin, dirichlet)
    room = torch.tensor(room_for_centres(box, radius), dtype=torch.float64)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"{n!r} centres are asked for; expected a whole number, 1 or more")
    generator = torch.Generator().manual_seed(seed)
    parts = torch.stack([torch.randperm(n, generator=generator) for _ in range(box.dim)], 1)
    inside = torch.rand(n, box.dim, generator=generator, dtype=torch.float64)
    return room[:, 0] + (parts + inside) / n * (room[:, 1] - room[:, 0])


def shown(point: Tensor) -> str:
    """A point as messages show it: "(0.5, 0.25)"."""
    return f"({', '.join(f'{x:g}' for x in point.tolist())})"

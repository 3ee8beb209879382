"""How the nodes of the boundary of a triangulation may move: along straight sides, around circles, or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError

STRAIGHT = 1e-6
"""Sine of the angle up to which two edges of the boundary lie on one straight side."""

ON_CIRCLE = 1e-6
"""How far from a circle, over its radius, a node still lies on it."""

Circle = tuple[float, float, float]
"""Centre x, centre y and radius."""


@dataclass(frozen=True)
class BoundaryMotion:
    """Which nodes of the boundary move how; nodes that neither ``sliding`` nor ``turning`` names stay where they are.

    ``nodes (n,)``: all nodes of the boundary. ``sliding (s,)`` along ``directions (s, 2)`` (unit vectors of straight
    sides), ``turning (c,)`` around ``centres (c, 2)``.
    """

    nodes: Tensor
    sliding: Tensor
    directions: Tensor
    turning: Tensor
    centres: Tensor


def boundary_motion(
    points: Tensor, triangles: Tensor, circles: Sequence[Circle] = (), fixed: Iterable[int] = ()
) -> BoundaryMotion:
    """The motion of ``points (N, 2)`` of the anticlockwise ``triangles (T, 3)`` that keeps the shape of the domain.

    A node between two edges of one straight side slides along it; a node between two nodes on one of the ``circles``
    turns around its centre; corners, nodes of other curved boundaries and the nodes ``fixed`` stay.

    Raises ``ConfigError`` for a circle without a node of the boundary, and numbers in ``fixed`` that no node has.
    """
    following = _following(triangles, len(points))
    nodes = torch.tensor(sorted(following), dtype=torch.int64)
    held = _checked_numbers(fixed, len(points))
    # where two boundaries touch, a node has two successors and no side of its own
    simple = {a: ends[0] for a, ends in following.items() if len(ends) == 1}
    previous = {b: a for a, b in simple.items()}
    between = [(previous[x], x, simple[x]) for x in nodes.tolist() if x in simple and x in previous and x not in held]
    triples = torch.tensor(between, dtype=torch.int64).reshape(-1, 3)
    turning, centres = _on_circles(points, nodes, triples, circles)
    straight = set(_straight(points, triples)) - set(turning.tolist())
    sliding, directions = _sides(points, straight, simple, previous)
    return BoundaryMotion(nodes, sliding, directions, turning, centres)


def _following(triangles: Tensor, count: int) -> dict[int, list[int]]:
    """Node of the boundary -> where the edges of the boundary that start there lead, the domain on their left."""
    start, end = triangles.flatten(), triangles.roll(-1, 1).flatten()
    alone = ~torch.isin(start * count + end, end * count + start)
    following: dict[int, list[int]] = {}
    for a, b in zip(start[alone].tolist(), end[alone].tolist(), strict=True):
        following.setdefault(a, []).append(b)
    return following


def _straight(points: Tensor, triples: Tensor) -> list[int]:
    before, at, after = points[triples].unbind(1)
    first, second = torch.nn.functional.normalize(at - before), torch.nn.functional.normalize(after - at)
    sine = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    return triples[(sine.abs() < STRAIGHT) & ((first * second).sum(1) > 0), 1].tolist()


def _sides(
    points: Tensor, straight: set[int], following: dict[int, int], previous: dict[int, int]
) -> tuple[Tensor, Tensor]:
    """The ``straight`` nodes and the directions from the first to the last node of the side of each."""
    sliding: list[int] = []
    directions: list[Tensor] = []
    left = set(straight)
    while left:
        start = left.pop()
        first, last, side = previous[start], following[start], [start]
        while first in straight:
            side.append(first)
            first = previous[first]
        while last in straight:
            side.append(last)
            last = following[last]
        left -= set(side)
        sliding += side
        direction = torch.nn.functional.normalize(points[last] - points[first], dim=0)
        directions += [direction] * len(side)
    if not sliding:
        return torch.empty(0, dtype=torch.int64), points.new_empty(0, 2)
    order = torch.tensor(sliding).argsort()
    return torch.tensor(sliding)[order], torch.stack(directions)[order]


def _on_circles(points: Tensor, nodes: Tensor, triples: Tensor, circles: Sequence[Circle]) -> tuple[Tensor, Tensor]:
    turning, centres = [torch.empty(0, dtype=torch.int64)], [points.new_empty(0, 2)]
    for circle in circles:
        if len(circle) != 3 or not circle[2] > 0:
            raise ConfigError(f"a circle is {tuple(circle)}; expected (centre x, centre y, radius above 0)")
        centre = points.new_tensor(circle[:2])
        on = ((points - centre).norm(dim=1) - circle[2]).abs() <= ON_CIRCLE * circle[2]
        if not bool(on[nodes].any()):
            raise ConfigError(f"none of the {len(nodes)} nodes of the boundary lies on the circle {tuple(circle)}")
        inner = triples[on[triples].all(1), 1]
        turning.append(inner)
        centres.append(centre.expand(len(inner), 2))
    return torch.cat(turning), torch.cat(centres)


def _checked_numbers(fixed: Iterable[int], count: int) -> set[int]:
    held = {int(number) for number in fixed}
    wrong = sorted(number for number in held if not 0 <= number < count)
    if wrong:
        raise ConfigError(f"fixed names the nodes {wrong[:8]}; there are {count} nodes, numbered from 0")
    return held


def check_not_folded(triangles: Tensor, count: int) -> None:
    """``DataError`` where two anticlockwise triangles lie on the same side of an edge that they share."""
    start, end = triangles.flatten(), triangles.roll(-1, 1).flatten()
    edges, uses = (start * count + end).unique(return_counts=True)
    twice = edges[uses > 1]
    if len(twice):
        a, b = int(twice[0]) // count, int(twice[0]) % count
        raise DataError(
            f"the triangulation is folded: {len(twice)} edges have both triangles on the same side, the first from "
            f"node {a} to node {b}; expected triangles that do not overlap, give the mesh before it was inverted"
        )

"""Choosing a few of many points."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.points.checks import check_points


def farthest_points(points: Tensor, count: int, *, start: int = 0) -> Tensor:
    """Indices ``(count,)`` of points that cover the set ``(N, d)``: from ``start`` on, each the farthest from those
    chosen before.

    Gonzalez, Theor. Comput. Sci. 38 (1985) 293: the largest distance of any point to the chosen ones is at most twice
    the smallest possible, and the first k of the indices are the choice of k. Of several points equally far the first
    is taken; no point is chosen twice. Time N count, memory N.

    Raises ``ConfigError`` for a start outside the set, ``DataError`` when there are fewer points than asked for or
    coordinates are not finite.
    """
    check_points("points", points)
    n = len(points)
    _check_count(count, n)
    if count and not 0 <= start < n:
        raise ConfigError(f"start is {start}; expected the index of one of the {n} points, 0 to {n - 1}.")
    columns = [column.contiguous() for column in points.detach().T]
    chosen = torch.empty(count, dtype=torch.int64, device=points.device)
    distance = torch.full((n,), torch.inf, dtype=points.dtype, device=points.device)
    here = torch.full((1,), start, dtype=torch.int64, device=points.device)
    for k in range(count):
        chosen[k] = here[0]
        square = (columns[0] - columns[0][here]).square_()
        for column in columns[1:]:
            difference = column - column[here]
            square.addcmul_(difference, difference)
        torch.minimum(distance, square, out=distance)
        distance[here] = -1  # a chosen point is not chosen again, even where others lie upon it
        here = distance.argmax(keepdim=True)  # stays on the device: no waiting for it
    return chosen


def random_points(n: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Sorted indices ``(count,)`` of a uniform choice of ``count`` of ``n`` points, each at most once, on the device of
    the generator.

    Raises ``DataError`` when there are fewer points than asked for.
    """
    _check_count(count, n)
    device = "cpu" if generator is None else generator.device
    return torch.randperm(n, generator=generator, device=device)[:count].sort().values


def _check_count(count: int, n: int) -> None:
    if count < 0:
        raise ConfigError(f"{count} points are asked for; expected 0 or more.")
    if count > n:
        raise DataError(f"{count} points are asked for and there are {n}; ask for fewer.")

"""The nearest particles of every point, also where a scene has fewer particles than are asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.points import nearest


def neighbourhoods(
    points: Tensor, queries: Tensor, k: int, batch: Tensor | None = None, query_batch: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Index ``(k, M)`` of the nearest points, nearest first, and which of them are there ``(k, M)``.

    A scene with fewer than k points gives all it has; the rest repeat the nearest and are not ``present``.

    Raises:
        ConfigError, DataError: as ``sciml.points.nearest``; a scene with queries and without points.
    """
    if batch is None or query_batch is None:
        counts = torch.tensor([len(points)], device=points.device)
        count = counts.expand(len(queries))
    else:
        scenes = 1 + max(int(numbers.max()) if len(numbers) else -1 for numbers in (batch, query_batch))
        counts = batch.bincount(minlength=scenes)
        count = counts[query_batch]
    count = count.clamp(max=k)
    if bool((count == 0).any()):
        first = int((count == 0).nonzero()[0])
        raise DataError(
            f"point {first} has no particle to follow: its scene has none; give every scene with points a particle"
        )
    index = points.new_zeros((k, len(queries)), dtype=torch.int64)
    for size in count.unique().tolist() or [k]:
        chosen = (count == size).nonzero().squeeze(1)
        scenes_of = None if query_batch is None else query_batch[chosen]
        found, _ = nearest(points, queries[chosen], size, batch=batch, query_batch=scenes_of)
        index[:size, chosen] = found.T
        index[size:, chosen] = found[:, 0]
    return index, torch.arange(k, device=points.device)[:, None] < count

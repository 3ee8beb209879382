"""Pairs of points closer than a radius, and the k nearest points, never by comparing all with all.

On the CPU a k-d tree (``scipy.spatial.cKDTree``), elsewhere the cell list of ``sciml.points.cells``. In both the last
word on a pair is the same comparison of squared distances in float64, so both give the same pairs, points exactly at
the radius included. The result is integer and has no gradient: take differences of the positions with it.

Several scenes at once are told apart by their number in ``batch``. Scenes do not mix: the number is one more
coordinate, in which two scenes are farther apart than any distance asked for.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.points.cells import SLACK, cell_pairs, nearest_in_cells
from sciml.points.checks import check_alike, check_points, check_scenes


def radius_pairs(
    points: Tensor,
    radius: float,
    *,
    queries: Tensor | None = None,
    batch: Tensor | None = None,
    query_batch: Tensor | None = None,
    include_self: bool = False,
) -> Tensor:
    """All pairs at most ``radius`` apart: ``(2, E)`` int64, row 0 the point (source), row 1 the query (receiver),
    sorted by receiver, then source.

    ``points (N, d)``, ``queries (M, d)``, radius in their unit; ``batch (N,)``, ``query_batch (M,)``: scene numbers
    from 0, in any order. Without queries: the pairs among the points themselves, in both directions, with the loops
    (i, i) only if ``include_self``; points at the same place are a pair.

    Raises ``ConfigError`` for a radius that is not positive and wrong shapes, ``DataError`` for coordinates that are
    not finite.
    """
    radius = float(radius)
    if not 0 < radius < float("inf"):
        raise ConfigError(f"The radius is {radius}; expected a positive, finite length in the unit of the points.")
    if queries is None and query_batch is not None:
        raise ConfigError("query_batch is given without queries; give the queries too, or leave it out.")
    if queries is not None and include_self:
        raise ConfigError("include_self is about pairs of the points among themselves; leave it out with queries.")
    _check(points, queries, batch, query_batch)
    n, m = len(points), len(points if queries is None else queries)
    if n == 0 or m == 0:
        return torch.empty((2, 0), dtype=torch.int64, device=points.device)
    if points.device.type != "cpu":
        return cell_pairs(points, radius, queries, batch, query_batch, include_self=include_self)
    x = _with_scene(points, batch, 2 * radius)
    if queries is None:
        i, j = _columns(cKDTree(x, balanced_tree=False).query_pairs(radius * SLACK, output_type="ndarray"))
        i, j = _closer(x, i, x, j, radius)
        loops = np.arange(n if include_self else 0)
        return _sorted_pairs(np.concatenate([i, j, loops]), np.concatenate([j, i, loops]), n, m)
    y = _with_scene(queries, query_batch, 2 * radius)
    trees = (cKDTree(z, balanced_tree=False) for z in (x, y))
    found = next(trees).sparse_distance_matrix(next(trees), radius * SLACK, output_type="ndarray")
    return _sorted_pairs(*_closer(x, found["i"], y, found["j"], radius), n, m)


def nearest(
    points: Tensor,
    queries: Tensor,
    k: int,
    *,
    batch: Tensor | None = None,
    query_batch: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` points nearest to every query: index ``(M, k)`` and distance ``(M, k)`` in the dtype of the points,
    nearest first.

    Which of several points at the same distance comes first is not specified. A query that is one of the points finds
    itself.

    Raises ``ConfigError`` for k < 1 and wrong shapes, ``DataError`` for a scene with fewer than k points and for
    coordinates that are not finite.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; ask for at least one nearest point.")
    _check(points, queries, batch, query_batch)
    _check_count(len(points), k, batch, query_batch, len(queries))
    if len(queries) == 0:
        return (
            torch.empty((0, k), dtype=torch.int64, device=points.device),
            torch.empty((0, k), dtype=points.dtype, device=points.device),
        )
    if points.device.type == "cpu":
        index, distance = _nearest_in_tree(points, queries, k, batch, query_batch)
        return index, distance.to(points.dtype)
    index, distance = _nearest_on_device(points, queries, k, batch, query_batch)
    return index, distance.to(points.dtype)


def _nearest_on_device(
    points: Tensor, queries: Tensor, k: int, batch: Tensor | None, query_batch: Tensor | None
) -> tuple[Tensor, Tensor]:
    """By the cell list, and by the tree on the CPU for the queries it leaves."""
    index, distance = nearest_in_cells(points, queries, k, batch, query_batch)
    left = (index[:, 0] < 0).nonzero().flatten()
    if len(left):
        scenes = (None, None) if batch is None or query_batch is None else (batch.cpu(), query_batch[left].cpu())
        found = _nearest_in_tree(points.cpu(), queries[left].cpu(), k, *scenes)
        index[left], distance[left] = found[0].to(index.device), found[1].to(distance.device)
    return index, distance


def _nearest_in_tree(
    points: Tensor, queries: Tensor, k: int, batch: Tensor | None, query_batch: Tensor | None
) -> tuple[Tensor, Tensor]:
    both = torch.cat([points.detach().double(), queries.detach().double()])
    size = float(torch.linalg.vector_norm(both.amax(0) - both.amin(0)))
    apart = 2 * size + 1  # farther than any two points of one scene
    tree = cKDTree(_with_scene(points, batch, apart), balanced_tree=False)
    distance, index = tree.query(_with_scene(queries, query_batch, apart), k=range(1, k + 1))
    return torch.from_numpy(index.astype(np.int64)), torch.from_numpy(distance)


def _with_scene(points: Tensor, batch: Tensor | None, apart: float) -> np.ndarray:
    """Coordinates in float64, with the scene number times ``apart`` as one more where there are scenes."""
    x = points.detach().double()
    if batch is not None:
        x = torch.cat([x, apart * batch[:, None].double()], 1)
    return x.contiguous().numpy()


def _columns(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def _closer(x: np.ndarray, i: np.ndarray, y: np.ndarray, j: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Of the candidates i of x and j of y those at most a radius apart. By columns: several times faster than rows."""
    total = np.zeros(len(i))
    for a, b in zip(x.T, y.T, strict=True):
        difference = np.ascontiguousarray(a).take(i) - np.ascontiguousarray(b).take(j)
        difference *= difference
        total += difference
    keep = total <= radius * radius
    return i[keep], j[keep]


def _sorted_pairs(source: np.ndarray, receiver: np.ndarray, n: int, m: int) -> Tensor:
    """(2, E), sorted by receiver, then source: by one key of both, which is several times faster than lexsort."""
    bits = int(n).bit_length()
    key = (receiver.astype(np.int64) << bits) | source
    key.sort()
    return torch.from_numpy(np.stack([key & ((1 << bits) - 1), key >> bits]))


def _check(points: Tensor, queries: Tensor | None, batch: Tensor | None, query_batch: Tensor | None) -> None:
    check_points("points", points)
    if batch is not None:
        check_scenes("batch", batch, points)
    if queries is None:
        return
    check_points("queries", queries)
    check_alike(("points", points), ("queries", queries))
    if (batch is None) != (query_batch is None):
        given, missing = ("batch", "query_batch") if query_batch is None else ("query_batch", "batch")
        raise ConfigError(f"{given} is given without {missing}; scenes are told apart only by both.")
    if query_batch is not None:
        check_scenes("query_batch", query_batch, queries)


def _check_count(n: int, k: int, batch: Tensor | None, query_batch: Tensor | None, m: int) -> None:
    """Every scene that has queries must have k points."""
    if m == 0:
        return
    if batch is None or query_batch is None:
        if n < k:
            raise DataError(f"{k} nearest points are asked for and there are {n}; give more points or a smaller k.")
        return
    scenes = int(torch.cat([batch, query_batch]).max()) + 1
    count, asked = batch.bincount(minlength=scenes), query_batch.bincount(minlength=scenes)
    short = ((count < k) & (asked > 0)).nonzero().flatten()
    if len(short):
        scene = int(short[0])
        raise DataError(
            f"{k} nearest points are asked for and scene {scene} has {int(count[scene])}; give it more points or ask "
            "for a smaller k."
        )

"""Is the graph of a set of points connected, and which radius would connect it?

A network that passes messages along the pairs of a radius graph moves every part of the graph by itself: with a radius
that is too small a body falls to pieces that do not feel each other. A radius somewhat too large only costs time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.points.bridges import bridges
from sciml.points.cells import SLACK
from sciml.points.checks import check_points, check_scenes
from sciml.points.neighbours import nearest

DEGREE = 20.0
"""Neighbours a point that ``propose_radius`` aims at: the networks here are usually run with 15 to 30."""


def components(n: int, pairs: Tensor) -> Tensor:
    """The connected component ``(n,)`` int64 of each of n points joined by ``pairs (2, E)``, in either direction.

    Components are numbered from 0 in the order of their first points.
    """
    if pairs.ndim != 2 or pairs.shape[0] != 2 or pairs.is_floating_point():
        raise ConfigError(f"pairs are {pairs.dtype} {tuple(pairs.shape)}; expected integers (2, E).")
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < n:
        raise ConfigError(f"pairs name the points {int(pairs.min())} to {int(pairs.max())}; there are {n}.")
    i, j = pairs.detach().cpu().numpy()
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1] if n else np.zeros(0)
    return torch.from_numpy(labels.astype(np.int64)).to(pairs.device)


def propose_radius(points: Tensor, *, degree: float = DEGREE, parts: int = 1, batch: Tensor | None = None) -> float:
    """The smallest radius at which the points of every scene are connected and have ``degree`` neighbours on average.

    ``points (N, d)``; ``parts``: bodies that need not touch one another: that many components are allowed in a scene;
    ``batch (N,)``: scene numbers. In the mean over the points of all scenes a point counts with at most twice the
    degree, so that one dense cluster does not speak for the rest; where there are too few points for the degree, all
    are joined with all.

    Raises ``DataError`` when no scene has two points at different places, ``ConfigError`` for a degree that is not
    positive or parts < 1.
    """
    check_points("points", points)
    if not degree > 0 or parts < 1:
        raise ConfigError(f"degree is {degree} and parts {parts}; expected a positive number and at least 1.")
    scenes = _scenes(points, batch)
    found = [_nearest_others(scene, degree) for scene in scenes]
    spread, n = torch.cat([distance.flatten() for _, distance in found]), len(points)
    radius = 0.0
    if len(spread):
        radius = SLACK * float(spread.sort().values[min(len(spread), max(1, round(degree * n))) - 1])
    for scene, (index, distance) in zip(scenes, found, strict=True):
        # Links to a few nearest points are enough to begin with: there are never more of them than N degree.
        near = distance <= radius
        pairs = torch.stack([index[near], near.nonzero()[:, 0]])
        radius = max(radius, _connecting_radius(scene, components(len(scene), pairs), parts))
    if not radius > 0:
        raise DataError(
            f"No radius can be proposed for {n} points in {len(scenes)} scenes: no scene has two points at different "
            "places. Give more points."
        )
    return radius


def check_graph(points: Tensor, pairs: Tensor, radius: float, *, parts: int = 1, batch: Tensor | None = None) -> None:
    """Refuse the radius graph ``pairs (2, E)`` of ``points (N, d)`` if it has more than ``parts`` components in a
    scene, or no point.

    For the first configuration of a body: later a liquid may well split.

    Raises ``DataError`` that says how the graph falls apart and proposes a radius.
    """
    labels = components(len(points), pairs)
    for number, scene in enumerate(_scenes(torch.arange(len(points), device=points.device), batch)):
        name = "The scene" if batch is None else f"Scene {number}"
        if len(scene) == 0:
            raise DataError(f"{name} is empty; give it at least one point.")
        _, part, sizes = labels[scene].unique(return_inverse=True, return_counts=True)
        if len(sizes) <= parts:
            continue
        here = points[scene]
        enough, usual = _connecting_radius(here, part, parts), propose_radius(here, parts=parts)
        raise DataError(
            f"{name} has a graph of {len(sizes)} components at the radius {radius:.4g}, at most {parts} expected; the "
            f"largest has {int(sizes.max())} of {len(scene)} points, {int((sizes == 1).sum())} points have no "
            f"neighbour. Use a radius of {usual:.4g}, which connects them with {DEGREE:.0f} neighbours a point or more "
            f"({enough:.4g} just connects them), or more points."
        )


def _nearest_others(scene: Tensor, degree: float) -> tuple[Tensor, Tensor]:
    """Index and distance of the 2 ``degree`` points nearest to every point of a scene, or of all others."""
    k = min(math.ceil(2 * degree), len(scene) - 1)
    if k < 1:
        return torch.empty((len(scene), 0), dtype=torch.int64, device=scene.device), scene.new_empty(len(scene), 0)
    index, distance = nearest(scene, scene, k + 1)
    return index[:, 1:], distance[:, 1:]  # the first is the point itself, or one at the same place


def _connecting_radius(scene: Tensor, labels: Tensor, parts: int) -> float:
    """The smallest radius that leaves at most ``parts`` of the components ``labels`` of one scene; 0 if there are no
    more than that already."""
    if len(scene) == 0:
        return 0.0
    lengths = bridges(scene.detach().double().cpu().numpy(), labels.cpu().numpy())
    return SLACK * float(lengths[-parts]) if len(lengths) >= parts else 0.0


def _scenes(points: Tensor, batch: Tensor | None) -> list[Tensor]:
    """The points of every scene."""
    if batch is None:
        return [points]
    check_scenes("batch", batch, points)
    order = batch.argsort(stable=True)
    return list(points[order].split(batch.bincount().tolist()))

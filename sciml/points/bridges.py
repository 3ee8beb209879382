"""The shortest edges that join the parts of a set of points.

They are edges of the Euclidean minimum spanning tree, found by Boruvka's algorithm: every part is joined with the part
nearest to it, again and again until one is left. The nearest point of another part comes from k-d trees of half of the
parts each: two different labels differ in one of their bits, and for each bit the points whose label has it are looked
for among those whose label has it not. Time n log(n) log(parts)^2, however far apart the parts are.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def bridges(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Lengths of the parts - 1 edges, in rising order, that join the parts of ``points (n, d)`` to one.

    ``labels (n,)``: the part of every point, numbered from 0 without gaps.
    """
    lengths: list[float] = []
    parts = int(labels.max()) + 1
    while parts > 1:
        distance, other = _nearest_elsewhere(points, labels)
        order = np.lexsort((distance, labels))  # the first of every label is its shortest way out
        ways = order[np.searchsorted(labels[order], np.arange(parts))]
        joined = _joined(parts, labels[ways], labels[other[ways]], distance[ways], lengths)
        labels, parts = joined[labels], int(joined.max()) + 1
    return np.sort(np.array(lengths))


def _nearest_elsewhere(points: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance and index of the nearest point with another label, for every point."""
    best, index = np.full(len(points), np.inf), np.zeros(len(points), np.int64)
    for bit in range(int(labels.max()).bit_length()):
        has = (labels >> bit & 1).astype(bool)
        for here, there in ((np.flatnonzero(has), np.flatnonzero(~has)), (np.flatnonzero(~has), np.flatnonzero(has))):
            distance, found = cKDTree(points[there], balanced_tree=False).query(points[here])
            nearer = distance < best[here]
            best[here[nearer]], index[here[nearer]] = distance[nearer], there[found[nearer]]
    return best, index


def _joined(parts: int, a: np.ndarray, b: np.ndarray, distance: np.ndarray, lengths: list[float]) -> np.ndarray:
    """New labels of the parts after the edges (a, b), shortest first, each only if it joins two (Kruskal); its length
    is appended."""
    parent = list(range(parts))

    def root(part: int) -> int:
        while parent[part] != part:
            parent[part] = parent[parent[part]]
            part = parent[part]
        return part

    for edge in np.argsort(distance, kind="stable"):
        one, two = root(int(a[edge])), root(int(b[edge]))
        if one != two:
            parent[one] = two
            lengths.append(float(distance[edge]))
    return np.unique([root(part) for part in range(parts)], return_inverse=True)[1]

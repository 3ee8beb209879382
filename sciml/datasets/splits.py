"""Which cases train, which validate, which test: by case, even over labels, a pure function of the seed."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from sciml.errors import DataError


def split_cases(
    labels: Sequence[str], parts: Mapping[str, int] | Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Split cases 0 .. N - 1 into named parts: disjoint, complete, stratified by label.

    ``labels``: one a case (the subset). ``parts``: counts that add up to N, ``{"train": 120, "val": 12,
    "test": 30}``, or fractions that add up to 1. Every part holds every label in the proportion of the whole
    as nearly as whole cases allow, and at least one case of each label where the sizes permit. Returns sorted
    indices, int64. Which cases are drawn depends only on ``seed``, the labels and the parts.

    Raises `DataError` when the sizes do not add up or a part would be empty.
    """
    names, sizes = list(parts), part_sizes(len(labels), parts)
    kinds = sorted(set(labels))
    table = _apportion([sum(label == kind for label in labels) for kind in kinds], sizes)
    chosen: dict[str, list[int]] = {name: [] for name in names}
    for kind, row in zip(kinds, table, strict=True):
        # crc32 of the label, so that a label's order does not change when another label is added.
        generator = np.random.default_rng([seed, zlib.crc32(kind.encode())])
        order = generator.permutation([i for i, label in enumerate(labels) if label == kind])
        for name, piece in zip(names, np.split(order, np.cumsum(row)[:-1]), strict=True):
            chosen[name].extend(int(i) for i in piece)
    return {name: np.array(sorted(indices), dtype=np.int64) for name, indices in chosen.items()}


def part_sizes(n_cases: int, parts: Mapping[str, int] | Mapping[str, float]) -> list[int]:
    """Counts from counts or fractions (largest remainder, none empty).

    Raises `DataError` as `split_cases`.
    """
    given = dict(parts)
    advice = f"; there are {n_cases} cases: change the parts or generate more cases"
    if not given or any(isinstance(v, bool) or not v > 0 for v in given.values()):
        raise DataError(f"every part must be positive, got {given}{advice}")
    if all(isinstance(v, int | np.integer) for v in given.values()):
        sizes = [int(v) for v in given.values()]
        if sum(sizes) != n_cases:
            raise DataError(f"the parts {given} add up to {sum(sizes)}{advice}")
        return sizes
    total = sum(given.values())
    if abs(total - 1) > 1e-6:
        raise DataError(f"fractions must add up to 1, {given} add up to {total:g}{advice}")
    if n_cases < len(given):
        raise DataError(f"too few cases for the parts {given}{advice}")
    exact = np.array(list(given.values())) * n_cases
    sizes = np.maximum(1, np.floor(exact + 1e-9).astype(np.int64))
    while sizes.sum() < n_cases:
        sizes[np.argmax(exact - sizes)] += 1
    while sizes.sum() > n_cases:  # only after raising empty parts to 1
        sizes[np.argmax(np.where(sizes > 1, sizes - exact, -np.inf))] -= 1
    return [int(s) for s in sizes]


def _apportion(rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """A table of counts (labels x parts) with these sums, as near to ``row * column / total`` as whole
    numbers allow.

    Starts with one case of each label in each part where both have enough, then gives case after case to the
    entry that is furthest below its share; as any label may go into any part, this never runs into a dead
    end.
    """
    left, room = np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
    share = np.outer(left, room) / max(1, left.sum())
    table = np.outer(left >= len(room), room >= len(left)).astype(np.int64)
    left, room = left - table.sum(axis=1), room - table.sum(axis=0)
    while left.sum() > 0:
        open_ = np.outer(left > 0, room > 0)
        i, j = np.unravel_index(np.argmax(np.where(open_, share - table, -np.inf)), table.shape)
        table[i, j] += 1
        left[i] -= 1
        room[j] -= 1
    return table

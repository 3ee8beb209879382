"""Neighbour search in three dimensions: k-d tree, cell list, and comparing all with all.

    python benchmarks/neighbour_search.py [--short] [--threads 1]

Uniform points in the unit cube with a radius for about 20 neighbours. ``pairs`` have both directions, sorted; the
k-d tree is what ``sciml.points.radius_pairs`` uses on the CPU, the cell list what it uses elsewhere, run here on the
CPU too. All give the same pairs, which is checked.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import torch
from harness import Row, report
from torch import Tensor

from sciml.points import farthest_points, nearest, radius_pairs
from sciml.points.cells import cell_pairs

NEIGHBOURS = 20
ALL_WITH_ALL = 20_000  # the most points compared so: 3.2 GB of distances


def cloud(n: int) -> tuple[Tensor, float]:
    """Points and the radius of the ball that holds so many of them."""
    points = torch.rand(n, 3, generator=torch.Generator().manual_seed(0))
    return points, (NEIGHBOURS / n / (4 / 3 * math.pi)) ** (1 / 3)


def all_with_all(points: Tensor, radius: float) -> Tensor:
    """What a search without a structure does, in float64 as the others."""
    x = points.double()
    near = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") <= radius
    return near.fill_diagonal_(False).nonzero().T.flip(0)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Least processor time of a call."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def rows(short: bool) -> list[Row]:
    table: list[Row] = []
    methods = {"k-d tree": radius_pairs, "cell list": cell_pairs, "all with all": all_with_all}
    for n in (1000, 5000) if short else (1000, 5000, 20_000, 100_000):
        points, radius = cloud(n)
        row: Row = {"points": n}
        expected = None
        for name, method in methods.items():
            if method is all_with_all and n > ALL_WITH_ALL:
                row[f"{name}, ms"] = ""
                continue
            pairs = method(points, radius)
            expected = pairs if expected is None else expected
            if not torch.equal(pairs, expected):
                raise SystemExit(f"{name} finds other pairs than the k-d tree.")
            row["pairs"] = pairs.shape[1]
            row[f"{name}, ms"] = 1e3 * seconds(lambda m=method, p=points, r=radius: m(p, r), 2 if n > 5000 else 5)
        few = points[farthest_points(points, 500)]
        row["tree, us a point"] = 1e3 * row["k-d tree, ms"] / n
        row["8 nearest of 500, ms"] = 1e3 * seconds(lambda f=few, p=points: nearest(f, p, 8), 2)
        row["500 farthest points, ms"] = 1e3 * seconds(lambda p=points: farthest_points(p, 500), 2)
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="up to 5,000 points, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(
        "neighbour_search",
        f"What does it cost to find the neighbours of points, about {NEIGHBOURS} each?",
        rows(arguments.short),
        [
            "Processor time, the least of several calls; pairs in both directions, sorted by receiver, then source.",
            f"All with all stops at {ALL_WITH_ALL:,} points: 100,000 would take 80 GB.",
            "Nearest: of 500 chosen points, for every point. The cell list is for accelerators; it was not timed on "
            "one.",
        ],
    )


if __name__ == "__main__":
    main()

"""What one case of each problem costs at its default resolution, batched and alone, and how fast whole sets are made.

python benchmarks/problem_costs.py [--problems cavity tube ...]

The same cases are solved in this process with one thread, in batches as ``sciml generate`` makes them and one by one.
Sets are generated as a user does, file and worker processes included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from harness import RESULTS, Row, report

from sciml.problems import PROBLEMS, get_problem
from sciml.problems.base import Problem
from sciml.problems.cases import Sample
from sciml.problems.generate import generate

FEWEST = 12
"""Cases that are solved at least."""


@torch.inference_mode()
def case_cost(problem: Problem) -> Row:
    """Wall-clock seconds per case of a default sample, one thread."""
    count = max(problem.group, FEWEST)
    sample = problem.sample(count, "all", seed=0)
    times = problem.frame_times(sample.parameters)
    problem.solve(sample.select([0]).parameters, None, times[:1, : 2 - problem.static])  # warm-up
    batched, alone = (
        seconds(problem, sample, times, groups_of_similar_cost(problem, sample, times, size))
        for size in (problem.group, 1)
    )
    return {
        "problem": f"{problem.name} {problem.dim}D",
        "grid": "x".join(map(str, problem.grid())),
        "frames": times.shape[1],
        "cases": count,
        "batch": problem.group,
        "ms per case, batch": 1e3 * batched / count,
        "ms per case, alone": 1e3 * alone / count,
        "alone / batch": alone / batched,
    }


def groups_of_similar_cost(problem: Problem, sample: Sample, times: torch.Tensor, size: int) -> list[list[int]]:
    """As ``sciml generate`` groups the cases."""
    order = problem.cost(sample.parameters, times, problem.resolution).argsort(descending=True).tolist()
    return [order[start : start + size] for start in range(0, len(order), size)]


def seconds(problem: Problem, sample: Sample, times: torch.Tensor, groups: list[list[int]]) -> float:
    """To solve all groups, one after the other."""
    started = time.perf_counter()
    for group in groups:
        problem.solve(sample.select(group).parameters, None, times[group])
    return time.perf_counter() - started


def set_cost(name: str, subset: str, cases: int, resolution: int | None, workers: int) -> Row:
    """Seconds for a whole file."""
    problem = get_problem(name)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "set.h5"
        started = time.perf_counter()
        generate(problem, file, subset=subset, cases=cases, resolution=resolution, workers=workers)
        seconds = time.perf_counter() - started
        size = file.stat().st_size / 1e6
    return {
        "set": f"{cases} {name} {subset}",
        "grid": "x".join(map(str, problem.grid(resolution))),
        "processes": workers,
        "seconds": seconds,
        "ms per case": 1e3 * seconds / cases,
        "MB": size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--problems", nargs="+", default=None, help="rows of the others are kept; default: all, and sets"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    if arguments.problems and (RESULTS / "problem_costs.json").exists():
        rows = {row["problem"]: row for row in json.loads((RESULTS / "problem_costs.json").read_text())["rows"]}
    for name in arguments.problems or sorted(PROBLEMS):
        for dim in PROBLEMS[name].dims:
            row = case_cost(get_problem(name, dim))
            rows[row["problem"]] = row
    report(
        "problem_costs",
        "What does one case of each problem cost?",
        [rows[problem] for problem in sorted(rows)],
        [
            "Default resolution and frames, float32, one thread; `batch` is what `sciml generate` solves together.",
            "Rows may come from several calls of the command with `--problems`, each on the same machine.",
        ],
    )
    if arguments.problems:
        return
    sets = [("darcy", "dgno_piecewise", 700, 29), ("darcy", "fno", 700, 29), ("burgers", "fno", 1000, None)]
    report(
        "problem_sets",
        "How long do the published sets take to make?",
        [set_cost(name, subset, cases, n, workers) for name, subset, cases, n in sets for workers in (1, 2)],
        ["Wall-clock seconds of `sciml.problems.generate.generate`, the file and the start of processes included."],
    )


if __name__ == "__main__":
    main()

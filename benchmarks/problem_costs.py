"""What one case of each problem costs at its default resolution, batched and alone, and how fast whole sets are made.

python benchmarks/problem_costs.py [--problems cavity tube ...]

A case is solved in this process with one thread, in the batch that ``sciml generate`` uses and by itself (the mean over
a few cases). Sets are generated as a user does, file and worker processes included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from harness import Row, report

from sciml.problems import PROBLEMS, get_problem
from sciml.problems.base import Problem
from sciml.problems.generate import generate

ALONE = 3
"""Cases solved one by one."""


@torch.inference_mode()
def case_cost(problem: Problem) -> Row:
    """Wall-clock seconds per case of the default sample, one thread."""
    count = problem.group
    sample = problem.sample(count, "all", seed=0)
    times = problem.frame_times(sample.parameters)
    problem.solve(sample.select([0]).parameters, None, times[:1, : 2 - problem.static])  # warm-up
    started = time.perf_counter()
    problem.solve(sample.parameters, None, times)
    batched = (time.perf_counter() - started) / count
    # Cases from the whole range of costs, not the first ones.
    chosen = torch.linspace(0, count - 1, ALONE).long().tolist()
    started = time.perf_counter()
    for case in chosen:
        problem.solve(sample.select([case]).parameters, None, times[[case]])
    alone = (time.perf_counter() - started) / ALONE
    return {
        "problem": f"{problem.name} {problem.dim}D",
        "grid": "x".join(map(str, problem.grid())),
        "frames": times.shape[1],
        "batch": count,
        "ms per case, batch": 1e3 * batched,
        "ms per case, alone": 1e3 * alone,
        "alone / batch": alone / batched,
    }


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
    parser.add_argument("--problems", nargs="+", default=sorted(PROBLEMS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    everything = [get_problem(name, dim) for name in arguments.problems for dim in PROBLEMS[name].dims]
    report(
        "problem_costs",
        "What does one case of each problem cost?",
        [case_cost(problem) for problem in everything],
        ["Default resolution and frames, float32, one thread; `batch` is what `sciml generate` solves together."],
    )
    sets = [("darcy", "dgno_piecewise", 700, 29), ("darcy", "fno", 700, 29), ("burgers", "fno", 1000, None)]
    report(
        "problem_sets",
        "How long do the published sets take to make?",
        [set_cost(name, subset, cases, n, workers) for name, subset, cases, n in sets for workers in (1, 2)],
        ["Wall-clock seconds of `sciml.problems.generate.generate`, the file and the start of processes included."],
    )


if __name__ == "__main__":
    main()

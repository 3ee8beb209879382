"""Speed of the incompressible solver on the lid-driven cavity: cost per case and step, and cases per minute.

python benchmarks/solver_speed.py [--short]

Every process uses one thread. Times are CPU seconds of the process (``cpu``), which other load on the machine
disturbs less, and wall-clock seconds (``wall``).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import torch
from harness import Row, report

from sciml.physics import MovingWall, Wall, box
from sciml.solvers import IncompressibleSolver


def cavities(batch: int, n: int, dtype: torch.dtype) -> IncompressibleSolver:
    """``batch`` unit cavities with unit lid speed, Re from 100 to 1000 in equal ratios."""
    reynolds = torch.logspace(2, 3, batch, dtype=torch.float64)
    sides = {"x_low": Wall(), "x_high": Wall(), "y_low": Wall(), "y_high": MovingWall((1.0, 0.0))}
    return IncompressibleSolver(box((n, n), torch.ones(batch, 2)), sides, 1 / reynolds, dtype=dtype)


@torch.inference_mode()
def step_cost(batch: int, n: int, dtype: torch.dtype, steps: int) -> Row:
    """Cost of one step, the best of five rounds of about ``steps`` steps."""
    solver = cavities(batch, n, dtype)
    duration = torch.full((batch,), steps * solver.cfl / n, dtype=torch.float64)
    state = solver.advance(solver.initial_state(), duration)  # warm-up
    best_cpu = best_wall = float("inf")
    for _ in range(5):
        cpu, wall = time.process_time(), time.perf_counter()
        state = solver.advance(state, duration)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        taken = round(float(duration[0] / state.previous_step[0]))  # the solver chooses its own step
        best_cpu, best_wall = min(best_cpu, cpu / taken), min(best_wall, wall / taken)
    scale = 1e3 / batch
    return {
        "measure": "ms per case and step",
        "grid": n,
        "dtype": str(dtype).removeprefix("torch."),
        "batch": batch,
        "processes": 1,
        "cpu": best_cpu * scale,
        "wall": best_wall * scale,
    }


def work(job: tuple[int, int, float]) -> float:
    """One process: a batch of cavities from rest to ``end``.

    Returns its CPU seconds.
    """
    batch, n, end = job
    torch.set_num_threads(1)
    cpu = time.process_time()
    solver = cavities(batch, n, torch.float32)
    with torch.inference_mode():
        solver.advance(solver.initial_state(), torch.full((batch,), end))
    return time.process_time() - cpu


def throughput(processes: int, batch: int, n: int, end: float) -> Row:
    """Cases per minute to t U / L = ``end`` with ``processes`` single-threaded processes (start-up not
    counted)."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(work, [(1, 8, 0.1)] * processes, chunksize=1)  # imports and warm-up
        wall = time.perf_counter()
        cpu = pool.map(work, [(batch, n, end)] * processes, chunksize=1)
        wall = time.perf_counter() - wall
    cases = processes * batch
    return {
        "measure": f"cases per minute to tU/L = {end:g}",
        "grid": n,
        "dtype": "float32",
        "batch": batch,
        "processes": processes,
        "cpu": 60 * cases / max(cpu),  # what an idle machine with a core per process would reach
        "wall": 60 * cases / wall,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Speed of the incompressible solver on the lid-driven cavity.")
    parser.add_argument("--short", action="store_true", help="a quarter of the time, fewer batches")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    batches = (1, 4, 16) if options.short else (1, 2, 4, 8, 16, 32, 64)
    rows = [step_cost(batch, 64, torch.float32, 20 if options.short else 50) for batch in batches]
    rows += [step_cost(16, 64, torch.float64, 20)]
    if not options.short:
        rows += [step_cost(4, 128, torch.float32, 20)]
    end = 10.0 if options.short else 40.0
    rows += [throughput(processes, 16, 64, end) for processes in (1, 2)]
    report(
        "solver_speed",
        "How fast is the incompressible solver?",
        rows,
        [
            "cpu: from CPU seconds of the process; wall: from the clock. ms: smaller is better; cases per minute: "
            "larger is better"
        ],
    )


if __name__ == "__main__":
    main()

"""Generate a data file: sample cases, solve them in batches over worker processes, write them as they finish."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch

from sciml.datasets import DatasetWriter
from sciml.errors import ConfigError
from sciml.problems import get_problem
from sciml.problems.base import Problem, Sample
from sciml.progress import Progress

GROUP = 12
"""Cases solved together: large enough to use the cache well, small enough to keep two cores busy to the end."""


def generate(
    problem: Problem | str,
    out: Path | str,
    *,
    subset: str = "all",
    cases: int = 10,
    resolution: int | None = None,
    frames: int | None = None,
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
    workers: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Write ``cases`` cases of a subset to the HDF5 file ``out`` and return its path.

    ``shard=(i, n)`` makes the i-th of n files (1-based) of the same sample. ``workers`` processes solve groups of
    cases, one thread each (only on the CPU). A generation that was interrupted continues with the missing cases, and
    the finished file is the same, bit for bit, on the same machine: cases are grouped before anything is solved.

    Raises ``ConfigError`` for bad arguments, ``SolverError`` for cases that cannot be resolved, ``DataError`` if
    ``out`` cannot be written or holds other data.
    """
    problem = get_problem(problem) if isinstance(problem, str) else problem
    progress = progress or Progress()
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"shard is {index}/{count}; expected i/n with 1 <= i <= n")
    resolution = problem.resolution if resolution is None else resolution
    frames = 1 if problem.static else problem.frames if frames is None else frames
    if frames < 2 and not problem.static:
        raise ConfigError(f"frames is {frames}; at least 2 are needed")
    sample = problem.sample(cases, subset, seed, resolution, frames)
    sample = sample.select(range(index - 1, cases, count))
    if not sample.subsets:
        raise ConfigError(f"shard {index}/{count} of {cases} cases is empty")
    times = problem.frame_times(sample.parameters, frames)
    shape = problem.grid(resolution)
    info = problem.dataset_info(shape, frames, subset, seed=seed, extra={"subset": subset, "shard": f"{index}/{count}"})
    parameters, coordinates = sample.parameters, problem.coordinates(sample.parameters, shape)
    with DatasetWriter(out, info, len(sample.subsets), parameters, sample.subsets) as writer:
        missing = set(writer.missing())
        groups = [group for group in _groups(problem, sample, times, resolution) if missing & set(group)]
        done = len(sample.subsets) - sum(map(len, groups))
        if done:
            progress.message(f"continuing {out}: {done} of {len(sample.subsets)} cases are there already")
        with progress.phase(f"generate {problem.name}", len(sample.subsets)):
            progress.advance(done)
            tasks = [
                (problem.name, problem.dim, sample.select(group).parameters, times[group], shape, device)
                for group in groups
            ]
            try:
                for position, trajectory in _solve_all(tasks, workers if device == "cpu" else 1):
                    group = groups[position]
                    writer.write(group, trajectory, {axis: values[group] for axis, values in coordinates.items()})
                    progress.advance(len(group))
            except KeyboardInterrupt:
                progress.message(
                    f"stopped; {writer.partial} keeps the finished cases: the same command goes on with it"
                )
                raise
        writer.finish()
    return Path(out)


def _groups(problem: Problem, sample: Sample, times: torch.Tensor, resolution: int) -> list[list[int]]:
    """Cases sorted by cost (the most expensive first) in groups: a batch shares its number of steps."""
    order = torch.argsort(problem.cost(sample.parameters, times, resolution), descending=True, stable=True).tolist()
    return [order[start : start + GROUP] for start in range(0, len(order), GROUP)]


def _solve(task: tuple) -> dict[str, np.ndarray]:
    name, dim, parameters, times, shape, device = task
    with torch.inference_mode():
        trajectory = get_problem(name, dim).solve(parameters, shape, times, device=device)
    return {key: value.cpu().numpy() for key, value in trajectory.items()}


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent deals with it


def _solve_all(tasks: list[tuple], workers: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    workers = min(workers, len(tasks))
    if workers <= 1:
        for position, task in enumerate(tasks):
            yield position, _solve(task)
        return
    # spawn, not fork: a forked child of a process whose OpenMP threads have run hangs in its first parallel region.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        futures = {pool.submit(_solve, task): position for position, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        finally:
            for future in futures:
                future.cancel()

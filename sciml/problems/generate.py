"""Generate a data file: sample cases, solve them in groups over worker processes, write them as they finish."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sciml.datasets import DatasetWriter
from sciml.errors import ConfigError, SolverError
from sciml.problems import get_problem
from sciml.problems.base import Problem
from sciml.problems.workers import Group, solve_groups
from sciml.progress import Progress


@dataclass(frozen=True)
class Generation:
    """What was made: the file at ``path`` with ``cases``, of which ``solved`` now, in ``seconds`` (solving and
    writing) on ``processes``.
    """

    path: Path
    cases: int
    solved: int
    seconds: float
    processes: int

    @property
    def seconds_per_case(self) -> float:
        return self.seconds / max(1, self.solved)


def generate(problem: Problem | str, out: Path | str, **options: Any) -> Path:
    """Write a data file and return its path: ``generate_timed`` (its options) without the times."""
    return generate_timed(problem, out, **options).path


def generate_timed(
    problem: Problem | str,
    out: Path | str,
    *,
    subset: str = "all",
    cases: int = 10,
    resolution: int | None = None,
    frames: int | None = None,
    interval: float | None = None,
    grading: float = 1.0,
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
    workers: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Generation:
    """Write ``cases`` cases of a subset to the HDF5 file ``out``.

    ``resolution``, ``frames`` and ``interval`` (seconds between frames) are by default the problem's; ``grading`` above
    1 moves the same number of frames towards the start (``graded``). ``shard=(i, n)``
    makes the i-th of n files (1-based) of the same sample; ``sciml.datasets.merge_files`` joins them. Up to ``workers``
    processes solve groups of cases, one thread each (only on the CPU). A generation that was interrupted continues with
    the missing cases, and the finished file is the same, bit for bit, on the same machine: cases are grouped before
    anything is solved.

    Raises ``ConfigError`` for bad arguments, ``SolverError`` for cases that cannot be resolved (after all others are
    written), ``DataError`` if ``out`` cannot be written or holds other data.
    """
    problem = get_problem(problem) if isinstance(problem, str) else problem
    progress = progress or Progress()
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"shard is {index}/{count}; expected i/n with 1 <= i <= n")
    resolution = problem.resolution if resolution is None else resolution
    frames = _frames(problem, frames)
    sample = problem.sample(cases, subset, seed, resolution, frames)
    numbers = range(index - 1, cases, count)
    sample = sample.select(numbers)
    if not sample.subsets:
        raise ConfigError(f"shard {index}/{count} of {cases} cases is empty")
    times = graded(problem.frame_times(sample.parameters, frames, interval), grading)
    shape = problem.grid(resolution)
    info = problem.dataset_info(shape, frames, subset, seed=seed, extra={"subset": subset, "shard": f"{index}/{count}"})
    parameters, coordinates = sample.parameters, problem.coordinates(sample.parameters, shape)
    n_cases, failures = len(sample.subsets), []
    with DatasetWriter(out, info, n_cases, parameters, sample.subsets) as writer:
        missing = set(writer.missing())
        cost = problem.cost(parameters, times, resolution).double().clamp(min=1e-12)
        groups = [group for group in _groups(cost, problem.group) if missing & set(group)]
        solved, processes = 0, 1
        done = n_cases - sum(map(len, groups))
        if done:
            progress.message(f"continuing {out}: {done} of {n_cases} cases are there already")
        with progress.phase(f"generate {problem.name}", n_cases):
            progress.advance(done)
            started = time.perf_counter()
            work = [
                Group(
                    *(problem.name, problem.dim, sample.select(group).parameters, times[group]),
                    *(shape, device, float(cost[group].sum())),
                )
                for group in groups
            ]
            try:
                for outcome in solve_groups(work, workers if device == "cpu" else 1):
                    group, processes = groups[outcome.position], max(processes, outcome.processes)
                    if outcome.error is not None:
                        failures.append(_failure(outcome.error, [numbers[case] for case in group]))
                        progress.message(f"{failures[-1]}; going on with the other cases")
                        continue
                    writer.write(
                        group, outcome.trajectory, {axis: values[group] for axis, values in coordinates.items()}
                    )
                    solved += len(group)
                    progress.advance(len(group), f"{(time.perf_counter() - started) / solved:.2g} s per case")
            except KeyboardInterrupt:
                progress.message(
                    f"stopped; {writer.partial} keeps the finished cases: the same command goes on with it"
                )
                raise
            seconds = time.perf_counter() - started
            if failures:
                raise SolverError(
                    f"{failures[0]}. {len(failures)} of {len(groups)} groups of cases failed; {writer.partial} keeps "
                    f"the {n_cases - len(writer.missing())} of {n_cases} cases that are finished: the same command "
                    "tries only the others again"
                )
        writer.finish()
    return Generation(Path(out), n_cases, solved, seconds, processes)


def graded(times: torch.Tensor, grading: float) -> torch.Tensor:
    """Times ``(..., T)`` from 0 to the same end, the fraction s of which becomes s^grading: for solutions that change
    fastest at the start.
    """
    if grading == 1.0:
        return times
    end = times[..., -1:]
    return end * (times / end) ** grading


def _frames(problem: Problem, frames: int | None) -> int:
    if problem.static:
        if frames not in (None, 1):
            raise ConfigError(f"frames is {frames}; problem {problem.name!r} has no time and one frame: leave it out")
        return 1
    frames = problem.frames if frames is None else frames
    if frames < 2:
        raise ConfigError(f"frames is {frames}; at least 2 are needed")
    return frames


def _groups(cost: torch.Tensor, size: int) -> list[list[int]]:
    """Cases sorted by cost (the most expensive first) in groups: a batch shares its number of steps."""
    order = torch.argsort(cost, descending=True, stable=True).tolist()
    return [order[start : start + size] for start in range(0, len(order), size)]


def _failure(error: SolverError, numbers: Sequence[int]) -> str:
    """The solver's message with the case's number in the sample for its place in the group."""
    text, found = re.subn(
        r"\bcase (\d+)\b",
        lambda match: f"case {numbers[int(match[1])]}" if int(match[1]) < len(numbers) else match[0],
        str(error),
    )
    return text if found else f"one of the cases {', '.join(map(str, sorted(numbers)))}: {text}"

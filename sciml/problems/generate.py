"""Generate a data file: sample cases, solve them in groups over worker processes, write them as they finish."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sciml.datasets import DatasetWriter
from sciml.errors import ConfigError, SolverError
from sciml.problems import get_problem
from sciml.problems.base import Problem
from sciml.problems.workers import Group, solve_groups
from sciml.progress import Progress


class Writer(Protocol):
    """A data file that is written case by case."""

    path: Path
    partial: Path
    info: Any

    def missing(self) -> list[int]:
        """The cases that are not yet written."""
        ...


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
    n_cases = len(sample.subsets)
    with DatasetWriter(out, info, n_cases, parameters, sample.subsets) as writer:
        missing = set(writer.missing())
        cost = problem.cost(parameters, times, resolution).double().clamp(min=1e-12)
        groups = [group for group in groups_by_cost(cost, problem.group) if missing & set(group)]
        work = {
            tuple(group): Group(
                *(problem.name, problem.dim, sample.select(group).parameters, times[group]),
                *(shape, device, float(cost[group].sum())),
            )
            for group in groups
        }

        def write(group: Sequence[int], trajectory: Mapping[str, np.ndarray]) -> None:
            writer.write(group, trajectory, {axis: values[list(group)] for axis, values in coordinates.items()})

        solved, seconds, processes = solve_and_write(writer, write, work, numbers, workers, progress)
        writer.finish()
    return Generation(Path(out), n_cases, solved, seconds, processes)


def solve_and_write(
    writer: Writer,
    write: Callable[[Sequence[int], Any], None],
    work: Mapping[tuple[int, ...], Group],
    numbers: Sequence[int],
    workers: int,
    progress: Progress,
) -> tuple[int, float, int]:
    """Solve the groups of ``work`` (the cases of each -> what is solved) and ``write`` each when it is ready.

    ``numbers``: of the cases of the file in the whole sample, for messages. A failure does not stop the others.
    Returns how many cases were solved, the seconds, and the processes that solved.

    Raises ``SolverError`` after all others are written, if a group failed; what ``write`` raises.
    """
    groups, failures = list(work), []
    solved, processes = 0, 1
    done = len(numbers) - sum(map(len, groups))
    if done:
        progress.message(f"continuing {writer.path}: {done} of {len(numbers)} cases are there already")
    on_cpu = all(each.device == "cpu" for each in work.values())
    with progress.phase(f"generate {writer.info.problem}", len(numbers)):
        progress.advance(done)
        started = time.perf_counter()
        try:
            for outcome in solve_groups(list(work.values()), workers if on_cpu else 1):
                group, processes = groups[outcome.position], max(processes, outcome.processes)
                if outcome.error is not None:
                    failures.append(_failure(outcome.error, [numbers[case] for case in group]))
                    progress.message(f"{failures[-1]}; going on with the other cases")
                    continue
                write(group, outcome.trajectory)
                solved += len(group)
                progress.advance(len(group), f"{(time.perf_counter() - started) / solved:.2g} s per case")
        except KeyboardInterrupt:
            progress.message(f"stopped; {writer.partial} keeps the finished cases: the same command goes on with it")
            raise
        seconds = time.perf_counter() - started
    if failures:
        raise SolverError(
            f"{failures[0]}. {len(failures)} of {len(groups)} groups of cases failed; {writer.partial} keeps "
            f"the {len(numbers) - len(writer.missing())} of {len(numbers)} cases that are finished: the same command "
            "tries only the others again"
        )
    return solved, seconds, processes


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


def groups_by_cost(cost: torch.Tensor, size: int) -> list[list[int]]:
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

"""Generate a particle file: sample cases, solve them over worker processes, write them as they finish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sciml.datasets.particles import ParticleTrajectory, ParticleWriter
from sciml.errors import ConfigError
from sciml.problems import get_problem
from sciml.problems.generate import Generation, groups_by_cost, solve_and_write
from sciml.problems.particles.base import ParticleProblem
from sciml.problems.workers import Group
from sciml.progress import Progress

CUDA_TOGETHER = 32
"""Cases that a GPU solves at a time: two thousand particles alone leave it idle."""


def generate(problem: ParticleProblem | str, out: Path | str, **options: Any) -> Path:
    """Write a particle file and return its path: ``generate_timed`` (its options) without the times."""
    return generate_timed(problem, out, **options).path


def generate_timed(
    problem: ParticleProblem | str,
    out: Path | str,
    *,
    subset: str = "all",
    cases: int = 10,
    resolution: int | None = None,
    frames: int | None = None,
    interval: float | None = None,
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
    workers: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Generation:
    """Write ``cases`` cases of a subset to the HDF5 file ``out``.

    ``resolution`` (cells along the box, which also sets the number of particles), ``frames`` and ``interval`` (seconds
    between frames) are by default the problem's. ``shard=(i, n)`` makes every n-th case from the i-th on (1-based): the
    cases have the same bits as in the whole. Up to ``workers`` processes solve cases, one thread each (only on the
    CPU). A generation that was interrupted continues with the missing cases, and the finished file has the same
    contents, bit for bit, on the same machine.

    Raises ``ConfigError`` for bad arguments, ``SolverError`` for cases that cannot be solved (after all others are
    written), ``DataError`` if ``out`` cannot be written or holds other data.
    """
    problem = get_problem(problem) if isinstance(problem, str) else problem
    progress = progress or Progress()
    index, count = shard
    if not 1 <= index <= count:
        raise ConfigError(f"shard is {index}/{count}; expected i/n with 1 <= i <= n")
    resolution = problem.check_resolution(problem.resolution if resolution is None else resolution)
    frames = problem.frames if frames is None else frames
    if frames < 3:
        raise ConfigError(f"frames is {frames}; at least 3 are needed: an acceleration spans three")
    interval = problem.frame_interval if interval is None else interval
    numbers = range(index - 1, cases, count)
    sample = problem.sample(cases, subset, seed, resolution).select(numbers)
    if not sample.subsets:
        raise ConfigError(f"shard {index}/{count} of {cases} cases is empty")
    times = problem.frame_times(sample.parameters, frames, interval)
    n_cases = len(sample.subsets)
    info = problem.particle_info(
        interval,
        seed,
        subset=subset,
        shard=f"{index}/{count}",
        cases=str(cases),
        resolution=str(resolution),
        frames=str(frames),
    )
    with ParticleWriter(out, info, n_cases) as writer:
        missing = set(writer.missing())
        cost = problem.cost(sample.parameters, times, resolution).double()
        together = problem.group if device == "cpu" else CUDA_TOGETHER
        groups = [group for group in groups_by_cost(cost, together) if missing & set(group)]
        work = {
            tuple(group): Group(
                *(problem.name, problem.dim, sample.select(group).parameters, times[group]),
                *(resolution, device, float(cost[group].sum())),
            )
            for group in groups
        }

        def write(group: Sequence[int], trajectories: Sequence[Mapping[str, Any]]) -> None:
            for case, arrays in zip(group, trajectories, strict=True):
                if case in missing:  # without velocities: differences of frames say the same, and the file is half
                    writer.write(case, ParticleTrajectory(**{**arrays, "velocity": None}))

        solved, seconds, processes = solve_and_write(writer, write, work, numbers, workers, progress)
        writer.finish()
    return Generation(Path(out), n_cases, solved, seconds, processes)

"""The particle trajectories of a run, split by case, and the training batches that are cut from them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sciml.datasets import split_cases
from sciml.datasets.particles import ParticleFile, ParticleInfo, ParticleTrajectory
from sciml.errors import ConfigError, DataError
from sciml.problems.particles import ParticleProblem
from sciml.problems.particles.generate import generate
from sciml.progress import Progress
from sciml.surrogate.particles import Scene, join, scene_of
from sciml.surrogate.particles.companions import choose
from sciml.training.particles.config import ParticleDataConfig, ParticleTaskConfig
from sciml.training.sampling import Shuffled, step_generator

GENERATOR_VERSION = 1
"""Raise it when generated data change: files of older versions are then generated anew."""

IN_MEMORY = 2**31
"""Bytes of positions up to which the training trajectories are kept in memory; otherwise a batch reads its frames."""


@dataclass(frozen=True)
class ParticlePart:
    """One part of the split: cases of files."""

    cases: tuple[tuple[ParticleFile, int], ...]

    @property
    def info(self) -> ParticleInfo:
        return self.cases[0][0].info

    @property
    def subsets(self) -> tuple[str, ...]:
        return tuple(file.subsets[case] for file, case in self.cases)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(file.path for file, _ in self.cases))

    def __len__(self) -> int:
        return len(self.cases)


@dataclass(frozen=True)
class ParticleSplit:
    """The parts of a run's data; the test part may come from another file."""

    train: ParticlePart
    validation: ParticlePart
    test: ParticlePart


def prepare(config: ParticleDataConfig, problem: ParticleProblem, device: str, progress: Progress) -> ParticleSplit:
    """Find or generate the data and split them.

    Raises ``DataError`` for damaged files, ``ConfigError`` for files of other problems or that differ in what their
    particles are.
    """
    counts = {"train": config.cases.train, "validation": config.cases.validation, "test": config.cases.test}
    if config.files:
        files = [ParticleFile(path) for path in config.files]
        check_files(files, problem)
        total = sum(counts.values())
        return _split(files, {name: count / total for name, count in counts.items()}, config.seed)
    if config.split == "random":
        file = _generated(config, problem, config.subset, sum(counts.values()), config.seed, device, progress)
        return _split([ParticleFile(file)], counts, config.seed)
    if config.subset != "all":
        raise ConfigError(f"data.split=extrapolate goes with data.subset=all, not {config.subset!r}")
    known = counts["train"] + counts["validation"]
    file = _generated(config, problem, "outside", known, config.seed, device, progress)
    inner = _split([ParticleFile(file)], {**counts, "test": 0}, config.seed)
    return replace(inner, test=hard_part(config, problem, device, progress))


def hard_part(config: ParticleDataConfig, problem: ParticleProblem, device: str, progress: Progress) -> ParticlePart:
    """The test part of the split ``extrapolate``: ``cases.test`` cases shared among the problem's hard subsets."""
    each = -(-config.cases.test // len(problem.hard_subsets))
    seed = config.seed + 1  # two subsets that draw alike must not draw the same cases
    files = [
        ParticleFile(_generated(config, problem, subset, each, seed, device, progress))
        for subset in problem.hard_subsets
    ]
    return whole(files)


def whole(files: Sequence[ParticleFile]) -> ParticlePart:
    """All cases of these files."""
    return ParticlePart(tuple((file, case) for file in files for case in range(len(file))))


def check_files(files: Sequence[ParticleFile], problem: ParticleProblem) -> None:
    """Raise ``ConfigError`` unless the files are of the problem and say the same about their particles."""
    first = files[0].info
    for file in files:
        info = file.info
        if problem.name not in ("particles", info.problem):
            raise ConfigError(
                f"{file.path} holds the problem {info.problem!r}; the run is for {problem.name!r}. For particles of "
                "your own take --problem particles"
            )
        if info.dim != problem.dim:
            raise ConfigError(f"{file.path} is in {info.dim}D; the run is in {problem.dim}D (--dim {info.dim})")
        for key in ("interval", "kinds", "parameters", "gravity"):
            ours, theirs = getattr(first, key), getattr(info, key)
            if ours != theirs:
                raise ConfigError(f"{file.path} and {files[0].path} differ in {key}: {theirs!r} and {ours!r}")


def _split(files: Sequence[ParticleFile], parts: dict[str, int] | dict[str, float], seed: int) -> ParticleSplit:
    cases = whole(files).cases
    labels = [file.subsets[case] for file, case in cases]
    chosen = split_cases(labels, {name: size for name, size in parts.items() if size}, seed)
    found = {name: ParticlePart(tuple(cases[case] for case in sorted(which))) for name, which in chosen.items()}
    return ParticleSplit(found["train"], found["validation"], found.get("test", ParticlePart(())))


def _generated(
    config: ParticleDataConfig,
    problem: ParticleProblem,
    subset: str,
    cases: int,
    seed: int,
    device: str,
    progress: Progress,
) -> Path:
    name = f"{problem.name}{problem.dim}d-{subset}-{cases}x{config.resolution}x{config.frames}"
    file = Path(config.directory) / f"{name}-{config.interval:g}s-seed{seed}-v{GENERATOR_VERSION}.h5"
    if file.exists():
        progress.message(f"data: {file} (kept from before)")
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    generate(
        problem,
        file,
        subset=subset,
        cases=cases,
        resolution=config.resolution,
        frames=config.frames,
        interval=config.interval,
        seed=seed,
        workers=config.workers or os.cpu_count() or 1,
        device=device,
        progress=progress,
    )
    progress.message(f"data: {file} ({file.stat().st_size / 1e6:.0f} MB, kept for the next run)")
    return file


# ---------------------------------------------------------------------------------------------------- training batches


@dataclass(frozen=True)
class Following:
    """What the upsampler learns from: scenes of stepped and other particles at one frame and where both are later.

    ``scene``: all of them at the anchor; ``stepped``: sorted numbers of those that are; ``later (N, d)``.
    """

    scene: Scene
    stepped: Tensor
    later: Tensor

    def to(self, device: torch.device) -> Following:
        """The same on a device."""
        return Following(self.scene.to(device), self.stepped.to(device), self.later.to(device))


@dataclass(frozen=True)
class ParticleBatch:
    """Scenes with ``history + 1`` frames, the ``future (U, N, d)`` frames, and what the upsampler learns from."""

    scene: Scene
    future: Tensor
    following: Following | None

    def to(self, device: torch.device) -> ParticleBatch:
        """The same on a device."""
        following = None if self.following is None else self.following.to(device)
        return ParticleBatch(self.scene.to(device), self.future.to(device), following)


class Case:
    """A training trajectory: what its particles are, their positions (in memory or read when wanted), the draws of
    points that are stepped.
    """

    def __init__(self, file: ParticleFile, number: int, in_memory: bool) -> None:
        self.file, self.number, self.in_memory = file, number, in_memory
        self.frames = file.frames(number)

    @cached_property
    def trajectory(self) -> ParticleTrajectory:
        """The whole trajectory."""
        return self.file.trajectory(self.number)

    @cached_property
    def start(self) -> ParticleTrajectory:
        """Its first frame alone, for what does not change."""
        whole = self.trajectory if self.in_memory else self.file.trajectory(self.number)
        return replace(whole, position=whole.position[:1], velocity=None)

    def scene(self, start: int, stop: int, particles: Tensor) -> Scene:
        """These frames of these particles."""
        if self.in_memory:
            return scene_of(self.trajectory, self.file.info, slice(start, stop), particles)
        positions = self.file.positions(self.number, start, stop, particles)
        few = self.start.subsampled(particles)
        return scene_of(replace(few, position=positions), self.file.info, slice(0, stop - start))


class SparseWindows(Shuffled):
    """Training samples: windows of ``history + 1 + steps`` frames of every draw of points of every trajectory.

    A sample is a number, and everything random about it follows from that: the points that are stepped, the points
    beside them that the upsampler learns from, the frame that these are anchored at.
    """

    def __init__(
        self, part: ParticlePart, data: ParticleDataConfig, task: ParticleTaskConfig, steps: int, seed: int
    ) -> None:
        self.task, self.steps, self.seed = task, steps, seed
        size = sum(4 * file.frames(case) * file.count(case) * file.info.dim for file, case in part.cases)
        self.cases = [Case(file, case, size <= IN_MEMORY) for file, case in part.cases]
        self.all_points = data.points is None
        self.draws = 1 if self.all_points else data.draws
        self.points = [
            [self._draw(case, data, number, draw) for draw in range(self.draws)]
            for number, case in enumerate(self.cases)
        ]
        self.window = task.history + 1 + steps
        counts = [max(0, case.frames - self.window + 1) for case in self.cases]
        if not sum(counts):
            raise DataError(
                f"no training trajectory has {self.window} frames, which {task.history} frame differences and {steps} "
                "steps need"
            )
        self.ends = torch.tensor(counts).cumsum(0) * self.draws

    def _draw(self, case: Case, data: ParticleDataConfig, number: int, draw: int) -> Tensor:
        first = case.scene(0, 1, torch.arange(case.start.n_particles))
        sampling = data.sampling if data.sampling != "mixed" else ("farthest", "random")[draw % 2]
        return choose(first, data.points, sampling, ((self.seed + 1) * 100_003 + number) * 1009 + draw)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def batch(self, indices: Sequence[int]) -> ParticleBatch:
        """The windows of these numbers."""
        found = [self._sample(index) for index in indices]
        followings = [following for _, following in found if following is not None]
        whole = join([scene for scene, _ in found])
        frames = self.task.history + 1
        return ParticleBatch(
            replace(whole, history=whole.history[:frames]), whole.history[frames:], _joined(followings)
        )

    def _sample(self, index: int) -> tuple[Scene, Following | None]:
        number = int(torch.searchsorted(self.ends, index, right=True))
        local = index - (int(self.ends[number - 1]) if number else 0)
        start, draw = divmod(local, self.draws)
        case, points = self.cases[number], self.points[number][draw]
        window = case.scene(start, start + self.window, points)
        if self.all_points:
            return window, None
        return window, self._following(case, points, start + self.task.history, index)

    def _following(self, case: Case, points: Tensor, now: int, index: int) -> Following | None:
        generator = step_generator(self.seed, index, 2)
        count, every = case.start.n_particles, self.task.anchor_every
        others = torch.ones(count, dtype=torch.bool)
        others[points] = False
        others &= ~case.start.fixed
        others = others.nonzero()[:, 0]
        if not len(others):
            return None
        others = others[torch.randperm(len(others), generator=generator)[: self.task.queries]]
        if every is None:
            anchor = min(self.task.history, now - 1)
        else:
            anchor = max(0, now - int(torch.randint(1, every + 1, (), generator=generator)))
        particles = torch.cat([points, others]).sort().values
        first, last = (case.scene(frame, frame + 1, particles) for frame in (anchor, now))
        return Following(first, torch.searchsorted(particles, points), last.position)


def _joined(followings: Sequence[Following]) -> Following | None:
    if not followings:
        return None
    sizes = torch.tensor([0, *(len(each.scene) for each in followings)]).cumsum(0)
    stepped = [each.stepped + int(first) for each, first in zip(followings, sizes[:-1], strict=True)]
    return Following(
        join([each.scene for each in followings]),
        torch.cat(stepped),
        torch.cat([each.later for each in followings]),
    )

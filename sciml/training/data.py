"""The trajectories of a run: generated once and kept, or the user's files; split by case."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sciml.datasets import Collection, DatasetFile, TrajectoryWindows, check_finite, split_cases
from sciml.errors import ConfigError, DataError
from sciml.problems.base import Problem
from sciml.problems.generate import generate
from sciml.progress import Progress
from sciml.training.config import DataConfig
from sciml.training.sampling import Shuffled

GENERATOR_VERSION = 1
"""Raise it when generated data change: files of older versions are then generated anew."""

IN_MEMORY = 2**30
"""Bytes of frames up to which ``FramePairs`` keeps them in memory."""


@dataclass(frozen=True)
class Part:
    """One part of the split: cases of files, with the subset of each."""

    files: tuple[Path, ...]
    cases: tuple[int, ...]
    subsets: tuple[str, ...]

    def windows(self, fields: Sequence[str], history: int, horizon: int) -> TrajectoryWindows:
        """All windows of this part."""
        return TrajectoryWindows(self.files, fields, history=history, horizon=horizon, cases=self.cases)

    def __len__(self) -> int:
        return len(self.cases)


@dataclass(frozen=True)
class Batch:
    """W = history + steps frames: ``state (B, W, C, *grid)``, ``parameters`` name -> (B, steps), ``time (B, W)``."""

    state: Tensor
    parameters: dict[str, Tensor]
    time: Tensor

    def to(self, device: torch.device) -> Batch:
        """The state on a device."""
        return replace(self, state=self.state.to(device, non_blocking=True))


@dataclass(frozen=True)
class Pairs:
    """Two frames of each case, the first and the last for a map: ``input (B, Cin, *grid)`` of the earlier, ``target
    (B, C, *grid)`` of the later one, ``parameters`` name -> (B,), ``interval (B,)`` seconds between the two, the subset
    of each case.
    """

    input: Tensor
    target: Tensor
    parameters: dict[str, Tensor]
    interval: Tensor
    subsets: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.interval)

    def to(self, device: torch.device) -> Pairs:
        """The fields on a device."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("input", "target")}
        return replace(self, **moved)


class Windows(Shuffled):
    """Training batches of a step: windows of consecutive frames."""

    def __init__(self, windows: TrajectoryWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The windows of these indices."""
        return gather(self.windows, indices)


class MapCases(Shuffled):
    """Training batches of a map: one pair a case."""

    def __init__(self, part: Part, inputs: Sequence[str], fields: Sequence[str]) -> None:
        self.part, self.collection = part, Collection(part.files)
        info = self.collection.info
        self.inputs, self.fields = (
            [channel for name in names for channel in range(info.n_channels)[info.channels(name)]]
            for names in (inputs, fields)
        )

    def __len__(self) -> int:
        return len(self.part.cases)

    def batch(self, indices: Sequence[int]) -> Pairs:
        """The pairs of these positions in the part."""
        chosen = [self.part.cases[index] for index in indices]
        files, local = self.collection.locate(chosen)
        states, intervals = [], []
        for number, case in zip(files, local, strict=True):
            file = self.collection.files[number]
            states.append(file.state([case], [0, file.n_frames - 1])[0])
            intervals.append(file.times[case, -1] - file.times[case, 0])
        state = torch.stack(states)
        parameters = self.collection.parameters(chosen)
        return Pairs(
            state[:, 0, self.inputs].contiguous(),
            state[:, 1, self.fields].contiguous(),
            {name: value[:, 0] if value.ndim == 2 else value for name, value in parameters.items()},
            torch.tensor(intervals, dtype=torch.float64),
            tuple(self.part.subsets[index] for index in indices),
        )

    def all(self) -> Pairs:
        """Every pair, in memory."""
        return self.batch(range(len(self)))


class FramePairs(Shuffled):
    """Training batches of steps of any length: every ordered pair of frames i <= j of every trajectory.

    A frame is paired with itself too, a step of no time. Left out are pairs whose later frame comes before frame
    ``first`` (of a flow from rest frame 1): there is nothing that an error could be relative to. Pairs are numbered
    case by case, in each by i, then j. Frames that take less than ``IN_MEMORY`` bytes are read once and kept;
    otherwise a batch reads the two frames of each of its pairs and no more.

    Raises ``DataError`` for parameters that change in time: one step cannot follow them.
    """

    def __init__(self, part: Part, fields: Sequence[str], first: int = 0) -> None:
        self.part, self.collection = part, Collection(part.files)
        info = self.collection.info
        self.channels = [channel for name in fields for channel in range(info.n_channels)[info.channels(name)]]
        self.files, self.local = self.collection.locate(part.cases)
        self._check_constant()
        lengths = self.collection.n_frames(part.cases)
        self._pairs = {n: _ordered_pairs(n, first) for n in set(lengths.tolist())}
        self._lengths, self._ends = lengths, np.cumsum([len(self._pairs[n]) for n in lengths.tolist()])
        parameters = self.collection.parameters(part.cases)
        self.parameters = {name: value[:, 0] if value.ndim == 2 else value for name, value in parameters.items()}
        size = 4 * int(lengths.sum()) * len(self.channels) * math.prod(info.grid)
        self._kept: list[Tensor] = []
        if size < IN_MEMORY:
            self._kept = [self._read(row, range(n)) for row, n in enumerate(lengths.tolist())]

    def _check_constant(self) -> None:
        for number, case in zip(self.files.tolist(), self.local.tolist(), strict=True):
            file = self.collection.files[number]
            for name, values in file.parameters.items():
                # Entry t acts from frame t to the next: the last one acts on nothing.
                if values.ndim == 2 and (values[case, :-1] != values[case, 0]).any():
                    raise DataError(
                        f"{file.path}: {name} of case {case} changes in time, and task.pairs=all learns single steps "
                        "over any time with one value: leave such cases out, or use task.pairs=successive"
                    )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def frames(self, index: int) -> tuple[int, int, int]:
        """Position of the case in the part, earlier frame and later frame of a pair."""
        row = int(np.searchsorted(self._ends, index, side="right"))
        pairs = self._pairs[int(self._lengths[row])]
        earlier, later = pairs[index - int(self._ends[row])]  # counted from the end of the case's own pairs
        return row, int(earlier), int(later)

    def _read(self, row: int, frames: Sequence[int]) -> Tensor:
        """Frames ``(T, C, *grid)`` of the case at a position."""
        file = self.collection.files[self.files[row]]
        return file.state([self.local[row]], list(frames))[0][:, self.channels].contiguous()

    def batch(self, indices: Sequence[int]) -> Pairs:
        """The pairs of these numbers."""
        chosen = [self.frames(index) for index in indices]
        rows = [row for row, _, _ in chosen]
        both, intervals = [], []
        for row, earlier, later in chosen:
            both.append(self._kept[row][[earlier, later]] if self._kept else self._read(row, [earlier, later]))
            times = self.collection.files[self.files[row]].times[self.local[row]]
            intervals.append(times[later] - times[earlier])
        state = torch.stack(both)
        return Pairs(
            state[:, 0],
            state[:, 1],
            {name: values[rows] for name, values in self.parameters.items()},
            torch.tensor(intervals, dtype=torch.float64),
            tuple(self.part.subsets[row] for row in rows),
        )


def _ordered_pairs(frames: int, first: int) -> np.ndarray:
    """All i <= j below ``frames`` with j at least ``first``, ``(pairs, 2)``."""
    pairs = np.stack(np.triu_indices(frames), 1)
    return pairs[pairs[:, 1] >= first]


def gather(windows: TrajectoryWindows, indices: Sequence[int]) -> Batch:
    """The windows of these indices, their parameters by name."""
    batch = windows.__getitems__(list(indices))
    by_name = dict(zip(windows.parameter_names, batch["parameters"].unbind(-1), strict=True))
    return Batch(batch["state"], by_name, batch["time"])


@dataclass(frozen=True)
class Trajectories:
    """Whole trajectories of a part: ``state (N, T, C, *grid)``, ``parameters`` name -> (N, T - 1), ``time (N, T)``, and
    the files' ``series`` name -> (N, T).
    """

    state: Tensor
    parameters: dict[str, Tensor]
    time: Tensor
    subsets: tuple[str, ...]
    series: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """The parts of a run's data."""

    train: Part
    validation: Part
    test: tuple[Part, ...]


def prepare(config: DataConfig, problem: Problem, device: str, progress: Progress) -> Split:
    """Find or generate the data and split them.

    Raises ``DataError`` for damaged or non-finite files.
    """
    counts = {"train": config.cases.train, "validation": config.cases.validation, "test": config.cases.test}
    if config.files:
        files = tuple(Path(file) for file in config.files)
        check_files(files, problem)
        return _random_split(files, counts, config.seed, exact=False)
    if config.split == "random":
        file = _generated(config, problem, config.subset, sum(counts.values()), config.seed, device, progress)
        return _random_split((file,), counts, config.seed, exact=True)
    if config.subset != "all":
        raise ConfigError(f"data.split=extrapolate goes with data.subset=all, not {config.subset!r}")
    known = counts["train"] + counts["validation"]
    file = _generated(config, problem, "outside", known, config.seed, device, progress)
    inner = _random_split((file,), {**counts, "test": 0}, config.seed, exact=True)
    return Split(inner.train, inner.validation, hard_parts(config, problem, device, progress))


def prepare_held_out(config: DataConfig, problem: Problem, device: str, progress: Progress) -> Split:
    """``prepare`` for training without data: the validation and test cases alone; the part ``train`` is empty."""
    counts = {"validation": config.cases.validation, "test": config.cases.test}
    file = _generated(config, problem, config.subset, sum(counts.values()), config.seed, device, progress)
    labels = DatasetFile(file).subsets
    parts = {
        name: Part((file,), tuple(sorted(cases)), tuple(labels[case] for case in sorted(cases)))
        for name, cases in split_cases(labels, counts, config.seed).items()
    }
    return Split(Part((file,), (), ()), parts["validation"], (parts["test"],))


def hard_parts(config: DataConfig, problem: Problem, device: str, progress: Progress) -> tuple[Part, ...]:
    """The test parts of the split ``extrapolate``: ``cases.test`` cases shared among the problem's hard subsets.

    Raises ``ConfigError`` for a problem without any.
    """
    if not problem.hard_subsets:
        raise ConfigError(f"problem {problem.name!r} has no held-out subsets; use --split random")
    each = -(-config.cases.test // len(problem.hard_subsets))
    # Another seed than the training cases': two subsets that draw alike must not draw the same cases.
    seed = config.seed + 1
    files = [_generated(config, problem, subset, each, seed, device, progress) for subset in problem.hard_subsets]
    return tuple(whole(file) for file in files)


def trajectories(part: Part, fields: Sequence[str]) -> Trajectories:
    """All frames of a part, in memory."""
    pieces = [Part((file,), cases, ()) for file, cases in _by_file(part)]
    batches = []
    for piece in pieces:
        windows = piece.windows(fields, 1, DatasetFile(piece.files[0]).n_frames - 1)
        batches.append(gather(windows, range(len(windows))))
    return Trajectories(
        torch.cat([batch.state for batch in batches]),
        {name: torch.cat([batch.parameters[name] for batch in batches]) for name in batches[0].parameters},
        torch.cat([batch.time for batch in batches]),
        part.subsets,
        _series(pieces),
    )


def _series(pieces: Sequence[Part]) -> dict[str, Tensor]:
    """The series of all cases, of those names that every file has."""
    files = [(DatasetFile(piece.files[0]), piece.cases) for piece in pieces]
    shared = [name for name in files[0][0].info.series if all(name in file.info.series for file, _ in files)]
    return {name: torch.cat([file.series(name, cases) for file, cases in files]) for name in shared}


def _generated(
    config: DataConfig, problem: Problem, subset: str, cases: int, seed: int, device: str, progress: Progress
) -> Path:
    problem_name = problem.name if problem.dim == problem.dims[0] else f"{problem.name}{problem.dim}d"
    spaced = f"-{config.interval:g}s" if config.interval else ""
    spaced += f"-graded{config.grading:g}" if config.grading != 1.0 else ""
    shape = f"{cases}x{config.resolution}x{config.frames}{spaced}"
    name = f"{problem_name}-{subset}-{shape}-seed{seed}-v{GENERATOR_VERSION}.h5"
    file = Path(config.directory) / name
    if file.exists():
        progress.message(f"data: {file} (kept from before)")
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        generate(
            problem,
            file,
            subset=subset,
            cases=cases,
            resolution=config.resolution,
            frames=config.frames,
            interval=config.interval,
            grading=config.grading,
            seed=seed,
            workers=config.workers or os.cpu_count() or 1,
            device=device,
            progress=progress,
        )
        progress.message(f"data: {file} ({file.stat().st_size / 1e6:.0f} MB, kept for the next run)")
    check_files((file,), problem)
    return file


def check_files(files: Sequence[Path], problem: Problem) -> None:
    for path in files:
        file = DatasetFile(path)
        if file.info.problem != problem.name:
            raise ConfigError(f"{path} holds the problem {file.info.problem!r}; the run is for {problem.name!r}")
        if len(file.info.grid) != problem.dim:
            raise ConfigError(f"{path} has {len(file.info.grid)} space dimensions; the run is for {problem.dim} (dim=)")
        known = [*file.info.parameters, *problem.draw_names]
        missing = [name for name in problem.parameter_names if name not in known]
        if missing:
            raise ConfigError(f"{path} lacks the parameters {', '.join(missing)} of the problem {problem.name!r}")
        check_finite(file)


def _random_split(files: tuple[Path, ...], counts: dict[str, int], seed: int, exact: bool) -> Split:
    labels = [subset for path in files for subset in DatasetFile(path).subsets]
    total = sum(counts.values())
    amounts = counts if exact else {name: count / total for name, count in counts.items()}
    parts = {
        name: Part(files, tuple(sorted(cases)), tuple(labels[case] for case in sorted(cases)))
        for name, cases in split_cases(labels, {k: v for k, v in amounts.items() if v}, seed).items()
    }
    return Split(parts["train"], parts["validation"], (parts["test"],) if "test" in parts else ())


def whole(file: Path) -> Part:
    subsets = DatasetFile(file).subsets
    return Part((file,), tuple(range(len(subsets))), tuple(subsets))


def _by_file(part: Part) -> list[tuple[Path, tuple[int, ...]]]:
    """The cases of a part file by file, numbered within the file."""
    pieces, start = [], 0
    for file in part.files:
        stop = start + DatasetFile(file).n_cases
        cases = tuple(case - start for case in part.cases if start <= case < stop)
        if cases:
            pieces.append((file, cases))
        start = stop
    return pieces

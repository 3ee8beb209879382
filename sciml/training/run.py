"""A whole run: data, normaliser, operator, training, evaluation, and the directory that holds it all.

The run directory: ``config.yaml`` (resolved), ``env.json``, ``metrics.jsonl``, ``checkpoints/``, ``surrogate/``,
``predictions.npz``, ``summary.json`` (written last: a run without it is unfinished).
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from torch import nn

from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.operators import Operator
from sciml.problems import get_problem
from sciml.problems.base import Problem
from sciml.progress import Progress
from sciml.surrogate import Surrogate, TrajectorySurrogate, load
from sciml.training import evaluation, map_evaluation, obedience, trajectory, trajectory_evaluation
from sciml.training.build import build_constraints, build_operator, build_surrogate, count_parameters
from sciml.training.by_equation.build import build_surrogate_without_data, equation_loss
from sciml.training.by_equation.loss import BothSources, WeightedLoss
from sciml.training.checkpoint import checkpoints, load_checkpoint
from sciml.training.config import TrainConfig, complete, make_config
from sciml.training.data import (
    FramePairs,
    MapCases,
    Part,
    Split,
    Windows,
    check_files,
    hard_parts,
    prepare,
    prepare_held_out,
    trajectories,
    whole,
)
from sciml.training.latent.config import LatentConfig
from sciml.training.log import MetricsLog
from sciml.training.loop import Interrupted, Source, Trainer
from sciml.training.losses import LOSSES
from sciml.training.parallel import World, world
from sciml.training.particles.config import ParticleConfig
from sciml.training.random_cases import random_cases
from sciml.training.tasks import PairLoss, UnrolledLoss, fluid_beside
from sciml.version import __version__

FREE_TO_CHANGE = (
    "budget",
    "checkpoint",
    "device",
    "threads",
    "tensorboard",
    "parallel",
    "data.workers",
    "data.directory",
)
"""Configuration keys that a resumed run may change: they do not decide what a training step computes."""


@dataclass(frozen=True)
class RunResult:
    """Where a run is, and the content of its ``summary.json``."""

    directory: Path
    summary: dict[str, Any]


def train(
    config: TrainConfig | ParticleConfig | LatentConfig,
    out: Path | str | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Generate or read data, train, evaluate on held-out cases, save the surrogate: of fields, of particles, or of a
    weak problem.

    ``out``: the run directory, by default ``runs/<problem>/<operator>/<time>``. ``resume``: a run directory to go on
    with, or ``"auto"`` for the newest unfinished one (a new run if there is none).

    Raises ``ConfigError``, ``DataError``, ``CheckpointError`` for what the user can mend, ``Interrupted`` (a
    ``KeyboardInterrupt``) after a signal, with the state in a checkpoint.
    """
    if isinstance(config, ParticleConfig):
        from sciml.training.particles.run import train_particles

        return train_particles(config, out, resume, progress)
    if isinstance(config, LatentConfig):
        from sciml.training.latent.run import train_latent

        return train_latent(config, out, resume, progress)
    progress = progress or Progress()
    problem = get_problem(config.problem, config.dim)
    config = complete(config, problem)
    with world(config.device, config.parallel.expert) as here, threads(config.threads):
        progress = progress if here.is_main else Progress()
        # Before the data: a wrong key is better met at once.
        model: Operator | TrajectorySurrogate
        if config.task.kind == "trajectory":
            model = trajectory.build_trajectory_surrogate(config, problem)
        else:
            model = build_operator(config, problem)
            build_constraints(config, problem)
        with here.main_first():
            root = Path("runs") / config.problem / config.operator.name
            directory, found = run_directory(config, root, out, resume, read_config, FREE_TO_CHANGE)
            if here.is_main:
                open_run(directory, config, found, progress)
            started = time.perf_counter()
            split = _prepared(config, problem, here.device.type, progress)
            seconds = {"generate": time.perf_counter() - started}
        trainer = _trainer(config, problem, model, split, directory, here, progress)
        if found is not None:
            trainer.load_state_dict(load_checkpoint(found))
            progress.message(f"resuming {directory} at step {trainer.position.step}")
        try:
            trainer.fit()
        except Interrupted:
            progress.message(f"stopped at step {trainer.position.step}; go on with: sciml train --resume {directory}")
            raise
        seconds["train"] = trainer.position.seconds
        if not here.is_main:
            return RunResult(directory, {})
        started = time.perf_counter()
        surrogate = trainer.surrogate
        surrogate.save(directory / "surrogate")
        with progress.phase("evaluate", 1):
            test = evaluate_parts(surrogate, split.train, split.test, directory)
        seconds["evaluate"] = time.perf_counter() - started
        summary = {
            "problem": problem.name,
            "operator": config.operator.name,
            "n_parameters": count_parameters(surrogate.operator),
            "steps": trainer.position.step,
            "split": config.data.split,
            "test": test,
            "seconds": seconds,
        }
        write_json(directory / "summary.json", summary)
        return RunResult(directory, summary)


def evaluate_run(
    run: Path | str,
    data: list[Path] | None = None,
    split: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a run's surrogate: on its own test cases, those of another split, or all cases of data files."""
    run = Path(run)
    config = read_config(run)
    progress = progress or Progress()
    if isinstance(config, ParticleConfig):
        from sciml.training.particles.run import evaluate_particle_run

        return evaluate_particle_run(run, config, data, split, progress)
    if isinstance(config, LatentConfig):
        from sciml.training.latent.run import evaluate_latent_run

        return evaluate_latent_run(run, config, data, split, progress)
    surrogate = load(run)
    problem = surrogate.problem
    own = _prepared(config, problem, "cpu", progress)
    if data:
        files = [Path(file) for file in data]
        check_files(files, problem)
        test = tuple(whole(file) for file in files)
    elif split is None or split == config.data.split:
        test = own.test
    elif split == "extrapolate":
        progress.message(
            "this run was trained on all subsets: cases inside the held-out bands are not new in kind to it"
        )
        test = hard_parts(config.data, problem, "cpu", progress)
    else:
        test = prepare(config.data.model_copy(update={"split": split}), problem, "cpu", progress).test
    return evaluate_parts(surrogate, own.train, test)


def _prepared(config: TrainConfig, problem: Problem, device: str, progress: Progress) -> Split:
    """The run's cases: all three parts, or of training without data those that it is judged by."""
    find = prepare_held_out if config.task.kind == "trajectory" or config.task.residual == 1 else prepare
    return find(config.data, problem, device, progress)


def _trainer(
    config: TrainConfig,
    problem: Problem,
    model: Operator | TrajectorySurrogate,
    split: Split,
    directory: Path,
    here: World,
    progress: Progress,
) -> Trainer:
    surrogate: Surrogate | TrajectorySurrogate
    objective: nn.Module
    cases = f"{len(split.train.cases)} training cases"
    if isinstance(model, TrajectorySurrogate):
        surrogate, cases = model.to(here.device), "without data"
        source = random_cases(config, problem)
        sources, objective = (source, source), trajectory.ResidualLoss(surrogate)
        validate = _trajectory_validation(surrogate, split.validation)
    elif config.task.residual == 1:
        surrogate, cases = build_surrogate_without_data(config, problem, model).to(here.device), "without data"
        objective = equation_loss(config, surrogate)
        sources = (objective.pool, objective.pool)
        validate = _validation(surrogate, split.validation)
    else:
        surrogate = build_surrogate(config, problem, model, split.train).to(here.device)
        sources, objective = learning(config, surrogate, split.train)
        validate = _validation(surrogate, split.validation)
    log = MetricsLog(directory, config.tensorboard) if here.is_main else silent
    count = count_parameters(surrogate.operator)
    progress.message(
        f"{config.operator.name} with {count:,} parameters on {here.device.type}"
        f"{f' x {here.size}' if here.size > 1 else ''}; {cases}"
    )
    return Trainer(config, surrogate, objective, sources, validate, directory, here, log, progress)


def learning(config: TrainConfig, surrogate: Surrogate, part: Part) -> tuple[tuple[Source, Source], nn.Module]:
    """Where the training samples come from, early and late in training, and the module that computes their loss."""
    fields, task, loss = config.data.fields, config.task, LOSSES[config.task.loss]
    if surrogate.kind == "map":
        pairs = MapCases(part, config.data.inputs, fields)
        return (pairs, pairs), PairLoss(surrogate, loss)
    if surrogate.pairs == "all":
        jumps = FramePairs(part, fields, surrogate.problem.first_frame)
        return (jumps, jumps), PairLoss(surrogate, loss)
    calls = (1, task.unroll)
    windows = [Windows(part.windows(fields, task.history, count * surrogate.temporal)) for count in calls]
    unrolled = UnrolledLoss(surrogate, loss, pushforward=task.pushforward, noise=task.noise)
    if not task.residual:
        return (windows[0], windows[1]), unrolled
    equation = equation_loss(config, surrogate)
    both = [BothSources(each, equation.pool) for each in windows]
    return (both[0], both[1]), WeightedLoss(unrolled, equation, task.residual)


def _validation(surrogate: Surrogate, part: Part) -> Callable[[Surrogate], dict[str, float]]:
    """The errors of a surrogate on the validation cases, which stay in memory."""
    if surrogate.kind == "map":
        pairs = MapCases(part, list(surrogate.inputs), list(surrogate.fields)).all()

        cells = fluid_beside(surrogate, pairs.parameters, pairs.target)

        def judge_map(model: Surrogate) -> dict[str, float]:
            made = map_evaluation.errors(map_evaluation.predict(model, pairs)[0], pairs.target, cells)
            return {key: float(value.mean()) for key, value in made.items()}

        return judge_map
    cases = trajectories(part, list(surrogate.fields))
    fluid = evaluation.fluid_of(surrogate, cases)
    groups = [field.components for field in surrogate.fields.values()]
    logged = ("nmse", "rollout_mean", "rollout_last", "direct_mean", "direct_last")

    def judge_steps(model: Surrogate) -> dict[str, float]:
        target = cases.state[:, evaluation.first_target(model) :]
        made = evaluation.predict(model, cases)
        found = evaluation.score(made, target, groups, fluid).summary()
        residuals = obedience.of_steps(model, made.one_step, made.rollout, cases) if model.imposed else []
        return {
            **{key: found[key] for key in logged if key in found},
            **{f"residual_{row['constraint']}": row["after"] for row in residuals},
        }

    return judge_steps


def _trajectory_validation(
    surrogate: TrajectorySurrogate, part: Part
) -> Callable[[TrajectorySurrogate], dict[str, float]]:
    """The errors of a surrogate of whole trajectories on the validation cases, which stay in memory."""
    solutions = trajectory_evaluation.read_solutions(surrogate, [part])
    return lambda model: trajectory_evaluation.judge(model, solutions)


def silent(values: dict[str, Any]) -> None:
    """Only the main process logs."""


def evaluate_parts(
    surrogate: Surrogate | TrajectorySurrogate, train: Part, test: Sequence[Part], directory: Path | None = None
) -> dict[str, Any]:
    """The ``test`` entry of ``summary.json`` for parts of a split; with a directory also its ``predictions.npz``."""
    fields = list(surrogate.fields)
    if isinstance(surrogate, TrajectorySurrogate):
        solutions = trajectory_evaluation.read_solutions(surrogate, test)
        summary, solved = trajectory_evaluation.evaluate(surrogate, solutions)
        if directory is not None:
            trajectory_evaluation.save_predictions(directory / "predictions.npz", surrogate, solved, solutions)
        return summary
    if surrogate.kind == "map":
        known, *parts = (MapCases(part, list(surrogate.inputs), fields).all() for part in (train, *test))
        pairs = map_evaluation.concatenate(parts)
        summary, made, points = map_evaluation.evaluate(surrogate, known, pairs)
        if directory is not None:
            map_evaluation.save_predictions(directory / "predictions.npz", surrogate, made, points, pairs)
        return summary
    cases = [trajectories(part, fields) for part in test]
    known = trajectories(train, fields) if train.cases else None  # a run without data knows none
    summary, contenders = evaluation.evaluate(surrogate, known, cases)
    if directory is not None:
        evaluation.save_predictions(directory / "predictions.npz", surrogate, contenders, cases)
    return summary


def write_json(path: Path, content: Any) -> None:
    """Written aside and renamed: the file is complete or absent."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(aside, path)


# -------------------------------------------------------------------------------------------------- the run directory


def read_config(run: Path) -> TrainConfig | ParticleConfig | LatentConfig:
    """The resolved configuration of a run.

    Raises ``CheckpointError`` if the directory is not a run.
    """
    try:
        return make_config(yaml.safe_load((run / "config.yaml").read_text()))
    except OSError:
        raise CheckpointError(f"{run} is not a run directory: it holds no config.yaml") from None


def unfinished_run(root: Path) -> Path | None:
    """The newest run under ``root`` that has a checkpoint and no summary."""
    runs = [run for run in sorted(root.glob("*"), reverse=True) if checkpoints(run / "checkpoints")]
    return next((run for run in runs if not (run / "summary.json").exists()), None)


class Resolved(Protocol):
    """A resolved configuration, of training or of another kind of run."""

    def model_dump(self) -> dict[str, Any]: ...

    def to_yaml(self) -> str: ...


def run_directory(
    config: Resolved,
    root: Path,
    out: Path | str | None,
    resume: str | None,
    read: Callable[[Path], Resolved],
    free: Sequence[str],
) -> tuple[Path, Path | None]:
    """The directory of the run, under ``root`` if ``out`` names none, and the checkpoint to go on from.

    ``read`` gives the configuration of a run; ``free`` are the keys that a resumed run may change.
    """
    if resume == "auto":
        run = Path(out) if out is not None else unfinished_run(root)
        if run is not None and checkpoints(run / "checkpoints"):
            resume = str(run)
        else:
            resume = None
    if resume is None:
        directory = Path(out) if out is not None else root / datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        if (directory / "summary.json").exists() or checkpoints(directory / "checkpoints"):
            raise ConfigError(f"{directory} holds a run already; choose another --out, or --resume {directory}")
        return directory, None
    directory = Path(resume)
    stored = read(directory)
    found = checkpoints(directory / "checkpoints")
    if not found:
        raise CheckpointError(f"{directory} holds no checkpoint to resume from; start it again with another --out")
    differences = [
        f"{key}: {theirs!r} in the run, {ours!r} now"
        for key, (theirs, ours) in _differences(stored.model_dump(), config.model_dump()).items()
        if not any(key == name or key.startswith(name + ".") for name in free)
    ]
    if differences:
        raise CheckpointError(
            f"{directory} was made with another configuration ({'; '.join(differences)}); a resumed run may change "
            f"only {', '.join(free)}. Use the run's own values, or start a new run"
        )
    return directory, found[-1]


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**a, **b}:
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found |= _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found[f"{prefix}{key}"] = (left, right)
    return found


def open_run(directory: Path, config: Resolved, found: Path | None, progress: Progress) -> None:
    """Make the directory with ``config.yaml`` and ``env.json``.

    Raises ``DataError`` if it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text(config.to_yaml())
    except OSError as error:
        raise DataError(f"cannot write the run directory {directory}: {error.strerror}; choose another --out") from None
    write_json(directory / "env.json", environment())
    if found is None:
        progress.message(f"run: {directory}")


def environment() -> dict[str, Any]:
    """What a number of this run was produced with."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "sciml": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


class threads:
    """Use this many intra-operation threads inside the block."""

    def __init__(self, count: int | None) -> None:
        self.count = count

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        if self.count is not None:
            torch.set_num_threads(self.count)

    def __exit__(self, *exception: object) -> None:
        torch.set_num_threads(self.before)

"""A whole run on particles: data, surrogate, training, evaluation, and the directory that holds it all.

The run directory is that of ``sciml.training.run``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sciml.datasets.particles import ParticleFile
from sciml.errors import ConfigError
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.surrogate import load
from sciml.surrogate.particles import ParticleSurrogate
from sciml.training.checkpoint import load_checkpoint
from sciml.training.log import MetricsLog
from sciml.training.loop import Interrupted, Source, Trainer
from sciml.training.parallel import World, world
from sciml.training.particles.build import build_surrogate, check_operator
from sciml.training.particles.config import ParticleConfig, complete_particles
from sciml.training.particles.data import (
    ParticlePart,
    ParticleSplit,
    SparseWindows,
    check_files,
    hard_part,
    prepare,
    whole,
)
from sciml.training.particles.evaluation import evaluate, given_frames, save_predictions, validation
from sciml.training.particles.own_scenes import OwnScenesLoss
from sciml.training.particles.pool import LOST, ScenePool
from sciml.training.particles.task import ParticleLoss
from sciml.training.run import (
    FREE_TO_CHANGE,
    RunResult,
    open_run,
    read_config,
    run_directory,
    silent,
    threads,
    write_json,
)


def train_particles(
    config: ParticleConfig,
    out: Path | str | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """``sciml.training.train`` for particles: the same arguments, the same errors."""
    progress = progress or Progress()
    problem = get_problem(config.problem, config.dim)
    config = complete_particles(config, problem)
    with world(config.device, config.parallel.expert) as here, threads(config.threads):
        progress = progress if here.is_main else Progress()
        check_operator(config)  # before the data: a wrong key is better met at once
        with here.main_first():
            root = Path("runs") / config.problem / config.operator.name
            directory, found = run_directory(config, root, out, resume, read_config, FREE_TO_CHANGE)
            if here.is_main:
                open_run(directory, config, found, progress)
            started = time.perf_counter()
            split = prepare(config.data, problem, here.device.type, progress)
            seconds = {"generate": time.perf_counter() - started}
        trainer = _trainer(config, split, directory, here, progress)
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
        test = evaluate_particles(surrogate, split.test, directory, progress)
        seconds["evaluate"] = time.perf_counter() - started
        summary = {
            "problem": config.problem,
            "operator": config.operator.name,
            "n_parameters": sum(p.numel() for p in surrogate.operator.parameters()),
            "radius": surrogate.stepper.radius,
            "steps": trainer.position.step,
            "split": config.data.split,
            "test": test,
            "seconds": seconds,
        }
        write_json(directory / "summary.json", summary)
        return RunResult(directory, summary)


def evaluate_particles(
    surrogate: ParticleSurrogate, test: ParticlePart, directory: Path | None, progress: Progress
) -> dict[str, Any]:
    """The ``test`` entry of ``summary.json``; with a directory also its ``predictions.npz``."""
    with progress.phase("evaluate", 1):
        summary, shown, curves = evaluate(surrogate, test, progress)
    if directory is not None:
        save_predictions(directory / "predictions.npz", shown, curves, test.info, given_frames(surrogate))
    return summary


def evaluate_particle_run(
    run: Path, config: ParticleConfig, data: list[Path] | None, split: str | None, progress: Progress
) -> dict[str, Any]:
    """Evaluate a run's surrogate: on its own test cases, those of another split, or all cases of data files."""
    surrogate = load(run)
    assert isinstance(surrogate, ParticleSurrogate)
    problem = get_problem(config.problem, config.dim)
    if data:
        files = [ParticleFile(path) for path in data]
        check_files(files, problem)
        return evaluate_particles(surrogate, whole(files), None, progress)
    if split is not None and split != config.data.split:
        if config.data.files:
            raise ConfigError("this run was trained on your own files, which have no held-out subsets; give --data")
        if split == "extrapolate":
            progress.message("bodies of kinds that no training scene had")
            return evaluate_particles(surrogate, hard_part(config.data, problem, "cpu", progress), None, progress)
        own = config.data.model_copy(update={"split": split})
        return evaluate_particles(surrogate, prepare(own, problem, "cpu", progress).test, None, progress)
    return evaluate_particles(surrogate, prepare(config.data, problem, "cpu", progress).test, None, progress)


def _trainer(config: ParticleConfig, split: ParticleSplit, directory: Path, here: World, progress: Progress) -> Trainer:
    surrogate = build_surrogate(config, split.train).to(here.device)
    sources, objective = learning(config, surrogate, split.train)
    log = MetricsLog(directory, config.tensorboard) if here.is_main else silent
    count = sum(p.numel() for p in surrogate.operator.parameters())
    points = "all particles" if config.data.points is None else f"{config.data.points} points a scene"
    progress.message(
        f"{config.operator.name} with {count:,} parameters on {here.device.type}"
        f"{f' x {here.size}' if here.size > 1 else ''}; {len(split.train)} training cases, {points}, radius "
        f"{surrogate.stepper.radius:.3g} m"
    )
    return Trainer(
        config,
        surrogate,
        objective,
        sources,
        validation(split.validation),
        directory,
        here,
        log,
        progress,
    )


def learning(
    config: ParticleConfig, surrogate: ParticleSurrogate, part: ParticlePart
) -> tuple[tuple[Source, Source], ParticleLoss]:
    """Where the training samples come from, early and late in training, and the module that computes their loss."""
    data, task = config.data, config.task
    noise = float(surrogate.normaliser.statistics["noise"])
    if task.lifetime == 1:
        windows = [SparseWindows(part, data, task, steps, config.seed) for steps in (1, task.unroll)]
        return (windows[0], windows[1]), ParticleLoss(surrogate, task, noise)
    # No trajectory that gives a sample is left out for being shorter than a life.
    steps = [file.frames(case) - task.history - 1 for file, case in part.cases]
    lifetime = min([task.lifetime, *(each for each in steps if each >= 1)])
    pool = ScenePool(
        SparseWindows(part, data, task, lifetime, config.seed),
        noise=noise,
        mirror=task.mirror,
        seed=config.seed,
        lost=LOST * surrogate.stepper.radius,
        size=task.pool,
        batch=config.batch_size,
        lifetime=lifetime,
    )
    return (pool, pool), OwnScenesLoss(surrogate, task, pool)

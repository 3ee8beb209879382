"""A whole run on a weak problem: cases, surrogate, training, evaluation, and the directory that holds it all.

The run directory is that of ``sciml.training.run``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from sciml.errors import ConfigError
from sciml.problems.weak import WeakProblem, get_weak_problem
from sciml.progress import Progress
from sciml.surrogate import load
from sciml.surrogate.latent import LatentSurrogate
from sciml.training.checkpoint import load_checkpoint
from sciml.training.latent.build import build_latent_operator, build_latent_surrogate
from sciml.training.latent.config import LatentConfig, complete_latent
from sciml.training.latent.data import LatentCases, LatentSplit, prepare_latent
from sciml.training.latent.evaluation import (
    channel_errors,
    consistency,
    evaluate_latent,
    input_deviation,
    latent_validation,
)
from sciml.training.latent.objective import EvidenceBound
from sciml.training.log import MetricsLog
from sciml.training.loop import Interrupted, Trainer
from sciml.training.parallel import world
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

PRIOR_CASES, EPOCHS, PATIENCE = 4000, 100, 15
"""Training cases that a flow is fitted to, and how long."""


def train_latent(
    config: LatentConfig,
    out: Path | str | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
    problem: WeakProblem | None = None,
) -> RunResult:
    """``sciml.training.train`` for weak problems: the same arguments, the same errors.

    ``problem``: one of your own in place of the registered one that ``config.problem`` names.
    """
    progress = progress or Progress()
    config = complete_latent(config, problem)
    problem = problem or get_weak_problem(config.problem, config.data.subset, config.data.resolution)
    with world(config.device, config.parallel.expert) as here, threads(config.threads):
        progress = progress if here.is_main else Progress()
        operator = build_latent_operator(config, problem)  # before the data: a wrong key is better met at once
        with here.main_first():
            root = Path("runs") / problem.name / config.operator.name
            directory, found = run_directory(config, root, out, resume, read_config, FREE_TO_CHANGE)
            if here.is_main:
                open_run(directory, config, found, progress)
        started = time.perf_counter()
        split = prepare_latent(problem, config.data, progress)
        seconds = {"generate": time.perf_counter() - started}
        surrogate = build_latent_surrogate(config, problem, operator, split.train).to(here.device)
        log = MetricsLog(directory, config.tensorboard) if here.is_main else silent
        count = sum(p.numel() for p in operator.parameters())
        progress.message(
            f"{config.operator.name} with {count:,} parameters on {here.device.type}"
            f"{f' x {here.size}' if here.size > 1 else ''}; {len(split.train)} training cases, "
            f"{len(split.train.solutions)} of them with a solution"
        )
        trainer = Trainer(
            config,
            surrogate,
            EvidenceBound(surrogate, config.task),
            (split.train, split.train),
            latent_validation(split.validation),
            directory,
            here,
            log,
            progress,
        )
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
        finish(surrogate, split, config, progress)
        surrogate.save(directory / "surrogate")
        test = evaluate_latent(surrogate, split, directory, progress)
        seconds["evaluate"] = time.perf_counter() - started
        summary = {
            "problem": problem.name,
            "operator": config.operator.name,
            "n_parameters": count,
            "steps": trainer.position.step,
            "learned_from": config.task.learn,
            "test": test,
            "seconds": seconds,
        }
        write_json(directory / "summary.json", summary)
        return RunResult(directory, summary)


def finish(surrogate: LatentSurrogate, split: LatentSplit, config: LatentConfig, progress: Progress) -> None:
    """What is found out after training: the surrogate's own error, and the prior of its latent vectors."""
    surrogate.errors = tuple(channel_errors(surrogate, split.validation))
    surrogate.input_deviation = input_deviation(surrogate, split.validation)
    surrogate.consistency = consistency(surrogate, split.validation, config.seed)
    if config.task.prior == "flow":
        from sciml.inference import fit_flow

        latent = training_latents(surrogate, split.train, config.seed)
        generator = torch.Generator().manual_seed(config.seed + 2)
        generator = torch.Generator().manual_seed(config.seed + 2)
        fit = fit_flow(latent, generator=generator, epochs=EPOCHS, patience=PATIENCE, batch_size=256, progress=progress)
        surrogate.prior = fit.flow.requires_grad_(False)


@torch.no_grad()
def training_latents(surrogate: LatentSurrogate, cases: LatentCases, seed: int) -> torch.Tensor:
    """A latent vector of each training case, drawn from the encoder's distribution ``(N, L)``."""
    found = surrogate.operator.encode(surrogate.standardised(cases.inputs[:PRIOR_CASES].to(surrogate.points)))
    return found.sample(torch.Generator().manual_seed(seed + 1)) if surrogate.operator.variational else found.mean


def evaluate_latent_run(
    run: Path, config: LatentConfig, data: list[Path] | None, split: str | None, progress: Progress
) -> dict[str, Any]:
    """Evaluate a run's surrogate on its own test cases."""
    if data or split not in (None, "random"):
        raise ConfigError("a run on a weak problem is judged on cases of its own problem: leave --data and --split out")
    surrogate = load(run)
    assert isinstance(surrogate, LatentSurrogate)
    cases = prepare_latent(surrogate.problem, config.data.model_copy(update={"labelled": 0}), progress)
    return evaluate_latent(surrogate, cases, None, progress)

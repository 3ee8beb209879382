"""A pretraining run: data of several problems, one operator, training, evaluation, and the directory that holds it all.

The run directory is that of a training run (``sciml.training.run``), with ``operator/``, the directory that fine-tuning
starts from, in place of ``surrogate/`` and ``predictions.npz``.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sciml.errors import CheckpointError, ConfigError
from sciml.operators import Operator
from sciml.progress import Progress
from sciml.training.build import build_surrogate, count_parameters
from sciml.training.checkpoint import load_checkpoint
from sciml.training.data import Split, prepare
from sciml.training.log import MetricsLog
from sciml.training.loop import Interrupted, Trainer
from sciml.training.mixture import (
    Member,
    Mixture,
    MixtureLoss,
    MixtureSource,
    Union,
    Validation,
    build_shared_operator,
    members_of,
    subset_of,
    union_of,
)
from sciml.training.mixture_config import PretrainConfig, make_pretrain_config
from sciml.training.parallel import World, world
from sciml.training.run import (
    FREE_TO_CHANGE,
    RunResult,
    evaluate_parts,
    learning,
    open_run,
    run_directory,
    silent,
    threads,
    write_json,
)
from sciml.version import __version__

SCORES = ("nmse", "rollout_mean", "rollout_last")


def pretrain(
    config: PretrainConfig,
    out: Path | str | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Generate or read the data of every problem, train one operator on all of them, evaluate it on held-out cases.

    ``out``: the run directory, by default ``runs/pretrain/<operator>/<time>``. ``resume``: a run directory to go on
    with, or ``"auto"`` for the newest unfinished one (a new run if there is none). Under ``torchrun`` the processes
    share every batch.

    Raises ``ConfigError``, ``DataError``, ``CheckpointError`` for what the user can mend, ``Interrupted`` (a
    ``KeyboardInterrupt``) after a signal, with the state in a checkpoint.
    """
    progress = progress or Progress()
    members = members_of(config)
    with world(config.device) as here, threads(config.threads):
        if config.batch_size < here.size:
            raise ConfigError(
                f"batch_size is {config.batch_size} for {here.size} processes, which share it; raise batch_size"
            )
        progress = progress if here.is_main else Progress()
        operator = build_shared_operator(config, members)  # before the data: a wrong key is better met at once
        with here.main_first():
            root = Path("runs") / "pretrain" / config.operator.name
            directory, found = run_directory(config, root, out, resume, read_pretrain_config, _free_to_change(config))
            if here.is_main:
                open_run(directory, config, found, progress)
            started = time.perf_counter()
            splits = {
                member.name: prepare(config.problems[member.name].data, member.problem, here.device.type, progress)
                for member in members
            }
            seconds = {"generate": time.perf_counter() - started}
        trainer = _trainer(config, members, operator, splits, directory, here, progress)
        if found is not None:
            trainer.load_state_dict(load_checkpoint(found))
            progress.message(f"resuming {directory} at step {trainer.position.step}")
        try:
            trainer.fit()
        except Interrupted:
            progress.message(
                f"stopped at step {trainer.position.step}; go on with: sciml pretrain --resume {directory}"
            )
            raise
        seconds["train"] = trainer.position.seconds
        if not here.is_main:
            return RunResult(directory, {})
        started = time.perf_counter()
        with progress.phase("evaluate", len(members)):
            test = {}
            for name, surrogate in trainer.surrogate:
                test[name] = evaluate_parts(surrogate, splits[name].train, splits[name].test)
                progress.advance(note=name)
        seconds["evaluate"] = time.perf_counter() - started
        union = union_of(members)
        summary = {
            "problems": {member.name: _description(config, member, splits[member.name]) for member in members},
            "operator": config.operator.name,
            "n_parameters": count_parameters(operator),
            "steps": trainer.position.step,
            "task": config.task.model_dump(),
            "channels": list(union.inputs),
            "out_channels": list(union.outputs),
            "parameters": list(union.parameters),
            "test": test,
            "seconds": seconds,
        }
        operator.save_pretrained(directory / "operator")
        (directory / "operator" / "README.md").write_text(model_card(config, operator, union, summary))
        write_json(directory / "summary.json", summary)
        return RunResult(directory, summary)


def read_pretrain_config(run: Path) -> PretrainConfig:
    """The resolved configuration of a pretraining run.

    Raises ``CheckpointError`` if the directory is not one.
    """
    try:
        content = yaml.safe_load((run / "config.yaml").read_text())
    except OSError:
        raise CheckpointError(f"{run} is not a run directory: it holds no config.yaml") from None
    if not isinstance(content, Mapping) or "problems" not in content:
        raise CheckpointError(f"{run} is not a pretraining run: its config.yaml names no problems")
    return make_pretrain_config(content)


def _free_to_change(config: PretrainConfig) -> Sequence[str]:
    """The keys that a resumed run may change: those of training, for the data of every problem."""
    shared = [key for key in FREE_TO_CHANGE if not key.startswith("data.")]
    own = [key for key in FREE_TO_CHANGE if key.startswith("data.")]
    return [*shared, *(f"problems.{name}.{key}" for name in config.problems for key in own)]


def _trainer(
    config: PretrainConfig,
    members: Sequence[Member],
    operator: Operator,
    splits: Mapping[str, Split],
    directory: Path,
    here: World,
    progress: Progress,
) -> Trainer:
    union = union_of(members)
    surrogates = [
        build_surrogate(
            config.member(member.name), member.problem, subset_of(operator, member, union), splits[member.name].train
        )
        for member in members
    ]
    mixture = Mixture(operator, [member.name for member in members], surrogates).to(here.device)
    early, late, losses, weights = [], [], [], []
    for name, surrogate in mixture:
        part = splits[name].train
        sources, loss = learning(config.member(name), surrogate, part)
        early.append(sources[0])
        late.append(sources[1])
        losses.append(loss)
        weights.append(config.problems[name].weight or len(part))
    log = MetricsLog(directory, config.tensorboard) if here.is_main else silent
    shares = ", ".join(
        f"{name} {weight / sum(weights):.0%}" for (name, _), weight in zip(mixture, weights, strict=True)
    )
    progress.message(
        f"{config.operator.name} with {count_parameters(operator):,} parameters and {len(union.inputs)} channels on "
        f"{here.device.type}{f' x {here.size}' if here.size > 1 else ''}; steps: {shares}"
    )
    return Trainer(
        config.member(members[0].name),  # the trainer reads what the members share
        mixture,
        MixtureLoss(mixture, losses),
        (MixtureSource(early, weights), MixtureSource(late, weights)),
        Validation(mixture, {name: split.validation for name, split in splits.items()}),
        directory,
        here,
        log,
        progress,
    )


def _description(config: PretrainConfig, member: Member, split: Split) -> dict[str, Any]:
    """What a problem brought to the mixture, for the summary and the model card."""
    entry = config.problems[member.name]
    return {
        "problem": member.problem.name,
        "subset": entry.data.subset,
        "cases": {"train": len(split.train), "validation": len(split.validation), "test": sum(map(len, split.test))},
        "frames": entry.data.frames,
        "data": [str(file) for file in split.train.files],
        "channels": list(member.outputs),
        "parameters": list(member.problem.condition_names),
    }


def model_card(config: PretrainConfig, operator: Operator, union: Union, summary: Mapping[str, Any]) -> str:
    """What the operator is, what it was trained on, how good it was there and how to go on from it, as Markdown."""
    task = summary["task"]
    rows = []
    for name, problem in summary["problems"].items():
        found = summary["test"][name]
        cases = f"{problem['cases']['train']} + {problem['cases']['test']}"
        numbers = " | ".join(f"{found[prefix + key]:.3g}" for key in SCORES[::2] for prefix in ("", "persistence_"))
        rows.append(f"| `{name}` | {problem['problem']} {config.dim}D, {problem['subset']} | {cases} | {numbers} |")
    table = "\n".join(rows)
    pairs = "all ordered pairs of frames" if task["pairs"] == "all" else "pairs of successive frames"
    return f"""# {type(operator).__name__} pretrained on {len(rows)} problems

{summary["n_parameters"]:,} parameters, {summary["steps"]:,} steps of {config.batch_size} samples. Trained by
sciml {__version__} on {pairs}; its output is the {task["target"]}.

    {fine_tuning_command("path/to/this/directory", task)}

- reads: {", ".join(f"`{name}`" for name in union.inputs)}
- predicts: {", ".join(f"`{name}`" for name in union.outputs)}
- conditioned on: {", ".join(f"`{name}`" for name in union.parameters) or "nothing"}{_time(operator)}

Fields are in the natural units of their problem and standardised with statistics of its training cases; channels and
conditions that a problem does not have are zero.

## Held-out cases of the problems it was trained on
Persistence copies the last frame. Rollout: relative L2 error at the last frame.

| name | problem | cases (train + test) | one-step NMSE | persistence | rollout | persistence |
|---|---|---|---|---|---|---|
{table}

## Provenance
- date: {datetime.date.today().isoformat()}
- seed: {config.seed}
- data: {", ".join(file for problem in summary["problems"].values() for file in problem["data"])}
"""


def fine_tuning_command(path: Path | str, task: Mapping[str, Any]) -> str:
    """How to go on from the operator in ``path``, learning as the pretraining did."""
    return f"sciml train --problem NAME --from {path} " + " ".join(
        f"task.{key}={task[key]}" for key in ("pairs", "target", "loss")
    )


def _time(operator: Operator) -> str:
    return ", and the lead time as a share of the longest of the problem" if operator.time_conditioning else ""

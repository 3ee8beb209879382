"""The schema of a pretraining run: the sections of a training run, and a data section for every problem of the mixture.

Importing this module loads pydantic and yaml, never torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field

from sciml.errors import ConfigError, did_you_mean
from sciml.training.config import (
    BudgetConfig,
    CheckpointConfig,
    DataConfig,
    OperatorConfig,
    OptimizerConfig,
    Section,
    TaskConfig,
    TrainConfig,
    complete,
    load_yaml,
    make_config,
    merge,
    parse_overrides,
    validated,
)

if TYPE_CHECKING:
    from sciml.problems.base import Problem

_PUBLISHED = {"image_size": 128, "num_heads": [3, 6, 12, 24], "skip_connections": [2, 2, 2, 0], "window_size": 16}
SIZES: dict[str, dict[str, Any]] = {
    "mini": {},
    "tiny": {**_PUBLISHED, "embed_dim": 48, "depths": [4, 4, 4, 4]},
    "small": {**_PUBLISHED, "embed_dim": 48, "depths": [8, 8, 8, 8]},
    "base": {**_PUBLISHED, "embed_dim": 96, "depths": [8, 8, 8, 8]},
    "large": {**_PUBLISHED, "embed_dim": 192, "depths": [8, 8, 8, 8]},
}
"""Sizes of Poseidon: ``mini`` is that of the problems' recipes, for minutes on a CPU; the others are the published T,
S, B and L.
"""

RECIPE: dict[str, Any] = {
    "batch_size": 16,
    "validate_every": 200,
    # In minutes on a CPU increments from frame to frame taught more than all pairs of frames; see docs/pretraining.md.
    "task": {"pairs": "successive", "target": "increment", "loss": "relative_l1"},
    "optimizer": {"learning_rate": 3e-3, "weight_decay": 1e-2, "clip": 5.0},
    "budget": {"minutes": 10.0},
    "problems": {
        name: {} for name in ("burgers", "cavity", "cylinder", "gray_scott", "periodic_flow", "tube", "vorticity")
    },
}
"""``sciml pretrain`` without arguments."""

CASES = {"train": 96, "validation": 4, "test": 8}
"""Cases of every problem of the recipe: a few minutes of generation on two cores, most of them for the cylinders."""


class MixtureEntry(Section):
    """One problem of the mixture and its data."""

    problem: str = Field("", description="default: the key of this entry")
    weight: float | None = Field(None, gt=0, description="share of the steps; default: the number of training cases")
    data: DataConfig = DataConfig()


class PretrainConfig(Section):
    """Everything that decides a pretraining run.

    ``problems``: name -> entry; the same problem may come twice under two names, with other subsets or files.
    """

    problems: dict[str, MixtureEntry] = Field({}, description="at least one")
    dim: int = Field(2, ge=1, le=3, description="space dimensions, the same for all problems")
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="intra-operation threads on the CPU; default: all cores")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: int = Field(16, ge=1)
    validate_every: int = Field(200, ge=1, description="steps between validations")
    tensorboard: bool = False
    operator: OperatorConfig = OperatorConfig()
    task: TaskConfig = TaskConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    checkpoint: CheckpointConfig = CheckpointConfig()

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, as ``config.yaml`` of a run holds it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def member(self, name: str) -> TrainConfig:
        """The configuration of a training run on one problem of the mixture, everything else as it is here."""
        entry = self.problems[name]
        shared = self.model_dump(exclude={"problems"})
        return make_config({**shared, "problem": entry.problem, "data": entry.data.model_dump()})


def make_pretrain_config(values: Mapping[str, Any]) -> PretrainConfig:
    """Validate a nested dictionary and fill in what it leaves to the problems.

    Raises ``ConfigError`` for a wrong key or value, no problems, an unknown problem, one that does not exist in that
    many dimensions or has no time, and a task that is not a step of one frame.
    """
    config = validated(PretrainConfig, values)
    if not config.problems:
        raise ConfigError("the mixture has no problems; name some, e.g. --problems vorticity,cavity")
    if config.task.kind == "map" or config.task.history != 1:
        raise ConfigError("pretraining learns steps from one frame: leave task.kind and task.history as they are")
    if config.task.residual:
        raise ConfigError(
            f"task.residual is {config.task.residual:g}; pretraining learns from data alone: leave task.residual out"
        )
    entries = {}
    # In the order of names: the draws of a run must not depend on the order in which its problems were named.
    for name in sorted(config.problems):
        entry = config.problems[name]
        entry.problem = entry.problem or name
        entries[name] = entry
    config = config.model_copy(update={"problems": entries})
    for name, entry in entries.items():
        own = complete(config.member(name), _moving_problem(entry.problem, config.dim))
        entry.data, task = own.data, own.task
    return config.model_copy(update={"task": task})


def _moving_problem(name: str, dim: int) -> Problem:
    from sciml.problems import get_problem

    problem = get_problem(name, dim)
    if problem.static:
        raise ConfigError(f"problem {name!r} is static: pretraining learns steps in time; leave it out of the mixture")
    return problem


def resolve_pretrain_config(
    problems: Sequence[str] = (),
    size: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> PretrainConfig:
    """The recipe, overlaid by a file, then by dotted overrides, then by the flags of the command line.

    ``problems`` selects from the mixture or adds to it; a file that has ``problems`` says what the mixture is. Keys
    ``data.…`` hold for every problem, ``problems.NAME.data.…`` for one. ``size``: one of ``SIZES``.
    """
    from_file = load_yaml(file) if file is not None else {}
    overlay = merge(parse_overrides(overrides), flags or {})
    base, extra = _entries(from_file.pop("problems", RECIPE["problems"])), _entries(overlay.pop("problems", {}))
    common = {"data": merge({"cases": CASES}, from_file.pop("data", {}))}, {"data": overlay.pop("data", {})}
    entries = {
        name: merge(common[0], base.get(name, {}), common[1], extra.get(name, {}))
        for name in problems or {**base, **extra}
    }
    recipe = {**RECIPE, "problems": entries}
    if {"epochs", "steps", "minutes"} & set(merge(from_file, overlay).get("budget") or {}):
        recipe.pop("budget")
    if (merge(from_file, overlay).get("task") or {}).get("pairs") == "all":
        recipe["task"] = {"loss": RECIPE["task"]["loss"]}  # the recipe's target is for steps from frame to frame
    if size is not None or "operator" not in from_file:
        name = merge(from_file, overlay).get("operator", {}).get("name", "poseidon")
        from_file["operator"] = _operator(name, size)
    return make_pretrain_config(merge(recipe, from_file, overlay))


def _entries(given: Any) -> dict[str, dict[str, Any]]:
    """``{name: entry}``; an entry may be empty in YAML."""
    if isinstance(given, Mapping) and all(entry is None or isinstance(entry, Mapping) for entry in given.values()):
        return {str(name): dict(entry or {}) for name, entry in given.items()}
    raise ConfigError(f"configuration key 'problems' is {given!r}; expected names of problems with their settings")


def _operator(name: str, size: str | None) -> dict[str, Any]:
    """The recipe's options of an operator."""
    if name != "poseidon":
        if size is not None:
            raise ConfigError(f"sizes are those of poseidon; set the options of {name} by operator.KEY=VALUE")
        return {"name": name, "time_conditioning": True}
    size = size or "mini"
    if size not in SIZES:
        raise ConfigError(f"unknown size {size!r}{did_you_mean(size, SIZES)}; there are {', '.join(SIZES)}")
    from sciml.problems.recipes import poseidon_options

    # The grid of every problem as it is ("pad"): a tube keeps its shape, and a small grid costs little.
    return {"name": name, **poseidon_options((64, 64)), "time_conditioning": True, **SIZES[size]}

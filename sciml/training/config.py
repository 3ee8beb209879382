"""One schema for a training run, whether it comes from Python, YAML, the command line or a run directory.

Importing this module loads pydantic and yaml, never torch: configuration errors answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sciml.errors import ConfigError, did_you_mean
from sciml.training.data_free import (
    EXPERTS,
    check_data_free,
    check_equation_loss,
    data_free_recipe,
    step_recipe,
    way_without_data,
)
from sciml.training.fine_tuning import RATES, find_pretrained

if TYPE_CHECKING:
    from sciml.problems.base import Problem
    from sciml.training.latent.config import LatentConfig
    from sciml.training.particles.config import ParticleConfig


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


S = TypeVar("S", bound=Section)


class Cases(Section):
    """Number of cases (trajectories) of each part of the split."""

    train: int = Field(120, ge=1)
    validation: int = Field(12, ge=1)
    test: int = Field(30, ge=1)


class DataConfig(Section):
    """Where the trajectories come from: ``files``, or generated once into ``directory`` and kept."""

    files: list[str] = []
    directory: str = "data"
    subset: str = "all"
    split: Literal["random", "extrapolate"] = "random"
    cases: Cases = Cases()
    resolution: int | None = Field(None, ge=8, description="default: the problem's")
    frames: int | None = Field(None, ge=1, description="default: the problem's")
    interval: float | None = Field(None, gt=0, description="seconds between frames; default: the problem's")
    grading: float = Field(
        1.0,
        ge=1,
        description="frame i of T is at the fraction (i / (T - 1))^grading of (T - 1) intervals; 1: equal steps",
    )
    fields: list[str] = Field([], description="what is predicted; default: the problem's")
    inputs: list[str] = Field([], description="what a map reads; default: the problem's given fields")
    seed: int = Field(0, ge=0)
    workers: int | None = Field(None, ge=1, description="processes that generate; default: one a core")


class OperatorConfig(BaseModel):
    """The operator's registry name and the keyword arguments of its constructor (checked against its signature)."""

    model_config = ConfigDict(extra="allow")
    name: str = "unet"


class ConstraintConfig(BaseModel):
    """A constraint's registry name, when it acts, and the keyword arguments of its constructor."""

    model_config = ConfigDict(extra="allow")
    name: str
    when: Literal["both", "training", "evaluation"] = "both"


class TaskConfig(Section):
    """What is learned.

    ``step``: from ``history`` frames to the next, as an increment or as the state itself. ``map``: from the input
    fields of the first frame (all of them, or their values at ``points`` random points) to the fields of the last one;
    with no input fields from the parameters alone. Static problems have maps only. Default: what the problem is.
    ``pairs``: a step learns from successive frames, or from all pairs of frames of a trajectory, each with itself too,
    told the time between the two (Herde et al. 2024, "Poseidon: efficient foundation models for PDEs").
    ``trajectory``: the whole solution at once, in space and time, from its initial (or given) field, learned from the
    residual of the equation alone: no training data are generated. ``residual=1`` does the same for steps.
    """

    kind: Literal["step", "map", "trajectory"] | None = None
    pairs: Literal["successive", "all"] = Field("successive", description="frames that a step is learned between")
    points: int | None = Field(None, ge=1, description="a map reads its inputs at so many points, new ones each time")
    target: Literal["increment", "state"] | None = Field(
        None, description="what the operator's output is; default: the increment, of all pairs the state"
    )
    history: int = Field(1, ge=1)
    unroll: int | None = Field(
        None, ge=1, description="steps unrolled in the late part of training; default: 2, of all pairs 1"
    )
    unroll_from: float = Field(0.6, ge=0, le=1, description="fraction of training after which steps are unrolled")
    pushforward: bool = Field(False, description="back-propagate through the last unrolled step only")
    noise: float = Field(0.0, ge=0, description="standard deviation of input noise, in units of the increments'")
    residual: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of what the equation leaves over of the steps, beside the loss of the data; 1: no data",
    )
    pool: int = Field(64, ge=1, description="flows that the network advances itself, to learn from by the equation")
    grow: float = Field(0.5, ge=0, le=1, description="fraction of training in which these flows grow to full length")
    loss: Literal["relative_l2", "relative_l1", "nmse", "mse", "mae"] = "relative_l2"


class ExpertsConfig(Section):
    """The hard constraint of a trajectory: the operator gives ``bases`` fields, experts on tiles their weights.

    The options are those of ``sciml.constraints.mixture_of_experts.MixtureOfExpertsConstraint``.
    """

    bases: int = Field(16, ge=1, description="basis fields, the operator's output channels")
    tiles: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="experts along each axis, time first; default: one for the whole grid"
    )
    tiling: Literal["coupled", "overlap", "independent"] = "coupled"
    overlap: int = Field(2, ge=1, description="rows that a tile reaches into its neighbours, with tiling=overlap")
    samples: int | None = Field(None, ge=1, description="rows that each expert is solved on; default: all")
    interface_weight: float = Field(10.0, gt=0)
    condition_weight: float = Field(10.0, gt=0)
    ridge: float = Field(1e-10, gt=0)
    iterations: int = Field(30, ge=1, description="most Levenberg-Marquardt steps of a solve")


class OptimizerConfig(Section):
    """AdamW or SOAP with warm-up and cosine annealing to zero."""

    method: Literal["adamw", "soap"] = Field(
        "adamw", description="soap: Adam in the eigenbasis of Shampoo's preconditioner; fewer, dearer steps"
    )
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[float, float] | None = Field(
        None, description="decay of the moments; default: 0.9 and 0.98 with adamw, 0.95 and 0.95 with soap"
    )
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    warmup: float = Field(0.03, ge=0, lt=1, description="fraction of training")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights; 0: none")
    group_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="learning rates of the operator's named parameter groups; the others have learning_rate"
    )


class BudgetConfig(Section):
    """When training ends: at the first of these limits; with none of epochs, steps and minutes, after 50 epochs."""

    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0, description="training time, generation and evaluation not counted")
    patience: int | None = Field(None, ge=1, description="validations without improvement before stopping early")

    @model_validator(mode="after")
    def _is_finite(self) -> BudgetConfig:
        if self.epochs is None and self.steps is None and self.minutes is None:
            self.epochs = 50
        return self


class CheckpointConfig(Section):
    """How often the training state is written, and how many are kept."""

    every_steps: int = Field(500, ge=1)
    keep: int = Field(2, ge=1)


class ParallelConfig(Section):
    """How the processes of ``torchrun`` divide the work: expert groups share the samples of a step."""

    expert: int = Field(1, ge=1, description="processes that share the experts of a sample; divides their number")


class RunConfig(Section):
    """What every training run has, of fields or of particles."""

    problem: str = "cavity"
    dim: int | None = Field(None, ge=1, le=3, description="space dimensions; default: the problem's first")
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="intra-operation threads on the CPU; default: all cores")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch_size: int = Field(16, ge=1)
    validate_every: int = Field(200, ge=1, description="steps between validations")
    tensorboard: bool = False
    operator: OperatorConfig = OperatorConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    checkpoint: CheckpointConfig = CheckpointConfig()
    parallel: ParallelConfig = ParallelConfig()

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, as ``config.yaml`` of a run holds it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class TrainConfig(RunConfig):
    """Everything that decides a training run on fields."""

    pretrained: str | None = Field(
        None, description="weights to start from: directory of a run, a surrogate or an operator, or a hub id"
    )
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    constraints: list[ConstraintConfig] = Field([], description="what every prediction is made to obey, in this order")
    experts: ExpertsConfig | None = Field(None, description="of a trajectory: the hard constraint; default: none")


def merge(base: Mapping[str, Any], *updates: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of nested dictionaries, the later winning."""
    merged = dict(base)
    for update in updates:
        for key, value in update.items():
            if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
                merged[key] = merge(merged[key], value)
            else:
                merged[key] = value
    return merged


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """``["a.b=1", "c=[x, y]"]`` to a nested dictionary; values are YAML.

    Raises ``ConfigError`` for anything else.
    """
    result: dict[str, Any] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not all(part.isidentifier() for part in key.split(".")):
            raise ConfigError(f"cannot read {override!r}; overrides are written key.key=value, e.g. batch_size=8")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"cannot read the value of {override!r}: {error}") from None
        value = _number(value)
        for part in reversed(key.split(".")):
            value = {part: value}
        result = merge(result, value)
    return result


def load_yaml(path: Path) -> dict[str, Any]:
    """A configuration file.

    Raises ``ConfigError`` if it is missing, not YAML or not a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds {type(content).__name__}; expected keys such as {', '.join(TrainConfig.model_fields)}"
        )
    return _numbers(content)


def make_config(values: Mapping[str, Any]) -> TrainConfig | ParticleConfig | LatentConfig:
    """Validate a nested dictionary: of a run on fields, or on particles, as its problem is, or on a weak problem, as
    its operator is.

    Raises ``ConfigError`` that names the key, suggests the nearest, or states the bound.
    """
    from sciml.training.latent.config import OPERATOR, LatentConfig
    from sciml.training.particles.config import PARTICLES, ParticleConfig

    if (values.get("operator") or {}).get("name") == OPERATOR:
        return validated(LatentConfig, values)
    return validated(ParticleConfig if values.get("problem") in PARTICLES else TrainConfig, values)


def validated(schema: type[S], values: Mapping[str, Any]) -> S:
    """``make_config`` for a schema of another kind of run."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item, schema) for item in error.errors())) from None


def _explain(item: Mapping[str, Any], schema: type[Section]) -> str:
    *parents, last = (str(part) for part in item["loc"])
    key = ".".join([*parents, last])
    if item["type"] == "extra_forbidden":
        section: Any = schema
        for part in parents:  # of a dictionary of sections every value has one schema
            section = get_args(section)[1] if get_origin(section) is dict else section.model_fields[part].annotation
            if get_origin(section) is UnionType:  # a section or None
                section = get_args(section)[0]
        return f"unknown configuration key {key!r}{did_you_mean(last, section.model_fields)}"
    return f"configuration key {key!r} is {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def _number(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as a string; people mean the number."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() else value
        except ValueError:
            return value
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _number(value)


def complete(config: TrainConfig, problem: Problem) -> TrainConfig:
    """The configuration with what it leaves to the problem filled in.

    Raises ``ConfigError`` for a task that the problem does not have, ``CheckpointError`` for pretrained weights that
    are not there.
    """
    data, task = config.data, config.task
    kind = task.kind or ("map" if problem.static else "step")
    if kind == "trajectory":
        check_data_free(config, problem)
    elif config.experts is not None or any(each.name == EXPERTS for each in config.constraints):
        raise ConfigError(
            f"the constraint {EXPERTS} solves the equation for whole trajectories, which are learned without data: add "
            f"--physics-only (task.kind=trajectory); a {kind} has other constraints"
        )
    if kind == "step":
        if problem.static:
            raise ConfigError(f"problem {problem.name!r} is static: there is no step to learn; use task.kind=map")
        for key, value in (("data.inputs", data.inputs), ("task.points", task.points)):
            if value:
                raise ConfigError(f"{key} goes with task.kind=map; a step reads the fields that it predicts")
        if task.residual:
            check_equation_loss(config, problem)
    elif task.residual:
        raise ConfigError(
            f"task.residual is {task.residual}; it weighs what the equation leaves over of steps, and the task is a "
            f"{kind}: leave it out"
        )
    elif kind == "map" and task.history > 1:
        raise ConfigError(f"task.history is {task.history}; a map reads one frame")
    if task.pairs == "all":
        task = _all_pairs(task, kind)
    frames = 1 if problem.static else data.frames or problem.frames
    if kind == "step" and frames < 3:
        raise ConfigError(f"data.frames is {frames}; learning steps needs at least 3")
    if data.split == "extrapolate" and not problem.hard_subsets:
        raise ConfigError(f"problem {problem.name!r} has no held-out subsets; use data.split=random")
    if data.grading != 1.0 and frames < 3:
        raise ConfigError(f"data.grading is {data.grading}; it needs at least 3 frames, there are {frames}")
    filled = {
        "resolution": data.resolution or problem.resolution,
        "frames": frames,
        "fields": data.fields or list(problem.learned),
        "inputs": data.inputs or (_map_inputs(problem) if kind == "map" else []),
    }
    chosen = {
        "kind": kind,
        "target": task.target or "increment",
        "unroll": task.unroll or (1 if task.residual == 1 else 2),
    }
    start: dict[str, Any] = {}
    if config.pretrained is not None:
        named = config.operator.name if "name" in config.operator.model_fields_set else None
        pretrained = find_pretrained(config.pretrained, named)
        start = {
            "pretrained": pretrained.path,  # absolute: a run may be resumed from another directory
            "operator": config.operator.model_copy(update={"name": pretrained.operator}),
        }
    return config.model_copy(
        update={
            **start,
            "dim": problem.dim,
            "data": data.model_copy(update=filled),
            "task": task.model_copy(update=chosen),
        }
    )


def _all_pairs(task: TaskConfig, kind: str) -> TaskConfig:
    """The task of ``pairs="all"`` with its own defaults.

    Raises ``ConfigError`` for what is only done with steps from frame to frame.
    """
    if kind == "map":
        raise ConfigError("task.pairs=all goes with task.kind=step; a map learns one pair a case")
    task = task.model_copy(update={"unroll": task.unroll or 1, "target": task.target or "state"})
    for key, neutral in (("history", 1), ("unroll", 1), ("pushforward", False), ("noise", 0.0)):
        if (value := getattr(task, key)) != neutral:
            raise ConfigError(
                f"task.{key} is {value}; task.pairs=all learns single steps of any length from one frame: leave "
                f"task.{key} out, or use task.pairs=successive"
            )
    return task


def _map_inputs(problem: Problem) -> list[str]:
    """The given fields; without any, the initial state where it is drawn at random, else the parameters alone."""
    return list(problem.given or (problem.learned if problem.draw_names else ()))


def resolve_config(
    problem: str,
    operator: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> TrainConfig | ParticleConfig | LatentConfig:
    """The problem's recipe, overlaid by a file, then by dotted overrides, then by the flags of the command line.

    With pretrained weights the recipe gives no options of the operator, which come with the weights; what is predicted
    is what they have learned to predict, and the learning rates are those of fine-tuning.
    """
    from sciml.problems import get_problem
    from sciml.training.latent.config import OPERATOR, WEAK_ONLY, resolve_latent_config
    from sciml.training.particles.config import PARTICLES, resolve_particle_config

    chosen_by_user = merge(load_yaml(file) if file is not None else {}, parse_overrides(overrides), flags or {})
    chosen = operator or chosen_by_user.get("operator", {}).get("name")
    if chosen == OPERATOR or problem in WEAK_ONLY:
        return resolve_latent_config(problem, chosen, file, overrides, flags)
    if problem in PARTICLES:
        return resolve_particle_config(problem, operator, file, overrides, flags)
    chosen_problem = get_problem(problem, chosen_by_user.get("dim"))
    experts = chosen_by_user.get("experts") is not None
    without = way_without_data(chosen_problem, chosen, chosen_by_user.get("task") or {}, experts)
    if without is not None:
        task = {**chosen_by_user["task"], "kind": without}
        if without == "trajectory":
            task.pop("residual", None)  # there is nothing else that it could be learned from
        chosen_by_user = {**chosen_by_user, "task": task}
    pretrained, rates = chosen_by_user.get("pretrained"), None
    if isinstance(pretrained, str):
        weights = find_pretrained(pretrained, chosen)
        chosen, rates = weights.operator, RATES.get(weights.operator)
    if without == "trajectory":
        recipe = data_free_recipe(chosen_problem, chosen, experts)
    elif without == "step":
        recipe = step_recipe(chosen_problem, chosen)
    else:
        recipe = chosen_problem.recipe(chosen)
    if isinstance(pretrained, str):
        recipe["operator"] = {"name": chosen}
        recipe["task"] = {**recipe.get("task", {}), **weights.task}
    if rates is not None:
        recipe["optimizer"] = {**recipe.get("optimizer", {}), "learning_rate": rates.base}
    if {"epochs", "steps", "minutes"} & set(chosen_by_user.get("budget") or {}):
        recipe.pop("budget", None)  # who asks for 50 epochs does not want them cut short by the recipe's minutes
    if merge(recipe, chosen_by_user).get("task", {}).get("pairs") == "all":
        # A recipe's target and unrolling are those of steps from frame to frame.
        recipe["task"] = weights.task if isinstance(pretrained, str) else {}
    named = {"operator": {"name": chosen}} if chosen else {}
    config = make_config(merge(recipe, chosen_by_user, named, {"problem": problem}))
    if rates is not None and "group_rates" not in (chosen_by_user.get("optimizer") or {}):
        base = config.optimizer.learning_rate
        config.optimizer.group_rates = {group: factor * base for group, factor in rates.factors.items()}
    return complete(config, chosen_problem)

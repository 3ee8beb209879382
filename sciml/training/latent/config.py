"""The configuration of a run on a weak problem. Importing it is light, as ``sciml.training.config`` is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sciml.errors import ConfigError
from sciml.training.config import (
    Cases,
    OperatorConfig,
    RunConfig,
    Section,
    load_yaml,
    merge,
    parse_overrides,
    validated,
)

if TYPE_CHECKING:
    from sciml.problems.weak import WeakProblem

OPERATOR = "dgno"
"""The operator that runs of this kind train."""

WEAK_ONLY = ("darcy_mixed", "stokes")
"""Problems that exist in weak form alone; a test compares them with the registry, which imports torch."""

FIELDS_ONLY = ("constraints", "experts", "pretrained")
"""Keys of a run on fields that people may try here."""


class LatentCases(Cases):
    """Training cases are input functions alone: they cost nothing, so they are many."""

    train: int = Field(4000, ge=1)
    validation: int = Field(50, ge=1)
    test: int = Field(200, ge=1)


class LatentDataConfig(Section):
    """Which input functions are learned from, on which mesh."""

    subset: str = "all"
    cases: LatentCases = LatentCases()
    labelled: int = Field(0, ge=0, description="training cases whose solution is computed, to learn from it as well")
    resolution: int | None = Field(None, ge=4, description="of the mesh; default: the problem's")
    seed: int = Field(0, ge=0)


class LatentTaskConfig(Section):
    """What is learned from: residuals of the equation (``physics``), solutions (``data``), or both."""

    kind: Literal["latent"] = "latent"
    learn: Literal["physics", "data", "both"] = "physics"
    physics: float = Field(1.0, gt=0, description="weight of the residuals' log likelihood")
    data: float = Field(1.0, gt=0, description="weight of the solutions' log likelihood")
    divergence: float = Field(1.0, ge=0, description="weight of the divergence from the prior; 1: the evidence bound")
    anneal: float = Field(
        0.5,
        ge=0,
        le=1,
        description="fraction of training in which that weight grows from 0: latent vectors stay in use",
    )
    prior: Literal["normal", "flow"] = Field(
        "normal", description="of latent vectors in inversions; flow: fitted to those of the training cases"
    )


class LatentConfig(RunConfig):
    """Everything that decides a training run on a weak problem."""

    problem: str = "darcy"
    batch_size: int = Field(25, ge=1)
    operator: OperatorConfig = OperatorConfig(name=OPERATOR)
    data: LatentDataConfig = LatentDataConfig()
    task: LatentTaskConfig = LatentTaskConfig()


def resolve_latent_config(
    problem: str,
    operator: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> LatentConfig:
    """The problem's recipe, overlaid by a file, then by dotted overrides, then by the flags of the command line."""
    from sciml.problems.weak import get_weak_problem

    if operator not in (None, OPERATOR):
        raise ConfigError(f"problem {problem!r} is learned by {OPERATOR} alone; operator {operator!r} cannot")
    chosen = merge(load_yaml(file) if file is not None else {}, parse_overrides(overrides), flags or {})
    for key in FIELDS_ONLY:
        if key in chosen:
            raise ConfigError(f"{key} is for operators between fields on grids, not for {OPERATOR}: leave it out")
    if {"files", "split"} & set(chosen.get("data") or {}):
        raise ConfigError(
            f"{OPERATOR} draws its own input functions, as many as data.cases says, and reads no data file: leave "
            "--data and --split out. To learn from solutions as well: task.learn=both data.labelled=100"
        )
    task = dict(chosen.get("task") or {})
    if task.get("residual") == 1:  # --physics-only
        del task["residual"]
        task["learn"] = "physics"
    task.pop("kind", None)
    data = chosen.get("data") or {}
    weak = get_weak_problem(problem, data.get("subset"), data.get("resolution"))
    if chosen.get("dim") not in (None, weak.dim):
        raise ConfigError(
            f"the weak form of {problem} has the coordinates {', '.join(weak.axes)} and no other: leave --dim out"
        )
    recipe = weak.recipe()
    if {"epochs", "steps", "minutes"} & set(chosen.get("budget") or {}):
        recipe.pop("budget", None)
    values = merge(recipe, {**chosen, "task": task}, {"problem": problem, "operator": {"name": OPERATOR}})
    return complete_latent(validated(LatentConfig, values))


def complete_latent(config: LatentConfig, problem: WeakProblem | None = None) -> LatentConfig:
    """The configuration with what it leaves to the problem filled in; ``problem``: one of the user's own.

    Raises ``ConfigError`` for what does not go together.
    """
    from sciml.problems.weak import get_weak_problem

    data, learn = config.data, config.task.learn
    if problem is None:
        problem = get_weak_problem(config.problem, data.subset, data.resolution)
    elif data.resolution not in (None, problem.cells) or data.subset not in ("all", problem.subset):
        raise ConfigError(
            f"data.resolution is {data.resolution} and data.subset {data.subset!r}, but the problem that was given has "
            f"{problem.cells} and {problem.subset!r}; leave them out"
        )
    if learn == "physics" and data.labelled:
        raise ConfigError(
            f"data.labelled is {data.labelled}, but task.learn=physics looks at no solution; use task.learn=both"
        )
    if data.labelled > data.cases.train:
        raise ConfigError(f"data.labelled is {data.labelled}, more than the {data.cases.train} training cases")
    labelled = data.labelled or (0 if learn == "physics" else data.cases.train)
    filled = {"resolution": problem.cells, "subset": problem.subset, "labelled": labelled}
    if learn == "data":  # the others have nothing to be learned from
        filled["cases"] = data.cases.model_copy(update={"train": labelled})
    return config.model_copy(
        update={"problem": problem.name, "dim": problem.dim, "data": data.model_copy(update=filled)}
    )

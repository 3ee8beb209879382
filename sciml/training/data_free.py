"""Training without data, from the residual of the equation alone: for which problems, and with which defaults.

There are two ways: whole solutions in space and time at once (``task.kind=trajectory``), and steps (``task.kind=step``
with ``task.residual=1``), which a network that has learned them takes like any others.

Importing this module is light: a task that a problem does not have is answered before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sciml.errors import ConfigError

if TYPE_CHECKING:
    from sciml.problems.base import Problem
    from sciml.training.config import TrainConfig

EXPERTS = "mixture-of-experts"
"""The constraint that the section ``experts`` configures."""

_SHARED: dict[str, Any] = {
    "task": {"kind": "trajectory"},
    "precision": "float32",  # the weights of basis fields are only as good as these
    "batch_size": 4,
    "validate_every": 50,
    "optimizer": {"learning_rate": 2e-3, "weight_decay": 0.0},
    "budget": {"minutes": 2.0},
}
_FNO: dict[str, Any] = {"patch_size": 1, "padding": 0.0, "coordinates": False}
"""Whole cells; padding and coordinates of space-time are the surrogate's own."""

RECIPES: dict[str, dict[str, Any]] = {
    "burgers": {
        # Random fields have waves that are damped within the first frames.
        "data": {"subset": "fno", "resolution": 128, "frames": 26, "interval": 0.02, "grading": 2.0},
        "operator": {"n_modes": [15, 23], "hidden_channels": 24},
        "experts": {"bases": 32, "tiles": [2, 8], "interface_weight": 100.0},
    },
    "darcy": {
        "data": {"subset": "smooth", "resolution": 32},
        "operator": {"n_modes": [15, 15], "hidden_channels": 24},
        "experts": {"bases": 32, "tiles": [4, 4], "interface_weight": 100.0},
    },
    "diffusion_sorption": {
        # The column starts with a jump at the inlet: early frames are close together.
        "data": {"subset": "soil", "resolution": 64, "frames": 26, "interval": 20.0, "grading": 2.0},
        "operator": {"n_modes": [15, 23], "hidden_channels": 24},
        "experts": {"bases": 32, "tiles": [2, 8], "interface_weight": 100.0},
    },
    "vorticity": {
        "data": {"subset": "decaying", "resolution": 32, "frames": 13, "interval": 1 / 12},
        "operator": {"n_modes": [7, 11, 11], "hidden_channels": 16},
        "experts": {"bases": 32, "tiles": [1, 2, 2]},
        "batch_size": 2,
    },
}
"""Problem (in its first dimension) -> configuration; ``experts`` only with the hard constraint."""

STAGGER = "neuralstagger"
"""The operator that is meant for steps without data."""

_FREE: list[dict[str, Any]] = [{"name": "divergence-free"}]
"""What the defect asks of a velocity beside its momentum is then left to no training: three times less error."""

STEP_RECIPES: dict[str, dict[str, Any]] = {
    # Frames are as close together as the trapezoidal rule between them is accurate: its defect of the solver's own
    # steps is some thousandths of the state.
    "burgers": {
        "data": {"interval": 2.5e-3, "frames": 41},
        "operator": {"spatial": 2, "temporal": 4, "options": {"hidden_channels": 48}},
    },
    "cavity": {
        "constraints": _FREE,
        "data": {"interval": 1e-4, "frames": 51},
        "operator": {
            "operator": "unet",
            "spatial": 2,
            "temporal": 10,
            "options": {"hidden_channels": [48, 64, 96]},
        },
    },
    "gray_scott": {
        "data": {"interval": 1.0, "frames": 41},
        "operator": {"spatial": 2, "temporal": 4, "options": {"hidden_channels": 32}},
    },
    "periodic_flow": {
        "constraints": _FREE,
        "data": {"interval": 0.1, "frames": 21},
        "operator": {"spatial": 2, "temporal": 2, "options": {"hidden_channels": 32}},
    },
    "vorticity": {
        "data": {"subset": "decaying", "interval": 0.025, "frames": 41},
        "operator": {"spatial": 2, "temporal": 4, "options": {"hidden_channels": 48}},
    },
}
"""Problem -> configuration of steps without data; ``operator`` only where that is ``STAGGER``."""

CASES = {"train": 256, "validation": 4, "test": 12}
"""``train``: the fresh random cases that count as an epoch; the others are solved, to judge by."""


def data_free_recipe(problem: Problem, operator: str | None, experts: bool) -> dict[str, Any]:
    """The default of ``sciml train --physics-only``, with the hard constraint or without.

    Raises ``ConfigError`` for a problem without an equation.
    """
    check_equation(problem)
    own = RECIPES[problem.name]
    name = operator or "fno"
    options = {**_FNO, **own["operator"]} if name == "fno" else {}
    recipe = {
        **_SHARED,
        **{key: value for key, value in own.items() if key != "experts" or experts},
        "problem": problem.name,
        "operator": {"name": name, **options},
    }
    recipe["data"] = {"cases": dict(CASES), **own["data"]}
    return recipe


def step_recipe(problem: Problem, operator: str | None) -> dict[str, Any]:
    """The default of steps without data: ``sciml train --physics-only --operator neuralstagger``.

    Raises ``ConfigError`` for a problem that has no such steps.
    """
    check_steps(problem)
    own = STEP_RECIPES.get(problem.name, {})
    name = operator or STAGGER
    return {
        "problem": problem.name,
        "operator": {"name": name, **(own.get("operator", {}) if name == STAGGER else {})},
        "task": {"kind": "step", "residual": 1.0},
        "data": {"cases": dict(CASES), **own.get("data", {})},
        "constraints": own.get("constraints", []),
        "precision": "float32",
        "batch_size": 4,
        "validate_every": 200,
        # Much higher than beside data: every step sees states that no step saw before.
        "optimizer": {"learning_rate": 1e-2, "weight_decay": 0.0},
        "budget": {"minutes": 5.0},
    }


def way_without_data(
    problem: Problem, operator: str | None, task: Mapping[str, Any], experts: bool
) -> Literal["trajectory", "step"] | None:
    """How a configuration learns without data, given what its user chose; None: it learns from data.

    ``task.residual=1`` alone, which ``--physics-only`` stands for, takes whole solutions where the problem has an
    equation for them, unless the operator is the one for steps.
    """
    kind = task.get("kind")
    if kind == "trajectory" or task.get("residual") != 1:
        return "trajectory" if kind == "trajectory" else None
    if kind is None and operator != STAGGER and (experts or has_equation(problem) or not problem.steps_by_equation):
        return "trajectory"
    return "step"


def has_equation(problem: Problem) -> bool:
    """Whether there is an equation for whole solutions of the problem."""
    return problem.name in RECIPES and problem.dim == problem.dims[0]


def check_steps(problem: Problem) -> None:
    """Raise ``ConfigError`` unless the problem says what its equation leaves over of a step."""
    if not problem.steps_by_equation:
        where = "" if len(problem.dims) == 1 else f" in {problem.dim}D"
        raise ConfigError(
            f"steps of problem {problem.name!r} cannot be learned from its equation{where}; those of "
            f"{', '.join(STEP_RECIPES)} can, and whole solutions of {', '.join(RECIPES)} (--physics-only)"
        )


def check_equation_loss(config: TrainConfig, problem: Problem) -> None:
    """Raise ``ConfigError`` for what does not go with steps that are judged by the equation (``task.residual``)."""
    check_steps(problem)
    data, task = config.data, config.task
    neutral: list[tuple[str, Any, Any]] = [
        ("task.history", task.history, 1),
        ("task.pairs", task.pairs, "successive"),
        ("data.fields", data.fields or list(problem.learned), list(problem.learned)),
        ("data.grading", data.grading, 1.0),
    ]
    if task.residual == 1:
        neutral += [
            ("data.files", data.files, []),
            ("data.split", data.split, "random"),
            ("task.noise", task.noise, 0.0),
            ("task.pushforward", task.pushforward, False),
            ("task.loss", task.loss, "relative_l2"),
        ]
    for key, value, expected in neutral:
        if value != expected:
            raise ConfigError(
                f"{key} is {value!r}; steps that are learned from the equation (task.residual={task.residual:g}, "
                f"--physics-only) need {expected!r}: leave it out"
            )


def check_equation(problem: Problem) -> None:
    """Raise ``ConfigError`` unless there is an equation that says all about the problem's solutions."""
    if not has_equation(problem):
        where = "" if len(problem.dims) == 1 else f" in {problem.dim}D"
        raise ConfigError(
            f"problem {problem.name!r} cannot be learned without data{where}: it has no equation for whole solutions "
            f"there; those that have one are {', '.join(RECIPES)} (each in the first of its dimensions). Steps from "
            f"frame to frame can be learned of {', '.join(STEP_RECIPES)} (--operator {STAGGER})"
        )


def check_data_free(config: TrainConfig, problem: Problem) -> None:
    """Raise ``ConfigError`` for a problem without an equation, and for keys that mean nothing without training data."""
    check_equation(problem)
    data, task = config.data, config.task
    for key, value, neutral in (
        ("data.files", data.files, []),
        ("data.split", data.split, "random"),
        ("data.inputs", data.inputs, []),
        ("data.fields", [name for name in data.fields if name not in problem.learned], []),
        ("task.points", task.points, None),
        ("task.pairs", task.pairs, "successive"),
        ("task.history", task.history, 1),
        ("task.pushforward", task.pushforward, False),
        ("task.noise", task.noise, 0.0),
    ):
        if value != neutral:
            raise ConfigError(
                f"{key} is {value!r}; training without data (--physics-only) knows the problem's own fields and random "
                "cases only: leave it out"
            )
    for each in config.constraints:
        if each.name == EXPERTS:
            raise ConfigError(
                f"the constraint {EXPERTS} is configured by the section 'experts', e.g. experts.tiles=[1,4]; take it "
                "out of 'constraints'"
            )
        raise ConfigError(
            f"the constraint {each.name!r} acts on single frames; a trajectory that is learned without data has the "
            f"constraint {EXPERTS} only"
        )
    if not problem.static and data.frames is not None and data.frames < 2:
        raise ConfigError(f"data.frames is {data.frames}; a trajectory has at least 2")

"""Training without data, from the residual of the equation alone: for which problems, and with which defaults.

Importing this module is light: a task that a problem does not have is answered before torch is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def check_equation(problem: Problem) -> None:
    """Raise ``ConfigError`` unless there is an equation that says all about the problem's solutions."""
    if problem.name not in RECIPES or problem.dim != problem.dims[0]:
        where = "" if len(problem.dims) == 1 else f" in {problem.dim}D"
        raise ConfigError(
            f"problem {problem.name!r} cannot be learned without data{where}: it has no equation for whole solutions "
            f"there; those that have one are {', '.join(RECIPES)} (each in the first of its dimensions)"
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

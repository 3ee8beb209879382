"""The configuration of a training run on particles. Importing it is light, as ``sciml.training.config`` is."""

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
    from sciml.problems.particles import ParticleProblem

PARTICLES = ("goop", "jelly", "particles", "plasticine", "sand", "water")
"""Problems of particles; a test compares them with the registry, which imports torch."""

FIELDS_ONLY = ("constraints", "experts", "pretrained")
"""Keys of a run on fields that people may try here."""


class ParticleCases(Cases):
    """Fewer than of fields: a scene has hundreds of frames."""

    train: int = Field(40, ge=1)
    validation: int = Field(3, ge=1)
    test: int = Field(8, ge=1)


class ParticleDataConfig(Section):
    """Where the trajectories come from: ``files``, or generated once into ``directory`` and kept."""

    files: list[str] = Field([])
    directory: str = "data"
    subset: str = "all"
    split: Literal["random", "extrapolate"] = "random"
    cases: ParticleCases = ParticleCases()
    resolution: int | None = Field(None, ge=8, description="cells of the solver along a side; default: the problem's")
    frames: int | None = Field(None, ge=8, description="default: the problem's")
    interval: float | None = Field(None, gt=0, description="seconds between frames; default: the problem's")
    points: int | None = Field(
        250, ge=2, description="particles of a scene that are stepped; the others are brought along. null: all"
    )
    sampling: Literal["mixed", "farthest", "random"] = Field(
        "mixed", description="how they are chosen in training; mixed: both, and farthest afterwards"
    )
    draws: int = Field(16, ge=1, description="different choices of points from each training trajectory")
    seed: int = Field(0, ge=0)
    workers: int | None = Field(None, ge=1, description="processes that generate; default: one a core")


class ParticleTaskConfig(Section):
    """What is learned: from ``history`` frame differences the acceleration that leads to the next frame."""

    kind: Literal["particles"] = "particles"
    history: int = Field(5, ge=1)
    radius: float | None = Field(None, gt=0, description="connectivity radius in metres; default: from degree")
    degree: float = Field(12.0, gt=0, description="mean number of neighbours that the radius is chosen for")
    noise: float = Field(
        0.02, ge=0, description="random-walk noise of the input, standard deviation in units of the velocities'"
    )
    huber: float | None = Field(
        1.0,
        gt=0,
        description="error of an acceleration, in standard deviations, beyond which its loss is linear; null: none",
    )
    unroll: int = Field(1, ge=1, description="steps unrolled in the late part of training")
    unroll_from: float = Field(0.7, ge=0, le=1, description="fraction of training after which steps are unrolled")
    lifetime: int = Field(
        1,
        ge=1,
        description="frames that the network follows a scene by its own steps in training; 1: it sees true frames only",
    )
    pool: int = Field(32, ge=1, description="scenes that it follows at a time")
    grow: float = Field(0.5, ge=0, le=1, description="fraction of training in which scenes grow to their lifetime")
    relaxation: float = Field(15.0, gt=1, description="frames in which a followed scene is led back to the true one")
    mirror: bool = Field(True, description="train on mirrored scenes too: gravity stays as it is")
    queries: int = Field(128, ge=1, description="points of a scene that the upsampler learns from in a step")
    anchor_every: int | None = Field(
        None, ge=1, description="frames after which upsampled points look for neighbours anew; default: never"
    )
    correct_every: int = Field(1, ge=1, description="frames for which their learned correction is held in rollouts")
    upsampler: dict[str, Any] = Field({}, description="constructor arguments of KernelUpsampler")


class ParticleConfig(RunConfig):
    """Everything that decides a training run on particles."""

    problem: str = "water"
    batch_size: int = Field(4, ge=1)
    operator: OperatorConfig = OperatorConfig(name="giorom")
    data: ParticleDataConfig = ParticleDataConfig()
    task: ParticleTaskConfig = ParticleTaskConfig()


def resolve_particle_config(
    problem: str,
    operator: str | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> ParticleConfig:
    """The problem's recipe, overlaid by a file, then by dotted overrides, then by the flags of the command line."""
    from sciml.problems import get_problem

    chosen = merge(load_yaml(file) if file is not None else {}, parse_overrides(overrides), flags or {})
    for key in FIELDS_ONLY:
        if key in chosen:
            raise ConfigError(f"{key} is for fields on grids; problem {problem!r} is one of particles: leave it out")
    if (chosen.get("task") or {}).get("kind", "particles") != "particles":
        raise ConfigError(f"problem {problem!r} is one of particles, which are stepped: leave task.kind out")
    name = operator or (chosen.get("operator") or {}).get("name")
    found = get_problem(problem, chosen.get("dim"))
    recipe = found.recipe(name)
    if {"epochs", "steps", "minutes"} & set(chosen.get("budget") or {}):
        recipe.pop("budget", None)
    named = {"operator": {"name": name}} if name else {}
    return complete_particles(validated(ParticleConfig, merge(recipe, chosen, named, {"problem": problem})), found)


def complete_particles(config: ParticleConfig, problem: ParticleProblem) -> ParticleConfig:
    """The configuration with what it leaves to the problem filled in."""
    data = config.data
    if data.split == "extrapolate" and not problem.hard_subsets:
        raise ConfigError(f"problem {problem.name!r} has no held-out subsets; use data.split=random")
    filled = {
        "resolution": data.resolution or problem.resolution,
        "frames": data.frames or problem.frames,
        "interval": data.interval or problem.frame_interval,
    }
    if config.task.lifetime > 1 and config.task.unroll > 1:
        raise ConfigError(
            f"task.unroll is {config.task.unroll} and task.lifetime {config.task.lifetime}: scenes that the network "
            "follows by its own steps are not unrolled; use one of the two"
        )
    if config.problem == "particles" and not data.files:
        raise ConfigError("problem 'particles' is your own data: give --data FILE.h5 (sciml convert makes one)")
    if data.files:
        return config.model_copy(update={"dim": problem.dim})
    shortest = config.task.history + 1 + max(2, config.task.unroll)
    if filled["frames"] < shortest:
        raise ConfigError(
            f"data.frames is {filled['frames']}; {config.task.history} frame differences and {config.task.unroll} "
            f"steps need at least {shortest}"
        )
    return config.model_copy(update={"dim": problem.dim, "data": data.model_copy(update=filled)})

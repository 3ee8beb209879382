"""The untrained model of a run on particles: radius, statistics, stepper and upsampler."""

from __future__ import annotations

import datetime
import math
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sciml.datasets.particles import particle_statistics
from sciml.errors import ConfigError
from sciml.operators import OPERATORS, PARTICLE_OPERATORS
from sciml.operators.particles.upsampler import KernelUpsampler
from sciml.operators.stored import build, find
from sciml.points import check_graph, components, propose_radius, radius_pairs
from sciml.surrogate.particles import ParticleSurrogate, scene_of
from sciml.surrogate.particles.companions import choose
from sciml.training.particles.config import ParticleConfig
from sciml.training.particles.data import ParticlePart

LOOKED_AT = 32
"""Training cases whose first frames the radius is chosen from."""
TOUCHING = 2.5
"""Particles of one body are nearer than so many spacings to another."""
WIDE = 10.0
"""A positive parameter whose greatest training value is so many times its least is seen as its logarithm."""


def check_operator(config: ParticleConfig) -> None:
    """Raise ``ConfigError`` for an operator that is not one of particles, or for its misspelt arguments, before any
    data are made.
    """
    name = config.operator.name
    if name in OPERATORS:
        raise ConfigError(
            f"the operator {name!r} is for fields on grids; particles are stepped by {' or '.join(PARTICLE_OPERATORS)}"
        )
    find(name, PARTICLE_OPERATORS)
    _operator(config, 2 if config.dim is None else config.dim, 1.0, 1, 0)
    build(KernelUpsampler, {"dim": config.dim or 2, **config.task.upsampler})


def build_surrogate(config: ParticleConfig, part: ParticlePart) -> ParticleSurrogate:
    """The untrained surrogate, its weights a function of the seed.

    Raises ``DataError`` for a configured radius at which bodies fall to pieces, with one at which they do not.
    """
    info = part.info
    statistics, ranges = describe(config, part)
    radius = chosen_radius(config, part)
    stepper = _operator(config, info.dim, radius, len(info.kinds), len(info.parameters))
    upsampler = None
    if config.data.points is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            upsampler = build(KernelUpsampler, {"dim": info.dim, **config.task.upsampler})
    return ParticleSurrogate(
        stepper,
        upsampler,
        statistics,
        problem=config.problem,
        kinds=info.kinds,
        parameters=info.parameters,
        points=config.data.points,
        sampling="random" if config.data.sampling == "random" else "farthest",
        anchor_every=config.task.anchor_every,
        correct_every=config.task.correct_every,
        ranges=ranges,
        provenance={
            "training cases": len(part),
            "data": ", ".join(str(file) for file in part.files),
            "seed": config.seed,
            "date": datetime.date.today().isoformat(),
        },
    )


def _operator(config: ParticleConfig, dim: int, radius: float, kinds: int, parameters: int) -> Any:
    options = {key: value for key, value in config.operator.model_dump().items() if key != "name"}
    decided = {
        "dim": dim,
        "radius": radius,
        "history": config.task.history,
        "n_kinds": kinds,
        "n_parameters": parameters,
    }
    if clash := [key for key in options if key in decided]:
        hint = "task.radius" if clash[0] == "radius" else "task.history" if clash[0] == "history" else "the data"
        raise ConfigError(f"operator.{clash[0]} follows from {hint}; set it there")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(find(config.operator.name, PARTICLE_OPERATORS), {**decided, **options})


def chosen_radius(config: ParticleConfig, part: ParticlePart) -> float:
    """The configured radius, or the median over the first training cases of those that connect every body.

    A body is what hangs together in the full set of particles; the points that are stepped may not fall into more
    pieces than there are bodies.

    Raises ``DataError`` for a configured radius at which they do.
    """
    sampling = "random" if config.data.sampling == "random" else "farthest"
    radius, proposals = config.task.radius, []
    for number, (file, case) in enumerate(part.cases[:LOOKED_AT]):
        scene = scene_of(file.trajectory(case), file.info, slice(0, 1))
        points = scene.position[choose(scene, config.data.points, sampling, number)]
        bodies = body_count(scene.position)
        if radius is None:
            proposals.append(propose_radius(points, degree=config.task.degree, parts=bodies))
        else:
            check_graph(points, radius_pairs(points, radius), radius, parts=bodies)
    return median(proposals) if radius is None else radius


def body_count(position: Tensor) -> int:
    """Connected pieces of a full set of particles ``(N, d)``: those nearer than some spacings belong together."""
    from sciml.points import nearest

    if len(position) < 2:
        return len(position)
    spacing = float(nearest(position, position, 2)[1][:, 1].median())
    return int(components(len(position), radius_pairs(position, TOUCHING * max(spacing, 1e-12))).max()) + 1


def describe(config: ParticleConfig, part: ParticlePart) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """The statistics of ``ParticleNormaliser`` over the training cases, and the range of every material parameter."""
    info = part.info
    found = particle_statistics(part.cases)
    gravity = torch.tensor(info.gravity, dtype=torch.float64) * info.interval**2
    statistics: dict[str, Any] = {"interval": info.interval}
    for name, mean, std in (
        ("velocity", found.velocity_mean, found.velocity_std),
        ("acceleration", found.acceleration_mean, found.acceleration_std),
    ):
        centre, spread = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        share = float(centre @ gravity / (gravity @ gravity)) if bool(gravity.any()) else 0.0
        # What the mean along gravity leaves of the mean counts as spread: the same for all axes.
        left = centre - share * gravity
        statistics[f"{name}_gravity"] = share
        statistics[f"{name}_std"] = max(float((spread.square() + left.square()).mean().sqrt()), 1e-12)
    statistics["noise"] = config.task.noise * statistics["velocity_std"]
    columns = torch.cat([_free_parameters(part, number) for number in range(len(part))]).double()
    logarithmic, means, stds, ranges = [], [], [], {}
    for name, values in zip(info.parameters, columns.T, strict=True):
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        ranges[name] = (low, high)
        wide = low > 0 and high > WIDE * low
        seen = values.log() if wide else values
        spread_of = float(seen.std(unbiased=False)) if len(seen) else 0.0
        logarithmic.append(wide)
        means.append(float(seen.mean()) if len(seen) else 0.0)
        stds.append(spread_of if spread_of > 1e-9 * max(1.0, math.fabs(means[-1])) else 1.0)
    statistics |= {"parameter_mean": means, "parameter_std": stds, "parameter_log": logarithmic}
    return statistics, ranges


def _free_parameters(part: ParticlePart, number: int) -> Tensor:
    """Distinct rows of the free particles of a case: every material counts once."""
    file, case = part.cases[number]
    trajectory = file.trajectory(case)
    rows = trajectory.parameters[~trajectory.fixed]
    return rows.unique(dim=0) if rows.numel() else rows

"""The untrained model of a run: the configured operator in a surrogate with the statistics of the training cases."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciml.datasets import field_statistics
from sciml.errors import ConfigError
from sciml.operators import OPERATORS, Operator, create_operator
from sciml.problems.base import Problem
from sciml.surrogate import Normaliser, Surrogate, at_time, input_channels, observed_ranges
from sciml.training.config import TrainConfig
from sciml.training.data import MapCases, Part, trajectories


def build_operator(config: TrainConfig, problem: Problem) -> Operator:
    """The untrained operator, its weights a function of the seed.

    Raises ``ConfigError`` for a wrong name, key or field, for an operator made for another number of dimensions, and
    ``DataError`` for a grid that it cannot take: mistakes are better met before minutes of generation.
    """
    known = {field.name: field for field in problem.fields}
    for key in ("fields", "inputs"):
        for name in getattr(config.data, key):
            if name not in known:
                raise ConfigError(
                    f"problem {problem.name!r} has no field {name!r}; data.{key} may name {', '.join(known)}"
                )
    if config.task.kind == "map" and not config.data.inputs and not problem.condition_names:
        raise ConfigError(f"a map of problem {problem.name!r} needs data.inputs: it has no conditions to learn from")
    channels = sum(known[name].components for name in config.data.fields)
    options = {key: value for key, value in config.operator.model_dump().items() if key != "name"}
    if config.operator.name in OPERATORS:
        periodic = set(problem.boundaries(config.data.subset).values()) == {"periodic"}
        options = {**OPERATORS[config.operator.name].options_for(problem.dim, periodic), **options}
    read, conditions = input_channels(problem, config.data.fields, config.data.inputs, config.task), None
    # The initial weights are the one draw that layers make from the global generator: seed it, and leave it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        operator = create_operator(
            config.operator.name,
            in_channels=read,
            out_channels=channels,
            n_parameters=len(problem.condition_names),
            **options,
        )
    if operator.dim != problem.dim:
        raise ConfigError(
            f"the operator {config.operator.name!r} is for {operator.dim} dimensions, the problem {problem.name!r} has "
            f"{problem.dim}; change the operator's arguments (e.g. n_modes, n_sensors, dim)"
        )
    if not config.data.files:
        if problem.condition_names:
            conditions = torch.zeros(1, len(problem.condition_names))
        with torch.no_grad():
            operator(torch.zeros(1, read, *problem.grid(config.data.resolution)), parameters=conditions)
    return operator


def build_surrogate(config: TrainConfig, problem: Problem, operator: Operator, part: Part) -> Surrogate:
    """The operator with the normaliser and the ranges of the training cases."""
    describe = _describe_map if config.task.kind == "map" else _describe_steps
    statistics, parameters, intervals, grid = describe(config, problem, part)
    steps = intervals.shape[1]
    conditions = torch.stack(
        [problem.conditions(at_time(parameters, t, steps), intervals[:, t]) for t in range(steps)], 1
    ).flatten(0, 1)
    normaliser = Normaliser(
        {
            **statistics,
            "condition_mean": conditions.mean(0).tolist(),
            "condition_std": _positive(conditions.std(0)).tolist(),
        }
    )
    shared = bool(torch.allclose(intervals, intervals[0, 0].expand_as(intervals), rtol=1e-6))
    return Surrogate(
        operator,
        problem,
        normaliser,
        fields=config.data.fields,
        kind=config.task.kind,
        inputs=config.data.inputs,
        points=config.task.points,
        history=config.task.history,
        target="state" if config.task.kind == "map" else config.task.target,
        interval=float(intervals[0, 0]) if shared else None,
        grid=grid,
        ranges=observed_ranges(problem, parameters, intervals, steps),
        provenance={
            "training cases": len(part.cases),
            "data": ", ".join(str(file) for file in part.files),
            "seed": config.seed,
            "date": datetime.date.today().isoformat(),
        },
    )


Description = tuple[dict[str, Any], dict[str, Tensor], Tensor, tuple[int, ...]]
"""Statistics of the scaled fields, parameters ``(N,)`` or ``(N, steps)``, intervals ``(N, steps)``, the grid."""


def _describe_steps(config: TrainConfig, problem: Problem, part: Part) -> Description:
    fields = config.data.fields
    cases = trajectories(part, fields)
    found = field_statistics(part.files, fields, part.cases, _scaled(problem, fields))
    statistics = {"mean": found.mean, "std": found.std, "increment_std": found.increment_std}
    return statistics, cases.parameters, cases.time.diff(dim=1), tuple(cases.state.shape[3:])


def _describe_map(config: TrainConfig, problem: Problem, part: Part) -> Description:
    pairs = MapCases(part, config.data.inputs, config.data.fields).all()
    scales = problem.scales(pairs.parameters)
    statistics: dict[str, Any] = {}
    for prefix, values, names in (("", pairs.target, config.data.fields), ("input_", pairs.input, config.data.inputs)):
        if names:
            scale = torch.cat([scales[name] for name in names], -1)
            scaled = (values.double().flatten(2) / scale[..., None]).transpose(0, 1).flatten(1)
            statistics[f"{prefix}mean"] = scaled.mean(1).tolist()
            statistics[f"{prefix}std"] = _positive(scaled.std(1)).tolist()
    statistics["increment_std"] = [1.0] * len(statistics["mean"])
    return statistics, pairs.parameters, pairs.interval.unsqueeze(1), tuple(pairs.target.shape[2:])


def _scaled(problem: Problem, fields: list[str]) -> Callable[..., Tensor]:
    """The transform of ``field_statistics``: a state divided by the problem's scales."""

    def transform(state: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        frames = state.shape[1]
        now = {
            name: value[:, :frames] if value.ndim == 2 else value[:, None].expand(-1, frames)
            for name, value in parameters.items()
        }
        scales = problem.scales(now)
        scale = torch.cat([scales[name] for name in fields], 2)
        return state / scale.reshape(*scale.shape, *(1,) * (state.ndim - 3))

    return transform


def _positive(std: Tensor) -> Tensor:
    return torch.where(std > 1e-9, std, torch.ones_like(std))


def count_parameters(module: torch.nn.Module) -> int:
    """Real numbers that are learned."""
    return sum(parameter.numel() for parameter in module.parameters())

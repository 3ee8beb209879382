"""The untrained model of a run: the configured operator in a surrogate with the statistics of the training cases."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sciml.datasets import Collection, field_statistics
from sciml.errors import ConfigError
from sciml.operators import Operator, create_operator
from sciml.operators.base import find_operator
from sciml.problems.base import Problem
from sciml.surrogate import Normaliser, Surrogate, channel_names, observed_ranges, step_conditions
from sciml.surrogate.constraining import Imposed, check_constraints
from sciml.training.config import TrainConfig
from sciml.training.data import MapCases, Part, trajectories
from sciml.training.fine_tuning import group_rates


def build_operator(config: TrainConfig, problem: Problem) -> Operator:
    """The operator that training starts from: untrained, its weights a function of the seed, or pretrained.

    Raises ``ConfigError`` for a wrong name, key or field, for an operator made for another number of dimensions,
    ``CheckpointError`` for pretrained weights that do not fit, and ``DataError`` for a grid that it cannot take:
    mistakes are better met before minutes of generation.
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
    family = find_operator(config.operator.name)
    if problem.dim not in family.dims:
        exists = " and ".join(f"{dim}D" for dim in family.dims)
        raise ConfigError(
            f"the operator {family.name!r} exists in {exists}, the problem {problem.name!r} is in {problem.dim}D here; "
            "choose another operator, or another --dim where the problem has it"
        )
    inputs, outputs = channel_names(problem, config.data.fields, config.data.inputs, config.task)
    # The initial weights are the one draw that layers make from the global generator: seed it, and leave it as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        operator = _made(config, problem, family, inputs, outputs)
    if operator.dim != problem.dim:
        change = "change the operator's arguments (e.g. n_modes, n_sensors, dim)"
        raise ConfigError(
            f"the operator {config.operator.name!r} is for {operator.dim} dimensions, the problem {problem.name!r} has "
            f"{problem.dim}; {change if config.pretrained is None else 'start from other weights'}"
        )
    if config.task.pairs == "all" and not operator.time_conditioning:
        raise ConfigError(
            "task.pairs=all needs an operator that is told the time between the frames: add "
            "operator.time_conditioning=true"
        )
    if operator.temporal > 1 and (config.task.kind != "step" or config.task.pairs == "all"):
        raise ConfigError(
            f"the operator gives {operator.temporal} frames at once (operator.temporal), which goes with steps from "
            "frame to frame (task.kind=step, task.pairs=successive); use operator.temporal=1 here"
        )
    _check_frames(config, operator)
    group_rates(config.optimizer, operator)
    if not config.data.files:
        shape = (1, len(inputs), *problem.grid(config.data.resolution))
        with torch.no_grad():
            operator(
                torch.zeros(shape),
                time=torch.ones(1) if operator.time_conditioning else None,
                parameters=torch.zeros(1, operator.n_parameters) if operator.n_parameters else None,
            )
    return operator


def _check_frames(config: TrainConfig, operator: Operator) -> None:
    """Whether the data that will be generated have the frames that one training sample needs."""
    task, frames = config.task, config.data.frames
    if config.data.files or frames is None or task.kind != "step" or task.pairs == "all":
        return
    unroll = task.unroll or 1
    needed = task.history + operator.temporal * unroll
    if frames < needed:
        at_once = f", {operator.temporal} frames at once (operator.temporal)" if operator.temporal > 1 else ""
        raise ConfigError(
            f"{task.history} frame(s) go in (task.history) and {unroll} step(s) follow (task.unroll){at_once}, which "
            f"needs at least {needed} frames; data.frames is {frames}"
        )


def _made(
    config: TrainConfig, problem: Problem, family: type[Operator], inputs: list[str], outputs: list[str]
) -> Operator:
    """The operator for these channels, from the pretrained weights where the configuration names any."""
    chosen = {key: value for key, value in config.operator.model_dump().items() if key != "name"}
    names = list(problem.condition_names)
    if config.pretrained is not None:
        return family.fine_tuned_from(
            config.pretrained, inputs=inputs, outputs=outputs, parameters=names, options=chosen
        )
    periodic = set(problem.boundaries(config.data.subset).values()) == {"periodic"}
    options = {
        **family.options_for(problem.dim, periodic),
        **family.options_for_names(inputs, outputs, names),
        **chosen,
    }
    return create_operator(
        family.name, in_channels=len(inputs), out_channels=len(outputs), n_parameters=len(names), **options
    )


def build_constraints(config: TrainConfig, problem: Problem) -> list[Imposed]:
    """The configured constraints, tried out on one case.

    Raises ``ConfigError`` for an unknown name or option, for nothing to act on, and for what the problem does not
    declare: mistakes are better met before minutes of generation.
    """
    imposed = [Imposed.from_dict(constraint.model_dump()) for constraint in config.constraints]
    if imposed:
        fields = {field.name: field for field in problem.fields}
        chosen = {name: fields[name] for name in config.data.fields}
        check_constraints(imposed, problem, chosen, problem.grid(config.data.resolution))
    return imposed


def build_surrogate(config: TrainConfig, problem: Problem, operator: Operator, part: Part) -> Surrogate:
    """The operator with the normaliser and the ranges of the training cases.

    The lead time of an operator that wants one is counted in units of the longest in the training data.
    """
    if config.task.kind == "map":
        statistics, parameters, intervals, grid = _describe_map(config, problem, part)
    else:
        statistics, parameters, intervals, grid = _describe_steps(config, problem, part, operator.temporal)
    shortest, longest = float(intervals.min()), float(intervals.max())
    if config.task.pairs == "all":
        longest = float(intervals.sum(1).max())
    time_scale = longest if operator.time_conditioning and not problem.static else None
    conditions = step_conditions(problem, parameters, intervals, time_scale).flatten(0, 1)
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
        time_scale=time_scale,
        pairs=config.task.pairs,
        grid=grid,
        ranges={
            **observed_ranges(problem, parameters, intervals, time_scale),
            "interval": (shortest, longest),
        },
        constraints=build_constraints(config, problem),
        provenance={
            "training cases": len(part.cases),
            "data": ", ".join(str(file) for file in part.files),
            "seed": config.seed,
            "date": datetime.date.today().isoformat(),
        },
    )


Description = tuple[dict[str, Any], dict[str, Tensor], Tensor, tuple[int, ...]]
"""Statistics of the scaled fields, parameters ``(N,)`` or ``(N, steps)``, intervals ``(N, steps)``, the grid."""


def check_steady(parameters: dict[str, Tensor], intervals: Tensor, temporal: int) -> None:
    """Raise ``ConfigError`` for a parameter or an interval ``(N, T)`` that changes within a trajectory: a call that
    gives several frames is told one of each, and training calls start anywhere.
    """
    for name, values in {**parameters, "the interval between frames": intervals}.items():
        if values.ndim == 2 and not torch.allclose(values, values[:, :1].expand_as(values), rtol=1e-6, atol=0):
            raise ConfigError(
                f"{name} changes within a training trajectory, but the operator gives {temporal} frames at once "
                "(operator.temporal) and is told one value: leave such cases out, or use operator.temporal=1"
            )


def _describe_steps(config: TrainConfig, problem: Problem, part: Part, temporal: int) -> Description:
    fields = config.data.fields
    cases = trajectories(part, fields)
    found = field_statistics(part.files, fields, part.cases, _scaled(problem, fields), cells=_cells(problem, part))
    if temporal > 1:
        check_steady(cases.parameters, cases.time.diff(dim=1), temporal)
    statistics = {"mean": found.mean, "std": found.std, "increment_std": found.increment_std}
    if config.task.pairs == "all" and config.task.target == "increment":
        statistics["increment_std"] = _pair_increments(problem, fields, part)
    return statistics, cases.parameters, cases.time.diff(dim=1), tuple(cases.state.shape[3:])


def _pair_increments(problem: Problem, fields: list[str], part: Part) -> list[float]:
    """Standard deviation of the scaled difference between two frames of a trajectory, over all pairs i < j.

    With T frames ``x_i`` of mean m: the sum of ``(x_j - x_i)^2`` over the pairs is ``T sum (x_i - m)^2``, that of
    ``x_j - x_i`` is ``sum (2 i - T + 1) x_i``. One case in memory at a time.
    """
    source, transform, cells = Collection(part.files), _scaled(problem, fields), _cells(problem, part)
    channels = [c for name in fields for c in range(source.info.n_channels)[source.info.channels(name)]]
    count, total, squares = 0, torch.zeros(len(channels)).double(), torch.zeros(len(channels)).double()
    for case, file, local in zip(part.cases, *source.locate(part.cases), strict=True):
        state = source.files[file].state([local])[:, :, channels].double()
        frames = transform(state, source.parameters([case]))[0].flatten(2)
        if cells is not None:
            frames = frames[:, :, cells(source.parameters([case]))[0].flatten()]
        n = len(frames)
        order = 2 * torch.arange(n, dtype=torch.float64) - n + 1
        count += n * (n - 1) // 2 * frames.shape[2]
        total += torch.einsum("t,tcx->c", order, frames)
        squares += n * (frames - frames.mean(0)).square().sum((0, 2))
    variance = squares / count - (total / count) ** 2
    return _positive(variance.clamp(min=0).sqrt()).tolist()


def _describe_map(config: TrainConfig, problem: Problem, part: Part) -> Description:
    pairs = MapCases(part, config.data.inputs, config.data.fields).all()
    scales = problem.scales(pairs.parameters)
    statistics: dict[str, Any] = {}
    fluid = problem.fluid_cells(pairs.parameters, tuple(pairs.target.shape[2:]))
    for prefix, values, names in (("", pairs.target, config.data.fields), ("input_", pairs.input, config.data.inputs)):
        if names:
            scale = torch.cat([scales[name] for name in names], -1)
            scaled = (values.double().flatten(2) / scale[..., None]).transpose(0, 1).flatten(1)
            scaled = scaled if fluid is None else scaled[:, fluid.flatten()]
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


def _cells(problem: Problem, part: Part) -> Callable[[dict[str, Tensor]], Tensor] | None:
    """The ``cells`` of ``field_statistics``: those in the fluid; None for a problem without obstacles."""
    if not problem.geometry_fields:
        return None
    grid = Collection(part.files).info.grid

    def cells(parameters: dict[str, Tensor]) -> Tensor:
        now = {name: value[:, 0] if value.ndim == 2 else value for name, value in parameters.items()}
        fluid = problem.fluid_cells(now, grid)
        assert fluid is not None
        return fluid

    return cells


def _positive(std: Tensor) -> Tensor:
    return torch.where(std > 1e-9, std, torch.ones_like(std))


def count_parameters(module: torch.nn.Module) -> int:
    """Real numbers that are learned."""
    return sum(parameter.numel() for parameter in module.parameters())

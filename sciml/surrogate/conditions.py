"""What an operator is conditioned on at each step, its range over the training cases, and the names of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.problems.base import Problem


def at_time(values: Mapping[str, Tensor], index: int, steps: int) -> dict[str, Tensor]:
    """The parameters ``(B,)`` acting on step ``index``; those of shape (B, T) must cover all ``steps``."""
    now = {}
    for name, value in values.items():
        if value.ndim == 2:
            if value.shape[1] < steps:
                raise ConfigError(f"parameter {name!r} is given for {value.shape[1]} steps; {steps} are asked for")
            value = value[:, index]
        now[name] = value
    return now


def check_blocks(values: Mapping[str, Tensor], intervals: Tensor, temporal: int) -> None:
    """Raise ``ConfigError`` if a parameter ``(B, T)`` or the interval ``(B, T)`` changes among the ``temporal`` frames
    that one call gives.
    """
    if temporal == 1:
        return
    for name, value in {**values, "the interval between frames": intervals}.items():
        if value.ndim == 2:
            blocks = value.split(temporal, 1)
            if any(not torch.allclose(block, block[:, :1].expand_as(block), rtol=1e-6, atol=0) for block in blocks):
                raise ConfigError(
                    f"{name} changes among the {temporal} frames that one call of this operator gives (temporal); let "
                    f"it change every {temporal} frames only, or use an operator with temporal=1"
                )


def reference_interval(interval: Tensor, time_scale: float | None) -> Tensor:
    """The interval that conditions are taken at: the step's own, or ``time_scale`` where that is given."""
    return interval if time_scale is None else torch.full_like(interval, time_scale, dtype=torch.float64)


def step_conditions(
    problem: Problem, values: Mapping[str, Tensor], intervals: Tensor, time_scale: float | None = None
) -> Tensor:
    """Dimensionless conditions ``(N, steps, P)`` of every case and step, ``intervals (N, steps)`` in seconds.

    All of them at ``time_scale`` where that is given, as a surrogate with lead time has them.
    """
    steps = intervals.shape[1]
    reference = reference_interval(intervals, time_scale)
    return torch.stack([problem.conditions(at_time(values, t, steps), reference[:, t]) for t in range(steps)], 1)


def observed_ranges(
    problem: Problem,
    values: Mapping[str, Tensor],
    intervals: Tensor,
    time_scale: float | None = None,
) -> dict[str, tuple[float, float]]:
    """Least and greatest parameter, interval and dimensionless condition over all cases and steps.

    ``time_scale``: as ``step_conditions``.
    """
    physical = {name: value for name, value in values.items() if name not in problem.draw_names}
    observed = {name: (float(value.min()), float(value.max())) for name, value in physical.items()}
    observed["interval"] = (float(intervals.min()), float(intervals.max()))
    conditions = step_conditions(problem, values, intervals, time_scale).flatten(0, 1)
    for column, name in enumerate(problem.condition_names):
        observed[name] = (float(conditions[:, column].min()), float(conditions[:, column].max()))
    return observed


def channel_names(
    problem: Problem, fields: Sequence[str], inputs: Sequence[str], task: Any
) -> tuple[list[str], list[str]]:
    """Names of the channels that the operator of a surrogate reads, and of those that it predicts.

    It reads the history of a step, the inputs of a map (with ``distance``, that to the nearest point, where it reads
    points), or the constant ``one`` for a map of the parameters alone; after these the ``geometry_channels`` of a
    problem with obstacles. A scalar is called by its name, a component of a vector ``velocity_x``; earlier frames end
    in ``_before1`` (one frame earlier), ``_before2`` ...

    ``task`` has ``kind``, ``history`` and ``points`` (the section of the training configuration).
    """
    sizes = {field.name: field.components for field in problem.fields}

    def components(names: Sequence[str]) -> list[str]:
        return [
            channel
            for name in names
            for channel in ([name] if sizes[name] == 1 else [f"{name}_{axis}" for axis in "xyz"[: sizes[name]]])
        ]

    predicted, geometry = components(fields), problem.geometry_channels
    if task.kind != "map":
        before = [f"{name}_before{frames}" for frames in range(task.history - 1, 0, -1) for name in predicted]
        return [*before, *predicted, *geometry], predicted
    if not inputs:
        return ["one", *geometry], predicted
    return [*components(inputs), *["distance"] * (task.points is not None), *geometry], predicted

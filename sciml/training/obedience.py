"""How far predictions are from the constraints: before they are imposed, after, along rollouts, and the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciml.constraints import CONSTRAINTS, Constraint, create_constraint, labels, residuals
from sciml.surrogate import Surrogate, at_time
from sciml.surrogate.constraining import constraint_context
from sciml.training.data import Pairs, Trajectories

CHUNK = 16
"""Cases looked at together."""


class Largest:
    """The largest residual so far of each constraint in each kind of field (``before``, ``after`` ...)."""

    def __init__(self, surrogate: Surrogate) -> None:
        self.surrogate = surrogate
        self.constraints = watched(surrogate)
        self.found: dict[str, dict[str, float]] = {}

    def look(
        self,
        kind: str,
        fields: Tensor,
        parameters: Mapping[str, Tensor],
        before: Tensor | None = None,
        interval: Tensor | None = None,
    ) -> None:
        """Take ``fields (B, C, *grid)`` into account."""
        context = constraint_context(self.surrogate, parameters, tuple(fields.shape[2:]), before, interval)
        for name, values in residuals(self.constraints, fields, context).items():
            row = self.found.setdefault(name, {})
            row[kind] = max(row.get(kind, 0.0), float(values.max()))

    def rows(self) -> list[dict[str, Any]]:
        """One row for each constraint: its name, when it is imposed (``no``: never), the largest residuals."""
        when = [imposed.when for imposed in self.surrogate.imposed]
        when += ["no"] * (len(self.constraints) - len(when))
        names = labels(self.constraints)
        return [
            {"constraint": name, "imposed": time, **self.found.get(name, {})}
            for name, time in zip(names, when, strict=True)
        ]


def watched(surrogate: Surrogate) -> list[Constraint]:
    """The imposed constraints, and those that the problem's true fields obey although they are not imposed."""
    constraints = [imposed.constraint for imposed in surrogate.imposed]
    free = surrogate.problem.divergence_free and "velocity" in surrogate.fields
    if free and "divergence-free" in CONSTRAINTS and not any(c.name == "divergence-free" for c in constraints):
        constraints.append(create_constraint("divergence-free"))
    return constraints


@torch.no_grad()
def of_steps(surrogate: Surrogate, one_step: Tensor, rollout: Tensor, data: Trajectories) -> list[dict[str, Any]]:
    """The table of a surrogate that steps; ``one_step``, ``rollout (N, T, C, *grid)`` end at the last frame."""
    largest = Largest(surrogate)
    if not largest.constraints:
        return []
    frames = data.state.shape[1]
    first = frames - one_step.shape[1]
    device = surrogate.normaliser.mean.device
    for start in range(0, len(data.state), CHUNK):
        part = slice(start, start + CHUNK)
        parameters = {name: values[part] for name, values in data.parameters.items()}
        state, time = data.state[part], data.time[part]
        for frame in range(first, frames):
            now = at_time(parameters, frame - 1, frames - 1)
            interval = time[:, frame] - time[:, frame - 1]
            window = state[:, frame - surrogate.history : frame].to(device)
            raw = surrogate.denormalise(*surrogate.unconstrained(window, now, interval)).cpu()
            index = frame - first
            last = state[:, frame - 1]
            largest.look("before", raw, now, last, interval)
            largest.look("after", one_step[part, index], now, last, interval)
            along = rollout[part, index - 1] if index else last
            largest.look("rollout", rollout[part, index], now, along, interval)
            largest.look("truth", state[:, frame], now, last, interval)
    return largest.rows()


@torch.no_grad()
def of_map(surrogate: Surrogate, raw: Tensor, made: Tensor, data: Pairs) -> list[dict[str, Any]]:
    """The table of a map, from its outputs before and after, ``(N, C, *grid)``."""
    largest = Largest(surrogate)
    if not largest.constraints:
        return []
    for start in range(0, len(made), CHUNK):
        part = slice(start, start + CHUNK)
        now = {name: values[part] for name, values in data.parameters.items()}
        for kind, fields in (("before", raw), ("after", made), ("truth", data.target)):
            largest.look(kind, fields[part], now, None, data.interval[part])
    return largest.rows()

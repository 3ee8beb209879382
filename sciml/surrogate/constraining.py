"""Constraints on a surrogate's predictions: which, when, and what they are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from sciml.constraints import Constraint, Context, create_constraint, impose
from sciml.errors import ConfigError, did_you_mean
from sciml.problems.base import Problem

if TYPE_CHECKING:
    from sciml.surrogate.surrogate import Surrogate

When = Literal["both", "training", "evaluation"]


@dataclass(frozen=True)
class Imposed:
    """A constraint, and when it acts: in training, in evaluation (which is the use of a trained surrogate), or both."""

    constraint: Constraint
    when: When = "both"

    def __post_init__(self) -> None:
        if self.when not in get_args(When):
            raise ConfigError(
                f"a constraint acts when={self.when!r}; expected one of {', '.join(get_args(When))}"
                f"{did_you_mean(str(self.when), get_args(When))}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Name, time and options, for ``surrogate.json``."""
        return {"name": self.constraint.name, "when": self.when, **self.constraint.options}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Imposed:
        """The inverse of ``as_dict``. Raises ``ConfigError`` for an unknown name or option."""
        options = {key: value for key, value in values.items() if key not in ("name", "when")}
        return cls(create_constraint(values["name"], **options), values.get("when", "both"))


def channel_slices(fields: Mapping[str, Any]) -> dict[str, slice]:
    """The channels of each field (with ``components``), in order."""
    slices, start = {}, 0
    for name, field in fields.items():
        slices[name] = slice(start, start + field.components)
        start += field.components
    return slices


def check_constraints(
    imposed: Sequence[Imposed], problem: Problem, fields: Mapping[str, Any], grid: Sequence[int]
) -> None:
    """Raise ``ConfigError`` for constraints that cannot be imposed on these fields of the problem.

    Those with nothing to act on, that true fields of the problem do not obey, that need what it does not declare,
    or that leave every field as it is; the latter are found by imposing them on one field of noise.
    """
    check_applies(imposed, problem, fields)
    for each in imposed:
        if each.constraint.name == "divergence-free" and not problem.divergence_free:
            where = " on the cells beside its obstacles" if problem.geometry_fields else ""
            raise ConfigError(
                f"the velocity of problem {problem.name!r} is not divergence-free{where}: leave the constraint out"
            )
    sample = problem.sample(1, seed=0, resolution=min(grid))
    now = {name: value[:, 0] if value.ndim == 2 else value for name, value in sample.parameters.items()}
    shape = (1, sum(field.components for field in fields.values()), *grid)
    before, noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    context = problem_context(problem, fields, now, grid, before, torch.full((1,), problem.frame_interval))
    for each in imposed:
        if torch.equal(each.constraint(noise, context), noise):
            raise ConfigError(
                f"the constraint {each.constraint.name!r} leaves every field of problem {problem.name!r} as it is (all "
                "sides are periodic, say): leave it out"
            )
    impose([each.constraint for each in imposed], noise, context)


def check_applies(imposed: Sequence[Imposed], problem: Problem, fields: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` for a constraint with nothing to act on among these fields."""
    channels = channel_slices(fields)
    for each in imposed:
        if not each.constraint.applies(channels):
            raise ConfigError(
                f"the constraint {each.constraint.name!r} has nothing to act on among the predicted fields "
                f"{', '.join(channels)} of problem {problem.name!r}"
            )


def problem_context(
    problem: Problem,
    fields: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    grid: Sequence[int],
    before: Tensor | None = None,
    interval: Tensor | None = None,
) -> Context:
    """What the problem declares of the surroundings of its ``fields``, for parameters ``(B,)``."""
    values = {name: torch.as_tensor(value) for name, value in parameters.items()}
    return Context(
        grid=problem.physics_grid(values, grid),
        channels=channel_slices(fields),
        boundaries=problem.conditions_on_sides(values, grid),
        fluid=problem.fluid_cells(values, grid),
        corners=problem.corners,
        before=before,
        interval=interval,
        parameters=values,
    )


def constraint_context(
    surrogate: Surrogate,
    parameters: Mapping[str, Tensor],
    grid: Sequence[int],
    before: Tensor | None,
    interval: Tensor | None,
) -> Context:
    """The surroundings of a surrogate's prediction."""
    return problem_context(surrogate.problem, surrogate.fields, parameters, grid, before, interval)

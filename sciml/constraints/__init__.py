"""Layers that make an output obey: exactly for linear constraints, to a reported residual for others.

from sciml.constraints import Constrained, Context, DivergenceFree

model = Constrained(operator, [DivergenceFree()])
velocity = model(x, context=Context(grid, {"velocity": slice(0, 2)}, {"velocity": walls}))

``CONSTRAINTS`` is the whole registry of those that a training run can impose by name.
"""

import inspect
from typing import Any

from sciml.constraints.base import Constraint, Context
from sciml.constraints.composition import Constrained, impose, labels, project_together, residuals
from sciml.errors import ConfigError, did_you_mean

CONSTRAINTS: dict[str, type[Constraint]] = {}


def create_constraint(name: str, **options: Any) -> Constraint:
    """A constraint by its registered name, e.g. ``create_constraint("divergence-free", method="mac")``.

    Raises ``ConfigError`` for an unknown name or option.
    """
    if name not in CONSTRAINTS:
        raise ConfigError(f"unknown constraint {name!r}{did_you_mean(name, CONSTRAINTS)}")
    kind = CONSTRAINTS[name]
    known = [key for key in inspect.signature(kind.__init__).parameters if key != "self"]
    for key in options:
        if key not in known:
            raise ConfigError(f"constraint {name!r} has no option {key!r}{did_you_mean(key, known)}")
    return kind(**options)


__all__ = [
    "CONSTRAINTS",
    "Constrained",
    "Constraint",
    "Context",
    "create_constraint",
    "impose",
    "labels",
    "project_together",
    "residuals",
]

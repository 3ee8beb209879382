"""Layers that make an output obey: exactly for linear constraints, to a reported residual for others.

from sciml.constraints import Constrained, Context, DivergenceFree

model = Constrained(operator, [DivergenceFree()])
velocity = model(x, context=Context(grid, {"velocity": slice(0, 2)}, {"velocity": walls}))

``CONSTRAINTS`` is the whole registry of those that a training run can impose by name. Others change what an operator's
output means (``FluxForm``, ``StreamFunction``, ``MixtureOfExpertsConstraint``), and go around one in code.
"""

import inspect
from typing import Any

from sciml.constraints.base import Constraint, Context
from sciml.constraints.boundary_values import BoundaryValues
from sciml.constraints.composition import Constrained, impose, labels, project_together, residuals
from sciml.constraints.conservation import AffineProjection, FluxForm, LinearConservation, gaussian_update
from sciml.constraints.divergence_free import DivergenceFree
from sciml.errors import ConfigError, did_you_mean

CONSTRAINTS: dict[str, type[Constraint]] = {
    "boundary-values": BoundaryValues,
    "conservation": LinearConservation,
    "divergence-free": DivergenceFree,
}


def create_constraint(name: str, **options: Any) -> Constraint:
    """A constraint by its registered name, e.g. ``create_constraint("divergence-free", method="mac")``.

    Raises ``ConfigError`` for an unknown name or option.
    """
    if name not in CONSTRAINTS:
        raise ConfigError(f"unknown constraint {name!r}{did_you_mean(name, CONSTRAINTS)}")
    kind = CONSTRAINTS[name]
    arguments = {key: value for key, value in inspect.signature(kind.__init__).parameters.items() if key != "self"}
    known = list(arguments)
    for key in options:
        if key not in known:
            raise ConfigError(f"constraint {name!r} has no option {key!r}{did_you_mean(key, known)}")
    for key, argument in arguments.items():
        if argument.default is inspect.Parameter.empty and key not in options:
            raise ConfigError(f"constraint {name!r} needs the option {key!r}")
    return kind(**options)


__all__ = [
    "CONSTRAINTS",
    "AffineProjection",
    "BoundaryValues",
    "Constrained",
    "Constraint",
    "Context",
    "DivergenceFree",
    "FluxForm",
    "LinearConservation",
    "create_constraint",
    "gaussian_update",
    "impose",
    "labels",
    "project_together",
    "residuals",
]

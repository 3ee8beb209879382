"""Weak form of the viscous Burgers equation u_t + u u_x = nu u_xx in one dimension, in time."""

from __future__ import annotations

from sciml.errors import ConfigError
from sciml.physics.weak.time_slices import TimeSlices
from sciml.physics.weak.weak_form import WeakForm


def burgers_form(space: TimeSlices, viscosity: float) -> WeakForm:
    """int u_t v + (nu u_x - u^2 / 2) v_x dx = 0 at each time, of the field u ``(B, 1, Q)``.

    The gradient of the field is (u_x, u_t). The advection is integrated by parts, so u may be as rough as its
    gradient is square integrable. Raises ``ConfigError`` for a space of more than one dimension and a negative
    viscosity.
    """
    if not isinstance(space, TimeSlices) or space.dim != 1:
        raise ConfigError("the Burgers form is one in time and one space dimension; give TimeSlices of a 1D space")
    if not viscosity >= 0:
        raise ConfigError(f"the viscosity is {viscosity}; expected 0 or a positive number")
    return WeakForm(
        space,
        flux=lambda x, value, gradient, _: viscosity * gradient[:, 0, :, :1] - value[:, 0, :, None].square() / 2,
        source=lambda x, value, gradient, _: gradient[:, 0, :, 1],
    )

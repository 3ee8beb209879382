"""What a user carries away: an operator with its normaliser, units and range of validity.

    surrogate = sciml.load("runs/cavity/unet/.../surrogate")
    state = surrogate.step(state, parameters)
    trajectory = surrogate.rollout(state, parameters, steps=20)

One step travels: physical state -> divided by the problem's scales -> standardised -> operator(conditions, lead time)
-> increment or state -> back to physical units. Training differentiates through exactly this path. A surrogate of kind
"map" takes the same path from its input fields (or their values at scattered points) to its output fields:

    pressure = surrogate.solve({"permeability": a}, parameters)

A surrogate of kind "trajectory" (``TrajectorySurrogate``) was trained without data and gives whole solutions:

    fields = surrogate.solve(parameters)
"""

from sciml.surrogate.conditions import at_time, channel_names, observed_ranges, step_conditions
from sciml.surrogate.normaliser import Normaliser
from sciml.surrogate.ranges import OutOfRangeWarning
from sciml.surrogate.storage import load, model_card
from sciml.surrogate.surrogate import Surrogate
from sciml.surrogate.trajectory import TrajectorySurrogate

__all__ = [
    "Normaliser",
    "OutOfRangeWarning",
    "Surrogate",
    "TrajectorySurrogate",
    "at_time",
    "channel_names",
    "load",
    "model_card",
    "observed_ranges",
    "step_conditions",
]

"""What flows past a body and flows with a free surface are shown as."""

from collections.abc import Mapping
from typing import Any

from sciml.plotting.curl import Array, vorticity
from sciml.plotting.looks import LIQUID, PLAIN, WAKE, Look

AS_VORTICITY = ("cylinder",)
"""Flows whose velocity is also shown as its vorticity, and animated as such."""
LOOKS: Mapping[tuple[str, str], Look] = {
    ("dam", "volume_fraction"): LIQUID,
    ("two_phase_tube", "volume_fraction"): LIQUID,
}
"""Problem and field -> how it is drawn, where it is not plain."""
FROM_FIELDS = {"cylinder": "by a balance of momentum", "dam": "summed up", "two_phase_tube": "summed up"}
"""How the series of a problem follow from its fields."""
ARROWS = ("superficial_velocity",)
"""Fields that are drawn as arrows over a volume fraction."""


def look_of(problem: str, field: str) -> Look:
    """How a field of a problem is drawn."""
    return LOOKS.get((problem, field), PLAIN)


def has_vorticity(problem: str, field: str, values: Array) -> bool:
    """Whether ``values (frames, components, *grid)`` are a plane velocity that is shown as its vorticity."""
    return problem in AS_VORTICITY and field == "velocity" and values.ndim == 4 and values.shape[1] == 2


def as_vorticity(velocity: Array, unit: str, **box: Any) -> tuple[Array, dict[str, Any]]:
    """The vorticity ``(frames, nx, ny)`` of a velocity, and the options that name and colour it; ``box``: its
    ``width``, ``height`` and ``fluid``.
    """
    return vorticity(velocity, **box), {"name": "vorticity", "unit": "1/s" if unit == "m/s" else "", "look": WAKE}

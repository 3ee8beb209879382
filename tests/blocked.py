"""A problem with an obstacle for tests: cavity flow that is blanked inside a block, whose place is a parameter.

Not a flow around a block: what is tested is how the geometry travels, not the physics.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sciml.problems import PROBLEMS
from sciml.problems.base import FLUID, SIGNED_DISTANCE
from sciml.problems.cases import Parameter
from sciml.problems.cavity import Cavity
from sciml.problems.draws import uniform

HALF = 0.15
"""Half the side of the block, in widths of the box."""
BIAS = 1.1
"""What the estimate of the series from the fields is off by."""


class Blocked(Cavity):
    """``block``: the centre of the block along x, in widths; along y it is in the middle, at ``up`` heights."""

    up = 0.5

    name = "blocked"
    title = "Cavity with a block"
    divergence_free = False
    geometry_fields = (FLUID, SIGNED_DISTANCE)
    series = {"push": "m/s", "swing": "1"}  # noqa: RUF012
    parameters = (*Cavity.parameters, Parameter("block", "1", "centre of the block along x, in widths"))

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        return {**super().draw(subset, generator, resolution), "block": uniform(generator, 0.3, 0.7)}

    def geometry(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, Tensor]:
        centres = self.coordinates(parameters, shape)
        width, height = self.lengths(parameters).double().unbind(1)
        across = (centres["x"] - (torch.as_tensor(parameters["block"]) * width)[:, None]).abs() - HALF * width[:, None]
        up = (centres["y"] - self.up * height[:, None]).abs() - HALF * width[:, None]
        distance = torch.maximum(across[:, :, None], up[:, None, :]).unsqueeze(1)
        return {"fluid": (distance > 0).float(), "signed_distance": distance.float()}

    def solve(self, parameters: Any, resolution: Any = None, times: Any = None, **options: Any) -> dict[str, Tensor]:
        values = self.as_parameters(parameters)
        block = {name: value for name, value in values.items() if name != "block"}
        found = Cavity().solve(block, resolution, times, **options)
        shape = tuple(found["pressure"].shape[3:])
        geometry = self.geometry({n: v[:, 0] if v.ndim > 1 else v for n, v in values.items()}, shape)
        for name in ("velocity", "pressure"):
            found[name] = found[name] * geometry["fluid"][:, None]
        period = found["time"][:, -1:] / 2
        push = {"push": _push(found["velocity"]), "swing": torch.sin(2 * torch.pi * found["time"] / period)}
        return {**found, **geometry, **push}

    def diagnose(self, frames: Mapping[str, Tensor], parameters: Mapping[str, Tensor], time: Tensor) -> Any:
        return {"push": BIAS * _push(frames["velocity"])}

    def cost(self, parameters: Any, times: Tensor, resolution: int = 64) -> Tensor:
        return Cavity().cost({n: v for n, v in parameters.items() if n != "block"}, times, resolution)


class Standing(Blocked):
    """The block stands on the floor."""

    up = 0.0


def _push(velocity: Tensor) -> Tensor:
    return velocity[:, :, 0].double().mean((2, 3))


@contextmanager
def registered() -> Iterator[None]:
    """``"blocked"`` is a problem like the others inside."""
    PROBLEMS["blocked"] = Blocked
    try:
        yield
    finally:
        del PROBLEMS["blocked"]

"""A liquid pushed into a channel full of gas: CFDBench's tube as it was simulated, with a front that moves along.

The same cases as ``tube``, which is the flow after the channel has filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sciml.problems import two_phase
from sciml.problems.base import as_times, detached
from sciml.problems.cases import ParameterValues
from sciml.problems.draws import uniform
from sciml.problems.recipes import operator_options
from sciml.problems.tube import HEIGHT, Tube

if TYPE_CHECKING:
    from sciml.solvers.two_phase.solver import PressureWay

OPERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"patch_size": 2, "hidden_channels": [32, 64, 96]},
    "fno": {"patch_size": 2, "n_modes": [15, 7], "hidden_channels": 32},
}
"""Constructor arguments of the operators in the default recipe."""


class TwoPhaseTube(Tube):
    """Liquid enters a channel of gas at the left, over the whole height, and pushes the gas out at the right.

    Gravity acts across the channel, so that a slow front leans over; with ``gravity`` 0 it stays upright.
    """

    name = "two_phase_tube"
    title = "Liquid pushed into a channel of gas"
    divergence_free = False
    first_frame = 0
    learned: ClassVar[tuple[str, ...]] = two_phase.LEARNED
    solver = two_phase.SOLVER
    corners = ""
    fields = two_phase.FIELDS
    face_fields = two_phase.FACE_FIELDS
    series: ClassVar[Mapping[str, str]] = {"liquid_volume": "m^3/m"}
    parameters = (*Tube.parameters, *two_phase.GAS)
    condition_names = (*Tube.condition_names, "log_froude")
    lookup_weights = (*Tube.lookup_weights, 1.0)

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """As ``tube``, the inlet speed of ``bc`` uniform in 0.2..2 m/s: a slower front leaves the frames unfinished, a
        faster one has left the channel after a few.
        """
        case = super().draw(subset, generator, resolution)
        if subset == "bc":
            fastest = min(2.0, 0.25 * resolution**2 * 1e-3 / HEIGHT)
            case["inlet_velocity"] = uniform(generator, 0.2, fastest)
        return case

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 32) -> Tensor:
        """Cells that the liquid crosses, ``(B,)``."""
        values = self.as_parameters(parameters)
        speed = values["inlet_velocity"] + (values["gravity"] * values["height"]).sqrt()
        return (times[:, -1] - times[:, 0]) * speed * self.grid(resolution)[0] / values["length"]

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        pressure: PressureWay = "direct",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Solve for liquid and gas from a channel of gas at rest.

        Options and what is returned as of ``Dam.solve``, without geometry. Raises ``ConfigError`` for bad parameters or
        times, ``SolverError`` for a Reynolds number or a length that the grid cannot resolve.
        """
        from sciml.solvers.two_phase import Inlet, Open, Wall

        shape = self.grid(resolution)
        values = detached(self.as_parameters(parameters))
        two_phase.steady_parameters(values)
        times = self.frame_times(values) if times is None else as_times(times, len(values["density"]))
        self.check_resolved(values, shape)
        speed = values["inlet_velocity"].unsqueeze(1).expand(-1, shape[1])
        return two_phase.solve(
            values,
            times,
            self.lengths(values),
            torch.zeros(len(speed), *shape, dtype=torch.float64),
            {"x_low": Inlet(speed), "x_high": Open(), "y_low": Wall(), "y_high": Wall()},
            pressure=pressure,
            dtype=dtype,
            device=device,
        )

    def diagnose(self, frames: Mapping[str, Tensor], parameters: ParameterValues, time: Tensor) -> dict[str, Tensor]:
        """``liquid_volume (B, T)`` from the volume fraction."""
        values = detached(self.as_parameters(parameters, len(frames["volume_fraction"])))
        return two_phase.diagnosed_volume(frames, self.lengths(values))

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``continuity``: divergence of the face velocities in 1/s, ``((B, T, nx, ny),)``."""
        values = self.as_parameters(parameters, trajectory["face_velocity_x"].shape[0])
        return {"continuity": (two_phase.continuity(trajectory, self.lengths(values)),)}

    def conditions_on_sides(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Of the velocity as in ``tube``; of the learned fields nothing is prescribed."""
        return {}

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Velocities: V = sqrt(U^2 + g H); pressure: rho V^2."""
        speed = (parameters["inlet_velocity"] ** 2 + parameters["gravity"] * parameters["height"]).sqrt()
        return two_phase.scales(speed, parameters["density"])

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """Those of ``tube``, and ``log(U / V)`` with V = sqrt(U^2 + g H)."""
        speed, height = parameters["inlet_velocity"], parameters["height"]
        whole = (speed**2 + parameters["gravity"] * height).sqrt()
        return torch.cat([super().conditions(parameters, interval), (speed / whole).log().unsqueeze(-1)], -1)

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem two_phase_tube``."""
        name = operator or "unet"
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS, self.grid())},
            "data": {"cases": {"train": 48, "validation": 6, "test": 9}},
            "task": {"unroll": 4, "unroll_from": 0.5},
            "optimizer": {"method": "soap", "learning_rate": 3e-3},
            "budget": {"minutes": 6.0},
        }

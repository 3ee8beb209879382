"""Water that enters a channel below a barrier's height, piles up and falls over it; air above, the top open.

Subsets follow CFDBench's dam (bc: inlet speed; prop: density and viscosity of the liquid; geo: height and width of the
barrier), inside its parameter ranges. How its open sides and its first frame were set could not be verified: here the
lower part of the left side is the inlet, the rest of it a wall, the top and the right side are open, and a block of
liquid as high as the inlet stands at it at time 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sciml.errors import SolverError
from sciml.problems import two_phase
from sciml.problems.bands import BandedProblem
from sciml.problems.base import FLUID, SIGNED_DISTANCE, as_times, detached
from sciml.problems.cases import Parameter, ParameterValues, Sample
from sciml.problems.draws import log_uniform, uniform
from sciml.problems.recipes import operator_options

if TYPE_CHECKING:
    from sciml.solvers.two_phase.solver import PressureWay

LENGTH, HEIGHT, INLET_HEIGHT = 1.5, 0.4, 0.1
BARRIER_AT, BARRIER_HEIGHT, BARRIER_WIDTH = 0.5, 0.12, 0.05
"""The barrier's side towards the inlet, and the base case's sizes."""
HEIGHTS, WIDTHS = (0.11, 0.15), (0.02, 0.1)
"""Of the barriers of the subset ``geo``."""
RESERVOIR = 0.1
"""Length of the block of liquid at the inlet at time 0."""

REYNOLDS = (10.0, 2000.0)
FROUDE_BAND = (0.8, 1.0)
BARRIER_BAND = (0.125, 0.135)
"""Speed over the root of gravity times inlet height, and height of the barrier; held out by ``extrapolate``."""

OPERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"patch_size": 2, "hidden_channels": [32, 64, 96]},
    "fno": {"patch_size": 2, "n_modes": [15, 7], "hidden_channels": 32},
}
"""Constructor arguments of the operators in the default recipe."""


class Dam(BandedProblem):
    """A liquid that flows in at the lower left of a channel and over a barrier on its floor.

    All fields are 0 in the barrier, which covers the cells whose centre lies in it.
    """

    name = "dam"
    title = "Water over a barrier"
    learned: ClassVar[tuple[str, ...]] = two_phase.LEARNED
    resolution = 32
    frames: ClassVar[int] = 41
    frame_interval = 0.05
    group: ClassVar[int] = 8
    solver = two_phase.SOLVER
    boundary_parameters: ClassVar[Mapping[str, str]] = {"x_low": "inlet_velocity"}
    fields = two_phase.FIELDS
    face_fields = two_phase.FACE_FIELDS
    geometry_fields = (FLUID, SIGNED_DISTANCE)
    series: ClassVar[Mapping[str, str]] = {"liquid_volume": "m^3/m"}
    parameters = (
        Parameter("inlet_velocity", "m/s", "speed at which liquid enters, in +x"),
        Parameter("density", "kg/m^3", "density of the liquid"),
        Parameter("viscosity", "Pa s", "dynamic viscosity of the liquid"),
        Parameter("barrier_height", "m", "height of the barrier"),
        Parameter("barrier_width", "m", "width of the barrier, along x"),
        Parameter("barrier_at", "m", "where the barrier begins", default=BARRIER_AT),
        Parameter("inlet_height", "m", "height up to which liquid enters", default=INLET_HEIGHT),
        Parameter("length", "m", "length of the channel (x)", default=LENGTH),
        Parameter("height", "m", "height of the channel (y)", default=HEIGHT),
        *two_phase.GAS,
    )
    subsets = ("bc", "prop", "geo")
    hard_subsets = ("froude_band", "barrier_band")
    bands: ClassVar[Mapping[str, tuple[float, float]]] = {"froude_band": FROUDE_BAND, "barrier_band": BARRIER_BAND}
    band_subsets: ClassVar[Mapping[str, tuple[str, ...]]] = {"froude_band": ("bc",), "barrier_band": ("geo",)}
    condition_names = ("log_reynolds", "log_interval", "log_froude", "height_over_inlet", "width_over_inlet")
    lookup_weights = (0.5, 1.0, 1.0, 1.0, 1.0)

    def sample(
        self, n: int, subset: str = "all", seed: int = 0, resolution: int | None = None, frames: int | None = None
    ) -> Sample:
        """Draw ``n`` cases of a subset, of ``all`` (these in turn), of a band, or ``outside`` of both.

        Raises ``SolverError`` for a resolution whose cells are wider than the thinnest barrier of the subset.
        """
        self.check_subset(n, subset)
        over = self.grid(resolution)[1]
        thinnest = BARRIER_WIDTH if subset in ("bc", "prop", "froude_band") else WIDTHS[0]
        if HEIGHT / over > thinnest * (1 + 1e-9):
            raise SolverError(
                f"resolution {over} has cells {HEIGHT / over:.3g} m wide, the thinnest barrier of {subset!r} is "
                f"{thinnest} m: use a resolution of at least {math.ceil(HEIGHT / thinnest)}"
            )
        return super().sample(n, subset, seed, over, frames)

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """One case. ``bc``: inlet speed uniform in 0.2..2 m/s; ``prop``: density log-uniform in 10..1000 kg/m^3,
        Reynolds number on the inlet's height log-uniform in 10..2000, which sets the viscosity; ``geo``: height of
        the barrier uniform in 0.11..0.15 m, width in 0.02..0.1 m.
        """
        case = {
            "inlet_velocity": 1.0,
            "density": 100.0,
            "viscosity": 0.1,
            "barrier_height": BARRIER_HEIGHT,
            "barrier_width": BARRIER_WIDTH,
        }
        if subset == "bc":
            case["inlet_velocity"] = uniform(generator, 0.2, 2.0)
        elif subset == "prop":
            case["density"] = log_uniform(generator, 10.0, 1000.0)
            case["viscosity"] = case["density"] * INLET_HEIGHT / log_uniform(generator, *REYNOLDS)
        else:
            case["barrier_height"] = uniform(generator, *HEIGHTS)
            case["barrier_width"] = uniform(generator, *WIDTHS)
        return case

    def band_value(self, band: str, case: Mapping[str, float]) -> float:
        """The Froude number of the inflow, or the height of the barrier."""
        if band == "barrier_band":
            return case["barrier_height"]
        return case["inlet_velocity"] / (9.81 * INLET_HEIGHT) ** 0.5

    # ------------------------------------------------------------------------------------------------ space and time

    def grid(self, resolution: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """``resolution`` counts the cells over the height; along the channel there are 15/4 as many. A pair is (along,
        over the height).
        """
        shape = super().grid(resolution)
        if resolution is None or isinstance(resolution, int):
            return (15 * shape[1] // 4, shape[1])
        return shape

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Length and height of the channel."""
        return torch.stack([parameters["length"], parameters["height"]], -1)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Inlet (its upper part a wall), floor, and two open sides."""
        return {"x_low": "inlet", "x_high": "outlet", "y_low": "wall", "y_high": "outlet"}

    def geometry(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, Tensor]:
        """``fluid``: 1 where the cell's centre is outside the barrier; ``signed_distance`` to its surface, metres."""
        values = {name: value.double().cpu().reshape(-1, 1, 1) for name, value in parameters.items()}
        centres = self.coordinates({name: parameters[name].double().cpu() for name in ("length", "height")}, shape)
        half = 0.5 * values["barrier_width"]
        beside = (centres["x"].unsqueeze(2) - values["barrier_at"] - half).abs() - half
        above = centres["y"].unsqueeze(1) - values["barrier_height"]  # the floor is no surface of the barrier
        outside = torch.hypot(beside.clamp(min=0), above.clamp(min=0))
        distance = torch.where(outside > 0, outside, torch.maximum(beside, above)).unsqueeze(1)
        return {"fluid": (distance > 0).float(), "signed_distance": distance.float()}

    def geometry_length(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The channel's height."""
        return parameters["height"]

    # ------------------------------------------------------------------------------------------------------ the flow

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 32) -> Tensor:
        """Cells that the fastest liquid crosses, ``(B,)``."""
        values = self.as_parameters(parameters)
        speed = self._speed(values) + (2 * values["gravity"] * values["barrier_height"]).sqrt()
        return (times[:, -1] - times[:, 0]) * speed * self.grid(resolution)[0] / values["length"]

    def check_geometry(self, parameters: ParameterValues, shape: Sequence[int]) -> None:
        """Raise ``SolverError`` for a barrier or an inlet that does not fit the channel or the grid."""
        values = self.as_parameters(parameters)
        spacing = self.lengths(values) / torch.tensor(list(shape), dtype=torch.float64)
        end = values["barrier_at"] + values["barrier_width"]
        wrong = (
            (
                values["barrier_height"] > values["height"] - 2 * spacing[:, 1],
                "the barrier is {barrier_height:.4g} m high in a channel {height:.4g} m high, which leaves less than "
                "two cells of {dy:.3g} m above it; lower the barrier",
            ),
            (
                values["inlet_height"] > values["barrier_height"],
                "the inlet reaches up to {inlet_height:.4g} m, above the barrier's height of {barrier_height:.4g} m; "
                "lower the inlet or raise the barrier",
            ),
            (
                (values["barrier_at"] < RESERVOIR + 2 * spacing[:, 0]) | (end > values["length"] - 2 * spacing[:, 0]),
                "the barrier, {barrier_width:.4g} m wide from x = {barrier_at:.4g} m, comes within two cells of "
                "{dx:.3g} m of the liquid at the inlet (up to x = 0.1 m) or of the outlet at {length:.4g} m; move it",
            ),
            (
                (values["barrier_width"] < spacing[:, 0])
                | (values["barrier_height"] < spacing[:, 1])
                | (values["inlet_height"] < 2 * spacing[:, 1]),
                "the barrier ({barrier_width:.4g} m x {barrier_height:.4g} m) is below a cell of {dx:.3g} m x "
                "{dy:.3g} m, or the inlet ({inlet_height:.4g} m) below two; use a finer grid or larger ones",
            ),
        )
        for bad, message in wrong:
            if bad.any():
                case = int(bad.nonzero()[0, 0])
                numbers = {name: float(value[case]) for name, value in values.items()}
                numbers["dx"], numbers["dy"] = spacing[case].tolist()
                raise SolverError(f"case {case}: {message.format(**numbers)}")

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
        """Solve for liquid and gas from a block of liquid at rest at the inlet.

        ``times``: ``(T,)`` shared or ``(B, T)`` per case, in seconds, increasing from 0. ``pressure``: as of
        ``TwoPhaseSolver``. Returns the fields of ``sciml.problems.two_phase`` ``(B, T, C, nx, ny)``,
        the face velocities, ``fluid`` and ``signed_distance (B, 1, nx, ny)``, ``liquid_volume`` and ``time (B, T)``.
        The solver works in float64; fields have ``dtype``.

        Raises ``ConfigError`` for bad parameters or times, ``SolverError`` for a barrier or an inlet that does not fit.
        """
        from sciml.physics.vof import rectangle

        shape = self.grid(resolution)
        values = detached(self.as_parameters(parameters))
        two_phase.steady_parameters(values)
        times = self.frame_times(values) if times is None else as_times(times, len(values["density"]))
        self.check_geometry(values, shape)
        lengths, geometry = self.lengths(values), self.geometry(values, shape)
        spacing = lengths / torch.tensor(shape, dtype=torch.float64)
        edges = torch.arange(shape[1] + 1, dtype=torch.float64) * spacing[:, 1:]
        # The share of each face that is below the inlet's height carries the speed: exactly U times the height enters.
        share = ((values["inlet_height"].unsqueeze(1) - edges[:, :-1]) / spacing[:, 1:]).clamp(0, 1)
        block = torch.stack([torch.full_like(values["inlet_height"], RESERVOIR), values["inlet_height"]], -1)
        found = two_phase.solve(
            values,
            times,
            lengths,
            rectangle(lengths, shape, torch.zeros_like(block), block),
            _sides(share * values["inlet_velocity"].unsqueeze(1), share),
            fluid=geometry["fluid"],
            pressure=pressure,
            dtype=dtype,
            device=device,
        )
        return {**found, **{name: field.to(device) for name, field in geometry.items()}}

    def diagnose(self, frames: Mapping[str, Tensor], parameters: ParameterValues, time: Tensor) -> dict[str, Tensor]:
        """``liquid_volume (B, T)`` from the volume fraction."""
        values = detached(self.as_parameters(parameters, len(frames["volume_fraction"])))
        return two_phase.diagnosed_volume(frames, self.lengths(values))

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``continuity``: divergence of the face velocities in 1/s, ``((B, T, nx, ny),)``."""
        values = self.as_parameters(parameters, trajectory["face_velocity_x"].shape[0])
        return {"continuity": (two_phase.continuity(trajectory, self.lengths(values)),)}

    # ------------------------------------------------------------------------------------------------------ learning

    def _speed(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Speed of the inflow and of waves as high as the inlet: sqrt(U^2 + g h)."""
        return (parameters["inlet_velocity"] ** 2 + parameters["gravity"] * parameters["inlet_height"]).sqrt()

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Velocities: V = sqrt(U^2 + g h) with the inlet's height h; pressure: rho V^2."""
        return two_phase.scales(self._speed(parameters), parameters["density"])

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """``log Re`` and ``log V dt / h`` (on the inlet's height h), ``log U / V``, the barrier's sizes over h."""
        speed, unit = self._speed(parameters), parameters["inlet_height"]
        inflow = parameters["inlet_velocity"]
        reynolds = inflow * unit * parameters["density"] / parameters["viscosity"]
        numbers = [reynolds.log(), (speed * interval / unit).log(), (inflow / speed).log()]
        sizes = [parameters[name] / unit for name in ("barrier_height", "barrier_width")]
        return torch.stack([*numbers, *sizes], -1)

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem dam``."""
        name = operator or "unet"
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS, self.grid())},
            "data": {"cases": {"train": 48, "validation": 6, "test": 9}},
            "task": {"unroll": 4, "unroll_from": 0.5},
            "optimizer": {"method": "soap", "learning_rate": 3e-3},
            "budget": {"minutes": 8.0},
        }


def _sides(velocity: Tensor, share: Tensor) -> dict[str, Any]:
    """Liquid through the lower part of the left side; the floor a wall, the right side and the top open."""
    from sciml.solvers.two_phase import Inlet, Open, Wall

    return {"x_low": Inlet(velocity, (share > 0).double()), "x_high": Open(), "y_low": Wall(), "y_high": Open()}

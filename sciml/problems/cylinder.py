"""Flow past a cylinder between two walls: steady below, a street of vortices above, a Reynolds number of about 50.

Subsets follow CFDBench's cylinder (bc: inlet speed; prop: density and viscosity; geo: radius and the distances to the
sides). The ranges are chosen here, so that the Reynolds number stays between 20 and 200, where the flow is laminar and
plane; the inflow is parabolic and the outflow free, as in the benchmark of Schäfer and Turek, Notes on Numerical Fluid
Mechanics 52 (1996) 547, whose two-dimensional cases are cases of this problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError, did_you_mean
from sciml.problems import mac
from sciml.problems.bands import BandedProblem
from sciml.problems.base import FLUID, SIGNED_DISTANCE, as_times, detached
from sciml.problems.cases import Parameter, ParameterValues, Sample
from sciml.problems.draws import log_uniform, uniform
from sciml.problems.recipes import operator_options

RADIUS, SPEED, DENSITY, VISCOSITY = 0.005, 1.0, 10.0, 1e-3
"""Of the base case, of Reynolds number 100 on the diameter and the mean speed."""
UPSTREAM, DOWNSTREAM, SIDEWAYS = 0.04, 0.12, 0.04
"""Distances of the base case's axis to the inlet, the outlet and each wall, in metres."""
RADII, GAPS = (0.004, 0.007), (0.03, 0.045)
"""Of the subset ``geo``: radius, and distance to each wall."""

REYNOLDS = (20.0, 200.0)
REYNOLDS_BAND = (110.0, 140.0)
BLOCKAGE_BAND = (0.14, 0.16)
"""Diameter over height; both bands are held out of training by the split ``extrapolate``."""

LENGTHWISE = 2
"""Cells along the channel for each across."""
CELLS_ACROSS = 4.0
"""Least cells across the diameter: fewer do not show where the cylinder is."""
SPIN_UP = 30.0
"""Time that the flow has had to develop at time 0, in diameters over the mean speed."""
RING = (0.25, 1.0)
"""Where the force is read off the fields: from this to this part of the gap to the nearest side."""

MESH_OPTIONS = ("h", "h_disc", "cfl")
"""Of the solver, that ``solve`` passes on."""

OPERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"patch_size": 4, "hidden_channels": [64, 64, 96]},
    "fno": {"patch_size": 4, "n_modes": [15, 7], "hidden_channels": 48},
}
"""Constructor arguments of the operators in the default recipe."""


class Cylinder(BandedProblem):
    """Laminar flow past a circular cylinder in a channel, developed before time 0.

    The velocity has a parabolic profile at the inlet, is zero on the walls and on the cylinder, and leaves freely. All
    fields are 0 inside the cylinder. Forces on the cylinder, per metre of its length, are series of the trajectory.
    """

    name = "cylinder"
    title = "Flow past a cylinder"
    learned: ClassVar[tuple[str, ...]] = ("velocity", "pressure")
    resolution = 64
    frames: ClassVar[int] = 61
    frame_interval = 0.0025
    group: ClassVar[int] = 1  # factors of one case fill the cache: eight at once take a fifth longer each
    solver = "Taylor-Hood finite elements on a body-fitted mesh, second order in time, sampled on the grid"
    boundary_parameters: ClassVar[Mapping[str, str]] = {"x_low": "inlet_velocity"}
    fields = mac.flow_fields(2)
    face_fields = mac.face_fields(2)
    geometry_fields = (FLUID, SIGNED_DISTANCE)
    geometry_channels = ("fluid", "signed_distance", "x_from_axis", "y_from_axis")
    series: ClassVar[Mapping[str, str]] = {"drag": "N/m", "lift": "N/m"}
    parameters = (
        Parameter("inlet_velocity", "m/s", "mean speed of the parabolic inflow through the left side, in +x"),
        Parameter("density", "kg/m^3", "density of the fluid"),
        Parameter("viscosity", "Pa s", "dynamic viscosity of the fluid"),
        Parameter("radius", "m", "radius of the cylinder"),
        Parameter("upstream", "m", "distance of its axis from the inlet"),
        Parameter("downstream", "m", "distance of its axis from the outlet"),
        Parameter("below", "m", "distance of its axis from the lower wall"),
        Parameter("above", "m", "distance of its axis from the upper wall"),
    )
    subsets = ("bc", "prop", "geo")
    mixture = ("geo", "bc", "geo", "prop")  # five numbers vary in geo, one in each of the others
    hard_subsets = ("reynolds_band", "blockage_band")
    bands: ClassVar[Mapping[str, tuple[float, float]]] = {
        "reynolds_band": REYNOLDS_BAND,
        "blockage_band": BLOCKAGE_BAND,
    }
    band_subsets: ClassVar[Mapping[str, tuple[str, ...]]] = {"blockage_band": ("geo",)}
    condition_names = ("log_reynolds", "log_interval", "log_length", "log_height")
    lookup_weights = (1.0, 1.0, 1.0, 1.0)

    def sample(
        self, n: int, subset: str = "all", seed: int = 0, resolution: int | None = None, frames: int | None = None
    ) -> Sample:
        """Draw ``n`` cases of a subset, of ``all`` (these in turn), of a band, or ``outside`` of both.

        Raises ``SolverError`` for a resolution that does not show the smallest cylinder of the subset.
        """
        self.check_subset(n, subset)
        across = self.grid(resolution)[1]
        shown = RADIUS / SIDEWAYS if subset in ("bc", "prop") else RADII[0] / GAPS[1]  # diameter over height
        if across * shown < CELLS_ACROSS:
            raise SolverError(
                f"resolution {across} shows the smallest cylinder of {subset!r} on {across * shown:.2g} cells; at "
                f"least {CELLS_ACROSS:g} are needed: use a resolution of at least {math.ceil(CELLS_ACROSS / shown)}"
            )
        return super().sample(n, subset, seed, across, frames)

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """One case. ``bc``: inlet speed log-uniform in 0.2..2 m/s; ``prop``: density log-uniform in 1..100 kg/m^3,
        Reynolds number log-uniform in 20..200, which sets the viscosity; ``geo``: radius uniform in 4..7 mm, distances
        uniform: 30..50 mm upstream, 100..140 mm downstream, 30..45 mm to each wall.
        """
        case = {
            "inlet_velocity": SPEED,
            "density": DENSITY,
            "viscosity": VISCOSITY,
            "radius": RADIUS,
            "upstream": UPSTREAM,
            "downstream": DOWNSTREAM,
            "below": SIDEWAYS,
            "above": SIDEWAYS,
        }
        if subset == "bc":
            case["inlet_velocity"] = log_uniform(generator, 0.2, 2.0)
        elif subset == "prop":
            case["density"] = log_uniform(generator, 1.0, 100.0)
            reynolds = log_uniform(generator, *REYNOLDS)
            case["viscosity"] = case["density"] * SPEED * 2 * RADIUS / reynolds
        else:
            case["radius"] = uniform(generator, *RADII)
            case["upstream"] = uniform(generator, 0.03, 0.05)
            case["downstream"] = uniform(generator, 0.10, 0.14)
            case["below"] = uniform(generator, *GAPS)
            case["above"] = uniform(generator, *GAPS)
        return case

    def band_value(self, band: str, case: Mapping[str, float]) -> float:
        """The Reynolds number on the diameter, or the diameter over the height."""
        diameter = 2 * case["radius"]
        if band == "blockage_band":
            return diameter / (case["below"] + case["above"])
        return case["inlet_velocity"] * diameter * case["density"] / case["viscosity"]

    # ------------------------------------------------------------------------------------------------ space and time

    def grid(self, resolution: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """``resolution`` counts the cells across the channel; along it there are twice as many. A pair is (along,
        across).
        """
        shape = super().grid(resolution)
        if resolution is None or isinstance(resolution, int):
            return (LENGTHWISE * shape[1], shape[1])
        return shape

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Length and height of the channel."""
        return torch.stack(
            [parameters["upstream"] + parameters["downstream"], parameters["below"] + parameters["above"]], -1
        )

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Inlet, outlet and two walls."""
        return {"x_low": "inlet", "x_high": "outlet", "y_low": "wall", "y_high": "wall"}

    def geometry(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, Tensor]:
        """``fluid``: 1 where the cell's centre is outside the cylinder; ``signed_distance`` to its surface, metres."""
        x, y = self._from_axis(parameters, shape)
        distance = (torch.hypot(x, y) - parameters["radius"].double().reshape(-1, 1, 1)).unsqueeze(1)
        return {"fluid": (distance > 0).float(), "signed_distance": distance.float()}

    def geometry_inputs(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
        """``fluid``, the distance to the surface and the place relative to the axis, in units of four diameters."""
        unit = 8 * parameters["radius"].double().reshape(-1, 1, 1, 1)
        geometry = self.geometry(parameters, shape)
        places = [place.unsqueeze(1) / unit for place in self._from_axis(parameters, shape)]
        return torch.cat([geometry["fluid"], geometry["signed_distance"] / unit, *places], 1).float()

    def _from_axis(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cell centres relative to the cylinder's axis, two ``(B, nx, ny)`` float64."""
        values = {name: parameters[name].double().cpu() for name in ("upstream", "downstream", "below", "above")}
        centres = self.coordinates(values, shape)
        x = (centres["x"] - values["upstream"].unsqueeze(1)).unsqueeze(2)
        y = (centres["y"] - values["below"].unsqueeze(1)).unsqueeze(1)
        return x.expand(-1, -1, shape[1]), y.expand(-1, shape[0], -1)

    # ------------------------------------------------------------------------------------------------------ the flow

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 64) -> Tensor:
        """Diameters that the mean flow travels, spin-up included."""
        values = self.as_parameters(parameters)
        return SPIN_UP + (times[:, -1] - times[:, 0]) * values["inlet_velocity"] / (2 * values["radius"])

    def reynolds(self, parameters: ParameterValues) -> Tensor:
        """``U D / nu`` of the mean speed, ``(B,)``."""
        values = self.as_parameters(parameters)
        return values["inlet_velocity"] * 2 * values["radius"] * values["density"] / values["viscosity"]

    def check_resolved(self, parameters: ParameterValues, shape: Sequence[int]) -> None:
        """Raise ``SolverError`` for a cylinder that the grid does not show."""
        values = self.as_parameters(parameters)
        spacing = self.lengths(values) / torch.tensor(list(shape), dtype=torch.float64)
        across = 2 * values["radius"] / spacing.amax(1)
        worst = int(across.argmin())
        if float(across[worst]) < CELLS_ACROSS * (1 - 1e-9):
            least = (spacing[worst] * CELLS_ACROSS / (2 * values["radius"][worst])).tolist()
            needed = " x ".join(str(max(n, math.ceil(n * more - 1e-6))) for n, more in zip(shape, least, strict=True))
            raise SolverError(
                f"the cylinder of case {worst} (radius {float(values['radius'][worst]):.4g} m) is "
                f"{float(across[worst]):.2g} cells wide on a grid of {shape[0]} x {shape[1]}; at least "
                f"{CELLS_ACROSS:g} are needed. Use a larger radius or at least {needed} cells"
            )

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        mesh: Mapping[str, float] = MappingProxyType({}),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Solve the incompressible Navier-Stokes equations around the cylinder.

        ``times``: ``(T,)`` shared or ``(B, T)`` per case, in seconds, increasing from 0, when the flow has developed
        for ``SPIN_UP`` diameters over the mean speed. ``mesh``: ``h``, ``h_disc`` and ``cfl`` of ``FlowPastCylinder``
        where its defaults are not wanted.

        Returns ``velocity (B, T, 2, nx, ny)``, ``pressure (B, T, 1, nx, ny)`` (0 at the outlet), the face velocities,
        ``fluid`` and ``signed_distance (B, 1, nx, ny)``, ``drag`` and ``lift (B, T)`` in N/m and ``time (B, T)``. The
        solver works in float64 on the CPU; fields have ``dtype`` and are on ``device``.

        Raises ``ConfigError`` for bad parameters, times or options of the mesh, for a cylinder that touches a side or
        comes too near to it, and for a Reynolds number that the solver refuses; ``SolverError`` for a cylinder that is
        too small for the grid.
        """
        from sciml.solvers.flow_past_cylinder import FlowPastCylinder

        shape = self.grid(resolution)
        values = detached(self.as_parameters(parameters))
        for name, value in values.items():
            if value.ndim > 1:
                raise ConfigError(f"{name} changes in time; a cylinder has one value of each parameter")
        times = self.frame_times(values) if times is None else as_times(times, len(values["density"]))
        self.check_resolved(values, shape)
        _check_mesh(mesh)
        flow = FlowPastCylinder(
            self.lengths(values),
            torch.stack([values["upstream"], values["below"]], -1),
            values["radius"],
            values["inlet_velocity"],
            values["viscosity"] / values["density"],
            **mesh,
        )
        state = flow.initial_state(spin_up=SPIN_UP)
        density = values["density"]
        frames: dict[str, list[Tensor]] = {
            name: [] for name in ("velocity", "pressure", "face_velocity_x", "face_velocity_y", "drag", "lift")
        }
        for frame in range(times.shape[1]):
            if frame > 0:
                state = flow.advance(state, times[:, frame] - times[:, frame - 1])
            sampled = flow.sample(state, shape)
            forces = flow.forces(state) * density.unsqueeze(1)
            sampled["pressure"] = sampled["pressure"] * density.reshape(-1, 1, 1, 1)
            for name in ("velocity", "pressure", "face_velocity_x", "face_velocity_y"):
                frames[name].append(sampled[name].to(device, dtype))
            frames["drag"].append(forces[:, 0])
            frames["lift"].append(forces[:, 1])
        trajectory = {name: torch.stack(values, 1) for name, values in frames.items()}
        geometry = {name: field.to(device) for name, field in self.geometry(values, shape).items()}
        return {**trajectory, **geometry, "time": times}

    def coefficients(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, Tensor]:
        """``drag`` and ``lift (B, T)``: 2 F / (rho U^2 D); ``strouhal (B,)``: f D / U of the lift.

        The Strouhal number is NaN where the frames hold fewer than one and a half periods. Raises ``ConfigError`` for a
        trajectory without drag, lift or time.
        """
        from sciml.metrics import dominant_frequency

        missing = [name for name in ("drag", "lift", "time") if name not in trajectory]
        if missing:
            raise ConfigError(
                f"the coefficients need drag, lift and time; {', '.join(missing)} is missing. Cylinder.diagnose reads "
                "the forces off the velocity and the pressure"
            )
        values = self.as_parameters(parameters, len(trajectory["drag"]))
        diameter, speed = 2 * values["radius"], values["inlet_velocity"]
        unit = (0.5 * values["density"] * speed**2 * diameter).unsqueeze(1)
        frequency = dominant_frequency(trajectory["lift"], trajectory["time"])
        return {
            "drag": trajectory["drag"] / unit,
            "lift": trajectory["lift"] / unit,
            "strouhal": frequency * diameter / speed,
        }

    def diagnose(self, frames: Mapping[str, Tensor], parameters: ParameterValues, time: Tensor) -> dict[str, Tensor]:
        """``drag`` and ``lift (B, T)`` from the fields on the grid alone, by a balance of momentum around the cylinder.

        Raises ``ConfigError`` without the velocity and the pressure.
        """
        from sciml.physics.momentum_balance import force_on_body

        missing = [name for name in ("velocity", "pressure") if name not in frames]
        if missing:
            raise ConfigError(f"the forces need the fields velocity and pressure; {', '.join(missing)} is missing")
        velocity, pressure = frames["velocity"], frames["pressure"]
        values = detached(self.as_parameters(parameters, len(velocity)))
        shape = tuple(velocity.shape[3:])
        sides = torch.stack([values[name] for name in ("upstream", "downstream", "below", "above")], -1)
        gap = sides.amin(1) - values["radius"]
        x, y = self._from_axis(values, shape)
        distance = torch.hypot(x, y) - values["radius"].reshape(-1, 1, 1)
        low, high = (part * gap.reshape(-1, 1, 1) for part in RING)
        s = ((high - distance) / (high - low)).clamp(0, 1)
        force = force_on_body(
            velocity,
            pressure[:, :, 0],
            time,
            weight=s**2 * (3 - 2 * s),
            lengths=self.lengths(values),
            density=values["density"],
            viscosity=values["viscosity"],
        )
        return {"drag": force[:, :, 0], "lift": force[:, :, 1]}

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``continuity``: divergence of the face velocities in 1/s, ``((B, T, nx, ny),)``.

        The momentum equation holds in the space of finite elements, not on the grid.
        """
        faces = [trajectory[f"face_velocity_{axis}"] for axis in "xy"]
        shape = (faces[0].shape[2] - 1, faces[0].shape[3])
        values = self.as_parameters(parameters, faces[0].shape[0])
        spacing = (self.lengths(values) / torch.tensor(shape, dtype=torch.float64)).to(faces[0])
        h = spacing.reshape(-1, 1, 1, 1, 2)
        return {"continuity": (faces[0].diff(dim=2) / h[..., 0] + faces[1].diff(dim=3) / h[..., 1],)}

    # ------------------------------------------------------------------------------------------------------ learning

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Velocity: U; pressure: rho U^2."""
        speed = parameters["inlet_velocity"]
        return {
            "velocity": torch.stack([speed, speed], -1),
            "pressure": (parameters["density"] * speed**2).unsqueeze(-1),
        }

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """``log Re``, ``log U dt / D``, ``log L / D``, ``log H / D``; where the axis is, the geometry says."""
        speed, diameter = parameters["inlet_velocity"], 2 * parameters["radius"]
        reynolds = speed * diameter * parameters["density"] / parameters["viscosity"]
        length, height = self.lengths(parameters).unbind(-1)
        numbers = [reynolds, speed * interval / diameter, length / diameter, height / diameter]
        return torch.stack([number.log() for number in numbers], -1)

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem cylinder``."""
        name = operator or "unet"
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS, self.grid())},
            "data": {"cases": {"train": 64, "validation": 6, "test": 12}},
            # Small increments pile up over a rollout: several steps are learned together for half of the time.
            "task": {"unroll": 4, "unroll_from": 0.5},
            "optimizer": {"method": "soap", "learning_rate": 3e-3},
            "budget": {"minutes": 8.5},
        }


def _check_mesh(mesh: Mapping[str, float]) -> None:
    for name, value in mesh.items():
        if name not in MESH_OPTIONS:
            raise ConfigError(f"mesh has no option {name!r}{did_you_mean(name, MESH_OPTIONS)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"mesh option {name!r} is {value!r}; expected a positive number")

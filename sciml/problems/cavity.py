"""Lid-driven cavity: a closed box of fluid at rest whose lid starts to move in +x at time zero.

Subsets follow CFDBench (bc: lid speed; prop: density and viscosity; geo: height and width), inside its own parameter
ranges, restricted to Reynolds numbers that the grid resolves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.problems import mac
from sciml.problems.bands import BandedProblem
from sciml.problems.base import as_times, detached
from sciml.problems.cases import Parameter, ParameterValues, Sample
from sciml.problems.draws import log_uniform, uniform
from sciml.problems.recipes import operator_options

if TYPE_CHECKING:
    from sciml.constraints.mixture_of_experts import CavityOnTiles
    from sciml.physics import Boundaries, Grid

MAX_REYNOLDS = 5000.0
"""Above this the two-dimensional cavity is close to unsteady and the solver has not been validated."""

REYNOLDS_BAND = (300.0, 450.0)
ASPECT_BAND = (1.15, 1.5)
"""Held out of training by the split ``extrapolate``."""

FRAME_INTERVAL = 1e-3
"""Seconds between frames; one physical interval for all cases, as in CFDBench."""

CFL = 0.8

OPERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"patch_size": 4, "hidden_channels": [64, 64, 96]},
    "fno": {"patch_size": 4, "n_modes": [15, 15], "hidden_channels": 48},
    # Large patches, one window, more convolutions than attention, and a table of positions, which the walls need.
    "poseidon": {
        "image_size": [64, 64],
        "patch_size": 8,
        "embed_dim": 48,
        "depths": [1, 1],
        "num_heads": [3, 6],
        "skip_connections": [3, 2],
        "window_size": 8,
        "resize": "pad",
        "use_absolute_embeddings": True,
        "norm_gain": 0.1,
        "initializer_range": 0.1,
        "time_conditioning": False,
    },
}
"""Constructor arguments of the operators in the default recipe."""


def resolved_reynolds(resolution: int) -> float:
    """The largest Reynolds number that a grid with this many cells along each side resolves.

    The boundary layer is about ``L / sqrt(Re)`` thick; two cells in it ask for ``N >= 2 sqrt(Re)``, which gives Re
    1000 at 64 cells (where the solver is within 0.02 of Ghia et al. 1982), 4000 at 128.
    """
    return min(1000.0 * (resolution / 64) ** 2, MAX_REYNOLDS)


class Cavity(BandedProblem):
    """Lid-driven cavity flow in two dimensions, incompressible and laminar, from rest."""

    name = "cavity"
    title = "Lid-driven cavity flow"
    divergence_free = True
    steps_by_equation = True
    first_frame = 1
    frame_interval = FRAME_INTERVAL
    solver = f"MAC projection, AB2 + Crank-Nicolson, fast diagonalisation, CFL {CFL}"
    boundary_parameters: ClassVar[Mapping[str, str]] = {"y_high": "lid_velocity"}
    corners = "x"  # the lid does not leak
    fields = mac.flow_fields(2)
    face_fields = mac.face_fields(2)
    parameters = (
        Parameter("lid_velocity", "m/s", "speed of the lid (the top wall), in +x"),
        Parameter("density", "kg/m^3", "density of the fluid"),
        Parameter("viscosity", "Pa s", "dynamic viscosity of the fluid"),
        Parameter("height", "m", "height of the box (y)"),
        Parameter("width", "m", "width of the box (x)"),
    )
    subsets = ("bc", "prop", "geo")
    mixture = (
        *("prop", "geo", "bc", "prop", "geo", "prop", "bc", "prop", "geo", "prop"),
        *("prop", "geo", "bc", "prop", "geo", "prop", "bc", "prop", "geo", "bc"),
    )  # any 20 in a row hold 9 prop, 6 geo and 5 bc
    hard_subsets = ("reynolds_band", "aspect_band", "lid_change")
    bands: ClassVar[Mapping[str, tuple[float, float]]] = {"reynolds_band": REYNOLDS_BAND, "aspect_band": ASPECT_BAND}
    band_subsets: ClassVar[Mapping[str, tuple[str, ...]]] = {"aspect_band": ("geo",)}
    condition_names = ("log_reynolds", "log_interval", "log_aspect")
    lookup_weights = (1.0, 1.0, 2.0)

    def sample(
        self, n: int, subset: str = "all", seed: int = 0, resolution: int | None = None, frames: int | None = None
    ) -> Sample:
        """Draw ``n`` cases.

        ``bc``: lid speed uniform from 4 m/s up; ``prop``: density log-uniform in 0.1..10 kg/m^3 and Reynolds number
        log-uniform from 50 up, which sets the viscosity; ``geo``: height and width uniform in 7..14 mm; ``all``:
        three in ten
        geo, a quarter bc, the rest prop. ``outside``: as ``all`` but out of the two bands that are held out by the
        split
        ``extrapolate``; ``reynolds_band``, ``aspect_band``: inside them; ``lid_change``: as ``all``, but the lid speed
        jumps by a factor of 0.5..2 in the middle of the frames. The upper Reynolds number is what the grid resolves.
        """
        self.check_subset(n, subset)
        resolution = self.resolution if resolution is None else resolution
        frames = self.frames if frames is None else frames
        largest = resolved_reynolds(resolution)
        if largest < 100:
            raise SolverError(
                f"resolution {resolution} resolves Reynolds numbers up to {largest:.0f} only, and cases are drawn "
                f"up to at least 100; use a resolution of at least {_needed_resolution(100)}"
            )
        if subset == "reynolds_band" and largest < REYNOLDS_BAND[1]:
            raise SolverError(
                f"the Reynolds band {REYNOLDS_BAND[0]:.0f} to {REYNOLDS_BAND[1]:.0f} needs a resolution of at least "
                f"{_needed_resolution(REYNOLDS_BAND[1])}, not {resolution}"
            )
        generator = torch.Generator().manual_seed(seed)
        parameters = self.draw_all(n, subset, generator, resolution)
        if subset == "lid_change":
            parameters["lid_velocity"] = _jumping_lid(parameters, frames, generator, largest)
        return Sample(parameters, self.labels(n, subset))

    def band_value(self, band: str, case: Mapping[str, float]) -> float:
        """The Reynolds number on the width, or height over width."""
        if band == "aspect_band":
            return case["height"] / case["width"]
        return case["lid_velocity"] * case["width"] * case["density"] / case["viscosity"]

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """One case of bc, prop or geo."""
        largest = resolved_reynolds(resolution)
        # On a coarse grid the fluid is more viscous, so that the fastest lid and the largest box stay resolved.
        viscosity = 2e-4 * max(1.0, 1000.0 / largest)
        case = {"lid_velocity": 10.0, "density": 1.0, "viscosity": viscosity, "height": 0.01, "width": 0.01}
        if subset == "bc":
            case["lid_velocity"] = uniform(generator, 4.0, min(50.0, largest * viscosity / 0.01))
        elif subset == "prop":
            case["density"] = log_uniform(generator, 0.1, 10.0)
            case["viscosity"] = case["density"] * 10.0 * 0.01 / log_uniform(generator, 50.0, largest)
        else:
            case["height"], case["width"] = uniform(generator, 0.007, 0.014), uniform(generator, 0.007, 0.014)
        return case

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 64) -> Tensor:
        """Steps that the CFL condition asks for, ``(B,)``."""
        values = self.as_parameters(parameters)
        speed = values["lid_velocity"].reshape(len(times), -1).amax(1)
        cell = torch.minimum(values["width"], values["height"]) / resolution
        return (times[:, -1] - times[:, 0]) * speed / (CFL * cell)

    def reynolds(self, parameters: ParameterValues) -> Tensor:
        """Largest ``U L / nu`` over the frames with L the longer side, ``(B,)``: what the grid has to resolve."""
        values = self.as_parameters(parameters)
        speed = values["lid_velocity"].reshape(len(values["lid_velocity"]), -1).amax(1)
        side = torch.maximum(values["width"], values["height"])
        return speed * side * values["density"] / values["viscosity"]

    def check_resolved(self, parameters: ParameterValues, resolution: Sequence[int]) -> None:
        """Raise ``SolverError`` if the grid does not resolve a case's Reynolds number."""
        reynolds = self.reynolds(parameters)
        largest = resolved_reynolds(min(resolution))
        worst = int(reynolds.argmax())
        value = float(reynolds[worst])
        if value > MAX_REYNOLDS * (1 + 1e-9):
            raise SolverError(
                f"case {worst} has Reynolds number {value:.0f}; this laminar two-dimensional solver is refused "
                f"above {MAX_REYNOLDS:.0f}, where the flow is close to unsteady and no grid offered here was "
                "validated. Lower the lid velocity or the size, or raise the viscosity"
            )
        if value > largest * (1 + 1e-9):
            raise SolverError(
                f"case {worst} has Reynolds number {value:.0f}; a {'x'.join(map(str, resolution))} grid resolves "
                f"its boundary layer (two cells in L/sqrt(Re)) up to {largest:.0f}. Use resolution >= "
                f"{_needed_resolution(value)} or lower the Reynolds number"
            )

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Solve the incompressible Navier-Stokes equations from rest.

        ``times``: ``(T,)`` shared or ``(B, T)`` per case, in seconds, increasing from 0. Returns ``velocity (B, T, 2,
        nx, ny)``, ``pressure (B, T, 1, nx, ny)`` (zero mean), the face velocities and ``time (B, T)``. Each field
        keeps ``dtype``.

        Raises ``ConfigError`` for bad parameters or times, ``SolverError`` for a Reynolds number that the grid cannot
        resolve.
        """
        from sciml.physics import box
        from sciml.solvers import IncompressibleSolver

        shape = self.grid(resolution)
        values = self.as_parameters(parameters)
        batch = values["density"].shape[0]
        times = self.frame_times(values) if times is None else as_times(times, batch)
        self.check_resolved(detached(values), shape)
        lid = values["lid_velocity"]
        mac.check_covers("lid_velocity", lid, times.shape[1])
        lid = lid.to(device, dtype)
        solver = IncompressibleSolver(
            box(shape, self.lengths(values).to(device)),
            _boundaries(mac.value_at(lid, 0)),
            (values["viscosity"] / values["density"]).to(device),
            dtype=dtype,
            device=device,
            cfl=CFL,
        )
        return mac.march(
            solver,
            solver.initial_state(),
            times,
            values["density"],
            driving=lid,
            boundaries=_boundaries,
            pressure_at_frames=False,
        )

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``u: U``, ``v: U H / W``, pressure: ``rho U^2``.

        In the coordinates x / W, y / H a flow that is divergence-free is so in these units too, whatever the shape of
        the box.
        """
        speed = parameters["lid_velocity"]
        velocity = torch.stack([speed, speed * parameters["height"] / parameters["width"]], -1)
        return {"velocity": velocity, "pressure": (parameters["density"] * speed**2).unsqueeze(-1)}

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """``log Re`` (on the width), ``log U dt / W``, ``log H / W``: all that the dimensionless flow depends on."""
        speed, width = parameters["lid_velocity"], parameters["width"]
        reynolds = speed * width * parameters["density"] / parameters["viscosity"]
        return torch.stack([reynolds.log(), (speed * interval / width).log(), (parameters["height"] / width).log()], -1)

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Width and height."""
        return torch.stack([parameters["width"], parameters["height"]], -1)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Three walls and a lid."""
        return {"x_low": "wall", "x_high": "wall", "y_low": "wall", "y_high": "moving_wall"}

    def conditions_on_sides(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, dict[str, Any]]:
        """The velocity: no slip, and that of the lid."""
        return {"velocity": _boundaries(parameters["lid_velocity"])}

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """Discrete Navier-Stokes residual of a trajectory's face velocities, differentiable.

        ``momentum``: per component ``(B, T - 1, interior faces)`` in m/s^2, between consecutive frames (trapezoidal
        in time, so it is
        small only for frames as close as solver steps); ``continuity``: ``((B, T, nx, ny),)`` in 1/s.
        """
        from sciml.physics import box

        faces = trajectory["face_velocity_x"]
        values = self.as_parameters(parameters, faces.shape[0])
        shape = (faces.shape[2] - 1, faces.shape[3])
        lid = values["lid_velocity"].to(faces)
        return mac.trajectory_residual(
            trajectory,
            box(shape, self.lengths(values).to(faces.device)),
            values["density"],
            values["viscosity"] / values["density"],
            lambda t: _boundaries(mac.value_at(lid, t)),
        )

    def start(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """A fluid at rest."""
        batch = len(self.as_parameters(parameters)["density"])
        return torch.zeros(batch, self.dim, *self.grid(resolution), dtype=dtype, device=device)

    def trajectory_defect(self, frames: Tensor, parameters: ParameterValues, interval: Tensor) -> Tensor:
        """Of frames ``(B, K + 1, 2, nx, ny)``, in m/s: ``mac.trajectory_defect``. The lid drags through the viscous
        term, so a wrong speed shows beside it; what crosses a wall shows whole."""
        from sciml.physics import box

        values, interval = self._of_steps(frames, parameters, interval)
        shape = tuple(frames.shape[3:])
        lengths, lid = self.lengths(values).to(frames.device), values["lid_velocity"].to(frames.device)

        def setting(n: int) -> tuple[Grid, Boundaries]:
            return box(shape, lengths.repeat_interleave(n, 0)), _boundaries(lid.repeat_interleave(n, 0))

        return mac.trajectory_defect(frames, interval, values["viscosity"] / values["density"], setting)

    def equation(self, parameters: ParameterValues, shape: int | Sequence[int] | None = None) -> CavityOnTiles:
        """What ``MixtureOfExpertsConstraint`` needs for the *steady* flow of these cases on a grid of ``shape`` cells.

        The basis consists of stream functions at the nodes inside, ``(B, N, nx - 1, ny - 1)``. Raises ``ConfigError``
        for a lid whose speed changes, ``SolverError`` for a Reynolds number that the grid does not resolve.
        """
        from sciml.constraints.mixture_of_experts import CavityOnTiles

        values, grid = self.as_parameters(parameters), self.grid(shape)
        speed = values["lid_velocity"]
        if speed.ndim > 1:
            raise ConfigError(f"lid_velocity has shape {tuple(speed.shape)}; the steady flow has one value for a case")
        self.check_resolved(detached(values), grid)
        viscosity = values["viscosity"] / values["density"]
        return CavityOnTiles(grid, self.lengths(values), viscosity, speed, _boundaries(speed))

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem cavity``: a surrogate in a few minutes on two cores.

        Cheap steps win at a budget of minutes: patches of 4 x 4 cells and narrow levels. Learning the next
        state rather than the increment halved the error of rollouts.
        """
        name = operator or "unet"
        recipe: dict[str, Any] = {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS, self.grid())},
            "task": {"target": "state", "unroll": 2, "unroll_from": 0.8},
            "budget": {"minutes": 4.0},
        }
        if name == "poseidon":  # its first norm forgets how large the state is: the state itself is harder to learn
            recipe["task"]["target"] = "increment"
            recipe |= {"batch_size": 8, "optimizer": {"learning_rate": 8e-3}}
        return recipe


def _boundaries(lid_velocity: Tensor) -> dict[str, Any]:
    """No slip at the walls; the lid moves in +x.

    The corner faces belong to the side walls: the lid does not leak.
    """
    from sciml.physics import MovingWall, Wall

    return {"x_low": Wall(), "x_high": Wall(), "y_low": Wall(), "y_high": MovingWall((lid_velocity, 0.0))}


def _jumping_lid(
    parameters: Mapping[str, Tensor], frames: int, generator: torch.Generator, largest_reynolds: float
) -> Tensor:
    """Lid speed ``(B, frames)``: the drawn one for the first half, then another that is resolved and trained."""
    first = parameters["lid_velocity"]
    side = torch.maximum(parameters["width"], parameters["height"])
    fastest = largest_reynolds * parameters["viscosity"] / (parameters["density"] * side)
    factor = torch.exp2(2 * torch.rand(first.shape, generator=generator, dtype=torch.float64) - 1)
    second = torch.minimum((first * factor).clamp(4.0, 20.0), fastest)
    late = torch.arange(frames) >= frames // 2
    return torch.where(late, second[:, None], first[:, None])


def _needed_resolution(reynolds: float) -> int:
    return math.ceil(64 * math.sqrt(reynolds / 1000.0))

"""The viscous Burgers equation in one and two dimensions: waves that steepen into shocks and decay.

Subsets reproduce published one-dimensional sets: ``fno`` (Li et al., arXiv:2010.08895), ``pdebench`` (Takamoto et al.,
arXiv:2210.07182; details from its generator) and ``dgno`` (walls; the law of its initial fields is not published, ours
is a Gaussian field in sines). In two dimensions the subsets are chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.errors import ConfigError, SolverError
from sciml.problems.base import Problem, as_times, detached
from sciml.problems.burgers_initial import gaussian_deviation, initial_velocity
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import draw_number, log_uniform, uniform
from sciml.problems.initial_field import as_initial
from sciml.problems.recipes import operator_options

if TYPE_CHECKING:
    from sciml.constraints.mixture_of_experts import BurgersOnTiles

COURANT = 2.0
"""Largest max sum_i |u_i| k_i * dt of a step: at 2.0 the error in time is 1e-7 of the speed (stable up to 2.8)."""

SHOCK_FACTOR = 10.5
"""A shock with the velocity jump du has the Fourier coefficients 1 / sinh(2 pi nu k / du): at N = SHOCK_FACTOR L du /
(2 pi^2 nu) cells they have decayed by e^-SHOCK_FACTOR at the Nyquist frequency, k = pi N / L. 10.5 puts the largest
error at 1e-3 du / 2 in the shock of Basdevant et al., Computers & Fluids 14 (1986) 23; 7 puts it at 1e-2 du / 2."""

STEEPENED = 0.5
"""Shocks are looked for only where duration * largest gradient exceeds this: an inviscid wave breaks at 1."""

LARGEST_TAIL = 1e-3
"""Largest share of the energy in the highest resolved modes, at any time: refuses fields rougher than the grid."""

GAUSSIAN, WAVES = 0.0, 1.0
"""Values of the parameter ``kind``."""

PDEBENCH_VISCOSITIES = tuple(
    epsilon / math.pi for epsilon in (0.001, 0.002, 0.004, 0.01, 0.02, 0.04, 0.1, 0.2, 0.4, 1.0, 2.0, 4.0)
)
"""Its equation is u_t + u u_x = (epsilon / pi) u_xx."""


def shock_cells(velocity: Tensor, length: Tensor, viscosity: Tensor, *, walls: bool) -> Tensor:
    """Cells along each side that resolve the steepest shock an initial field can form, ``(B,)`` float64.

    ``velocity (B, dim, *grid)``; length and viscosity are ``(B,)``. The jump is at most the range of a component, which
    never grows; at a wall, where the field is odd, twice the largest speed.
    """
    components = velocity.detach().double().cpu().flatten(2)
    if walls:
        jump = 2 * components.abs().amax((1, 2))
    else:
        jump = (components.amax(2) - components.amin(2)).amax(1)
    return SHOCK_FACTOR * length * jump / (2 * math.pi**2 * viscosity)


def largest_gradient(velocity: Tensor, length: Tensor, *, walls: bool) -> Tensor:
    """Largest norm of the velocity gradient ``(B,)`` float64 in 1/s, from differences of neighbouring cells."""
    velocity = velocity.detach().double().cpu()
    square = torch.zeros(len(velocity), *velocity.shape[2:], dtype=torch.float64)
    for axis, cells in enumerate(velocity.shape[2:], start=2):
        before = velocity.roll(1, axis)
        if walls:  # the neighbour of the first cell is its mirror image; that of the last one has the same difference
            before = torch.cat([-velocity[..., :1], velocity[..., :-1]], -1)
        width = (length / cells).reshape(-1, *(1,) * (velocity.ndim - 1))
        square = square + ((velocity - before) / width).square().sum(1)
    gradient = square.flatten(1).amax(1).sqrt()
    return (
        torch.maximum(gradient, 2 * velocity[..., -1].abs().amax(1) * velocity.shape[2] / length) if walls else gradient
    )


class Burgers(Problem):
    """u_t + (u . grad) u = nu lap u, periodic, or in one dimension between walls where u = 0.

    The box is [0, length]^dim: the published set-up on [-1, 1] is that on [0, 2].
    """

    name = "burgers"
    title = "Burgers' equation"
    dims = (1, 2)
    steps_by_equation = True
    frame_interval = 0.05
    solver = f"Fourier pseudo-spectral (2/3 rule), ETDRK4, rate * dt <= {COURANT:g}"
    parameters = (
        Parameter("viscosity", "m^2/s", "viscosity"),
        Parameter("length", "m", "side of the box"),
        Parameter("walls", "1", "1: u = 0 at both ends (1D only); 0: periodic", choices=(0.0, 1.0), default=0.0),
        Parameter("amplitude", "m/s", "speed of the initial field: its standard deviation (kind 0) or that of "
                  "the fastest wave (kind 1)", default=1.0),
        Parameter("kind", "1", "initial field, 0: Gaussian, 1: superposed waves (1D, periodic)",
                  choices=(GAUSSIAN, WAVES), default=GAUSSIAN),
        Parameter("draw", "1", "selects the initial field", default=0.0, draw=True),
    )  # fmt: skip
    condition_names = ("log_reynolds", "log_interval")
    lookup_weights = (1.0, 1.0)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim)
        self.fields = (FieldInfo("velocity", self.dim, "m/s", order=1),)
        if self.dim == 1:
            # The walled subset has boundaries of its own: a mixture can only be of the periodic ones.
            self.subsets, self.mixture = ("fno", "pdebench", "dgno"), ("fno", "pdebench")
            self.resolution, self.group = 256, 125
        else:
            self.subsets, self.resolution, self.group = ("viscosity", "amplitude"), 64, 4

    # ------------------------------------------------------------------------------------------------------- sampling

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """One case.

        1D: ``fno``: [0, 1], viscosity 0.1, Gaussian field N(0, 625 (-lap + 25)^-2). ``pdebench``: [0, 1], superposed
        waves, one of the twelve published viscosities that the grid resolves for these waves. ``dgno``: two units
        between walls, viscosity 0.1 / pi, Gaussian field of sines with standard deviation 0.5 (chosen here). 2D, on
        the unit square: ``viscosity``: log-uniform in 0.02..0.2 as far as the grid resolves it, standard deviation
        0.5 of both components; ``amplitude``: standard deviation uniform in 0.25..0.75 as far as the grid resolves it,
        viscosity 0.05.

        Raises ``SolverError`` where the grid resolves no case of the subset, with the resolution that is needed.
        """
        case = {"length": 1.0, "walls": 0.0, "kind": GAUSSIAN, "amplitude": 0.5, "draw": draw_number(generator)}
        low, high = 0.02, 0.2  # of the subset "viscosity"
        if subset == "fno":
            case |= {"viscosity": 0.1, "amplitude": gaussian_deviation(1, 25.0)}
        elif subset == "dgno":
            case |= {"viscosity": 0.1 / math.pi, "length": 2.0, "walls": 1.0}
        elif subset == "pdebench":
            case |= {"kind": WAVES, "amplitude": 1.0, "viscosity": PDEBENCH_VISCOSITIES[-1]}
            smallest = self._smallest_viscosity(case, resolution)
            resolved = [value for value in PDEBENCH_VISCOSITIES if value >= smallest]
            chosen = uniform(generator, 0.0, 1.0)
            if resolved:
                case["viscosity"] = resolved[int(chosen * len(resolved))]
        elif subset == "viscosity":
            smallest = self._smallest_viscosity(case, resolution)
            case["viscosity"] = log_uniform(generator, min(max(low, smallest), high), high)
        else:
            case |= {"amplitude": uniform(generator, 0.25, 0.75), "viscosity": 0.05}
            case["amplitude"] *= min(1.0, case["viscosity"] / self._smallest_viscosity(case, resolution))
        self._check_case(case, subset, resolution)
        return case

    def _smallest_viscosity(self, case: Mapping[str, float], resolution: int) -> float:
        """The viscosity at which the grid just resolves a shock of the case's initial field."""
        values = self.as_parameters({**case, "viscosity": 1.0})
        velocity = self.initial(values, resolution, dtype=torch.float64)
        walls = self._walls(values)
        return float(shock_cells(velocity, values["length"], values["viscosity"], walls=walls)) / resolution

    def _check_case(self, case: Mapping[str, float], subset: str, resolution: int) -> None:
        """Raise ``SolverError`` if the grid does not resolve the initial field of a drawn case or its shocks."""
        needed = resolution * self._smallest_viscosity(case, resolution) / case["viscosity"]
        cells = resolution
        while self._tail(case, cells) > LARGEST_TAIL:
            cells += max(1, cells // 8)
        needed = max(needed * (1 - 1e-9), cells)
        if needed > resolution:
            raise SolverError(
                f"resolution {resolution} does not resolve the fields of subset {subset!r} of {self.name!r}; use a "
                f"resolution of at least {math.ceil(needed)}"
            )

    def _tail(self, case: Mapping[str, float], resolution: int) -> float:
        from sciml.physics import burgers_box, odd_extension

        values = self.as_parameters(case)
        velocity, walls = self.initial(values, resolution, dtype=torch.float64), self._walls(values)
        box = burgers_box(self.grid(resolution), self.lengths(values), walls=walls, dtype=torch.float64)
        return float(box.tail_share(box.forward(odd_extension(velocity) if walls else velocity)))

    # ---------------------------------------------------------------------------------------------------- the solution

    def initial(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The initial velocity ``(B, dim, *grid)`` that the parameters select.

        Raises ``ConfigError`` for bad parameters, among them walls or waves in two dimensions.
        """
        values = self.as_parameters(parameters)
        walls = self._walls(values)
        velocity = initial_velocity(values["kind"], values["amplitude"], values["draw"], self.grid(resolution), walls)
        return velocity.to(device=device, dtype=dtype)

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        initial: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Solve a batch of cases: ``velocity (B, T, dim, *grid)`` and ``time (B, T)``.

        ``initial (B, dim, *grid)`` replaces the field that the parameters select. Differentiable in ``initial``.

        Raises ``ConfigError`` for bad parameters, times or initial fields and for a batch that mixes walls and periodic
        cases, ``SolverError`` where the grid does not resolve the shocks or the fields of a case.
        """
        from sciml.physics import burgers_box, burgers_transport, odd_extension
        from sciml.solvers import ExponentialSolver

        shape = self.grid(resolution)
        values = self.as_parameters(parameters)
        batch, walls = values["length"].shape[0], self._walls(values)
        times = self.frame_times(values) if times is None else as_times(times, batch)
        if initial is None:
            velocity = self.initial(values, shape, dtype=dtype, device=device)
        else:
            velocity = as_initial(initial, (batch, self.dim, *shape), dtype=dtype, device=device)
        self.check_resolved(detached(values), velocity, times[:, -1])

        box = burgers_box(shape, self.lengths(values), walls=walls, dtype=dtype, device=device)
        viscosity = values["viscosity"].to(device, dtype).reshape(-1, *(1,) * (self.dim + 1))
        largest = box.largest.reshape(batch, self.dim, *(1,) * self.dim)
        solver = ExponentialSolver(
            viscosity * box.laplacian,
            lambda spectrum: burgers_transport(box, spectrum),
            lambda spectrum: (box.inverse(spectrum).abs() * largest).sum(1).flatten(1).amax(1),
            courant=COURANT,
            tail=box.tail_share,
            largest_tail=LARGEST_TAIL,
        )
        spectrum = box.forward(odd_extension(velocity) if walls else velocity)
        frames = [velocity]
        for interval in times.diff(dim=1).unbind(1):
            spectrum = solver.advance(spectrum, interval.to(device))
            frames.append(box.inverse(spectrum)[..., : shape[-1]])
        return {"velocity": torch.stack(frames, 1), "time": times}

    def check_resolved(self, parameters: ParameterValues, velocity: Tensor, duration: Tensor) -> None:
        """Raise ``SolverError`` if an initial field may form a shock in ``duration (B,)`` that its grid cannot hold."""
        values = self.as_parameters(parameters)
        walls, length = self._walls(values), values["length"].detach()
        needed = shock_cells(velocity, length, values["viscosity"], walls=walls).detach()
        steepening = duration.detach().double().cpu() * largest_gradient(velocity, length, walls=walls)
        needed = torch.where(steepening > STEEPENED, needed, 0.0)
        worst, cells = int(needed.argmax()), min(velocity.shape[2:])
        if float(needed[worst]) > cells * (1 + 1e-6):
            raise SolverError(
                f"the initial field of case {worst} can steepen into a shock that {cells} cells do not resolve; "
                f"use a resolution of at least {math.ceil(float(needed[worst]))}, a higher viscosity or a slower field"
            )

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 64) -> Tensor:
        """Steps that the speed of the initial field asks for, ``(B,)``."""
        values = self.as_parameters(parameters)
        return 3 * (times[:, -1] - times[:, 0]) * values["amplitude"] * resolution / (COURANT * values["length"])

    def _walls(self, values: Mapping[str, Tensor]) -> bool:
        """Whether the cases have walls. Raises ``ConfigError`` if some have, or in the wrong number of dimensions."""
        walls = values["walls"] == 1.0
        if self.dim > 1 and (walls.any() or (values["kind"] == WAVES).any()):
            raise ConfigError(f"walls and waves (kind 1) exist in 1D only, not in {self.dim}D; use walls=0 and kind=0")
        if walls.any() and not walls.all():
            raise ConfigError("some cases have walls and some are periodic; solve them in separate calls")
        if (walls & (values["kind"] == WAVES)).any():
            raise ConfigError("waves (kind 1) are periodic and do not vanish at walls; use kind=0 or walls=0")
        return bool(walls.any())

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``momentum``: per component ``(B, T - 1, *grid)`` in m/s^2 between frames, trapezoidal in time."""
        from sciml.physics import burgers_residual

        velocity, times = trajectory["velocity"], trajectory["time"]
        batch, frames = velocity.shape[:2]
        values = self.as_parameters(parameters, batch)
        walls, lengths = self._walls(values), self.lengths(values).to(velocity)
        pairs = [
            burgers_residual(
                velocity[:, t], velocity[:, t + 1], times[:, t + 1] - times[:, t], lengths, values["viscosity"],
                walls=walls,
            )
            for t in range(frames - 1)
        ]  # fmt: skip
        return {"momentum": tuple(torch.stack(pairs, 1).unbind(2))}

    def start(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """``initial``."""
        return self.initial(parameters, resolution, dtype=dtype, device=device)

    def trajectory_defect(self, frames: Tensor, parameters: ParameterValues, interval: Tensor) -> Tensor:
        """Of frames ``(B, K + 1, dim, *grid)``, in m/s: with the solver's spectral operators, viscosity implicit
        (``physics.spectral_defects``); between walls on the odd extension of the field."""
        from sciml.physics import burgers_box, burgers_transport, odd_extension, of_each_frame, spectral_defects

        values, interval = self._of_steps(frames, parameters, interval)
        walls, n = self._walls(values), frames.shape[-1]
        lengths = self.lengths(values)
        box = burgers_box(tuple(frames.shape[3:]), lengths, walls=walls, dtype=frames.dtype, device=frames.device)
        viscosity = values["viscosity"].to(box.laplacian).reshape(-1, *(1,) * (self.dim + 1))
        defects = spectral_defects(
            odd_extension(frames) if walls else frames,
            interval,
            box=box,
            linear=viscosity * box.laplacian,
            nonlinear=of_each_frame(lambda spectrum: burgers_transport(box, spectrum)),
        )
        return defects[..., :n]

    def equation(
        self,
        parameters: ParameterValues,
        shape: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        initial: Tensor | None = None,
    ) -> BurgersOnTiles:
        """What ``MixtureOfExpertsConstraint`` needs of these cases on a grid of ``shape`` at ``times``, in 1D.

        ``initial (B, 1, n)`` as in ``solve``.
        """
        from sciml.constraints.mixture_of_experts import BurgersOnTiles

        if self.dim != 1:
            raise ConfigError(f"experts for Burgers' equation exist in one dimension, not in {self.dim}")
        values = self.as_parameters(parameters)
        batch, grid, walls = len(values["length"]), self.grid(shape), self._walls(values)
        if initial is None:
            initial = self.initial(values, grid, dtype=torch.float64)
        initial = as_initial(initial, (batch, 1, *grid), dtype=torch.float64, device=initial.device)
        times = self.frame_times(values) if times is None else as_times(times, batch)
        return BurgersOnTiles(
            initial[:, 0], times, values["length"], values["viscosity"], values["amplitude"], walls=walls
        )

    # ------------------------------------------------------------------------------------------------ what it declares

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """All sides are ``length``."""
        return parameters["length"].unsqueeze(-1).expand(*parameters["length"].shape, self.dim)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Walls in the subset ``dgno``, else periodic."""
        return self._sides("wall" if subset == "dgno" else "periodic")

    def side_kinds(self, parameters: Mapping[str, Tensor]) -> dict[str, str]:
        """Walls or periodic, as the parameter ``walls`` says. Raises ``ConfigError`` for cases of both."""
        return self._sides("wall" if self._walls(parameters) else "periodic")

    def conditions_on_sides(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, dict[str, Any]]:
        """The velocity: 0 at walls, or periodic."""
        from sciml.physics import Wall

        if self._walls(parameters):
            return {"velocity": self._sides(Wall())}
        return super().conditions_on_sides(parameters, shape)

    def _sides(self, value: Any) -> dict[str, Any]:
        return {f"{axis}_{side}": value for axis in "xyz"[: self.dim] for side in ("low", "high")}

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The amplitude of the initial field."""
        amplitude = parameters["amplitude"].unsqueeze(-1)
        return {"velocity": amplitude.expand(*amplitude.shape[:-1], self.dim)}

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """``log U L / nu`` and ``log U dt / L``."""
        speed, length = parameters["amplitude"], parameters["length"]
        return torch.stack([(speed * length / parameters["viscosity"]).log(), (speed * interval / length).log()], -1)

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem burgers``; in 1D a thousand cases take seconds to generate."""
        name = operator or "fno"
        options: dict[str, dict[str, Any]] = {
            "fno": {"patch_size": 2, "n_modes": [33] * self.dim, "hidden_channels": 48},
            "unet": {"patch_size": 4, "hidden_channels": [48, 64, 96]},
        }
        many: dict[str, Any] = {
            "data": {"cases": {"train": 1000, "validation": 50, "test": 100}},
            "validate_every": 500,
        }
        if self.dim == 2:
            options["fno"]["n_modes"] = [17, 17]
            many = {}
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, options, self.grid())},
            **many,
            "task": {"target": "state", "unroll": 2},
            "budget": {"minutes": 3.0 if self.dim == 2 else 2.0},
        }

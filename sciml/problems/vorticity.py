"""Two-dimensional Navier-Stokes flow on a doubly periodic square, in vorticity: decaying and forced.

Covers the data of Li et al., arXiv:2010.08895 (subset ``fno``, recorded every second up to 50 s), and the release of
PI-HC-MoE (subset ``hcmoe``, 5 s, no source). The amplitudes of their Gaussian initial fields are those of the released
generator, sigma = tau^(alpha - 1).
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
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import draw_number, log_uniform
from sciml.problems.initial_field import as_initial
from sciml.problems.random_fields import periodic_field, periodic_variance
from sciml.problems.recipes import operator_options

if TYPE_CHECKING:
    from sciml.constraints.mixture_of_experts import VorticityOnTiles
    from sciml.physics import VorticityEquation

MODES = 20
"""Modes of the random initial field along each axis: what 64 cells keep after dealiasing."""

COURANT = 1.5
"""Largest max sum_i |u_i| k_i dt: the error in time is then a hundredth of that in space, or less."""

COARSEST = {"decaying": 16, "kolmogorov": 20, "controlled": 16, "fno": 48, "hcmoe": 48}
"""Cells along a side that hold the fields of a subset: its source (16 do not hold four waves) and its random field."""

SMOOTH_BELOW = 48
"""Cells along a side under which drawn initial fields are smoother: the usual ones fill such a grid's last modes."""

CONTROL_WAVES = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, -1.0))
"""Waves along x and y of the sources in the subset ``controlled``: the longest of the box."""

CONTROL_FORCING = 6.0
"""Largest amplitude of these sources in 1/s^2."""

FORCED_SPEED_UP = 1.3
"""Vorticity (r.m.s.) of a forced flow in units of the square root of the source, as measured (1.2 to 1.4)."""

OPERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "fno": {"patch_size": 2, "n_modes": [23, 23], "hidden_channels": 32},
    "unet": {"patch_size": 2, "hidden_channels": [48, 64, 96]},
}
"""Constructor arguments of the operators in the default recipe."""


class Vorticity(Problem):
    """Vorticity of an incompressible flow on a periodic square, from a Gaussian random field.

        dw/dt + u . grad w = viscosity Laplacian w - drag w + forcing cos(2 pi (kx x + ky y) / L + phase)

    The initial field has the covariance sigma^2 (-Laplacian + 1 / scale^2)^-smoothness, with sigma such that
    ``initial_amplitude`` is its r.m.s. over all draws; its mean, like that of every periodic vorticity, is zero.
    """

    name = "vorticity"
    title = "Periodic flow in vorticity"
    learned = ("vorticity",)
    steps_by_equation = True
    group = 4
    frame_interval = 0.5
    solver = f"pseudo-spectral, 2/3 rule, ETDRK4, Courant number {COURANT}"
    fields = (FieldInfo("vorticity", 1, "1/s", order=0),)
    parameters = (
        Parameter("viscosity", "m^2/s", "kinematic viscosity of the fluid"),
        Parameter("drag", "1/s", "rate of a linear drag", sign="nonnegative", default=0.0),
        Parameter("forcing", "1/s^2", "amplitude of the source of vorticity", sign="nonnegative", default=0.0),
        Parameter("forcing_wavenumber_x", "1", "waves of the source along x", sign="any", default=0.0),
        Parameter("forcing_wavenumber_y", "1", "waves of the source along y", sign="any", default=4.0),
        Parameter("forcing_phase", "rad", "phase of the source at the low corner", sign="any", default=0.0),
        Parameter("initial_amplitude", "1/s", "r.m.s. vorticity of the initial field, over all draws", default=3.0),
        Parameter("initial_scale", "m", "length beyond which the initial field is uncorrelated", default=1 / 7),
        Parameter("initial_smoothness", "1", "decay alpha of the initial field's spectrum", default=2.5),
        Parameter("length", "m", "side of the square", default=1.0),
        Parameter("draw", "1", "selects the random initial field", default=0.0, draw=True),
    )
    subsets = ("decaying", "kolmogorov", "controlled", "fno", "hcmoe")
    mixture = ("decaying", "kolmogorov")
    condition_names = (
        "log_reynolds",
        "log_interval",
        "drag",
        "source_cosine",
        "source_sine",
        "source_wavenumber_x",
        "source_wavenumber_y",
    )
    lookup_weights = (1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.25)

    # --------------------------------------------------------------------------------------------------- sampling

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """One case.

        ``decaying``: no source, viscosity log-uniform in 2e-4..1e-3 m^2/s, or from what the grid resolves to five times
        that on a coarser one; ``kolmogorov``: also a source of 3 1/s^2 with four waves along x or y, and a drag of
        0.1 1/s; ``controlled``: a source of random amplitude up to 6 1/s^2 and random phase with one of the longest
        waves of the box, along x, y or a diagonal (``CONTROL_WAVES``), no drag; ``fno``: viscosity 1e-3 m^2/s and the
        source 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y)); ``hcmoe``: viscosity 1e-4 m^2/s, no source.
        """
        if resolution < COARSEST[subset]:
            raise SolverError(
                f"resolution {resolution} is too coarse for the fields of the subset {subset!r}; use a resolution of "
                f"at least {COARSEST[subset]}"
            )
        case: dict[str, float] = {"draw": draw_number(generator)}
        if subset == "fno":
            case |= {"viscosity": 1e-3, "forcing": 0.1 * math.sqrt(2), "forcing_phase": -math.pi / 4}
            case |= {"forcing_wavenumber_x": 1.0, "forcing_wavenumber_y": 1.0, **_published_field(7.0)}
        elif subset == "hcmoe":
            case |= {"viscosity": 1e-4, **_published_field(3.0)}
        else:
            case |= {"viscosity": 1.0, "initial_smoothness": 2.5 if resolution >= SMOOTH_BELOW else 4.0}
            if subset == "kolmogorov":
                along_x = bool(torch.rand((), generator=generator) < 0.5)
                waves = {"forcing_wavenumber_x": 4.0 * along_x, "forcing_wavenumber_y": 4.0 * (not along_x)}
                case |= {"forcing": 3.0, "drag": 0.1, **waves}
            elif subset == "controlled":
                along_x, along_y = CONTROL_WAVES[int(torch.randint(len(CONTROL_WAVES), (), generator=generator))]
                amplitude, turns = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
                case |= {"forcing_wavenumber_x": along_x, "forcing_wavenumber_y": along_y}
                # Phases of two turns: any angle in (-pi, pi) is then well inside the range that training has seen.
                case |= {"forcing": CONTROL_FORCING * amplitude, "forcing_phase": 2 * math.pi * (2 * turns - 1)}
            # The viscosity lowers the estimated vorticity, if at all: the estimate without it is on the safe side.
            vorticity = float(self.scales(self.as_parameters({**case, "viscosity": 1e-9}))["vorticity"])
            lowest = max(2e-4, vorticity / _largest_wavenumber((resolution,) * 2, 1.0) ** 2)
            case["viscosity"] = log_uniform(generator, lowest, 5 * lowest)
            return case
        return case

    def check_resolved(self, parameters: ParameterValues, resolution: Sequence[int]) -> None:
        """Raise ``SolverError`` if the grid does not resolve a case's smallest eddies.

        Their size is sqrt(viscosity / w) with the vorticity w of ``scales``; its product with the largest wavenumber
        that the 2/3 rule keeps has to be 1 at least (1 % error after a few turns of an eddy at 64 x 64).
        """
        values = self.as_parameters(parameters)
        eddy = (values["viscosity"] / self.scales(values)["vorticity"][:, 0]).sqrt() / values["length"]
        resolved = eddy * _largest_wavenumber(resolution, 1.0)
        worst = int(resolved.argmin())
        if float(resolved[worst]) < 1 - 1e-6:
            needed = 3 * math.ceil(1 / (2 * math.pi * float(eddy[worst]))) + 1
            raise SolverError(
                f"case {worst}: the smallest eddies measure {float(eddy[worst]):.3g} of the box, a "
                f"{'x'.join(map(str, resolution))} grid resolves {1 / _largest_wavenumber(resolution, 1.0):.3g}. Use "
                f"resolution >= {needed}, or raise the viscosity, or lower initial_amplitude or forcing"
            )

    # ------------------------------------------------------------------------------------------------- the solution

    def initial(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The random initial vorticity ``(B, 1, nx, ny)`` that the parameters select."""
        values = self.as_parameters(parameters)
        spectrum = {"alpha": values["initial_smoothness"], "tau": values["length"] / values["initial_scale"]}
        sigma = values["initial_amplitude"] / periodic_variance(2, **spectrum, modes=MODES).sqrt()
        shape = self.grid(resolution)
        return periodic_field(values["draw"], shape, **spectrum, sigma=sigma, modes=MODES, dtype=dtype, device=device)

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        initial: Tensor | None = None,
        steps: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """``vorticity (B, T, 1, nx, ny)`` and ``time (B, T)``.

        ``times``: ``(T,)`` or ``(B, T)`` in seconds from 0. ``initial (B, 1, nx, ny)``: start from this field with zero
        mean, on its own grid, instead of a random one; ``initial_amplitude`` is then only the unit of ``scales``.
        ``steps``: solver steps from frame to frame instead of those of the Courant number.

        Raises ``ConfigError`` for bad parameters, times or initial fields, ``SolverError`` for what the grid does not
        resolve and for too few ``steps``.
        """
        from sciml.solvers import ExponentialSolver

        values = self.as_parameters(parameters, None if initial is None or initial.ndim != 4 else initial.shape[0])
        batch = values["viscosity"].shape[0]
        times = self.frame_times(values) if times is None else as_times(times, batch)
        if initial is None:
            shape = self.grid(resolution)
            self.check_resolved(detached(values), shape)
            initial = self.initial(values, shape, dtype, device)
        else:
            shape = self.grid(tuple(initial.shape[2:]) if resolution is None and initial.ndim == 4 else resolution)
            initial = as_initial(initial, (batch, 1, *shape), dtype=dtype, device=device)
            _check_mean(initial)
        equation = self._equation(values, shape, dtype=dtype, device=device)
        box = equation.box
        solver = ExponentialSolver(
            equation.linear, equation.nonlinear, equation.rate, courant=COURANT, tail=box.tail_share
        )
        spectrum, frames = box.forward(initial), [initial]
        for interval in times.diff(dim=1).unbind(1):
            spectrum = solver.advance(spectrum, interval, steps)
            frames.append(box.inverse(spectrum))
        return {"vorticity": torch.stack(frames, 1), "time": times}

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 64) -> Tensor:
        """Steps that the Courant number asks for, ``(B,)``; a speed of 0.25 w L was measured."""
        values = self.as_parameters(parameters)
        speed = 0.25 * self.scales(values)["vorticity"][:, 0]  # in box lengths per second
        return (times[:, -1] - times[:, 0]) * speed * 2 * math.pi * (resolution - 1) / 3 / COURANT

    def velocity(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> Tensor:
        """Velocity ``(B, T, 2, nx, ny)`` in m/s of a trajectory."""
        vorticity = trajectory["vorticity"]
        equation = self._equation_of(vorticity, parameters)
        return equation.velocity(vorticity.flatten(0, 1)).unflatten(0, vorticity.shape[:2])

    def energy_budget(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, Tensor]:
        """``energy``, ``enstrophy``, ``injection``, ``dissipation`` and ``drag`` of every frame, each ``(B, T)``.

        Means over the box as in ``sciml.physics.EnergyBudget``; d energy / dt = injection - dissipation - drag.
        """
        from sciml.physics import energy_budget

        vorticity = trajectory["vorticity"]
        budget = energy_budget(vorticity.flatten(0, 1), equation=self._equation_of(vorticity, parameters))
        return {name: value.unflatten(0, vorticity.shape[:2]) for name, value in vars(budget).items()}

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``vorticity``: ``((B, T - 1, nx, ny),)`` in 1/s^2 between consecutive frames, trapezoidal in time.

        With the spectral operators of the solver: of its own trajectory it is O(interval^2).
        """
        from sciml.physics import vorticity_residual

        vorticity, time = trajectory["vorticity"], trajectory["time"]
        before, after = vorticity[:, :-1], vorticity[:, 1:]
        equation = self._equation_of(before, parameters)
        dt = time.diff(dim=1).flatten()
        residual = vorticity_residual(before.flatten(0, 1), after.flatten(0, 1), dt, equation=equation)
        return {"vorticity": (residual[:, 0].unflatten(0, before.shape[:2]),)}

    def start(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """``initial``."""
        return self.initial(parameters, resolution, dtype, device)

    def trajectory_defect(self, frames: Tensor, parameters: ParameterValues, interval: Tensor) -> Tensor:
        """Of frames ``(B, K + 1, 1, nx, ny)``, in 1/s: with the solver's spectral operators, viscosity and drag
        implicit (``physics.spectral_defects``). The mean of the vorticity counts like any other mode."""
        from sciml.physics import spectral_defects

        values, interval = self._of_steps(frames, parameters, interval)
        equation = self._equation(values, frames.shape[3:], dtype=frames.dtype, device=frames.device)
        return spectral_defects(
            frames, interval, box=equation.box, linear=equation.linear, nonlinear=equation.nonlinear
        )

    def equation(
        self,
        parameters: ParameterValues,
        shape: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        initial: Tensor | None = None,
    ) -> VorticityOnTiles:
        """What ``MixtureOfExpertsConstraint`` needs of these cases on a grid of ``shape`` at ``times``.

        ``initial (B, 1, nx, ny)`` as in ``solve``.
        """
        from sciml.constraints.mixture_of_experts import VorticityOnTiles

        values = self.as_parameters(parameters)
        batch, grid = len(values["length"]), self.grid(shape)
        if initial is None:
            initial = self.initial(values, grid, dtype=torch.float64)
        initial = as_initial(initial, (batch, 1, *grid), dtype=torch.float64, device=initial.device)
        _check_mean(initial)
        times = self.frame_times(values) if times is None else as_times(times, batch)
        terms = self._equation(values, grid, dtype=torch.float64, device=initial.device)
        return VorticityOnTiles(terms, initial[:, 0], times, self.scales(values)["vorticity"][:, 0])

    def _equation_of(self, vorticity: Tensor, parameters: ParameterValues) -> VorticityEquation:
        """For all frames of ``(B, T, 1, nx, ny)`` at once, a batch of B T."""
        batch, frames = vorticity.shape[:2]
        values = self.as_parameters(parameters, batch)
        repeated = {name: value.repeat_interleave(frames, 0) for name, value in values.items()}
        return self._equation(repeated, vorticity.shape[3:], dtype=vorticity.dtype, device=vorticity.device)

    def _equation(
        self, values: Mapping[str, Tensor], shape: Sequence[int], *, dtype: torch.dtype, device: torch.device | str
    ) -> VorticityEquation:
        from sciml.physics import PeriodicBox, VorticityEquation

        varying = [name for name, value in values.items() if value.ndim > 1]
        if varying:
            raise ConfigError(f"{', '.join(varying)} changes in time; {self.name!r} takes one value for each case")
        box = PeriodicBox(shape, self.lengths(values), dtype=dtype, device=device)
        source = _source(values, shape) if bool((values["forcing"] > 0).any()) else None
        return VorticityEquation(box, values["viscosity"], values["drag"], source)

    # ------------------------------------------------------------------------------------------------------ learning

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An estimate of the r.m.s. vorticity: of the initial field, and of the flow that the source drives.

        The latter is sqrt(forcing) times a measured constant, or the steady flow of the source alone if that is weaker.
        """
        p = parameters
        square = (2 * math.pi / p["length"]) ** 2 * (p["forcing_wavenumber_x"] ** 2 + p["forcing_wavenumber_y"] ** 2)
        steady = p["forcing"] / math.sqrt(2) / (p["viscosity"] * square + p["drag"]).clamp(min=1e-30)
        # The clamp keeps the gradient finite where there is no source.
        driven = torch.minimum(FORCED_SPEED_UP * p["forcing"].clamp(min=1e-30).sqrt(), steady)
        return {"vorticity": torch.hypot(p["initial_amplitude"], driven).unsqueeze(-1)}

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """All that the dimensionless flow depends on, with the unit W of ``scales`` and the interval dt.

        ``log W L^2 / viscosity``, ``log W dt``, ``drag dt``, the source's cosine and sine parts times ``dt / W`` and
        its wavenumbers (0 where there is no source).
        """
        p = parameters
        unit = self.scales(p)["vorticity"][..., 0]
        source = p["forcing"] * interval / unit
        forced = (p["forcing"] > 0).to(source)
        values = (
            (unit * p["length"] ** 2 / p["viscosity"]).log(),
            (unit * interval).log(),
            p["drag"] * interval,
            source * p["forcing_phase"].cos(),
            source * p["forcing_phase"].sin(),
            p["forcing_wavenumber_x"] * forced,
            p["forcing_wavenumber_y"] * forced,
        )
        return torch.stack(values, -1)

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem vorticity``."""
        name = operator or "unet"
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS, self.grid())},
            "task": {"target": "increment", "unroll": 2, "unroll_from": 0.6},
            "budget": {"minutes": 5.0},
        }

    # ------------------------------------------------------------------------------------------------------- on disk

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The side, twice."""
        return torch.stack([parameters["length"]] * 2, -1)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Periodic on all sides."""
        return dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), "periodic")


def _published_field(tau: float) -> dict[str, float]:
    """The initial field of the released generators on the unit box: alpha 2.5, sigma = tau^(alpha - 1)."""
    alpha = 2.5
    amplitude = periodic_variance(2, alpha=alpha, tau=tau, sigma=tau ** (alpha - 1), modes=MODES).sqrt()
    return {"initial_amplitude": float(amplitude), "initial_scale": 1 / tau, "initial_smoothness": alpha}


def _largest_wavenumber(resolution: Sequence[int], length: float) -> float:
    """Largest wavenumber that the 2/3 rule keeps on every axis, in rad/m."""
    return 2 * math.pi * ((min(resolution) - 1) // 3) / length


def _check_mean(vorticity: Tensor) -> None:
    """Raise ``ConfigError`` for fields ``(B, 1, nx, ny)`` whose mean is more than round-off."""
    field = vorticity.detach().double().flatten(1)
    off = field.mean(1).abs() > 1e-4 * field.square().mean(1).sqrt()
    if bool(off.any()):
        case = int(off.nonzero()[0])
        raise ConfigError(
            f"initial has the mean {float(field[case].mean()):.3g} in case {case}; vorticity on a periodic box has "
            "zero mean: subtract it"
        )


def _source(values: Mapping[str, Tensor], shape: Sequence[int]) -> Tensor:
    """The source of vorticity ``(B, 1, nx, ny)`` in 1/s^2.

    Raises ``ConfigError`` for wavenumbers that are not whole or both 0, ``SolverError`` for waves that are too short.
    """
    forced = values["forcing"] > 0
    waves = [values[f"forcing_wavenumber_{axis}"] for axis in "xy"]
    for axis, k, n in zip("xy", waves, shape, strict=True):
        broken = forced & (k != k.round())
        if bool(broken.any()):
            case = int(broken.nonzero()[0])
            raise ConfigError(
                f"forcing_wavenumber_{axis} of case {case} is {float(k[case]):g}; a periodic source needs a whole "
                "number of waves along the box"
            )
        short = forced & (3 * k.abs() >= n)
        if bool(short.any()):
            case = int(short.nonzero()[0])
            raise SolverError(
                f"resolution too coarse: {n} cells hold sources of up to {(n - 1) // 3} waves along {axis}, case "
                f"{case} has {float(k[case]):g}; use a resolution of at least {3 * int(k[case].abs()) + 1}"
            )
    uniform = forced & (waves[0] == 0) & (waves[1] == 0)
    if bool(uniform.any()):
        case = int(uniform.nonzero()[0])
        raise ConfigError(
            f"the source of case {case} is uniform (both wavenumbers are 0), but vorticity on a periodic box has zero "
            "mean; give it a wavenumber"
        )
    x, y = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in shape)
    column = (-1, 1, 1, 1)
    angle = 2 * math.pi * (waves[0].reshape(column) * x[:, None] + waves[1].reshape(column) * y)
    return values["forcing"].reshape(column) * torch.cos(angle + values["forcing_phase"].reshape(column))

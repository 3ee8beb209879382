"""Diffusion-sorption: a solute enters a soil column at one end, clings to the grains and leaves at the other end.

R(u) u_t = D u_xx with the Freundlich retardation R of ``sciml.physics.diffusion_sorption``, u = inlet at x = 0,
-D u_x = u (times 1 m/s) at x = L. Set up as PDEBench's 1D problem (Takamoto et al., arXiv:2210.07182).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.errors import ConfigError
from sciml.problems.base import Problem, as_times
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import log_uniform, uniform
from sciml.problems.recipes import operator_options

if TYPE_CHECKING:
    from sciml.constraints.mixture_of_experts import SorptionOnTiles

EXIT_VELOCITY = 1.0
"""m/s at which the solute is carried off at x = L, as in PDEBench: so fast that u is almost 0 there."""

PUBLISHED = {
    "diffusivity": 5e-4,
    "porosity": 0.29,
    "bulk_density": 2880.0,
    "freundlich": 3.5e-4,
    "exponent": 0.874,
    "inlet": 1.0,
    "length": 1.0,
}
"""PDEBench's constants: the defaults."""

OPERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"dim": 1, "patch_size": 2, "hidden_channels": [32, 48, 64, 96]},
    "fno": {"patch_size": 1, "n_modes": [32], "hidden_channels": 48},
}
"""Constructor arguments of the operators in the default recipe."""


class DiffusionSorption(Problem):
    """Diffusion with Freundlich sorption in a column of soil, from a uniform concentration.

    Subsets: ``pdebench``: PDEBench's constants, initial concentration uniform in (0, 0.2); ``soil``: diffusivity,
    porosity, Freundlich coefficient and exponent drawn too. The published data have 1024 cells and 101 frames 5 s
    apart: ``solve(parameters, 1024, torch.linspace(0, 500, 101))``. Its generator puts the inlet value half a cell
    outside of the column; here it is on the boundary, so that the two agree to first order in the cell.
    """

    name = "diffusion_sorption"
    title = "Diffusion with sorption"
    dims = (1,)
    learned = ("concentration",)
    resolution = 128
    frames = 51
    frame_interval = 10.0
    group: ClassVar[int] = 100
    solver = "finite volumes, second-order Runge-Kutta-Legendre super time stepping"
    boundary_parameters: ClassVar[Mapping[str, str]] = {"x_low": "inlet"}
    fields = (FieldInfo("concentration", 1, "kg/m^3", order=0),)
    parameters = (
        Parameter("diffusivity", "m^2/s", "diffusivity D", default=PUBLISHED["diffusivity"]),
        Parameter("porosity", "1", "pore volume per volume, below 1", default=PUBLISHED["porosity"]),
        Parameter("bulk_density", "kg/m^3", "density of the dry soil", default=PUBLISHED["bulk_density"]),
        Parameter("freundlich", "(m^3/kg)^n", "k of the sorption isotherm k u^n", default=PUBLISHED["freundlich"]),
        Parameter("exponent", "1", "n of the sorption isotherm k u^n", default=PUBLISHED["exponent"]),
        Parameter("inlet", "kg/m^3", "concentration at x = 0", default=PUBLISHED["inlet"]),
        Parameter("length", "m", "length of the column", default=PUBLISHED["length"]),
        Parameter("initial", "kg/m^3", "uniform concentration at the start", sign="nonnegative"),
    )
    subsets = ("pdebench", "soil")
    condition_names = ("log_fourier", "log_sorption", "exponent")
    lookup_weights = (1.0, 1.0, 1.0)

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """A case of ``pdebench`` or ``soil``; every grid resolves it, some time after the start."""
        case = {**PUBLISHED, "initial": uniform(generator, 0.0, 0.2)}
        if subset == "soil":
            case["diffusivity"] = log_uniform(generator, 2.5e-4, 1e-3)
            case["porosity"] = uniform(generator, 0.2, 0.5)
            case["freundlich"] = log_uniform(generator, 1e-4, 7e-4)
            case["exponent"] = uniform(generator, 0.75, 1.0)
        return case

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The length of the column."""
        return parameters["length"].unsqueeze(-1)

    def initial(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The uniform concentration at the start, ``(B, 1, n)``."""
        values = self._values(parameters)["initial"].to(device=device, dtype=dtype)
        return values[:, None, None].expand(-1, 1, *self.grid(resolution))

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        initial: Tensor | None = None,
        largest_change: float = 0.02,
        max_stages: int = 41,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """``concentration (B, T, 1, n)`` and ``time (B, T)``; computed in float64, as the steps are small.

        ``times``: ``(T,)`` or ``(B, T)`` in seconds, increasing from 0. ``initial (B, 1, n)``: the concentration to
        start from, in place of the uniform one (then the grid is its grid and the parameter ``initial`` has no
        effect); it may require a gradient. ``largest_change``, ``max_stages``: see ``RungeKuttaLegendre``.

        Raises ``ConfigError`` for a porosity of 1 or more or an ``initial`` of the wrong shape, negative or not
        finite.
        """
        from sciml.physics import sorption_rate, sorption_spectral_radius
        from sciml.solvers import RungeKuttaLegendre

        if initial is None:
            values = self._values(parameters)
            initial = self.initial(values, resolution, dtype=torch.float64, device=device)
        else:
            initial = self._check_initial(initial, resolution).to(device=device, dtype=torch.float64)
            batch = initial.shape[0]
            values = self._values({"initial": 0.0, **parameters}, batch if batch > 1 else None)
            initial = initial.expand(len(values["length"]), *initial.shape[1:])
        batch = initial.shape[0]
        times = self.frame_times(values) if times is None else as_times(times, batch)
        soil = _soil(values, initial)
        length, inlet = values["length"].to(initial), values["inlet"].to(initial)
        solver = RungeKuttaLegendre(
            lambda u: sorption_rate(u, soil, length, inlet, EXIT_VELOCITY),
            lambda u: sorption_spectral_radius(u, soil, length, inlet),
            torch.maximum(inlet, initial.detach().flatten(1).amax(1)),
            largest_change=largest_change,
            max_stages=max_stages,
        )
        frames = [initial[:, 0]]
        for interval in times.diff(dim=1).unbind(1):
            frames.append(solver.advance(frames[-1], interval))
        return {"concentration": torch.stack(frames, 1).unsqueeze(2).to(dtype), "time": times}

    def _values(self, parameters: ParameterValues, batch: int | None = None) -> dict[str, Tensor]:
        """Checked parameters. Raises ``ConfigError`` for a porosity of 1 or more or one that changes in time."""
        values = self.as_parameters(parameters, batch)
        for name, value in values.items():
            if value.ndim > 1:
                raise ConfigError(f"parameter {name!r} has shape {tuple(value.shape)}; it cannot change in time here")
        solid = values["porosity"] >= 1
        if solid.any():
            case = int(solid.nonzero()[0])
            raise ConfigError(
                f"parameter 'porosity' of case {case} is {float(values['porosity'][case]):g}; it must be below 1"
            )
        return values

    def _check_initial(self, initial: Tensor, resolution: int | Sequence[int] | None) -> Tensor:
        shape = tuple(initial.shape)
        expected = "n" if resolution is None else str(self.grid(resolution)[0])
        if len(shape) != 3 or shape[1] != 1 or self.grid(shape[2:]) != self.grid(resolution or shape[2:]):
            raise ConfigError(f"initial has shape {shape}; expected (B, 1, {expected})")
        bad = ~(torch.isfinite(initial) & (initial >= 0)).flatten(1).all(1)
        if bad.any():
            raise ConfigError(f"initial of case {int(bad.nonzero()[0])} is not a finite concentration of at least 0")
        return initial

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 128) -> Tensor:
        """Stages, which grow with the root of D t / h^2."""
        values = self.as_parameters(parameters)
        span = times[:, -1] - times[:, 0]
        return (values["diffusivity"] * span).sqrt() * resolution / values["length"]

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``transport``: u_t - D u_xx / R(u) between consecutive frames, trapezoidal in time, ``((B, T - 1, n),)``.

        In kg/m^3/s; it falls with the square of the frame spacing.
        """
        from sciml.physics import sorption_residual

        u = trajectory["concentration"][:, :, 0]
        values = self._values({"initial": 0.0, **parameters}, u.shape[0])
        soil, length, inlet = _soil(values, u), values["length"].to(u), values["inlet"].to(u)
        spacing = trajectory["time"].diff(dim=1).to(u)
        residuals = [
            sorption_residual(u[:, t], u[:, t + 1], spacing[:, t], soil, length, inlet, EXIT_VELOCITY)
            for t in range(u.shape[1] - 1)
        ]
        return {"transport": (torch.stack(residuals, 1),)}

    def equation(
        self,
        parameters: ParameterValues,
        shape: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        initial: Tensor | None = None,
    ) -> SorptionOnTiles:
        """What ``MixtureOfExpertsConstraint`` needs of these cases on a grid of ``shape`` at ``times``.

        ``initial (B, 1, n)`` as in ``solve``. As the column starts with a jump at the inlet, early frames should be
        close together.
        """
        from sciml.constraints.mixture_of_experts import SorptionOnTiles

        values = self._values({"initial": 0.0, **parameters})
        if initial is None:
            initial = self.initial(values, shape, dtype=torch.float64)
        else:
            initial = self._check_initial(initial, shape).double().expand(len(values["length"]), -1, -1)
        times = self.frame_times(values) if times is None else as_times(times, len(initial))
        soil = _soil(values, initial)
        return SorptionOnTiles(initial[:, 0], times, soil, values["length"], values["inlet"], EXIT_VELOCITY)

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The concentration at the inlet."""
        return {"concentration": parameters["inlet"].unsqueeze(-1)}

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """``log D dt / L^2``, the log of R - 1 at the inlet's concentration, the exponent n."""
        p = parameters
        fourier = p["diffusivity"] * interval / p["length"] ** 2
        ratio = (1 - p["porosity"]) / p["porosity"] * p["bulk_density"]
        sorption = ratio * p["freundlich"] * p["exponent"] * p["inlet"] ** (p["exponent"] - 1)
        return torch.stack([fourier.log(), sorption.log(), p["exponent"]], -1)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """An inlet of known concentration and an outlet (a mixed condition)."""
        return {"x_low": "inlet", "x_high": "outlet"}

    def conditions_on_sides(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, dict[str, Any]]:
        """The concentration: that of the inlet; v u + D du/dx = 0 at the outlet."""
        from sciml.physics import Dirichlet, Robin

        outlet = Robin(a=EXIT_VELOCITY, b=parameters["diffusivity"])
        return {"concentration": {"x_low": Dirichlet(parameters["inlet"]), "x_high": outlet}}

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem diffusion_sorption``."""
        name = operator or "unet"
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS, self.grid())},
            "task": {"target": "increment", "unroll": 2},
            "budget": {"minutes": 1.5},
        }


def _soil(values: Mapping[str, Tensor], like: Tensor) -> Any:
    from sciml.physics import Soil

    names = ("diffusivity", "porosity", "bulk_density", "freundlich", "exponent")
    return Soil(*(values[name].to(like) for name in names))

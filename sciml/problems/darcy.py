"""Darcy flow: the steady pressure of a fluid that is produced uniformly in a porous square with open sides.

-div(a grad u) = f in the square, u = 0 on its sides; permeability a (over viscosity) is given, pressure u follows.
The published problems are dimensionless; read as SI units here, with a in m^2/(Pa s), u in Pa and f in 1/s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.errors import ConfigError
from sciml.problems.base import Problem
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import draw_number
from sciml.problems.random_fields import cosine_field
from sciml.problems.recipes import operator_options

if TYPE_CHECKING:
    from sciml.constraints.mixture_of_experts import DarcyOnTiles

ALPHA, TAU = 2.0, 3.0
"""Covariance (-Laplacian + 9)^-2 of the Gaussian field, of Li et al., arXiv:2010.08895."""

SUBSETS: dict[str, dict[str, float]] = {
    "fno": {"low": 3.0, "high": 12.0, "source": 1.0, "piecewise": 1.0},
    "dgno_piecewise": {"low": 5.0, "high": 10.0, "source": 10.0, "piecewise": 1.0},
    "smooth": {"low": 3.0, "high": 12.0, "source": 10.0, "piecewise": 0.0},
}

OPERATOR_OPTIONS: dict[str, dict[str, Any]] = {
    "unet": {"patch_size": 2, "hidden_channels": [32, 48, 64, 96]},
    "fno": {"patch_size": 2, "n_modes": [15, 15], "hidden_channels": 32},
}
"""Constructor arguments of the operators in the default recipe."""


class Darcy(Problem):
    """Steady Darcy flow in a square with a random permeability: permeability -> pressure.

    Subsets, all on the unit square with u = 0 on the sides and a Gaussian field g of covariance
    (-Laplacian + 9)^-2 with cosine modes, scaled to variance 1:

    - ``fno``: a = 12 where g >= 0 and 3 elsewhere, f = 1 (Li et al., arXiv:2010.08895);
    - ``dgno_piecewise``: a = 10 and 5, f = 10 (Zang et al., arXiv:2502.06250, published on 29 x 29 cells);
    - ``smooth``: f = 10 as in the smooth Darcy problem of Zang et al.; the law of a is ours, as theirs is not stated
      (``sciml.problems.weak`` has that of their pictures): log-normal, a = sqrt(low high) (high / low)^(g / 4)
      with low 3 and high 12, which are two standard deviations
      from the median.

    PDEBench's Darcy problem is left out: its generator (u with no slope on the sides, permeability switched at the mean
    over a batch of 200 cases) is not the problem that its paper states.
    """

    name = "darcy"
    title = "Darcy flow"
    static = True
    given = ("permeability",)
    learned = ("pressure",)
    group: ClassVar[int] = 100
    solver = "finite volumes with harmonic faces, conjugate gradients preconditioned by fast diagonalisation"
    fields = (
        FieldInfo("permeability", 1, "m^2/(Pa s)", order=0),
        FieldInfo("pressure", 1, "Pa", order=0),
    )
    parameters = (
        Parameter("low", "m^2/(Pa s)", "lower permeability"),
        Parameter("high", "m^2/(Pa s)", "higher permeability"),
        Parameter("source", "1/s", "volume of fluid produced per volume and second"),
        Parameter("piecewise", "1", "1: two values of permeability, 0: log-normal", choices=(0.0, 1.0), default=1.0),
        Parameter("length", "m", "side of the square", default=1.0),
        Parameter("draw", "1", "selects the random field of permeability", draw=True, default=0.0),
    )
    subsets = ("fno", "smooth", "dgno_piecewise")
    condition_names = ("log_contrast", "piecewise")
    lookup_weights = (1.0, 1.0)

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """The constants of the subset and a field; every grid resolves them (on its own cells)."""
        return {**SUBSETS[subset], "length": 1.0, "draw": draw_number(generator)}

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The side, twice."""
        return parameters["length"].unsqueeze(-1).expand(*parameters["length"].shape, 2)

    def permeability(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The permeability of each case at the cell centres, ``(B, 1, nx, ny)``, from its ``draw``."""
        values = self.as_parameters(parameters)
        field = cosine_field(values["draw"], self.grid(resolution), alpha=ALPHA, tau=TAU, dtype=torch.float64)
        low, high, piecewise = (values[name].reshape(-1, 1, 1, 1) for name in ("low", "high", "piecewise"))
        two_values = torch.where(field >= 0, high, low)
        smooth = (low * high).sqrt() * (high / low) ** (field / 4)
        return torch.where(piecewise == 1, two_values, smooth).to(device=device, dtype=dtype)

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        permeability: Tensor | None = None,
        tolerance: float | None = None,
        max_iterations: int = 200,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """The steady pressure: ``permeability`` and ``pressure (B, 1, 1, nx, ny)``, ``time (B, 1)`` zeros.

        ``permeability (B, 1, nx, ny)`` or ``(1, 1, nx, ny)`` takes the place of the random field (then the grid is its
        grid and the parameters ``low``, ``high``, ``piecewise`` and ``draw`` have no effect) and may require a
        gradient. The equation is solved in float64, to a relative residual of ``tolerance`` (1e-7 for float32, else
        1e-10).

        Raises ``ConfigError`` for other times than 0, for a permeability of the wrong shape or one that is not
        positive and finite; ``SolverError`` naming the case that does not converge in ``max_iterations``.
        """
        from sciml.solvers import solve_darcy

        if permeability is None:
            values = self.as_parameters(parameters)
            permeability = self.permeability(values, resolution, dtype=dtype, device=device)
        else:
            permeability = self._check_permeability(permeability, resolution).to(device=device, dtype=dtype)
            batch = permeability.shape[0]
            values = self.as_parameters(parameters, batch if batch > 1 else None)
            permeability = permeability.expand(len(values["source"]), *permeability.shape[1:])
        batch = len(values["source"])
        self._check_times(times)
        pressure = solve_darcy(
            permeability[:, 0],
            values["source"].to(device),
            self.lengths(values).to(device),
            _open_sides(),
            tolerance=tolerance,
            max_iterations=max_iterations,
        )
        return {
            "permeability": permeability.unsqueeze(1),
            "pressure": pressure[:, None, None],
            "time": torch.zeros(batch, 1, dtype=torch.float64),
        }

    def _check_permeability(self, permeability: Tensor, resolution: int | Sequence[int] | None) -> Tensor:
        """Raises ``ConfigError`` unless it is ``(B, 1, nx, ny)`` and, where a resolution is given, of that."""
        shape = tuple(permeability.shape)
        expected = "nx, ny" if resolution is None else ", ".join(map(str, self.grid(resolution)))
        if len(shape) != 4 or shape[1] != 1 or self.grid(shape[2:]) != self.grid(resolution or shape[2:]):
            raise ConfigError(f"permeability has shape {shape}; expected (B, 1, {expected})")
        return permeability

    def _check_times(self, times: Tensor | Sequence[float] | None) -> None:
        given = [0.0] if times is None else torch.as_tensor(times, dtype=torch.float64).unique().tolist()
        if given != [0.0]:
            raise ConfigError(
                f"problem 'darcy' is static: it has one frame, at time 0, and times {given} were asked for; leave them "
                "out"
            )

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 64) -> Tensor:
        """Iterations, relative to a constant permeability: the root of the contrast where it jumps."""
        values = self.as_parameters(parameters)
        contrast = (values["high"] / values["low"]).log().abs().exp()
        return torch.where(values["piecewise"] == 1, contrast.sqrt(), 1.0)

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``balance``: -div(a grad u) - f in 1/s with the trajectory's own permeability, ``((B, 1, nx, ny),)``."""
        from sciml.physics import darcy_residual

        pressure, permeability = trajectory["pressure"], trajectory["permeability"]
        values = self.as_parameters(parameters, pressure.shape[0], draws=False)
        residual = darcy_residual(
            pressure[:, 0, 0],
            permeability[:, 0, 0],
            values["source"],
            self.lengths(values).to(pressure),
            _open_sides(),
        )
        return {"balance": (residual.unsqueeze(1),)}

    def equation(
        self,
        parameters: ParameterValues,
        shape: int | Sequence[int] | None = None,
        *,
        permeability: Tensor | None = None,
    ) -> DarcyOnTiles:
        """What ``MixtureOfExpertsConstraint`` needs of these cases on a grid of ``shape``.

        ``permeability (B, 1, nx, ny)`` as in ``solve``.
        """
        from sciml.constraints.mixture_of_experts import DarcyOnTiles

        values = self.as_parameters(parameters)
        if permeability is None:
            permeability = self.permeability(values, shape, dtype=torch.float64)
        permeability = self._check_permeability(permeability, shape).expand(len(values["source"]), -1, -1, -1)
        unit = self.scales(values)["pressure"][:, 0]
        return DarcyOnTiles(permeability[:, 0], values["source"], unit, self.lengths(values), _open_sides())

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Permeability: sqrt(low high); pressure: source length^2 / (10 sqrt(low high)), close to its maximum."""
        permeability = (parameters["low"] * parameters["high"]).sqrt()
        pressure = parameters["source"] * parameters["length"] ** 2 / (10 * permeability)
        return {"permeability": permeability.unsqueeze(-1), "pressure": pressure.unsqueeze(-1)}

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """``log(high / low)`` and whether the permeability is piecewise constant.

        The dimensionless pressure follows from the dimensionless permeability alone; these two say what kind of field
        it is.
        """
        return torch.stack([(parameters["high"] / parameters["low"]).log(), parameters["piecewise"]], -1)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Pressure 0 on every side."""
        return dict.fromkeys(_open_sides(), "value")

    def conditions_on_sides(self, parameters: Mapping[str, Tensor], shape: Sequence[int]) -> dict[str, dict[str, Any]]:
        """The pressure: 0 on every side."""
        from sciml.physics import Dirichlet

        return {"pressure": {side: Dirichlet(value) for side, value in _open_sides().items()}}

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem darcy``: 1000 pairs, which take seconds to generate."""
        name = operator or "unet"
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS, self.grid())},
            "data": {"cases": {"train": 1000, "validation": 100, "test": 100}},
            "task": {"kind": "map"},
            "budget": {"minutes": 3.0},
        }


def _open_sides() -> dict[str, float]:
    return {"x_low": 0.0, "x_high": 0.0, "y_low": 0.0, "y_high": 0.0}

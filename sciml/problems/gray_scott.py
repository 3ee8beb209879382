"""Gray-Scott reaction and diffusion: spots, worms, mazes and spirals that grow from a few blobs.

Feed and kill rates, diffusivities and time step of the data set ``gray_scott_reaction_diffusion`` of The Well (Ohana et
al., arXiv:2412.00568; read in its README and generator), whose six patterns are among those of Pearson, Science 261
(1993) 189. The subsets are named after the patterns. Boxes are smaller, and the initial blobs are of our own law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.errors import SolverError
from sciml.problems.base import Problem, as_times, detached
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import draw_number
from sciml.problems.initial_field import as_initial
from sciml.problems.recipes import operator_options

PATTERNS = {
    "gliders": (0.014, 0.054),
    "bubbles": (0.098, 0.057),
    "maze": (0.029, 0.057),
    "worms": (0.058, 0.065),
    "spirals": (0.018, 0.051),
    "spots": (0.030, 0.062),
}
"""Feed and kill rates in 1/s."""

DIFFUSIVITIES = (2e-5, 1e-5)
"""Of A and B, in m^2/s."""

BOX = {2: 0.5, 3: 0.25}
"""Sides of the default boxes in metres: cells of 1/128 m at the default resolutions (The Well has 1/64)."""

STEP = 0.5
"""Largest time step times the largest reaction rate: the error in time is about 1e-5, far below that in space."""

CELLS_PER_LENGTH = 1.0
"""A grid resolves the fronts where the diffusion length sqrt(d_B / (f + k)) of B has at least so many cells. On the six
patterns that leaves a root-mean-square error of 1e-3 or less in A and B over the default 200 s; cells of twice the
width, as in The Well, leave ten times that."""

LARGEST_TAIL = 3e-3
"""Largest share of the variance in the highest resolved modes, at any time."""

BLOBS = {2: (4, 8), 3: (4, 8)}
"""Least and largest number of initial blobs of each species, by dimension."""

WIDTHS = {2: (0.04, 0.08), 3: (0.06, 0.11)}
"""Least and largest standard deviation of a blob as a share of the box."""

DEPTH = 0.9
"""The initial A and B stay between 0 and 1: A falls to 1 - DEPTH in its blobs, B rises to DEPTH in its own."""


def resolved_length(diffusivity_b: Tensor, feed: Tensor, kill: Tensor) -> Tensor:
    """The widest cell ``(B,)`` in metres that resolves the fronts."""
    return (diffusivity_b / (feed + kill)).sqrt() / CELLS_PER_LENGTH


def initial_species(draw: Tensor, shape: Sequence[int]) -> Tensor:
    """A and B ``(B, 2, *shape)`` float64: A = 1 - DEPTH q, B = DEPTH q', with q and q' from blobs of their own.

    Functions of x alone, so the same at every resolution.
    """
    fields = []
    for number in draw.tolist():
        generator = torch.Generator().manual_seed(int(number))
        fields.append(torch.stack([1 - DEPTH * _blobs(generator, shape), DEPTH * _blobs(generator, shape)]))
    return torch.stack(fields)


def _blobs(generator: torch.Generator, shape: Sequence[int]) -> Tensor:
    """q between 0 and 1, near 1 in a few round blobs: ``1 - exp(-sum_j b_j)`` with periodic bumps
    ``b_j = exp(-sum_i sin^2(pi (x_i - c_ji)) / (2 pi^2 s_j^2))``, uniform centres c_j and widths s_j."""
    dim = len(shape)
    fewest, most = BLOBS[dim]
    count = int(torch.randint(fewest, most + 1, (), generator=generator))
    centres = torch.rand(count, dim, generator=generator, dtype=torch.float64)
    low, high = WIDTHS[dim]
    widths = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
    bumps = torch.ones(count, *(1,) * dim, dtype=torch.float64)
    for axis, n in enumerate(shape):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        sine = torch.sin(math.pi * (x - centres[:, axis : axis + 1]))
        factor = torch.exp(-((sine / (math.pi * widths[:, None])) ** 2) / 2)
        bumps = bumps * factor.reshape(count, *(n if i == axis else 1 for i in range(dim)))
    return 1 - torch.exp(-bumps.sum(0))


class GrayScott(Problem):
    """Two species on a periodic square or cube; A is fed, B feeds on A and is removed."""

    name = "gray_scott"
    title = "Gray-Scott reaction-diffusion"
    dims = (3, 2)
    fields = (FieldInfo("species_a", 1, "1", order=0), FieldInfo("species_b", 1, "1", order=0))
    learned = ("species_a", "species_b")
    steps_by_equation = True
    frames = 11
    frame_interval = 20.0
    solver = f"Fourier pseudo-spectral (2/3 rule), ETDRK4, rate * dt <= {STEP:g}"
    parameters = (
        Parameter("feed", "1/s", "rate at which A is fed"),
        Parameter("kill", "1/s", "rate at which B is removed, beside the feed rate"),
        Parameter("diffusivity_a", "m^2/s", "diffusivity of A", default=DIFFUSIVITIES[0]),
        Parameter("diffusivity_b", "m^2/s", "diffusivity of B", default=DIFFUSIVITIES[1]),
        Parameter("length", "m", "side of the box"),
        Parameter("draw", "1", "selects the initial blobs", default=0.0, draw=True),
    )
    subsets = tuple(PATTERNS)
    condition_names = ("log_feed", "log_kill", "log_diffusion_a", "log_diffusion_b", "log_interval")
    lookup_weights = (1.0, 1.0, 1.0, 1.0, 1.0)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim)
        # A larger batch no longer fits into the cache, and is slower.
        self.resolution, self.group = (64, 4) if self.dim == 2 else (32, 2)  # type: ignore[misc]

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """One case: the rates of the pattern, the default box and diffusivities, its own blobs.

        Raises ``SolverError`` where the grid does not resolve the pattern, with the resolution that is needed.
        """
        feed, kill = PATTERNS[subset]
        case = {"feed": feed, "kill": kill, "length": BOX[self.dim], "draw": draw_number(generator)}
        self.check_resolved(case, self.grid(resolution))
        return case

    def check_resolved(self, parameters: ParameterValues, resolution: Sequence[int]) -> None:
        """Raise ``SolverError`` if the grid does not resolve the fronts of a case (``CELLS_PER_LENGTH``)."""
        values = self.as_parameters(parameters)
        widest = resolved_length(values["diffusivity_b"], values["feed"], values["kill"])
        needed = (values["length"] / widest).detach()
        worst = int(needed.argmax())
        if float(needed[worst]) > min(resolution) * (1 + 1e-9):
            raise SolverError(
                f"case {worst} has fronts about sqrt(diffusivity_b / (feed + kill)) thick, which "
                f"{'x'.join(map(str, resolution))} cells do not resolve on this box; use a resolution of at least "
                f"{math.ceil(float(needed[worst]))}, a smaller length or a larger diffusivity_b"
            )

    def initial(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The initial species ``(B, 2, *grid)`` that the parameters select. Raises ``ConfigError`` for bad ones."""
        values = self.as_parameters(parameters)
        return initial_species(values["draw"], self.grid(resolution)).to(device=device, dtype=dtype)

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
        """Solve a batch of cases: ``species_a``, ``species_b (B, T, 1, *grid)`` and ``time (B, T)``.

        ``initial (B, 2, *grid)`` replaces the blobs that the parameters select. Differentiable in ``initial``.

        Raises ``ConfigError`` for bad parameters, times or initial fields, ``SolverError`` where the grid does not
        resolve the fronts or the fields of a case.
        """
        from sciml.physics import PeriodicBox, gray_scott_reaction, gray_scott_symbol
        from sciml.solvers import ExponentialSolver

        shape = self.grid(resolution)
        values = self.as_parameters(parameters)
        batch = values["length"].shape[0]
        times = self.frame_times(values) if times is None else as_times(times, batch)
        self.check_resolved(detached(values), shape)
        if initial is None:
            species = self.initial(values, shape, dtype=dtype, device=device)
        else:
            species = as_initial(initial, (batch, 2, *shape), dtype=dtype, device=device)

        box = PeriodicBox(shape, self.lengths(values), dtype=dtype, device=device)
        rates = {name: value.to(device, dtype) for name, value in values.items()}
        linear = gray_scott_symbol(box, rates["feed"], rates["kill"], rates["diffusivity_a"], rates["diffusivity_b"])

        def reaction_rate(spectrum: Tensor) -> Tensor:
            """The larger of B^2, at which A is used up, and the eigenvalue |2 A B - B^2| of the Jacobian."""
            a, b = box.inverse(spectrum).unbind(1)
            return torch.maximum(b**2, (2 * a * b - b**2).abs()).flatten(1).amax(1)

        solver = ExponentialSolver(
            linear,
            lambda spectrum: gray_scott_reaction(box, spectrum, rates["feed"]),
            reaction_rate,
            courant=STEP,
            tail=box.tail_share,
            largest_tail=LARGEST_TAIL,
        )
        spectrum = box.forward(species)
        frames = [species]
        for interval in times.diff(dim=1).unbind(1):
            spectrum = solver.advance(spectrum, interval.to(device))
            frames.append(box.inverse(spectrum))
        fields = torch.stack(frames, 1)
        return {"species_a": fields[:, :, :1], "species_b": fields[:, :, 1:], "time": times}

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 64) -> Tensor:
        """Steps at a reaction rate of 1/s, ``(B,)``."""
        return (times[:, -1] - times[:, 0]) / STEP

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """``reaction_diffusion``: of A and B, ``(B, T - 1, *grid)`` in 1/s between frames, trapezoidal in time."""
        from sciml.physics import gray_scott_residual

        species = torch.cat([trajectory["species_a"], trajectory["species_b"]], 2)
        times = trajectory["time"]
        values = self.as_parameters(parameters, species.shape[0])
        order = ("length", "feed", "kill", "diffusivity_a", "diffusivity_b")
        rates = [values[name].to(species) for name in order]
        pairs = [
            gray_scott_residual(species[:, t], species[:, t + 1], times[:, t + 1] - times[:, t], *rates)
            for t in range(species.shape[1] - 1)
        ]
        return {"reaction_diffusion": tuple(torch.stack(pairs, 1).unbind(2))}

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
        """Of frames ``(B, K + 1, 2, *grid)``: with the solver's spectral operators, diffusion and linear decay implicit
        (``physics.spectral_defects``)."""
        from sciml.physics import (
            PeriodicBox,
            gray_scott_reaction,
            gray_scott_symbol,
            of_each_frame,
            spectral_defects,
        )

        values, interval = self._of_steps(frames, parameters, interval)
        box = PeriodicBox(frames.shape[3:], self.lengths(values), dtype=frames.dtype, device=frames.device)
        rates = [values[name] for name in ("feed", "kill", "diffusivity_a", "diffusivity_b")]
        reaction = of_each_frame(lambda spectrum: gray_scott_reaction(box, spectrum, rates[0]))
        return spectral_defects(frames, interval, box=box, linear=gray_scott_symbol(box, *rates), nonlinear=reaction)

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """All sides are ``length``."""
        return parameters["length"].unsqueeze(-1).expand(*parameters["length"].shape, self.dim)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Periodic."""
        return {f"{axis}_{side}": "periodic" for axis in "xyz"[: self.dim] for side in ("low", "high")}

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A: 1. B: f / (f + k), what a steady state with all of A used up holds on average."""
        share = parameters["feed"] / (parameters["feed"] + parameters["kill"])
        return {"species_a": torch.ones_like(share).unsqueeze(-1), "species_b": share.unsqueeze(-1)}

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """Logarithms of f and k in units of the reaction rate 1/s, of d dt / L^2 for A and B, and of dt in seconds."""
        p = parameters
        diffusion = interval / p["length"] ** 2
        numbers = [p["feed"], p["kill"], p["diffusivity_a"] * diffusion, p["diffusivity_b"] * diffusion, interval]
        return torch.stack([number.log() for number in numbers], -1)

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem gray_scott``."""
        name = operator or "unet"
        options: dict[str, dict[str, Any]] = {
            "unet": {"patch_size": 2, "hidden_channels": [32, 48] if self.dim == 3 else [48, 64, 96]},
            "fno": {"patch_size": 2, "n_modes": [13] * self.dim, "hidden_channels": 32},
        }
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, options, self.grid())},
            # In 3D many steps on few samples learn more in the same time than few steps on many.
            "batch_size": 4 if self.dim == 3 else 16,
            "task": {"target": "increment", "unroll": 2},
            "budget": {"minutes": 5.0 if self.dim == 3 else 2.0},
        }

"""Burgers' equation between walls in its weak form: initial velocity -> velocity in space and time."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.physics.weak import Fields, HatSpace, TimeSlices, burgers_form
from sciml.problems.burgers import Burgers
from sciml.problems.cases import ParameterValues
from sciml.problems.weak.base import Ansatz, WeakProblem

LENGTH, DURATION, VISCOSITY = 2.0, 1.0, 0.1 / math.pi

SLICES = 8
"""Times of a training step: one at random in each of as many equal parts of the duration."""
FRAMES = 101
"""Times at which solutions are stored and compared."""


class WeakBurgers(WeakProblem):
    """u_t + u u_x = nu u_xx on [0, 2] m x [0, 1] s, u = 0 at both ends, nu = 0.1 / pi m^2/s; u(x, 0) is given.

    Candidates are functions of (x, t): the solution of the heat equation with the same initial field and viscosity,
    exactly, plus t x (2 - x) N. The weak residual is taken in space, with hats on half as many cells as ``resolution``,
    at random times; its natural norm is that of L2(0, 1 s; H^-1) over sqrt(nu), here relative to the kinetic energy at
    the beginning, which bounds what viscosity can take.

    Subset ``dgno``: the initial fields of ``sciml.problems.Burgers`` of that name.
    """

    name = "burgers"
    title = "Burgers' equation between walls"
    dims = (2,)
    resolution: ClassVar[int] = 128
    least_resolution: ClassVar[int] = 16
    needs_gradient = True
    axes = ("x", "t")
    input_axes = ("x",)
    input = FieldInfo("initial", 1, "m/s", order=0)
    fields = (FieldInfo("velocity", 1, "m/s", order=0),)
    solver = Burgers.solver
    parameters = Burgers.parameters
    subsets = ("dgno",)

    def __init__(self, subset: str | None = None, resolution: int | None = None) -> None:
        super().__init__(subset, resolution)
        n = self.cells
        self.box = ((0.0, 0.0), (LENGTH, DURATION))
        self.input_shape = (n,)
        self.input_points = ((torch.arange(n, dtype=torch.float64) + 0.5) * LENGTH / n).unsqueeze(1)
        self.times = torch.linspace(0.0, DURATION, FRAMES, dtype=torch.float64)
        self.points = torch.cartesian_prod(self.input_points[:, 0], self.times)
        self._spaces: dict[tuple[torch.dtype, torch.device], HatSpace] = {}
        # Sine coefficients from values at the centres, exact for the sines that n centres tell apart (DST-II).
        numbers = torch.arange(1, n + 1, dtype=torch.float64)
        sines = torch.sin(math.pi * numbers[:, None] * self.input_points[:, 0] / LENGTH)
        self.sine_transform = sines * (2 / n) * torch.where(numbers == n, 0.5, 1.0)[:, None]

    @property
    def n_residuals(self) -> int:
        """Hats at the times that are stored: those of a step stand for all of them."""
        return FRAMES * (self.cells // 2 - 1)

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """A case of the subset of ``sciml.problems.Burgers``."""
        return Burgers(1).draw(subset, generator, 2 * Burgers(1).resolution)

    def inputs(self, parameters: ParameterValues, refine: int = 1) -> Tensor:
        """The initial velocity at the centres of the cells ``(B, P)``."""
        return Burgers(1).initial(parameters, self.cells * refine, dtype=torch.float64)[:, 0]

    def solve(self, inputs: Tensor, refine: int = 1) -> Tensor:
        """The velocity ``(B, 1, N)`` of the pseudo-spectral solver, on at least four times as many cells as inputs."""
        n = self.cells
        finer = inputs.ndim == 2 and inputs.shape[1] == n * refine
        inputs = self.check_inputs(inputs, n * refine if finer else n)
        # The same sines on a finer grid, of an odd factor so that its cells have the centres of the coarse ones.
        fine = 5 if refine == 1 else refine + 1 - refine % 2
        given = inputs.shape[1] // n
        numbers = torch.arange(1, n * given + 1, dtype=torch.float64)
        centres = (torch.arange(n * given, dtype=torch.float64) + 0.5) / (n * given)
        weights = torch.where(numbers == n * given, 0.5, 1.0) * 2 / (n * given)
        coefficients = inputs @ (torch.sin(math.pi * numbers * centres[:, None]) * weights)
        finer = (torch.arange(n * fine, dtype=torch.float64) + 0.5) / (n * fine)
        initial = coefficients @ torch.sin(math.pi * numbers[:, None] * finer)
        parameters = {
            "viscosity": VISCOSITY,
            "length": LENGTH,
            "walls": 1.0,
            "amplitude": 1.0,
            "kind": 0.0,
            "draw": 0.0,
        }
        parameters = {name: [value] * len(inputs) for name, value in parameters.items()}
        solved = Burgers(1).solve(parameters, n * fine, self.times, initial=initial.unsqueeze(1), dtype=torch.float64)
        return solved["velocity"][:, :, 0, fine // 2 :: fine].transpose(1, 2).flatten(1).unsqueeze(1)

    def collocation(self, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Gauss points of all cells at times drawn one in each of equal parts (without a generator their middles)."""
        part = torch.rand(SLICES, generator=generator) if generator is not None else torch.full((SLICES,), 0.5)
        times = (torch.arange(SLICES) + part) * DURATION / SLICES
        return self._slices(times.to(like)).points

    def _slices(self, times: Tensor) -> TimeSlices:
        key = (times.dtype, times.device)
        if key not in self._spaces:
            self._spaces[key] = HatSpace((self.cells // 2,), (LENGTH,), dtype=times.dtype, device=times.device)
        return TimeSlices(self._spaces[key], times)

    def residual_square(self, points: Tensor, candidate: Fields | Tensor, inputs: Tensor) -> Tensor:
        """Mean over the times of |r|_{H^-1}^2 / nu, relative to half the initial |u|^2 over the duration."""
        assert isinstance(candidate, Fields)
        slices = self._slices(points.unflatten(0, (SLICES, -1))[:, 0, 1])
        power = 0.5 * LENGTH * inputs.square().mean(1) / DURATION
        return burgers_form(slices, VISCOSITY).square(candidate) / (VISCOSITY * power)

    def ansatz(self, points: Tensor, inputs: Tensor, gradient: bool = False) -> Ansatz:
        """u = sum_k c_k exp(-nu k'^2 t) sin(k' x) + t x (2 - x) N / (1 m s), k' = k pi / (2 m)."""
        x, t = points.unbind(-1)
        coefficients = inputs @ self.sine_transform.T.to(inputs)
        numbers = torch.arange(1, self.cells + 1, dtype=points.dtype, device=points.device) * math.pi / LENGTH
        # The points are often a product of few places and few times: each sine and exponential is found once.
        places, place = x.unique(return_inverse=True)
        times, time = t.unique(return_inverse=True)
        decay = torch.exp(-VISCOSITY * numbers[:, None].square() * times)[:, time]
        waves = decay * torch.sin(numbers[:, None] * places)[:, place]
        offset = (coefficients @ waves).unsqueeze(1)
        factor = (t * x * (LENGTH - x)).unsqueeze(0)
        if not gradient:
            return Ansatz(offset, factor)
        along = coefficients @ (decay * (numbers[:, None] * torch.cos(numbers[:, None] * places))[:, place])
        later = (-VISCOSITY * numbers.square() * coefficients) @ waves
        slope = torch.stack([t * (LENGTH - 2 * x), x * (LENGTH - x)], -1).unsqueeze(0)
        return Ansatz(offset, factor, torch.stack([along, later], -1).unsqueeze(1), slope)

    def recipe(self) -> dict[str, Any]:
        """Cosines enough for the layers that form."""
        return {
            "operator": {"latent": 64, "decoder_options": {"modes": [32, 10]}, "coefficient_options": {"modes": 48}},
            "data": {"cases": {"train": 4000}},
            "batch_size": 16,
            # AdamW underfits: its steps are cheaper, but far more are needed.
            "optimizer": {"method": "soap"},
            "budget": {"minutes": 8.0},
        }

    def inside(self, points: Tensor) -> Tensor:
        """Within [0, 2] m x [0, 1] s."""
        high = torch.tensor([LENGTH, DURATION], dtype=points.dtype, device=points.device)
        return ((points >= 0) & (points <= high)).all(-1)

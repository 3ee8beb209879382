"""Darcy flow in its weak form: permeability of cells -> pressure at nodes, by bilinear finite elements."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.physics.weak import HatSpace
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import draw_number
from sciml.problems.random_fields import cosine_deviations, cosine_field
from sciml.problems.weak.box import BoxProblem

LOG_NORMAL, TWO_VALUES, WAVES = 0.0, 1.0, 2.0

SUBSETS: dict[str, dict[str, float]] = {
    "piecewise": {"low": 5.0, "high": 10.0, "source": 10.0, "law": TWO_VALUES},
    "waves": {"low": 0.1, "high": 4.1, "source": 10.0, "law": WAVES},
    "smooth": {"low": 3.0, "high": 12.0, "source": 10.0, "law": LOG_NORMAL},
    "fno": {"low": 3.0, "high": 12.0, "source": 1.0, "law": TWO_VALUES},
}

ALPHA, TAU = 2.0, 3.0
"""Of the Gaussian field: covariance (-Laplacian + TAU^2)^-ALPHA."""

FREQUENCY = 7 * math.pi / 4
"""Highest frequency of the waves, 1/m."""


class WeakDarcy(BoxProblem):
    """-div(a grad u) = f in the unit square, u = 0 on its sides; a is given, one value a cell.

    Bilinear finite elements on ``resolution`` x ``resolution`` cells: r_j(u) = int a grad u . grad v_j - f v_j in the
    dual norm ``r^T K^-1 r``, relative to that of f (``BoxProblem``).

    Subsets, with the Gaussian field g of covariance (-Laplacian + 9)^-2 of ``sciml.problems.Darcy``:

    - ``piecewise``: a = 10 where g >= 0 and 5 elsewhere, f = 10 (Zang and Koutsourelakis, arXiv:2502.06250);
    - ``waves``: a = 2.1 + sin(w_1 x) + cos(w_2 y), f = 10: read off the pictures that the same authors publish with
      their code (github.com/yaohua32/DGenNO), which do not state the law; that w_1, w_2 are uniform in
      (0, 7 pi / 4) is ours;
    - ``smooth``: log-normal a, f = 10; ``fno``: a = 12 and 3, f = 1 (both as in ``sciml.problems.Darcy``).
    """

    name = "darcy"
    title = "Darcy flow"
    resolution: ClassVar[int] = 28
    input = FieldInfo("permeability", 1, "m^2/(Pa s)", order=0)
    fields = (FieldInfo("pressure", 1, "Pa", order=0),)
    solver = "bilinear finite elements, sparse direct solve"
    parameters = (
        Parameter("low", "m^2/(Pa s)", "lower permeability"),
        Parameter("high", "m^2/(Pa s)", "higher permeability"),
        Parameter("source", "1/s", "volume of fluid produced per volume and second"),
        Parameter("law", "1", "0: log-normal, 1: two values, 2: waves", choices=(0.0, 1.0, 2.0), default=1.0),
        Parameter("frequency_x", "1/m", "of the wave along x", sign="nonnegative", default=0.0),
        Parameter("frequency_y", "1/m", "of the wave along y", sign="nonnegative", default=0.0),
        Parameter("draw", "1", "selects the random field of permeability", draw=True, default=0.0),
    )
    subsets = tuple(SUBSETS)

    def __init__(self, subset: str | None = None, resolution: int | None = None) -> None:
        super().__init__(subset, resolution)
        self._loads: dict[HatSpace, Tensor] = {}
        constants = SUBSETS[self.subset]
        self.density, self.levels = constants["source"], (constants["low"], constants["high"])
        self.link = "two_values" if constants["law"] == TWO_VALUES else "log"
        self.unit = self.density / (10 * math.sqrt(self.levels[0] * self.levels[1]))

    def flux(self, x: Tensor, u: Tensor, du: Tensor, a: Tensor) -> Tensor:
        """a grad u."""
        return a.unsqueeze(-1) * du[:, 0]

    def source(self, x: Tensor, u: Tensor, du: Tensor, a: Tensor) -> Tensor:
        """-f."""
        return x.new_full((len(x),), -self.density)

    def lift_square(self, space: HatSpace, coefficient: Tensor) -> Tensor:
        """That of f, ``(1,)``: the same for every permeability."""
        if space not in self._loads:
            self._loads[space] = super().lift_square(space, coefficient[:1].detach())
        return self._loads[space]

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """The constants of the subset and a field."""
        constants = SUBSETS[subset]
        if constants["law"] == WAVES:
            first, second = (FREQUENCY * torch.rand(2, generator=generator, dtype=torch.float64)).tolist()
            return {**constants, "frequency_x": first, "frequency_y": second}
        return {**constants, "draw": draw_number(generator)}

    def inputs(self, parameters: ParameterValues, refine: int = 1) -> Tensor:
        """Permeability at the centres of the cells ``(B, P)``, C order."""
        values = self.as_parameters(parameters)
        law, low, high = (values[name].unsqueeze(1) for name in ("law", "low", "high"))
        n = self.cells * refine
        x, y = self.centres(refine).T
        waves = (
            2.1 + torch.sin(values["frequency_x"].unsqueeze(1) * x) + torch.cos(values["frequency_y"].unsqueeze(1) * y)
        )
        if bool((law == WAVES).all()):
            return waves
        field = cosine_field(values["draw"], (n, n), alpha=ALPHA, tau=TAU, dtype=torch.float64).flatten(1)
        two_values = torch.where(field >= 0, high, low)
        smooth = (low * high).sqrt() * (high / low) ** (field / 4)
        return torch.where(law == TWO_VALUES, two_values, torch.where(law == WAVES, waves, smooth))

    @property
    def n_normals(self) -> int:  # type: ignore[override]
        """Two frequencies, or as many coefficients of the Gaussian field as the mesh has cells, but the mean."""
        return 2 if SUBSETS[self.subset]["law"] == WAVES else self.cells**2 - 1

    def inputs_from_normals(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        """Frequencies are 7 pi / 4 Phi(z); coefficients of cosines come in the order of their variances."""
        points = (self.input_points if points is None else points).to(z)
        x, y = points.unbind(-1)
        if SUBSETS[self.subset]["law"] == WAVES:
            first, second = (FREQUENCY * torch.special.ndtr(z)).split(1, 1)
            return 2.1 + torch.sin(first * x) + torch.cos(second * y)
        number = torch.arange(self.cells, dtype=torch.float64)
        deviation = cosine_deviations(2, alpha=ALPHA, tau=TAU)[: self.cells, : self.cells].flatten()
        order = deviation.argsort(descending=True, stable=True)[:-1]  # the last is the mean, of deviation zero
        coefficients = z.new_zeros(len(z), self.cells**2)
        coefficients[:, order] = z * deviation[order].to(z)
        amplitude = torch.where(number == 0, 1.0, math.sqrt(2.0)).to(z).unsqueeze(1)
        along = [amplitude * torch.cos(math.pi * number.to(z).unsqueeze(1) * place) for place in (x, y)]
        inner = torch.einsum("bij,in->bjn", coefficients.unflatten(1, (self.cells, self.cells)), along[0])
        field = (inner * along[1]).sum(1)
        low, high = self.levels
        if self.link == "two_values":
            return torch.where(field >= 0, field.new_tensor(high), field.new_tensor(low))
        return math.sqrt(low * high) * (high / low) ** (field / 4)

    def recipe(self) -> dict[str, Any]:
        """Few latent numbers where two frequencies make the whole family."""
        latent = 8 if SUBSETS[self.subset]["law"] == WAVES else 64
        return {
            "operator": {"latent": latent, "coefficient_options": {"decay": float(self.link != "two_values")}},
            "task": {"prior": "flow"},
            "optimizer": {"learning_rate": 1e-3},
            "data": {"cases": {"train": 8000}},
            "budget": {"minutes": 3.0},
        }

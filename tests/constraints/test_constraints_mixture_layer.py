"""The layer: what tiles share decides whether a small residual means a solution; gradients; what is refused."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from sciml.constraints.mixture_of_experts import Equation, MixtureOfExpertsConstraint
from sciml.constraints.mixture_of_experts.layer import nearest_weights
from sciml.constraints.mixture_of_experts.tilings import tiling_of
from sciml.errors import ConfigError, DataError
from sciml.problems import get_problem

DOUBLE = torch.float64
REACTION = 10.0


def exact(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * x) + 0.5 * torch.sin(6 * math.pi * x)


class Reaction(Equation):
    """-u'' + 10 u^3 = f on [0, 1] with u = 0 at the ends, in ``functions`` hyperbolic tangents on the whole interval.

    Their derivatives are analytic, so that the only errors are those of the basis and of the experts.
    """

    name = "reaction"
    conditions_in_rows = False

    def __init__(self, points: int, functions: int, slope: float) -> None:
        self.shape = self.row_shape = (points,)
        self.periodic = (False,)
        self.scale = torch.ones(1, dtype=DOUBLE)
        self.offset = torch.zeros(1, points, dtype=DOUBLE)
        self.x = (torch.arange(points, dtype=DOUBLE) + 0.5) / points
        self.slope, self.centres = slope, torch.linspace(-0.05, 1.05, functions, dtype=DOUBLE)
        waves = (2 * math.pi) ** 2 * torch.sin(2 * math.pi * self.x)
        waves = waves + 0.5 * (6 * math.pi) ** 2 * torch.sin(6 * math.pi * self.x)
        self.force = waves + REACTION * exact(self.x) ** 3
        self.coefficients = (self.force[None],)

    def values(self, x: Tensor) -> Tensor:
        return torch.tanh(self.slope * (x - self.centres[:, None]))[None]

    def terms(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, ...]:
        second = -2 * self.slope**2 * field * (1 - field**2) if homogeneous else torch.zeros_like(field)
        return field, second

    def function(self, values: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
        return (-values[1] + REACTION * values[0] ** 3 - coefficients[0]) / self.force.norm() * self.shape[0] ** 0.5

    def traces(self, field: Tensor, axis: int, positions: Sequence[int]) -> Tensor:
        values = self.values(torch.tensor(positions, dtype=DOUBLE) / self.shape[0])
        return torch.stack([values, self.slope * (1 - values**2)], 2)

    def conditions(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, Tensor]:
        places = torch.tensor([0, self.shape[0] - 1])
        ends = (
            self.values(torch.tensor([0.0, 1.0], dtype=DOUBLE)) if homogeneous else torch.zeros(1, 1, 2, dtype=DOUBLE)
        )
        return ends, places

    def trajectory(self, field: Tensor) -> dict[str, Tensor]:
        return {"u": field}

    def solve(self, experts: int, tiling: str, **options: float) -> tuple[float, MixtureOfExpertsConstraint]:
        layer = MixtureOfExpertsConstraint((experts,), tiling=tiling, ridge=1e-22, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # independent tiles know their weights in part only: LM creeps
            field = layer(self.values(self.x), self)[0]
        return float((field - exact(self.x)).norm() / exact(self.x).norm()), layer


def test_a_small_residual_is_a_solution_only_where_tiles_know_their_neighbours() -> None:
    equation = Reaction(1024, 64, 30.0)
    error, layer = equation.solve(1, "coupled")
    assert error < 1e-7 and float(layer.report.sampled) < 1e-4
    for experts in (4, 16):
        error, layer = equation.solve(experts, "independent")
        assert error > 0.2 and float(layer.report.sampled) < 1e-4 and float(layer.report.jump) > 0.1
        assert layer.report.failed.shape == (1, experts)
        error, layer = equation.solve(experts, "coupled")
        assert error < 1e-7 and float(layer.report.jump) < 1e-8
    error, layer = equation.solve(4, "overlap", overlap=16)
    assert error < 1e-5 and float(layer.report.jump) < 1e-6
    error, _ = Reaction(1024, 32, 15.0).solve(4, "coupled")
    assert error < 1e-5


def test_one_expert_cannot_do_what_sixteen_can() -> None:
    """The same 16 functions: weights of their own are more freedom."""
    equation = Reaction(1024, 16, 12.0)
    one, _ = equation.solve(1, "coupled")
    many, _ = equation.solve(16, "coupled")
    assert many < 0.1 * one


def sorption(cells: int = 8, frames: int = 4) -> Equation:
    parameters = {"initial": [0.1, 0.2], "diffusivity": [5e-4, 8e-4]}
    return get_problem("diffusion_sorption").equation(parameters, cells, torch.linspace(0, 300, frames) ** 1.0)


def front_basis(equation: Equation, functions: int) -> Tensor:
    """Fields that fall from the inlet over different lengths, as solutions do, each disturbed a little."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(equation.batch, functions, *equation.shape, dtype=DOUBLE, generator=generator)
    frames, cells = equation.shape
    number = torch.arange(1, functions + 1, dtype=DOUBLE)[:, None, None]
    x = (torch.arange(cells, dtype=DOUBLE) + 0.5) / cells
    t = torch.linspace(0, 1, frames, dtype=DOUBLE)[:, None]
    return torch.exp(-2 * number * x) * (1 + 0.5 * torch.cos(number * t)) + 0.05 * noise


@pytest.mark.parametrize(
    ("tiles", "tiling"), [(None, "coupled"), ((1, 2), "coupled"), ((1, 2), "overlap"), ((1, 2), "independent")]
)
def test_gradients(tiles: tuple[int, int] | None, tiling: str) -> None:
    equation = sorption()
    layer = MixtureOfExpertsConstraint(tiles, tiling=tiling, overlap=1, ridge=1e-3)
    basis = front_basis(equation, 3).requires_grad_()
    mean = torch.linspace(0.5, 1, basis[0, 0].numel(), dtype=DOUBLE).reshape(equation.shape)

    def loss(values: Tensor) -> Tensor:
        return (layer(values, equation) * mean).sum()

    assert torch.autograd.gradcheck(loss, basis, eps=1e-5, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, basis, eps=1e-5, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_gradients_of_a_float32_basis_train_it() -> None:
    """Following the gradient of the stitched residual lowers it, tiles and all."""
    equation = sorption(16, 6)
    layer = MixtureOfExpertsConstraint((1, 4))
    basis = front_basis(equation, 4).float().requires_grad_()
    optimizer = torch.optim.Adam([basis], 0.02)
    losses = []
    for _ in range(10):
        loss = layer.residual(layer(basis, equation), equation).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert basis.grad.dtype == torch.float32
    assert losses[-1] < 0.7 * losses[0]


def test_cases_are_solved_by_themselves() -> None:
    equation, single = sorption(), get_problem("diffusion_sorption")
    basis = front_basis(equation, 3)
    together = MixtureOfExpertsConstraint((1, 2))(basis, equation)
    parameters = {"initial": [0.2], "diffusivity": [8e-4]}
    alone = MixtureOfExpertsConstraint((1, 2))(basis[1:], single.equation(parameters, 8, torch.linspace(0, 300, 4)))
    torch.testing.assert_close(together[1:], alone, rtol=1e-6, atol=1e-9)


def test_a_failing_case_is_reported_and_not_nan() -> None:
    """A case that cannot be solved keeps finite values and says so; its neighbour in the batch is not disturbed."""
    equation = sorption()
    basis = front_basis(equation, 3)
    good = MixtureOfExpertsConstraint((1, 2))(basis, equation)
    broken = sorption()
    coefficients = [value.clone() for value in broken.coefficients]
    coefficients[2][0] = float("nan")  # the density of the soil of case 0
    broken.coefficients = tuple(coefficients)
    basis.requires_grad_()
    layer = MixtureOfExpertsConstraint((1, 2), on_failure="mask")
    field = layer(basis, broken)
    assert bool(torch.isfinite(field).all())
    torch.testing.assert_close(field[1], good[1], rtol=1e-6, atol=1e-9)
    assert layer.report.failed.tolist() == [[True], [False]]
    assert "1 of 2 solves failed" in layer.report.summary()
    field[1].sum().backward()
    assert bool(torch.isfinite(basis.grad).all()) and float(basis.grad[1].abs().max()) > 0


def test_sampled_rows_are_a_draw_and_the_rest_is_held_out() -> None:
    equation = get_problem("darcy").equation({"low": [3.0, 5.0], "high": 12.0, "source": 1.0, "draw": [1, 2]}, 16)
    x = (torch.arange(16, dtype=DOUBLE) + 0.5) / 16
    sines = torch.stack([torch.sin(k * math.pi * x) for k in (1, 2, 3)])
    basis = torch.einsum("ax,by->abxy", sines, sines).flatten(0, 1).expand(2, -1, -1, -1)
    every = MixtureOfExpertsConstraint((2, 1))
    every(basis, equation)
    assert bool(every.report.held_out.isnan().all())
    layer = MixtureOfExpertsConstraint((2, 1), samples=20, seed=1)
    first = layer(basis, equation)
    report = layer.report
    assert torch.equal(first, layer(basis, equation)) and not torch.equal(first, layer(basis, equation, draw=1))
    assert bool((report.held_out > report.sampled).all())
    # The rows that were sampled, and those that were not, are all rows.
    shares = (40 * report.sampled**2 + 216 * report.held_out**2) / 256
    assert bool((shares > (every.report.sampled**2)).all())
    whole = MixtureOfExpertsConstraint((2, 1), samples=10_000)(basis, equation)
    torch.testing.assert_close(whole, every(basis, equation))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": (1, 9)}, "9 tiles along axis 1 of 8"),
        ({"tiles": (2, 2, 2)}, "one for each axis"),
        ({"tiles": (0, 2)}, "at least 1"),
        ({"tiles": (1, 8)}, "3 rows for the weights of 4"),
        ({"tiles": (1, 2), "samples": 2}, "more samples"),
        ({"tiles": (1, 4), "tiling": "overlap", "overlap": 2}, "reaches through"),
        ({"tiling": "coupledd"}, "did you mean 'coupled'"),
        ({"tiling": "overlap", "overlap": 0}, "at least 1"),
        ({"samples": 0}, "samples is 0"),
        ({"interface_weight": 0.0}, "interface_weight is 0"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    equation = sorption()
    with pytest.raises(ConfigError, match=message):
        MixtureOfExpertsConstraint(**options)(front_basis(equation, 4), equation)


def test_bad_bases_are_refused() -> None:
    equation, layer = sorption(), MixtureOfExpertsConstraint()
    basis = front_basis(equation, 4)
    for bad, message in (
        (basis[:, :, :, :4], "expects"),
        (basis[:1], "expects"),
        (basis[:, :0], "no fields"),
        (torch.where(torch.arange(4)[:, None, None] == 2, float("nan"), basis), "field 2 of case 0 is not finite"),
        (torch.cat([basis, basis[:, :1] + basis[:, 1:2]], 1), "only 4 are independent"),
        (torch.cat([basis, 0 * basis[:, :1]], 1), "field 4 of case 0 is zero"),
    ):
        with pytest.raises(DataError, match=message):
            layer(bad, equation)


def test_tiles_cover_the_rows_once_and_padding_does_not_count() -> None:
    tiling = tiling_of((5, 7), (2, 3), (False, True))
    rows = [part[keep] for part, keep in zip(tiling.rows, tiling.valid, strict=True)]
    assert sorted(torch.cat(rows).tolist()) == list(range(35))
    assert {len(part) for part in rows} == {2 * 2, 2 * 3, 3 * 2, 3 * 3}
    for number, part in enumerate(rows):
        assert bool((tiling.owner.flatten()[part] == number).all())
    pairs = {(i.axis, a, b) for i in tiling.interfaces for a, b in zip(i.low.tolist(), i.high.tolist(), strict=True)}
    assert pairs == {(0, 0, 3), (0, 1, 4), (0, 2, 5)} | {
        (1, 3 * row + low, 3 * row + (low + 1) % 3) for row in (0, 1) for low in range(3)
    }


@pytest.mark.parametrize("periodic", [False, True])
def test_overlapping_tiles_blend_to_one(periodic: bool) -> None:
    tiling = tiling_of((12, 20), (2, 4), (False, periodic), 2)
    assert torch.allclose(tiling.blend.sum(1), torch.ones(240, dtype=DOUBLE))
    assert float(tiling.blend.min()) >= 0
    for tile, (rows, valid) in enumerate(zip(tiling.rows, tiling.valid, strict=True)):
        outside = torch.ones(240, dtype=torch.bool)
        outside[rows[valid]] = False
        assert float(tiling.blend[outside, tile].abs().sum()) == 0  # no expert speaks where it was not solved


def test_the_search_starts_at_the_weights_nearest_to_the_guess() -> None:
    equation = sorption()
    basis = equation.lift(front_basis(equation, 5))
    found = nearest_weights(basis, equation)
    wanted = (equation.inlet[:, None, None] - equation.offset).flatten(1)
    for case in range(equation.batch):
        columns = basis[case].flatten(1).T.numpy()
        expected = np.linalg.lstsq(columns, wanted[case].numpy(), rcond=None)[0]
        np.testing.assert_allclose(found[case].numpy(), expected, rtol=1e-8)
    equation.guess = None
    assert not nearest_weights(basis, equation).any()


@pytest.mark.parametrize("tiling", ["coupled", "overlap"])
def test_columns_that_start_nearly_empty_are_solved(tiling) -> None:
    """At small concentrations R is steep."""
    problem = get_problem("diffusion_sorption")
    parameters = {"initial": [0.01, 0.05, 0.0699, 0.0759, 0.0766]}
    times = 500 * torch.linspace(0, 1, 13, dtype=DOUBLE) ** 2
    equation = problem.equation(parameters, 32, times)
    truth = problem.solve(parameters, 32, times, dtype=DOUBLE)["concentration"][:, :, 0]
    generator = torch.Generator().manual_seed(1)
    time = (torch.arange(13) / 12)[:, None]
    place = (torch.arange(32) + 0.5) / 32
    waves = [torch.exp(-place / (0.05 + 0.1 * k)) * time**m for k in range(6) for m in range(3)]
    basis = torch.stack(waves).double().expand(5, -1, -1, -1)
    solution = ((truth - equation.offset) / equation.inlet[:, None, None]).unsqueeze(1)
    noise = 0.05 * torch.randn(5, 4, 13, 32, generator=generator, dtype=DOUBLE)
    layer = MixtureOfExpertsConstraint((1, 2), tiling=tiling)
    field = layer(torch.cat([basis, solution, noise], 1), equation)
    error = (field - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
    assert not layer.report.failed.any()
    assert float(error.max()) < 0.02

"""Linear equations and totals: golden ProbConserv data, inequalities, the layer, gradients, bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import erf
from torch import Tensor

from sciml.constraints import Context
from sciml.constraints.conservation import (
    AffineProjection,
    LinearConservation,
    cell_volumes,
    front_weights,
    gaussian_update,
    mixture_covariance,
    mixture_moments,
    trapezoid_weights,
)
from sciml.errors import ConfigError, DataError, SolverError
from sciml.physics import Grid, box, stretched_axis, uniform_axis

GOLDEN = Path(__file__).parent.parent / "golden" / "probconserv"
CASES = ("stefan", "pme3")
TAGS = {"hard": {}, "prec1e4": {"noise": 1e-4}, "prec1e2": {"noise": 1e-2}, "uniform": {"weighting": "uniform"}}


@pytest.fixture(scope="module", params=CASES)
def golden(request) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{request.param}.npz") as arrays:
        return {key: torch.tensor(value) for key, value in arrays.items()} | {"name": request.param}


def exponential(case: dict[str, Tensor]) -> Tensor:
    apart = (case["x"][:, None] - case["x"]).abs()
    return case["sd"][:, None] * case["sd"] * torch.exp(-apart / 0.05)


def largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def rmse(case: dict[str, Tensor], u: Tensor) -> float:
    return float((u - case["u_true"]).square().mean().sqrt())


# ---------------------------------------------------------------- golden


@pytest.mark.parametrize("tag", TAGS)
def test_conservation_golden_diagonal_prior(golden, tag):
    update = gaussian_update(golden["mu"], golden["G"], golden["b"], variance=golden["sd"] ** 2, **TAGS[tag])
    assert largest(update.mean, golden[f"mean_{tag}"]) < 1e-12
    assert largest(update.variance, golden[f"var_{tag}"]) < 1e-12
    covariance = update.covariance()
    assert largest(update.mean, golden[f"ref_mean_{tag}"]) < 1e-6
    assert largest(covariance[::10], golden[f"ref_cov_{tag}"]) < 1e-6 * float(covariance.abs().max())
    assert largest(covariance.diagonal(), update.variance) < 1e-15


def test_conservation_golden_full_covariance(golden):
    prior = exponential(golden)
    update = gaussian_update(golden["mu"], golden["G3"], golden["b3"], covariance=prior)
    assert largest(update.mean, golden["mean_full3"]) < 1e-12
    assert largest(update.covariance()[::10], golden["cov_full3"]) < 1e-12
    assert largest(golden["G3"] @ update.mean, golden["b3"]) < 1e-15
    eigenvalues = torch.linalg.eigvalsh(update.covariance())
    assert float(eigenvalues[0]) > -1e-16  # the equations have taken out three directions, and made none negative
    assert float(eigenvalues[2]) < 1e-16 < 1e-7 < float(eigenvalues[3])


def test_conservation_golden_full_matrix_and_diagonal_agree(golden):
    arguments = golden["mu"], golden["G"], golden["b"]
    one = gaussian_update(*arguments, variance=golden["sd"] ** 2, noise=1e-6)
    two = gaussian_update(*arguments, covariance=torch.diag(golden["sd"] ** 2), noise=1e-6)
    assert largest(one.mean, two.mean) < 1e-14
    assert largest(one.covariance(), two.covariance()) < 1e-16


def test_conservation_golden_inequalities(golden):
    """The reference's bounds with noise are ours with noise: the mode of the posterior under the bounds."""
    arguments, prior = (golden["mu"], golden["G"], golden["b"]), golden["sd"] ** 2
    for options in ({"variance": prior}, {"covariance": torch.diag(prior)}):
        update = gaussian_update(*arguments, **options, noise=1e-4, inequality="nonnegative")
        assert largest(update.mean, golden["prec1e4_nonneg"]) < 1e-12
    both = ("nonnegative", "nonincreasing")
    update = gaussian_update(*arguments, variance=prior, noise=1e-4, inequality=both)
    assert float(update.mean.diff().max()) < 1e-14 and float(update.mean.min()) >= 0
    if golden["name"] == "stefan":
        assert largest(update.mean, golden["prec1e4_monotone"]) < 1e-12


@pytest.mark.parametrize("weighting", ["variance", "uniform"])
@pytest.mark.parametrize("inequality", ["nonnegative", ("nonnegative", "nonincreasing")])
def test_conservation_and_bounds_hold_together(golden, weighting, inequality):
    plain = gaussian_update(golden["mu"], golden["G"], golden["b"], variance=golden["sd"] ** 2, weighting=weighting)
    assert float(plain.mean.min()) < -1e-3  # there is something to do
    u = gaussian_update(
        golden["mu"],
        golden["G"],
        golden["b"],
        variance=golden["sd"] ** 2,
        weighting=weighting,
        inequality=inequality,
    ).mean
    assert float((golden["G"] @ u - golden["b"]).abs()) < 1e-14
    assert float(u.min()) >= 0
    if inequality != "nonnegative":
        assert float(u.diff().max()) < 1e-14


def test_conservation_errors_on_the_golden_cases(golden):
    """What the docstring says: weighting by these variances hurts, the uniform update helps; bounds help that one."""
    arguments, prior = (golden["mu"], golden["G"], golden["b"]), {"variance": golden["sd"] ** 2}
    before = rmse(golden, golden["mu"])
    weighted = rmse(golden, gaussian_update(*arguments, **prior).mean)
    uniform = rmse(golden, gaussian_update(*arguments, **prior, weighting="uniform").mean)
    bounded = rmse(golden, gaussian_update(*arguments, **prior, weighting="uniform", inequality="nonnegative").mean)
    assert 0.028 < before < 0.030 and 0.052 < weighted < 0.055 and 0.021 < uniform < 0.022 and bounded < 0.018


def test_conservation_of_the_reference_is_lost_by_its_bounds(golden):
    lost = float((golden["G"] @ (golden["prec1e4_nonneg"] - golden["mean_prec1e4"])).abs())
    assert lost > 5e-4  # the total moves; hence the joint solution above


# ---------------------------------------------------------------- the update


def test_noise_ratio_is_relative_to_what_the_prior_says_of_the_total(golden):
    prior = golden["sd"] ** 2
    spread = float(golden["G"].square() @ prior)
    arguments = golden["mu"], golden["G"], golden["b"]
    one = gaussian_update(*arguments, variance=prior, noise=0.5 * spread)
    two = gaussian_update(*arguments, variance=prior, noise_ratio=0.5)
    assert largest(one.mean, two.mean) < 1e-14 and largest(one.variance, two.variance) < 1e-16
    before, after = (float(golden["G"] @ u - golden["b"]) for u in (golden["mu"], two.mean))
    assert after == pytest.approx(before * 0.5 / 1.5, rel=1e-10)


def test_update_is_the_minimiser_of_the_weighted_distance():
    torch.manual_seed(0)
    mean, rows, target = torch.randn(7).double(), torch.randn(3, 7).double(), torch.randn(3).double()
    half = torch.randn(7, 7).double()
    prior = half @ half.T + 0.1 * torch.eye(7).double()
    u = gaussian_update(mean, rows, target, covariance=prior).mean
    gradient = torch.linalg.solve(prior, u - mean)  # must be a combination of the rows
    rest = gradient - rows.T @ torch.linalg.lstsq(rows.T, gradient[:, None]).solution[:, 0]
    assert float(rest.abs().max()) < 1e-10 and largest(rows @ u, target) < 1e-13


@pytest.mark.parametrize("noise", [None, 0.3])
@pytest.mark.parametrize("full", [False, True])
def test_bounded_update_is_the_constrained_minimum_of_scipy(noise, full):
    """Several equations with signs, against SLSQP, on a batch: active sets differ from case to case."""
    generator = torch.Generator().manual_seed(3)
    mean = torch.randn(6, 9, generator=generator).double()
    rows = torch.randn(2, 9, generator=generator).double()
    inside = torch.rand(6, 9, generator=generator).double()  # a feasible point fixes the targets
    target = inside @ rows.T
    variance = 0.1 + torch.rand(6, 9, generator=generator).double()
    half = torch.randn(6, 9, 9, generator=generator).double()
    covariance = half @ half.transpose(1, 2) + 0.2 * torch.eye(9).double() if full else torch.diag_embed(variance)
    given = {"covariance": covariance} if full else {"variance": variance}
    result = gaussian_update(mean, rows, target, **given, noise=noise, inequality="nonnegative").mean
    assert float(result.min()) >= 0
    if noise is None:
        assert largest(result @ rows.T, target) < 1e-12
    G = rows.numpy()
    for k in range(6):
        inverse, m, b = np.linalg.inv(covariance[k].numpy()), mean[k].numpy(), target[k].numpy()

        def cost(v, inverse=inverse, m=m, b=b):
            penalty = 0 if noise is None else np.sum((G @ v - b) ** 2) / noise
            return (v - m) @ inverse @ (v - m) + penalty

        def slope(v, inverse=inverse, m=m, b=b):
            return 2 * inverse @ (v - m) + (0 if noise is None else 2 * G.T @ (G @ v - b) / noise)

        equal = [] if noise else [{"type": "eq", "fun": lambda v, b=b: G @ v - b, "jac": lambda v: G}]
        best = minimize(
            cost, inside[k].numpy(), jac=slope, bounds=[(0, None)] * 9, constraints=equal, method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )  # fmt: skip
        assert cost(result[k].numpy()) <= best.fun * (1 + 1e-8) + 1e-10
        assert np.abs(result[k].numpy() - best.x).max() < 1e-4


def test_bounded_update_edges():
    """Nothing left over (total 0), nothing to do, a known value, one cell that carries all."""
    rows = torch.full((1, 5), 0.2, dtype=torch.float64)
    mean = torch.tensor([0.3, -0.1, 0.2, 0.5, -2.0], dtype=torch.float64)
    assert largest(gaussian_update(mean, rows, 0.0, inequality="nonnegative").mean, torch.zeros(5)) < 1e-15
    calm = mean.abs()
    assert largest(gaussian_update(calm, rows, float(calm.mean()), inequality="nonnegative").mean, calm) < 1e-15
    variance = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    update = gaussian_update(mean, rows, 0.1, variance=variance, inequality="nonnegative").mean
    assert float(update[0]) == 0.3 and float(update.sum()) == pytest.approx(0.5, abs=1e-14) and float(update.min()) >= 0
    peak = torch.tensor([9.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert largest(gaussian_update(peak, rows, 0.1, inequality="nonnegative").mean * 0.2, rows[0] * peak / 18) < 1e-14


def test_bounded_update_large_and_in_single_precision():
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(3, 20000, generator=generator)
    rows = torch.full((1, 20000), 1 / 20000)
    update = gaussian_update(mean, rows, torch.tensor([[0.01], [0.5], [3.0]]), inequality="nonnegative").mean
    assert update.dtype == torch.float32 and float(update.min()) >= 0
    totals = update.double().mean(1)
    assert largest(totals, torch.tensor([0.01, 0.5, 3.0]).double()) < 1e-7
    assert float((update[0] == 0).double().mean()) > 0.9


def test_mixture_is_the_law_of_total_variance():
    generator = torch.Generator().manual_seed(2)
    means = torch.randn(4, 3, generator=generator).double()
    half = torch.randn(4, 3, 3, generator=generator).double()
    covariances = half @ half.transpose(1, 2)
    draws = torch.cat(
        [
            torch.distributions.MultivariateNormal(m, c).sample((100_000,))
            for m, c in zip(means, covariances, strict=True)
        ]
    )
    mean, variance = mixture_moments(means, covariances.diagonal(dim1=1, dim2=2))
    full = mixture_covariance(means, covariances)
    assert largest(draws.mean(0), mean) < 0.03 and largest(torch.cov(draws.T), full) < 0.1
    assert largest(full.diagonal(), variance) < 1e-14
    assert largest(mixture_moments(means)[1], means.var(0, correction=0)) < 1e-14


def test_mixture_of_updated_members_conserves(golden):
    generator = torch.Generator().manual_seed(4)
    members = golden["mu"] + 0.05 * torch.randn(6, 201, generator=generator).double()
    update = gaussian_update(members, golden["G"], golden["b"], variance=golden["sd"] ** 2)
    mean, variance = mixture_moments(update.mean, update.variance)
    assert float((golden["G"] @ mean - golden["b"]).abs()) < 1e-14
    assert bool((variance > update.variance.mean(0)).all())


# ---------------------------------------------------------------- affine projection


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_projection_obeys_and_is_idempotent(dtype):
    torch.manual_seed(0)
    rows, target, u = torch.randn(5, 300), torch.randn(5), torch.randn(4, 300, dtype=dtype)
    layer = AffineProjection(rows, target, variance=torch.rand(300)).to(dtype)
    once = layer(u)
    allowed = 1e-12 if dtype == torch.float64 else 1e-5  # of sums of 300 terms of size 1
    assert once.dtype == dtype and float(layer.mismatch(once).abs().max()) < allowed
    assert largest(layer(once), once) < allowed
    other = torch.zeros(4, 5)
    assert float(layer.mismatch(layer(u, other), other).abs().max()) < allowed
    assert layer.bfloat16()(u.double()).dtype == torch.float64
    assert float(layer.mismatch(layer(u.double())).abs().max()) < 1e-12  # the factor is not rounded with the module


def test_affine_projection_of_nearly_dependent_rows():
    torch.manual_seed(1)
    first = torch.randn(200).double()
    rows = torch.stack([first, first + 1e-5 * torch.randn(200).double()])
    layer = AffineProjection(rows, torch.tensor([1.0, 1.0]))
    assert float(layer.mismatch(layer(torch.randn(200).double())).abs().max()) < 1e-13 * 200


def test_affine_projection_is_orthogonal_and_per_case():
    torch.manual_seed(2)
    rows, target, u = torch.randn(3, 2, 8).double(), torch.randn(3, 2).double(), torch.randn(3, 8).double()
    out = AffineProjection(rows, target)(u)
    for k in range(3):
        expected = u[k] - torch.linalg.pinv(rows[k]) @ (rows[k] @ u[k] - target[k])
        assert largest(out[k], expected) < 1e-12


# ---------------------------------------------------------------- gradients


def smooth_inputs(n: int = 6, m: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    mean = torch.randn(2, n, generator=generator).double()
    rows = torch.rand(m, n, generator=generator).double()
    feasible = torch.rand(2, n, generator=generator).double().sort(descending=True).values
    target = feasible @ rows.T
    variance = 0.5 + torch.rand(2, n, generator=generator).double()
    noise = 0.1 + torch.rand(m, generator=generator).double()
    return tuple(t.requires_grad_() for t in (mean, rows, target, variance, noise))


def gradients(function, inputs) -> None:
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("inequality", [(), "nonnegative", ("nonnegative", "nonincreasing")])
@pytest.mark.parametrize("noisy", [False, True])
def test_update_gradients(inequality, noisy):
    *inputs, noise = smooth_inputs()
    inputs = [*inputs, noise] if noisy else inputs

    def function(mean, rows, target, variance, *noise):
        given = noise[0] if noise else None
        update = gaussian_update(mean, rows, target, variance=variance, noise=given, inequality=inequality)
        return update.mean, update.variance

    if inequality == "nonnegative":
        assert int((function(*inputs)[0] == 0).sum()) > 0
    gradients(function, inputs)


def test_update_gradients_full_covariance():
    mean, rows, target, _, _ = smooth_inputs()
    half = (torch.randn(6, 6, generator=torch.Generator().manual_seed(6)).double()).requires_grad_()

    def function(mean, half):
        covariance = half @ half.T + 0.5 * torch.eye(6).double()
        update = gaussian_update(mean, rows.detach(), target.detach(), covariance=covariance)
        return update.mean, update.covariance()

    gradients(function, (mean, half))


def test_update_gradients_uniform_and_ratio():
    mean, rows, target, variance, noise = smooth_inputs()

    def function(mean, rows, target, ratio):
        return gaussian_update(
            mean, rows, target, variance=variance.detach(), noise_ratio=ratio, weighting="uniform"
        ).mean

    gradients(function, (mean, rows, target, noise))


def test_affine_projection_gradients():
    mean, rows, target, variance, _ = smooth_inputs()
    layer = AffineProjection(rows, variance=variance[0])
    gradients(lambda u, b: layer(u, b), (mean, target))


# ---------------------------------------------------------------- quadrature


def stefan(x: np.ndarray, case: dict[str, Tensor]) -> np.ndarray:
    return np.where(x <= float(case["x_star"]), 1 - float(case["c1"]) * erf(x / (2 * np.sqrt(float(case["t"])))), 0.0)


def stefan_averages(faces: np.ndarray, case: dict[str, Tensor]) -> np.ndarray:
    """Exact cell averages: the antiderivative of erf, up to the front."""
    root, front = 2 * np.sqrt(float(case["t"])), float(case["x_star"])
    x = np.minimum(faces, front)
    integral = x - float(case["c1"]) * (x * erf(x / root) + root / np.sqrt(np.pi) * (np.exp(-((x / root) ** 2)) - 1))
    return np.diff(integral) / np.diff(faces)


@pytest.fixture(scope="module")
def front_case() -> dict[str, Tensor]:
    with np.load(GOLDEN / "stefan.npz") as arrays:
        return {key: torch.tensor(arrays[key]) for key in ("x", "u_true", "b", "x_star", "c1", "t")}


def test_trapezoid_misses_the_mass_of_a_front_and_finite_volumes_do_not(front_case):
    mass, x = float(front_case["b"]), front_case["x"]
    trapezoid = float(trapezoid_weights(x) @ front_case["u_true"])
    assert trapezoid - mass == pytest.approx(1.449e-3, abs=1e-6)
    for n in (50, 200, 201):  # the front inside a cell, at different places of it
        grid = box((n,), torch.ones(1, 1, dtype=torch.float64))
        averages = torch.tensor(stefan_averages(np.linspace(0, 1, n + 1), front_case))
        assert float((cell_volumes(grid)[0] * averages).sum()) == pytest.approx(
            mass, abs=1e-12
        )  # x_star is known to 1e-13
    fronted = float(front_weights(x, front_case["x_star"], (0.0, 1.0))[0] @ front_case["u_true"])
    assert abs(fronted - mass) < 2e-6  # point values of the same 201 points, knowing where the front is


def test_golden_row_is_the_trapezoid(golden):
    assert largest(trapezoid_weights(golden["x"]), golden["G"][0]) < 1e-16


def test_front_weights_are_second_order_wherever_the_front_is(front_case):
    """A front anywhere: between any two points, on one, before the first, and beyond the last."""
    front = torch.linspace(0.03, 0.97, 41, dtype=torch.float64)
    errors = []
    for n in (20, 40, 80):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # cell centres
        weights = front_weights(x, front, (0.0, 1.0))
        u = torch.where(x <= front[:, None], 1 + torch.sin(3 * x), x.square())
        exact = front + (1 - torch.cos(3 * front)) / 3 + (1 - front**3) / 3
        errors.append(float(((weights * u).sum(1) - exact).abs().max()))
        assert largest(weights.sum(1), torch.ones(41)) < 1e-14
    assert errors[0] / errors[1] > 3.3 and errors[1] / errors[2] > 3.3 and errors[2] < 3e-4
    for place in (0.0, 0.001, 0.999, 1.0):  # no point on one side of the front: the other side goes on
        weights = front_weights(x, torch.tensor([place]), (0.0, 1.0))
        assert float((weights[0] * (2 + 3 * x)).sum()) == pytest.approx(3.5, abs=1e-12)


def test_front_weights_gradient_and_bad_input():
    x = torch.linspace(0, 1, 6, dtype=torch.float64)
    front = torch.tensor([0.13, 0.51, 0.88], dtype=torch.float64, requires_grad=True)
    gradients(lambda s: front_weights(x, s, (0.0, 1.0)), (front,))
    with pytest.raises(ConfigError, match="rise strictly"):
        trapezoid_weights(torch.tensor([0.0, 0.0, 1.0]))
    with pytest.raises(ConfigError, match="ends of the integral"):
        front_weights(x, front, (0.1, 1.0))


def test_cell_volumes_of_stretched_boxes_and_obstacles():
    grid = Grid((stretched_axis(6, 2.0), uniform_axis(4)), torch.tensor([[2.0, 1.0], [3.0, 0.5]], dtype=torch.float64))
    volumes = cell_volumes(grid)
    assert volumes.shape == (2, 6, 4) and largest(volumes.sum((1, 2)), torch.tensor([2.0, 1.5])) < 1e-14
    fluid = torch.ones(1, 6, 4, dtype=torch.bool)
    fluid[0, 2, 1] = False
    assert float(cell_volumes(grid, fluid)[1, 2, 1]) == 0
    with pytest.raises(ConfigError, match="fluid mask"):
        cell_volumes(grid, torch.ones(4, 6, dtype=torch.bool))


# ---------------------------------------------------------------- the layer


def boxes(dtype=torch.float64, batch: int = 3) -> Grid:
    lengths = torch.tensor([[1.0, 2.0], [0.5, 0.7], [3.0, 1.0]], dtype=dtype)[:batch]
    return Grid((stretched_axis(6, 1.5), uniform_axis(5, periodic=True)), lengths)


def fields(dtype=torch.float64, seed: int = 0) -> tuple[Tensor, Context]:
    generator = torch.Generator().manual_seed(seed)
    u, before = torch.randn(2, 3, 3, 6, 5, generator=generator, dtype=torch.float64).to(dtype)
    context = Context(
        boxes(dtype),
        {"temperature": slice(0, 1), "salt": slice(1, 3)},
        before=before,
        parameters={"mass": torch.tensor([1.0, 2.0, 3.0], dtype=dtype)},
    )
    return u, context


def totals(u: Tensor, context: Context) -> Tensor:
    return (cell_volumes(context.grid, context.fluid)[:, None] * u.double()).flatten(2).sum(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_keeps_the_totals_of_before(dtype):
    u, context = fields(dtype)
    layer = LinearConservation(("temperature", "salt"))
    out = layer(u, context)
    allowed = 1e-6 if dtype == torch.float32 else 1e-14
    assert out.dtype == dtype and largest(totals(out, context), totals(context.before, context)) < 10 * allowed
    assert bool((layer.residual(u, context) > 1e-3).all()) and float(layer.residual(out, context).max()) < allowed
    assert layer.residual(out, context).dtype == torch.float64
    shift = out - u  # uniform: one number for each case and component
    assert largest(shift, shift.mean((2, 3), keepdim=True).expand_as(shift)) < (
        1e-6 if dtype == torch.float32 else 1e-14
    )


def test_layer_targets_of_all_kinds():
    u, context = fields()
    both = torch.tensor([[1.0, -1.0], [2.0, 5.0], [0.0, 0.5]], dtype=torch.float64)
    layer = LinearConservation({"temperature": "mass", "salt": both})
    assert layer.affine
    expected = torch.cat([context.parameters["mass"][:, None], both], 1)
    assert largest(totals(layer(u, context), context), expected) < 1e-13
    layer = LinearConservation({"temperature": lambda p: 2 * p["mass"], "salt": 0.0})
    expected = torch.cat([2 * context.parameters["mass"][:, None], torch.zeros(3, 2).double()], 1)
    assert largest(totals(layer(u, context), context), expected) < 1e-13
    assert layer.applies({"salt": slice(0, 1)}) and not layer.applies({"velocity": slice(0, 1)})


def test_layer_uniform_is_the_nearest_in_the_volume_weighted_norm():
    """The same as the general update with S = 1 / volume, and a partial update with a ratio of noise."""
    u, context = fields()
    volumes = cell_volumes(context.grid).flatten(1)[:, None]
    target = totals(context.before, context)
    for ratio in (0.0, 0.7):
        out = LinearConservation(("temperature", "salt"), noise_ratio=ratio)(u, context)
        general = gaussian_update(
            u.flatten(2), volumes[:, :, None], target[..., None], variance=1 / volumes, noise_ratio=ratio
        )
        assert largest(out.flatten(2), general.mean) < 1e-13


def test_layer_weighs_by_predicted_variance_and_leaves_obstacles():
    u, context = fields()
    fluid = torch.ones(1, 6, 5, dtype=torch.bool)
    fluid[0, 1:3, 2] = False
    context = Context(context.grid, context.channels, fluid=fluid, before=context.before)
    variance = torch.rand(u.shape, generator=torch.Generator().manual_seed(1)).double()
    layer = LinearConservation("salt", weighting="variance")
    assert not layer.affine
    out, after = layer.posterior(u, context, variance)
    assert torch.equal(out, layer(u, context, variance=variance))
    assert torch.equal(out[:, 0], u[:, 0]) and torch.equal(after[:, 0], variance[:, 0])
    assert torch.equal(out[..., ~fluid[0]], u[..., ~fluid[0]])
    assert largest(totals(out, context)[:, 1:], totals(context.before, context)[:, 1:]) < 1e-13
    change = ((out - u) / (variance * cell_volumes(context.grid)[:, None]))[:, 1:, fluid[0]]
    assert largest(change, change.mean(2, keepdim=True).expand_as(change)) < 1e-12
    assert bool((after[:, 1:, fluid[0]] < variance[:, 1:, fluid[0]]).all())


@pytest.mark.parametrize("weighting", ["uniform", "variance"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_nonnegative_and_conserving(weighting, dtype):
    u, context = fields(dtype)
    layer = LinearConservation({"temperature": 0.3, "salt": "mass"}, weighting=weighting, nonnegative=True)
    variance = torch.rand(u.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    out = layer(u, context, variance=variance)
    assert float(out.min()) >= 0 and int((out == 0).sum()) > 20
    assert float(layer.residual(out, context).max()) < (1e-6 if dtype == torch.float32 else 1e-13)


def test_layer_on_an_ensemble():
    _, context = fields()
    members = torch.randn(5, 3, 3, 6, 5, generator=torch.Generator().manual_seed(7)).double()
    for weighting in ("uniform", "variance"):
        layer = LinearConservation(("temperature", "salt"), weighting=weighting)
        mean, variance = layer.ensemble(members, context)
        assert float(layer.residual(mean, context).max()) < 1e-14 and bool((variance >= 0).all())
        own = 0.1 + torch.rand(members.shape, generator=torch.Generator().manual_seed(8)).double()
        mean, variance = layer.ensemble(members, context, own)
        assert float(layer.residual(mean, context).max()) < 1e-14
        each = [layer.posterior(members[k], context, own[k]) for k in range(5)]
        expected = torch.stack([m for m, _ in each]).var(0, correction=0) + torch.stack([v for _, v in each]).mean(0)
        assert largest(variance, expected) < 1e-13


@pytest.mark.parametrize("options", [{}, {"weighting": "variance"}, {"nonnegative": True}])
def test_layer_transposed(options):
    u, context = fields()
    variance = torch.rand(u.shape, generator=torch.Generator().manual_seed(1)).double()
    layer = LinearConservation({"temperature": "mass", "salt": 0.4}, **options)
    turned_grid = Grid(context.grid.axes[::-1], context.grid.lengths.flip(1))
    turned = Context(turned_grid, context.channels, parameters=context.parameters)
    out = layer(u, context, variance=variance)
    assert largest(layer(u.mT, turned, variance=variance.mT).mT, out) < 1e-14


@pytest.mark.parametrize("options", [{}, {"weighting": "variance"}, {"nonnegative": True}, {"noise_ratio": 0.5}])
def test_layer_gradients(options):
    generator = torch.Generator().manual_seed(9)
    u, before, variance = torch.randn(3, 2, 1, 3, 3, generator=generator).double()
    variance = (variance.square() + 0.1).requires_grad_()
    u, before = u.requires_grad_(), (before.square() + 0.1).requires_grad_()
    grid = box((3, 3), torch.tensor([[1.0, 2.0], [2.0, 0.5]], dtype=torch.float64))
    layer = LinearConservation("salt", **options)

    def function(u, before, variance):
        context = Context(grid, {"salt": slice(0, 1)}, before=before)
        out, after = layer.posterior(u, context, variance)
        return out, after

    gradients(function, (u, before, variance))


# ---------------------------------------------------------------- bad input


def test_bad_rows_are_named():
    rows = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0]])
    mean = torch.zeros(4)
    with pytest.raises(ConfigError, match=r"Row 2 .* combination of row\(s\) 0, 1 .* agrees"):
        gaussian_update(mean, rows, torch.tensor([1.0, 2.0, 5.0]))
    with pytest.raises(ConfigError, match=r"Row 2 .* contradicts"):
        gaussian_update(mean, rows, torch.tensor([1.0, 2.0, 4.0]))
    with pytest.raises(ConfigError, match=r"Row 2 .* combination"):
        AffineProjection(rows)
    gaussian_update(mean, rows, torch.tensor([1.0, 2.0, 4.0]), noise=0.1)  # noisy equations may contradict
    with pytest.raises(ConfigError, match=r"Row 1 .*case 1.* sums nothing"):
        variance = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
        gaussian_update(torch.zeros(2, 4), rows[:2], torch.ones(2), variance=variance)
    with pytest.raises(ConfigError, match=r"Row 1 .*case 0.* combination of row\(s\) 0 "):
        per_case = torch.stack([torch.stack([rows[0], 3 * rows[0]]), rows[:2]])
        gaussian_update(torch.zeros(2, 4), per_case, torch.ones(2))


def test_bad_shapes_and_values():
    mean, rows = torch.zeros(2, 4), torch.ones(1, 4)
    with pytest.raises(ConfigError, match=r"rows .* shape \(1, 3\)"):
        gaussian_update(mean, torch.ones(1, 3), 1.0)
    with pytest.raises(ConfigError, match="target has the shape"):
        gaussian_update(mean, rows, torch.ones(2))
    with pytest.raises(ConfigError, match="variance has the shape"):
        gaussian_update(mean, rows, 1.0, variance=torch.ones(5))
    with pytest.raises(DataError, match=r"variance is -1 at index \(0, 2\)"):
        gaussian_update(mean, rows, 1.0, variance=torch.tensor([[1.0, 1, -1, 1]]))
    with pytest.raises(ConfigError, match="not symmetric"):
        gaussian_update(mean, rows, 1.0, covariance=torch.arange(16.0).reshape(4, 4))
    with pytest.raises(ConfigError, match="Both a variance"):
        gaussian_update(mean, rows, 1.0, variance=torch.ones(4), covariance=torch.eye(4))
    with pytest.raises(ConfigError, match="Both noise"):
        gaussian_update(mean, rows, 1.0, noise=1.0, noise_ratio=1.0)
    with pytest.raises(ConfigError, match="noise of a constraint is -1"):
        gaussian_update(mean, rows, 1.0, noise=-1.0)
    with pytest.raises(DataError, match=r"mean is nan at index \(1, 2\)"):
        gaussian_update(mean.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(torch.nan)), rows, 1.0)
    with pytest.raises(DataError, match="target of the constraints is inf"):
        gaussian_update(mean, rows, torch.inf)
    with pytest.raises(ConfigError, match=r"'nonegative'.*did you mean 'nonnegative'"):
        gaussian_update(mean, rows, 1.0, inequality="nonegative")
    with pytest.raises(ConfigError, match="weighting 'varianze'"):
        gaussian_update(mean, rows, 1.0, weighting="varianze")
    with pytest.raises(ConfigError, match=r"expect \(..., 4\)"):
        AffineProjection(rows)(torch.zeros(5))
    with pytest.raises(ConfigError, match="same"):
        mixture_moments(mean, torch.zeros(3, 4))


@pytest.mark.parametrize("inequality", ["nonnegative", ("nonnegative", "nonincreasing")])
def test_totals_that_no_nonnegative_field_has(inequality):
    rows = torch.ones(1, 4).double()
    with pytest.raises(SolverError, match="case 1"):
        gaussian_update(torch.randn(2, 4).double(), rows, torch.tensor([[1.0], [-0.5]]).double(), inequality=inequality)
    two = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]).double()  # a part larger than the whole
    with pytest.raises(SolverError, match="case 0"):
        gaussian_update(torch.ones(4).double(), two, torch.tensor([1.0, 2.0]).double(), inequality=inequality)


def test_layer_bad_input():
    u, context = fields()
    bare = Context(context.grid, context.channels)
    with pytest.raises(ConfigError, match="one step earlier"):
        LinearConservation("salt")(u, bare)
    with pytest.raises(ConfigError, match="'mas', which is not a parameter"):
        LinearConservation({"salt": "mas"})(u, context)
    with pytest.raises(ConfigError, match=r"no field 'sald'.*did you mean 'salt'"):
        LinearConservation("sald")(u, context)
    with pytest.raises(ConfigError, match="needs the predicted variance"):
        LinearConservation("salt", weighting="variance")(u, context)
    with pytest.raises(ConfigError, match=r"total of 'salt' has the shape \(2,\)"):
        LinearConservation({"salt": torch.ones(2)})(u, context)
    with pytest.raises(DataError, match="component 0 of case 0 is -1"):
        LinearConservation({"salt": -1.0}, nonnegative=True)(u, context)
    with pytest.raises(DataError, match="field is nan"):
        LinearConservation("salt")(torch.full_like(u, torch.nan), context)
    with pytest.raises(ConfigError, match="field has the shape"):
        LinearConservation("salt")(u[:2], context)
    with pytest.raises(ConfigError, match="noise_ratio is -1"):
        LinearConservation("salt", noise_ratio=-1)
    with pytest.raises(ConfigError, match="needs fields"):
        LinearConservation({})
    with pytest.raises(ConfigError, match="The ensemble has the shape"):
        LinearConservation("salt").ensemble(u, context)

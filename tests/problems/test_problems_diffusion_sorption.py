"""Diffusion-sorption as a problem: exact and independent solutions, rates, bounds, refusals."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.errors import ConfigError
from sciml.problems import get_problem
from sciml.problems.diffusion_sorption import PUBLISHED

DS = get_problem("diffusion_sorption")
ERFC = {0.1: 0.4385780260809998, 0.2: 0.1213352503584821, 0.3: 0.02013675155034634}
"""truth/diffusion_sorption_1d.json: erfc(x / (2 sqrt(D t / R))) for R = 3, D = 5e-4, t = 50."""

CONSTANT_R = {"exponent": 1.0, "freundlich": 2.0 / (0.71 / 0.29 * 2880.0), "initial": 0.0}
"""n = 1 and k such that R = 3 whatever u."""


def solve(parameters, resolution=64, times=(0.0, 50.0, 100.0), **options):
    return DS.solve(parameters, resolution, torch.tensor(times), **{"dtype": torch.float64, **options})


def error_function_error(n):
    """x = 0.1, 0.2, 0.3 are faces of 50, 100, 200 cells: the mean of the cells beside them is second order too."""
    u = solve(CONSTANT_R, n, (0.0, 50.0), largest_change=0.005)["concentration"][0, 1, 0]
    cells = [(round(x * n), exact) for x, exact in ERFC.items()]
    return max(abs(float(u[k - 1] + u[k]) / 2 - exact) for k, exact in cells)


def test_constant_retardation_follows_the_error_function_at_second_order():
    errors = [error_function_error(n) for n in (50, 100, 200)]
    assert errors[-1] < 2e-4
    assert 3.6 < errors[0] / errors[1] < 4.4 and 3.6 < errors[1] / errors[2] < 4.4


def test_steady_state_is_linear():
    """u = 1 - q x / D with q = 1 / (1 / v + L / D), v = 1 m/s."""
    u = solve(CONSTANT_R, 40, (0.0, 4e4))["concentration"][0, 1, 0]
    x = (torch.arange(40, dtype=torch.float64) + 0.5) / 40
    q = 1 / (1 + 1 / 5e-4)
    torch.testing.assert_close(u, 1 - q * x / 5e-4, rtol=0, atol=1e-6)


def test_agrees_with_an_independent_integrator():
    """The full problem in numpy, method of lines, BDF: the scheme written out again, -D u_x = u at the exit."""
    n, d = 64, 5e-4
    h = 1 / n

    def rate(t, u):
        r = 1 + 0.71 / 0.29 * 2880 * 3.5e-4 * 0.874 * (np.maximum(u, 0) + 1e-6) ** (0.874 - 1)
        exit_value = u[-1] * (2 * d / h) / (1 + 2 * d / h)
        padded = np.concatenate([[2 * 1.0 - u[0]], u, [2 * exit_value - u[-1]]])
        return d * np.diff(padded, 2) / h**2 / r

    times = np.array([0.0, 10.0, 50.0, 500.0])
    reference = solve_ivp(rate, (0, 500), np.full(n, 0.1), method="BDF", rtol=1e-8, atol=1e-10, t_eval=times).y.T
    for options, bound in (({}, 2e-4), ({"largest_change": 0.005, "max_stages": 7}, 1e-4)):
        u = solve({"initial": 0.1}, n, times, **options)["concentration"][0, :, 0].numpy()
        assert np.abs(u - reference).max() < bound, options


def test_error_falls_with_the_square_of_the_step():
    from sciml.physics import Soil, sorption_rate, sorption_spectral_radius
    from sciml.solvers import RungeKuttaLegendre

    start = solve({"initial": 0.1}, 48, (0.0, 40.0))["concentration"][:, 1, 0]
    one = torch.ones(1, dtype=torch.float64)
    names = ("diffusivity", "porosity", "bulk_density", "freundlich", "exponent")
    soil = Soil(*(PUBLISHED[name] * one for name in names))
    solver = RungeKuttaLegendre(
        lambda u: sorption_rate(u, soil, one, one), lambda u: sorption_spectral_radius(u, soil, one, one), stages=21
    )
    exact = solver.advance(start, 60.0, steps=512)
    errors = [float((solver.advance(start, 60.0, steps=k) - exact).abs().max()) for k in (4, 8, 16)]
    assert 3.4 < errors[0] / errors[1] < 4.8 and 3.4 < errors[1] / errors[2] < 4.8


def test_documented_call_and_published_resolution():
    sample = DS.sample(2, "pdebench", seed=0)
    assert all((sample.parameters[name] == value).all() for name, value in PUBLISHED.items())
    assert ((sample.parameters["initial"] > 0) & (sample.parameters["initial"] < 0.2)).all()
    out = DS.solve(sample.parameters, 1024, torch.linspace(0, 20, 5))
    assert out["concentration"].shape == (2, 5, 1, 1024) and out["time"].shape == (2, 5)
    coarse = DS.solve(sample.parameters, 256, torch.linspace(0, 20, 5))["concentration"]
    averaged = out["concentration"].unflatten(-1, (256, 4)).mean(-1)
    assert (averaged - coarse)[:, -1].abs().max() < 2e-3


def test_no_values_beyond_those_given():
    """Maximum principle: between the least of inlet, start and 0 (exit) and the largest of inlet and start."""
    parameters = {**DS.sample(12, "all", seed=1).parameters}
    u = DS.solve(parameters, 64, dtype=torch.float64)["concentration"]
    assert u.min() >= 0 and u.max() <= 1 + 1e-12
    near_zero = solve({"initial": [0.0, 1e-4]}, 64, (0.0, 1.0, 10.0, 100.0))["concentration"]
    assert near_zero.min() >= -1e-12 and near_zero.max() <= 1
    draining = solve({"initial": 0.5, "inlet": 0.1}, 64, (0.0, 1.0, 10.0, 100.0))["concentration"]
    assert draining.min() >= 0 and draining.max() <= 0.5 + 1e-12


def test_batch_single_restart_and_precision():
    parameters = DS.sample(4, "all", seed=2).parameters
    times = (0.0, 10.0, 30.0, 60.0)
    together = solve(parameters, 32, times)
    for case in range(4):
        alone = solve({name: float(v[case]) for name, v in parameters.items()}, 32, times)
        torch.testing.assert_close(alone["concentration"][0], together["concentration"][case], rtol=1e-12, atol=1e-14)
    again = solve(parameters, None, (0.0, 20.0, 50.0), initial=together["concentration"][:, 1])
    assert torch.equal(again["concentration"], together["concentration"][:, 1:])
    single = DS.solve(parameters, 32, times)["concentration"]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together["concentration"], rtol=0, atol=1e-6)


def test_initial_takes_the_place_of_the_parameter():
    own = solve({}, None, (0.0, 20.0), initial=torch.full((1, 1, 32), 0.1, dtype=torch.float64))
    assert torch.equal(own["concentration"], solve({"initial": 0.1}, 32, (0.0, 20.0))["concentration"])


def test_similarity_in_units():
    """The same D t / L^2 and R, and an exit so fast that v L / D does not matter."""
    one = solve({"initial": 0.1}, 32, (0.0, 50.0))["concentration"]
    parameters = {"initial": 0.1, "length": 2.0, "diffusivity": 2e-3}
    torch.testing.assert_close(solve(parameters, 32, (0.0, 50.0))["concentration"], one, rtol=0, atol=2e-3)
    values = [DS.as_parameters(p) for p in ({"initial": 0.1}, parameters)]
    numbers = [DS.conditions(v, torch.tensor([10.0])) for v in values]
    torch.testing.assert_close(numbers[0], numbers[1])


def test_residual_falls_with_the_square_of_the_frame_spacing():
    parameters = {"initial": [0.05, 0.15]}
    times = torch.cat([torch.zeros(1), torch.arange(80.0, 112.1, 2.0)])
    out = DS.solve(parameters, 32, times, dtype=torch.float64, largest_change=0.002, max_stages=5)
    sizes = []
    for every in (4, 2, 1):
        frames = {name: values[:, 1::every] for name, values in out.items()}
        (residual,) = DS.residual(frames, parameters)["transport"]
        assert residual.shape == (2, 16 // every, 32)
        sizes.append(float(residual.square().mean().sqrt()))
    assert 3.5 < sizes[0] / sizes[1] < 4.5 and 3.5 < sizes[1] / sizes[2] < 4.5
    assert sizes[-1] < 1e-6
    out = {name: values.clone() for name, values in out.items()}
    out["concentration"].requires_grad_()
    DS.residual(out, parameters)["transport"][0].square().sum().backward()
    assert out["concentration"].grad.any()


def test_gradient_through_the_solve():
    start = torch.full((1, 1, 16), 0.1, dtype=torch.float64)
    weight = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(start):
        return (
            solve({}, None, (0.0, 30.0), initial=start, largest_change=0.01)["concentration"][0, 1, 0] * weight
        ).sum()

    given = start.clone().requires_grad_()
    loss(given).backward()
    step = torch.zeros_like(start)
    step[0, 0, 6] = 1e-3
    with torch.no_grad():
        difference = float(loss(start + step) - loss(start - step)) / 2e-3
    assert math.isclose(difference, float(given.grad[0, 0, 6]), rel_tol=0.01)


def test_soil_subset_varies_the_soil():
    parameters = DS.sample(20, "soil", seed=0).parameters
    for name, values in parameters.items():
        varied = name in ("diffusivity", "porosity", "freundlich", "exponent", "initial")
        assert bool((values == values[0]).all()) != varied, name
    assert torch.isfinite(DS.conditions(parameters, torch.full((20,), 10.0))).all()


FIELD = torch.full((2, 1, 16), 0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_problem("diffusion_sorption", 3), "does not exist in 3D; it exists in 1D"),
        (lambda: DS.solve({}), "needs the parameters initial"),
        (lambda: DS.solve({"initial": -0.1}), "initial.*at least 0"),
        (lambda: DS.solve({"initial": 0.1, "diffusivity": -5e-4}), "diffusivity.*positive"),
        (lambda: DS.solve({"initial": 0.1, "porosity": [0.3, 1.0]}), "porosity.*case 1.*below 1"),
        (lambda: DS.solve({"initial": 0.1, "inlet": [[1.0, 0.5]]}), "cannot change in time"),
        (lambda: DS.solve({"initial": 0.1}, 4), "resolution is 4"),
        (lambda: DS.solve({"initial": 0.1}, (16, 16)), "resolution is"),
        (lambda: DS.solve({"initial": 0.1}, 16, [0.0, 2.0, 1.0]), "increase"),
        (lambda: DS.solve({}, initial=torch.ones(2, 16)), r"initial has shape \(2, 16\); expected \(B, 1, n\)"),
        (lambda: DS.solve({}, 32, initial=FIELD), r"expected \(B, 1, 32\)"),
        (lambda: DS.solve({}, initial=FIELD.index_fill(0, torch.tensor(1), math.nan)), "initial of case 1"),
        (lambda: DS.solve({}, initial=-FIELD), "initial of case 0"),
        (lambda: DS.solve({"inlet": [1.0] * 3}, initial=FIELD), r"expected \(2,\)"),
        (lambda: DS.solve({"initial": 0.1}, 16, max_stages=4), "max_stages is 4"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()

"""The vorticity equation: its terms in closed form, the solver against Taylor-Green, scipy and finer grids."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.physics import PeriodicBox, VorticityEquation, energy_budget, vorticity_residual
from sciml.problems.random_fields import periodic_field
from sciml.solvers import ExponentialSolver

DOUBLE = torch.float64


def equation_on(n, *, viscosity=1e-2, drag=0.0, forcing=0.0, length=1.0, dtype=DOUBLE):
    """One case with the source forcing * cos(2 pi (x + 2 y) / L) on n x n cells."""
    box = PeriodicBox((n, n), torch.full((1, 2), length, dtype=DOUBLE), dtype=dtype)
    x = 2 * math.pi * (torch.arange(n, dtype=DOUBLE) + 0.5) / n
    source = forcing * torch.cos(x[:, None] + 2 * x[None, :]).reshape(1, 1, n, n)
    return VorticityEquation(box, torch.tensor([viscosity], dtype=DOUBLE), torch.tensor([drag], dtype=DOUBLE), source)


def smooth_field(n, seed=0, dtype=DOUBLE):
    """A field of three modes along each axis with r.m.s. near 1, the same function on every grid."""
    return periodic_field(torch.tensor([seed]), (n, n), alpha=2.0, tau=6.0, sigma=30.0, modes=3, dtype=dtype)


def run(equation, field, duration, steps):
    solver = ExponentialSolver(equation.linear, equation.nonlinear, equation.rate)
    return equation.box.inverse(
        solver.advance(equation.box.forward(field), torch.tensor([duration], dtype=DOUBLE), steps)
    )


def convective_form(equation, vorticity):
    """-u . grad w + nu lap w - mu w + f, term by term with five transforms."""
    box = equation.box
    spectrum = box.forward(vorticity)
    velocity = box.inverse(box.velocity_from_vorticity(spectrum))
    gradient = box.inverse(box.gradient(spectrum))
    transport = box.forward((velocity * gradient).sum(1, keepdim=True)) * box.dealias
    return box.inverse(equation.linear * spectrum - transport) + equation.source


def test_right_hand_side_equals_the_convective_form():
    equation = equation_on(24, viscosity=0.03, drag=0.2, forcing=0.7, length=2.0)
    field = smooth_field(24)
    torch.testing.assert_close(equation.right_hand_side(field), convective_form(equation, field), rtol=1e-9, atol=1e-9)
    assert float(convective_form(equation, field).abs().max()) > 1, "the terms are not negligible"


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(
    ("viscosity", "k", "time", "decay", "energy"),
    [
        (0.01, 1, 10.0, 0.8187307530779818, 0.16758001150890983),
        (0.1, 2, 1.0, 0.44932896411722156, 0.050474129498663846),
    ],
)
def test_taylor_green_vortices_decay_at_the_exact_rate(viscosity, k, time, decay, energy, dtype):
    """Taylor and Green 1937; the numbers are those of the table taylor_green_2d."""
    n = 32
    box = PeriodicBox((n, n), torch.full((1, 2), 2 * math.pi, dtype=DOUBLE), dtype=dtype)
    equation = VorticityEquation(box, torch.tensor([viscosity], dtype=DOUBLE))
    x = 2 * math.pi * (torch.arange(n, dtype=DOUBLE) + 0.5) / n
    exact = (2 * k * torch.cos(k * x)[:, None] * torch.cos(k * x)).reshape(1, 1, n, n)
    final = run(equation, exact.to(dtype), time, None)
    tolerance = 1e-12 if dtype == DOUBLE else 1e-5
    torch.testing.assert_close(final.double(), decay * exact, rtol=0, atol=2 * k * tolerance)
    velocity = -decay * torch.cos(k * x)[:, None] * torch.sin(k * x)
    torch.testing.assert_close(equation.velocity(final)[0, 0].double(), velocity, rtol=0, atol=tolerance)
    budget = energy_budget(final, equation=equation)
    assert float(budget.energy) == pytest.approx(energy, rel=4 * tolerance)


def test_random_field_agrees_with_scipy_on_a_finer_grid():
    """Advection, viscosity, drag and source at once: DOP853 on the convective form with three times the cells."""
    settings = {"viscosity": 5e-3, "drag": 0.1, "forcing": 2.0}
    coarse, fine = equation_on(24, **settings), equation_on(72, **settings)

    def right_hand_side(_, values):
        return convective_form(fine, torch.as_tensor(values).reshape(1, 1, 72, 72)).flatten().numpy()

    start = smooth_field(72)
    solution = solve_ivp(right_hand_side, (0, 1), start.flatten().numpy(), rtol=1e-8, atol=1e-8, method="DOP853")
    exact = torch.as_tensor(solution.y[:, -1]).reshape(1, 1, 72, 72)[..., 1::3, 1::3]
    final = run(coarse, smooth_field(24), 1.0, 80)
    scale = float(exact.square().mean().sqrt())
    assert float((smooth_field(24) - final).abs().max()) > 0.5 * scale, "the flow has changed"
    assert float((final - exact).square().mean().sqrt()) < 2e-4 * scale


def test_convergence_is_spectral_in_space():
    """The order of convergence, 4 of a fourth-order stencil, grows without bound with the resolution."""
    settings = {"viscosity": 5e-3, "forcing": 1.0}
    reference = run(equation_on(180, **settings), smooth_field(180), 0.5, 40)
    errors = []
    for n in (12, 20, 36):
        shift = 180 // n  # odd: the centre of every coarse cell is the centre of a fine one
        exact = reference[..., shift // 2 :: shift, shift // 2 :: shift]
        errors.append(float((run(equation_on(n, **settings), smooth_field(n), 0.5, 40) - exact).abs().max()))
    orders = [
        math.log(a / b) / math.log(m / n) for (a, b), (n, m) in zip(pairwise(errors), ((12, 20), (20, 36)), strict=True)
    ]
    assert orders[0] > 2 and orders[1] > 6 and orders[1] > orders[0], (errors, orders)
    assert errors[-1] < 2e-4


def test_fourth_order_in_time():
    equation = equation_on(32, viscosity=2e-3, drag=0.1, forcing=3.0)
    field = 3 * smooth_field(32)
    exact = run(equation, field, 0.5, 640)
    errors = [float((run(equation, field, 0.5, steps) - exact).abs().max()) for steps in (20, 40, 80)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(3.7 < order < 4.4 for order in orders), (errors, orders)


def test_residual_of_the_solution_falls_with_the_square_of_the_interval():
    equation = equation_on(32, viscosity=5e-3, drag=0.1, forcing=2.0)
    field = smooth_field(32)
    sizes = []
    for dt in (0.1, 0.05, 0.025):
        after = run(equation, field, dt, 20)
        residual = vorticity_residual(field, after, torch.tensor([dt], dtype=DOUBLE), equation=equation)
        sizes.append(float(residual.square().mean().sqrt()))
    orders = [math.log2(a / b) for a, b in pairwise(sizes)]
    assert all(1.8 < order < 2.2 for order in orders), (sizes, orders)
    change = float(equation.right_hand_side(field).square().mean().sqrt())
    assert sizes[-1] < 2e-3 * change
    still = vorticity_residual(field, field, torch.tensor([0.025], dtype=DOUBLE), equation=equation)
    assert float(still.square().mean().sqrt()) > 100 * sizes[-1], "a field that does not move is no solution"


def test_laminar_kolmogorov_flow_is_exact_and_stays():
    """w = f / (nu k^2 + mu) with a single wave in the source: no transport, and injection = dissipation + drag."""
    equation = equation_on(32, viscosity=2e-2, drag=0.1, forcing=2.0)
    square = 4 * math.pi**2 * 5
    steady = equation.source / (2e-2 * square + 0.1)
    assert float(equation.right_hand_side(steady).abs().max()) < 1e-12
    torch.testing.assert_close(run(equation, steady, 5.0, None), steady, rtol=0, atol=1e-12)
    from_rest = run(equation, torch.zeros_like(steady), 5.0, None)
    torch.testing.assert_close(from_rest, steady, rtol=0, atol=1e-8)
    budget = energy_budget(steady, equation=equation)
    exact = 0.5 * 2.0**2 / square / (2e-2 * square + 0.1)  # <psi f> with psi = w / k^2
    assert float(budget.injection) == pytest.approx(exact, rel=1e-10)
    torch.testing.assert_close(budget.injection, budget.dissipation + budget.drag, rtol=1e-12, atol=0)
    assert float(budget.enstrophy) == pytest.approx(float(steady.square().mean()) / 2)


def test_energy_changes_by_what_the_budget_says():
    equation = equation_on(36, viscosity=2e-3, drag=0.2, forcing=3.0)
    dt = 1e-3
    before = run(equation, 2 * smooth_field(36), 0.5, 60)
    middle = run(equation, before, dt, 1)
    after = run(equation, middle, dt, 1)
    rate = (energy_budget(after, equation=equation).energy - energy_budget(before, equation=equation).energy) / (2 * dt)
    now = energy_budget(middle, equation=equation)
    expected = now.injection - now.dissipation - now.drag
    assert float((rate - expected).abs() / (now.dissipation + now.drag)) < 1e-5
    assert float((rate / expected - 1).abs()) < 1e-4


def test_transport_conserves_energy_and_enstrophy():
    """Without viscosity, drag and source the truncated equation keeps both; ETDRK4 loses little."""
    equation = equation_on(32, viscosity=0.0)
    start = smooth_field(32) * 2
    first, last = (energy_budget(field, equation=equation) for field in (start, run(equation, start, 1.0, 200)))
    assert float(last.energy / first.energy) == pytest.approx(1, abs=1e-8)
    assert float(last.enstrophy / first.enstrophy) == pytest.approx(1, abs=1e-6)


def test_gradients_are_those_of_finite_differences():
    equation = equation_on(8, viscosity=1e-2, drag=0.1, forcing=1.0)
    solver = ExponentialSolver(equation.linear, equation.nonlinear, equation.rate)
    field = smooth_field(8)[..., :8].clone().requires_grad_()
    dt = torch.tensor([0.05], dtype=DOUBLE)

    def step(w):
        return equation.box.inverse(solver.step(equation.box.forward(w), dt))

    assert torch.autograd.gradcheck(step, (field,), fast_mode=True)
    other = smooth_field(8, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: vorticity_residual(a, b, dt, equation=equation), (field, other), fast_mode=True
    )


def test_gradient_with_respect_to_the_viscosity():
    field = smooth_field(12)
    box = equation_on(12).box

    def step(viscosity):
        equation = VorticityEquation(box, viscosity)
        solver = ExponentialSolver(equation.linear, equation.nonlinear, equation.rate)
        return box.inverse(solver.step(box.forward(field), torch.tensor([0.05], dtype=DOUBLE)))

    assert torch.autograd.gradcheck(step, (torch.tensor([1e-2], dtype=DOUBLE, requires_grad=True),), fast_mode=True)

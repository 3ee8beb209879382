"""ETDRK4: exactness of the linear part, fourth order, agreement with scipy, refusals."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.errors import ConfigError, SolverError
from sciml.solvers import ExponentialSolver

DOUBLE = torch.float64


def stiff(rates=(-1.0, -50.0, -2000.0, 0.0)):
    """Four equations with a quadratic coupling, a rotation and a source; ``(B, 1, 4)``."""
    linear = torch.tensor(rates, dtype=DOUBLE).reshape(1, 1, 4)

    def nonlinear(v):
        return v.roll(1, -1) * v.roll(-1, -1) + 1j * v + 0.5

    def rate(v):
        return 1 + v.detach().abs().flatten(1).amax(1)

    return linear, nonlinear, rate


def start(batch=1):
    values = torch.tensor([1.0 + 0.5j, -0.5 + 0j, 0.2j, 0.7 + 0j], dtype=torch.complex128)
    return values.reshape(1, 1, 4) * torch.linspace(1, 0.5, batch, dtype=DOUBLE).reshape(-1, 1, 1)


def test_linear_part_is_exact_for_any_step():
    linear = torch.tensor([[[-1e6, -3.0, -1e-9, 0.0]], [[-1e3, -1.0, 0.0, -5.0]]], dtype=DOUBLE)
    solver = ExponentialSolver(linear, torch.zeros_like, lambda v: torch.zeros(2, dtype=DOUBLE))
    dt = torch.tensor([0.7, 2.0], dtype=DOUBLE)
    v = start(2)
    exact = v * torch.exp(linear * dt.reshape(2, 1, 1))
    torch.testing.assert_close(solver.step(v, dt), exact, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(solver.advance(v, dt), exact, rtol=1e-14, atol=1e-14)


def test_constant_source_is_exact_for_any_step_and_rate():
    """The coefficients sum to (e^{L dt} - 1) / L: all digits also where L dt is tiny or huge."""
    linear = -torch.logspace(-12, 6, 40, dtype=DOUBLE).reshape(1, 1, -1)
    source = torch.ones_like(linear) * (1 + 2j)
    solver = ExponentialSolver(linear, lambda v: source, lambda v: torch.zeros(1, dtype=DOUBLE))
    dt = torch.tensor([0.3], dtype=DOUBLE)
    exact = source * torch.expm1(linear * dt) / linear
    torch.testing.assert_close(solver.step(torch.zeros_like(source), dt), exact, rtol=1e-13, atol=0.0)


def test_fourth_order_and_agreement_with_scipy():
    linear, nonlinear, rate = stiff((-1.0, -5.0, -20.0, 0.0))
    solver = ExponentialSolver(linear, nonlinear, rate)

    def right_hand_side(_, v):
        values = torch.as_tensor(v, dtype=torch.complex128).reshape(1, 1, 4)
        return (linear * values + nonlinear(values)).flatten().numpy()

    reference = solve_ivp(right_hand_side, (0, 1), start().flatten().numpy(), rtol=1e-12, atol=1e-13, method="DOP853")
    exact = torch.as_tensor(reference.y[:, -1]).reshape(1, 1, 4)
    errors = [
        float((solver.advance(start(), torch.ones(1), steps=steps) - exact).abs().max()) for steps in (10, 20, 40, 80)
    ]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(3.7 < order < 4.5 for order in orders[1:]), (errors, orders)
    assert errors[-1] < 1e-7


def test_advance_keeps_the_courant_number_and_serves_each_case_its_own_duration():
    linear, nonlinear, rate = stiff()
    steps = []

    def counted(v):
        steps.append(1)
        return nonlinear(v)

    duration = torch.tensor([2.0, 0.5], dtype=DOUBLE)
    solver = ExponentialSolver(linear, counted, rate, courant=0.1)
    both = solver.advance(start(2), duration)
    taken = len(steps) / 4
    expected = float((rate(start(2)) * duration).max()) / 0.1
    assert expected <= taken <= 1.3 * expected, "the case with the largest rate * duration sets the number of steps"
    for case in range(2):
        alone = solver.advance(start(2)[case : case + 1], duration[case : case + 1])
        torch.testing.assert_close(both[case : case + 1], alone, rtol=0, atol=2e-3)  # in its own number of steps


def test_step_is_pure_and_its_gradients_are_those_of_finite_differences():
    linear, nonlinear, rate = stiff()
    linear = linear.clone().requires_grad_()
    dt = torch.tensor([0.1, 0.05], dtype=DOUBLE, requires_grad=True)
    v = start(2).requires_grad_()
    before = v.detach().clone()

    def step(v, linear, dt):
        return torch.view_as_real(ExponentialSolver(linear, nonlinear, rate).step(v, dt))

    assert torch.autograd.gradcheck(step, (v, linear, dt))
    assert torch.equal(v.detach(), before)


def test_cached_coefficients_follow_the_step_size():
    linear, nonlinear, rate = stiff()
    solver = ExponentialSolver(linear, nonlinear, rate)
    first, second = torch.tensor([0.1]), torch.tensor([0.02])
    expected = ExponentialSolver(linear, nonlinear, rate).step(start(), second)
    solver.step(start(), first)
    torch.testing.assert_close(solver.step(start(), second), expected, rtol=0, atol=0)


def test_restart_equals_straight_run():
    linear, nonlinear, rate = stiff()
    solver = ExponentialSolver(linear, nonlinear, rate)
    straight = solver.advance(start(), torch.tensor([1.0], dtype=DOUBLE), steps=60)
    half = solver.advance(start(), torch.tensor([0.5], dtype=DOUBLE), steps=30)
    again = solver.advance(half, torch.tensor([0.5], dtype=DOUBLE), steps=30)
    torch.testing.assert_close(again, straight, rtol=1e-12, atol=1e-12)


def test_steps_are_taken_again_where_the_rate_has_outgrown_them():
    """v0 = t and v1 = e^(50 i t^2): from rest the rate 100 t is 0 at first and grows within the first steps."""

    def nonlinear(v):
        return torch.stack([torch.ones_like(v[..., 0]), 100j * v[..., 0] * v[..., 1]], -1)

    def rate(v):
        return 1 + 100 * v[:, 0, 0].abs()

    solver = ExponentialSolver(torch.zeros(1, 1, 2, dtype=DOUBLE), nonlinear, rate, courant=0.25)
    rest = torch.tensor([[[0.0, 1.0]]], dtype=torch.complex128)
    final = solver.advance(rest, torch.tensor([2.0], dtype=DOUBLE))[0, 0]
    assert abs(complex(final[0]) - 2.0) < 1e-12
    assert abs(complex(final[1]) - complex(math.cos(200.0), math.sin(200.0))) < 0.03


def oscillator(frequency):
    """v' = i w v, all explicit: what the limit of stability is about."""
    rates = torch.tensor([1.0, frequency], dtype=DOUBLE)

    def nonlinear(v):
        return 1j * rates.reshape(2, 1, 1) * v

    return ExponentialSolver(torch.zeros(1, 1, 1, dtype=DOUBLE), nonlinear, lambda v: rates)


def test_steps_that_are_too_few_are_refused_with_the_number_that_is_needed():
    solver = oscillator(100.0)
    v = torch.ones(2, 1, 1, dtype=torch.complex128)
    with pytest.raises(SolverError, match=r"case 1: steps of 0.05 s give rate \* dt = 5.*at least 36 steps"):
        solver.advance(v, torch.ones(2), steps=20)
    out = solver.advance(v, torch.ones(2), steps=36)
    assert float(out.abs().max()) < 1.01, "the number that the message names is stable"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"courant": 0.0}, "courant must be positive"),
        ({"courant": 2.5}, "courant is 2.5; at most 2"),
        ({"max_steps": 0}, "max_steps"),
        ({"largest_tail": -1}, "tail"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ExponentialSolver(*stiff(), **options)


def test_bad_durations_and_steps_are_refused():
    solver = ExponentialSolver(*stiff())
    with pytest.raises(ConfigError, match="duration"):
        solver.advance(start(), torch.tensor([-1.0]))
    with pytest.raises(ConfigError, match="dt"):
        solver.step(start(), torch.tensor([math.nan]))
    with pytest.raises(ConfigError, match="steps is 0"):
        solver.advance(start(), torch.tensor([1.0]), steps=0)


def test_what_cannot_be_solved_is_refused_naming_the_case():
    linear, nonlinear, rate = stiff()
    v = start(2)
    broken = v.clone()
    broken[1, 0, 2] = math.nan
    with pytest.raises(SolverError, match="case 1 is not finite"):
        ExponentialSolver(linear, nonlinear, rate).advance(broken, torch.ones(2))
    with pytest.raises(SolverError, match=r"case \d needs .* more than max_steps = 5"):
        ExponentialSolver(linear, nonlinear, rate, max_steps=5).advance(v, 100 * torch.ones(2))
    explosive = ExponentialSolver(linear, lambda v: 1e3 * v * v.abs(), lambda v: torch.ones(2, dtype=DOUBLE))
    with pytest.raises(SolverError, match="not finite"):
        explosive.advance(v, 50 * torch.ones(2))
    tail = ExponentialSolver(linear, nonlinear, rate, tail=lambda v: torch.tensor([0.001, 0.3]))
    with pytest.raises(SolverError, match=r"resolution too coarse for case 1.*0.3 of the energy, 0.01 is allowed"):
        tail.advance(v, torch.ones(2))

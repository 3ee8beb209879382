"""Runge-Kutta-Legendre stepping: order, stability, independence of the batch, gradients, refusals."""

import itertools
import math

import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.solvers.super_time_stepping import RungeKuttaLegendre


def heat(n=32, nonlinear=False, **options):
    """u_t = u_xx on (0, 1) with u = 0 at the ends, cell-centred; nonlinear: u_t = u_xx / (1 + u^2)."""

    def rate(u):
        padded = torch.cat([-u[:, :1], u, -u[:, -1:]], 1)
        laplacian = padded.diff(dim=1).diff(dim=1) * n**2
        return laplacian / (1 + u**2) if nonlinear else laplacian

    return RungeKuttaLegendre(rate, lambda u: torch.full((u.shape[0],), 4.0 * n**2, dtype=u.dtype), **options)


def sine(n=32, batch=1):
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.sin(math.pi * x).expand(batch, n)


@pytest.mark.parametrize("stages", [None, 25])
def test_second_order_in_time(stages):
    """Against the exact decay of the discrete mode."""
    n = 32
    decay = 4 * n**2 * math.sin(math.pi / 2 / n) ** 2
    errors = []
    for steps in (8, 16, 32):
        u = heat(n, stages=stages).advance(sine(n), 0.2, steps=steps)
        errors.append(float((u - math.exp(-0.2 * decay) * sine(n)).abs().max()))
    # the method's error constant depends a little on the number of stages
    assert all(3.0 < coarse / fine < 5.5 for coarse, fine in itertools.pairwise(errors))
    assert errors[-1] < 2e-4


def test_second_order_for_a_nonlinear_rate():
    reference = heat(nonlinear=True, stages=3).advance(sine(), 0.05, steps=2000)
    errors = [
        float((heat(nonlinear=True, stages=31).advance(sine(), 0.05, steps=k) - reference).abs().max())
        for k in (4, 8, 16)
    ]
    assert 3.5 < errors[0] / errors[1] < 4.6 and 3.5 < errors[1] / errors[2] < 4.6


def test_consistency_of_one_step_with_the_stability_polynomial():
    """A linear step is a + b P_s(1 + w z / ...): at the limit of stability the fastest mode is damped, not grown."""
    for stages in (3, 5, 11, 25):
        radius = 7.0
        solver = RungeKuttaLegendre(
            lambda u, radius=radius: -radius * u, lambda u, radius=radius: torch.full((1,), radius), stages=stages
        )
        dt = 0.9999 * (stages**2 + stages - 2) / (2 * radius)
        for fraction in (1.0, 0.9, 0.5, 0.1, 0.01):
            assert abs(float(solver.step(torch.ones(1, 1, dtype=torch.float64), fraction * dt))) <= 1.0


def test_rough_data_stay_bounded():
    start = torch.where(torch.arange(64) < 20, 1.0, 0.0)[None].double()
    u = heat(64).advance(start, 0.05)
    assert u.max() <= 1.0 and u.min() >= -1e-12


def test_chosen_steps_are_accurate_and_smaller_changes_more_so():
    n = 32
    decay = 4 * n**2 * math.sin(math.pi / 2 / n) ** 2
    exact = math.exp(-0.2 * decay) * sine(n)
    errors = [float((heat(n, largest_change=c).advance(sine(n), 0.2) - exact).abs().max()) for c in (0.1, 0.02)]
    assert errors[1] < 1e-4 and errors[1] < errors[0] / 5


def test_a_case_does_not_depend_on_its_batch():
    start = torch.cat([sine(), 0.1 * sine(), torch.where(torch.arange(32) < 9, 1.0, 0.0)[None].double()])
    durations = torch.tensor([0.1, 0.003, 0.05], dtype=torch.float64)
    together = heat().advance(start, durations)
    for case in range(3):
        alone = heat().advance(start[case : case + 1], durations[case : case + 1])
        torch.testing.assert_close(alone[0], together[case], rtol=1e-13, atol=1e-15)


def test_restart_equals_straight_run():
    solver = heat(nonlinear=True)
    start = sine(batch=2)
    straight = solver.advance(solver.advance(start, 0.01), 0.02)
    middle = solver.advance(start, 0.01).clone()
    assert torch.equal(heat(nonlinear=True).advance(middle, 0.02), straight)
    together = solver.advance(start, 0.03, steps=6)
    parts = solver.advance(solver.advance(start, 0.01, steps=2), 0.02, steps=4)
    torch.testing.assert_close(together, parts, rtol=1e-12, atol=0)


def test_float32_agrees_with_float64():
    single = heat(nonlinear=True).advance(sine().float(), 0.05)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), heat(nonlinear=True).advance(sine(), 0.05), rtol=0, atol=1e-5)


def test_gradient_of_a_step_and_of_an_advance():
    start = sine(8).clone().requires_grad_()
    dt = torch.tensor([0.01], dtype=torch.float64, requires_grad=True)
    solver = heat(8, nonlinear=True)
    assert torch.autograd.gradcheck(solver.step, (start, dt))
    assert torch.autograd.gradcheck(lambda u: solver.advance(u, 0.02, steps=3), (start,))
    solver.advance(start, 0.02).sum().backward()
    assert torch.isfinite(start.grad).all() and start.grad.any()


def test_stages_follow_the_root_of_the_step():
    solver, u = heat(), sine()
    few, many = (int(solver.stages_needed(u, torch.tensor([dt]).double())) for dt in (1e-3, 1e-1))
    assert few % 2 == many % 2 == 1
    limit = (many**2 + many - 2) / (2 * 4 * 32**2)
    assert limit >= 0.1 > ((many - 2) ** 2 + many - 4) / (2 * 4 * 32**2)
    assert 8 < many / few < 12


def test_refusals():
    with pytest.raises(SolverError, match=r"step of case 1 needs 29 stages and 5 are allowed; .* raise stages"):
        heat(stages=5).step(sine(batch=2), torch.tensor([1e-3, 1e-1]))
    with pytest.raises(SolverError, match="raise max_stages"):
        heat(max_stages=5).advance(sine(), 0.1, steps=1)
    with pytest.raises(SolverError, match=r"Case 0 has .* s to go after 2 steps"):
        heat(max_steps=2).advance(sine(), 0.5)
    bad = sine(batch=2).clone()
    bad[1, 3] = math.nan
    with pytest.raises(SolverError, match="case 1 is not finite"):
        heat().advance(bad, 0.1)
    explosive = RungeKuttaLegendre(lambda u: 1e3 * u**2, lambda u: torch.ones(len(u)), max_steps=300)
    with pytest.raises(SolverError, match=r"case 0 is not finite|to go after"):
        explosive.advance(torch.ones(1, 1), 10.0)
    for options in ({"stages": 4}, {"stages": 1}, {"max_stages": 2}, {"largest_change": 0.0}, {"max_steps": 0}):
        with pytest.raises(ConfigError, match=r"expected an odd number|positive"):
            heat(**options)
    for duration in (-1.0, math.nan, torch.ones(3)):
        with pytest.raises(ConfigError, match="duration"):
            heat().advance(sine(), duration)
    with pytest.raises(ConfigError, match="steps is 0"):
        heat().advance(sine(), 0.1, steps=0)

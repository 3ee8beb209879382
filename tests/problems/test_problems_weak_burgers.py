"""Burgers' equation between walls in its weak form: reference, candidates, residual, cases and bad input."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.errors import ConfigError, DataError
from sciml.physics.weak import Fields
from sciml.problems.weak import get_weak_problem

DOUBLE = torch.float64
VISCOSITY = 0.1 / math.pi


def smooth(problem):
    """An initial field of three sines (B = 2)."""
    x = problem.input_points[:, 0]
    return torch.stack([torch.sin(math.pi * x) - 0.4 * torch.sin(math.pi * x / 2), torch.sin(1.5 * math.pi * x)])


def exact_fields(problem, points, inputs):
    """The solution with its gradient at points, from the reference and splines."""
    from scipy.interpolate import RectBivariateSpline

    t = problem.times.numpy()
    fine = problem.solve(inputs).numpy().reshape(len(inputs), problem.cells, len(t))
    x = problem.input_points[:, 0].numpy()
    value, slope = [], []
    for case in fine:
        odd = np.concatenate([-case[:6][::-1], case, -case[-6:][::-1]])  # odd about both walls
        at = np.concatenate([-x[:6][::-1], x, 4 - x[-6:][::-1]])
        spline = RectBivariateSpline(at, t, odd, kx=5, ky=5)
        p = points.numpy()
        value.append(spline.ev(p[:, 0], p[:, 1]))
        slope.append(np.stack([spline.ev(p[:, 0], p[:, 1], dx=1), spline.ev(p[:, 0], p[:, 1], dy=1)], -1))
    return Fields(torch.tensor(np.stack(value)).unsqueeze(1), torch.tensor(np.stack(slope)).unsqueeze(1))


def test_the_reference_against_a_method_of_lines():
    """Fourth-order differences on odd extensions, stepped by scipy's Radau."""
    problem = get_weak_problem("burgers", None, 64)
    inputs = smooth(problem)[:1]
    found = problem.solve(inputs)[0, 0].unflatten(0, (64, 101))
    n = 256
    h = 2 / n
    x = (np.arange(n) + 0.5) * h
    start = np.sin(math.pi * x) - 0.4 * np.sin(math.pi * x / 2)

    def rate(t, u):
        e = np.concatenate([-u[1::-1], u, -u[:-3:-1]])
        first = (e[:-4] - 8 * e[1:-3] + 8 * e[3:-1] - e[4:]) / (12 * h)
        second = (-e[:-4] + 16 * e[1:-3] - 30 * e[2:-2] + 16 * e[3:-1] - e[4:]) / (12 * h * h)
        return VISCOSITY * second - u * first

    band = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 2
    known = solve_ivp(
        rate, (0, 1), start, "Radau", t_eval=np.linspace(0, 1, 11), rtol=1e-7, atol=1e-9, jac_sparsity=band
    )
    # The centres of 64 cells lie midway between the second and the third of four.
    middle = (-known.y[0::4] + 9 * known.y[1::4] + 9 * known.y[2::4] - known.y[3::4]) / 16
    assert np.abs(found[:, ::10].numpy() - middle).max() < 2e-4


def test_the_initial_field_is_that_of_the_case_and_of_the_candidates():
    problem = get_weak_problem("burgers", None, 32)
    inputs = problem.inputs(problem.draw_cases(3, seed=1))
    found = problem.solve(inputs)[:, 0].unflatten(1, (32, 101))
    torch.testing.assert_close(found[:, :, 0], inputs, rtol=0, atol=1e-10)
    network = torch.randn(3, 1, 32 * 101, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    made = problem.ansatz(problem.points, inputs).value(network)[:, 0].unflatten(1, (32, 101))
    torch.testing.assert_close(made[:, :, 0], inputs, rtol=0, atol=1e-10)
    walls = torch.tensor([[0.0, 0.4], [2.0, 0.7]], dtype=DOUBLE)
    at_walls = problem.ansatz(walls, inputs).value(torch.ones(3, 1, 2, dtype=DOUBLE))
    assert float(at_walls.abs().max()) < 1e-12


def test_the_offset_solves_the_heat_equation():
    problem = get_weak_problem("burgers", None, 16)
    points = torch.tensor([[0.3, 0.2], [1.1, 0.5], [1.9, 0.9]], dtype=DOUBLE)
    inputs, step = smooth(problem), 1e-3

    def offset(x, t):
        return problem.ansatz(points + torch.tensor([x, t], dtype=DOUBLE), inputs).offset[:, 0]

    later = (offset(0, step) - offset(0, -step)) / (2 * step)
    bend = (offset(step, 0) - 2 * offset(0, 0) + offset(-step, 0)) / step**2
    torch.testing.assert_close(later, VISCOSITY * bend, rtol=1e-4, atol=1e-5)


def test_gradients_of_candidates_against_differences():
    problem = get_weak_problem("burgers", None, 16)
    points = 0.05 + 0.9 * torch.rand(30, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    points[:, 0] *= 2
    inputs, step = smooth(problem), 1e-6
    ansatz = problem.ansatz(points, inputs, gradient=True)
    for axis in (0, 1):
        shift = step * torch.eye(2, dtype=DOUBLE)[axis]
        high, low = (problem.ansatz(points + sign * shift, inputs) for sign in (1, -1))
        torch.testing.assert_close(
            ansatz.offset_gradient[..., axis], (high.offset - low.offset) / (2 * step), rtol=1e-6, atol=1e-7
        )
        torch.testing.assert_close(
            ansatz.factor_gradient[..., axis], (high.factor - low.factor) / (2 * step), rtol=1e-6, atol=1e-7
        )


def test_the_residual_of_the_reference_falls_with_the_mesh_and_is_the_error_of_others():
    squares = []
    for cells in (32, 64):
        problem = get_weak_problem("burgers", None, cells)
        inputs = smooth(problem)
        points = problem.collocation(None, inputs)
        truth = exact_fields(problem, points, inputs)
        squares.append(float(problem.residual_square(points, truth, inputs).max()))
        heat = problem.ansatz(points, inputs, gradient=True)
        none = torch.zeros(2, 1, len(points), dtype=DOUBLE)
        without = problem.residual_square(points, heat.fields(none, none.unsqueeze(-1).expand(-1, -1, -1, 2)), inputs)
        assert bool((without > 0.05).all())
    assert squares[1] < 1e-5 and squares[1] < squares[0]


def test_collocation_draws_one_time_in_each_part_of_the_duration():
    problem = get_weak_problem("burgers", None, 16)
    like = torch.zeros(1, dtype=DOUBLE)
    for seed in range(3):
        first, again = (problem.collocation(torch.Generator().manual_seed(seed), like) for _ in range(2))
        assert torch.equal(first, again)
        times = first[:, 1].unique()
        assert len(times) == 8 and (times * 8).floor().tolist() == list(range(8))
    middles = problem.collocation(None, like)[:, 1].unique()
    torch.testing.assert_close(middles, (torch.arange(8, dtype=DOUBLE) + 0.5) / 8)


def test_finer_references_agree_with_coarse_ones():
    problem = get_weak_problem("burgers", None, 64)
    cases = problem.draw_cases(2, seed=2)
    inputs = problem.inputs(cases)
    coarse, finer, drawn = problem.solve(inputs), problem.solve(inputs, 4), problem.solve(problem.inputs(cases, 4), 4)
    assert coarse.shape == finer.shape == (2, 1, 64 * 101)
    assert float((coarse - finer).norm() / finer.norm()) < 1e-4
    assert float((coarse - drawn).norm() / drawn.norm()) < 2e-3


def test_cases_depend_on_seed_and_number_alone():
    problem = get_weak_problem("burgers", None, 32)
    long, short, other = (problem.draw_cases(n, seed) for n, seed in ((5, 4), (2, 4), (2, 5)))
    torch.testing.assert_close(problem.inputs(long)[:2], problem.inputs(short))
    assert not torch.allclose(problem.inputs(short), problem.inputs(other))


@pytest.mark.parametrize(
    "inputs, refine, message",
    [
        (torch.zeros(2, 31), 1, r"initial has shape \(2, 31\); expected \(cases, 32\)"),
        (torch.zeros(32), 1, r"has shape \(32,\)"),
        (torch.zeros(1, 32).index_fill(1, torch.tensor([3]), math.inf), 1, r"case 0 is inf at point 3"),
        (torch.zeros(1, 64).index_fill(1, torch.tensor([9]), math.nan), 2, r"is nan at point 9; it must be finite"),
    ],
)
def test_bad_initial_fields(inputs, refine, message):
    with pytest.raises(DataError, match=message):
        get_weak_problem("burgers", None, 32).solve(inputs, refine)


def test_bad_meshes_and_points_outside():
    with pytest.raises(ConfigError, match=r"resolution is 8; expected at least 16"):
        get_weak_problem("burgers", None, 8)
    problem = get_weak_problem("burgers", "dgno", 16)
    assert (
        problem.inside(torch.tensor([[2.0, 1.0], [0.0, 0.0], [2.1, 0.5], [1.0, 1.1]])).tolist()
        == [True] * 2 + [False] * 2
    )

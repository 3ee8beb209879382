"""Stokes flow past a disc in weak form: profiles, reference solution, ansatz, residual norm."""

import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics.weak import TriangleSpace
from sciml.problems.weak import WeakStokes, get_weak_problem
from sciml.problems.weak.stokes import profile_at


@pytest.fixture(scope="module")
def problem():
    return get_weak_problem("stokes", resolution=12)


@pytest.fixture(scope="module")
def inputs(problem):
    return problem.inputs(problem.draw_cases(4, seed=0))


def relative(made, truth):
    """Relative L2 error of each component, ``(B, 3)``."""
    return (made - truth).norm(dim=2) / truth.norm(dim=2)


def everywhere(problem, nodal):
    """Reference solution at all nodes of the velocity as a candidate ``(B, 3, N2)``."""
    from sciml.problems.weak.stokes import _solver

    solver, order = _solver(problem.cells)
    velocity, pressure = solver.solve(nodal[:, order])
    filled = torch.zeros(len(nodal), 1, velocity.shape[2], dtype=velocity.dtype)
    filled[..., : pressure.shape[2]] = pressure
    return torch.cat([velocity, filled], 1)


def test_inputs_are_the_published_profile(problem):
    values = problem.inputs({"sine_frequency": [1.0, 3.0], "cosine_frequency": [2.0, 0.5]})
    y = problem.input_points[:, 0]
    assert values.shape == (2, 2 * 12 + 1)
    assert torch.allclose(y, torch.linspace(0, 1, 25, dtype=torch.float64))
    truth = 2 * torch.sin(math.pi * y) * (1 + torch.sin(3 * y) + torch.cos(0.5 * y))
    assert torch.allclose(values[1], truth, atol=1e-14)


def test_draws_are_reproducible_and_within_their_range(problem):
    cases = problem.draw_cases(50, seed=3)
    again = problem.draw_cases(20, seed=3)
    for name, values in cases.items():
        assert torch.equal(values[:20], again[name])
        assert bool(((values >= 0) & (values <= 2 * math.pi)).all())
        assert float(values.std()) > 1


def test_profile_between_nodes_and_its_integral():
    nodes = torch.linspace(0, 1, 9, dtype=torch.float64)
    inputs = (nodes * (1 - nodes)).unsqueeze(0) * torch.tensor([[1.0], [-3.0]], dtype=torch.float64)
    y = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, integral = profile_at(inputs, y)
    assert torch.allclose(value[1], -3 * y * (1 - y), atol=1e-14)
    assert torch.allclose(integral[0], y**2 / 2 - y**3 / 3, atol=1e-14)
    moved = inputs.clone()
    moved[:, [0, -1]] = 7.0  # what is given at the walls does not count
    assert torch.equal(profile_at(moved, y)[0], value)


def test_residual_of_the_reference_is_round_off(problem, inputs):
    candidate = everywhere(problem, inputs)
    points = problem.collocation(None, candidate)
    assert float(problem.residual_square(points, candidate, inputs).sqrt().max()) < 1e-11
    assert torch.allclose(candidate[..., : len(problem.points)], problem.solve(inputs), atol=1e-12)


def test_residual_is_about_the_relative_error_of_the_gradient(problem, inputs):
    """An error of the velocity: within the bounds of ``TaylorHood.square``."""
    truth = everywhere(problem, inputs)
    points = problem.collocation(None, truth)
    factor = problem.ansatz(points, inputs).factor
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1), dtype=truth.dtype)
    space = TriangleSpace(problem.mesh, 2, dirichlet=["wall"], dtype=torch.float64)
    for size in (1e-3, 0.1):
        error = size * factor * noise
        error[:, 2] = 0
        square = problem.residual_square(points, truth + error, inputs)

        gradient = space.interpolate(error[:, :2]).gradient
        energy = torch.einsum("q,bcqd->b", space.weights, gradient**2)
        ratio = square / (energy / (40 * inputs.square().mean(1)))
        assert float(ratio.min()) > (3 - 5**0.5) / 2
        assert float(ratio.max()) < (3 + 5**0.5) / 2


def test_candidates_obey_inflow_and_no_slip_whatever_the_network_says(problem, inputs):
    points = problem.collocation(None, inputs)
    candidate = problem.ansatz(points, inputs).value(
        torch.randn(4, 3, len(points), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    )
    truth = everywhere(problem, inputs)
    fixed = problem.mesh.boundary_nodes(["inflow", "wall", "disc"], 2)
    assert torch.allclose(candidate[:, :2, fixed], truth[:, :2, fixed], atol=1e-12)
    free = problem.mesh.boundary_nodes(["outflow"], 2)[1:-1]
    assert not torch.allclose(candidate[:, :2, free], truth[:, :2, free], atol=0.1)


def test_lift_has_no_divergence(problem, inputs):
    x = torch.rand(400, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * torch.tensor([2.0, 1.0])
    x = x[(x - torch.tensor([0.5, 0.6])).norm(dim=1) > 0.12].requires_grad_()
    offset = problem.ansatz(x, inputs).offset
    divergence = sum(torch.autograd.grad(offset[1, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2))
    assert float(divergence.abs().max()) < 1e-9
    assert float(offset[1, 0].detach().abs().max()) > 0.5


def test_lift_is_near_the_solution():
    """The numbers beside its constants."""
    problem = WeakStokes(resolution=14)
    inputs = problem.inputs(problem.draw_cases(60, seed=0))
    points = problem.collocation(None, inputs)
    offset = problem.ansatz(points, inputs).offset
    assert float(problem.residual_square(points, offset, inputs).mean()) == pytest.approx(0.37, abs=0.02)
    errors = relative(problem.ansatz(problem.points, inputs).offset, problem.solve(inputs)).mean(0)
    assert torch.allclose(errors, torch.tensor([0.13, 0.35, 0.26], dtype=torch.float64), atol=0.03)


def test_a_finer_mesh_changes_little(problem, inputs):
    coarse = problem.solve(inputs)
    errors = relative(coarse, problem.solve(inputs, 2)).mean(0)
    assert float(errors[0]) < 0.005
    assert float(errors.max()) < 0.02
    fine = problem.inputs(problem.draw_cases(4, seed=0), 2)
    errors = relative(problem.solve(fine, 2), problem.solve(inputs, 2))  # the profile itself, and its interpolant
    assert float(errors[:, :2].max()) < 5e-4
    assert 0 < float(errors[:, 2].max()) < 5e-3


def test_residual_in_single_precision_has_a_gradient(problem, inputs):
    candidate = everywhere(problem, inputs).float() + 0.01
    candidate.requires_grad_()
    points = problem.collocation(None, candidate)
    square = problem.residual_square(points, candidate, inputs.float())
    square.sum().backward()
    assert candidate.grad is not None
    direction = torch.randn(candidate.shape, generator=torch.Generator().manual_seed(4))
    double = [
        problem.residual_square(points, (candidate + sign * 1e-3 * direction).detach().double(), inputs).sum()
        for sign in (1, -1)
    ]
    slope = float((double[0] - double[1]) / 2e-3)
    assert float((candidate.grad * direction).sum()) == pytest.approx(slope, rel=1e-3)


def test_inside(problem):
    points = torch.tensor([[0.0, 0.0], [2.0, 1.0], [0.5, 0.6], [0.5, 0.69], [0.5, 0.71], [2.01, 0.5], [1.0, -0.1]])
    assert problem.inside(points).tolist() == [True, True, False, False, True, False, False]
    assert bool(problem.inside(problem.points).all())
    assert bool(problem.inside(problem.points.float()).all())


def test_bad_input(problem, inputs):
    with pytest.raises(ConfigError, match=r"resolution is 4; expected at least 8"):
        WeakStokes(resolution=4)
    with pytest.raises(DataError, match=r"inflow has shape \(4, 3\); expected \(cases, 25\)"):
        problem.solve(inputs[:, :3])
    with pytest.raises(DataError, match=r"inflow of case 0 is nan"):
        problem.solve(inputs * math.nan)
    with pytest.raises(DataError, match=r"inflow must be finite"):
        problem.solve(torch.full((1, 49), math.nan), 2)
    with pytest.raises(ConfigError, match=r"ansatz has no gradients"):
        problem.ansatz(problem.points, inputs, gradient=True)

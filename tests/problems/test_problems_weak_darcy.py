"""Darcy flow and equations of one's own in their weak form: references, candidates, cases and bad input."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.errors import ConfigError, DataError, SolverError
from sciml.problems.random_fields import cosine_deviations
from sciml.problems.weak import BoxProblem, get_weak_problem
from sciml.problems.weak.darcy import FREQUENCY
from sciml.problems.weak.darcy import SUBSETS as CONSTANTS

DOUBLE = torch.float64
SUBSETS = ("piecewise", "waves", "smooth", "fno")


def gradients_by_differences(problem, points, inputs, step=1e-6):
    """Of offset and factor of an ansatz, by central differences: (B, C, Q, d) each."""
    offsets, factors = [], []
    for axis in range(points.shape[1]):
        shift = step * torch.eye(points.shape[1], dtype=DOUBLE)[axis]
        high, low = problem.ansatz(points + shift, inputs), problem.ansatz(points - shift, inputs)
        offsets.append(((high.offset - low.offset) / (2 * step)).expand(-1, -1, len(points)))
        factors.append((high.factor - low.factor) / (2 * step))
    return torch.stack(offsets, -1), torch.stack(factors, -1)


def check_ansatz(problem, inputs):
    low, high = (torch.tensor(end, dtype=DOUBLE) for end in problem.box)
    inner = 0.01 + 0.98 * torch.rand(40, len(low), dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    points = low + (high - low) * inner
    ansatz = problem.ansatz(points, inputs, gradient=True)
    offset, factor = gradients_by_differences(problem, points, inputs)
    scale = max(float(factor.abs().max()), float(offset.abs().max()))
    torch.testing.assert_close(ansatz.factor_gradient.expand_as(factor), factor, rtol=1e-6, atol=1e-8 * scale)
    torch.testing.assert_close(ansatz.offset_gradient.expand_as(offset), offset, rtol=1e-6, atol=1e-8 * scale)


# ---------------------------------------------------------------------------------------------------- Darcy flow


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_reference_has_a_residual_at_round_off_and_nothing_one(subset):
    problem = get_weak_problem("darcy", subset, 10)
    inputs = problem.inputs(problem.draw_cases(4, seed=1))
    nodes, truth = problem.collocation(None, inputs), problem.solve(inputs)
    assert bool((problem.residual_square(nodes, truth, inputs) < 1e-24).all())
    one = torch.ones(4, dtype=DOUBLE)
    torch.testing.assert_close(problem.residual_square(nodes, 0 * truth, inputs), one)
    # Linear: a hundredth too much is a residual of a hundredth.
    torch.testing.assert_close(problem.residual_square(nodes, 1.01 * truth, inputs), 1e-4 * one, rtol=1e-8, atol=0)


def test_the_reference_against_finite_volumes_on_a_fine_grid():
    """Fluxes by harmonic means of the cells' permeability: another discretisation of the same equation."""
    problem = get_weak_problem("darcy", "waves", 8)
    inputs = problem.inputs(problem.draw_cases(1, seed=3), refine=8)
    n = 64
    a = inputs[0].reshape(n, n).numpy()
    number = np.arange(n * n).reshape(n, n)
    matrix = scipy.sparse.lil_matrix((n * n, n * n))
    for axis in (0, 1):
        one, other = (np.take(number, range(*ends), axis).ravel() for ends in ((0, n - 1), (1, n)))
        between = 2 * a.ravel()[one] * a.ravel()[other] / (a.ravel()[one] + a.ravel()[other])
        link = scipy.sparse.coo_matrix((between, (one, other)), (n * n, n * n))
        link = link + link.T
        matrix = matrix + scipy.sparse.diags(np.asarray(link.sum(1)).ravel()) - link
        sides = np.concatenate([np.take(number, 0, axis), np.take(number, n - 1, axis)])
        matrix = matrix + scipy.sparse.coo_matrix((2 * a.ravel()[sides], (sides, sides)), (n * n, n * n))
    volumes = scipy.sparse.linalg.spsolve(matrix.tocsc(), np.full(n * n, 10 / n**2)).reshape(n, n)
    at_nodes = (
        volumes[7::8, 7::8][:-1, :-1] + volumes[8::8, 8::8] + volumes[7::8, 8::8][:-1] + volumes[8::8, 7::8][:, :-1]
    ) / 4
    found = problem.solve(inputs, 8)[0, 0].reshape(9, 9)[1:-1, 1:-1].numpy()
    assert np.abs(found - at_nodes).max() < 2e-3 * at_nodes.max()


@pytest.mark.parametrize("subset, tolerance", [("waves", 0.03), ("smooth", 0.06), ("piecewise", 0.06)])
def test_finer_references_agree_with_coarse_ones(subset, tolerance):
    problem = get_weak_problem("darcy", subset, 10)
    cases = problem.draw_cases(2, seed=2)
    inputs = problem.inputs(cases)
    coarse, fine = problem.solve(inputs), problem.solve(inputs, 4)
    finer = problem.solve(inputs.unflatten(1, (10, 10)).repeat_interleave(4, 1).repeat_interleave(4, 2).flatten(1), 4)
    torch.testing.assert_close(fine, finer)  # the same function, given on either mesh
    error = float((coarse - fine).norm() / fine.norm())
    assert 1e-4 < error < tolerance
    drawn = problem.solve(problem.inputs(cases, 4), 4)
    assert float((coarse - drawn).norm() / drawn.norm()) < 2 * tolerance


@pytest.mark.parametrize("subset", SUBSETS)
def test_candidates_vanish_on_the_sides_and_have_their_gradients(subset):
    problem = get_weak_problem("darcy", subset, 8)
    inputs = problem.inputs(problem.draw_cases(1, seed=0))
    check_ansatz(problem, inputs)
    sides = ((problem.points == 0) | (problem.points == 1)).any(1)
    values = problem.ansatz(problem.points, inputs).value(torch.ones(1, 1, 81, dtype=DOUBLE))
    assert float(values[..., sides].abs().max()) < 1e-15 * 81 and bool((values[..., ~sides] > 0).all())
    # N of order one: the unit is about the largest pressure.
    assert 0.2 < float(problem.solve(inputs).max()) / problem.unit < 5


def test_cases_depend_on_seed_and_number_alone():
    problem = get_weak_problem("darcy", "piecewise", 8)
    long, short, other = (problem.draw_cases(n, seed) for n, seed in ((6, 4), (3, 4), (3, 5)))
    assert all(torch.equal(long[name][:3], short[name]) for name in short)
    assert not torch.equal(short["draw"], other["draw"])
    first, again = problem.inputs(short), problem.inputs(long)[:3]
    assert torch.equal(first, again)
    assert set(first.unique().tolist()) == {5.0, 10.0}
    finer = problem.inputs(short, 3)  # the same field: what is at the middle of nine cells is at their centre
    assert torch.equal(finer.unflatten(1, (24, 24))[:, 1::3, 1::3].flatten(1), first)


@pytest.mark.parametrize("subset", ["smooth", "piecewise"])
def test_inputs_follow_from_normal_numbers(subset):
    problem = get_weak_problem("darcy", subset, 48)  # as many cells as the field has modes along an axis
    drawn = problem.inputs({**{name: [value] for name, value in CONSTANTS[subset].items()}, "draw": [11.0]})
    noise = torch.randn(48, 48, generator=torch.Generator().manual_seed(11), dtype=torch.float64).flatten()
    order = cosine_deviations(2, alpha=2.0, tau=3.0).flatten().argsort(descending=True, stable=True)[:-1]
    z = noise[order].unsqueeze(0)
    assert problem.n_normals == z.shape[1] == 48**2 - 1
    torch.testing.assert_close(problem.inputs_from_normals(z), drawn)
    some = problem.input_points[5:9]
    torch.testing.assert_close(problem.inputs_from_normals(z, some), drawn[:, 5:9])
    few = torch.cat([z[:, :300], torch.zeros(1, z.shape[1] - 300)], 1)  # the first numbers matter most
    share = (problem.inputs_from_normals(few) - drawn).norm() / (drawn - drawn.mean()).norm()
    assert share < (0.05 if subset == "smooth" else 0.35)


def test_waves_follow_from_normal_numbers():
    problem = get_weak_problem("darcy", "waves")
    frequencies = torch.tensor([[0.7, 4.1]], dtype=torch.float64)
    drawn = problem.inputs(
        {
            **{name: [value] for name, value in CONSTANTS["waves"].items()},
            "frequency_x": [0.7],
            "frequency_y": [4.1],
            "draw": [0.0],
        }
    )
    z = torch.special.ndtri(frequencies / FREQUENCY)
    assert problem.n_normals == 2
    torch.testing.assert_close(problem.inputs_from_normals(z), drawn)


def test_a_problem_that_does_not_say_how_inputs_follow():
    problem = get_weak_problem("burgers")
    assert problem.n_normals == 0
    with pytest.raises(ConfigError, match="inputs_from_normals"):
        problem.inputs_from_normals(torch.zeros(1, 3))


def test_residuals_can_be_differentiated():
    problem = get_weak_problem("darcy", "smooth", 4)
    inputs = problem.inputs(problem.draw_cases(2, seed=0)).requires_grad_()
    candidate = torch.randn(2, 1, 25, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    nodes = problem.collocation(None, inputs)
    assert torch.autograd.gradcheck(lambda u, a: problem.residual_square(nodes, u, a), (candidate, inputs))


@pytest.mark.parametrize(
    "inputs, refine, message",
    [
        (torch.ones(2, 60), 1, r"permeability has shape \(2, 60\); expected \(cases, 64\)"),
        (torch.ones(64), 1, r"has shape \(64,\)"),
        (torch.ones(64), 2, r"has shape \(64,\)"),
        (torch.ones(1, 64).index_fill(1, torch.tensor([5]), 0.0), 1, r"case 0 is 0.0 at point 5; it must be positive"),
        (torch.ones(1, 64).index_fill(1, torch.tensor([7]), math.nan), 1, r"is nan at point 7"),
        (torch.ones(1, 256).index_fill(1, torch.tensor([9]), -1.0), 2, r"is -1.0 at point 9"),
    ],
)
def test_bad_permeabilities(inputs, refine, message):
    with pytest.raises(DataError, match=message):
        get_weak_problem("darcy", "piecewise", 8).solve(inputs, refine)


def test_bad_names_and_meshes():
    with pytest.raises(ConfigError, match=r"no weak form of a problem 'darcie'.*darcy"):
        get_weak_problem("darcie")
    with pytest.raises(ConfigError, match=r"no subset 'smoth'.*smooth"):
        get_weak_problem("darcy", "smoth")
    with pytest.raises(ConfigError, match=r"resolution is 3; expected at least 4"):
        get_weak_problem("darcy", "smooth", 3)


def test_points_inside():
    points = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.1, 0.5], [0.5, -0.1]])
    assert get_weak_problem("darcy", None, 4).inside(points).tolist() == [True, True, False, False]


# -------------------------------------------------------------------------------------------------- the mixed form


def mixed_solution(problem, inputs):
    """The finite-element solution and its flux where the mixed problem wants them."""
    space = problem.space(inputs)
    pressure = problem.solve_finely(inputs, 1).unsqueeze(1)
    a = space.at_points(problem.cellwise(inputs, 1))
    flux = (a.unsqueeze(-1) * space.interpolate(pressure).gradient[:, 0]).transpose(1, 2)
    whole = torch.zeros(len(inputs), 3, len(space.nodes) + len(space.points), dtype=DOUBLE)
    whole[:, :1, : len(space.nodes)], whole[:, 1:, len(space.nodes) :] = pressure, flux
    return whole


@pytest.mark.parametrize("subset", SUBSETS)
def test_mixed_residual_is_zero_at_the_solution_with_its_flux_alone(subset):
    problem = get_weak_problem("darcy_mixed", subset, 8)
    inputs = problem.inputs(problem.draw_cases(2, seed=1))
    points, truth = problem.collocation(None, inputs), mixed_solution(problem, inputs)
    assert bool((problem.residual_square(points, truth, inputs) < 1e-24).all())
    torch.testing.assert_close(problem.residual_square(points, 0 * truth, inputs), torch.ones(2, dtype=DOUBLE))
    # Twice the flux: one more of it is out of balance, and one more off the law of Darcy.
    twice = truth * torch.tensor([1.0, 2.0, 2.0], dtype=DOUBLE)[:, None]
    assert bool((problem.residual_square(points, twice, inputs) > 1).all())
    only_pressure = truth * torch.tensor([1.01, 1.0, 1.0], dtype=DOUBLE)[:, None]
    # The balance holds; the law is off by a hundredth of a grad u.
    found = problem.residual_square(points, only_pressure, inputs)
    space = problem.space(inputs)
    a, flux = space.at_points(problem.cellwise(inputs, 1)), truth[:, 1:, len(space.nodes) :]
    energy = (flux.square().sum(1) / a) @ space.weights
    load = space.dual_square(space.test(None, torch.full((1, len(space.points)), problem.density, dtype=DOUBLE)))
    torch.testing.assert_close(found, 1e-4 * inputs.log().mean(1).exp() * energy / load, rtol=1e-8, atol=0)


def test_mixed_solutions_are_at_the_centres_of_cells_on_any_mesh():
    problem, primal = get_weak_problem("darcy_mixed", "smooth", 12), get_weak_problem("darcy", "smooth", 12)
    inputs = problem.inputs(problem.draw_cases(2, seed=1))
    found = problem.solve(inputs)
    corners = primal.solve(inputs)[:, 0].unflatten(1, (13, 13))
    quads = [corners[:, i : 12 + i, j : 12 + j] for i in (0, 1) for j in (0, 1)]
    torch.testing.assert_close(found[:, 0], (sum(quads) / 4).flatten(1))
    across = (quads[2] + quads[3] - quads[0] - quads[1]) / 2 * 12
    torch.testing.assert_close(found[:, 1], inputs * across.flatten(1))
    along = (quads[1] + quads[3] - quads[0] - quads[2]) / 2 * 12
    torch.testing.assert_close(found[:, 2], inputs * along.flatten(1))
    for refine in (3, 4):
        finer = problem.solve(inputs, refine)
        error = (found - finer).norm(dim=2) / finer.norm(dim=2)
        assert bool((error < 0.03).all()), refine


def test_mixed_candidates_have_no_flux_along_the_sides():
    problem = get_weak_problem("darcy_mixed", "piecewise", 8)
    check_ansatz(problem, problem.inputs(problem.draw_cases(1, seed=0)))
    edge = torch.tensor([[0.3, 0.0], [1.0, 0.6]], dtype=DOUBLE)
    factor = problem.ansatz(edge, problem.input_points[:1]).factor
    assert float(factor[1, 0].abs()) < 1e-15 and float(factor[2, 1].abs()) < 1e-15
    assert float(factor[2, 0]) > 0.5 and float(factor[1, 1]) > 0.5


# -------------------------------------------------------------------------------------------- equations of one's own


class Reaction(BoxProblem):
    name, link, resolution = "reaction", "log", 8

    def flux(self, x, u, du, a):
        return a.unsqueeze(-1) * du[:, 0]

    def source(self, x, u, du, a):
        return u[:, 0] ** 3 - 50

    def draw_input(self, generator, points):
        slope = torch.randn(points.shape[1], generator=generator, dtype=DOUBLE)
        return torch.exp(points @ slope)


class Bar(Reaction):
    """On [-1, 3], u = 2 at the left end, nothing flows out at the right."""

    name, lengths, origin, dirichlet = "bar", (4.0,), (-1.0,), ("x_low",)

    def lift(self, points):
        return 1 - points[:, 0]


class Channel(Reaction):
    name, lengths, resolution = "channel", (2.0, 1.0, 1.0), 4


@pytest.mark.parametrize("kind", [Reaction, Bar, Channel])
def test_own_equations_in_one_to_three_dimensions(kind):
    problem = kind()
    inputs = problem.inputs(problem.draw_cases(3, seed=1))
    nodes, truth = problem.collocation(None, inputs), problem.solve(inputs)
    assert bool((problem.residual_square(nodes, truth, inputs) < 1e-18).all())
    lift = problem.lift(nodes).expand(3, 1, -1)
    torch.testing.assert_close(problem.residual_square(nodes, lift, inputs), torch.ones(3, dtype=DOUBLE))
    check_ansatz(problem, inputs)
    # With N = (truth - lift) / factor the candidate is the truth: the boundary values are the ansatz's.
    ansatz = problem.ansatz(nodes, inputs)
    network = torch.where(ansatz.factor.abs() > 1e-12, (truth - ansatz.offset) / ansatz.factor, 0.0)
    torch.testing.assert_close(ansatz.value(network), truth, rtol=0, atol=1e-12 * float(truth.abs().max()))
    assert float(network.abs().max()) < 30
    finer, finest = problem.solve(inputs, 2), problem.solve(inputs, 4)
    assert 0 < float((finer - finest).norm()) < 0.6 * float((truth - finest).norm())


def test_a_bar_against_collocation():
    """-(a u')' + u^3 = 50, a = exp(s x), u(-1) = 2, no flux at 3: by scipy's collocation of fourth order."""
    from scipy.integrate import solve_bvp

    problem = Bar(resolution=256)
    slope = 0.4
    inputs = torch.exp(slope * problem.input_points[:, 0]).unsqueeze(0)
    found = problem.solve(inputs)[0, 0].numpy()
    x = problem.points[:, 0].numpy()
    start = np.stack([np.full_like(x, 3.0), np.zeros_like(x)])
    known = solve_bvp(
        lambda x, y: np.stack([y[1] / np.exp(slope * x), y[0] ** 3 - 50]),
        lambda left, right: np.array([left[0] - 2, right[1]]),
        x,
        start,
        tol=1e-6,
        max_nodes=20_000,
    )
    assert known.success and np.abs(found - known.sol(x)[0]).max() < 5e-4


def test_cells_are_about_as_long_on_every_axis():
    problem = Channel()
    assert problem.input_shape == (4, 2, 2) and problem.axes == ("x", "y", "z") and len(problem.points) == 5 * 3 * 3
    assert problem.inside(torch.tensor([[2.0, 1.0, 1.0], [0.1, 1.1, 0.5]])).tolist() == [True, False]


def test_own_cases_depend_on_seed_and_number_alone():
    problem = Reaction()
    long, short = problem.draw_cases(5, 3), problem.draw_cases(2, 3)
    assert torch.equal(problem.inputs(long)[:2], problem.inputs(short))
    finer = problem.inputs(short, 3).unflatten(1, (24, 24))[:, 1::3, 1::3].flatten(1)
    torch.testing.assert_close(finer, problem.inputs(short))


def test_mistakes_in_an_own_equation_are_named():
    class Nothing(Reaction):
        def source(self, x, u, du, a):
            return u[:, 0] ** 3

    problem = Nothing()
    with pytest.raises(ConfigError, match=r"solves the equation, so there is nothing to learn"):
        problem.ansatz(problem.points, problem.input_points[:, 0].unsqueeze(0))

    class Misshapen(Reaction):
        def flux(self, x, u, du, a):
            return du

        def draw_input(self, generator, points):
            return torch.ones(3)

    problem = Misshapen()
    with pytest.raises(ConfigError, match=r"draw_input returns the shape \(3,\); expected \(64,\)"):
        problem.inputs({"draw": [1.0]})
    with pytest.raises(DataError, match=r"flux returns a tensor of shape"):
        problem.solve(torch.ones(1, 64))
    with pytest.raises(TypeError, match=r"abstract"):
        BoxProblem()
    with pytest.raises(SolverError, match=r"a mesh of 136,161 nodes is too fine for a direct solve"):
        Channel().solve(torch.ones(1, 4 * 2 * 2), 20)

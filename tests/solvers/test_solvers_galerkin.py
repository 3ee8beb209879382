"""Newton's method on finite elements: independent assembly, manufactured solutions, nonlinear equations, failure."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.errors import SolverError
from sciml.physics.weak import HatSpace, WeakForm
from sciml.solvers.galerkin import solve_galerkin

DOUBLE = torch.float64


def solved(form: WeakForm, coefficient=None, start=None, **options):
    """Nodal values (B, N) of a form, from zeros."""
    space = form.space
    if start is None:
        start = torch.zeros(1 if coefficient is None else len(coefficient), len(space.nodes), dtype=DOUBLE)

    def residual(nodal):
        return form.residual(space.interpolate(nodal.unsqueeze(1)), coefficient)[:, 0]

    return solve_galerkin(residual, space, start, **options)


def darcy(space, source=1.0):
    return WeakForm(
        space,
        flux=lambda x, u, du, a: a.unsqueeze(-1) * du[:, 0],
        source=lambda x, u, du, a: x.new_full((len(x),), -source),
    )


def test_darcy_against_a_matrix_assembled_from_the_textbook():
    """Bilinear elements on squares: the 4 x 4 stiffness matrix of Hughes, The Finite Element Method, section 3.8."""
    n = 7
    a = 1 + 9 * torch.rand(3, n, n, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    space = HatSpace((n, n), (1.0, 1.0), dtype=DOUBLE)
    found = solved(darcy(space), space.at_points(a))
    element = np.array([[4, -1, -1, -2], [-1, 4, -2, -1], [-1, -2, 4, -1], [-2, -1, -1, 4]]) / 6
    node = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    inner = node[1:-1, 1:-1].ravel()
    for case in range(3):
        matrix = scipy.sparse.lil_matrix(((n + 1) ** 2,) * 2)
        load = np.zeros((n + 1) ** 2)
        for i in range(n):
            for j in range(n):
                corners = node[i : i + 2, j : j + 2].ravel()
                matrix[np.ix_(corners, corners)] += float(a[case, i, j]) * element
                load[corners] += 1 / (4 * n * n)
        expected = np.zeros((n + 1) ** 2)
        expected[inner] = scipy.sparse.linalg.spsolve(matrix.tocsc()[inner][:, inner], load[inner])
        assert np.abs(found[case].numpy() - expected).max() < 1e-13


@pytest.mark.parametrize("cells, sides", [((8,), None), ((6, 5), ("x_low", "y_high")), ((4, 3, 3), None)])
def test_every_dimension_and_set_of_sides_ends_at_a_zero_residual(cells, sides):
    space = HatSpace(cells, (1.0, 2.0, 0.7)[: len(cells)], dirichlet=sides, dtype=DOUBLE)
    form = darcy(space)
    a = space.at_points(1 + torch.rand(2, *cells, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)))
    found = solved(form, a)
    residual = form.residual(space.interpolate(found.unsqueeze(1)), a)
    load = form.residual(space.interpolate(torch.zeros_like(found).unsqueeze(1)), a)
    assert residual.norm() < 1e-12 * load.norm()
    fixed = torch.ones(len(space.nodes), dtype=torch.bool).index_fill(0, space.free, False)
    assert bool((found[:, fixed] == 0).all()) and bool((found[:, space.free] > 0).all())


def manufactured(n):
    """-div((1 + u^2) grad u) + u^3 = f with u = 1 + sin(pi x) sin(pi y) x: the largest error at the nodes."""

    def exact(x):
        return 1 + torch.sin(math.pi * x[:, 0]) * torch.sin(math.pi * x[:, 1]) * x[:, 0]

    def f(x):
        def flux(point):
            u = lambda p: exact(p.unsqueeze(0))[0]  # noqa: E731
            return (1 + u(point) ** 2) * torch.func.grad(u)(point)

        divergence = torch.func.vmap(lambda p: torch.trace(torch.func.jacfwd(flux)(p)))(x)
        return exact(x) ** 3 - divergence

    space = HatSpace((n, n), (1.0, 1.0), order=3, dtype=DOUBLE)
    right = f(space.points)
    form = WeakForm(
        space,
        flux=lambda x, u, du, a: (1 + u[:, 0, :, None] ** 2) * du[:, 0],
        source=lambda x, u, du, a: u[:, 0] ** 3 - right,
    )
    found = solved(form, start=torch.ones(1, len(space.nodes), dtype=DOUBLE))
    return float((found[0] - exact(space.nodes)).abs().max())


def test_a_manufactured_nonlinear_solution_is_met_with_second_order():
    coarse, fine = manufactured(12), manufactured(24)
    assert fine < 5e-3
    assert coarse / fine == pytest.approx(4, rel=0.15)


def test_a_nonlinear_equation_against_scipy_in_one_dimension():
    """-u'' + exp(u) = 20 with linear elements, assembled by hand with two Gauss points."""
    n = 9
    h, gauss = 1 / n, 0.5 + np.array([-1, 1]) / math.sqrt(12)

    def system(inner):
        u = np.concatenate([[0], inner, [0]])
        r = np.zeros(n + 1)
        for i in range(n):
            slope = (u[i + 1] - u[i]) / h
            r[i] -= slope
            r[i + 1] += slope
            for s in gauss:
                g = (np.exp((1 - s) * u[i] + s * u[i + 1]) - 20) * h / 2
                r[i] += g * (1 - s)
                r[i + 1] += g * s
        return r[1:-1]

    expected = scipy.optimize.fsolve(system, np.zeros(n - 1), xtol=1e-13)
    form = WeakForm(
        HatSpace((n,), (1.0,), dtype=DOUBLE),
        flux=lambda x, u, du, a: du[:, 0],
        source=lambda x, u, du, a: u[:, 0].exp() - 20,
    )
    assert np.abs(solved(form)[0, 1:-1].numpy() - expected).max() < 1e-10


def test_values_on_dirichlet_sides_stay_and_others_follow():
    """Laplace's equation between 1 and 3 is linear."""
    space = HatSpace((5, 4), (1.0, 1.0), dirichlet=("x_low", "x_high"), dtype=DOUBLE)
    start = torch.where(space.nodes[:, 0] == 0, 1.0, torch.where(space.nodes[:, 0] == 1, 3.0, 0.0)).double()
    form = WeakForm(space, flux=lambda x, u, du, a: du[:, 0])
    torch.testing.assert_close(solved(form, start=start.unsqueeze(0))[0], 1 + 2 * space.nodes[:, 0], rtol=0, atol=1e-12)


def test_an_equation_without_a_solution_is_named_by_its_case():
    """-u'' = lambda exp(u) has no solution beyond lambda = 3.51 (Bratu)."""
    space = HatSpace((16,), (1.0,), dtype=DOUBLE)
    form = WeakForm(
        space, flux=lambda x, u, du, a: du[:, 0], source=lambda x, u, du, a: -a * torch.exp(u[:, 0].clamp(max=50))
    )
    a = torch.tensor([[1.0], [5.0]], dtype=DOUBLE).expand(2, len(space.points))
    with pytest.raises(SolverError, match=r"case 1 did not converge: after 20 Newton steps"):
        solved(form, a)
    assert float(solved(form, a[:1]).max()) == pytest.approx(0.1405, abs=2e-3)  # known: 0.140539


def test_too_few_iterations_say_so():
    form = WeakForm(
        HatSpace((8,), (1.0,), dtype=DOUBLE),
        flux=lambda x, u, du, a: du[:, 0],
        source=lambda x, u, du, a: u[:, 0] ** 3 - 100,
    )
    with pytest.raises(SolverError, match=r"after 1 Newton steps"):
        solved(form, max_iterations=1)

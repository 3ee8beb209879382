"""Weak forms: a user's own equations against independent solvers, Darcy, Burgers in time, Stokes, and errors."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics.weak import (
    Fields,
    HatSpace,
    TimeSlices,
    WeakForm,
    WendlandSpace,
    burgers_form,
    darcy_balance_form,
    darcy_flux_mismatch,
    darcy_form,
    divergence_square,
    grid_centres,
    stokes_form,
)


def minimised(form, space, coefficient=None):
    """Nodal values (N,) of the function of the space with the least dual norm of the residual."""
    values = torch.zeros(1, 1, space.n_tests, dtype=torch.float64, requires_grad=True)
    options = dict(
        max_iter=500, history_size=50, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    optimiser = torch.optim.LBFGS([values], **options)

    def closure():
        optimiser.zero_grad()
        loss = form.square(space.interpolate(space.extend(values)), coefficient).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return space.extend(values.detach())[0, 0]


def nonlinear_diffusion_reaction(space):
    """-div((1 + u^2) grad u) + u^3 = 50 x, in the few lines of a user."""
    return WeakForm(
        space,
        flux=lambda x, u, du, _: (1 + u[:, 0, :, None] ** 2) * du[:, 0],
        source=lambda x, u, du, _: u[:, 0] ** 3 - 50 * x[:, 0],
    )


def test_own_equation_against_newton_on_a_system_assembled_in_loops():
    n = 5
    h, gauss = 1 / n, 0.5 + np.array([-1, 1]) / math.sqrt(12)

    def system(inner):
        u = np.zeros((n + 1, n + 1))
        u[1:-1, 1:-1] = inner.reshape(n - 1, n - 1)
        r = np.zeros_like(u)
        for i in range(n):
            for j in range(n):
                a, b, c, d = u[i, j], u[i + 1, j], u[i, j + 1], u[i + 1, j + 1]
                for s in gauss:
                    for t in gauss:
                        value = a * (1 - s) * (1 - t) + b * s * (1 - t) + c * (1 - s) * t + d * s * t
                        dx = ((b - a) * (1 - t) + (d - c) * t) / h
                        dy = ((c - a) * (1 - s) + (d - b) * s) / h
                        k, g = (1 + value**2) * h * h / 4, (value**3 - 50 * (i + s) * h) * h * h / 4
                        r[i, j] += g * (1 - s) * (1 - t) - k * (dx * (1 - t) + dy * (1 - s)) / h
                        r[i + 1, j] += g * s * (1 - t) + k * (dx * (1 - t) - dy * s) / h
                        r[i, j + 1] += g * (1 - s) * t + k * (-dx * t + dy * (1 - s)) / h
                        r[i + 1, j + 1] += g * s * t + k * (dx * t + dy * s) / h
        return r[1:-1, 1:-1].ravel()

    solution = scipy.optimize.fsolve(system, np.zeros((n - 1) ** 2), xtol=1e-13)
    space = HatSpace((n, n), (1.0, 1.0), dtype=torch.float64)
    found = minimised(nonlinear_diffusion_reaction(space), space)
    assert abs(solution).max() > 0.9  # nonlinear in earnest
    torch.testing.assert_close(found[space.free], torch.from_numpy(solution), rtol=0, atol=1e-7)


def test_own_equation_converges_to_the_solution_of_a_collocation_solver():
    """The same in 1D, natural at x = 1, with scipy's solve_bvp: y = (u, (1 + u^2) u')."""
    exact = scipy.integrate.solve_bvp(
        lambda x, y: np.stack([y[1] / (1 + y[0] ** 2), y[0] ** 3 - 50 * x]),
        lambda low, high: np.array([low[0], high[1]]),
        np.linspace(0, 1, 50),
        np.stack([np.linspace(0, 2, 50), np.ones(50)]),
        tol=1e-8,
    )
    assert exact.success
    errors = []
    for n in (10, 20):
        space = HatSpace((n,), (1.0,), dirichlet=("x_low",), order=3, dtype=torch.float64)
        found = minimised(nonlinear_diffusion_reaction(space), space)
        errors.append(float(np.abs(found.numpy() - exact.sol(space.nodes[:, 0].numpy())[0]).max()))
    assert errors[1] < 5e-3
    assert 3.3 < errors[0] / errors[1] < 4.7


def test_several_equations_and_missing_terms():
    space = HatSpace((4, 3), (1.0, 1.0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    fields = space.interpolate(torch.randn(3, 2, len(space.nodes), dtype=torch.float64, generator=generator))
    f = torch.randn(len(space.points), dtype=torch.float64, generator=generator)
    form = WeakForm(
        space,
        flux=lambda x, u, du, a: (a * du[:, 0], None),
        source=lambda x, u, du, a: [-f, u[:, 1] * u[:, 0]],
    )
    r = form.residual(fields, 3.0)
    assert r.shape == (3, 2, space.n_tests)
    torch.testing.assert_close(r[:, 0], space.test(3 * fields.gradient[:, 0], -f.expand(3, -1)))
    torch.testing.assert_close(r[:, 1], space.test(None, fields.value.prod(1)))
    torch.testing.assert_close(form.square(fields, 3.0), space.dual_square(r[:, 0]) + space.dual_square(r[:, 1]))

    only_source = WeakForm(space, source=lambda x, u, du, a: u[:, 0])
    torch.testing.assert_close(only_source.residual(fields)[:, 0], space.test(None, fields.value[:, 0]))


@pytest.mark.parametrize("kind", ["hats", "wendland"])
def test_gradcheck_of_the_square(kind):
    if kind == "hats":
        space = HatSpace((3, 3), (1.0, 1.0), dtype=torch.float64)
    else:
        space = WendlandSpace(grid_centres((2, 2), (1.0, 1.0), 0.3), 0.3, (1.0, 1.0), order=2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(2, 1, len(space.points), dtype=torch.float64, generator=generator, requires_grad=True)
    gradient = torch.randn(2, 1, len(space.points), 2, dtype=torch.float64, generator=generator, requires_grad=True)
    form = nonlinear_diffusion_reaction(space)
    assert torch.autograd.gradcheck(lambda u, du: form.square(Fields(u, du)), (value, gradient))


def test_primal_darcy_with_a_jump_in_the_coefficient():
    """-(a u')' = 1 with a = 1, then 4: a u' = c - x with c from u(1) = 0."""
    space = HatSpace((8,), (1.0,), dtype=torch.float64)
    a = space.at_points(torch.tensor([[1.0] * 4 + [4.0] * 4], dtype=torch.float64))
    # int u' = 0: sum over the halves of (c / 2 - [x^2 / 2]) / a
    c = (1 / 8 + 3 / 32) / (1 / 2 + 1 / 8)
    slope = (c - space.points[:, 0]) / a
    fields = Fields(torch.zeros(1, 1, len(space.points), dtype=torch.float64), slope.reshape(1, 1, -1, 1))
    assert darcy_form(space, 1.0).residual(fields, a).abs().max() < 1e-14
    assert darcy_form(space, 2.0).residual(fields, a).abs().max() > 1e-2
    f = torch.ones(len(space.points), dtype=torch.float64)
    assert darcy_form(space, f).residual(fields, a).abs().max() < 1e-14


def test_mixed_darcy_is_the_energy_error_of_a_balanced_flux():
    """Prager and Synge: with div s = -f, int |s - a grad u|^2 / a = |u - u*|_a^2 + |s - s*|_(1/a)^2; here a = 2, f = 4
    in 1D: u* = x (1 - x), s* = 2 - 4 x; u = u* + e sin(pi x), s = s* + k, both e pi cos(pi x) and k orthogonal."""
    space = HatSpace((6,), (1.0,), order=6, dtype=torch.float64)
    x, e, k = space.points[:, 0], 0.3, 0.2
    u, s = x * (1 - x) + e * torch.sin(math.pi * x), 2 - 4 * x + k
    du, ds = 1 - 2 * x + e * math.pi * torch.cos(math.pi * x), torch.full_like(x, -4)
    fields = Fields(torch.stack([u, s])[None], torch.stack([du, ds])[None, ..., None])
    a = torch.full((1, len(x)), 2.0, dtype=torch.float64)
    assert darcy_balance_form(space, 4.0).residual(fields, a).abs().max() < 1e-14
    expected = 2 * (e * math.pi) ** 2 / 2 + k**2 / 2
    assert darcy_flux_mismatch(space, fields, a).item() == pytest.approx(expected, rel=1e-9)
    assert darcy_balance_form(space, 5.0).residual(fields, a).abs().max() > 0.1
    with pytest.raises(DataError, match="has 1 fields; expected 2"):
        darcy_flux_mismatch(space, Fields(fields.value[:, :1], fields.gradient[:, :1]), a)


def test_burgers_residual_of_a_semi_discrete_solution_is_round_off():
    """Method of lines with the finite elements written out (int u^2 over a cell in closed form), by scipy."""
    n, nu = 16, 0.05
    h = 2 / n
    mass = (np.diag(np.full(n - 1, 4.0)) + np.diag(np.ones(n - 2), 1) + np.diag(np.ones(n - 2), -1)) * h / 6
    stiff = (np.diag(np.full(n - 1, 2.0)) - np.diag(np.ones(n - 2), 1) - np.diag(np.ones(n - 2), -1)) / h

    def rate(t, inner):
        u = np.pad(inner, 1)
        half_square = (u[:-1] ** 2 + u[:-1] * u[1:] + u[1:] ** 2) / 6  # mean of u^2 / 2 in each cell
        return np.linalg.solve(mass, -nu * stiff @ inner + half_square[:-1] - half_square[1:])

    space = HatSpace((n,), (2.0,), origin=(-1.0,), dtype=torch.float64)
    start = -np.sin(math.pi * space.nodes[1:-1, 0].numpy())
    times = np.array([0.1, 0.4, 0.9])
    states = scipy.integrate.solve_ivp(rate, (0, 1), start, t_eval=times, rtol=1e-8).y.T
    assert abs(states).max() > 0.5
    slices = TimeSlices(space, torch.from_numpy(times))

    def fields(rates):
        state, change = (space.interpolate(space.extend(torch.from_numpy(x)[:, None])) for x in (states, rates))
        gradient = torch.cat([state.gradient, change.value[..., None]], -1)
        return Fields(state.value.reshape(1, 1, -1), gradient.reshape(1, 1, -1, 2))

    rates = np.stack([rate(0, state) for state in states])
    form = burgers_form(slices, nu)
    assert form.residual(fields(rates)).abs().max() < 1e-13
    assert form.square(fields(np.zeros_like(rates))).item() > 1e-2
    assert burgers_form(slices, 2 * nu).square(fields(rates)).item() > 1e-4


def test_time_slices_are_the_space_at_each_time():
    space = HatSpace((3, 4), (1.0, 1.0), dirichlet=("x_low",), dtype=torch.float64)
    share = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    slices = TimeSlices(space, [0.0, 0.5, 2.0], share)
    q = len(space.points)
    assert slices.points.shape == (3 * q, 3) and slices.dim == 2 and slices.n_tests == 3 * space.n_tests
    assert (slices.points[q : 2 * q, 2] == 0.5).all() and torch.equal(slices.points[q : 2 * q, :2], space.points)
    torch.testing.assert_close(slices.weights.sum(), torch.tensor(1.0).double())

    generator = torch.Generator().manual_seed(2)
    flux = torch.randn(2, 3 * q, 2, dtype=torch.float64, generator=generator)
    source = torch.randn(2, 3 * q, dtype=torch.float64, generator=generator)
    r = slices.test(flux, source)
    each = [space.test(f, s) for f, s in zip(flux.split(q, 1), source.split(q, 1), strict=True)]
    torch.testing.assert_close(r, torch.cat(each, 1))
    torch.testing.assert_close(
        slices.test(None, source), torch.cat([space.test(None, s) for s in source.split(q, 1)], 1)
    )
    squares = torch.stack([space.dual_square(part) for part in each], 1)
    torch.testing.assert_close(slices.dual_square(r), squares @ share)
    torch.testing.assert_close((r * slices.dual(r)).sum(1), slices.dual_square(r))
    torch.testing.assert_close(TimeSlices(space, [0.0, 1.0, 2.0]).dual_square(r), squares.mean(1))


@pytest.mark.parametrize("dim", [2, 3])
def test_stokes_channel_flow_leaves_no_residual(dim):
    """u = y (1 - y), p = 2 mu (L - x): momentum with the outlet condition at x = L, and no divergence."""
    mu, length = 0.3, 2.0
    fixed = [side for side in ("x_low", "y_low", "y_high", "z_low", "z_high")[: 2 * dim - 1]]
    space = HatSpace((4, 3, 2)[:dim], (length, 1.0, 1.0)[:dim], dirichlet=fixed, dtype=torch.float64)
    x, y = space.points[:, 0], space.points[:, 1]
    value = torch.zeros(1, dim + 1, len(x), dtype=torch.float64)
    gradient = torch.zeros(1, dim + 1, len(x), dim, dtype=torch.float64)
    value[0, 0], value[0, dim] = y * (1 - y), 2 * mu * (length - x)
    gradient[0, 0, :, 1], gradient[0, dim, :, 0] = 1 - 2 * y, -2 * mu
    flow = Fields(value, gradient)
    r = stokes_form(space, mu).residual(flow)
    assert r.shape == (1, dim, space.n_tests)
    assert r.abs().max() < 1e-14
    assert divergence_square(space, flow).item() == 0
    assert stokes_form(space, 2 * mu).residual(flow).abs().max() > 1e-3
    higher = value.clone()
    higher[0, dim] += 1  # the pressure is 1 at the outlet: a force through it
    assert stokes_form(space, mu).residual(Fields(higher, gradient)).abs().max() > 1e-3


def test_stokes_with_a_force_and_a_divergence():
    """u = curl of sin^2 sin^2, p = sin x cos y with its force, on [0, pi]^2; plus (x, 0), whose divergence is 1."""
    mu = 0.7
    space = HatSpace((12, 12), (math.pi, math.pi), order=5, dtype=torch.float64)
    points = space.points.clone().requires_grad_()

    def grad(f):
        return torch.autograd.grad(f.sum(), points, create_graph=True)[0]

    x, y = points.T
    psi = grad(torch.sin(x) ** 2 * torch.sin(y) ** 2)
    components = [psi[:, 1], -psi[:, 0], torch.sin(x) * torch.cos(y)]
    gradients = [grad(f) for f in components]
    force = [
        (gradients[2][:, i] - mu * sum(grad(gradients[i][:, k])[:, k] for k in range(2))).detach() for i in range(2)
    ]
    value, gradient = (torch.stack(parts).detach()[None] for parts in (components, gradients))
    form = stokes_form(space, mu, force)
    assert form.square(Fields(value, gradient)).sqrt().item() < 1e-6
    assert stokes_form(space, mu).square(Fields(value, gradient)).sqrt().item() > 1
    assert divergence_square(space, Fields(value, gradient)).item() < 1e-20
    gradient[0, 0, :, 0] += 1
    assert divergence_square(space, Fields(value, gradient)).item() == pytest.approx(math.pi**2)


def test_forms_that_do_not_fit():
    space = HatSpace((3, 3), (1.0, 1.0), dtype=torch.float64)
    fields = space.interpolate(torch.zeros(2, 1, 16, dtype=torch.float64))
    with pytest.raises(ConfigError, match="neither flux nor source"):
        WeakForm(space)
    with pytest.raises(DataError, match=r"gradient of shape \(2, 1, 36, 2\); expected \(B, C, 16, 2\)"):
        darcy_form(HatSpace((2, 2), (1.0, 1.0), dtype=torch.float64), 1.0).residual(fields, torch.ones(2, 16))
    unequal = WeakForm(space, flux=lambda x, u, du, a: [du[:, 0]] * 2, source=lambda x, u, du, a: u[:, 0])
    with pytest.raises(ConfigError, match=r"flux returns 2 equation\(s\) and source 1"):
        unequal.residual(fields)
    with pytest.raises(DataError, match=r"flux returns a tensor of shape \(2, 1, 36, 2\); expected \(2, 36, 2\)"):
        WeakForm(space, flux=lambda x, u, du, a: du).residual(fields)
    with pytest.raises(DataError, match=r"source returns a tensor of shape \(3, 36\); expected \(2, 36\)"):
        WeakForm(space, source=lambda x, u, du, a: torch.ones(3, 36)).residual(fields)

    with pytest.raises(ConfigError, match="TimeSlices of a 1D space"):
        burgers_form(TimeSlices(space, [0.0]), 0.1)
    with pytest.raises(ConfigError, match="TimeSlices of a 1D space"):
        burgers_form(HatSpace((3,), (1.0,)), 0.1)
    with pytest.raises(ConfigError, match=r"viscosity is -0.1"):
        burgers_form(TimeSlices(HatSpace((3,), (1.0,)), [0.0]), -0.1)
    for times in ([], [float("nan")], [[0.0, 1.0]]):
        with pytest.raises(ConfigError, match="finite numbers, one at least"):
            TimeSlices(space, times)
    for share in ([1.0], [0.5, 0.4], [1.5, -0.5]):
        with pytest.raises(ConfigError, match="2 positive numbers that sum to 1"):
            TimeSlices(space, [0.0, 1.0], torch.tensor(share))
    with pytest.raises(DataError, match=r"\(1, 36\) does not fit; expected \(B, 72, ...\)"):
        TimeSlices(space, [0.0, 1.0]).test(None, torch.ones(1, 36))

    with pytest.raises(ConfigError, match="viscosity is 0"):
        stokes_form(space, 0)
    with pytest.raises(ConfigError, match="force has 1 components; expected 2"):
        stokes_form(space, 1.0, [0.0])
    with pytest.raises(DataError, match="2 components of velocity and the pressure"):
        stokes_form(space, 1.0).residual(fields)
    with pytest.raises(DataError, match="2 components of velocity"):
        divergence_square(space, fields)

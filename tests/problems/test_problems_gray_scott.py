"""Gray-Scott as a problem: exact solutions, an independent solver, rates, symmetries, refusals, patterns."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp

from sciml.errors import ConfigError, SolverError
from sciml.physics import PeriodicBox, gray_scott_reaction, gray_scott_symbol
from sciml.problems import get_problem
from sciml.problems.gray_scott import PATTERNS
from sciml.solvers import ExponentialSolver

CUBE, SQUARE = get_problem("gray_scott"), get_problem("gray_scott", 2)
ONE = {"feed": 0.03, "kill": 0.06, "length": 0.25, "draw": 3}


def species(trajectory):
    return torch.cat([trajectory["species_a"], trajectory["species_b"]], 2)


def solve(problem, parameters, resolution, times, **options):
    return species(problem.solve(parameters, resolution, times, **{"dtype": torch.float64, **options}))


def centres(n):
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def fixed_steps(start, duration, steps, feed=0.03, kill=0.06, length=0.25):
    """``steps`` equal steps of the solver, for rates and gradients."""
    dim = start.ndim - 2
    box = PeriodicBox(start.shape[2:], torch.full((1, dim), length, dtype=torch.float64), dtype=torch.float64)
    rates = [torch.as_tensor(value, dtype=torch.float64).reshape(1) for value in (feed, kill, 2e-5, 1e-5)]
    solver = ExponentialSolver(
        gray_scott_symbol(box, *rates),
        lambda spectrum: gray_scott_reaction(box, spectrum, rates[0]),
        lambda spectrum: torch.zeros(1, dtype=torch.float64),
    )
    spectrum = box.forward(start)
    for _ in range(steps):
        spectrum = solver.step(spectrum, torch.tensor([duration / steps], dtype=torch.float64))
    return box.inverse(spectrum)


# ------------------------------------------------------------------------------------- exact and other solutions


@pytest.mark.parametrize("problem", [CUBE, SQUARE])
def test_homogeneous_state_follows_the_ordinary_differential_equation(problem):
    feed, kill, times = 0.04, 0.05, [0.0, 10.0, 40.0]
    start = torch.tensor([0.6, 0.35], dtype=torch.float64)
    field = start.reshape(1, 2, *(1,) * problem.dim).expand(1, 2, *(8,) * problem.dim)
    case = {"feed": feed, "kill": kill, "length": 0.05}
    solution = solve(problem, case, 8, times, initial=field)[0].flatten(2)
    exact = solve_ivp(
        lambda t, s: (-s[0] * s[1] ** 2 + feed * (1 - s[0]), s[0] * s[1] ** 2 - (feed + kill) * s[1]),
        (0.0, times[-1]), start.tolist(), t_eval=times, rtol=1e-10, atol=1e-12,
    ).y  # fmt: skip
    expected = torch.tensor(exact).T.unsqueeze(2).expand_as(solution)
    torch.testing.assert_close(solution, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("problem", [CUBE, SQUARE])
def test_mode_of_a_without_b_decays_exactly(problem):
    n, length = 12, 0.1
    x = 2 * math.pi * centres(n)
    wave = torch.cos(x + 0.4).reshape(n, *(1,) * (problem.dim - 1)) * torch.cos(2 * x)
    wave = wave.expand(*(n,) * problem.dim)
    start = torch.stack([1 + 0.2 * wave, torch.zeros_like(wave)]).unsqueeze(0)
    case = {"feed": 0.03, "kill": 0.06, "length": length, "diffusivity_a": 4e-5}
    times = [0.0, 1.0, 3.0]
    solution = solve(problem, case, n, times, initial=start)
    for frame, t in enumerate(times):
        decay = math.exp(-(0.03 + 4e-5 * 5 * (2 * math.pi / length) ** 2) * t)
        torch.testing.assert_close(solution[0, frame, 0], 1 + 0.2 * decay * wave, rtol=0, atol=1e-12)
    assert not solution[:, :, 1].any()


def test_agrees_with_finite_differences_and_scipy():
    """Fourth-order differences and LSODA: an independent discretisation in space and time."""
    n, length, feed, kill, d_a, d_b = 96, 0.5, 0.03, 0.06, 2e-5, 1e-5
    start = SQUARE.initial(ONE, n, dtype=torch.float64)[0, :, :, :1].expand(2, n, n)  # does not depend on y
    line, h = start[:, :, 0].numpy(), length / n

    def rates(_, state):
        a, b = state.reshape(2, n)
        out = []
        for s, d in ((a, d_a), (b, d_b)):
            second = sum(w * (s.take(range(k, k + n), mode="wrap") + s.take(range(-k, n - k), mode="wrap"))
                         for k, w in ((1, 4 / 3), (2, -1 / 12))) - 2.5 * s  # fmt: skip
            out.append(d * second / h**2)
        growth = a * b**2
        return [*(out[0] - growth + feed * (1 - a)), *(out[1] + growth - (feed + kill) * b)]

    exact = solve_ivp(rates, (0.0, 60.0), line.ravel(), method="LSODA", rtol=1e-8, atol=1e-10).y[:, -1]
    case = {"feed": feed, "kill": kill, "length": length}
    solution = solve(SQUARE, case, n, [0.0, 60.0], initial=start.unsqueeze(0))[0, 1, :, :, 5]
    error = (solution - torch.tensor(exact).reshape(2, n)).abs().max()
    assert float(error) < 5e-3 and float((solution - start[:, :, 0]).abs().max()) > 0.3


# ----------------------------------------------------------------------------------------------------------- rates


def test_error_falls_as_the_fourth_power_of_the_step():
    start = SQUARE.initial(ONE, 32, dtype=torch.float64)
    fine = fixed_steps(start, 16.0, 512)
    errors = [float((fixed_steps(start, 16.0, steps) - fine).abs().max()) for steps in (16, 32, 64)]
    assert 12 < errors[0] / errors[1] < 22 and 13 < errors[1] / errors[2] < 20


def test_error_falls_spectrally_with_the_cells():
    """Odd refinements keep the centres: cell i of n is cell 3 i + 1 of 3 n."""
    fine = fixed_steps(SQUARE.initial(ONE, 216, dtype=torch.float64), 20.0, 40)
    errors = []
    for n, stride in ((24, 9), (72, 3)):
        field = fixed_steps(SQUARE.initial(ONE, n, dtype=torch.float64), 20.0, 40)
        shown = fine[..., stride // 2 :: stride, stride // 2 :: stride]
        errors.append(float((field - shown).square().mean().sqrt()))
    assert errors[0] / errors[1] > 3**6 and errors[1] < 1e-5


def test_residual_of_the_own_trajectory_falls_as_the_square_of_the_interval():
    start = solve(SQUARE, ONE, 32, [0.0, 20.0])[:, 1]

    def size(dt):
        trajectory = SQUARE.solve(ONE, 32, [0.0, dt], initial=start, dtype=torch.float64)
        residual = SQUARE.residual(trajectory, ONE)["reaction_diffusion"]
        assert len(residual) == 2 and residual[0].shape == (1, 1, 32, 32)
        return max(float(r.abs().max()) for r in residual)

    sizes = [size(dt) for dt in (1.0, 0.5, 0.25)]
    assert 3.5 < sizes[0] / sizes[1] < 4.5 and 3.7 < sizes[1] / sizes[2] < 4.3


def test_budget_of_the_means_holds_along_a_trajectory():
    """d<A + B>/dt = f (1 - <A>) - (f + k) <B>, integrated by Simpson's rule over close frames."""
    times = torch.arange(0, 21) * 0.5
    means = solve(SQUARE, ONE, 32, times)[0].mean((2, 3))
    change = ONE["feed"] * (1 - means[:, 0]) - (ONE["feed"] + ONE["kill"]) * means[:, 1]
    weights = torch.tensor([1.0, *[4.0, 2.0] * 9, 4.0, 1.0], dtype=torch.float64) / 6
    gained = float(means[-1].sum() - means[0].sum())
    assert gained == pytest.approx(float((weights * change).sum()), rel=1e-4) and abs(gained) > 1e-3


# ------------------------------------------------------------------------------------------------------ symmetries


@pytest.mark.parametrize(("problem", "order"), [(SQUARE, (1, 0)), (CUBE, (1, 0, 2)), (CUBE, (1, 2, 0))])
def test_permuted_axes_give_the_permuted_solution(problem, order):
    axes = tuple(2 + axis for axis in order)
    n, length = (24, 0.15) if problem.dim == 3 else (32, 0.25)
    case = {**ONE, "length": length}
    start = problem.initial(case, n, dtype=torch.float64)
    solution = solve(problem, case, n, [0.0, 20.0], initial=start)
    permuted = solve(problem, case, n, [0.0, 20.0], initial=start.permute(0, 1, *axes))
    expected = solution.permute(0, 1, 2, *(1 + axis for axis in axes))
    torch.testing.assert_close(permuted, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(permuted, solution, atol=1e-2)


def test_cube_without_dependence_on_z_is_the_square():
    case = {**ONE, "length": 0.15}
    flat = CUBE.initial(case, 24, dtype=torch.float64)[..., 5]
    cube = flat.unsqueeze(-1).expand(*flat.shape, 24)
    expected = solve(SQUARE, case, 24, [0.0, 20.0], initial=flat)
    solution = solve(CUBE, case, 24, [0.0, 20.0], initial=cube)
    torch.testing.assert_close(solution[..., 7], expected, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------- batches, precision


def test_batch_equals_single_and_float32_equals_float64():
    batch = {"feed": [0.03, 0.05], "kill": [0.06, 0.06], "length": [0.3, 0.25], "draw": [1, 2]}
    times = [0.0, 20.0, 50.0]
    together = solve(SQUARE, batch, 48, times)
    for case in range(2):
        alone = solve(SQUARE, {name: values[case] for name, values in batch.items()}, 48, times)
        torch.testing.assert_close(together[case], alone[0], rtol=0, atol=1e-4)
    single = solve(SQUARE, batch, 48, times, dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=1e-3)


def test_restart_equals_a_straight_run():
    straight = solve(SQUARE, ONE, 32, [0.0, 15.0, 30.0])
    restarted = solve(SQUARE, ONE, 32, [0.0, 15.0], initial=straight[:, 1])
    torch.testing.assert_close(restarted[:, 1], straight[:, 2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2])
def test_gradient_through_a_step_equals_finite_differences(dim):
    start = torch.rand(1, 2, *(8,) * dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    feed = torch.tensor(0.03, dtype=torch.float64, requires_grad=True)
    if dim == 2:
        start = start[..., :6]
    assert torch.autograd.gradcheck(
        lambda s, f: fixed_steps(s, 1.0, 1, feed=f), (start.requires_grad_(), feed), fast_mode=dim == 2
    )


# --------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("problem", [CUBE, SQUARE])
def test_patterns_live_and_move(problem):
    sample = problem.sample(6, "all", seed=1)
    assert sample.subsets == tuple(PATTERNS)
    assert torch.equal(sample.parameters["feed"][2], torch.tensor(0.029, dtype=torch.float64))
    start = problem.initial(sample.parameters)
    assert start.shape == (6, 2, *problem.grid()) and float(start.min()) >= 0 and float(start.max()) <= 1
    fine = problem.initial(sample.parameters, 3 * 16)[(..., *(slice(1, None, 3),) * problem.dim)]
    torch.testing.assert_close(problem.initial(sample.parameters, 16), fine, rtol=0, atol=1e-6)
    if problem.dim == 3:
        return
    fields = species(problem.solve(sample.parameters))
    change = (fields[:, 1:] - fields[:, :-1]).square().mean((2, 3, 4)).sqrt()
    assert float(change.min()) > 1e-3, "no frame repeats the one before"
    assert float(change[:, 2:].max()) < 0.2, "after the first fronts, successive frames are alike"
    assert float(fields[:, 5, 1].amax((1, 2)).min()) > 0.1, "B is still there"


# -------------------------------------------------------------------------------------------------------- refusals


def test_grid_too_coarse_for_the_fronts_is_refused():
    with pytest.raises(SolverError, match=r"case 1 has fronts.*24x24 cells.*resolution of at least 48"):
        SQUARE.solve({**ONE, "length": [0.25, 0.5]}, 24)
    with pytest.raises(SolverError, match="resolution of at least"):
        CUBE.sample(3, "bubbles", resolution=16)
    noise = 0.5 + 0.2 * torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SolverError, match="resolution too coarse for case 0"):
        SQUARE.solve(ONE, 32, [0.0, 1.0], initial=noise)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_problem("gray_scott", 1), "does not exist in 1D; it exists in 3D and 2D"),
        (lambda: SQUARE.solve({**ONE, "diffusivity_b": -1e-5}), "diffusivity_b.*positive"),
        (lambda: SQUARE.solve({**ONE, "feed": [0.03, 0.0]}), "feed.*case 1.*positive"),
        (lambda: SQUARE.solve({"feed": 0.03, "kill": 0.06}), "needs the parameters length"),
        (lambda: SQUARE.solve(ONE, 32, [0.0, 1.0], initial=torch.zeros(1, 1, 32, 32)), r"expected \(1, 2, 32, 32\)"),
        (lambda: SQUARE.solve(ONE, 32, [0.0, 1.0], initial=torch.full((1, 2, 32, 32), math.inf)), "not finite"),
        (lambda: SQUARE.solve(ONE, 32, [1.0, 2.0]), "start at 0"),
        (lambda: SQUARE.sample(2, "spot"), "did you mean 'spots'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_blow_up_is_reported_with_its_case():
    """Species far outside 0..1 react faster than the time step resolves."""
    start = SQUARE.initial({**ONE, "draw": [1, 2]}, 32) * torch.tensor([1.0, 1e6]).reshape(2, 1, 1, 1)
    with pytest.raises(SolverError, match="case 1"):
        SQUARE.solve({**ONE, "draw": [1, 2]}, 32, [0.0, 100.0], initial=start)


def test_dimensionless_numbers_scale_with_the_box():
    values = CUBE.as_parameters(
        {**ONE, "length": [0.1, 0.2], "diffusivity_a": [1e-5, 4e-5], "diffusivity_b": [1e-6, 4e-6]}
    )
    conditions = CUBE.conditions(values, torch.tensor([5.0, 5.0]))
    assert conditions.shape == (2, len(CUBE.condition_names))
    torch.testing.assert_close(conditions[0], conditions[1])
    assert set(CUBE.scales(values)) == {"species_a", "species_b"}

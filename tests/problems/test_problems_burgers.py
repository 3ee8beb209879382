"""Burgers' equation as a problem: exact solutions, rates, symmetries, refusals, subsets."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ive

from sciml.errors import ConfigError, SolverError
from sciml.physics import burgers_box, burgers_transport, odd_extension
from sciml.problems import get_problem
from sciml.problems.burgers import PDEBENCH_VISCOSITIES
from sciml.solvers import ExponentialSolver

LINE, PLANE = get_problem("burgers", 1), get_problem("burgers", 2)
SHOCK = {"viscosity": 0.01 / math.pi, "length": 2.0, "walls": 1.0}


def centres(n, length=1.0, low=0.0):
    return low + length * (torch.arange(n, dtype=torch.float64) + 0.5) / n


def sine_shock(x, t):
    """u(x, t) from u_0 = -sin(pi x) on [-1, 1] by the Cole-Hopf integral, Gauss-Hermite with 200 points."""
    nu = SHOCK["viscosity"]
    nodes, weights = np.polynomial.hermite.hermgauss(200)
    y = np.asarray(x)[:, None] - math.sqrt(4 * nu * t) * nodes
    kernel = weights * np.exp(-np.cos(np.pi * y) / (2 * np.pi * nu))
    return torch.tensor(-(kernel * np.sin(np.pi * y)).sum(1) / kernel.sum(1))


def bessel(x, t, nu):
    """u(x, t) from u_0 = sin x on the 2 pi box: Cole-Hopf with a Fourier series of modified Bessel functions."""
    k = np.arange(1, 80)[:, None]
    wave = ive(k, 1 / (2 * nu)) / ive(0, 1 / (2 * nu)) * np.exp(-nu * k**2 * t)
    x = np.asarray(x)
    return torch.tensor(4 * nu * (k * wave * np.sin(k * x)).sum(0) / (1 + 2 * (wave * np.cos(k * x)).sum(0)))


def fixed_steps(velocity, lengths, viscosity, duration, steps, walls=False):
    """``steps`` equal steps of the solver, for rates and gradients."""
    box = burgers_box(velocity.shape[2:], lengths, walls=walls, dtype=velocity.dtype)
    solver = ExponentialSolver(
        viscosity * box.laplacian, lambda v: burgers_transport(box, v), lambda v: torch.zeros(len(v), dtype=box.dtype)
    )
    spectrum = box.forward(odd_extension(velocity) if walls else velocity)
    for _ in range(steps):
        spectrum = solver.step(spectrum, torch.full((len(velocity),), duration / steps, dtype=velocity.dtype))
    return box.inverse(spectrum)[..., : velocity.shape[-1]]


# ------------------------------------------------------------------------------------------------- exact solutions


def test_exact_formulas_reproduce_the_tables():
    """Points of the house table truth/burgers_cole_hopf.json (Cole-Hopf) (2e6-point quadrature)."""
    for t, x, u in ((0.25, 0.05, -0.5315978594), (0.5, 0.05, -0.9789821784), (1.0, 0.5, -0.3761813957)):
        assert float(sine_shock([x], t)[0]) == pytest.approx(u, abs=1e-8)
    for nu, t, x, u in ((0.1, 0.5, 0.5, 0.3214703072), (0.05, 1.0, 3.0, 0.5386537534), (0.05, 2.0, 3.0, 0.7495109430)):
        assert float(bessel([x], t, nu)[0]) == pytest.approx(u, abs=1e-8)


def test_shock_between_walls_at_the_coarsest_resolution_that_is_accepted():
    """Basdevant et al., Computers & Fluids 14 (1986) 23, to 1e-3 at every cell before, in and after the shock."""
    n = 669
    x = centres(n, 2.0, low=-1.0)
    times = [0.0, 0.25, 0.5, 0.5105, 0.75, 1.0]
    start = -torch.sin(math.pi * x).reshape(1, 1, n)
    for dtype in (torch.float64, torch.float32):
        velocity = LINE.solve(SHOCK, n, times, initial=start, dtype=dtype)["velocity"][0, :, 0].double()
        for frame in range(1, 6):
            assert float((velocity[frame] - sine_shock(x, times[frame])).abs().max()) < 1e-3, times[frame]


def test_steepest_gradient_of_the_shock():
    """max |du/dx| = 152.00516 at t = 0.5105 (Basdevant et al. 1986), from the Fourier series in the middle."""
    n = 1024
    start = -torch.sin(math.pi * centres(n, 2.0, low=-1.0)).reshape(1, 1, n)
    velocity = LINE.solve(SHOCK, n, [0.0, 0.5105], initial=start, dtype=torch.float64)["velocity"][0, 1, 0]
    k = math.pi / 2 * torch.arange(n + 1, dtype=torch.float64)
    middle = torch.exp(1j * k * (1.0 - 1.0 / n))  # from the first cell centre
    slope = (1j * k * torch.fft.rfft(odd_extension(velocity)) * middle).real.sum() / n
    assert float(slope) == pytest.approx(-152.00516, rel=1e-3)


@pytest.mark.parametrize("nu", [0.1, 0.05])
def test_periodic_sine(nu):
    n = 192
    x = centres(n, 2 * math.pi)
    case = {"viscosity": nu, "length": 2 * math.pi}
    times = [0.0, 0.5, 1.0, 2.0]
    velocity = LINE.solve(case, n, times, initial=torch.sin(x).reshape(1, 1, n), dtype=torch.float64)["velocity"]
    for frame in (1, 2, 3):
        assert float((velocity[0, frame, 0] - bessel(x, times[frame], nu)).abs().max()) < 5e-5


def plane_exact(n, t, nu):
    """u = -2 nu grad phi / phi with phi = 3 + waves that obey the heat equation."""
    x = centres(n)
    x, y = torch.meshgrid(x, x, indexing="ij")
    phi, gradient = 3.0, [0.0, 0.0]
    for amplitude, kx, ky, phase in ((1.0, 1, 0, 0.3), (0.8, 0, 1, 1.0), (0.6, 1, 1, 2.0), (0.4, 2, -1, 0.0)):
        k = [2 * math.pi * kx, 2 * math.pi * ky]
        wave = amplitude * math.exp(-nu * (k[0] ** 2 + k[1] ** 2) * t)
        phi = phi + wave * torch.cos(k[0] * x + k[1] * y + phase)
        for axis in (0, 1):
            gradient[axis] = gradient[axis] - k[axis] * wave * torch.sin(k[0] * x + k[1] * y + phase)
    return torch.stack([-2 * nu * g / phi for g in gradient]).unsqueeze(0)


def test_plane_cole_hopf_solution():
    n, nu = 64, 0.05
    case = {"viscosity": nu, "length": 1.0}
    times = [0.0, 0.1, 0.3]
    velocity = PLANE.solve(case, n, times, initial=plane_exact(n, 0.0, nu), dtype=torch.float64)["velocity"]
    for frame in (1, 2):
        exact = plane_exact(n, times[frame], nu)
        assert float((velocity[:, frame] - exact).abs().max()) < 1e-5 * float(exact.abs().max())


# ----------------------------------------------------------------------------------------------------------- rates


def test_error_falls_spectrally_with_the_cells_and_as_the_fourth_power_of_the_step():
    lengths, nu, duration = torch.full((1, 1), 2 * math.pi, dtype=torch.float64), 0.1, 1.0

    def error(n, steps):
        x = centres(n, 2 * math.pi)
        velocity = fixed_steps(torch.sin(x).reshape(1, 1, n), lengths, nu, duration, steps)
        return float((velocity[0, 0] - bessel(x, duration, nu)).abs().max())

    cells = [error(n, 400) for n in (24, 48, 96)]
    assert cells[0] / cells[1] > 20 and cells[1] / cells[2] > 400, "faster than any power"
    steps = [error(192, m) for m in (8, 16, 32)]
    assert 12 < steps[0] / steps[1] < 24 and 13 < steps[1] / steps[2] < 20


@pytest.mark.parametrize("problem", [LINE, PLANE])
def test_residual_of_the_own_trajectory_falls_as_the_square_of_the_interval(problem):
    case = {"viscosity": 0.05, "length": 1.0, "amplitude": 0.5, "draw": 3}
    start = problem.solve(case, 48 * 2, [0.0, 0.2], dtype=torch.float64)["velocity"][:, 1]

    def size(dt):
        trajectory = problem.solve(case, 96, [0.0, dt, 2 * dt], initial=start, dtype=torch.float64)
        residual = problem.residual(trajectory, case)["momentum"]
        assert len(residual) == problem.dim and residual[0].shape == (1, 2, *(96,) * problem.dim)
        return max(float(r[:, 0].abs().max()) for r in residual)

    sizes = [size(dt) for dt in (0.008, 0.004, 0.002)]
    assert 3.5 < sizes[0] / sizes[1] < 4.5 and 3.5 < sizes[1] / sizes[2] < 4.5


# ------------------------------------------------------------------------------------------------------ symmetries


def test_walls_stay_at_rest_and_equal_the_periodic_odd_field():
    n, times = 64, [0.0, 0.1, 0.4]
    case = {"viscosity": 0.1, "length": 2.0, "walls": 1.0, "amplitude": 0.5, "draw": 7}
    start = LINE.initial(case, n, dtype=torch.float64)
    walled = LINE.solve(case, n, times, dtype=torch.float64)["velocity"]
    doubled = {**case, "walls": 0.0, "length": 4.0}
    periodic = LINE.solve(doubled, 2 * n, times, initial=odd_extension(start), dtype=torch.float64)["velocity"]
    torch.testing.assert_close(walled, periodic[..., :n], rtol=0, atol=1e-12)
    torch.testing.assert_close(periodic[..., n:], -periodic[..., :n].flip(-1), rtol=0, atol=1e-12)
    spectrum = torch.fft.rfft(odd_extension(walled))
    at_wall = (spectrum * torch.exp(-1j * math.pi * torch.arange(n + 1).double() / (2 * n))).real.sum(-1) / n
    assert float(at_wall.abs().max()) < 1e-12


@pytest.mark.parametrize("walls", [0.0, 1.0])
def test_reflection_reverses_the_velocity(walls):
    case = {"viscosity": 0.1, "length": 1.0, "walls": walls, "amplitude": 0.5, "draw": 5}
    start = LINE.initial(case, 64, dtype=torch.float64)
    forth = LINE.solve(case, 64, [0.0, 0.3], initial=start, dtype=torch.float64)["velocity"]
    back = LINE.solve(case, 64, [0.0, 0.3], initial=-start.flip(-1), dtype=torch.float64)["velocity"]
    torch.testing.assert_close(back, -forth.flip(-1), rtol=0, atol=1e-12)


def test_transposed_field_has_the_transposed_solution():
    case = {"viscosity": 0.05, "length": 1.0, "amplitude": 0.5, "draw": 5}
    start = PLANE.initial(case, 48, dtype=torch.float64)
    solution = PLANE.solve(case, 48, [0.0, 0.2], initial=start, dtype=torch.float64)["velocity"]
    mirrored = start.flip(1).transpose(2, 3)
    transposed = PLANE.solve(case, 48, [0.0, 0.2], initial=mirrored, dtype=torch.float64)["velocity"]
    torch.testing.assert_close(transposed, solution.flip(2).transpose(3, 4), rtol=0, atol=1e-12)


def test_plane_field_that_does_not_depend_on_y_is_the_line_solution():
    case = {"viscosity": 0.05, "length": 1.0, "amplitude": 0.5, "draw": 5}
    line = LINE.initial(case, 96, dtype=torch.float64)
    plane = torch.stack([line[:, 0], torch.zeros_like(line[:, 0])], 1).unsqueeze(-1).expand(-1, -1, -1, 8)
    one = LINE.solve(case, 96, [0.0, 0.2], initial=line, dtype=torch.float64)["velocity"]
    # The second axis is a long strip of few cells, which a constant does not mind.
    two = fixed_steps(plane, torch.ones(1, 2, dtype=torch.float64), 0.05, 0.2, 100)
    torch.testing.assert_close(two[:, 0, :, 3], one[:, 1, 0], rtol=0, atol=1e-6)
    assert not two[:, 1].any()


# --------------------------------------------------------------------------------------------- batches, precision


@pytest.mark.parametrize("problem", [LINE, PLANE])
def test_batch_equals_single_and_float32_equals_float64(problem):
    n, times = 64, [0.0, 0.1, 0.3]
    batch = {"viscosity": [0.05, 0.1, 0.2], "length": [1.0, 2.0, 1.5], "amplitude": [0.4, 0.6, 0.7], "draw": [1, 2, 3]}
    together = problem.solve(batch, n, times, dtype=torch.float64)["velocity"]
    for case in range(3):
        alone = {name: values[case] for name, values in batch.items()}
        velocity = problem.solve(alone, n, times, dtype=torch.float64)["velocity"]
        torch.testing.assert_close(together[case], velocity[0], rtol=0, atol=1e-5)
    single = problem.solve(batch, n, times)["velocity"]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=0, atol=2e-5)


@pytest.mark.parametrize("walls", [0.0, 1.0])
def test_restart_equals_a_straight_run(walls):
    case = {"viscosity": 0.02, "length": 1.0, "walls": walls, "amplitude": 0.5, "draw": 2}
    straight = LINE.solve(case, 128, [0.0, 0.1, 0.2, 0.3], dtype=torch.float64)["velocity"]
    restarted = LINE.solve(case, 128, [0.0, 0.1], initial=straight[:, 2], dtype=torch.float64)["velocity"]
    torch.testing.assert_close(restarted[:, 1], straight[:, 3], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dim", "walls"), [(1, False), (1, True), (2, False)])
def test_gradient_through_a_step_equals_finite_differences(dim, walls):
    generator = torch.Generator().manual_seed(0)
    velocity = torch.randn(1, dim, *(8,) * dim, generator=generator, dtype=torch.float64, requires_grad=True)
    viscosity = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    lengths = torch.ones(1, dim, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda u, nu: fixed_steps(u, lengths, nu, 0.02, 1, walls), (velocity, viscosity), fast_mode=dim == 2
    )


def test_solution_is_differentiable_in_the_initial_field():
    case = {"viscosity": 0.1, "length": 1.0, "draw": 1, "amplitude": 0.5}
    start = LINE.initial(case, 64, dtype=torch.float64).requires_grad_()
    loss = LINE.solve(case, 64, [0.0, 0.1], initial=start, dtype=torch.float64)["velocity"][:, 1].square().mean()
    (gradient,) = torch.autograd.grad(loss, start)
    step = 1e-5 * torch.cos(2 * math.pi * centres(64))

    def at(sign):
        moved = start.detach() + sign * step
        return LINE.solve(case, 64, [0.0, 0.1], initial=moved, dtype=torch.float64)["velocity"][:, 1].square().mean()

    assert float((gradient * step).sum()) == pytest.approx(float(at(1) - at(-1)) / 2, rel=1e-5)


# --------------------------------------------------------------------------------------------------------- subsets


@pytest.mark.parametrize("problem", [LINE, PLANE])
def test_initial_fields_are_the_same_function_at_every_resolution(problem):
    """An odd refinement keeps the centres: cell i of n is cell 3 i + 1 of 3 n."""
    for subset in problem.subsets:
        parameters = problem.sample(8, subset, seed=2, resolution=256 if problem.dim == 1 else 64).parameters
        coarse = problem.initial(parameters, 64, dtype=torch.float64)
        fine = problem.initial(parameters, 192, dtype=torch.float64)
        fine = fine[(..., *(slice(1, None, 3),) * problem.dim)]
        # 64 cells hold the modes below 32 only, 192 cells some more of the published fields
        limit = 0.05 if problem.dim == 1 else 1e-12
        assert float((coarse - fine).square().mean().sqrt() / fine.square().mean().sqrt()) < limit, subset


def test_fno_field_has_the_published_covariance():
    """E |c_m|^2 = 625 / (4 pi^2 m^2 + 25)^2 of N(0, 625 (-lap + 25)^-2), and no mean."""
    n, cases = 64, 2000
    sample = LINE.sample(1, "fno").parameters
    parameters = {"viscosity": 0.1, "length": 1.0, "amplitude": float(sample["amplitude"]), "draw": list(range(cases))}
    spectrum = torch.fft.rfft(LINE.initial(parameters, n, dtype=torch.float64)[:, 0]) / n
    power = spectrum.abs().square().mean(0)
    m = torch.arange(1, 9, dtype=torch.float64)
    expected = 625 / (4 * math.pi**2 * m**2 + 25) ** 2
    assert float((power[1:9] / expected - 1).abs().max()) < 0.1, "sampling error: 1 / sqrt(2000) = 2 %"
    assert float(power[0]) < 1e-25
    assert float(sample["viscosity"]) == 0.1 and float(sample["length"]) == 1.0


def test_samples_are_resolved_and_reproducible():
    resolution, times = 128, [0.0, 0.1, 0.5]
    for subset in LINE.subsets:
        sample = LINE.sample(8, subset, seed=3, resolution=resolution)
        again = LINE.sample(8, subset, seed=3, resolution=resolution)
        assert all(torch.equal(values, again.parameters[name]) for name, values in sample.parameters.items())
        velocity = LINE.solve(sample.parameters, resolution, times)["velocity"]
        fine = LINE.solve(sample.parameters, 3 * resolution, times)["velocity"][..., 1::3]
        error = (velocity - fine).square().mean((2, 3)).sqrt() / fine[:, 0].square().mean((1, 2)).sqrt()[:, None]
        assert float(error[:, 1:].max()) < 1e-3, subset
    viscosities = set(LINE.sample(40, "pdebench", seed=3, resolution=resolution).parameters["viscosity"].tolist())
    assert viscosities <= set(PDEBENCH_VISCOSITIES) and len(viscosities) >= 6


def test_mixtures_are_periodic_and_files_of_the_walled_subset_say_so():
    sample = LINE.sample(8, "all")
    assert set(sample.subsets) == {"fno", "pdebench"} and not sample.parameters["walls"].any()
    assert set(LINE.boundaries("all").values()) == {"periodic"}
    assert LINE.boundaries("dgno") == {"x_low": "wall", "x_high": "wall"}
    assert LINE.sample(3, "dgno").parameters["walls"].all()
    assert len(PLANE.boundaries()) == 4 and set(PLANE.sample(4).subsets) == {"viscosity", "amplitude"}


# -------------------------------------------------------------------------------------------------------- refusals


def test_shock_that_the_grid_cannot_hold_is_refused_with_the_resolution_it_needs():
    n = 256
    start = -torch.sin(math.pi * centres(n, 2.0, low=-1.0)).reshape(1, 1, n)
    with pytest.raises(SolverError, match=r"case 0 can steepen into a shock that 256 cells.*at least 669"):
        LINE.solve(SHOCK, n, [0.0, 1.0], initial=start)
    LINE.solve(SHOCK, n, [0.0, 0.05], initial=start)  # so early there is no shock
    with pytest.raises(SolverError, match=r"resolution 24 does not resolve the fields of subset 'fno'.*at least"):
        LINE.sample(3, "fno", resolution=24)
    with pytest.raises(SolverError, match="resolution 16 does not resolve"):
        PLANE.sample(3, "viscosity", resolution=16)


def test_field_that_is_rough_on_the_grid_is_refused():
    noise = 0.01 * torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SolverError, match="resolution too coarse for case 0"):
        LINE.solve({"viscosity": 0.1, "length": 1.0}, 64, [0.0, 0.1], initial=noise)


ONE = {"viscosity": 0.1, "length": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_problem("burgers", 3), "does not exist in 3D; it exists in 1D and 2D"),
        (lambda: LINE.solve({**ONE, "viscosity": [0.1, -0.1]}), "viscosity.*case 1.*positive"),
        (lambda: LINE.solve({**ONE, "length": 0.0}), "length.*positive"),
        (lambda: LINE.solve({**ONE, "walls": 2.0}), "walls.*must be 0 or 1"),
        (lambda: LINE.solve({**ONE, "walls": [0.0, 1.0]}), "separate calls"),
        (lambda: LINE.solve({**ONE, "walls": 1.0, "kind": 1.0}), "do not vanish at walls"),
        (lambda: PLANE.solve({**ONE, "walls": 1.0}), "1D only"),
        (lambda: PLANE.initial({**ONE, "kind": 1.0}), "1D only"),
        (lambda: LINE.solve({**ONE, "draw": 0.5}), "draw.*whole number"),
        (
            lambda: LINE.solve(ONE, 64, [0.0, 0.1], initial=torch.zeros(1, 64)),
            r"shape \(1, 64\); expected \(1, 1, 64\)",
        ),
        (lambda: LINE.solve(ONE, 64, [0.0, 0.1], initial=torch.full((1, 1, 64), math.nan)), "case 0 is not finite"),
        (lambda: LINE.solve(ONE, 64, [0.0, 0.1, 0.1]), "increase"),
        (lambda: LINE.sample(2, "fn0"), "did you mean 'fno'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_scales_and_conditions_are_dimensionless():
    """Lengths times 3, speeds times 2: the same dimensionless case, so the same numbers and solution."""
    case = {"viscosity": [0.05, 0.3], "length": [1.0, 3.0], "amplitude": [0.5, 1.0], "draw": [4, 4]}
    times = torch.tensor([[0.0, 0.2], [0.0, 0.3]], dtype=torch.float64)
    values = LINE.as_parameters(case)
    velocity = LINE.solve(case, 96, times, dtype=torch.float64)["velocity"]
    scaled = velocity / LINE.scales(values)["velocity"].reshape(2, 1, 1, 1)
    torch.testing.assert_close(scaled[0], scaled[1], rtol=0, atol=1e-10)
    conditions = LINE.conditions(values, times[:, 1])
    torch.testing.assert_close(conditions[0], conditions[1])

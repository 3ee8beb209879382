"""Developing channel flow: against Poiseuille and Durst et al., balances, symmetry, similarity, refusals."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.physics import entrance_length, poiseuille_pressure_gradient, poiseuille_velocity
from sciml.physics.boundary import Inlet, Outlet, Wall
from sciml.physics.grid import box
from sciml.problems import get_problem
from sciml.problems.tube import ASPECT_BAND, REYNOLDS_BAND, Tube, resolved_reynolds
from sciml.solvers import IncompressibleSolver

TUBE = Tube()
ONE = {"inlet_velocity": 1.0, "density": 1.0, "viscosity": 0.05, "height": 1.0, "length": 3.0}


def with_(**changes):
    return {**ONE, **changes}


def solve(parameters, resolution, times, dtype=torch.float64):
    with torch.inference_mode():
        return TUBE.solve(parameters, resolution, times, dtype=dtype)


def centreline(u):
    """Cubic interpolation to the middle of an even number of cells; faces (..., nx + 1, ny)."""
    m = u.shape[-1] // 2
    return (9 * (u[..., m - 1] + u[..., m]) - u[..., m - 2] - u[..., m + 1]) / 16


def development(u, length, speed):
    """Where the centreline first reaches ``speed`` (linear between faces)."""
    centre = centreline(u)
    k = int((centre > speed).nonzero()[0])
    return length / (len(centre) - 1) * (k - 1 + float((speed - centre[k - 1]) / (centre[k] - centre[k - 1])))


def test_entrance_length_formula():
    """The table of shared/truth/channel_poiseuille.json (Durst et al. 2005)."""
    for reynolds, length in ((1, 0.6366), (10, 0.8351), (100, 4.5417), (1000, 44.2308)):
        assert float(entrance_length(reynolds)) == pytest.approx(length, abs=2e-4)


def test_developed_profile_and_pressure_gradient():
    """Within 0.5 % of Poiseuille at 24 cells, and the error falls at second order."""
    errors = []
    for n in (12, 24):
        trajectory = solve(with_(length=4.0), (4 * n, n), [0.0, 8.0])
        u = trajectory["face_velocity_x"][0, 1]
        y = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        exact = poiseuille_velocity(y, 1.0, 1.0)
        errors.append(float((u[-2] - exact).abs().max() / 1.5))
    slope = trajectory["pressure"][0, 1, 0].mean(1).diff()[-8:-2] * n
    assert errors[1] < 0.005 and math.log2(errors[0] / errors[1]) > 1.8, errors
    torch.testing.assert_close(
        slope, torch.full_like(slope, poiseuille_pressure_gradient(0.05, 1.0, 1.0)), rtol=0.01, atol=0
    )


def test_entrance_length_at_reynolds_10():
    u = solve(with_(viscosity=0.1), (72, 24), [0.0, 5.0])["face_velocity_x"][0, 1]
    assert development(u, 3.0, 0.99 * 1.5) == pytest.approx(float(entrance_length(10.0)), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("reynolds", "length", "cells"), [(20, 4.0, 48), (50, 5.0, 64), (100, 9.0, 64)])
def test_entrance_length(reynolds, length, cells):
    trajectory = solve(with_(viscosity=1 / reynolds, length=length), (160, cells), [0.0, 2 * length + 2], torch.float32)
    u = trajectory["face_velocity_x"][0, 1]
    assert development(u, length, 0.99 * 1.5) == pytest.approx(float(entrance_length(float(reynolds))), rel=0.05)
    y = (torch.arange(cells) + 0.5) / cells
    assert float((u[-1] - poiseuille_velocity(y, 1.0, 1.0)).abs().max()) < 0.005 * 1.5


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_mass_flux_is_equal_at_every_section_and_frame(dtype, bound):
    parameters = with_(inlet_velocity=[[1.0, 1.0, 1.7, 1.7], [2.0] * 4], viscosity=[0.05, 0.1], length=[3.0, 2.0])
    trajectory = solve(parameters, 12, torch.linspace(0, 0.6, 4), dtype)
    flux = trajectory["face_velocity_x"].double().mean(-1)
    expected = torch.tensor([[1.0, 1.0, 1.0, 1.7], [2.0] * 4], dtype=torch.float64)
    assert (flux - expected[:, :, None]).abs().max() < bound
    divergence = TUBE.residual(trajectory, parameters)["continuity"][0]
    assert divergence.abs().max() < 100 * bound


def test_first_frame_is_the_plug_flow():
    trajectory = solve(ONE, 12, [0.0, 0.1])
    start = trajectory["velocity"][0, 0]
    torch.testing.assert_close(start[0], torch.ones_like(start[0]), rtol=0, atol=1e-12)
    assert start[1].abs().max() < 1e-12 and not trajectory["pressure"][0, 0].any()
    assert trajectory["velocity"][0, 1, 1].abs().max() > 0.01


def test_flow_is_symmetric_about_the_centreline():
    trajectory = solve(with_(viscosity=0.02), 16, torch.linspace(0, 2, 4))
    u, v, p = trajectory["face_velocity_x"], trajectory["face_velocity_y"], trajectory["pressure"]
    torch.testing.assert_close(u, u.flip(3), rtol=0, atol=1e-11)
    torch.testing.assert_close(v, -v.flip(3), rtol=0, atol=1e-11)
    torch.testing.assert_close(p, p.flip(4), rtol=0, atol=1e-10)


def test_flow_depends_on_dimensionless_numbers_only():
    height, speed, density = 0.01, 5.0, 30.0
    parameters = {
        "inlet_velocity": [1.0, speed],
        "density": [1.0, density],
        "viscosity": [0.02, 0.02 * speed * height * density],
        "height": [1.0, height],
        "length": [3.0, 3 * height],
    }
    times = torch.linspace(0, 1.0, 4).double() * torch.tensor([[1.0], [height / speed]], dtype=torch.float64)
    trajectory = solve(parameters, 16, times)
    torch.testing.assert_close(trajectory["velocity"][1] / speed, trajectory["velocity"][0], rtol=1e-9, atol=1e-9)
    pressure = trajectory["pressure"] / torch.tensor([1.0, density * speed**2]).reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(pressure[1], pressure[0], rtol=1e-8, atol=1e-8)
    values = TUBE.as_parameters(parameters)
    conditions = TUBE.conditions(values, times[:, 1])
    torch.testing.assert_close(conditions[0], conditions[1])
    assert conditions[0].tolist() == pytest.approx([math.log(50), math.log(1 / 3), math.log(3)])


def test_transient_converges_at_second_order():
    """Face averages of u at mid-channel against 48 cells, long enough after the impulsive start."""
    results = []
    for n in (12, 24, 48, 96):
        u = solve(with_(length=2.0, viscosity=0.2), (2 * n, n), [0.0, 0.5])["face_velocity_x"][0, 1]
        results.append(u[n].unflatten(0, (12, n // 12)).mean(1))
    changes = [float((a - b).abs().max()) for a, b in pairwise(results)]
    orders = [math.log2(a / b) for a, b in pairwise(changes)]
    assert min(orders) > 1.7, (changes, orders)


def test_batch_equals_single():
    sample = TUBE.sample(3, "all", 1, 20)
    times = torch.tensor([0.0, 0.01, 0.03])
    whole = solve(sample.parameters, 20, times)
    single = solve(sample.select([1]).parameters, 20, times)
    difference = (whole["velocity"][1] - single["velocity"][0]).abs().max()
    assert difference < 0.01, "they differ in the number of steps only"
    cases = {name: values[[1, 1]] for name, values in sample.parameters.items()}
    torch.testing.assert_close(solve(cases, 20, times)["velocity"][0], single["velocity"][0], rtol=0, atol=1e-12)


def test_float32_agrees_with_float64():
    sample = TUBE.sample(3, "all", 2, 24)
    times = TUBE.frame_times(sample.parameters, 5)
    single = solve(sample.parameters, 24, times, torch.float32)
    double = solve(sample.parameters, 24, times)
    for name, scale in TUBE.scales(sample.parameters).items():
        difference = (single[name] - double[name])[:, 1:].abs().amax((1, 3, 4)) / scale
        assert difference.max() < 1e-3, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_restart_from_the_solver_state_equals_the_straight_run(dtype):
    """The state of the first frame, carried to a new solver, gives the problem's second frame bit for bit."""
    times = torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64)
    straight = solve(ONE, 12, times, dtype)
    lengths = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    sides = {"x_low": Inlet((1.0, 0.0)), "x_high": Outlet(), "y_low": Wall(), "y_high": Wall()}

    def fresh():
        viscosity = torch.tensor([0.05], dtype=torch.float64)
        return IncompressibleSolver(box((48, 12), lengths), sides, viscosity, dtype=dtype)

    first = fresh()
    with torch.inference_mode():
        state = first.advance(first.initial_state(), times[1:2])
        state = fresh().advance(dataclasses.replace(state), times[2:] - times[1:2])
    assert torch.equal(state.velocity[0], straight["face_velocity_x"][:, 2])
    assert torch.equal(state.velocity[1], straight["face_velocity_y"][:, 2])


def test_more_frames_do_not_change_the_flow():
    """Only the number of steps differs."""
    few, many = solve(ONE, 16, [0.0, 1.0]), solve(ONE, 16, torch.linspace(0, 1, 9))
    assert (few["velocity"][:, -1] - many["velocity"][:, -1]).abs().max() < 2e-3


def test_inlet_that_changes_equals_constant_until_it_changes():
    times = torch.linspace(0, 0.6, 4)
    constant, jump = solve(ONE, 12, times), solve(with_(inlet_velocity=[[1.0, 1.0, 0.5, 0.5]]), 12, times)
    assert torch.equal(constant["velocity"][:, :3], jump["velocity"][:, :3])
    assert (jump["velocity"][0, 3, 0] < constant["velocity"][0, 3, 0]).all()


def test_residual_falls_at_second_order_of_the_frame_interval():
    """Developing flow, frames much further apart than the solver's steps; and it is small beside U^2 / H."""
    found = []
    for interval in (0.2, 0.1, 0.05):
        fine = torch.linspace(0, 2.0, 401, dtype=torch.float64)
        if not found:
            trajectory = solve(ONE, 12, fine)
        stride = round(interval / 0.005)
        frames = {name: values[:, 200::stride] for name, values in trajectory.items()}
        momentum = TUBE.residual(frames, ONE)["momentum"]
        found.append(max(float(r[:, 0].abs().mean()) for r in momentum))
    assert found[-1] < 2e-3
    assert math.log2(found[0] / found[1]) > 1.6 and math.log2(found[1] / found[2]) > 1.8, found


def test_residual_of_poiseuille_flow_is_zero_away_from_the_walls():
    n = 16
    y = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    u = poiseuille_velocity(y, 1.0, 1.0).expand(1, 2, 4 * n + 1, n)
    x = (torch.arange(4 * n, dtype=torch.float64) + 0.5) * 3.0 / (4 * n)
    p = (poiseuille_pressure_gradient(0.05, 1.0, 1.0) * x)[:, None].expand(1, 2, 1, 4 * n, n)
    trajectory = {
        "face_velocity_x": u,
        "face_velocity_y": torch.zeros(1, 2, 4 * n, n + 1, dtype=torch.float64),
        "pressure": p,
        "time": torch.tensor([[0.0, 1.0]], dtype=torch.float64),
    }
    residual = TUBE.residual(trajectory, ONE)
    assert residual["momentum"][0][:, :, 1:, 1:-1].abs().max() < 1e-11
    assert residual["momentum"][1].abs().max() < 1e-12 and residual["continuity"][0].abs().max() < 1e-12
    wrong = TUBE.residual(trajectory, with_(viscosity=0.06))
    assert wrong["momentum"][0].abs().max() > 0.1


def test_gradient_through_steps_against_finite_differences():
    """Kinetic energy of a channel after three steps, by inlet speed, viscosity and length."""

    def energy(speed, viscosity, length):
        lengths = torch.stack([length, torch.ones_like(length)], 1)
        sides = {"x_low": Inlet((speed, 0.0)), "x_high": Outlet(), "y_low": Wall(), "y_high": Wall()}
        solver = IncompressibleSolver(box((10, 6), lengths), sides, viscosity, dtype=torch.float64)
        state = solver.initial_state()
        for _ in range(3):
            state = solver.step(state, torch.full((2,), 0.02, dtype=torch.float64))
        return sum(u.square().mean((1, 2)) for u in state.velocity) + state.pressure.square().mean((1, 2))

    numbers = ([1.0, 0.7], [0.05, 0.02], [2.0, 3.0])
    inputs = tuple(torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in numbers)
    assert torch.autograd.gradcheck(energy, inputs)


def test_residual_is_differentiable():
    trajectory = solve(ONE, 9, [0.0, 0.1, 0.2])
    faces = trajectory["face_velocity_x"].clone().requires_grad_()
    residual = TUBE.residual({**trajectory, "face_velocity_x": faces}, ONE)
    residual["momentum"][0].square().sum().backward()
    assert torch.isfinite(faces.grad).all() and faces.grad.any()


def test_grid_counts_cells_across():
    assert TUBE.grid() == (128, 32) and TUBE.grid(16) == (64, 16) and TUBE.grid((40, 16)) == (40, 16)
    with pytest.raises(ConfigError, match="resolution is 4"):
        TUBE.grid(4)


@pytest.mark.parametrize("subset", ["bc", "prop", "geo", "all", "outside", "reynolds_band", "aspect_band"])
@pytest.mark.parametrize("resolution", [24, 32, 72])
def test_samples_are_resolved_reproducible_and_prefix_stable(subset, resolution):
    sample = TUBE.sample(30, subset, seed=3, resolution=resolution)
    TUBE.check_resolved(sample.parameters, TUBE.grid(resolution))
    shorter = TUBE.sample(11, subset, seed=3, resolution=resolution)
    other = TUBE.sample(30, subset, seed=4, resolution=resolution)
    assert all(torch.equal(values[:11], shorter.parameters[name]) for name, values in sample.parameters.items())
    assert any(not torch.equal(values, other.parameters[name]) for name, values in sample.parameters.items())


def test_subsets_vary_what_their_name_says():
    varied = {"bc": {"inlet_velocity"}, "prop": {"density", "viscosity"}, "geo": {"height", "length"}}
    for subset, names in varied.items():
        for name, values in TUBE.sample(20, subset, seed=1).parameters.items():
            assert bool((values == values[0]).all()) == (name not in names), (subset, name)
    viscosity = TUBE.sample(100, "prop", seed=1).parameters["viscosity"]
    assert viscosity.min() >= 0.01 and viscosity.max() <= 1


def test_bands_are_held_out():
    def numbers(subset):
        parameters = TUBE.sample(60, subset, seed=0).parameters
        return TUBE.reynolds(parameters), parameters["length"] / parameters["height"]

    def inside(values, band):
        return (values >= band[0]) & (values <= band[1])

    reynolds, aspect = numbers("outside")
    assert not inside(reynolds, REYNOLDS_BAND).any() and not inside(aspect, ASPECT_BAND).any()
    assert inside(numbers("reynolds_band")[0], REYNOLDS_BAND).all()
    assert inside(numbers("aspect_band")[1], ASPECT_BAND).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TUBE.solve(with_(viscosity=1e-3), 32), SolverError, r"case 0 has Reynolds number 1000.*up to 256.*64"),
        (lambda: TUBE.solve(with_(viscosity=[0.1, 1e-4]), 128), SolverError, "case 1.*refused above 1300.*turbulent"),
        (lambda: TUBE.solve(with_(length=17.0)), SolverError, r"4.25 times as long as high.*at least 136 cells"),
        (lambda: TUBE.sample(3, "bc", resolution=16), SolverError, "up to 64 only.*resolution of at least 20"),
        (lambda: TUBE.sample(3, "reynolds_band", resolution=22), SolverError, "resolution of at least 23"),
        (lambda: TUBE.sample(3, "geom"), ConfigError, "did you mean 'geo'"),
        (lambda: TUBE.solve(with_(viscosity=-0.1)), ConfigError, "viscosity.*case 0.*positive"),
        (lambda: TUBE.solve(with_(inlet_velocity=[1.0, -1.0])), ConfigError, "inlet_velocity.*case 1.*positive"),
        (lambda: TUBE.solve(ONE, (32,)), ConfigError, "resolution is"),
        (lambda: TUBE.solve(ONE, 12, [0.0, 0.2, 0.1]), ConfigError, "increase"),
        (
            lambda: TUBE.solve(with_(inlet_velocity=[[1.0, 1.0]]), 12, [0.0, 0.1, 0.2, 0.3]),
            ConfigError,
            "inlet_velocity has 2 times",
        ),
        (lambda: get_problem("tube", 3), ConfigError, "does not exist in 3D; it exists in 2D"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_resolved_reynolds():
    assert resolved_reynolds(32) == 256 and resolved_reynolds(20) == 100 and resolved_reynolds(512) == 1300

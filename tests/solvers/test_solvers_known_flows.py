"""The solver against exact flows, published tables and an independent finite-element solution."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline
from solver_helpers import (
    TRUTH,
    cavity,
    channel,
    max_difference,
    periodic_solver,
    seconds,
    smooth_start,
    taylor_green,
)

from sciml.physics import Grid, MovingWall, Periodic, Wall, box, stretched_axis, uniform_axis
from sciml.solvers import IncompressibleSolver


def profiles(solver, state, b):
    """Splines of u on x = 1/2 and of v on y = 1/2 through faces and wall values (even number of cells)."""
    n, m = solver.grid.shape
    u, v = state.velocity[0][b, n // 2].double(), state.velocity[1][b, :, m // 2].double()
    x, y = solver.grid.centres(0)[b].double(), solver.grid.centres(1)[b].double()
    return (
        CubicSpline(np.r_[0, y, 1], np.r_[0, u, 1]),
        CubicSpline(np.r_[0, x, 1], np.r_[0, v, 0]),
    )


def ghia_error(solver, state, b, reynolds):
    u, v = profiles(solver, state, b)
    table = TRUTH["ghia"]
    x = np.array(table["x"])
    in_u = np.abs(u(table["y"]) - table["u"][str(reynolds)])
    in_v = np.abs(v(x) - table["v"][str(reynolds)])
    if reynolds == 400:
        in_v = in_v[~np.isclose(x, 0.9063)]  # misprint in the table
    return max(in_u.max(), in_v.max())


def fem_error(n, reynolds, time, dtype=torch.float64):
    solver = cavity(n, [reynolds], dtype=dtype)
    with torch.inference_mode():
        state = solver.advance(solver.initial_state(), seconds(time))
    u, v = profiles(solver, state, 0)
    case = TRUTH["fem"]["cases"][str(reynolds)]
    difference = np.r_[u(case["s"]) - case["u_at_x_half"], v(case["s"]) - case["v_at_y_half"]]
    return np.sqrt(np.mean(difference**2)), ghia_error(solver, state, 0, reynolds)


def test_cavity_at_re_100_is_second_order():
    (coarse, _), (fine, ghia) = fem_error(16, 100, 15), fem_error(32, 100, 15)
    assert math.log2(coarse / fine) > 1.8, (coarse, fine)
    assert fine < 4e-3 and ghia < 0.02


def test_cavity_64_against_ghia_at_re_100():
    _, ghia = fem_error(64, 100, 12, torch.float32)
    assert ghia < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("reynolds", "time"), [(100, 18), (400, 40)])
def test_cavity_converges_at_second_order_to_the_finite_element_solution(reynolds, time):
    errors = [fem_error(n, reynolds, time)[0] for n in (32, 64, 128)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.8, (errors, orders)


@pytest.mark.slow
def test_cavity_64_against_ghia():
    """Re 100, 400 and 1000 in one batch; Ghia's own error at Re 1000 is of the size of the bound."""
    solver = cavity(64, [100, 400, 1000], dtype=torch.float32)
    with torch.inference_mode():
        state = solver.advance(solver.initial_state(), seconds(50, 3))
    for b, reynolds in enumerate((100, 400, 1000)):
        assert ghia_error(solver, state, b, reynolds) <= 0.02, reynolds


def test_stretched_grid_reaches_the_reference():
    """Re 100 on 24 x 24 cells clustered at the walls: within 0.01 of the finite-element profile."""
    axis = stretched_axis(24, 1.2)
    grid = Grid((axis, axis), torch.ones(1, 2, dtype=torch.float64))
    solver = cavity(24, [100], grid=grid)
    with torch.inference_mode():
        state = solver.advance(solver.initial_state(), seconds(15))
    u, v = profiles(solver, state, 0)
    case = TRUTH["fem"]["cases"]["100"]
    worst = max(np.abs(u(case["s"]) - case["u_at_x_half"]).max(), np.abs(v(case["s"]) - case["v_at_y_half"]).max())
    assert worst < 0.01 and solver.divergence(state).abs().max() < 1e-12


def test_taylor_green_decay_is_second_order():
    viscosity = torch.tensor([0.01, 0.1], dtype=torch.float64)
    errors = []
    for n in (16, 32, 64):
        solver = periodic_solver(n, viscosity)
        state = solver.state_from_velocity(taylor_green(solver.grid, viscosity, 0.0))
        with torch.inference_mode():
            state = solver.advance(state, seconds(2, 2))
        exact = taylor_green(solver.grid, viscosity, 2.0)
        errors.append(max((u - e).abs().max().item() for u, e in zip(state.velocity, exact, strict=True)))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.9, (errors, orders)


def test_taylor_green_pressure():
    """p = -(cos 2x + cos 2y) / 4 from the velocity alone (the pressure of ``state_from_velocity``)."""
    solver = periodic_solver(48, torch.tensor([0.05], dtype=torch.float64))
    grid = solver.grid
    state = solver.state_from_velocity(taylor_green(grid, solver.viscosity, 0.0))
    exact = -0.25 * (torch.cos(2 * grid.centres(0))[:, :, None] + torch.cos(2 * grid.centres(1))[:, None])
    assert (state.pressure - exact).abs().max() < 5e-3


def test_taylor_green_moves_with_a_mean_flow():
    """Galilean invariance to second order: carried by a mean flow, the vortex is back after one lap."""
    viscosity = torch.tensor([0.02], dtype=torch.float64)
    errors = []
    for n in (24, 48):
        solver = periodic_solver(n, viscosity)
        u, v = taylor_green(solver.grid, viscosity, 0.0)
        state = solver.state_from_velocity((u + 1.0, v + 1.0))
        with torch.inference_mode():
            state = solver.advance(state, seconds(2 * math.pi))
        exact = taylor_green(solver.grid, viscosity, 2 * math.pi)
        errors.append((state.velocity[0] - 1.0 - exact[0]).abs().max().item())
    assert math.log2(errors[0] / errors[1]) > 1.8, errors


def test_poiseuille_between_periodic_ends_of_a_moving_wall_is_couette():
    grid = box((4, 12), torch.ones(1, 2, dtype=torch.float64), periodic=(True, False))
    sides = {"x_low": Periodic(), "x_high": Periodic(), "y_low": Wall(), "y_high": MovingWall((2.0, 0.0))}
    solver = IncompressibleSolver(grid, sides, torch.ones(1), dtype=torch.float64)
    state = solver.advance(solver.initial_state(), seconds(5))
    expected = (2.0 * grid.centres(1))[:, None].expand(1, 4, 12)
    torch.testing.assert_close(state.velocity[0], expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(state.velocity[1], torch.zeros(1, 4, 13).double(), atol=1e-12, rtol=0)


def test_developed_channel_flow_is_second_order():
    """A parabolic inlet stays parabolic: u = 6 y (1 - y), dp/dx = -12 nu."""
    nu = torch.tensor([0.1], dtype=torch.float64)
    errors = []
    for m in (8, 16, 32):
        y = (torch.arange(m, dtype=torch.float64) + 0.5) / m
        profile = 6 * y * (1 - y)
        profile = (profile / profile.mean())[None]  # unit flux, as the discrete flow keeps it
        solver = channel((2 * m, m), 2.0, nu, profile)
        with torch.inference_mode():
            state = solver.advance(solver.initial_state(), seconds(6))
        half = m + m // 2
        errors.append((state.velocity[0][0, half] - 6 * y * (1 - y)).abs().max().item())
        slope = (state.pressure[0, half] - state.pressure[0, half - 1]) * m
        assert (slope / -1.2 - 1).abs().max() < 2.0 / m**1.5
        flux = state.velocity[0].mean(2)
        assert (flux - flux[:, :1]).abs().max() < 1e-12
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.8, (errors, orders)


def test_channel_entrance_length():
    """Uniform inflow, Re = 10: 99 % of the final centreline velocity after 0.8351 heights (Durst 2005)."""
    truth = TRUTH["channel_entrance"]
    solver = channel((72, 24), 3.0, torch.tensor([1 / truth["reynolds"]], dtype=torch.float64))
    with torch.inference_mode():
        state = solver.advance(solver.initial_state(), seconds(5))
    u = state.velocity[0][0]
    centre = (9 * (u[:, 11] + u[:, 12]) - u[:, 10] - u[:, 13]) / 16  # cubic interpolation to y = 1/2
    x = solver.grid.faces(0)[0]
    k = int((centre > 0.99 * 1.5).nonzero()[0])
    length = np.interp(0.99 * 1.5, centre[k - 1 : k + 1], x[k - 1 : k + 1])
    assert abs(length / truth["length_over_height"] - 1) < 0.05, length
    assert solver.divergence(state).abs().max() < 1e-12


def test_three_dimensional_cavity_with_periodic_depth_is_the_plane_one():
    plane = cavity((10, 12), [50.0])
    grid = Grid((uniform_axis(10), uniform_axis(12), uniform_axis(4, periodic=True)), torch.ones(1, 3).double())
    sides = dict.fromkeys(("x_low", "x_high", "y_low"), Wall())
    sides |= {"y_high": MovingWall((torch.ones(1), 0.0, 0.0)), "z_low": Periodic(), "z_high": Periodic()}
    deep = IncompressibleSolver(grid, sides, torch.tensor([0.02], dtype=torch.float64), dtype=torch.float64)
    a, b = plane.initial_state(), deep.initial_state()
    for _ in range(30):
        a, b = plane.step(a, seconds(0.05)), deep.step(b, seconds(0.05))
    torch.testing.assert_close(b.velocity[0], a.velocity[0][..., None].expand(1, 11, 12, 4), atol=1e-12, rtol=0)
    torch.testing.assert_close(b.velocity[1], a.velocity[1][..., None].expand(1, 10, 13, 4), atol=1e-12, rtol=0)
    assert b.velocity[2].abs().max() < 1e-13


def test_three_dimensional_walls_are_symmetric_in_depth():
    grid = box((8, 7, 6), torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.2, 0.7]], dtype=torch.float64))
    sides = {f"{a}_{e}": Wall() for a in "xyz" for e in ("low", "high")}
    sides["y_high"] = MovingWall((torch.tensor([1.0, 2.0]), 0.0, 0.0))
    solver = IncompressibleSolver(grid, sides, torch.tensor([0.01, 0.02]), dtype=torch.float64)
    state = solver.advance(solver.initial_state(), seconds(2, 2))
    assert solver.divergence(state).abs().max() < 1e-12
    torch.testing.assert_close(state.velocity[0], state.velocity[0].flip(3), atol=1e-12, rtol=0)
    torch.testing.assert_close(state.velocity[2], -state.velocity[2].flip(3), atol=1e-12, rtol=0)
    assert state.velocity[2].abs().max() > 1e-3


def test_stepping_is_second_order_in_time():

    solver = cavity(16, [40.0], lid=torch.zeros(1).double())
    start = smooth_start(solver)
    results = []
    for n in (16, 32, 64, 512):
        state = start
        with torch.inference_mode():
            for _ in range(n):
                state = solver.step(state, seconds(1.0 / n))
        results.append(state)
    errors = [max_difference(r, results[-1]) for r in results[:-1]]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 1.8, (errors, orders)

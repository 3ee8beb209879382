"""What must hold for any flow: continuity, symmetry, batching, restart, gradients, refusals."""

import dataclasses
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_helpers import cavity, channel, max_difference, periodic_solver, seconds, smooth_start, walls

from sciml.errors import ConfigError, SolverError
from sciml.physics import (
    Grid,
    Inlet,
    MovingWall,
    Outlet,
    Wall,
    box,
    continuity_residual,
    metrics,
    momentum_residual,
    stretched_axis,
    trajectory_residual,
    uniform_axis,
)
from sciml.solvers import FlowState, IncompressibleSolver
from sciml.solvers.time_step import stable_cfl

SOLVERS = {
    "cavity": lambda dtype: cavity(16, [100.0, 1000.0], dtype=dtype),
    "stretched": lambda dtype: cavity(
        16,
        [100.0, 1000.0],
        dtype=dtype,
        grid=Grid((stretched_axis(16, 1.5), uniform_axis(16)), torch.ones(2, 2).double()),
    ),
    "channel": lambda dtype: channel((24, 12), 2.0, torch.tensor([0.1, 0.01]), dtype=dtype),
    "branching": lambda dtype: IncompressibleSolver(
        box((12, 10), torch.tensor([[1.0, 1.0], [2.0, 1.0]])),
        walls(x_low=Inlet((1.0, 0.2)), x_high=Outlet(), y_low=Outlet()),
        torch.tensor([0.05, 0.02]),
        dtype=dtype,
    ),
    "periodic": lambda dtype: periodic_solver(16, torch.tensor([0.1, 0.01]), dtype=dtype),
}


def start_of(solver, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(solver.grid.batch, *solver.grid.face_shape(i)) for i in range(solver.grid.dim)]
    return solver.state_from_velocity(tuple(torch.randn(s, generator=generator) for s in shapes))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 3e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", SOLVERS)
def test_divergence_is_at_round_off_from_random_states(name, dtype, bound):
    """The random fields have |u| of order 1 and 1 / h of order 10, so round-off of div u is about 100 eps."""
    solver = SOLVERS[name](dtype)
    state = start_of(solver)
    for _ in range(5):
        state = solver.step(state, seconds(0.01, 2))
        assert solver.divergence(state).abs().max() < bound
    assert all(u.dtype == dtype for u in state.velocity) and state.pressure.dtype == dtype


@pytest.mark.parametrize("name", ["channel", "branching"])
def test_volume_is_conserved_at_every_section(name):
    solver = SOLVERS[name](torch.float64)
    state = solver.advance(solver.initial_state(), seconds(0.5, 2))
    area = solver.grid.lengths.double() / torch.tensor(solver.grid.shape)
    through = state.velocity[0].sum(2) * area[:, 1:]
    leaving = state.velocity[1][:, :, 0] * area[:, :1]  # through y_low, counted positive upwards
    expected = through[:, :1] + torch.cat([torch.zeros(2, 1), leaving.cumsum(1)], 1)
    torch.testing.assert_close(through, expected, atol=1e-12, rtol=0)


def test_transposed_problem_gives_the_transposed_flow():
    reynolds = torch.tensor([80.0, 500.0], dtype=torch.float64)
    lid = torch.tensor([1.0, 2.0], dtype=torch.float64)
    lengths = torch.tensor([[1.0, 1.5], [0.8, 1.0]], dtype=torch.float64)
    one = cavity((12, 10), reynolds, lid=lid, lengths=lengths)
    other = IncompressibleSolver(
        box((10, 12), lengths.flip(1)),
        walls(x_high=MovingWall((0.0, lid))),
        1 / reynolds,
        dtype=torch.float64,
    )
    a = one.advance(one.initial_state(), seconds(2, 2))
    b = other.advance(other.initial_state(), seconds(2, 2))
    torch.testing.assert_close(a.velocity[0], b.velocity[1].mT, atol=1e-12, rtol=0)
    torch.testing.assert_close(a.velocity[1], b.velocity[0].mT, atol=1e-12, rtol=0)
    torch.testing.assert_close(a.pressure, b.pressure.mT, atol=1e-11, rtol=0)


def test_mirrored_problem_gives_the_mirrored_flow():
    one, other = cavity(12, [200.0]), cavity(12, [200.0], lid=-torch.ones(1).double())
    a, b = one.advance(one.initial_state(), seconds(3)), other.advance(other.initial_state(), seconds(3))
    torch.testing.assert_close(a.velocity[0], -b.velocity[0].flip(1), atol=1e-12, rtol=0)
    torch.testing.assert_close(a.velocity[1], b.velocity[1].flip(1), atol=1e-12, rtol=0)


def test_dimensional_similarity():
    """Another lid speed and size at the same Reynolds number: the same flow in units of both."""
    one = cavity(12, [100.0])
    lengths = torch.full((1, 2), 0.01, dtype=torch.float64)
    lid = torch.tensor([10.0], dtype=torch.float64)
    other = IncompressibleSolver(
        box((12, 12), lengths), walls(y_high=MovingWall((lid, 0.0))), lid * 0.01 / 100, dtype=torch.float64
    )
    a, b = one.advance(one.initial_state(), seconds(2)), other.advance(other.initial_state(), seconds(2e-3))
    torch.testing.assert_close(a.velocity[0], b.velocity[0] / 10, atol=1e-11, rtol=0)


@settings(max_examples=10, deadline=None)
@given(case=st.integers(0, 2), seed=st.integers(0, 99))
def test_a_case_does_not_depend_on_its_batch(case, seed):
    generator = torch.Generator().manual_seed(seed)
    reynolds = 50 + 500 * torch.rand(3, generator=generator, dtype=torch.float64)
    lid = 0.5 + torch.rand(3, generator=generator, dtype=torch.float64)
    lengths = 0.5 + torch.rand(3, 2, generator=generator, dtype=torch.float64)
    dt = 0.01 + 0.01 * torch.rand(3, generator=generator, dtype=torch.float64)
    pick = slice(case, case + 1)
    whole = cavity(8, reynolds, lid=lid, lengths=lengths)
    alone = cavity(8, reynolds[pick], lid=lid[pick], lengths=lengths[pick])
    a, b = whole.initial_state(), alone.initial_state()
    for _ in range(5):
        a, b = whole.step(a, dt), alone.step(b, dt[pick])
    for u, v in zip(a.velocity, b.velocity, strict=True):
        torch.testing.assert_close(u[pick], v, atol=1e-13, rtol=0)


def test_float32_agrees_with_float64():
    reynolds = [100.0, 300.0, 1000.0]
    single, double = cavity(32, reynolds, dtype=torch.float32), cavity(32, reynolds)
    with torch.inference_mode():
        a = single.advance(single.initial_state(), seconds(6, 3))
        b = double.advance(double.initial_state(), seconds(6, 3))
    assert max_difference(a, b) < 1e-3


@pytest.mark.parametrize("name", SOLVERS)
def test_restart_equals_the_straight_run_bit_for_bit(name):
    dtype = torch.float32
    solver = SOLVERS[name](dtype)
    state = solver.advance(start_of(solver), seconds(0.05, 2))
    buffer = io.BytesIO()
    torch.save({f.name: getattr(state, f.name) for f in dataclasses.fields(state)}, buffer)
    buffer.seek(0)
    loaded = FlowState(**torch.load(buffer, weights_only=True))
    straight = solver.advance(state, seconds(0.05, 2))
    restarted = SOLVERS[name](dtype).advance(loaded, seconds(0.05, 2))
    assert all(torch.equal(u, v) for u, v in zip(straight.velocity, restarted.velocity, strict=True))
    assert torch.equal(straight.pressure, restarted.pressure)


def test_step_leaves_its_input_alone():
    solver = SOLVERS["channel"](torch.float32)
    state = solver.step(solver.initial_state(), seconds(0.01, 2))
    before = [t.clone() for t in (*state.velocity, state.pressure, *state.advection)]
    solver.step(state, seconds(0.01, 2))
    after = (*state.velocity, state.pressure, *state.advection)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_with_boundaries_equals_a_new_solver():
    slow, fast = torch.tensor([1.0]).double(), torch.tensor([2.0]).double()
    solver = cavity(12, [100.0], lid=slow)
    state = solver.advance(solver.initial_state(), seconds(0.5))
    changed = solver.with_boundaries(walls(y_high=MovingWall((fast, 0.0))))
    new = IncompressibleSolver(
        solver.grid, walls(y_high=MovingWall((fast, 0.0))), solver.viscosity, dtype=torch.float64
    )
    a, b = changed.advance(state, seconds(0.5)), new.advance(state, seconds(0.5))
    assert max_difference(a, b) == 0
    assert max_difference(a, solver.advance(state, seconds(0.5))) > 0.1  # the first solver kept its lid


def test_inlet_that_changes_acts_at_once():
    solver = channel((12, 8), 2.0, torch.tensor([0.1]).double())
    state = solver.advance(solver.initial_state(), seconds(0.2))
    faster = solver.with_boundaries(walls(x_low=Inlet((2.0, 0.0)), x_high=Outlet()))
    state = faster.step(state, seconds(0.01))
    torch.testing.assert_close(state.velocity[0].mean(2), torch.full((1, 13), 2.0).double())
    assert faster.divergence(state).abs().max() < 1e-11


def test_viscosity_alone_lets_energy_decay():
    solver = cavity(16, [1e3, 1e5], lid=torch.zeros(2).double())
    state = smooth_start(solver)
    energies = []
    for _ in range(4):
        energies.append(sum((u**2).sum((1, 2)) for u in state.velocity))
        state = solver.advance(state, seconds(0.5, 2))
    falls = torch.stack(energies).diff(dim=0) / energies[0]
    assert (falls < 0).all() and (falls[:, 1] > -0.01).all()


def kinetic_energy(viscosity, lid, advance=False):
    solver = IncompressibleSolver(
        box((8, 8), torch.ones(2, 2, dtype=torch.float64)),
        walls(y_high=MovingWall((lid, 0.0))),
        viscosity,
        dtype=torch.float64,
    )
    state = solver.initial_state()
    if advance:
        state = solver.advance(state, seconds(0.6, 2))
    else:
        for _ in range(6):
            state = solver.step(state, seconds(0.1, 2))
    return 0.5 * sum((u**2).sum((1, 2)) for u in state.velocity) / 64


@pytest.mark.parametrize("advance", [False, True])
def test_gradients_against_finite_differences(advance):
    """d(kinetic energy) / d(viscosity) and / d(lid speed), against central differences."""
    viscosity = torch.tensor([0.01, 0.05], dtype=torch.float64, requires_grad=True)
    lid = torch.tensor([0.9, 0.7], dtype=torch.float64, requires_grad=True)
    gradients = torch.autograd.grad(kinetic_energy(viscosity, lid, advance).sum(), (viscosity, lid))
    for k, (parameter, gradient) in enumerate(zip((viscosity, lid), gradients, strict=True)):
        step = 1e-6 * parameter.detach()
        ends = []
        for sign in (1, -1):
            given = [viscosity.detach(), lid.detach()]
            given[k] = given[k] + sign * step
            ends.append(kinetic_energy(*given, advance))
        torch.testing.assert_close(gradient, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-10)
        assert (gradient != 0).all()


def test_residual_of_a_solver_step_falls_at_second_order():
    """In the interior the residual of one step is that of the time scheme: O(dt^2)."""
    solver = cavity(12, [40.0], lid=torch.zeros(1).double())
    options = {"grid": solver.grid, "boundaries": solver.boundaries, "viscosity": solver.viscosity}
    found = []
    for n in (16, 32, 64):
        state = smooth_start(solver)
        dt = seconds(0.5 / n)
        for _ in range(n):
            before, state = state, solver.step(state, dt)
        residual = momentum_residual(before.velocity, state.velocity, state.pressure, dt, **options)
        found.append(max(r[:, 2:-2, 2:-2].abs().max().item() for r in residual))
        assert continuity_residual(state.velocity, grid=solver.grid).abs().max() < 1e-12
    assert found[0] / found[1] > 3.4 and found[1] / found[2] > 3.4, found


def test_trajectory_residual_shapes_and_gradient():
    solver = cavity((6, 5), [40.0, 80.0])
    options = {"grid": solver.grid, "boundaries": solver.boundaries}
    states = [solver.initial_state()]
    for _ in range(3):
        states.append(solver.advance(states[-1], seconds(0.2, 2)))
    velocity = tuple(torch.stack([s.velocity[i] for s in states], 1) for i in range(2))
    pressure = torch.stack([s.pressure for s in states], 1)
    times = (0.2 * torch.arange(4, dtype=torch.float64)).expand(2, 4)
    residual = trajectory_residual(velocity, pressure, times, viscosity=solver.viscosity, **options)
    assert [tuple(r.shape) for r in residual] == [(2, 3, 5, 5), (2, 3, 6, 4)]

    def total(u, v, p, viscosity):
        return torch.cat([r.flatten() for r in trajectory_residual((u, v), p, times, viscosity=viscosity, **options)])

    inputs = (*velocity, pressure, solver.viscosity)
    assert torch.autograd.gradcheck(total, tuple(t.detach().clone().requires_grad_() for t in inputs), fast_mode=True)


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: cavity(8, [100.0, -5.0]), ConfigError, "viscosity of case 1"),
        (lambda: cavity(8, [100.0, NAN]), ConfigError, "viscosity of case 1"),
        (lambda: cavity(8, [100.0], lengths=torch.ones(2, 2)), ConfigError, r"viscosity must be \(2,\)"),
        (lambda: cavity(8, [100.0, 1.0], lid=torch.ones(3)), ConfigError, "3 values for a batch of 2"),
        (lambda: cavity(8, [100.0], cfl=0.0), ConfigError, "cfl must be positive"),
        (lambda: run(cavity(8, [100.0] * 2), [1.0, -1.0]), ConfigError, "duration of case 1"),
        (lambda: run(cavity(8, [100.0] * 2), [1.0, 1.0, 1.0]), ConfigError, r"duration must be \(2,\)"),
        (lambda: run(cavity(8, [9.0], max_steps=10), [99.0]), SolverError, "Case 0 needs .* max_steps = 10"),
        (lambda: poisoned("advance"), SolverError, "y velocity of case 1 is not finite"),
        (lambda: poisoned("state"), SolverError, "given y velocity of case 1"),
        (lambda: wrong_faces(), ConfigError, "the grid expects"),
        (lambda: one_way(), ConfigError, "inlets of case 0 bring in"),
        (lambda: becomes_outlet(), ConfigError, "outlet"),
    ],
)
def test_refusals_name_the_case(make, error, words):
    with pytest.raises(error, match=words):
        make()


def run(solver, durations):
    return solver.advance(solver.initial_state(), torch.tensor(durations))


def poisoned(where):
    solver = cavity(8, [100.0, 100.0])
    u, v = solver.initial_state().velocity
    v = v.clone()
    v[1, 3, 3] = NAN
    if where == "state":
        return solver.state_from_velocity((u, v))
    return solver.advance(FlowState((u, v), solver.initial_state().pressure), seconds(1, 2))


def wrong_faces():
    solver = cavity(8, [100.0])
    return solver.state_from_velocity((torch.zeros(1, 8, 9), torch.zeros(1, 9, 8)))


def one_way():
    return IncompressibleSolver(box((8, 8), torch.ones(1, 2)), walls(x_low=Inlet((1.0, 0.0))), torch.ones(1))


def becomes_outlet():
    return cavity(8, [100.0]).with_boundaries(walls(y_low=Outlet(), y_high=Wall()))


def test_steps_follow_the_cfl_number_and_the_diffusion_number():
    """Half the cell, half the step; a viscous case is limited by diffusion, a slow one not at all."""
    counts = {}
    for n, reynolds in ((16, 1e3), (32, 1e3), (16, 0.1)):
        solver = cavity(n, [reynolds])
        counts[n, reynolds] = solver._steps_needed(solver.initial_state(), seconds(1))
    assert counts[16, 1e3] == 20 and counts[32, 1e3] == 40
    assert counts[16, 0.1] == 16**2 * 10 / 4


def test_channel_at_a_high_cell_reynolds_number_stays_smooth():
    """At CFL 0.8 Adams-Bashforth amplifies grid waves here: v reached 0.1 before that was limited."""
    y = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    solver = channel((48, 16), 6.0, torch.tensor([0.001]), (6 * y * (1 - y))[None], dtype=torch.float32)
    with torch.inference_mode():
        state = solver.advance(solver.initial_state(), seconds(15))
    assert state.velocity[1].abs().max() < 5e-3 and state.velocity[0].max() < 1.5


@pytest.mark.parametrize("cell_reynolds", [1.0, 5.0, 20.0, 100.0, 1e3, 1e5])
def test_stable_cfl_bounds_the_growth_of_every_wave(cell_reynolds):
    """Brute force over the wave angle: exact amplification of AB2 + Crank-Nicolson in one dimension."""
    grid = box((8,), torch.ones(1, 1), periodic=True)
    velocity, viscosity = torch.ones(1, 8).double(), torch.tensor([0.125 / cell_reynolds]).double()
    cfl = float(stable_cfl((velocity,), viscosity, metrics(grid, dtype=torch.float64)))

    def growth(cfl):
        angle = torch.linspace(0.01, torch.pi, 400, dtype=torch.float64)
        wave, damping = 1j * cfl * torch.sin(angle), cfl * (1 - torch.cos(angle)) / cell_reynolds
        a, b, c = 1 + damping, -(1 - damping - 1.5 * wave), -0.5 * wave  # a g^2 + b g + c = 0
        root = torch.sqrt(b**2 - 4 * a * c)
        return max(((-b + sign * root) / (2 * a)).abs().max() for sign in (1, -1))

    assert growth(cfl) < 1 + 1e-9
    if cell_reynolds >= 5:
        assert growth(1.15 * cfl) > 1 + 1e-9  # and it is not far below the limit


def test_given_steps_are_taken_or_refused():
    grid = box((16, 16), torch.ones(2, 2, dtype=torch.float64))
    sides = {"x_low": Wall(), "x_high": Wall(), "y_low": Wall(), "y_high": MovingWall((torch.tensor([1.0, 8.0]), 0.0))}
    solver = IncompressibleSolver(grid, sides, torch.tensor([0.01, 0.08]), dtype=torch.float64)
    start, duration = solver.initial_state(), torch.full((2,), 0.1, dtype=torch.float64)
    by_steps = start
    for _ in range(40):
        by_steps = solver.step(by_steps, duration / 40)
    given = solver.advance(start, duration, steps=40)
    assert all(torch.equal(a, b) for a, b in zip(given.velocity, by_steps.velocity, strict=True))
    with pytest.raises(SolverError, match=r"Case 1: a step of 0.02 s has the CFL number 2.56.*at least \d+ times"):
        solver.advance(start, duration, steps=5)
    with pytest.raises(ConfigError, match="at least 1"):
        solver.advance(start, duration, steps=0)

"""What the two-phase solver keeps: water, bounds, sections, symmetries, batches."""

from dataclasses import replace

import pytest
import torch
from two_phase_helpers import WATER_AND_AIR, column, dam, largest

from sciml.solvers.two_phase import Open, TwoPhaseSolver

SQUARE = torch.tensor([[1.0, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("pressure", ["direct", "split"])
def test_dam_keeps_water_bounds_and_sections(pressure):
    """At 1000:1.2 with 1 m/s over a barrier until some water has left at the end; split with lighter water, whose steps
    are larger."""
    fluids = WATER_AND_AIR if pressure == "direct" else {"densities": (100.0, 1.2), "viscosities": (0.1, 1.8e-5)}
    solver, dry = dam([2.0], fluids=fluids, pressure=pressure)
    state = solver.initial_state(dry)
    for _ in range(3):
        state = solver.advance(state, 0.4)
        assert float(state.fraction.min()) >= -1e-12
        assert float(state.fraction.max()) <= 1 + 1e-12
        assert abs(float(solver.volume(state) - state.entered)) < 1e-12
        assert largest(solver.divergence(state)) < 1e-9
        assert float(state.fraction[0][solver.domain.fluid[0] == 0].abs().max()) == 0
        spacing = solver.domain.spacing[0]
        through = state.velocity[0][0].sum(1) * spacing[1]
        above = torch.cat((torch.zeros(1), state.velocity[1][0, :, -1].cumsum(0) * spacing[0]))
        assert largest(through + above - 0.125 * 2.0) < 1e-11
    entered = 1.2 * 0.125 * 2.0
    assert float(state.entered) < 0.95 * entered  # some has left
    assert float(solver.volume(state)) > 0.2 * entered
    assert largest(*state.velocity) < 20.0


def test_closed_box_keeps_its_water():
    solver, start = column(8)
    end = solver.advance(start, 0.3)
    assert float((solver.volume(end) / solver.volume(start) - 1).abs()) < 1e-12
    assert float(end.entered.abs()) == 0.0


@pytest.mark.parametrize("pressure", ["direct", "split"])
def test_batch_is_its_cases(pressure):
    """Every case takes its own steps, so that it is what it would be alone; also over several calls."""
    fluids = {
        "densities": (torch.tensor([1000.0, 50.0, 200.0]), 1.2),
        "viscosities": (torch.tensor([1e-3, 1.0, 0.1]), 2e-5),
    }
    solver, dry = dam([0.3, 1.5, 0.8], (24, 8), fluids=fluids, pressure=pressure)
    together = solver.initial_state(dry)
    seconds = torch.tensor([0.1, 0.15, 0.05], dtype=torch.float64)
    for _ in range(2):
        together = solver.advance(together, seconds)
    for k in range(3):
        own = {name: (pair[0][k : k + 1], pair[1]) for name, pair in fluids.items()}
        alone, dry = dam([(0.3, 1.5, 0.8)[k]], (24, 8), fluids=own, pressure=pressure)
        state = alone.initial_state(dry)
        for _ in range(2):
            state = alone.advance(state, seconds[k : k + 1])
        assert largest(together.fraction[k] - state.fraction[0]) < 1e-9
        assert largest(together.velocity[0][k] - state.velocity[0][0]) < 1e-8
        assert float(together.entered[k] - state.entered[0]) == pytest.approx(0, abs=1e-13)


def collapse(fraction, solid, *, gravity=(0.0, -9.81), sides=None, first=0, seconds=0.12, **options):
    solver = TwoPhaseSolver(
        SQUARE,
        tuple(fraction.shape[1:]),
        gravity=torch.tensor([gravity], dtype=torch.float64),
        sides=sides,
        solid=solid,
        **WATER_AND_AIR,
        **options,
    )
    return solver.advance(replace(solver.initial_state(fraction), first=first), seconds)


def column_and_block(n=24):
    fraction = torch.zeros(1, n, n, dtype=torch.float64)
    fraction[:, : n // 3, : 3 * n // 4] = 1.0
    solid = torch.zeros(1, n, n, dtype=torch.bool)
    solid[:, n // 2 : n // 2 + 2, : n // 6] = True
    return fraction, solid


def test_mirrored_box_mirrors_the_flow():
    fraction, solid = column_and_block()
    state = collapse(fraction, solid, sides={"x_high": Open(), "y_high": Open()})
    other = collapse(fraction.flip(1), solid.flip(1), sides={"x_low": Open(), "y_high": Open()})
    assert largest(state.velocity[0]) > 0.5
    assert largest(other.fraction.flip(1) - state.fraction) < 1e-9
    assert largest(other.velocity[0].flip(1) + state.velocity[0], other.velocity[1].flip(1) - state.velocity[1]) < 1e-8


def test_transposed_box_transposes_the_flow():
    fraction, solid = column_and_block()
    state = collapse(fraction, solid, sides={"x_high": Open(), "y_high": Open()})
    turned = {"sides": {"x_high": Open(), "y_high": Open()}, "gravity": (-9.81, 0.0), "first": 1}
    other = collapse(fraction.mT.contiguous(), solid.mT.contiguous(), **turned)
    assert largest(other.fraction.mT - state.fraction) < 1e-9
    assert largest(other.velocity[1].mT - state.velocity[0], other.velocity[0].mT - state.velocity[1]) < 1e-8


@pytest.mark.parametrize("pressure", ["direct", "split"])
def test_everything_moved_by_one_cell_moves_the_flow_by_one_cell(pressure):
    """The walls are columns of solid cells here, so that they can move too."""
    fraction, solid = column_and_block()
    fraction = torch.roll(fraction, 2, 1)
    solid = torch.roll(solid, 2, 1)
    solid[:, :2] = solid[:, -2:] = True
    state = collapse(fraction, solid, pressure=pressure, seconds=0.05)
    moved = collapse(torch.roll(fraction, 1, 1), torch.roll(solid, 1, 1), pressure=pressure, seconds=0.05)
    assert largest(state.velocity[0]) > 0.2
    assert largest(torch.roll(moved.fraction, -1, 1) - state.fraction) < 1e-8
    assert largest(moved.velocity[0][:, 1:] - state.velocity[0][:, :-1]) < 1e-7


def test_large_viscous_steps_follow_small_ones():
    """Viscous water (nu = 0.1 m^2/s) with an implicit stress, in steps 8 times as large as explicit ones."""
    fluids = {"densities": (10.0, 1.2), "viscosities": (1.0, 1.8e-5)}
    solver, dry = dam([1.0], fluids=fluids)
    large = solver.advance(solver.initial_state(dry), 0.3)
    explicit, dry = dam([1.0], fluids=fluids, cfl=0.05)
    small = explicit.advance(explicit.initial_state(dry), 0.3)
    assert float(large.step) > 4 * float(small.step)
    assert float((large.fraction - small.fraction).abs().sum() / small.fraction.sum()) < 0.04


def test_single_precision_is_usable():
    solver, dry = dam([1.0])
    double = solver.advance(solver.initial_state(dry), 0.3)
    solver, dry = dam([1.0], dtype=torch.float32)
    single = solver.advance(solver.initial_state(dry), 0.3)
    assert single.fraction.dtype == torch.float32
    assert float(single.fraction.max()) <= 1 + 1e-6
    assert abs(float(solver.volume(single) - single.entered)) < 1e-5 * 0.0375
    assert float((single.fraction.double() - double.fraction).abs().sum() / double.fraction.sum()) < 0.02


def test_the_same_flow_twice_and_in_parts():
    solver, dry = dam([1.0], (24, 8))
    start = solver.initial_state(dry)
    once, again = (solver.advance(start, 0.2) for _ in range(2))
    assert torch.equal(once.fraction, again.fraction)
    parts = solver.advance(solver.advance(start, 0.1), 0.1)
    assert float((parts.fraction - once.fraction).abs().sum() / once.fraction.sum()) < 0.1


@pytest.mark.parametrize("pressure", ["direct", "split"])
def test_nothing_flows_through_a_solid_in_an_open_side(pressure):
    fraction, solid = column_and_block()
    solid[:, -3:, 4:9] = True  # at the open end
    solver = TwoPhaseSolver(
        SQUARE, (24, 24), sides={"x_high": Open(), "y_high": Open()}, solid=solid, pressure=pressure, **WATER_AND_AIR
    )
    state = solver.advance(solver.initial_state(fraction), 0.05)
    assert largest(state.velocity[0][:, -1, 9:]) > 1e-3
    assert largest(state.velocity[0][:, -1, 4:9]) == 0.0
    assert largest(solver.divergence(state)) < 1e-9

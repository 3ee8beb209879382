"""The two-phase solver against flows with known answers."""

import itertools
import math

import pytest
import torch
from two_phase_helpers import WATER_AND_AIR, column, front_deviations, largest

from sciml.physics.vof import half_plane
from sciml.solvers.two_phase import SIDES, Inlet, Open, TwoPhaseSolver, Wall

BOX = torch.tensor([[1.0, 1.0]], dtype=torch.float64)


def pool(pressure, cells=(24, 32)):
    """Water 14.3 cells deep around a block, open above."""
    solid = torch.zeros(1, *cells, dtype=torch.bool)
    solid[:, 8:11, :5] = True
    fraction = torch.zeros(1, *cells, dtype=torch.float64)
    fraction[:, :, :14], fraction[:, :, 14] = 1.0, 0.3
    fraction[solid] = 0.0
    solver = TwoPhaseSolver(BOX, cells, sides={"y_high": Open()}, solid=solid, pressure=pressure, **WATER_AND_AIR)
    return solver, fraction


@pytest.mark.parametrize(("pressure", "tolerance"), [("direct", 1e-12), ("split", 1e-9)])
def test_still_water_stays_still_under_its_hydrostatic_pressure(pressure, tolerance):
    solver, fraction = pool(pressure)
    state = solver.advance(solver.initial_state(fraction), 1.0)
    assert largest(*state.velocity) < tolerance
    assert largest(state.fraction - fraction) < tolerance
    y = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    weight = (1000.0 - 1.2) * 9.81 * (14.3 / 32 - y)
    assert largest(state.pressure[0, 0, :14] / weight[:14] - 1) < 1e-9
    assert largest(state.pressure[0, 0, 16:]) < 1e-6  # air: nothing over that outside


@pytest.mark.parametrize(("pressure", "tolerance"), [("direct", 0.02), ("split", 0.04)])
def test_water_sloshes_at_the_frequency_of_linear_waves(pressure, tolerance):
    """omega^2 = g k (rho_w - rho_a) / (rho_w / tanh(k d) + rho_a / tanh(k e)) (Lamb, Hydrodynamics, section 231)."""
    n, depth, amplitude = 32, 0.5, 0.02
    slip = dict.fromkeys(SIDES, Wall(slip=True))
    fluids = {"densities": (1000.0, 10.0), "viscosities": (1e-6, 1e-6)}
    solver = TwoPhaseSolver(BOX, (n, n), sides=slip, pressure=pressure, **fluids)
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    surface = depth + amplitude * torch.cos(math.pi * x)
    state = solver.initial_state((surface[:, None] * n - torch.arange(n)).clamp(0, 1)[None])
    omega = math.sqrt(9.81 * math.pi * 990 / (1000 / math.tanh(math.pi * depth) + 10 / math.tanh(math.pi * depth)))
    heights = []
    for _ in range(16):  # from crossing to crossing, as the water lags by half a step
        state = solver.advance(state, 0.1 * math.pi / omega)
        heights.append(float(state.fraction[0, 0].sum() / n - depth) / amplitude)
    crossings = [k + a / (a - b) for k, (a, b) in enumerate(itertools.pairwise(heights)) if a * b < 0]
    assert len(crossings) == 2
    assert abs(0.1 * (crossings[1] - crossings[0]) - 1) < tolerance
    assert abs(heights[9] + 1) < 0.1


def test_poiseuille_flow_of_one_viscous_fluid():
    """Parabolic inflow stays parabolic, dp/dx = -12 mu U / H^2; steps are larger than explicit diffusion takes."""
    n = 16
    y = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    profile = 6 * y * (1 - y)
    lengths = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    sides = {"x_low": Inlet(profile), "x_high": Open()}
    solver = TwoPhaseSolver(lengths, (32, n), densities=(1.0, 1.0), viscosities=(0.5, 0.5), gravity=0.0, sides=sides)
    state = solver.advance(solver.initial_state(torch.ones(1, 32, n, dtype=torch.float64)), 3.0)
    assert largest(state.velocity[0][0, 8:24] - profile) < 0.01
    assert largest(torch.diff(state.pressure[0, 8:24].mean(1)) * 16 / -6 - 1) < 0.01


def test_collapsing_column():
    """Martin and Moyce: on a coarse grid the front is 4 % behind on average (7 % at most), on finer ones less."""
    deviations = front_deviations(10)
    assert abs(float(deviations.mean())) < 0.05
    assert float(deviations.abs().max()) < 0.09


@pytest.mark.slow
def test_collapsing_column_within_five_per_cent():
    coarse, fine = front_deviations(10), front_deviations(20)
    assert float(fine.abs().max()) < 0.05
    assert fine.abs().mean() < 0.6 * coarse.abs().mean()


def test_split_pressure_approaches_the_direct_one():
    """Their difference, in the same steps, falls with the step."""
    differences = []
    for cfl in (0.04, 0.005):
        (direct, start), (split, other) = column(6, cfl=cfl), column(6, cfl=cfl, pressure="split")
        reference, state = direct.advance(start, 0.05), split.advance(other, 0.05)
        differences.append(float((state.fraction - reference.fraction).abs().sum() / reference.fraction.sum()))
    assert differences[0] < 0.03
    assert differences[1] < 0.4 * differences[0]


def test_a_tilted_surface_is_not_at_rest():
    """What keeps flat water still is balance, not stickiness."""
    solver, _ = pool("direct")
    tilted = half_plane(BOX, (24, 32), torch.tensor([0.2, 1.0], dtype=torch.float64), 0.6)
    tilted[solver.domain.fluid == 0] = 0.0
    state = solver.advance(solver.initial_state(tilted), 0.05)
    assert largest(*state.velocity) > 0.05

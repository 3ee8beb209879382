"""What the two-phase solver refuses, and what it says."""

import pytest
import torch
from two_phase_helpers import WATER_AND_AIR, dam

from sciml.errors import ConfigError, SolverError
from sciml.solvers.two_phase import Inlet, Open, TwoPhaseSolver, Wall

CELLS = (12, 8)
LENGTHS = torch.tensor([[1.5, 1.0]], dtype=torch.float64).expand(2, 2)
MOUTH = torch.tensor([1.0, 1.0] + 6 * [0.0])


def solver(**options):
    return TwoPhaseSolver(options.pop("lengths", LENGTHS), options.pop("cells", CELLS), **{**WATER_AND_AIR, **options})


def block(x, y):
    solid = torch.zeros(2, *CELLS, dtype=torch.bool)
    solid[1, x, y] = True
    return solid


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cfl": 0.6}, r"cfl must lie in \(0, 0.5\]"),
        ({"cfl": 0.3, "pressure": "split"}, r"cfl = 0.3 is more than the split pressure takes at the density ratio"),
        ({"densities": (torch.tensor([10.0, 5e3]), 1.0), "pressure": "split"}, r"factor of 5000.*'direct', or bring"),
        ({"densities": (1e5, 1.0)}, r"case 0 differ by a factor of 1e\+05.*at most 10000 works: bring"),
        ({"densities": (0.0, 1.0)}, r"density of water of case 0 is 0"),
        ({"viscosities": (1.0, float("nan"))}, r"viscosity of air of case 0 is nan"),
        ({"densities": (torch.ones(3), 1.0)}, r"density of water must be \(2,\)"),
        ({"pressure": "spilt"}, r"Unknown pressure 'spilt'.*split"),
        ({"cells": (12, 3)}, r"at least 4 cells"),
        ({"lengths": torch.tensor([[1.0, 1.0], [-1.0, 1.0]])}, r"length of case 1 is -1"),
        ({"lengths": torch.ones(2)}, r"lengths must be \(batch, 2\)"),
        ({"gravity": torch.ones(3)}, r"gravity must be"),
        ({"solid": torch.zeros(2, 8, 12, dtype=torch.bool)}, r"solid must be a bool tensor \(2, 12, 8\)"),
        ({"solid": block(4, slice(None)), "sides": {"x_low": Open(), "x_high": Open()}}, r"case 1 cuts the fluid"),
        ({"solid": block(slice(None), slice(None))}, r"case 1 leaves no fluid"),
        ({"sides": {"left": Wall()}}, r"no side 'left'"),
        ({"sides": {"x_low": "wall"}}, r"x_low is 'wall'"),
        ({"sides": {"x_low": Inlet(MOUTH)}}, r"no side is Open"),
        ({"sides": {"x_low": Inlet(0 * MOUTH), "x_high": Open()}}, r"Nothing enters through the inlet x_low of case 0"),
        ({"sides": {"x_low": Inlet(-MOUTH), "x_high": Open()}}, r"x_low of case 0 has velocities that are negative"),
        ({"sides": {"x_low": Inlet(MOUTH, 1.5), "x_high": Open()}}, r"fractions outside \[0, 1\]"),
        ({"sides": {"x_low": Inlet(MOUTH[:5]), "x_high": Open()}}, r"has the shape \(5,\); expected \(2, 8\)"),
        ({"sides": {"x_low": Inlet(MOUTH), "x_high": Open()}, "solid": block(0, 1)}, r"case 1 stands in front of"),
    ],
)  # fmt: skip
def test_what_cannot_be_solved_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        solver(**options)


def test_states_that_do_not_fit_are_refused():
    made = solver(solid=block(slice(4, 6), slice(0, 3)))
    dry = torch.zeros(2, *CELLS, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"fraction must be \(2, 12, 8\)"):
        made.initial_state(dry.mT)
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\]"):
        made.initial_state(dry + 1.1)
    with pytest.raises(ConfigError, match=r"Case 1 has water inside its solid"):
        made.initial_state(dry + 0.5)
    with pytest.raises(ConfigError, match=r"velocity has the shapes"):
        made.initial_state(dry, (torch.zeros(2, 12, 8), torch.zeros(2, 12, 8)))


def test_a_flow_that_needs_too_many_steps_names_the_case():
    made, dry = dam([0.1, 4.0], (24, 8), max_steps=16)
    with pytest.raises(SolverError, match=r"Case 1 needs .* more than max_steps = 16"):
        made.advance(made.initial_state(dry), 0.2)


def test_a_velocity_that_is_not_finite_names_the_case():
    made, dry = dam([0.1, 0.1], (24, 8))
    state = made.initial_state(dry)
    state.velocity[1][1, 3, 3] = float("nan")
    with pytest.raises(SolverError, match=r"velocity of case 1 is not finite"):
        made.advance(state, 0.2)

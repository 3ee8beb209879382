"""Incompressible flow of water and air, batched: dams, barriers, filling channels.

solver = TwoPhaseSolver(lengths, (96, 32), densities=(1000.0, 1.2), viscosities=(1e-3, 1.8e-5),
                        sides={"x_low": Inlet(velocity), "x_high": Open(), "y_high": Open()}, solid=barrier)
state = solver.initial_state(fraction)
state = solver.advance(state, 0.1)
"""

from sciml.solvers.two_phase.sides import SIDES, Inlet, Open, Side, Wall
from sciml.solvers.two_phase.solver import GRAVITY, Fluids, TwoPhaseSolver
from sciml.solvers.two_phase.state import TwoPhaseState

__all__ = ["GRAVITY", "SIDES", "Fluids", "Inlet", "Open", "Side", "TwoPhaseSolver", "TwoPhaseState", "Wall"]

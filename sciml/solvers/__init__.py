"""Reference solvers in batched torch: they make training data and judge rollouts."""

from sciml.solvers.elliptic import solve_darcy
from sciml.solvers.exponential import ExponentialSolver
from sciml.solvers.incompressible import FlowState, IncompressibleSolver
from sciml.solvers.mpm import MPMSolver
from sciml.solvers.stokes import StokesSolver
from sciml.solvers.super_time_stepping import RungeKuttaLegendre
from sciml.solvers.two_phase import TwoPhaseSolver, TwoPhaseState

__all__ = [
    "ExponentialSolver",
    "FlowState",
    "IncompressibleSolver",
    "MPMSolver",
    "RungeKuttaLegendre",
    "StokesSolver",
    "TwoPhaseSolver",
    "TwoPhaseState",
    "solve_darcy",
]

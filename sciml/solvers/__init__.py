"""Reference solvers in batched torch: they make training data and judge rollouts."""

from sciml.solvers.incompressible import FlowState, IncompressibleSolver

__all__ = ["FlowState", "IncompressibleSolver"]

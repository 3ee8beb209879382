"""Batched non-linear least squares with gradients by the implicit function theorem."""

from sciml.constraints.least_squares.pointwise import PointwiseProblem
from sciml.constraints.least_squares.problem import GenericProblem, Problem
from sciml.constraints.least_squares.report import (
    GaussNewtonWarning,
    LeastSquaresWarning,
    Options,
    Report,
    Status,
)
from sciml.constraints.least_squares.shares import least_squares_of_shares
from sciml.constraints.least_squares.solve import Solution, least_squares

__all__ = [
    "GaussNewtonWarning",
    "GenericProblem",
    "LeastSquaresWarning",
    "Options",
    "PointwiseProblem",
    "Problem",
    "Report",
    "Solution",
    "Status",
    "least_squares",
    "least_squares_of_shares",
]

"""Grids, difference stencils, boundary conditions, fast solvers and PDE residuals: torch only,
differentiable, batched."""

from sciml.physics.boundary import (
    Boundaries,
    Boundary,
    BoundaryValues,
    Inlet,
    MovingWall,
    Outlet,
    Periodic,
    Wall,
    boundary_values,
    check_boundaries,
    sides,
)
from sciml.physics.fast_diagonalisation import (
    Eigenbasis,
    FastDiagonalisation,
    eigenbasis,
    second_difference_matrix,
)
from sciml.physics.grid import Axis, Grid, box, stretched_axis, uniform_axis
from sciml.physics.navier_stokes import continuity_residual, momentum_residual, trajectory_residual
from sciml.physics.stencils import (
    Metric,
    advection,
    centres_to_faces,
    divergence,
    faces_to_centres,
    gradient,
    laplacian,
    metrics,
)

__all__ = [
    "Axis",
    "Boundaries",
    "Boundary",
    "BoundaryValues",
    "Eigenbasis",
    "FastDiagonalisation",
    "Grid",
    "Inlet",
    "Metric",
    "MovingWall",
    "Outlet",
    "Periodic",
    "Wall",
    "advection",
    "boundary_values",
    "box",
    "centres_to_faces",
    "check_boundaries",
    "continuity_residual",
    "divergence",
    "eigenbasis",
    "faces_to_centres",
    "gradient",
    "laplacian",
    "metrics",
    "momentum_residual",
    "second_difference_matrix",
    "sides",
    "stretched_axis",
    "trajectory_residual",
    "uniform_axis",
]

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
from sciml.physics.burgers import burgers_box, burgers_residual, burgers_rhs, burgers_transport, odd_extension
from sciml.physics.channel import entrance_length, poiseuille_pressure_gradient, poiseuille_velocity
from sciml.physics.conditions import Condition, Dirichlet, Neumann, Robin
from sciml.physics.crank_nicolson import of_each_frame, spectral_defects
from sciml.physics.darcy import darcy_operator, darcy_residual, face_fluxes
from sciml.physics.diffusion_sorption import (
    Soil,
    retardation,
    solute_flux,
    sorption_rate,
    sorption_residual,
    sorption_spectral_radius,
)
from sciml.physics.fast_diagonalisation import (
    Eigenbasis,
    FastDiagonalisation,
    eigenbasis,
    second_difference_matrix,
)
from sciml.physics.gray_scott import gray_scott_reaction, gray_scott_residual, gray_scott_rhs, gray_scott_symbol
from sciml.physics.grid import Axis, Grid, box, stretched_axis, uniform_axis
from sciml.physics.momentum_defect import StepPreconditioner, acceleration
from sciml.physics.navier_stokes import continuity_residual, momentum_residual, trajectory_residual
from sciml.physics.spectral import PeriodicBox
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
from sciml.physics.vorticity import EnergyBudget, VorticityEquation, energy_budget, vorticity_residual

__all__ = [
    "Axis",
    "Boundaries",
    "Boundary",
    "BoundaryValues",
    "Condition",
    "Dirichlet",
    "Eigenbasis",
    "EnergyBudget",
    "FastDiagonalisation",
    "Grid",
    "Inlet",
    "Metric",
    "MovingWall",
    "Neumann",
    "Outlet",
    "Periodic",
    "PeriodicBox",
    "Robin",
    "Soil",
    "StepPreconditioner",
    "VorticityEquation",
    "Wall",
    "acceleration",
    "advection",
    "boundary_values",
    "box",
    "burgers_box",
    "burgers_residual",
    "burgers_rhs",
    "burgers_transport",
    "centres_to_faces",
    "check_boundaries",
    "continuity_residual",
    "darcy_operator",
    "darcy_residual",
    "divergence",
    "eigenbasis",
    "energy_budget",
    "entrance_length",
    "face_fluxes",
    "faces_to_centres",
    "gradient",
    "gray_scott_reaction",
    "gray_scott_residual",
    "gray_scott_rhs",
    "gray_scott_symbol",
    "laplacian",
    "metrics",
    "momentum_residual",
    "odd_extension",
    "of_each_frame",
    "poiseuille_pressure_gradient",
    "poiseuille_velocity",
    "retardation",
    "second_difference_matrix",
    "sides",
    "solute_flux",
    "sorption_rate",
    "sorption_residual",
    "sorption_spectral_radius",
    "spectral_defects",
    "stretched_axis",
    "trajectory_residual",
    "uniform_axis",
    "vorticity_residual",
]

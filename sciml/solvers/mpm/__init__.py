"""The material point method (MLS-MPM): elastic, fluid, viscoplastic, plastic and granular particles in a box."""

from sciml.solvers.mpm.materials import (
    DruckerPrager,
    FixedCorotated,
    Fluid,
    HerschelBulkley,
    Material,
    NeoHookean,
    VonMises,
)
from sciml.solvers.mpm.obstacles import Box, Disk, Obstacle
from sciml.solvers.mpm.solver import MPMSolver
from sciml.solvers.mpm.state import MPMState, angular_momentum, energies, linear_momentum, pressure
from sciml.solvers.mpm.walls import Coulomb

__all__ = [
    "Box",
    "Coulomb",
    "Disk",
    "DruckerPrager",
    "FixedCorotated",
    "Fluid",
    "HerschelBulkley",
    "MPMSolver",
    "MPMState",
    "Material",
    "NeoHookean",
    "Obstacle",
    "VonMises",
    "angular_momentum",
    "energies",
    "linear_momentum",
    "pressure",
]

"""Experts on tiles of space-time: weights of basis fields that make the residual of an equation vanish."""

from sciml.constraints.mixture_of_experts.burgers import BurgersOnTiles
from sciml.constraints.mixture_of_experts.cavity import CavityOnTiles
from sciml.constraints.mixture_of_experts.darcy import DarcyOnTiles
from sciml.constraints.mixture_of_experts.diffusion_sorption import SorptionOnTiles
from sciml.constraints.mixture_of_experts.equation import Equation
from sciml.constraints.mixture_of_experts.evolution import EvolutionEquation
from sciml.constraints.mixture_of_experts.layer import MixtureOfExpertsConstraint
from sciml.constraints.mixture_of_experts.report import ExpertReport
from sciml.constraints.mixture_of_experts.vorticity import VorticityOnTiles

__all__ = [
    "BurgersOnTiles",
    "CavityOnTiles",
    "DarcyOnTiles",
    "Equation",
    "EvolutionEquation",
    "ExpertReport",
    "MixtureOfExpertsConstraint",
    "SorptionOnTiles",
    "VorticityOnTiles",
]

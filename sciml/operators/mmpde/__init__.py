"""MM-PDE: a graph operator on fixed and on moved nodes."""

from sciml.operators.mmpde.branches import GraphBranches
from sciml.operators.mmpde.neighbours import GridNeighbours, ListNeighbours
from sciml.operators.mmpde.operator import MMPDE

__all__ = ["MMPDE", "GraphBranches", "GridNeighbours", "ListNeighbours"]

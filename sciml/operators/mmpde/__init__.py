"""MM-PDE: a graph operator on fixed and on moved nodes."""

from sciml.operators.mmpde.branches import GraphBranches
from sciml.operators.mmpde.moved_nodes import MovedNodes
from sciml.operators.mmpde.neighbours import GridNeighbours, ListNeighbours
from sciml.operators.mmpde.operator import MMPDE
from sciml.operators.mmpde.triangle_neighbours import triangle_neighbours
from sciml.operators.mmpde.triangles import TriangleMMPDE

__all__ = [
    "MMPDE",
    "GraphBranches",
    "GridNeighbours",
    "ListNeighbours",
    "MovedNodes",
    "TriangleMMPDE",
    "triangle_neighbours",
]

"""Sets of points: who is near whom, which few stand for all, are they connected, how far apart are two sets."""

from sciml.points.distances import chamfer, sinkhorn
from sciml.points.graph import check_graph, components, propose_radius
from sciml.points.neighbours import nearest, radius_pairs
from sciml.points.sampling import farthest_points, random_points

__all__ = [
    "chamfer",
    "check_graph",
    "components",
    "farthest_points",
    "nearest",
    "propose_radius",
    "radius_pairs",
    "random_points",
    "sinkhorn",
]

"""Triangulations that move, on any domain: obstacles, holes, boundaries of straight sides and circles.

triangulation = Triangulation.of(channel_with_disc(), circles=[(0.5, 0.6, 0.1)])
monitor = triangle_curvature_monitor(u, triangulation)            # u (B, C, N) at the nodes
moved = relax(monitor, triangulation).points                      # (B, N, 2)
there = sample_triangles(u, triangulation, None, moved)           # fixed to moved
back = sample_triangles(there, triangulation, moved, triangulation.points.unsqueeze(0))
"""

from sciml.constraints.mesh_mover.triangles.functional import ALIGNMENT, REFERENCES, huang_functional
from sciml.constraints.mesh_mover.triangles.location import find_triangles
from sciml.constraints.mesh_mover.triangles.monitors import (
    TRIANGLE_MONITORS,
    TriangleMonitor,
    check_triangle_monitor,
    triangle_curvature_monitor,
    triangle_gradient_monitor,
)
from sciml.constraints.mesh_mover.triangles.quality import (
    folded_triangles,
    height_ratios,
    mass_spread,
    signed_areas,
)
from sciml.constraints.mesh_mover.triangles.relaxation import RelaxedTriangles, displacement_energy, relax
from sciml.constraints.mesh_mover.triangles.sampling import sample_triangles
from sciml.constraints.mesh_mover.triangles.smoothing import smooth_nodes
from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.constraints.mesh_mover.triangles.validity import unfolded_triangles

__all__ = [
    "ALIGNMENT",
    "REFERENCES",
    "TRIANGLE_MONITORS",
    "RelaxedTriangles",
    "TriangleMonitor",
    "Triangulation",
    "check_triangle_monitor",
    "displacement_energy",
    "find_triangles",
    "folded_triangles",
    "height_ratios",
    "huang_functional",
    "mass_spread",
    "relax",
    "sample_triangles",
    "signed_areas",
    "smooth_nodes",
    "triangle_curvature_monitor",
    "triangle_gradient_monitor",
    "unfolded_triangles",
]

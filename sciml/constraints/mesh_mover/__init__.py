"""Meshes moved to where a field needs them: no networks, only the equations."""

from sciml.constraints.mesh_mover.box import Box, centres_of
from sciml.constraints.mesh_mover.interpolation import interpolate, locate
from sciml.constraints.mesh_mover.monge_ampere import MeshNotConvergedWarning, MovedMesh, monge_ampere
from sciml.constraints.mesh_mover.monitor_values import Monitor
from sciml.constraints.mesh_mover.monitors import MONITORS, MonitorFunction, curvature_monitor, gradient_monitor
from sciml.constraints.mesh_mover.quality import (
    cell_volumes,
    corner_jacobians,
    equidistribution_spread,
    folded,
    mass,
)
from sciml.constraints.mesh_mover.roughness import RoughFieldWarning, check_field, check_monitor, roughness
from sciml.constraints.mesh_mover.sampling import sample
from sciml.constraints.mesh_mover.smoothing import smooth
from sciml.constraints.mesh_mover.triangles import (
    TRIANGLE_MONITORS,
    RelaxedTriangles,
    Triangulation,
    folded_triangles,
    huang_functional,
    relax,
    sample_triangles,
    triangle_curvature_monitor,
    triangle_gradient_monitor,
    unfolded_triangles,
)
from sciml.constraints.mesh_mover.validity import unfolded

__all__ = [
    "MONITORS",
    "TRIANGLE_MONITORS",
    "Box",
    "MeshNotConvergedWarning",
    "Monitor",
    "MonitorFunction",
    "MovedMesh",
    "RelaxedTriangles",
    "RoughFieldWarning",
    "Triangulation",
    "cell_volumes",
    "centres_of",
    "check_field",
    "check_monitor",
    "corner_jacobians",
    "curvature_monitor",
    "equidistribution_spread",
    "folded",
    "folded_triangles",
    "gradient_monitor",
    "huang_functional",
    "interpolate",
    "locate",
    "mass",
    "monge_ampere",
    "relax",
    "roughness",
    "sample",
    "sample_triangles",
    "smooth",
    "triangle_curvature_monitor",
    "triangle_gradient_monitor",
    "unfolded",
    "unfolded_triangles",
]

"""Networks that move meshes, and read fields on them."""

from sciml.operators.mesh_mover.cloud import CloudReader
from sciml.operators.mesh_mover.fitting import fit_mesh_mover, mover_loss
from sciml.operators.mesh_mover.interpolation import CorrectedInterpolation
from sciml.operators.mesh_mover.mover import LearnedMesh, MeshMover
from sciml.operators.mesh_mover.random_monitors import random_monitors
from sciml.operators.mesh_mover.shipped import pretrained_mover
from sciml.operators.mesh_mover.triangle_mover import MovedTriangles, TriangleMover
from sciml.operators.mesh_mover.triangle_training import fit_triangle_mover, shapes_at_nodes, triangle_mover_loss

__all__ = [
    "CloudReader",
    "CorrectedInterpolation",
    "LearnedMesh",
    "MeshMover",
    "MovedTriangles",
    "TriangleMover",
    "fit_mesh_mover",
    "fit_triangle_mover",
    "mover_loss",
    "pretrained_mover",
    "random_monitors",
    "shapes_at_nodes",
    "triangle_mover_loss",
]

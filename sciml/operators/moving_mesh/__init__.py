"""Any grid operator on a mesh that moves with the field: sampled there, brought back by interpolation."""

from sciml.operators.moving_mesh.movers import MOVERS, Mover
from sciml.operators.moving_mesh.operator import MovingMesh

__all__ = ["MOVERS", "Mover", "MovingMesh"]

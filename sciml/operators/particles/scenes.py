"""Particles of several scenes as the networks read them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sciml.operators.particles.edges import Edges


@dataclass(frozen=True)
class Scenes:
    """Particles of ``B`` scenes; the names are those of ``particle_graph``."""

    position: Tensor
    velocity: Tensor
    kind: Tensor
    parameters: Tensor
    fixed: Tensor
    batch: Tensor
    bounds: Tensor
    gravity: Tensor
    edges: Edges

    @classmethod
    def of(cls, data: Any) -> "Scenes":
        """From the graph of ``particle_graph``, or a batch of such."""
        return cls(
            data.pos,
            data.velocity,
            data.kind,
            data.parameters,
            data.fixed,
            data.batch,
            data.bounds,
            data.gravity,
            Edges.of(data.edge_index, len(data.pos)),
        )

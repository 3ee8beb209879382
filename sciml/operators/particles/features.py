"""Numbers that a network sees of particles and pairs: nothing in them depends on where the origin is."""

import torch
from torch import Tensor, nn

from sciml.operators.particles.scenes import Scenes

STANDARD_GRAVITY = 9.81
KIND_CHANNELS = 16


class ParticleFeatures(nn.Module):
    """Each particle's velocities, distances to the walls, kind, material, whether it is fixed, and gravity.

    Distances to the two faces along every axis are in units of the radius and clipped to [-1, 1]: far walls are not
    seen. Gravity is in units of 9.81 m/s^2. Kinds are told apart by a learned vector where there are several.
    """

    def __init__(self, dim: int, radius: float, history: int, n_kinds: int, n_parameters: int) -> None:
        super().__init__()
        self.radius = radius
        self.kinds = nn.Embedding(n_kinds, KIND_CHANNELS) if n_kinds > 1 else None
        self.channels = (history + 3) * dim + n_parameters + 1 + (KIND_CHANNELS if n_kinds > 1 else 0)

    def forward(self, scenes: Scenes) -> Tensor:
        """``(N, channels)``."""
        low, high = scenes.bounds[scenes.batch].unbind(-1)
        walls = torch.cat((scenes.position - low, high - scenes.position), 1) / self.radius
        parts = [
            scenes.velocity.flatten(1),
            walls.clamp(-1, 1),
            scenes.gravity[scenes.batch] / STANDARD_GRAVITY,
            scenes.parameters,
            scenes.fixed.unsqueeze(1).to(walls),
        ]
        if self.kinds is not None:
            parts.append(self.kinds(scenes.kind))
        return torch.cat(parts, 1)


def pair_features(scenes: Scenes, radius: float) -> Tensor:
    """Displacement from receiver to source in units of the radius, and its length ``(E, d + 1)``."""
    edges = scenes.edges
    apart = scenes.position.index_select(0, edges.source) - scenes.position.index_select(0, edges.receiver)
    apart = apart / radius
    return torch.cat((apart, torch.linalg.vector_norm(apart, dim=1, keepdim=True)), 1)

"""GNS: learning to simulate with graph networks [Sanchez-Gonzalez et al. 2020, ICML]. The baseline of GIOROM."""

import torch
from torch import Tensor, nn

from sciml.operators.particles.base import ParticleOperator
from sciml.operators.particles.features import ParticleFeatures, pair_features
from sciml.operators.particles.interaction import MLP, InteractionLayer, interact
from sciml.operators.particles.scenes import Scenes
from sciml.operators.stored import check_positive


class GNS(ParticleOperator):
    """Encode particles and pairs, let them interact ``n_layers`` times, decode the accelerations of the particles.

    Of the original it has the widths, the depths and the layer norms. Messages are averaged instead of summed, as in
    GIOROM, which shares the layers, so that the two differ by the operator in the middle only.

    Args:
        dim, radius, history, n_kinds, n_parameters, symmetry: see ``ParticleOperator``.
        hidden_channels: of particles and pairs.
        n_layers: interaction layers.

    Raises:
        ConfigError: an argument is out of range.
    """

    name = "gns"

    def __init__(
        self,
        dim: int,
        *,
        radius: float,
        history: int = 5,
        n_kinds: int = 1,
        n_parameters: int = 0,
        hidden_channels: int = 128,
        n_layers: int = 10,
        symmetry: str = "none",
    ) -> None:
        super().__init__(
            dim, radius=radius, history=history, n_kinds=n_kinds, n_parameters=n_parameters, symmetry=symmetry
        )
        check_positive(self.name, hidden_channels=hidden_channels, n_layers=n_layers)
        self.features = ParticleFeatures(dim, self.radius, history, n_kinds, n_parameters)
        self.encode_particles = MLP(self.features.channels, hidden_channels, hidden_channels)
        self.encode_pairs = MLP(dim + 1, hidden_channels, hidden_channels)
        self.layers = nn.ModuleList(InteractionLayer(hidden_channels) for _ in range(n_layers))
        self.decode = decoder(hidden_channels, dim)

    def accelerations(self, scenes: Scenes) -> Tensor:
        x = self.encode_particles(self.features(scenes))
        e = self.encode_pairs.piecewise(pair_features(scenes, self.radius))
        x, _ = interact(self.layers, x, e, scenes.edges)
        return self.decode(x)


def decoder(channels: int, dim: int) -> MLP:
    """From the channels of a particle to its acceleration, near 0 (the mean of the data) before training."""
    network = MLP(channels, channels, dim, norm=False)
    with torch.no_grad():
        network[-1].weight.mul_(0.01)
        network[-1].bias.zero_()
    return network

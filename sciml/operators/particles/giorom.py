"""GIOROM: particles interact, are read by an operator transformer on a latent lattice, and interact again.

Viswanath et al. 2024, arXiv 2407.03925 ("Reduced-Order Neural Operators: Learning Lagrangian Dynamics on Highly Sparse
Graphs"). The intended design, not the published code: the lattice belongs to each scene, empty nodes do not exist, the
kernels know relative positions, and velocities are normalised.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from sciml.errors import ConfigError
from sciml.operators.layers.linear import Linear
from sciml.operators.particles.attention import OperatorTransformer
from sciml.operators.particles.base import ParticleOperator, check_number
from sciml.operators.particles.features import ParticleFeatures, pair_features
from sciml.operators.particles.gns import decoder
from sciml.operators.particles.interaction import MLP, InteractionLayer, interact
from sciml.operators.particles.latent_grid import FADING, KernelIntegral
from sciml.operators.particles.lattice import occupied_lattice
from sciml.operators.particles.scenes import Scenes
from sciml.operators.stored import check_positive


class GIOROM(ParticleOperator):
    """Encoder, interaction layers, latent operator, interaction layers, decoder.

    The latent operator goes from the particles to lattice nodes (graph neural operator), attends over the nodes of the
    scene, and goes back; its outcome is added to the particles. It carries information across the whole scene in one
    step, where ``GNS`` needs a layer for every radius of distance.

    Args:
        dim, radius, history, n_kinds, n_parameters, symmetry: see ``ParticleOperator``.
        hidden_channels: of particles and pairs.
        n_layers: interaction layers before and after the latent operator.
        latent_spacing: of the lattice, in units of ``radius``.
        latent_radius: of the ball around a node, in units of ``radius``; at least half the diagonal of a lattice cell,
            so that every particle reaches a node.
        latent_channels: of the nodes.
        n_blocks: of the operator transformer.
        n_heads: of attention; divides ``latent_channels``.
        n_experts: mixed after every attention.
        dropout: share of the transformer's residuals that is dropped in training.

    Raises:
        ConfigError: an argument is out of range.
    """

    name = "giorom"

    def __init__(
        self,
        dim: int,
        *,
        radius: float,
        history: int = 5,
        n_kinds: int = 1,
        n_parameters: int = 0,
        hidden_channels: int = 128,
        n_layers: Sequence[int] = (2, 2),
        latent_spacing: float = 1.0,
        latent_radius: float = 1.5,
        latent_channels: int = 128,
        n_blocks: int = 2,
        n_heads: int = 4,
        n_experts: int = 2,
        dropout: float = 0.0,
        symmetry: str = "none",
    ) -> None:
        super().__init__(
            dim, radius=radius, history=history, n_kinds=n_kinds, n_parameters=n_parameters, symmetry=symmetry
        )
        check_positive(
            self.name,
            hidden_channels=hidden_channels,
            latent_channels=latent_channels,
            n_blocks=n_blocks,
            n_heads=n_heads,
            n_experts=n_experts,
        )
        if len(n_layers) != 2 or not all(isinstance(count, int) and count >= 0 for count in n_layers):
            raise ConfigError(f"{self.name}: n_layers is {n_layers!r}; expected two whole numbers, before and after")
        if latent_channels % n_heads:
            raise ConfigError(f"{self.name}: latent_channels {latent_channels} is not a multiple of n_heads {n_heads}")
        if not 0 <= dropout < 1:
            raise ConfigError(f"{self.name}: dropout is {dropout!r}; expected 0 or more and less than 1")
        check_number(self.name, "latent_spacing", latent_spacing)
        check_number(self.name, "latent_radius", latent_radius)
        least = 0.5 * latent_spacing * dim**0.5
        if latent_radius <= least:
            raise ConfigError(
                f"{self.name}: latent_radius is {latent_radius} and latent_spacing {latent_spacing}; expected a radius "
                f"above {least:.3g}, half the diagonal of a lattice cell, or particles reach no node"
            )
        self.spacing = latent_spacing * self.radius
        self.ball = latent_radius * self.radius
        self.features = ParticleFeatures(dim, self.radius, history, n_kinds, n_parameters)
        self.encode_particles = MLP(self.features.channels, hidden_channels, hidden_channels)
        self.encode_pairs = MLP(dim + 1, hidden_channels, hidden_channels)
        self.before, self.after = (
            nn.ModuleList(InteractionLayer(hidden_channels) for _ in range(count)) for count in n_layers
        )
        self.to_lattice = KernelIntegral(hidden_channels, latent_channels, dim)
        self.transformer = OperatorTransformer(latent_channels, dim, n_blocks, n_heads, n_experts, dropout)
        self.from_lattice = KernelIntegral(latent_channels, latent_channels, dim)
        self.project = nn.Sequential(nn.GELU(), Linear(latent_channels, hidden_channels))
        self.decode = decoder(hidden_channels, dim)

    def accelerations(self, scenes: Scenes) -> Tensor:
        x = self.encode_particles(self.features(scenes))
        e = self.encode_pairs.piecewise(pair_features(scenes, self.radius))
        x, e = interact(self.before, x, e, scenes.edges)
        x = x + self.project(self.latent(x, scenes))
        x, _ = interact(self.after, x, e, scenes.edges)
        return self.decode(x)

    def latent(self, x: Tensor, scenes: Scenes) -> Tensor:
        """Particles ``(N, hidden_channels)`` through the lattice ``(N, latent_channels)``."""
        grid = occupied_lattice(scenes.position, scenes.batch, scenes.bounds[..., 0], self.spacing, self.ball)
        occupied = grid.to_nodes.to_receivers(grid.window)
        occupied = occupied / (occupied + FADING)
        nodes = self.to_lattice(x, grid.to_nodes, grid.apart, grid.window)
        nodes = self.transformer(nodes, grid.position, occupied, grid.batch, len(scenes.bounds), self.spacing)
        return self.from_lattice(nodes, grid.to_particles, -grid.apart[grid.order], grid.window[grid.order])

"""A network that moves triangulations: message passing to a stress, an elliptic solve to the displacement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciml.constraints.mesh_mover.triangles import (
    ALIGNMENT,
    REFERENCES,
    TRIANGLE_MONITORS,
    TriangleMonitor,
    Triangulation,
    check_triangle_monitor,
    displacement_energy,
    huang_functional,
    sample_triangles,
    signed_areas,
    unfolded_triangles,
)
from sciml.errors import ConfigError, did_you_mean
from sciml.operators.layers.linear import Linear
from sciml.operators.mesh_mover.triangle_stress import displacement_of_stress
from sciml.operators.particles.edges import Edges
from sciml.operators.particles.interaction import MLP, InteractionLayer, interact
from sciml.operators.stored import Stored, check_positive

NODE_FEATURES, EDGE_FEATURES = 7, 4
LONGEST = 1.0
"""Longest step downhill in a stage, over the size of the mesh."""


@dataclass(frozen=True)
class MovedTriangles:
    """Moved nodes ``points (B, N, 2)``, metres, no triangle folded.

    ``scale (B,)``: by what the last stage's displacement was scaled back for that, 1 for not at all; ``monitor (B,
    N)``, at the fixed nodes.
    """

    points: Tensor
    scale: Tensor
    monitor: Tensor


class TriangleMover(Stored):
    """Moves the nodes of any triangulation to where a field needs them, in milliseconds, on any domain.

    Descent on Huang's functional, learned: a few stages, all with the same weights. Each knows of every node the
    monitor where the node is now, how much heavier the triangles around are than they should be, how the edges to the
    neighbours lie, and the preconditioned gradient of the functional. Layers of messages along the edges make of that
    the length of the step along this gradient, node by node, and a stress whose elliptic answer
    (``displacement_of_stress``) is added to it. The result slides on the boundary and is scaled back if it is folded.
    Untrained each stage is one step downhill. It is trained by the functional alone (``fit_triangle_mover``), without
    meshes to imitate, and is without units: it takes any triangulation, but is best on those like the one that it was
    trained on.

    Args:
        hidden_channels: of nodes and edges.
        n_layers: layers of messages in a stage.
        stages: number of stages.
        monitor: ``curvature`` or ``gradient``, the default of ``forward``.
        share: of the mesh that adapts, for the default monitor.
        least: share of its area in the fixed mesh that no triangle falls below.
        reference, alignment: of the functional (see ``huang_functional``).

    Raises ``ConfigError`` for options out of range.
    """

    name = "triangle_mover"

    def __init__(
        self,
        *,
        hidden_channels: int = 32,
        n_layers: int = 2,
        stages: int = 3,
        monitor: str = "curvature",
        share: float = 0.5,
        least: float = 0.05,
        reference: str = "mesh",
        alignment: float = ALIGNMENT,
    ) -> None:
        super().__init__()
        check_positive(self.name, hidden_channels=hidden_channels, n_layers=n_layers, stages=stages)
        if monitor not in TRIANGLE_MONITORS:
            raise ConfigError(f"{self.name}: unknown monitor {monitor!r}{did_you_mean(monitor, TRIANGLE_MONITORS)}")
        if not (0 <= share <= 0.95 and 0 < least < 1):
            raise ConfigError(f"{self.name}: share is {share} and least {least}; expected [0, 0.95] and (0, 1)")
        if reference not in REFERENCES or not 0 < alignment <= 0.5:
            raise ConfigError(
                f"{self.name}: reference is {reference!r} and alignment {alignment}; expected one of "
                f"{', '.join(REFERENCES)}, and (0, 1/2]"
            )
        self.reference, self.alignment = reference, alignment
        self.stages, self.monitor, self.share, self.least = stages, monitor, share, least
        self.node_encoder = MLP(NODE_FEATURES, hidden_channels, hidden_channels, n_hidden=1)
        self.edge_encoder = MLP(EDGE_FEATURES, hidden_channels, hidden_channels, n_hidden=1)
        self.layers = nn.ModuleList(InteractionLayer(hidden_channels) for _ in range(n_layers))
        self.decoder = Linear(hidden_channels, 4)
        nn.init.zeros_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)

    def forward(
        self, u: Tensor, triangulation: Triangulation, monitor: TriangleMonitor | None = None
    ) -> MovedTriangles:
        """The mesh of the field with node values ``u (B, C, N)``.

        ``monitor``: a function (u, triangulation) -> positive ``(B, N)`` in place of the one of the constructor. Raises
        ``DataError`` for fields and monitors that are not finite, of a wrong shape, or not positive.
        """
        if monitor is None:
            density = TRIANGLE_MONITORS[self.monitor](u, triangulation, share=self.share)
        else:
            density = monitor(u, triangulation)
        return self.move(density, triangulation)

    def move(self, monitor: Tensor, triangulation: Triangulation) -> MovedTriangles:
        """The mesh of a monitor ``(B, N)``, positive values at the nodes, of any mean."""
        check_triangle_monitor(monitor, triangulation)
        weights = (triangulation.node_areas / triangulation.area).to(monitor)
        density = (monitor / (monitor * weights).sum(1, keepdim=True)).log()
        edges = _edges(triangulation, len(monitor), monitor.device)
        points = triangulation.tables(monitor).points.expand(len(monitor), -1, -1)
        scale = monitor.new_ones(len(monitor))
        for _ in range(self.stages):
            displacement = triangulation.displacement(points) + self._stage(points, density, triangulation, edges)
            points, scale = unfolded_triangles(triangulation.move(displacement), triangulation, self.least)
        return MovedTriangles(points, scale, monitor)

    def functional(self, points: Tensor, triangulation: Triangulation, monitor: Tensor) -> Tensor:
        """``huang_functional`` with the mover's reference and alignment ``(B,)``."""
        return huang_functional(points, triangulation, monitor, reference=self.reference, alignment=self.alignment)

    def _stage(self, points: Tensor, density: Tensor, triangulation: Triangulation, edges: Edges) -> Tensor:
        """A displacement ``(B, N, 2)`` from ``points``, for the logarithm of the monitor at the fixed nodes."""
        downhill = self._downhill(points, density, triangulation)
        nodes, shape = _node_features(points, downhill, density, triangulation), points.shape[:2]
        between = _edge_features(points, nodes, triangulation, edges)
        x, e = self.node_encoder(nodes.flatten(0, 1)), self.edge_encoder(between)
        x, _ = interact(self.layers, x, e, edges)
        decoded = self.decoder(x).unflatten(0, shape)
        step, stress = (1 + decoded[..., :1]) * downhill, decoded[..., 1:].mT
        return step + displacement_of_stress(stress, triangulation)

    @torch.no_grad()
    def _downhill(self, points: Tensor, density: Tensor, triangulation: Triangulation) -> Tensor:
        """The preconditioned step of steepest descent ``(B, N, 2)``, no longer than ``LONGEST``."""
        amounts = triangulation.reduce(triangulation.displacement(points))
        with torch.enable_grad():
            amounts = amounts.detach().requires_grad_()
            values = self.functional(triangulation.move(triangulation.expand(amounts)), triangulation, density.exp())
            (gradient,) = torch.autograd.grad(values.sum(), amounts)
        step = -triangulation.area * displacement_energy(triangulation, points).dual(gradient)
        longest = LONGEST * triangulation.size
        return triangulation.expand(step * (longest / step.abs().amax(1, keepdim=True)).clamp(max=1))


def _node_features(points: Tensor, downhill: Tensor, density: Tensor, triangulation: Triangulation) -> Tensor:
    """``(B, N, NODE_FEATURES)``, without units: logarithms of the density at the node now and of the mass of the
    triangles around it over that in the fixed mesh of a constant monitor, whether it is on the boundary, displacement,
    step downhill.
    """
    tables = triangulation.tables(points)
    start = _owners(triangulation, points.device).expand(len(points), -1)
    now = sample_triangles(density.unsqueeze(1), triangulation, None, points, start=start, clamp=True)[:, 0]
    growth = (signed_areas(points, triangulation) / tables.areas).log()
    triangles = now[:, tables.triangles].mean(-1) + growth
    mass = _node_means(triangles, triangulation)
    boundary = torch.zeros_like(now)
    boundary[:, triangulation.motion.nodes.to(points.device)] = 1
    moved = triangulation.displacement(points) / triangulation.size
    vectors = torch.cat([moved / 4, downhill / triangulation.size], -1)
    return torch.cat([torch.stack([now, mass, boundary], -1), vectors], -1)


def _edge_features(points: Tensor, nodes: Tensor, triangulation: Triangulation, edges: Edges) -> Tensor:
    """``(E, EDGE_FEATURES)``: the vector in sizes of the mesh around it, its length, the difference of densities."""
    sizes = triangulation.node_areas.to(points).sqrt().expand(len(points), -1).flatten()
    flat, density = points.flatten(0, 1), nodes[..., 0].flatten()
    local = (sizes[edges.source] + sizes[edges.receiver]) / 2
    vector = (flat[edges.source] - flat[edges.receiver]) / local.unsqueeze(1)
    difference = density[edges.source] - density[edges.receiver]
    return torch.cat([vector, vector.norm(dim=1, keepdim=True), difference.unsqueeze(1)], 1)


def _node_means(values: Tensor, triangulation: Triangulation) -> Tensor:
    """Means ``(B, N)`` of ``values (B, T)`` over the triangles around each node, by their areas in the fixed mesh."""
    tables = triangulation.tables(values)
    thirds = (values * tables.areas / 3).repeat_interleave(3, 1)
    total = values.new_zeros(len(values), triangulation.n_nodes).index_add(1, tables.triangles.flatten(), thirds)
    return total / triangulation.node_areas.to(values)


def _owners(triangulation: Triangulation, device: torch.device) -> Tensor:
    """A triangle of each node ``(N,)``."""

    def made() -> Tensor:
        owners = torch.empty(triangulation.n_nodes, dtype=torch.int64)
        owners[triangulation.triangles.flatten()] = torch.arange(triangulation.n_triangles).repeat_interleave(3)
        return owners.to(device)

    return triangulation.kept(("owners", device), made)


def _edges(triangulation: Triangulation, batch: int, device: torch.device) -> Edges:
    """The edges of ``batch`` copies of the triangulation, in both directions."""

    def made() -> Edges:
        both = torch.cat([triangulation.mesh.edges, triangulation.mesh.edges.flip(1)]).T.to(device)
        shifts = torch.arange(batch, device=device).repeat_interleave(both.shape[1]) * triangulation.n_nodes
        return Edges.of(both.repeat(1, batch) + shifts, batch * triangulation.n_nodes)

    return triangulation.kept(("edges", batch, device), made)

"""MM-PDE on triangulations, on any domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sciml.constraints.mesh_mover.triangles import TRIANGLE_MONITORS, Triangulation, relax
from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.operators.layers.condition import Condition
from sciml.operators.mmpde.branches import GraphBranches
from sciml.operators.mmpde.moved_nodes import MovedNodes, Still
from sciml.operators.mmpde.triangle_neighbours import triangle_neighbours
from sciml.operators.mmpde.width import same_size
from sciml.operators.stored import Stored, check_positive


class TriangleMMPDE(Stored):
    """``G_1(u) + I^-1 G_2(I u)``: ``MMPDE`` at the nodes of a triangulation, which may have holes.

    The nodes of the second branch move with the field by a few steps of descent on Huang's functional (``relax``), or
    to wherever the caller says; who sends messages to whom is fixed (``triangle_neighbours``). Fields go there and back
    linearly on triangles (``MovedNodes``). The weights know no triangulation: ``forward`` takes any. The skip from the
    present state is the caller's: what this gives is best taken for its increment.

    Args:
        in_channels, out_channels: of the nodes.
        hidden_channels, n_layers: of each branch.
        reach: how many edges away the neighbours of a node are; of several, the layers take one after the other. The
            first is 1 where nodes move: the slopes of the motion are taken there.
        branches: "both", or "fixed": the graph operator on the fixed nodes alone, as much wider as makes the number of
            weights that of both.
        warp: whether the nodes of the second branch move; otherwise the same weights on the fixed nodes, for
            comparison.
        monitor, share: of the field that moves the nodes (``TRIANGLE_MONITORS``).
        moved_by: numbers of the input channels that do; all unless given.
        iterations: of ``relax``.
        coordinates: whether nodes are told where they lie.
        n_parameters: length of the vector that it is conditioned on.

    Raises ``ConfigError`` for arguments out of range.
    """

    name = "triangle_mmpde"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hidden_channels: int = 48,
        n_layers: int = 5,
        reach: Sequence[int] = (1, 2, 4),
        branches: str = "both",
        warp: bool = True,
        monitor: str = "curvature",
        share: float = 0.5,
        moved_by: Sequence[int] | None = None,
        iterations: int = 10,
        coordinates: bool = True,
        n_parameters: int = 0,
    ) -> None:
        super().__init__()
        sizes = {f"reach[{i}]": edges for i, edges in enumerate(reach)}
        check_positive(
            self.name, in_channels=in_channels, out_channels=out_channels, hidden_channels=hidden_channels, **sizes
        )
        check_positive(self.name, n_layers=n_layers, iterations=iterations)
        if monitor not in TRIANGLE_MONITORS:
            raise ConfigError(f"{self.name}: unknown monitor {monitor!r}{did_you_mean(monitor, TRIANGLE_MONITORS)}")
        if not 0 <= share <= 0.95 or n_parameters < 0 or not reach:
            raise ConfigError(
                f"{self.name}: share is {share}, n_parameters {n_parameters} and reach {list(reach)}; expected a share "
                "in [0, 0.95], 0 or more parameters, and how many edges away the neighbours are, e.g. [1, 2, 4]"
            )
        moved_by = range(in_channels) if moved_by is None else moved_by
        if not moved_by or not set(moved_by) <= set(range(in_channels)):
            raise ConfigError(
                f"{self.name}: moved_by is {list(moved_by)}; expected numbers of input channels, 0 to {in_channels - 1}"
            )
        self.in_channels, self.n_parameters, self.reach = in_channels, n_parameters, tuple(reach)
        self.warp = warp and branches == "both"
        self.monitor, self.share, self.moved_by, self.iterations = monitor, share, list(moved_by), iterations
        self.condition = Condition(n_parameters, False)

        def graph(width: int, branches: str) -> nn.Module:
            return GraphBranches(
                in_channels,
                out_channels,
                dim=2,
                hidden_channels=width,
                n_layers=n_layers,
                conditions=n_parameters,
                coordinates=coordinates,
                branches=branches,
            )

        width = hidden_channels
        if branches == "fixed":
            width = same_size(lambda width: graph(width, "fixed"), lambda: graph(hidden_channels, "both"))
        self.core = graph(width, branches)

    def forward(
        self,
        u: Tensor,
        triangulation: Triangulation,
        *,
        moved: MovedNodes | None = None,
        parameters: Tensor | None = None,
    ) -> Tensor:
        """``(B, out_channels, N)`` of ``u (B, in_channels, N)`` and ``parameters (B, n_parameters)``.

        ``moved``: where the nodes are, instead of where ``move`` puts them: by a learned mover, say, or kept from
        before. No gradients flow into them. Raises ``DataError`` for inputs of another shape, and for moved nodes
        where none move.
        """
        self._check(u, triangulation, moved, parameters)
        transfer = Still()
        if self.warp:
            transfer = self.move(u, triangulation) if moved is None else moved
        fixed = triangulation.tables(u).points.unsqueeze(0)
        connections = [triangle_neighbours(triangulation, reach, u) for reach in self.reach]
        points = transfer.points.to(u) if self.warp else None
        return self.core(u, fixed, points, connections, transfer, self.condition(u, parameters, None))

    @torch.no_grad()
    def move(self, u: Tensor, triangulation: Triangulation) -> MovedNodes:
        """Where the nodes go for ``u (B, in_channels, N)``. ``DataError`` for fields that are not finite."""
        density = TRIANGLE_MONITORS[self.monitor](u[:, self.moved_by], triangulation, share=self.share)
        return MovedNodes.of(relax(density, triangulation, iterations=self.iterations).points, triangulation)

    def _check(
        self, u: Tensor, triangulation: Triangulation, moved: MovedNodes | None, parameters: Tensor | None
    ) -> None:
        if u.ndim != 3 or u.shape[1:] != (self.in_channels, triangulation.n_nodes):
            raise DataError(
                f"{self.name}: u has shape {tuple(u.shape)}; expected (batch, {self.in_channels}, "
                f"{triangulation.n_nodes}), values at the nodes of the triangulation"
            )
        given = None if parameters is None else tuple(parameters.shape)
        if given != ((len(u), self.n_parameters) if self.n_parameters else None):
            raise DataError(
                f"{self.name}: parameters are {'missing' if given is None else f'of shape {given}'}; expected "
                + (f"({len(u)}, {self.n_parameters})" if self.n_parameters else "none: it has n_parameters = 0")
            )
        if moved is None:
            return
        if not self.warp:
            raise DataError(f"{self.name}: moved nodes were given to an operator whose nodes stay; leave them out")
        if moved.points.shape != (len(u), triangulation.n_nodes, 2):
            raise DataError(
                f"{self.name}: the moved nodes have shape {tuple(moved.points.shape)}; expected ({len(u)}, "
                f"{triangulation.n_nodes}, 2)"
            )

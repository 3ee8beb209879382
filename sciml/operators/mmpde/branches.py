"""Two branches of a graph operator: one on fixed nodes, one on moved ones. Nothing here knows of grids."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.operators.mmpde.graph import GraphOperator
from sciml.operators.mmpde.neighbours import Connectivity

BRANCHES = ("both", "fixed")


class Transfer(Protocol):
    """How fields come to the moved nodes and back, ``(B, C, *nodes)`` to ``(B, C, *nodes)``."""

    def there(self, values: Tensor) -> Tensor: ...

    def back(self, values: Tensor) -> Tensor: ...


class GraphBranches(nn.Module):
    """``G_fixed(u) + back(G_moved(there(u)))``: the sum of a graph operator on fixed and one on moved nodes.

    The neighbours of a node stay the same while it moves. The moved branch is told, in the coordinates of its pairs,
    how far each node has moved, the gradient of that (the Jacobian of the map, less the identity) and the logarithm of
    the determinant of the map: what derivatives need that are taken with fixed neighbours.

    Args:
        in_channels, out_channels: of the fields.
        dim: of the space.
        hidden_channels, n_layers: of each branch.
        conditions: length of the vector that it is conditioned on.
        coordinates: whether the nodes are told where they lie.
        branches: one of ``BRANCHES``; "fixed": the graph operator on the fixed nodes alone.

    Raises:
        ConfigError: unknown branches.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dim: int,
        hidden_channels: int,
        n_layers: int,
        conditions: int = 0,
        coordinates: bool = False,
        branches: str = "both",
    ) -> None:
        super().__init__()
        if branches not in BRANCHES:
            raise ConfigError(f"unknown branches {branches!r}{did_you_mean(str(branches), BRANCHES)}")
        self.coordinates = coordinates

        def branch(more: int) -> GraphOperator:
            return GraphOperator(
                in_channels + dim * coordinates + more,
                out_channels,
                dim=dim,
                hidden_channels=hidden_channels,
                n_layers=n_layers,
                conditions=conditions,
            )

        self.fixed = branch(0)
        self.moved = branch(dim + dim * dim + 1) if branches == "both" else None

    def forward(
        self,
        u: Tensor,
        points_fixed: Tensor,
        points_moved: Tensor | None,
        connections: Sequence[Connectivity],
        transfer: Transfer | None,
        condition: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            u: ``(B, in_channels, *nodes)`` at the fixed nodes.
            points_fixed: ``(1, *nodes, d)``.
            points_moved: ``(B, *nodes, d)``, not wrapped; None: nothing has moved.
            connections: of the nodes, taken in turn by the layers.
            transfer: between fixed and moved nodes; None, with ``branches="fixed"`` only: there is none.
            condition: ``(B, conditions)``.

        Returns ``(B, out_channels, *nodes)``.

        Raises:
            DataError: nodes of another number or dimension than the field has.
        """
        if not torch.compiler.is_compiling() and points_fixed.shape[1:-1] != u.shape[2:]:
            raise DataError(
                f"a field of shape {tuple(u.shape)} at nodes of shape {tuple(points_fixed.shape)}; expected nodes "
                f"(1, {', '.join(map(str, u.shape[2:]))}, d)"
            )
        middle, half = extent(points_fixed)
        still = points_fixed.expand(u.shape[0], *points_fixed.shape[1:])

        def inputs(values: Tensor, points: Tensor) -> list[Tensor]:
            place = [((points - middle) / half).to(values.dtype)] if self.coordinates else []
            return [values.movedim(1, -1), *place]

        made = self.fixed(torch.cat(inputs(u, still), -1), condition, connections).movedim(-1, 1)
        if self.moved is None:
            return made
        points = still if points_moved is None else points_moved
        parts = [*inputs(transfer.there(u), points), motion(points_fixed, points_moved, connections[0], u)]
        found = self.moved(torch.cat(parts, -1), condition, connections).movedim(-1, 1)
        return made + transfer.back(found)


def extent(points: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and half length of the nodes' bounding box, each ``(d,)``."""
    low, high = points.flatten(0, -2).amin(0), points.flatten(0, -2).amax(0)
    return (low + high) / 2, (high - low).clamp(min=torch.finfo(points.dtype).tiny) / 2


def motion(fixed: Tensor, moved: Tensor | None, connectivity: Connectivity, like: Tensor) -> Tensor:
    """What the moved branch is told of each node ``(B, *nodes, d + d^2 + 1)``; zeros where nothing has moved."""
    dim = fixed.shape[-1]
    if moved is None:
        return like.new_zeros(like.shape[0], *fixed.shape[1:-1], dim + dim * dim + 1)
    step = (moved - fixed) / connectivity.unit
    slopes = connectivity.gradient(step)
    jacobian = slopes + torch.eye(dim, dtype=slopes.dtype, device=slopes.device)
    # A mesh that is almost folded has a Jacobian near 0, where the logarithm would say more than is known.
    volume = determinant(jacobian).clamp(min=1e-3).log()
    return torch.cat((step, slopes.flatten(-2), volume.unsqueeze(-1)), -1).to(like.dtype)


def determinant(matrices: Tensor) -> Tensor:
    """Of 2 x 2 or 3 x 3 matrices in the last two axes, by the formula."""
    if matrices.shape[-1] == 2:
        return matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]
    x, y, z = matrices.unbind(-1)
    return (torch.linalg.cross(x, y, dim=-1) * z).sum(-1)

"""Graph neural operator layers between particles and a latent lattice [Li et al. 2020, arXiv 2003.03485].

``v(x) = W sum_j w_j gelu(A f_j + B r_j + b) / (sum_j w_j + w_0)`` with ``r_j`` the relative position of ``f_j``, so
that nothing depends on where the scene lies. The window ``w_j`` falls to zero at the ball radius, and ``w_0`` takes a
node whose last particle leaves to zero: the outcome is continuous in the positions, although nodes come and go.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.operators.layers.linear import Linear
from sciml.operators.particles.edges import Edges

FADING = 0.1
"""``w_0``; the windows of an inner node sum to about 10."""


class KernelIntegral(nn.Module):
    """The integral from points with features to other points, over given pairs.

    Args:
        in_channels: of ``f``.
        out_channels: of the outcome, and of the kernel's hidden layer.
        dim: of space.
    """

    def __init__(self, in_channels: int, out_channels: int, dim: int) -> None:
        super().__init__()
        self.feature = Linear(in_channels, out_channels, bias=False)
        self.relative = Linear(dim + 1, out_channels)
        self.out = Linear(out_channels, out_channels, bias=False)

    def forward(self, f: Tensor, edges: Edges, relative: Tensor, window: Tensor) -> Tensor:
        """Features ``(sources, in_channels)`` to ``(receivers, out_channels)``.

        Args:
            f: features of the points that are integrated over.
            edges: from these to the other points.
            relative: displacement of each pair in units of the ball radius ``(pairs, d)``.
            window: weight of each pair ``(pairs, 1)``.
        """
        f = self.feature(f)
        geometry = torch.cat((relative, relative.square().sum(1, keepdim=True)), 1)
        sums = []
        for piece in edges.pieces():
            hidden = f.index_select(0, edges.source[piece.pairs]).add_(self.relative(geometry[piece.pairs]))
            sums.append(piece.to_receivers(F.gelu(hidden) * window[piece.pairs]))
        return self.out(torch.cat(sums) / (edges.to_receivers(window) + FADING))

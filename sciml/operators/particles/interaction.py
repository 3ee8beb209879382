"""The interaction layer of GNS and GIOROM: pairs of particles send messages, particles collect their mean.

Battaglia et al. 2016 (interaction networks), as used by Sanchez-Gonzalez et al. 2020 (GNS): both updates are networks
with two hidden layers and a layer norm, added to what they update. The mean instead of the sum keeps a message's weight
when the cloud is sampled more densely (GIOROM, Viswanath et al. 2024).
"""

import itertools

import torch
from torch import Tensor, nn

from sciml.operators.layers.linear import Linear
from sciml.operators.particles.edges import PIECE, Edges


class MLP(nn.Sequential):
    """``n_hidden`` hidden layers with ReLU, then a linear one, then a layer norm if wanted."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, *, n_hidden: int = 2, norm: bool = True
    ) -> None:
        widths = [in_channels, *[hidden_channels] * n_hidden, out_channels]
        layers: list[nn.Module] = []
        for first, second in itertools.pairwise(widths):
            layers += [Linear(first, second), nn.ReLU(inplace=True)]
        layers[-1:] = [nn.LayerNorm(out_channels)] if norm else []
        super().__init__(*layers)

    def piecewise(self, x: Tensor) -> Tensor:
        """The same, some rows at a time where no gradient is wanted."""
        if torch.is_grad_enabled() or len(x) <= PIECE:
            return self(x)
        first = self(x[:PIECE])
        found = first.new_empty(len(x), first.shape[1])  # not torch.cat, which would hold everything twice
        found[:PIECE] = first
        for start in range(PIECE, len(x), PIECE):
            found[start : start + PIECE] = self(x[start : start + PIECE])
        return found


class InteractionLayer(nn.Module):
    """``e_ij += M(x_j, x_i, e_ij)``, then ``x_i += U(x_i, mean_j M(x_j, x_i, e_ij))`` for pairs from j to i.

    The first linear map of ``M`` is a sum of three, two of which are of particles: they are computed per particle, and
    the concatenation ``(E, 3 h)`` is never made. A particle without neighbours collects zero.

    Args:
        channels: of particles and pairs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ends = Linear(channels, 2 * channels, bias=False)
        self.pair = Linear(channels, channels)
        self.message = nn.Sequential(nn.ReLU(inplace=True), MLP(channels, channels, channels, n_hidden=1))
        self.node = Linear(2 * channels, channels)
        self.update = nn.Sequential(nn.ReLU(inplace=True), MLP(channels, channels, channels, n_hidden=1))

    def forward(self, x: Tensor, e: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """Particles ``x (N, channels)`` and pairs ``e (E, channels)``; without gradients ``e`` is updated in place."""
        ends = torch.cat(self.ends(x).chunk(2, 1))  # (2 N, channels): as sources, as receivers
        collected = []
        for piece in edges.pieces():
            part = e[piece.pairs]
            messages = self.message(piece.both_ends(ends).add_(self.pair(part)))
            collected.append(piece.to_receivers(messages))
            if torch.is_grad_enabled():
                e = part + messages
            else:
                part.add_(messages)
        mean = torch.cat(collected) / edges.degree
        return x + self.update(self.node(torch.cat((x, mean), 1))), e


def interact(layers: nn.ModuleList, x: Tensor, e: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
    """Particles and pairs after all layers."""
    for layer in layers:
        x, e = layer(x, e, edges)
    return x, e

"""A graph operator on fixed nodes: encode, layers of messages, decode."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sciml.operators.layers.linear import Linear
from sciml.operators.mmpde.neighbours import Connectivity

FILTER = 16
"""Hidden width of the network from where a neighbour lies to the filter of its messages."""
GAIN = 16.0
"""Of the filter of differences, which is then about 3 before training."""


class MessageLayer(nn.Module):
    """``x_i += LN(U(x_i, mean_j relu(R y_i + f(e_ij) * S (y_j - y_i) + g(e_ij))))``, y being x and the node's inputs.

    The interaction layer of GNS [Sanchez-Gonzalez et al. 2020] and MP-PDE [Brandstetter et al. 2022, arXiv:2202.03376]
    without a state of the pairs, in an order that spares all products of matrices at pairs:

    - a message is a perceptron with one hidden layer. Its first map is a sum of maps of the two nodes (R, S) and of
      where they lie (g), so that is computed per node; differences of the nodes' inputs (of the field, of what the
      nodes have moved) are among S (y_j - y_i). Its last map commutes with the mean, and is that of U.
    - differences are scaled by a filter of where the sender lies (f), as in continuous-filter convolutions [Schuett et
      al. 2017, SchNet], so that a message can be a derivative along a direction. Neighbours differ little where a field
      is smooth: the filter starts large (``GAIN``), without which layers long stay functions of each node alone.

    Args:
        channels: of the nodes.
        inputs: of the nodes' inputs, which every layer sees.
        dim: of the features e_ij.
        conditions: length of the vector that shifts the hidden layer of U; 0 for none.
    """

    def __init__(self, channels: int, inputs: int, dim: int, conditions: int) -> None:
        super().__init__()
        self.receive = Linear(channels + inputs, channels, bias=False)
        self.send = Linear(channels + inputs, channels, bias=False)
        self.filter = nn.Sequential(nn.Linear(dim, FILTER), nn.GELU(), nn.Linear(FILTER, 2 * channels))
        self.node = Linear(2 * channels, channels)
        self.condition = nn.Linear(conditions, channels, bias=False) if conditions else None
        self.update = nn.Sequential(nn.GELU(), Linear(channels, channels), nn.LayerNorm(channels))

    def forward(self, x: Tensor, inputs: Tensor, condition: Tensor | None, connectivity: Connectivity) -> Tensor:
        """``x (B, *nodes, channels)``, ``inputs (B, *nodes, inputs)``, ``condition (B, conditions)``."""
        y = torch.cat((x, inputs), -1)
        scale, shift = self.filter(connectivity.features).chunk(2, -1)
        mean = connectivity.mean_of_messages(self.receive(y), self.send(y), GAIN * scale, shift)
        hidden = self.node(torch.cat((x, mean), -1))
        if self.condition is not None:
            hidden = hidden + spread(self.condition(condition), hidden)
        return x + self.update(hidden)


class GraphOperator(nn.Module):
    """From inputs at the nodes ``(B, *nodes, in_channels)`` to outputs ``(B, *nodes, out_channels)``.

    Args:
        in_channels, out_channels: of the nodes.
        dim: of the space that they lie in.
        hidden_channels, n_layers: of the layers of messages.
        conditions: length of the vector that every layer is conditioned on.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dim: int, hidden_channels: int, n_layers: int, conditions: int
    ) -> None:
        super().__init__()
        width = hidden_channels
        self.encode = nn.Sequential(Linear(in_channels, width), nn.GELU(), Linear(width, width))
        self.layers = nn.ModuleList(MessageLayer(width, in_channels, dim, conditions) for _ in range(n_layers))
        self.decode = nn.Sequential(Linear(width, width), nn.GELU(), Linear(width, out_channels))
        with torch.no_grad():  # near 0, the mean of the data, before training
            self.decode[-1].weight.mul_(0.01)
            self.decode[-1].bias.zero_()

    def forward(self, inputs: Tensor, condition: Tensor | None, connections: Sequence[Connectivity]) -> Tensor:
        """``connections`` are taken in turn by the layers."""
        x = self.encode(inputs)
        for index, layer in enumerate(self.layers):
            x = layer(x, inputs, condition, connections[index % len(connections)])
        return self.decode(x)


def spread(rows: Tensor, like: Tensor) -> Tensor:
    """``(B, c)`` as ``(B, 1, ..., 1, c)``, to be added to ``like (B, *nodes, c)``."""
    return rows.reshape(rows.shape[0], *[1] * (like.ndim - 2), -1)

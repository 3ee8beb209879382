"""Deep operator network on grids."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError
from sciml.operators.layers.perceptron import perceptron
from sciml.operators.sensors import SensorOperator
from sciml.operators.stored import check_positive


class DeepONet(SensorOperator):
    """``u_c(y) = sum_k b_ck(field, parameters) t_ck(y) + b_c`` [Lu et al. 2021, arXiv:1910.03193].

    The branch b is a perceptron of the input field at fixed sensors, the parameters and the time; the trunk t
    is a perceptron of the coordinates y in (-1, 1).

    Args:
        n_sensors: sensors per axis; its length is the number of grid axes.
        n_basis: products that are summed, per output channel.
        n_layers: linear layers in the branch and in the trunk.

    Shapes: as of every ``SensorOperator``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape.
    """

    name = "deeponet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        n_parameters: int = 0,
        time_conditioning: bool = False,
        hidden_channels: int = 128,
        n_layers: int = 4,
        n_basis: int = 64,
        n_sensors: Sequence[int] = (16, 16),
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            n_parameters=n_parameters,
            time_conditioning=time_conditioning,
            n_sensors=n_sensors,
        )
        check_positive("deeponet", hidden_channels=hidden_channels, n_basis=n_basis)
        if n_layers < 2:
            raise ConfigError(f"deeponet: n_layers is {n_layers}; expected 2 or more")
        self.n_basis = n_basis
        hidden = [hidden_channels] * (n_layers - 1)
        self.branch = perceptron([self.n_sensed, *hidden, out_channels * n_basis])
        self.trunk = perceptron([self.dim, *hidden, out_channels * n_basis])
        self.bias = nn.Parameter(torch.zeros(out_channels, 1))

    def at_points(self, sensed: Tensor, points: Tensor) -> Tensor:
        branch = self.branch(sensed).unflatten(1, (self.out_channels, self.n_basis))
        trunk = self.trunk(points).unflatten(-1, (self.out_channels, self.n_basis))
        # 1/sqrt(n_basis): a sum of n_basis independent products of order one stays of order one.
        branch = branch * self.n_basis**-0.5
        return torch.einsum("bck,nck->bcn" if points.ndim == 2 else "bck,bnck->bcn", branch, trunk) + self.bias

"""Deep operator network on grids."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.errors import ConfigError, DataError
from sciml.operators.base import Operator
from sciml.operators.layers.condition import Condition
from sciml.operators.layers.coordinates import cell_coordinates
from sciml.operators.stored import check_positive


class DeepONet(Operator):
    """``u_c(y) = sum_k b_ck(field, parameters) t_ck(y) + b_c`` [Lu et al. 2021, arXiv:1910.03193].

    The branch b is a perceptron of the input field at fixed sensors, the parameters and the time; the trunk t
    is a perceptron of the coordinates y in (-1, 1). The sensors are the cells of a coarse grid: the input is
    averaged over each of them (``adaptive_avg_pool``), so that one network takes any resolution. On a grid
    with fewer cells than sensors a cell serves several.

    Args:
        n_sensors: sensors per axis; its length is the number of grid axes.
        n_basis: products that are summed, per output channel.
        n_layers: linear layers in the branch and in the trunk.

    Shapes: ``x (B, in_channels, *grid)``, ``parameters (B, n_parameters)``, ``time (B,)`` to
    ``(B, out_channels, *grid)``, or, with ``coordinates`` ``(N, dim)`` or ``(B, N, dim)``, to
    ``(B, out_channels, N)``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape.
    """

    name = "deeponet"

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Sensors for each axis."""
        return {"n_sensors": [{1: 64, 2: 16, 3: 8}[dim]] * dim}

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
            dim=len(n_sensors),
            n_parameters=n_parameters,
            time_conditioning=time_conditioning,
        )
        check_positive("deeponet", hidden_channels=hidden_channels, n_basis=n_basis)
        check_positive("deeponet", **{f"n_sensors[{i}]": n for i, n in enumerate(n_sensors)})
        if n_layers < 2:
            raise ConfigError(f"deeponet: n_layers is {n_layers}; expected 2 or more")
        self.n_basis = n_basis
        self.n_sensors = tuple(n_sensors)
        self.condition = Condition(n_parameters, time_conditioning)
        hidden = [hidden_channels] * (n_layers - 1)
        features = in_channels * math.prod(n_sensors) + self.condition.features
        self.branch = perceptron([features, *hidden, out_channels * n_basis])
        self.trunk = perceptron([self.dim, *hidden, out_channels * n_basis])
        self.bias = nn.Parameter(torch.zeros(out_channels, 1))

    def forward(
        self,
        x: Tensor,
        *,
        time: Tensor | None = None,
        parameters: Tensor | None = None,
        coordinates: Tensor | None = None,
    ) -> Tensor:
        self.check_input(x, parameters, time)
        batch, _, *grid = x.shape
        condition = self.condition(x, parameters, time)
        # "area" is adaptive_avg_pool in one to three dimensions.
        sensors = F.interpolate(x, size=self.n_sensors, mode="area").flatten(1)
        if condition is not None:
            sensors = torch.cat([sensors, condition], dim=1)
        branch = self.branch(sensors).unflatten(1, (self.out_channels, self.n_basis))

        if coordinates is None:
            points = cell_coordinates(grid, like=x)[0].flatten(1).mT
        else:
            points = self._check_coordinates(coordinates, batch)
        trunk = self.trunk(points).unflatten(-1, (self.out_channels, self.n_basis))
        # 1/sqrt(n_basis): a sum of n_basis independent products of order one stays of order one.
        branch = branch * self.n_basis**-0.5
        u = torch.einsum("bck,nck->bcn" if points.ndim == 2 else "bck,bnck->bcn", branch, trunk) + self.bias
        return u.unflatten(2, grid) if coordinates is None else u

    def _check_coordinates(self, coordinates: Tensor, batch: int) -> Tensor:
        *leading, _, dim = (batch, *coordinates.shape) if coordinates.ndim == 2 else coordinates.shape
        if leading != [batch] or dim != self.dim:
            raise DataError(
                f"deeponet: coordinates have shape {tuple(coordinates.shape)}; "
                f"expected (N, {self.dim}) or ({batch}, N, {self.dim})"
            )
        return coordinates


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given widths with GELU between them."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        layers += [nn.GELU()] if i else []
        layers.append(nn.Linear(fan_in, fan_out))
    return nn.Sequential(*layers)

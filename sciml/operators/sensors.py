"""Operators that read a field at fixed sensors and give fields at any points."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.errors import DataError
from sciml.operators.base import Operator
from sciml.operators.layers.condition import Condition
from sciml.operators.layers.coordinates import cell_coordinates
from sciml.operators.stored import check_positive


class SensorOperator(Operator):
    """``u(y) = at_points(sensed, y)``: one vector of the input, and points y with coordinates in (-1, 1).

    The sensors are the cells of a coarse grid: the input is averaged over each of them (``adaptive_avg_pool``), so that
    one network takes any resolution. On a grid with fewer cells than sensors a cell serves several. The parameters and
    the time follow the sensors in the same vector.

    A subclass defines ``at_points``.

    Args:
        n_sensors: sensors per axis; its length is the number of grid axes.

    Shapes: ``x (B, in_channels, *grid)``, ``parameters (B, n_parameters)``, ``time (B,)`` to
    ``(B, out_channels, *grid)``, or, with ``coordinates`` ``(N, dim)`` or ``(B, N, dim)``, to
    ``(B, out_channels, N)``.

    Raises:
        ConfigError: an argument is out of range.
        DataError: an input has another shape.
    """

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Sensors for each axis."""
        return {"n_sensors": [{1: 64, 2: 16, 3: 8}[dim]] * dim}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        n_parameters: int,
        time_conditioning: bool,
        n_sensors: Sequence[int],
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            dim=len(n_sensors),
            n_parameters=n_parameters,
            time_conditioning=time_conditioning,
        )
        check_positive(self.name, **{f"n_sensors[{i}]": n for i, n in enumerate(n_sensors)})
        self.n_sensors = tuple(n_sensors)
        self.condition = Condition(n_parameters, time_conditioning)
        self.n_sensed = in_channels * math.prod(n_sensors) + self.condition.features
        """Length of the vector that ``at_points`` is given."""

    @abstractmethod
    def at_points(self, sensed: Tensor, points: Tensor) -> Tensor:
        """``sensed (B, n_sensed)``, ``points (N, dim)`` or ``(B, N, dim)`` to ``(B, out_channels, N)``."""

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
        sensed = F.interpolate(x, size=self.n_sensors, mode="area").flatten(1)
        if condition is not None:
            sensed = torch.cat([sensed, condition], dim=1)
        if coordinates is not None:
            return self.at_points(sensed, self._check_coordinates(coordinates, batch))
        points = cell_coordinates(grid, like=x)[0].flatten(1).mT
        return self.at_points(sensed, points).unflatten(2, grid)

    def _check_coordinates(self, coordinates: Tensor, batch: int) -> Tensor:
        *leading, _, dim = (batch, *coordinates.shape) if coordinates.ndim == 2 else coordinates.shape
        if leading != [batch] or dim != self.dim:
            raise DataError(
                f"{self.name}: coordinates have shape {tuple(coordinates.shape)}; "
                f"expected (N, {self.dim}) or ({batch}, N, {self.dim})"
            )
        return coordinates

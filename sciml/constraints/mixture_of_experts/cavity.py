"""Steady incompressible flow in a box with sliding walls, by its stream function at the nodes of the MAC grid.

u = dpsi/dy, v = -dpsi/dx, differenced so that the face velocities are free of divergence to round-off; psi = 0 on the
walls, so that nothing leaks. The residual is the discrete curl, at the nodes inside, of the steady momentum equation of
``sciml.physics.momentum_residual``:

    curl_h( div(u u) - nu lap u ),

from which the pressure drops out exactly. Products of interpolated velocities are differenced there; taken at every
node of the stencil by itself they are pointwise in shifted terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.constraints.mixture_of_experts.equation import Equation, column, face_pair, fold, repeat
from sciml.errors import ConfigError
from sciml.physics import Grid, MovingWall, Wall, boundary_values, box, faces_to_centres, laplacian, metrics
from sciml.physics.stencils import difference, midpoint, to_nodes

SHIFTS = ((1, 0), (0, 1), (0, 0), (0, -1), (-1, 0))
"""Nodes of the stencil of the cross flux, in the order of the terms."""


class CavityOnTiles(Equation):
    """Steady flow between walls that slide in their planes.

    ``shape``: cells ``(nx, ny)``; fields are stream functions at the ``(nx - 1, ny - 1)`` nodes inside. ``lengths (B,
    2)``, ``viscosity (B,)`` kinematic, ``speed (B,)`` the unit of velocity; ``boundaries`` gives the sides (``Wall``,
    ``MovingWall``) for wall speeds times a factor ``(B,)``. Raises ``ConfigError`` for fewer than four cells.
    """

    name: ClassVar[str] = "cavity"

    def __init__(
        self,
        shape: Sequence[int],
        lengths: Tensor,
        viscosity: Tensor,
        speed: Tensor,
        boundaries: Mapping[str, Wall | MovingWall],
    ) -> None:
        if len(shape) != 2 or min(shape) < 4:
            raise ConfigError(f"the cavity has {tuple(shape)} cells; at least four along each of two axes are needed")
        self.cells = tuple(int(n) for n in shape)
        self.lengths, self.viscosity = lengths.double(), viscosity.double()
        self.speed, self.boundaries = speed.to(self.lengths), dict(boundaries)
        self.shape = self.row_shape = tuple(n - 1 for n in self.cells)
        self.periodic = (False, False)
        self.scale = self.speed * self.lengths.amin(1)
        self.offset = self.lengths.new_zeros(len(self.lengths), *self.shape)
        self.spacing = self.lengths / torch.tensor(self.cells).to(self.lengths)
        hx, hy = (column(h, 3) for h in self.spacing.unbind(1))
        self.coefficients = (hx, hy, column((self.lengths.amin(1) / self.speed) ** 2, 3))

    def _grid(self, count: int) -> Grid:
        return box(self.cells, repeat(self.lengths, count))

    def _values(self, grid: Grid, count: int, homogeneous: bool) -> Any:
        sides: dict[str, Any] = {}
        for name, side in self.boundaries.items():
            sides[name] = Wall() if homogeneous else side
            if isinstance(sides[name], MovingWall):
                entries = [repeat(v, count) if isinstance(v, Tensor) and v.ndim == 1 else v for v in side.velocity]
                sides[name] = MovingWall(tuple(entries))
        return boundary_values(grid, sides, dtype=torch.float64, device=self.lengths.device)

    def _velocity(self, stream: Tensor, spacing: Tensor) -> tuple[Tensor, Tensor]:
        """Face velocities of stream functions ``(B, nx - 1, ny - 1)``."""
        nodes = F.pad(stream, (1, 1, 1, 1))
        hx, hy = (column(h, 3) for h in spacing.unbind(1))
        return difference(nodes, 2) / hy, -difference(nodes, 1) / hx

    def terms(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, ...]:
        """u at four cells, v at four cells, u at five nodes, v at five nodes, and curl(nu lap u)."""
        batch, count = field.shape[:2]
        grid = self._grid(count)
        metric = metrics(grid, dtype=torch.float64, device=field.device)
        values = self._values(grid, count, homogeneous)
        velocity = self._velocity(fold(field), repeat(self.spacing, count))
        result: list[Tensor] = []
        for i, u in enumerate(velocity):
            centre = midpoint(u, i + 1)
            result += [_corner(centre, a, b) for a in (0, 1) for b in (0, 1)]
        for i, u in enumerate(velocity):
            node = to_nodes(u, metric[1 - i], values.slabs[i][1 - i])
            result += [_node(node, a, b) for a, b in SHIFTS]
        diffusion = laplacian(velocity, metric, values)
        hx, hy = (column(repeat(h, count), 3) for h in self.spacing.unbind(1))
        curl = difference(diffusion[0], 2) / hy - difference(diffusion[1], 1) / hx
        result.append(column(repeat(self.viscosity, count), 3) * curl)
        return tuple(term.unflatten(0, (batch, count)) for term in result)

    def function(self, values: Sequence[Tensor], coefficients: Sequence[Tensor]) -> Tensor:
        hx, hy, scale = coefficients
        # q = u^2 - v^2 at the four cells around the node, f = u v at the node and its neighbours
        q = [u * u - v * v for u, v in zip(values[:4], values[4:8], strict=True)]
        east, north, here, south, west = (u * v for u, v in zip(values[8:13], values[13:18], strict=True))
        normal = (q[3] - q[1] - q[2] + q[0]) / (hx * hy)
        cross = (north - 2 * here + south) / hy**2 - (east - 2 * here + west) / hx**2
        return scale * (normal + cross - values[18])

    def quantities(self, axis: int) -> int:
        return 4

    def traces(self, field: Tensor, axis: int, positions: Sequence[int]) -> Tensor:
        """Stream function and vorticity, each with its normal derivative: the equation is of fourth order."""
        unit = self.lengths.amin(1)
        hx, hy = (column(h, 4) for h in self.spacing.unbind(1))
        nodes = F.pad(field, (1, 1, 1, 1))
        vorticity = -(nodes[:, :, 1:-1].diff(n=2, dim=3) / hy**2 + nodes[:, :, :, 1:-1].diff(n=2, dim=2) / hx**2)
        parts = []
        for values, scale in ((field, self.scale), (vorticity, self.speed / unit)):
            mean, change = face_pair(values, axis, positions)
            slope = change * column(unit / self.spacing[:, axis], 4)
            parts += [mean / column(scale, 4), slope / column(scale, 4)]
        return torch.stack(parts, 2)

    def conditions(self, field: Tensor, *, homogeneous: bool) -> tuple[Tensor, Tensor]:
        """The speed of the fluid along each wall, by a parabola through the wall and two nodes, is the wall's."""
        numbers = torch.arange(self.offset[0].numel(), device=field.device).reshape(self.row_shape)
        values = self._values(self._grid(1), 1, homogeneous)
        rows, places = [], []
        for axis in (0, 1):
            sign = -1.0 if axis == 0 else 1.0  # v = -dpsi/dx, u = dpsi/dy
            for end, (i, j) in enumerate(((0, 1), (-1, -2))):
                inward = (2 * field.select(axis + 2, i) - 0.5 * field.select(axis + 2, j)) / column(
                    self.spacing[:, axis], 3
                )
                along = sign * (inward if end == 0 else -inward)
                slab = values.slabs[1 - axis][axis][end].select(axis + 1, 0)[:, None, 1:-1]
                rows.append((along - slab) / column(self.speed, 3))
                places.append(numbers.select(axis, i))
        return torch.cat(rows, 2), torch.cat(places)

    def trajectory(self, field: Tensor) -> dict[str, Tensor]:
        """``velocity (B, 1, 2, nx, ny)``, its face velocities and ``time (B, 1)``, without a pressure."""
        faces = self._velocity(field, self.spacing)
        metric = metrics(self._grid(1), dtype=field.dtype, device=field.device)
        return {
            "velocity": faces_to_centres(faces, metric).unsqueeze(1),
            "face_velocity_x": faces[0].unsqueeze(1),
            "face_velocity_y": faces[1].unsqueeze(1),
            "time": torch.zeros(len(field), 1, dtype=torch.float64, device=field.device),
        }


def _corner(centre: Tensor, a: int, b: int) -> Tensor:
    """The cell (i - 1 + a, j - 1 + b) of every inner node (i, j), from cells ``(B, nx, ny)``."""
    nx, ny = centre.shape[1:]
    return centre[:, a : nx - 1 + a, b : ny - 1 + b]


def _node(node: Tensor, a: int, b: int) -> Tensor:
    """The node (i + a, j + b) of every inner node (i, j), from all nodes ``(B, nx + 1, ny + 1)``."""
    nx, ny = node.shape[1] - 1, node.shape[2] - 1
    return node[:, 1 + a : nx + a, 1 + b : ny + b]

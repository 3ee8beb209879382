"""Transfers between particles and grid: quadratic B-splines and affine velocities (APIC, MLS-MPM).

Jiang et al., ACM TOG 34 (2015) 51; Hu et al., ACM TOG 37 (2018) 150. The grid lies half a cell off the walls:
nodes at lower - 3/2, -1/2, 1/2, 3/2, ... cells. The nodes up to half a cell inside a wall carry its condition (see
``walls``), so every other node has its whole support inside the box, and the normal velocity falls to zero at the
wall: particles stay in the box and a column at rest stays exactly where it is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError

OFFSET = 1.5  # cells from the first node to the wall
CHUNK = 250_000  # stencil nodes of one transfer on CPU: larger temporaries fall out of its cache


@dataclass(frozen=True, eq=False)
class MPMGrid:
    """Nodes around a box of ``cells`` cells; ``nodes`` = cells + 4 along each axis, flat in C order.

    ``origin`` ``(d, 1)``: position of node 0; ``strides``: node numbers per step along each axis; ``offsets``
    ``(3^d, 1)``: node number of each stencil node less that of the first.
    """

    cells: tuple[int, ...]
    cell: float
    origin: Tensor
    offsets: Tensor

    @staticmethod
    def of_box(
        lower: tuple[float, ...], upper: tuple[float, ...], cell: float, dtype: torch.dtype, device: torch.device
    ) -> MPMGrid:
        """The grid of a box; ConfigError unless the box is a whole number (at least 4) of cells along every axis."""
        cells = []
        for k, (low, high) in enumerate(zip(lower, upper, strict=True)):
            n = (high - low) / cell
            if not math.isfinite(n) or abs(n - round(n)) > 1e-6 * max(n, 1) or round(n) < 4:
                raise ConfigError(
                    f"axis {k} of the box is {high - low:g} m long, which is {n:g} cells of {cell:g} m; "
                    f"it must be a whole number of cells, at least 4"
                )
            cells.append(round(n))
        origin = torch.tensor(lower, dtype=torch.float64)[:, None] - OFFSET * cell
        nodes = [n + 4 for n in cells]
        strides = [math.prod(nodes[k + 1 :]) for k in range(len(nodes))]
        steps = itertools.product(range(3), repeat=len(nodes))
        offsets = [sum(a * s for a, s in zip(step, strides, strict=True)) for step in steps]
        return MPMGrid(
            tuple(cells),
            cell,
            origin.to(device, dtype),
            torch.tensor(offsets, dtype=torch.int64, device=device)[:, None],
        )

    @property
    def dim(self) -> int:
        return len(self.cells)

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(n + 4 for n in self.cells)

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(math.prod(self.nodes[k + 1 :]) for k in range(self.dim))

    @property
    def size(self) -> int:
        """Number of nodes of one scene."""
        return math.prod(self.nodes)

    def node_positions(self) -> Tensor:
        """``(size, d)`` in metres."""
        axes = [
            self.origin[k] + self.cell * torch.arange(n, dtype=self.origin.dtype, device=self.origin.device)
            for k, n in enumerate(self.nodes)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dim)


@dataclass(frozen=True, eq=False)
class Stencil:
    """The 3^d nodes of every particle.

    ``index`` ``(3^d P,)`` into the nodes of all scenes; ``weights`` ``(3, d, P)`` and ``distance`` ``(3, d, P)``
    (node less particle, in metres) along each axis: the weight of a node is the product of its axes.
    """

    index: Tensor
    weights: Tensor
    distance: Tensor
    cell: float

    def product_weights(self) -> Tensor:
        """``(3,) * d + (P,)``."""
        total = self.weights[:, 0]
        for axis in range(1, self.weights.shape[1]):
            total = total.unsqueeze(-2) * self.weights[:, axis]
        return total


def stencil(position: Tensor, grid: MPMGrid, scene_offset: Tensor | None, total: int) -> Stencil:
    """Stencils of particles at ``(d, P)``.

    ``scene_offset`` ``(P,)``: first node of each particle's scene (None: one scene); ``total``: nodes of all
    scenes. Particles outside the box (or NaN) read and write wrong nodes but no foreign memory; the solver
    finds them afterwards.
    """
    x = (position - grid.origin) / grid.cell
    base = (x - 0.5).floor()
    f = x - base
    weights = torch.stack([0.5 * (1.5 - f) ** 2, 0.75 - (f - 1) ** 2, 0.5 * (f - 0.5) ** 2])
    distance = torch.stack([-f, 1 - f, 2 - f]) * grid.cell
    whole = base.detach().long()
    first = whole[-1]
    for axis in range(grid.dim - 1):
        first = first + grid.strides[axis] * whole[axis]
    if scene_offset is not None:
        first = first + scene_offset
    first = first.clamp(0, total - 1 - 2 * sum(grid.strides))
    return Stencil((first + grid.offsets).view(-1), weights, distance, grid.cell)


def chunks(x: Tensor) -> list[slice]:
    """Ranges of particles to transfer together, of positions ``(d, P)``."""
    count = x.shape[-1]
    size = CHUNK // 3 ** len(x) if x.device.type == "cpu" else count
    return [slice(k, min(k + size, count)) for k in range(0, count, size)]


def add_to_grid(at: Stencil, value: Tensor, slope: Tensor, nodes: Tensor) -> None:
    """Add sum_p w_ip (q_p + A_p (x_i - x_p)) to the nodes ``(k, total)``, from q ``(k, P)`` and A ``(k, d, P)``."""
    k, p = value.shape
    for axis in range(slope.shape[1]):
        ones = (1,) * axis
        part = (slope[:, axis, None] * at.distance[:, axis]).view(k, *ones, 3, p)
        value = value.unsqueeze(-2) + part
    value = value * at.product_weights()
    nodes.index_add_(1, at.index, value.view(k, -1))


def interpolate(at: Stencil, field: Tensor) -> Tensor:
    """sum_i w_ip f_i ``(P,)`` of nodes ``(total,)``."""
    weights = at.product_weights()
    return (field[at.index].view_as(weights) * weights).view(-1, weights.shape[-1]).sum(0)


def to_particles(at: Stencil, field: Tensor) -> tuple[Tensor, Tensor]:
    """sum_i w_ip f_i ``(k, P)`` and (4 / cell^2) sum_i w_ip f_i (x_i - x_p)^T ``(k, d, P)``, from ``(k, total)``.

    Contracted axis by axis: the weights and distances are products and sums of one-dimensional ones.
    """
    k, d, p = len(field), at.weights.shape[1], at.weights.shape[2]
    # Row 0 is summed with weights alone; every later row with one distance, of the axes already contracted.
    rows = field.index_select(1, at.index).view(1, k, *(3,) * d, p)
    for axis in reversed(range(d)):
        low, mid, high = rows.unbind(-2)
        w = at.weights[:, axis]
        low, mid, high = low * w[0], mid * w[1], high * w[2]
        plain = low + mid + high
        x = at.distance[:, axis]
        moment = low[:1] * x[0] + mid[:1] * x[1] + high[:1] * x[2]
        rows = torch.cat([plain[:1], moment, plain[1:]])
    return rows[0], rows[1:].transpose(0, 1) * (4 / at.cell**2)

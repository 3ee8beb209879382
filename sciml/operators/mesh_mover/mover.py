"""A learned solver of the Monge-Ampère equation: from a monitor function to the mesh that equidistributes it.

Budd and Williams (SIAM J. Sci. Comput. 31 (2009) 3438) find the mesh x = xi + grad phi with m(x) det(dx/dxi) = const
by iteration. Here few stages do it: each measures how far every cell is from its share, r = log(m |cell|) - log of the
mean, and corrects the source of phi by -g r + N(r, log m at x, log m at xi, log |cell|, source), N a small network,
trained on sum r^2 alone: no mesh was ever needed. It sees monitors and not fields, so that it serves any field, and all
its features are free of scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.constraints.mesh_mover import (
    MONITORS,
    Box,
    cell_volumes,
    centres_of,
    check_monitor,
    monge_ampere,
    sample,
    unfolded,
)
from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.operators.mesh_mover.cloud import CloudReader, check_cloud, cloud_grid
from sciml.operators.mesh_mover.series import Series, series
from sciml.operators.mesh_mover.stage import LEVELS, Stage
from sciml.operators.stored import Stored, check_positive

SMALLEST = 0.02
"""Of a cell over the uniform one: smaller ones count as this in r, whose logarithm needs a bound."""
FEATURES = 5


@dataclass(frozen=True)
class LearnedMesh:
    """A mesh and what was done to keep it valid.

    Attributes:
        corners: ``(B, *(n + 1), d)`` metres.
        scale: 1 where the mesh is the network's own; less where it was scaled back towards the uniform one ``(B,)``.
    """

    corners: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Imbalance:
    """How uneven the cells of an intermediate mesh are: r ``(B, *n)``, and the corners ``(B, *(n + 1), d)``."""

    residual: Tensor
    corners: Tensor


class MeshMover(Stored):
    """Meshes for batches of monitors on grids of any size, in boxes of any shape, with walls or periodic axes.

    Args:
        dim: 2 or 3.
        cells: along the longest side, of the grid that the network works on; meshes may have more or fewer.
        n_stages: corrections.
        hidden_channels: of each stage's network.

    Raises:
        ConfigError: an argument out of range.
    """

    name: ClassVar[str] = "mesh_mover"

    def __init__(self, dim: int = 2, *, cells: int = 48, n_stages: int = 4, hidden_channels: int = 16) -> None:
        super().__init__()
        check_positive(self.name, cells=cells, n_stages=n_stages, hidden_channels=hidden_channels)
        if dim not in (2, 3):
            raise ConfigError(f"mesh_mover: dim is {dim!r}; meshes move in 2 or 3 dimensions")
        if cells % 2**LEVELS or cells < 4 * 2**LEVELS:
            raise ConfigError(f"mesh_mover: cells is {cells}; expected a multiple of {2**LEVELS}, at least 16")
        self.dim, self.cells = dim, cells
        self.stages = nn.ModuleList(Stage(dim, FEATURES, hidden_channels) for _ in range(n_stages))
        self.gains = nn.Parameter(torch.full((n_stages,), 0.5))

    def forward(
        self, monitor: Tensor, box: Box, cells: Sequence[int] | None = None, *, least: float = 0.05, polish: int = 0
    ) -> LearnedMesh:
        """The mesh of ``cells`` cells (default: those of the monitor) for each sample.

        Args:
            monitor: positive, cell-centred values ``(B, *n)`` on any grid of the box.
            least: no corner Jacobian is below this share of the uniform one; see ``unfolded``.
            polish: iterations of the classical solver that follow (no gradient flows through them).

        Differentiable in the monitor. Raises ``DataError`` for a monitor that is not positive and finite or too rough,
        ``ConfigError`` for a box of another dimension.
        """
        self._check(monitor, box)
        cells = box.checked_cells(tuple(monitor.shape[1:]) if cells is None else cells)
        unit, scale = self.unit_box(box), max(box.lengths)
        source = self.sources(self.resampled(monitor, unit), unit)
        basis = self.series(unit, source)
        coefficients = basis.coefficients(source)
        if polish:
            start = basis.potential(coefficients, cells)
            corners = monge_ampere(
                monitor, cells, unit, iterations=polish, start=start.detach(), on_failure="ignore"
            ).corners
        else:
            corners = basis.corners(coefficients, cells)
        corners, share = unfolded(corners * scale, box, least)
        return LearnedMesh(corners, share)

    def move(
        self,
        u: Tensor,
        box: Box,
        cells: Sequence[int] | None = None,
        *,
        monitor: str | Callable[[Tensor, Box], Tensor] = "curvature",
        least: float = 0.05,
        polish: int = 0,
        **options: Any,
    ) -> LearnedMesh:
        """The mesh for a cell-centred field ``u (B, C, *n)``; ``options`` are the monitor's (share, smoothing)."""
        if isinstance(monitor, str):
            if monitor not in MONITORS:
                raise ConfigError(f"unknown monitor {monitor!r}{did_you_mean(monitor, MONITORS)}")
            monitor = MONITORS[monitor]
        return self(monitor(u, box, **options), box, cells, least=least, polish=polish)

    def move_cloud(
        self, u: Tensor, points: Tensor, box: Box, cells: Sequence[int] | None = None, **options: Any
    ) -> LearnedMesh:
        """The mesh for a field ``u (B, C, N)`` at scattered ``points (N, d)``, metres, of the box.

        The field is brought to a grid of about as many cells by moving least squares (``CloudReader``, which also reads
        it at the moved nodes); ``cells`` of the mesh: default, those; ``options`` as of ``move``.
        """
        check_cloud(points, box)
        grid = cloud_grid(len(points), box)
        read = CloudReader(points, box.centres(grid, dtype=points.dtype, device=points.device), box)
        return self.move(read(u), box, grid if cells is None else cells, **options)

    def unit_box(self, box: Box) -> Box:
        """The box over its longest side."""
        scale = max(box.lengths)
        return Box(tuple(length / scale for length in box.lengths), box.periodic)

    def grid(self, unit: Box) -> tuple[int, ...]:
        """Cells that the network works on: as square as multiples of 2^LEVELS allow."""
        step = 2**LEVELS
        return tuple(max(2 * step, step * round(self.cells * length / step)) for length in unit.lengths)

    def resampled(self, monitor: Tensor, unit: Box) -> Tensor:
        """The monitor on the network's grid: means where that is coarser, multilinear in between where it is finer."""
        cells = self.grid(unit)
        coarser = [min(n, given) for n, given in zip(cells, monitor.shape[1:], strict=True)]
        pool = (functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)[self.dim - 2]
        monitor = pool(monitor.unsqueeze(1), coarser)
        if tuple(coarser) == cells:
            return monitor.squeeze(1)
        centres = unit.centres(cells, dtype=monitor.dtype, device=monitor.device)
        least = monitor.flatten(1).amin(1).reshape(-1, *(1,) * self.dim)
        # In the half cell next to a wall values are extrapolated, and have to stay positive.
        return torch.maximum(sample(monitor, centres.expand(len(monitor), *centres.shape), unit).squeeze(1), least)

    def sources(self, monitor: Tensor, unit: Box, watch: Callable[[Imbalance], None] | None = None) -> Tensor:
        """The Laplacian of the potential ``(B, *n)``; ``watch`` sees the mesh that each stage begins with."""
        basis = self.series(unit, monitor)
        here = monitor.log()
        source = torch.zeros_like(monitor)
        for stage, gain in zip(self.stages, self.gains, strict=True):
            corners = basis.corners(basis.coefficients(source))
            residual, there, size = imbalance(corners, here, unit)
            if watch is not None:
                watch(Imbalance(residual, corners))
            features = torch.stack([residual, there, here, size, source.clamp(-5, 5)], 1)
            source = source - gain * residual + stage(features, unit.periodic)
        return source

    def series(self, unit: Box, like: Tensor) -> Series:
        """That of the network's grid, with the dtype and device of a tensor."""
        return series(unit, self.grid(unit), like.dtype, str(like.device))

    def _check(self, monitor: Tensor, box: Box) -> None:
        if box.dim != self.dim:
            raise ConfigError(f"this mesh mover moves meshes in {self.dim}D; the box has {box.dim} axes")
        if monitor.ndim != box.dim + 1:
            raise DataError(
                f"the monitor has the shape {tuple(monitor.shape)}; expected (B, {', '.join('n' * box.dim)}), one "
                "positive value a cell"
            )
        check_monitor(monitor, box)


def imbalance(corners: Tensor, log_monitor: Tensor, box: Box) -> tuple[Tensor, Tensor, Tensor]:
    """r, log m at the centres of the cells and log of their size over the uniform one, each ``(B, *n)``."""
    centres = centres_of(corners)
    walls = [0.0 if periodic else length for length, periodic in zip(box.lengths, box.periodic, strict=True)]
    if any(walls):
        low = centres.new_tensor([-math.inf if periodic else 0.0 for periodic in box.periodic])
        high = centres.new_tensor([wall or math.inf for wall in walls])
        centres = centres.clamp(low, high)  # outside only where cells are folded
    there = sample(log_monitor.unsqueeze(1), centres, box).squeeze(1)
    size = bounded_log(cell_volumes(corners) / math.prod(box.spacing(log_monitor.shape[1:])))
    mean = (there + size).exp().flatten(1).mean(1).log().reshape(-1, *(1,) * box.dim)
    return (there + size - mean).clamp(-3, 3), there, size


def bounded_log(size: Tensor) -> Tensor:
    """log, below ``SMALLEST`` its tangent, and at least two less than there: folded cells keep a finite measure."""
    inside = size.clamp_min(SMALLEST).log()
    beyond = math.log(SMALLEST) + ((size - SMALLEST) / SMALLEST).clamp(-2, 0)
    return torch.where(size > SMALLEST, inside, beyond).clamp_max(4)

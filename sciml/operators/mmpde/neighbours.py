"""Who sends messages to whom: the cells of a grid by index shifts, the nodes of any graph by a list of pairs.

Both are *connectivities* with
- ``features``: where the sender lies, seen from the receiver, ``(K, d)`` of each offset or ``(E, d)`` of each pair;
- ``unit (d,)``: the length that a feature of 1 stands for, along each axis;
- ``mean_of_messages(receivers, values, scale, shift)``: ``mean_j relu(r_i + scale_ij (v_j - v_i) + shift_ij)`` over
  the neighbours j of node i, for ``(B, *nodes, channels)``, with ``scale`` and ``shift`` a row for each of the
  features; 0 where there are none;
- ``gradient(values)``: ``(B, *nodes, c)`` to ``(B, *nodes, c, d)``, the slopes of values against the features.
They are in the coordinates of the fixed nodes, whatever moves.
"""

import functools
from collections.abc import Sequence
from itertools import product
from typing import Protocol

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.operators.mmpde.messages import Window, sum_of_messages
from sciml.operators.particles.edges import Edges
from sciml.operators.particles.incidence import Incidence

KINDS = ("corners", "faces")
"""Neighbours of a cell: all 3^d - 1 that share a corner with it, or the 2 d that share a face."""


class Connectivity(Protocol):
    """What a graph operator needs of the graph; see the head of the module."""

    features: Tensor
    unit: Tensor

    def mean_of_messages(self, receivers: Tensor, values: Tensor, scale: Tensor, shift: Tensor) -> Tensor: ...

    def gradient(self, values: Tensor) -> Tensor: ...


class GridNeighbours:
    """The cells at distance ``reach`` along the axes and diagonals of a grid.

    Along an axis that is shorter the reach is what there is. Beyond a wall there is no neighbour; a periodic axis is
    continued.

    Args:
        cells: of the grid.
        periodic: for each axis whether it is.
        reach: in cells.
        kind: one of ``KINDS``.
        spacing: width of a cell along each axis; 1 unless given.
        like: lends dtype and device.

    Raises:
        ConfigError: an unknown kind.
    """

    def __init__(
        self,
        cells: Sequence[int],
        periodic: Sequence[bool],
        *,
        reach: int = 1,
        kind: str = "corners",
        spacing: Sequence[float] | None = None,
        like: Tensor,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"unknown neighbours {kind!r}{did_you_mean(str(kind), KINDS)}")
        self.cells = tuple(cells)
        self.periodic = tuple(periodic)
        self.dtype, self.device = like.dtype, like.device
        self.reach = tuple(
            max(1, min(reach, n // 2 if wraps else n - 1)) for n, wraps in zip(self.cells, self.periodic, strict=True)
        )
        steps = [step for step in product((-1, 0, 1), repeat=len(self.cells)) if any(step)]
        self.steps = [step for step in steps if kind == "corners" or sum(map(abs, step)) == 1]
        self.kind = kind
        # In units of the reach: a layer that looks farther has weights of its own, of the same size.
        self.features = torch.tensor(self.steps, dtype=self.dtype, device=self.device)
        self.unit = torch.tensor(spacing or [1.0] * len(self.cells), dtype=self.dtype, device=self.device)

    def mean_of_messages(self, receivers: Tensor, values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        total = sum_of_messages(receivers, values, self._continued(values), scale, shift, self._windows())
        return total / self._degree().to(total.dtype)

    def gradient(self, values: Tensor) -> Tensor:
        """Central differences of the cells next to one another, one-sided at walls, a cell being the unit."""
        found = []
        for axis, (n, wraps) in enumerate(zip(self.cells, self.periodic, strict=True), start=1):
            low, high = values.narrow(axis, 0, 1), values.narrow(axis, n - 1, 1)
            if wraps:
                low, high = high, low
            else:
                low, high = 2 * low - values.narrow(axis, 1, 1), 2 * high - values.narrow(axis, n - 2, 1)
            padded = torch.cat((low, values, high), axis)
            found.append((padded.narrow(axis, 2, n) - padded.narrow(axis, 0, n)) / 2)
        return torch.stack(found, -1)

    def pairs(self) -> "ListNeighbours":
        """The same neighbours as a list of pairs."""
        number = torch.arange(torch.Size(self.cells).numel(), device=self.device).reshape(1, *self.cells, 1)
        padded, receivers, senders = self._continued(number), [], []
        for to, of in self._windows():
            receivers.append(number[to].flatten())
            senders.append(padded[of].flatten())
        features = [row.expand(len(part), -1) for row, part in zip(self.features, receivers, strict=True)]
        index = torch.stack((torch.cat(senders), torch.cat(receivers)))
        return ListNeighbours(index, torch.cat(features), number.numel(), self.unit)

    def _continued(self, values: Tensor) -> Tensor:
        """``(B, *grid, c)`` with ``reach`` layers more at both ends of every periodic axis."""
        for axis, (n, wraps, reach) in enumerate(zip(self.cells, self.periodic, self.reach, strict=True), start=1):
            if wraps:
                ends = values.narrow(axis, n - reach, reach), values, values.narrow(axis, 0, reach)
                values = torch.cat(ends, axis)
        return values

    def _windows(self) -> list[Window]:
        windows = []
        for step in self.steps:
            to, of = [slice(None)], [slice(None)]
            for s, n, wraps, reach in zip(step, self.cells, self.periodic, self.reach, strict=True):
                offset = s * reach
                first, last = (0, n) if wraps else (max(0, -offset), n - max(0, offset))
                start = offset + reach * wraps
                to.append(slice(first, last))
                of.append(slice(first + start, last + start))
            windows.append((tuple(to), tuple(of)))
        return windows

    def _degree(self) -> Tensor:
        """Number of neighbours ``(*grid, 1)``, 1 where there are none."""
        dim = len(self.cells)
        sides = []
        for axis, (n, wraps, reach) in enumerate(zip(self.cells, self.periodic, self.reach, strict=True)):
            place = torch.arange(n, dtype=self.dtype, device=self.device)
            there = torch.full_like(place, 2.0) if wraps else (place >= reach).to(place) + (place < n - reach)
            sides.append(there.reshape(*(n if other == axis else 1 for other in range(dim)), 1))
        if self.kind == "faces":
            return sum(sides).clamp(min=1)
        return (functools.reduce(torch.mul, [side + 1 for side in sides]) - 1).clamp(min=1)


class ListNeighbours:
    """Pairs of nodes of any graph.

    Args:
        index: (sender, receiver) of each pair ``(2, E)``, in any order.
        features: of each pair ``(E, d)``, of order one.
        count: number of nodes.
        unit: the length that a feature of 1 stands for, along each axis ``(d,)``.

    Raises:
        DataError: shapes that do not fit, or a pair of nodes that there are not.
    """

    def __init__(self, index: Tensor, features: Tensor, count: int, unit: Tensor) -> None:
        if index.ndim != 2 or index.shape[0] != 2 or features.ndim != 2 or len(features) != index.shape[1]:
            raise DataError(
                f"pairs of shape {tuple(index.shape)} with features of shape {tuple(features.shape)}; expected (2, E) "
                "and (E, d)"
            )
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= count):
            raise DataError(f"pairs name the nodes {int(index.min())} to {int(index.max())}; there are {count} nodes")
        order = index[1].sort(stable=True).indices
        self.features = features[order]
        self.unit = unit
        self.edges = Edges(index[0][order], index[1][order], count)

    @classmethod
    def of_points(cls, index: Tensor, points: Tensor) -> "ListNeighbours":
        """With the relative positions of ``points (N, d)`` over their root mean square as features."""
        apart = points[index[0]] - points[index[1]]
        unit = apart.square().sum(1).mean().sqrt()
        return cls(index, apart / unit, len(points), unit.expand(points.shape[1]))

    @functools.cached_property
    def _ends(self) -> tuple[Incidence, Incidence]:
        """From nodes to pairs: the sender of each, the receiver of each."""
        offsets = torch.arange(len(self.edges.source) + 1, device=self.edges.source.device)
        return tuple(Incidence(ends, offsets, self.edges.count) for ends in (self.edges.source, self.edges.receiver))

    def mean_of_messages(self, receivers: Tensor, values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        batch, nodes, channels = receivers.shape
        of_sender, of_receiver = self._ends

        def at_pairs(values: Tensor, end: Incidence) -> Tensor:
            return end(values.transpose(0, 1).reshape(nodes, -1)).unflatten(1, (batch, channels))

        apart = at_pairs(values, of_sender) - at_pairs(values, of_receiver)
        message = (at_pairs(receivers, of_receiver) + apart * scale[:, None] + shift[:, None]).relu()
        total = self.edges.to_receivers(message.flatten(1)) / self.edges.degree
        return total.unflatten(1, (batch, channels)).transpose(0, 1)

    def gradient(self, values: Tensor) -> Tensor:
        """Least squares over the pairs of each node; 0 along directions in which it has no neighbour."""
        batch, nodes, channels = values.shape
        of_sender, of_receiver = self._ends
        rows = values.transpose(0, 1).reshape(nodes, -1)
        apart = of_sender(rows) - of_receiver(rows)
        collect = self.edges.to_receivers
        e = self.features.to(values.dtype)
        normal = collect((e[:, :, None] * e[:, None, :]).flatten(1)).unflatten(1, (e.shape[1], e.shape[1]))
        right = collect((apart[:, :, None] * e[:, None, :]).flatten(1)).unflatten(1, (-1, e.shape[1]))
        slopes = right @ torch.linalg.pinv(normal, hermitian=True, rtol=1e-5)
        return slopes.unflatten(1, (batch, channels)).transpose(0, 1)

"""Pairs of points in the order that is fast to sum, in one piece or in pieces that fit the cache."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.operators.particles.incidence import Incidence, offsets_of

PIECE = 8192
"""Pairs at a time where no gradient is wanted."""


@dataclass(frozen=True)
class Edges:
    """Pairs of a source and one of ``count`` receivers, sorted by receiver."""

    source: Tensor
    receiver: Tensor
    count: int

    @classmethod
    def of(cls, edge_index: Tensor, count: int) -> "Edges":
        """Pairs ``(2, E)`` of source and receiver in any order."""
        source, receiver = edge_index
        if torch.compiler.is_compiling() or bool((receiver[1:] < receiver[:-1]).any()):
            receiver, order = receiver.sort(stable=True)
            source = source[order]
        return cls(source, receiver, count)

    @functools.cached_property
    def offsets(self) -> Tensor:
        """Where the pairs of each receiver start, and the end ``(count + 1,)``."""
        return offsets_of(self.receiver, self.count)

    @functools.cached_property
    def degree(self) -> Tensor:
        """Number of pairs of each receiver, 1 where there are none ``(count, 1)``."""
        return self.offsets.diff().clamp(min=1).unsqueeze(1)

    @functools.cached_property
    def both_ends(self) -> Incidence:
        """From a table of ``2 count`` rows (points as sources, then as receivers) to the pairs: the sum of two rows."""
        rows = torch.stack((self.source, self.receiver + self.count), 1).view(-1)
        return Incidence(rows, torch.arange(0, len(rows) + 1, 2, device=rows.device), 2 * self.count)

    @functools.cached_property
    def to_receivers(self) -> Incidence:
        """From the pairs to the receivers: the sum over the pairs of each."""
        pairs = torch.arange(len(self.source), device=self.source.device)
        return Incidence(pairs, self.offsets, len(pairs))

    def pieces(self) -> "list[Piece]":
        """All pairs as one piece where gradients are recorded, else pieces of about ``PIECE`` pairs.

        Without gradients nothing of a piece is needed once it is summed: what it takes stays in the cache, and a large
        scene takes no more memory than its pairs' features.
        """
        if torch.is_grad_enabled() or len(self.source) <= PIECE:
            return [Piece(self, slice(None), self.to_receivers)]
        return self._small_pieces

    @functools.cached_property
    def _small_pieces(self) -> "list[Piece]":
        marks = torch.arange(PIECE, len(self.source) + PIECE, PIECE, device=self.offsets.device)
        ends = torch.searchsorted(self.offsets, marks).clamp(max=self.count).unique()
        ends[-1] = self.count  # with the receivers without pairs at the end
        pairs = self.offsets[ends].tolist()
        found, first, start = [], 0, 0
        for last, end in zip(ends.tolist(), pairs, strict=True):
            index = torch.arange(end - start, device=self.offsets.device)
            collect = Incidence(index, self.offsets[first : last + 1] - start, len(index))
            found.append(Piece(self, slice(start, end), collect))
            first, start = last, end
        return found


@dataclass(frozen=True)
class Piece:
    """The pairs of some consecutive receivers."""

    edges: Edges
    pairs: slice
    to_receivers: Incidence

    @functools.cached_property
    def both_ends(self) -> Incidence:
        """As that of all edges, for the pairs of this piece."""
        whole = self.edges.both_ends
        if self.pairs == slice(None):
            return whole
        start, stop = self.pairs.start, self.pairs.stop
        return Incidence(whole.index[2 * start : 2 * stop], whole.offsets[: stop - start + 1], whole.columns)

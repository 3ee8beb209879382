"""Further linear rows C w - d beside the pointwise ones, and which tiles they couple."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Coupling:
    """How the rows couple K tiles.

    ``order``: the tiles in the order in which their matrix has the narrowest band (natural, or by reverse
    Cuthill-McKee); ``bandwidth``: in tiles, None where a dense matrix is cheaper; ``touched (L, T)``: the tiles, in
    the new numbering, of each row, padded by tiles that the row does not touch.
    """

    order: tuple[int, ...]
    bandwidth: int | None
    touched: Tensor

    @property
    def natural(self) -> bool:
        return self.order == tuple(range(len(self.order)))


def coupling(matrix: Tensor) -> Coupling:
    """The coupling of ``matrix (P, L, K, N)``, from where it is not zero in any of the P problems."""
    touches = (matrix.detach() != 0).any(-1).any(0).cpu()  # (L, K)
    k = touches.shape[1]
    graph = touches.to(torch.int64).T @ touches.to(torch.int64)
    natural = tuple(range(k))
    permuted = tuple(int(i) for i in reverse_cuthill_mckee(csr_matrix(graph.numpy()), symmetric_mode=True))
    order = min((natural, permuted), key=lambda candidate: _bandwidth(graph, candidate))
    band = _bandwidth(graph, order)
    # Operations: K (1/3 + b + b^2) blocks against K^3 / 3; small blocks run at about half the speed of a large matrix.
    dense = 2 * (1 + 3 * band + 3 * band**2) >= k**2
    if dense:
        order = natural
    touches = touches[:, list(order)]
    width = int(touches.sum(1).max().clamp(min=1)) if len(touches) else 1
    touched = torch.argsort(touches.to(torch.int8), dim=1, descending=True, stable=True)[:, :width]
    return Coupling(order, None if dense else band, touched.to(matrix.device))


def _bandwidth(graph: Tensor, order: tuple[int, ...]) -> int:
    row, column = np.nonzero(graph.numpy()[np.ix_(order, order)])
    return int(np.abs(row - column).max()) if len(row) else 0


@dataclass(frozen=True, eq=False)
class LinearRows:
    """C w - d: ``matrix (I, L, T, N)``, ``target (I, L)``. ``tiles (L, T)``: which tiles the T columns of blocks belong
    to; None: all K in order. ``gram``: C'C as ``BlockBanded.blocks``, where it was asked for.
    """

    matrix: Tensor
    target: Tensor
    tiles: Tensor | None = None
    gram: Tensor | None = None

    def residual(self, w: Tensor) -> Tensor:
        """C w - d, ``(I, L)``, of ``w (I, K, N)``."""
        return self.apply(w) - self.target

    def apply(self, w: Tensor) -> Tensor:
        """C w, ``(I, L)``."""
        if self.tiles is None:
            return (self.matrix.flatten(2) @ w.flatten(1)[..., None])[..., 0]
        return (self.matrix * w[:, self.tiles]).sum((-2, -1))

    def transpose(self, v: Tensor, k: int) -> Tensor:
        """C' v, ``(I, K, N)``, of ``v (I, L)``."""
        if self.tiles is None:
            return (v[:, None] @ self.matrix.flatten(2)).unflatten(2, (k, -1))[:, 0]
        parts = (self.matrix * v[..., None, None]).flatten(1, 2)
        return parts.new_zeros(parts.shape[0], k, parts.shape[2]).index_add(1, self.tiles.flatten(), parts)

    def select(self, index: Tensor) -> LinearRows:
        """The rows of these problems."""
        gram = None if self.gram is None else self.gram[index]
        return replace(self, matrix=self.matrix[index], target=self.target[index], gram=gram)

    def dense(self, k: int) -> Tensor:
        """C as ``(I, L, K N)``."""
        if self.tiles is None:
            return self.matrix.flatten(2)
        items, n_rows, _, n = self.matrix.shape
        full = self.matrix.new_zeros(items, n_rows, k, n)
        index = self.tiles[None, :, :, None].expand(self.matrix.shape)
        return full.scatter(2, index, self.matrix).flatten(2)

    def prepared(self, structure: Coupling) -> LinearRows:
        """For the iteration: only the blocks that are not zero, and C'C."""
        k = self.matrix.shape[2]
        gram = _gram(self.matrix, structure)
        if structure.touched.shape[1] == k:
            return replace(self, gram=gram)
        rows = torch.arange(len(structure.touched), device=self.matrix.device)[:, None]
        return LinearRows(self.matrix[:, rows, structure.touched], self.target, structure.touched, gram)


def _gram(matrix: Tensor, structure: Coupling) -> Tensor:
    """C'C as ``BlockBanded.blocks``, ``(I, K, b + 1, N, N)`` or ``(I, 1, 1, K N, K N)``, from ``(I, L, K, N)``."""
    items, _, k, n = matrix.shape
    if structure.bandwidth is None:
        full = matrix.flatten(2)
        return (full.mT @ full)[:, None, None]
    blocks = matrix.new_zeros(items, k, structure.bandwidth + 1, n, n)
    touches = (matrix != 0).any(-1).any(0)
    for column in range(k):
        for j in range(min(structure.bandwidth + 1, k - column)):
            both = torch.nonzero(touches[:, column] & touches[:, column + j])[:, 0]
            blocks[:, column, j] = matrix[:, both, column + j].mT @ matrix[:, both, column]
    return blocks

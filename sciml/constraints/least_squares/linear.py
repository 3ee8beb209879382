"""Symmetric block-banded matrices, one for each problem of a batch, and their Cholesky factors.

Block column k holds the blocks (k, k) ... (k + b, k): tiles that lie in a line couple to their neighbours only, b = 1,
and factorisation costs K N^3 (1/3 + b + b^2) instead of (K N)^3 / 3. One dense matrix is the case K = 1, b = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, eq=False)
class BlockBanded:
    """``blocks (I, K, b + 1, N, N)``: ``blocks[:, k, j]`` is the block in block row k + j and block column k. Blocks
    below the last row (k + j >= K) are zero."""

    blocks: Tensor

    def select(self, index: Tensor) -> BlockBanded:
        """The matrices of these problems."""
        return BlockBanded(self.blocks[index])

    def __add__(self, other: BlockBanded) -> BlockBanded:
        return BlockBanded(self.blocks + other.blocks)

    def diagonal(self) -> Tensor:
        """``(I, K N)``."""
        return self.blocks[:, :, 0].diagonal(dim1=-2, dim2=-1).flatten(1)

    def scaled(self, scale: Tensor, shift: Tensor | float = 0.0) -> BlockBanded:
        """diag(scale) A diag(scale) + diag(shift); both ``(I, K N)`` or, the shift, broadcastable to it."""
        columns = self._tiles(scale)
        blocks = self.blocks * self._below(columns)[..., :, None] * columns[:, :, None, None, :]
        diagonal = blocks[:, :, 0].diagonal(dim1=-2, dim2=-1)
        diagonal += self._tiles(torch.as_tensor(shift, dtype=blocks.dtype, device=blocks.device).expand_as(scale))
        return BlockBanded(blocks)

    def matmul(self, x: Tensor) -> Tensor:
        """A x for ``x (I, K N)``."""
        tiles = self._tiles(x)
        lower = self.blocks @ tiles[:, :, None, :, None]  # (I, K, b + 1, N, 1): what column k sends to row k + j
        result = lower[:, :, 0, :, 0].clone()
        if self.blocks.shape[2] > 1:
            upper = self.blocks[:, :, 1:].mT @ self._below(tiles)[:, :, 1:, :, None]
            result += upper.sum(2)[..., 0]
            for j in range(1, self.blocks.shape[2]):
                result[:, j:] += lower[:, : result.shape[1] - j, j, :, 0]
        return result.flatten(1)

    def dense(self) -> Tensor:
        """``(I, K N, K N)``."""
        items, k, width, n, _ = self.blocks.shape
        full = self.blocks.new_zeros(items, k, n, k, n)
        for column in range(k):
            for j in range(min(width, k - column)):
                block = self.blocks[:, column, j]
                full[:, column + j, :, column] = block
                if j:
                    full[:, column, :, column + j] = block.mT
        return full.reshape(items, k * n, k * n)

    def cholesky(self) -> BlockCholesky:
        """L with A = L L', problem by problem; ``ok`` says where A was positive definite."""
        items, k, width, n, _ = self.blocks.shape
        if width == 1:
            factor, info = torch.linalg.cholesky_ex(self.blocks[:, :, 0])
            ok = (info == 0).all(1) & torch.isfinite(factor).all((1, 2, 3))
            return BlockCholesky(factor, None, ok)
        below = (width - 1) * n
        update = self.blocks.new_zeros(items, below, below)  # what the columns so far take from the next b tiles
        diagonals, panels = [], []
        ok = torch.ones(items, dtype=torch.bool, device=self.blocks.device)
        for column in range(k):
            update = pad(update, (0, n, 0, n))
            lower = self.blocks[:, column].flatten(1, 2) - update[:, :, :n]
            diagonal, info = torch.linalg.cholesky_ex(lower[:, :n])
            panel = torch.linalg.solve_triangular(diagonal.mT, lower[:, n:], upper=True, left=False)
            update = update[:, n:, n:] + panel @ panel.mT
            ok = ok & (info == 0)
            diagonals.append(diagonal)
            panels.append(panel)
        factor = torch.stack(diagonals, 1)
        return BlockCholesky(factor, torch.stack(panels, 1), ok & torch.isfinite(factor).all((1, 2, 3)))

    def _tiles(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.blocks.shape[1], self.blocks.shape[3]))

    def _below(self, tiles: Tensor) -> Tensor:
        """``(I, K, b + 1, N)``: the tiles k ... k + b beside column k, zero below the last."""
        width = self.blocks.shape[2]
        return pad(tiles, (0, 0, 0, width - 1)).unfold(1, width, 1).mT


@dataclass(frozen=True, eq=False)
class BlockCholesky:
    """``factor (I, K, N, N)``: the diagonal blocks of L; ``panels (I, K, b N, N)``: the blocks under each (None when
    block-diagonal); ``ok (I,)``: whether the matrix was positive definite. Where it was not the numbers mean nothing.
    """

    factor: Tensor
    panels: Tensor | None
    ok: Tensor

    def select(self, index: Tensor) -> BlockCholesky:
        """The factors of these problems."""
        return BlockCholesky(self.factor[index], None if self.panels is None else self.panels[index], self.ok[index])

    def definite(self) -> Tensor:
        """Where a matrix of unit diagonal is positive definite by more than rounding, ``(I,)``: the pivots of what is
        singular come out as rounding of either sign."""
        pivots = self.factor.diagonal(dim1=-2, dim2=-1).square().amin((1, 2))
        return self.ok & (pivots > 10 * self.factor.shape[1:3].numel() * torch.finfo(pivots.dtype).eps)

    def solve(self, right: Tensor) -> Tensor:
        """x ``(I, K N)`` with A x = right ``(I, K N)``."""
        k, n = self.factor.shape[1:3]
        right = right.unflatten(1, (k, n))[..., None]
        if self.panels is None:
            return torch.cholesky_solve(right, self.factor).flatten(1)
        below = self.panels.shape[2]
        carried = right.new_zeros(right.shape[0], below, 1)
        forward = []
        for tile in range(k):
            carried = pad(carried, (0, 0, 0, n))
            part = torch.linalg.solve_triangular(self.factor[:, tile], right[:, tile] - carried[:, :n], upper=False)
            carried = carried[:, n:] + self.panels[:, tile] @ part
            forward.append(part)
        later = right.new_zeros(right.shape[0], below, 1)
        result: list[Tensor] = []
        for tile in reversed(range(k)):
            rest = forward[tile] - self.panels[:, tile].mT @ later
            part = torch.linalg.solve_triangular(self.factor[:, tile].mT, rest, upper=True)
            later = torch.cat([part, later[:, : below - n]], 1)
            result.append(part)
        return torch.stack(result[::-1], 1).flatten(1)

"""The operator transformer of GIOROM: linear attention after GNOT [Hao et al. 2023, ICML], scene by scene.

Queries and keys are softmaxed over their channels, so that the sum over keys can be taken first: the cost grows with
the number of nodes, not its square. Each block attends to where the nodes are, then to the nodes themselves; each
attention is followed by a mixture of experts.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.operators.layers.linear import Linear

CHUNK = 256


class SceneChunks:
    """Rows sorted by scene, cut into chunks that lie in one scene each, so that sums over a scene are batched products.

    Chunks have at most ``CHUNK`` rows and the last one of a scene is padded: the cost is linear in the number of rows
    however uneven the scenes.

    Args:
        batch: scene of each row, sorted.
        scenes: how many there are.
    """

    def __init__(self, batch: Tensor, scenes: int) -> None:
        counts = torch.bincount(batch, minlength=scenes)
        self.size = max(1, min(CHUNK, int(counts.max())))
        chunks = (counts + self.size - 1) // self.size
        self.scene = torch.arange(scenes, device=batch.device).repeat_interleave(chunks)
        within = torch.arange(len(batch), device=batch.device) - (counts.cumsum(0) - counts)[batch]
        self.slot = within + ((chunks.cumsum(0) - chunks) * self.size)[batch]
        self.scenes = scenes

    def split(self, x: Tensor) -> Tensor:
        """``(rows, channels)`` to ``(chunks, size, channels)``, zero where padded."""
        padded = x.new_zeros(len(self.scene) * self.size, x.shape[1]).index_copy(0, self.slot, x)
        return padded.view(-1, self.size, x.shape[1])

    def join(self, x: Tensor) -> Tensor:
        """The inverse of ``split``."""
        return x.flatten(0, 1).index_select(0, self.slot)

    def total(self, x: Tensor) -> Tensor:
        """Sum of ``(chunks, *)`` over the chunks of each scene, again for each chunk ``(chunks, *)``."""
        sums = x.new_zeros(self.scenes, *x.shape[1:]).index_add(0, self.scene, x)
        return sums.index_select(0, self.scene)


class LinearAttention(nn.Module):
    """``q + q (sum_j o_j k_j v_j^T) / (q . sum_j o_j k_j)`` for each head, projected; ``o_j`` weights of the nodes.

    Args:
        channels: of queries and of what is attended to.
        n_heads: divides ``channels``.
    """

    def __init__(self, channels: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = Linear(channels, channels)
        self.key_value = Linear(channels, 2 * channels)
        self.out = Linear(channels, channels)

    def forward(self, x: Tensor, attended: Tensor, weight: Tensor, chunks: SceneChunks) -> Tensor:
        """``x`` and ``attended`` ``(M, channels)``, ``weight (M, 1)``."""
        query = self.query(x).unflatten(1, (self.n_heads, -1)).softmax(-1)
        key, value = self.key_value(attended).chunk(2, 1)
        key = key.unflatten(1, (self.n_heads, -1)).softmax(-1) * weight.unsqueeze(-1)
        q, k, v = (self._heads(chunks, t) for t in (query.flatten(1), key.flatten(1), value))
        sums = chunks.total(k.mT @ torch.cat((v, v.new_ones(*v.shape[:-1], 1)), -1))  # (chunks, heads, c, c + 1)
        found = q @ sums
        out = q + found[..., :-1] / found[..., -1:].clamp(min=torch.finfo(x.dtype).tiny)
        return self.out(chunks.join(out.transpose(1, 2).flatten(2)))

    def _heads(self, chunks: SceneChunks, x: Tensor) -> Tensor:
        """``(M, channels)`` to ``(chunks, heads, size, channels of a head)``."""
        return chunks.split(x).unflatten(2, (self.n_heads, -1)).transpose(1, 2)


class Experts(nn.Module):
    """Networks of one hidden layer, mixed by a softmax of the input: two products, however many experts."""

    def __init__(self, channels: int, n_experts: int) -> None:
        super().__init__()
        self.gate = Linear(channels, n_experts) if n_experts > 1 else None
        self.hidden = Linear(channels, n_experts * channels)
        self.out = Linear(n_experts * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(M, channels)`` to ``(M, channels)``."""
        hidden = F.gelu(self.hidden(x))
        if self.gate is not None:
            share = self.gate(x).softmax(-1)
            hidden = (hidden.unflatten(1, (share.shape[1], -1)) * share.unsqueeze(-1)).flatten(1)
        return self.out(hidden)


class OperatorBlock(nn.Module):
    """Attention to where the nodes are, experts, attention to the nodes, experts; all residual, with norms before."""

    def __init__(self, channels: int, n_heads: int, n_experts: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))
        self.cross, self.self_ = (LinearAttention(channels, n_heads) for _ in range(2))
        self.experts = nn.ModuleList(Experts(channels, n_experts) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, places: Tensor, weight: Tensor, chunks: SceneChunks) -> Tensor:
        """``x`` and ``places (M, channels)``, ``weight (M, 1)``."""
        x = x + self.dropout(self.cross(self.norms[0](x), places, weight, chunks))
        x = x + self.dropout(self.experts[0](self.norms[1](x)))
        normed = self.norms[2](x)
        x = x + self.dropout(self.self_(normed, normed, weight, chunks))
        return x + self.dropout(self.experts[1](self.norms[3](x)))


class OperatorTransformer(nn.Module):
    """Blocks over the nodes of each scene.

    Where a node is, it knows relative to the weighted centre of the nodes of its scene and in units of their weighted
    extent: moving the scene changes nothing.

    Args:
        channels: of the nodes.
        dim: of space.
        n_blocks, n_heads, n_experts: of them.
        dropout: share of the residuals that is dropped in training.
    """

    def __init__(self, channels: int, dim: int, n_blocks: int, n_heads: int, n_experts: int, dropout: float) -> None:
        super().__init__()
        self.places = nn.Sequential(Linear(dim, channels), nn.GELU(), Linear(channels, channels))
        self.blocks = nn.ModuleList(OperatorBlock(channels, n_heads, n_experts, dropout) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor, weight: Tensor, batch: Tensor, scenes: int, unit: float) -> Tensor:
        """Nodes ``x (M, channels)`` at ``position (M, d)``, counted by ``weight (M, 1)``, sorted by scene ``batch``.

        ``unit`` is a length that no extent is taken shorter than.
        """
        if not len(x):
            return x
        chunks = SceneChunks(batch, scenes)
        places = self.places(relative_places(position, weight, batch, scenes, unit))
        for block in self.blocks:
            x = block(x, places, weight, chunks)
        return self.norm(x)


def relative_places(position: Tensor, weight: Tensor, batch: Tensor, scenes: int, unit: float) -> Tensor:
    """Positions from the weighted centre of each scene, in units of the weighted root mean square distance from it."""

    def mean(values: Tensor) -> Tensor:
        sums = values.new_zeros(scenes, values.shape[1] + 1)
        sums = sums.index_add(0, batch, weight * torch.cat((values, torch.ones_like(weight)), 1))
        return (sums[:, :-1] / sums[:, -1:].clamp(min=torch.finfo(values.dtype).tiny)).index_select(0, batch)

    # From some node of the scene first: sums of large coordinates would lose their digits.
    first = torch.searchsorted(batch, batch)
    position = position - position.index_select(0, first)
    position = position - mean(position)
    extent = (mean(position.square().sum(1, keepdim=True)) + unit**2).sqrt()
    return position / extent

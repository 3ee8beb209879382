"""Scaled cosine attention in windows with a continuous position bias (Liu et al. 2022, arXiv:2111.09883)."""

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from sciml.operators.layers.linear import Linear, linear, transformed
from sciml.operators.poseidon.fused_attention import cosine_attention
from sciml.operators.poseidon.windows import Size

BIAS_HIDDEN = 512
LARGEST_SCALE = math.log(100.0)


class WindowAttention(nn.Module):
    """Attention inside windows of tokens: ``softmax(exp(s) cos(q, k) + bias) v`` for each head.

    The bias of a pair of tokens is ``16 sigmoid(MLP(offset))`` of their offset on a logarithmic scale. Without
    gradients it is computed once and kept until the weights change.

    Args:
        channels, heads: width, and the number of heads that share it.
        qkv_bias: whether query and value have a bias.
        weights_dropout, dropout: rates for the attention weights and for the output.
        reference: tokens along the sides of the window that offsets are measured by.
    """

    def __init__(
        self, channels: int, heads: int, qkv_bias: bool, weights_dropout: float, dropout: float, reference: Size
    ) -> None:
        super().__init__()
        self.heads = heads
        self.reference = reference
        self.weights_dropout = weights_dropout
        self.dropout = nn.Dropout(dropout)
        # "self" and "output" are the published names.
        inner = self.self = nn.Module()
        inner.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        inner.continuous_position_bias_mlp = nn.Sequential(
            nn.Linear(2, BIAS_HIDDEN), nn.ReLU(), nn.Linear(BIAS_HIDDEN, heads, bias=False)
        )
        inner.query = Linear(channels, channels, bias=qkv_bias)
        inner.key = Linear(channels, channels, bias=False)
        inner.value = Linear(channels, channels, bias=qkv_bias)
        self.output = nn.Module()
        self.output.dense = Linear(channels, channels)
        self._kept: _Kept | None = None

    def forward(self, windows: Tensor, size: Size, mask: Tensor | None) -> Tensor:
        """``windows (B, count, tokens, channels)`` of ``size`` tokens, ``mask (count, 1, tokens, tokens)`` or None."""
        inner = self.self
        qkv = self._projections(windows).unflatten(3, (3, self.heads, -1))
        scale = inner.logit_scale.clamp(max=LARGEST_SCALE).exp().squeeze(2)
        dropout = self.weights_dropout if self.training else 0.0
        found = cosine_attention(qkv, scale, self.bias(size, mask, windows), dropout)
        return self.dropout(self.output.dense(found.reshape(windows.shape)))

    def _projections(self, windows: Tensor) -> Tensor:
        """Query, key and value side by side, ``(B, count, tokens, 3 channels)``."""
        query, key, value = layers = self.self.query, self.self.key, self.self.value
        weights = [layer.weight for layer in layers]
        # Copying the answers can be cheaper than copying the weights. Not where it would tie a program to a batch size.
        if not transformed() and windows.numel() < 3 * key.weight.numel():
            return torch.cat([layer(windows) for layer in layers], -1)
        shift = None
        if query.bias is not None:
            shift = torch.cat([query.bias, torch.zeros_like(query.bias), value.bias])
        return linear(windows, torch.cat(weights), shift)

    # ---------------------------------------------------------------------------------------------- position bias

    def bias(self, size: Size, mask: Tensor | None, like: Tensor) -> Tensor:
        """What is added to the logits, ``(heads, tokens, tokens)``, with a mask ``(count, heads, tokens, tokens)``."""
        weights = list(self.self.continuous_position_bias_mlp.parameters())
        # Changes of tensors made in inference mode leave no trace.
        traceless = torch.compiler.is_compiling() or any(w.is_inference() for w in weights)
        if torch.is_grad_enabled() or self.training or traceless:
            return self._bias(size, mask, like)
        state = (size, like.dtype, mask, [_steps, *((w.data_ptr(), w._version) for w in weights)])
        if self._kept is None or not self._kept.holds_for(weights, state):
            self._kept = _Kept(weights, state, self._bias(size, mask, like))
        return self._kept.bias

    def _bias(self, size: Size, mask: Tensor | None, like: Tensor) -> Tensor:
        first, _, last = self.self.continuous_position_bias_mlp
        table = offsets(size, self.reference, like.device).to(first.weight.dtype)
        # Offsets along the columns: of tall matrices with two columns the products are slow. And the sigmoid before the
        # pairs look their offset up: there are many more pairs than offsets. Not in half precision, which would be kept
        # for evaluations without autocast.
        kind = like.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            hidden = torch.addmm(first.bias.unsqueeze(1), first.weight, table).relu_()
            values = 16 * torch.sigmoid(last.weight @ hidden).view(-1, 2 * size[0] - 1, 2 * size[1] - 1)
        bias = pairs(values, size).to(like.dtype)
        return bias if mask is None else bias + mask

    def forget(self) -> None:
        """Drop the bias that is kept: needed only after writing through ``weight.data``, which leaves no trace."""
        self._kept = None

    def train(self, mode: bool = True) -> "WindowAttention":
        self.forget()
        return super().train(mode)


_steps = 0


def _count_step(*_: Any) -> None:
    """Fused optimizers, and those that write through ``weight.data``, leave no trace on the weights."""
    global _steps
    if not torch.compiler.is_compiling():
        _steps += 1


register_optimizer_step_post_hook(_count_step)


class _Kept:
    """A bias with what it was computed from. It holds the weights' memory, which is not given to others meanwhile."""

    def __init__(self, weights: list[Tensor], state: tuple, bias: Tensor) -> None:
        self.weights, self.state, self.bias = weights, state, bias
        self.memory = [w.detach() for w in weights]  # also once ``w.data`` is another

    def holds_for(self, weights: list[Tensor], state: tuple) -> bool:
        *mine, versions = self.state
        size, dtype, mask = mine
        return (
            all(a is b for a, b in zip(self.weights, weights, strict=True))
            and (size, dtype) == state[:2]
            and mask is state[2]
            and versions == state[3]
        )


def bias_of_offsets(weight: Tensor, shift: Tensor, last: Tensor, table: Tensor) -> Tensor:
    """``16 sigmoid(MLP(offset))``, ``(heads, offsets)`` of ``table (2, offsets)``.

    Offsets along the columns: of tall matrices with two columns the products are slow. And the sigmoid before the pairs
    look their offset up: there are many more pairs than offsets.
    """
    return 16 * torch.sigmoid(last @ torch.addmm(shift.unsqueeze(1), weight, table).relu_())


def offsets(size: Size, reference: Size, device: torch.device) -> Tensor:
    """Offsets between tokens on a logarithmic scale, ``(2, (2 height - 1) (2 width - 1))``.

    ``sign(z) log2(1 + |z|) / 3`` with ``z = 8 offset / (reference - 1)``, in float32 as published.
    """
    axes = []
    for n, other in zip(size, reference, strict=True):
        z = torch.arange(1 - n, n, dtype=torch.float32, device=device) / max(other - 1, 1) * 8
        axes.append(z.sign() * torch.log2(z.abs() + 1) / math.log2(8))
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)


def pairs(values: Tensor, size: Size) -> Tensor:
    """From values of offsets ``(heads, 2h - 1, 2w - 1)`` to those of pairs of tokens ``(heads, h w, h w)``.

    Entry (a, b) is the value of the offset a - b: a Toeplitz matrix of Toeplitz blocks, read as sliding windows.
    """
    height, width = size
    sliding = values.unfold(1, height, 1).unfold(2, width, 1)  # (heads, ya, xa, h - 1 - yb, w - 1 - xb)
    return sliding.flip(3, 4).reshape(values.shape[0], height * width, height * width)

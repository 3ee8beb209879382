"""Scaled cosine attention in windows with a continuous position bias (Liu et al. 2022, arXiv:2111.09883)."""

import math
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from sciml.operators.layers.linear import Linear, input_gradient, linear, transformed, untouched, weight_gradient
from sciml.operators.poseidon.fused_attention import cosine_attention
from sciml.operators.poseidon.position_bias import position_bias
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
        layers = (inner.query, inner.key, inner.value)
        if all(untouched(layer, (Linear,)) for layer in layers):
            qkv = projections(windows, *self._projected())
        else:
            qkv = torch.cat([layer(windows) for layer in layers], -1)
        qkv = qkv.unflatten(3, (3, self.heads, -1))
        dropout = self.weights_dropout if self.training else 0.0
        found = cosine_attention(qkv, scale_of(inner.logit_scale), *self.bias(size, mask, windows), dropout)
        return self.dropout(self.output.dense(found.reshape(windows.shape)))

    def tensors(self) -> "AttentionTensors":
        """Its parameters."""
        inner, (first, _, last), out = self.self, self.self.continuous_position_bias_mlp, self.output.dense
        bias = (first.weight, first.bias, last.weight)
        return AttentionTensors(*self._projected(), inner.logit_scale, *bias, out.weight, out.bias)

    def _projected(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None]:
        query, key, value = self.self.query, self.self.key, self.self.value
        return query.weight, query.bias, key.weight, value.weight, value.bias

    def parts(self) -> list[nn.Module]:
        """Itself and the modules that hold these parameters."""
        inner, (first, _, last) = self.self, self.self.continuous_position_bias_mlp
        return [self, inner.query, inner.key, inner.value, first, last, self.output.dense]

    # ---------------------------------------------------------------------------------------------- position bias

    def bias(self, size: Size, mask: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is added to the logits: ``(heads, tokens, tokens)``, and the mask, unless the kept bias contains it."""
        weights = list(self.self.continuous_position_bias_mlp.parameters())
        # Changes of tensors made in inference mode leave no trace; those of a transform live inside it only.
        traceless = transformed() or any(w.is_inference() for w in weights)
        if torch.is_grad_enabled() or self.training or traceless:
            return self._bias(size, like), mask
        state = (size, like.dtype, mask, [_steps, *((w.data_ptr(), w._version) for w in weights)])
        if self._kept is None or not self._kept.holds_for(weights, state):
            bias = self._bias(size, like)
            self._kept = _Kept(weights, state, bias if mask is None else bias + mask)
        return self._kept.bias, None

    def _bias(self, size: Size, like: Tensor) -> Tensor:
        first, _, last = self.self.continuous_position_bias_mlp
        # Not in half precision, which would be kept for evaluations without autocast.
        kind = like.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            return position_bias(first.weight, first.bias, last.weight, size, self.reference).to(like.dtype)

    def forget(self) -> None:
        """Drop the bias that is kept: needed only after writing through ``weight.data``, which leaves no trace."""
        self._kept = None

    def train(self, mode: bool = True) -> "WindowAttention":
        self.forget()
        return super().train(mode)


class AttentionTensors(NamedTuple):
    """The parameters of attention: weights ``(channels, channels)`` and biases ``(channels,)`` or None of query, key,
    value and output, ``logit_scale (heads, 1, 1)``, and those of ``position_bias``."""

    query: Tensor
    query_bias: Tensor | None
    key: Tensor
    value: Tensor
    value_bias: Tensor | None
    logit_scale: Tensor
    weight: Tensor
    shift: Tensor
    last: Tensor
    out: Tensor
    out_bias: Tensor


def scale_of(logit_scale: Tensor) -> Tensor:
    """What the cosines are multiplied by, ``(heads, 1, 1)``."""
    return logit_scale.clamp(max=LARGEST_SCALE).exp()


def projections(
    windows: Tensor, query: Tensor, query_bias: Tensor | None, key: Tensor, value: Tensor, value_bias: Tensor | None
) -> Tensor:
    """Query, key and value side by side, ``(*, 3 channels)``."""
    if one_by_one(windows, key):
        pairs = ((query, query_bias), (key, None), (value, value_bias))
        return torch.cat([linear(windows, *pair) for pair in pairs], -1)
    shift = None
    if query_bias is not None:
        shift = torch.cat([query_bias, torch.zeros_like(query_bias), value_bias])
    return linear(windows, torch.cat([query, key, value]), shift)


def projection_gradients(
    gradient: Tensor, windows: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of ``projections`` with respect to the windows and the five tensors, from that of the answers."""
    channels = windows.shape[-1]
    if one_by_one(windows, key):
        into_query, into_key, into_value = gradient.split(channels, -1)
        into_windows = input_gradient(into_query, query) + input_gradient(into_key, key)
        into_windows += input_gradient(into_value, value)
    else:
        into_windows = input_gradient(gradient, torch.cat([query, key, value]))
    into_query, into_key, into_value = weight_gradient(gradient, windows).split(channels)
    into_query_bias, _, into_value_bias = gradient.sum((0, 1, 2)).split(channels)
    return into_windows, into_query, into_query_bias, into_key, into_value, into_value_bias


def one_by_one(windows: Tensor, weight: Tensor) -> bool:
    """Whether copying the answers is cheaper than copying the weights. Not where it would tie a program to a batch."""
    return not transformed() and windows.numel() < 3 * weight.numel()


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

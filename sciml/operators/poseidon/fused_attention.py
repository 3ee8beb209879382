"""Cosine attention with an additive bias, fused forward, and recomputed instead of remembered backward."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.layers.linear import transformed, under_func

NORM_EPS = 1e-12
CHUNK = 2**18
"""Logits that the backward pass holds at a time: few enough to stay in a core's cache."""


def cosine_attention(
    qkv: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """``softmax(scale cos(query, key) + bias + mask) value`` in windows.

    Args:
        qkv: query, key and value, ``(B, count, tokens, 3, heads, width)``.
        scale: ``(heads, 1)``.
        bias: ``(heads, tokens, tokens)`` for all windows, or ``(count, heads, tokens, tokens)``.
        mask: a constant for each window, ``(count, 1, tokens, tokens)``, or None.
        dropout: rate for the attention weights.

    Returns ``(B, count, tokens, heads, width)``.

    torch's fused kernels for the CPU have no gradient for a bias: they fall back to keeping every logit. So there the
    backward pass is our own; it computes the logits again.
    """
    by_hand = (
        bias.requires_grad
        and torch.is_grad_enabled()
        and dropout == 0
        and qkv.device.type == "cpu"
        and qkv.dtype == bias.dtype == scale.dtype
        and not transformed()
    )
    if by_hand:
        return _CosineAttention.apply(qkv, scale, bias, mask)
    return _plain(qkv, scale, bias, mask, dropout)


def _plain(qkv: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    if mask is not None:
        bias = bias + mask
    unit_query, unit_key = F.normalize(qkv[:, :, :, :2], dim=-1, eps=_least_length(qkv.dtype)).unbind(3)
    return _attention(unit_query * scale.to(qkv.dtype), unit_key, qkv[:, :, :, 2], bias.to(qkv.dtype), dropout)


def _least_length(dtype: torch.dtype) -> float:
    """What lengths are clamped to: no zero in float16 either, for padded tokens may have keys that are zero."""
    return max(NORM_EPS, torch.finfo(dtype).tiny)


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """Fused attention of ``(B, count, tokens, heads, width)`` each."""
    batch, count, tokens, heads, width = value.shape
    # One bias for all windows lets these join the batch; otherwise they stand beside the heads. The kernels take a bias
    # of as many axes as the query's, and fall back without a word for another one.
    start = bias.ndim - 3
    query, key, value = (t.transpose(2, 3).flatten(start, start + 1) for t in (query, key, value))
    bias = bias.flatten(0, start).unsqueeze(0)
    if under_func():  # the fused kernels have neither a rule for vmap nor, then, a gradient for the bias
        weights = (query @ key.mT + bias).softmax(-1)
        found = F.dropout(weights, dropout, dropout > 0) @ value
    else:
        found = F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=1.0)
    return found.reshape(batch, count, heads, tokens, width).transpose(2, 3)


class _CosineAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(qkv, scale, bias)
        ctx.mask = mask  # a constant; one made in inference mode cannot be saved
        addend = bias.detach() if mask is None else bias.detach() + mask
        unit = F.normalize(qkv[:, :, :, :2], dim=-1, eps=_least_length(qkv.dtype))
        return _attention(unit[:, :, :, 0] * scale, unit[:, :, :, 1], qkv[:, :, :, 2], addend)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        qkv, scale, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: these gradients are differentiated themselves
            wanted = [t for t, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False) if needed]
            found = iter(torch.autograd.grad(_plain(qkv, scale, bias, ctx.mask), wanted, gradient, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        batch, count, tokens, _, heads, _ = qkv.shape
        by_head = qkv.permute(3, 0, 1, 4, 2, 5)  # (3, B, count, heads, tokens, width)
        length = torch.linalg.vector_norm(by_head[:2], dim=-1, keepdim=True).clamp_min(_least_length(qkv.dtype))
        unit_query, unit_key = by_head[:2] / length
        query, value = unit_query * scale.unsqueeze(1), by_head[2].contiguous()
        gradient = gradient.transpose(2, 3).contiguous()
        shared = bias.ndim == 3
        into = torch.empty_like(by_head, memory_format=torch.contiguous_format)
        into_bias = torch.zeros_like(bias)
        step = min(batch, max(1, CHUNK // (heads * tokens**2)))
        for number in range(count):
            addend, total = (bias, into_bias) if shared else (bias[number], into_bias[number])
            if ctx.mask is not None:
                addend = addend + ctx.mask[number]
            for first in range(0, batch, step):
                part = (slice(first, first + step), number)
                q, k, v, g = (t[part].flatten(0, 1) for t in (query, unit_key, value, gradient))
                samples = q.shape[0] // heads
                weights = torch.baddbmm(addend.repeat(samples, 1, 1) if samples > 1 else addend, q, k.mT).softmax(-1)
                slope = softmax_backward(g @ v.mT, weights, -1, weights.dtype)
                total += slope if samples == 1 else slope.unflatten(0, (samples, heads)).sum(0)
                into[0][part] = (slope @ k).unflatten(0, (samples, heads))
                into[1][part] = (slope.mT @ q).unflatten(0, (samples, heads))
                into[2][part] = (weights.mT @ g).unflatten(0, (samples, heads))
        into_scale = (into[0] * unit_query).sum((0, 1, 3, 4)).unsqueeze(1)
        into[0] *= scale.unsqueeze(1)
        # The part along the vector does not turn it.
        units = torch.stack([unit_query, unit_key])
        along = (into[:2] * units).sum(-1, keepdim=True)
        into[:2].addcmul_(units, along, value=-1).div_(length)
        return into.permute(1, 2, 4, 0, 3, 5), into_scale, into_bias, None


softmax_backward = torch.ops.aten._softmax_backward_data

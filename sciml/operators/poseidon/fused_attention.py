"""Cosine attention with an additive bias, fused forward, and recomputed instead of remembered backward."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.layers.linear import transformed, under_func

NORM_EPS = 1e-12
CHUNK = 2**19
"""Logits that the backward pass holds at a time: few enough to stay in a cache, enough for all cores to share."""


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
        _, count, tokens, _, heads, width = qkv.shape
        # Copied once, so that every product below reads and writes without copies: (3, count, B, heads, tokens, width).
        units = qkv.permute(3, 1, 0, 4, 2, 5).contiguous()
        length = torch.linalg.vector_norm(units[:2], dim=-1, keepdim=True).clamp_min_(_least_length(qkv.dtype))
        units[:2] /= length
        query = units[0] * scale.unsqueeze(1)
        gradient = gradient.permute(1, 0, 3, 2, 4).contiguous()
        into = torch.empty_like(units)
        into_bias = torch.zeros_like(bias)
        # Windows that share an addend are of one kind, and pass as one batch.
        kinds = 1 if bias.ndim == 3 and ctx.mask is None else count
        parts = [t.view(*t.shape[:-5], kinds, -1, tokens, width) for t in (query, units[1], units[2], gradient, into)]
        step = heads * max(1, CHUNK // (heads * tokens**2))
        for kind in range(kinds):
            addends, total = ([bias], into_bias) if bias.ndim == 3 else ([bias[kind]], into_bias[kind])
            if ctx.mask is not None:
                addends.append(ctx.mask[kind])
            _window_gradients(addends, total, *(t[..., kind, :, :, :] for t in parts), step)
        along = torch.linalg.vecdot(into[:2], units[:2]).unsqueeze(-1)
        into_scale = along[0].sum((0, 1, 3))
        # The part along the vector does not turn it.
        into[:2].addcmul_(units[:2], along, value=-1).div_(length)
        into[0] *= scale.unsqueeze(1)
        return into.permute(2, 1, 4, 0, 3, 5), into_scale, into_bias, None


def _window_gradients(
    addends: list[Tensor],
    total: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gradient: Tensor,
    into: Tensor,
    step: int,
) -> None:
    """Gradients of attention with the same addends ``(heads or 1, tokens, tokens)`` in all windows
    ``(N heads, tokens, width)``.

    Writes those of query, key and value to ``into (3, N heads, tokens, width)`` and adds that of the addends to
    ``total (heads, tokens, tokens)``. ``step``: how many of ``N heads`` pass at a time.
    """
    weights, slope = (query.new_empty(min(step, len(query)), *total.shape[1:]) for _ in range(2))
    parts = zip(*(t.split(step) for t in (query, key, value, gradient, *into)), strict=True)
    for q, k, v, g, into_q, into_k, into_v in parts:
        weights, slope = weights[: len(q)], slope[: len(q)]
        torch.bmm(q, k.mT, out=weights)
        for addend in addends:
            weights.view(-1, *total.shape).add_(addend)
        torch.softmax(weights, -1, out=weights)
        torch.bmm(g, v.mT, out=slope)
        softmax_backward(slope, weights, -1, weights.dtype, grad_input=slope)
        for sample in slope.split(len(total)):
            total += sample
        torch.bmm(slope, k, out=into_q)
        torch.bmm(slope.mT, q, out=into_k)
        torch.bmm(weights.mT, g, out=into_v)


softmax_backward = torch.ops.aten._softmax_backward_data.out

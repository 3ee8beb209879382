"""Cosine attention with an additive bias, fused forward, and recomputed instead of remembered backward."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.layers.linear import under_func

NORM_EPS = 1e-12
CHUNK = 2**19
"""Logits that the backward pass holds at a time: few enough to stay in a cache, enough for all cores to share."""


def cosine_attention(
    qkv: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """``softmax(scale cos(query, key) + bias + mask) value`` in windows.

    Args:
        qkv: query, key and value, ``(B, count, tokens, 3, heads, width)``.
        scale: ``(heads, 1, 1)``.
        bias: ``(heads, tokens, tokens)`` for all windows, or ``(count, heads, tokens, tokens)``.
        mask: a constant for each window, ``(count, 1, tokens, tokens)``, or None.
        dropout: rate for the attention weights.

    Returns ``(B, count, tokens, heads, width)``.
    """
    if mask is not None:
        bias = bias + mask
    unit_query, unit_key = _units(qkv[:, :, :, :2]).unbind(3)
    return _attention(
        unit_query * scale.squeeze(2).to(qkv.dtype), unit_key, qkv[:, :, :, 2], bias.to(qkv.dtype), dropout
    )


def _units(vectors: Tensor) -> Tensor:
    least = _least_length(vectors.dtype)
    if not torch.is_grad_enabled() or least**2 < torch.finfo(vectors.dtype).tiny:
        return F.normalize(vectors, dim=-1, eps=least)
    # The same, with second derivatives where a vector is zero.
    return vectors * vectors.square().sum(-1, keepdim=True).clamp_min(least**2).rsqrt()


def _least_length(dtype: torch.dtype) -> float:
    """What lengths are clamped to: no zero in float16 either, for padded tokens may have keys that are zero."""
    return max(NORM_EPS, torch.finfo(dtype).tiny)


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float) -> Tensor:
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


# --------------------------------------------------------------------------------- the same with a backward by hand
#
# torch's fused kernels for the CPU have no gradient for a bias: they fall back to keeping every logit. This one
# computes the logits again. Windows come first, so that those with one addend pass as one batch, without copies.


class Attended(NamedTuple):
    """What the backward pass needs: query times scale and key as unit vectors, and value, ``(3, count, B, heads,
    tokens, width)``; the factors that made query and key so ``(2, count, B, heads, tokens, 1)``; the square of the
    scale ``(heads, 1, 1)``; the bias ``(heads, tokens, tokens)``."""

    vectors: Tensor
    factors: Tensor
    square: Tensor
    bias: Tensor


def attend(qkv: Tensor, scale: Tensor, bias: Tensor, mask: Tensor | None) -> tuple[Tensor, Attended]:
    """``cosine_attention``, and what its gradients need; not differentiable by torch."""
    batch, count, tokens, _, heads, width = qkv.shape
    vectors = qkv.permute(3, 1, 0, 4, 2, 5).contiguous()
    directed = vectors[:2]
    factors = (
        torch.linalg.vector_norm(directed, dim=-1, keepdim=True).clamp_min_(_least_length(qkv.dtype)).reciprocal_()
    )
    factors[0].mul_(scale)
    directed.mul_(factors)
    if mask is None or batch == 1:  # all windows as one batch
        addend = bias.unsqueeze(0) if mask is None else bias + mask
        found = F.scaled_dot_product_attention(*vectors.flatten(1, 2), addend, scale=1.0)
        found = found.view(count, batch, heads, tokens, width)
    else:
        windows = zip(vectors.unbind(1), (bias + mask).unsqueeze(1), strict=True)
        found = torch.stack([F.scaled_dot_product_attention(*w, addend, scale=1.0) for w, addend in windows])
    return found.permute(1, 0, 3, 2, 4), Attended(vectors, factors, scale.square(), bias)


def attention_gradients(gradient: Tensor, kept: Attended, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``attend`` with respect to ``qkv``, the logarithm of ``scale``, and ``bias``."""
    vectors, factors, square, bias = kept
    _, count, batch, heads, tokens, width = vectors.shape
    number = count * batch * heads
    alike = number if mask is None else number // count  # these have the same addends
    step = heads * max(1, CHUNK // (heads * tokens**2))
    into = torch.empty_like(vectors)
    room = bias.new_empty(2, min(step, alike), tokens, tokens)
    into_bias = room[1] if number == heads else torch.zeros_like(bias)
    gradient = gradient.permute(1, 0, 3, 2, 4)
    whole = [t.reshape(number, tokens, width) for t in (*vectors.unbind(), gradient, *into.unbind())]
    for start, kind in ((a + b, a // alike) for a in range(0, number, alike) for b in range(0, alike, step)):
        end = min(start + step, (kind + 1) * alike)
        part = whole if end - start == number else [t[start:end] for t in whole]
        query, key, value, upstream, into_query, into_key, into_value = part
        weights, slope = room[:, : end - start]
        logits = torch.bmm(query, key.mT, out=weights).view(-1, heads, tokens, tokens).add_(bias)
        if mask is not None:
            logits.add_(mask[kind])
        torch.softmax(weights, -1, out=weights)
        torch.bmm(upstream, value.mT, out=slope)
        softmax_backward(slope, weights, -1, weights.dtype, grad_input=slope)
        if number > heads:
            for sample in slope.view_as(logits):
                into_bias += sample
        torch.bmm(slope, key, out=into_query)
        torch.bmm(slope.mT, query, out=into_key)
        torch.bmm(weights.mT, upstream, out=into_value)
    directed, into_directed = vectors[:2], into[:2]
    along = (into_directed * directed).sum(-1, keepdim=True)
    into_log_scale = along[0].sum((0, 1, 3), keepdim=True)[0, 0]
    # The part along a vector does not turn it.
    along[0].div_(square)
    into_directed.addcmul_(directed, along, value=-1).mul_(factors)
    return into.permute(2, 1, 4, 0, 3, 5), into_log_scale, into_bias


softmax_backward = torch.ops.aten._softmax_backward_data.out

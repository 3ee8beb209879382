"""The continuous position bias of attention (Liu et al. 2022, arXiv:2111.09883), and its own backward pass."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.layers.linear import linear
from sciml.operators.poseidon.windows import Size

LARGEST = 16


def position_bias(weight: Tensor, shift: Tensor, last: Tensor, size: Size, reference: Size) -> Tensor:
    """``16 sigmoid(last relu(weight offset + shift))`` of each pair of tokens, ``(heads, tokens, tokens)``.

    Args:
        weight, shift, last: the network's parameters, ``(hidden, 2)``, ``(hidden,)`` and ``(heads, hidden)``.
        size: tokens along the sides of the window.
        reference: the sides that offsets are measured by.

    """
    table, _, position = constants(size, reference, weight)
    both = torch.cat((weight, shift.unsqueeze(1)), 1)
    return _of_pairs(_sigmoids(linear(table, both).relu(), last) * LARGEST, position)


def constants(size: Size, reference: Size, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The table of offsets, with a column of ones whose weight is the shift; its transpose times the largest bias; and
    the offset of each pair of tokens."""
    made = _constants if torch.compiler.is_compiling() else _kept_constants
    return made(size, reference, like.device, like.dtype)


def offsets(size: Size, reference: Size, device: torch.device) -> Tensor:
    """Offsets between tokens on a logarithmic scale, ``((2 height - 1) (2 width - 1), 2)``.

    ``sign(z) log2(1 + |z|) / 3`` with ``z = 8 offset / (reference - 1)``, in float32 as published.
    """
    axes = []
    for n, other in zip(size, reference, strict=True):
        z = torch.arange(1 - n, n, dtype=torch.float32, device=device) / max(other - 1, 1) * 8
        axes.append(z.sign() * torch.log2(z.abs() + 1) / math.log2(8))
    return torch.cartesian_prod(*axes)


def offset_of_pairs(size: Size, device: torch.device) -> Tensor:
    """Number of the offset a - b among those of ``offsets``, for each pair of tokens (a, b), ``(tokens^2,)``."""
    height, width = size
    y = torch.arange(height, device=device).repeat_interleave(width)
    x = torch.arange(width, device=device).repeat(height)
    down, right = (t[:, None] - t[None, :] + n - 1 for t, n in ((y, height), (x, width)))
    return (down * (2 * width - 1) + right).flatten()


def _constants(size: Size, reference: Size, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    table = F.pad(offsets(size, reference, device).to(dtype), (0, 1), value=1.0)
    return table, LARGEST * table.t(), offset_of_pairs(size, device)


@functools.lru_cache(maxsize=32)
def _kept_constants(
    size: Size, reference: Size, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode(False):  # training may use them after an evaluation has made them
        return _constants(size, reference, device, dtype)


def _sigmoids(hidden: Tensor, last: Tensor) -> Tensor:
    """``(heads, offsets)`` of hidden values ``(offsets, hidden)``."""
    # The few heads come first here and below: libraries are slower for long, thin products.
    return torch.sigmoid(linear(last, hidden))


def _of_pairs(values: Tensor, position: Tensor) -> Tensor:
    # After the sigmoid, because there are many more pairs than offsets.
    tokens = math.isqrt(len(position))
    return values.index_select(1, position).view(-1, tokens, tokens)


# --------------------------------------------------------------------------------- the same with a backward by hand


class Biased(NamedTuple):
    """What the backward pass needs: weight and shift side by side ``(hidden, 3)``, the sigmoids ``(heads, offsets)``,
    and the constants."""

    both: Tensor
    sigmoids: Tensor
    table: Tensor
    scaled: Tensor
    position: Tensor


def make_bias(weight: Tensor, shift: Tensor, last: Tensor, size: Size, reference: Size) -> tuple[Tensor, Biased]:
    """``position_bias``, and what its gradients need; not differentiable by torch."""
    kept = constants(size, reference, weight)
    both = torch.cat((weight, shift.unsqueeze(1)), 1)
    sigmoids = _sigmoids(linear(kept[0], both).relu_(), last)
    return _of_pairs(sigmoids * LARGEST, kept[2]), Biased(both, sigmoids, *kept)


def bias_gradients(gradient: Tensor, kept: Biased, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``make_bias`` with respect to ``weight``, ``shift`` and ``last``, by one product instead of three.

    With slopes S of what the sigmoids were taken of (heads x offsets), offsets T (with the ones) and M = 1 where a
    hidden value is on, all three gradients are sums over ``G[h, c, j] = sum_o S[h, o] T[o, c] M[o, j]``. The hidden
    values are many, and soon made again.
    """
    both, sigmoids, table, scaled, position = kept
    slope = torch.zeros_like(sigmoids).index_add_(1, position, gradient.flatten(1))
    sigmoid_backward(slope, sigmoids, grad_input=slope)
    on = linear(table, both).gt_(0)
    sums = linear((slope.unsqueeze(1) * scaled).flatten(0, 1), on.t()).view(len(slope), 3, -1)
    into_last = (sums * both.t()).sum(1)
    into_both = (sums * last.unsqueeze(1)).sum(0)
    return into_both[:2].t(), into_both[2], into_last


sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input

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
    down, right, *_ = constants(size, reference, weight)
    rows, columns = _along_axes(weight, shift, down, right)
    return _of_pairs(_sigmoids((rows + columns).relu_(), last) * LARGEST, size)


def offsets(size: Size, reference: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Offsets between tokens on a logarithmic scale, down ``(2 height - 1,)`` and right ``(2 width - 1,)``.

    ``sign(z) log2(1 + |z|) / 3`` with ``z = 8 offset / (reference - 1)``, in float32 as published.
    """
    axes = []
    for n, other in zip(size, reference, strict=True):
        z = torch.arange(1 - n, n, dtype=torch.float32, device=device) / max(other - 1, 1) * 8
        axes.append(z.sign() * torch.log2(z.abs() + 1) / math.log2(8))
    return axes[0], axes[1]


def offset_of_pairs(size: Size, device: torch.device) -> Tensor:
    """Number of the offset a - b among all pairs of ``offsets``, for each pair of tokens (a, b), ``(tokens^2,)``."""
    height, width = size
    y = torch.arange(height, device=device).repeat_interleave(width)
    x = torch.arange(width, device=device).repeat(height)
    down, right = (t[:, None] - t[None, :] + n - 1 for t, n in ((y, height), (x, width)))
    return (down * (2 * width - 1) + right).flatten()


class Constants(NamedTuple):
    """The offsets down and right as columns; all their pairs, with a row of ones whose weight is the shift, times the
    largest bias, ``(3, offsets)``; and the number of the offset of each pair of tokens."""

    down: Tensor
    right: Tensor
    scaled: Tensor
    position: Tensor


def constants(size: Size, reference: Size, like: Tensor) -> Constants:
    """Of windows of ``size`` tokens, in the type of ``like`` and where it is."""
    made = _constants if torch.compiler.is_compiling() else _kept_constants
    return made(size, reference, like.device, like.dtype)


def _constants(size: Size, reference: Size, device: torch.device, dtype: torch.dtype) -> Constants:
    down, right = (axis.to(dtype) for axis in offsets(size, reference, device))
    pairs = F.pad(torch.cartesian_prod(down, right), (0, 1), value=1.0)
    return Constants(down.unsqueeze(1), right.unsqueeze(1), LARGEST * pairs.t(), offset_of_pairs(size, device))


@functools.lru_cache(maxsize=32)
def _kept_constants(size: Size, reference: Size, device: torch.device, dtype: torch.dtype) -> Constants:
    with torch.inference_mode(False):  # training may use them after an evaluation has made them
        return _constants(size, reference, device, dtype)


def _along_axes(weight: Tensor, shift: Tensor, down: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of what the relu is taken of, ``(rows, 1, hidden)`` and ``(columns, hidden)``."""
    by_row, by_column = weight.unbind(1)
    return torch.addcmul(shift, down, by_row).unsqueeze(1), right * by_column


def _sigmoids(hidden: Tensor, last: Tensor) -> Tensor:
    """``(heads, offsets)`` of hidden values ``(rows, columns, hidden)``."""
    # The few heads come first here and below: libraries are slower for long, thin products.
    return torch.sigmoid(linear(last, hidden.flatten(0, 1)))


def _of_pairs(values: Tensor, size: Size) -> Tensor:
    """Values of all offsets ``(heads, offsets)`` to ``(heads, tokens, tokens)``."""
    # After the sigmoid, because there are many more pairs than offsets. The offset grows with the first token and falls
    # with the second: a window that slides over the values, turned around.
    (height, width), tokens = size, size[0] * size[1]
    slid = values.unflatten(1, (2 * height - 1, -1)).unfold(1, height, 1).unfold(2, width, 1)
    return slid.flip(3, 4).reshape(-1, tokens, tokens)


# --------------------------------------------------------------------------------- the same with a backward by hand


class Biased(NamedTuple):
    """What the backward pass needs: the two terms of the hidden values, the sigmoids ``(heads, offsets)``, and the last
    two constants."""

    rows: Tensor
    columns: Tensor
    sigmoids: Tensor
    scaled: Tensor
    position: Tensor


def make_bias(weight: Tensor, shift: Tensor, last: Tensor, size: Size, reference: Size) -> tuple[Tensor, Biased]:
    """``position_bias``, and what its gradients need; not differentiable by torch."""
    down, right, scaled, position = constants(size, reference, weight)
    rows, columns = _along_axes(weight, shift, down, right)
    sigmoids = _sigmoids(add_relu(rows, columns), last)
    return _of_pairs(sigmoids * LARGEST, size), Biased(rows, columns, sigmoids, scaled, position)


def bias_gradients(
    gradient: Tensor, kept: Biased, weight: Tensor, shift: Tensor, last: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``make_bias`` with respect to ``weight``, ``shift`` and ``last``, by one product instead of three.

    With slopes S of what the sigmoids were taken of (heads x offsets), offsets T (with the ones) and M = 1 where a
    hidden value is on, all three gradients are sums over ``G[h, c, j] = sum_o S[h, o] T[o, c] M[o, j]``. The hidden
    values are many, and which are on is soon found again.
    """
    rows, columns, sigmoids, scaled, position = kept
    slope = torch.zeros_like(sigmoids).index_add_(1, position, gradient.flatten(1))
    sigmoid_backward(slope, sigmoids, grad_input=slope)
    on = rows.new_empty(rows.shape[0], *columns.shape)
    torch.gt(rows, -columns, out=on)
    sums = linear((slope.unsqueeze(1) * scaled).flatten(0, 1), on.flatten(0, 1).t()).view(len(slope), 3, -1)
    into_last = (sums * torch.cat((weight.t(), shift.unsqueeze(0)))).sum(1)
    into_both = (sums * last.unsqueeze(1)).sum(0)
    return into_both[:2].t(), into_both[2], into_last


add_relu = torch.ops.aten._add_relu.Tensor
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input

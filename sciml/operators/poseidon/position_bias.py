"""The continuous position bias of attention (Liu et al. 2022, arXiv:2111.09883), and its own backward pass."""

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.layers.linear import linear, transformed
from sciml.operators.poseidon.windows import Size


def position_bias(weight: Tensor, shift: Tensor, last: Tensor, size: Size, reference: Size) -> Tensor:
    """``16 sigmoid(last relu(weight offset + shift))`` of each pair of tokens, ``(heads, tokens, tokens)``.

    Args:
        weight, shift, last: the network's parameters, ``(hidden, 2)``, ``(hidden,)`` and ``(heads, hidden)``.
        size: tokens along the sides of the window.
        reference: the sides that offsets are measured by.

    The biases of all blocks are a good part of a step on a small batch: on a CPU the backward pass is our own, with one
    product instead of three.
    """
    constants = _constants if torch.compiler.is_compiling() else _kept_constants
    table, position = constants(size, reference, weight.device, weight.dtype)
    parameters = (weight, shift, last)
    wanted = torch.is_grad_enabled() and any(t.requires_grad for t in parameters)
    if wanted and weight.device.type == "cpu" and not transformed():
        return _PositionBias.apply(*parameters, table, position)
    return _plain(*parameters, table, position)


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


def _constants(size: Size, reference: Size, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # With a column of ones, whose weight is the shift.
    table = F.pad(offsets(size, reference, device).to(dtype), (0, 1), value=1.0)
    return table, offset_of_pairs(size, device)


@functools.lru_cache(maxsize=32)
def _kept_constants(size: Size, reference: Size, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # training may use them after an evaluation has made them
        return _constants(size, reference, device, dtype)


def _hidden(weight: Tensor, shift: Tensor, table: Tensor) -> Tensor:
    """``(offsets, hidden)`` before the relu."""
    return linear(table, torch.cat((weight, shift.unsqueeze(1)), 1))


def _values(hidden: Tensor, last: Tensor) -> Tensor:
    """``(heads, offsets)`` of hidden values ``(offsets, hidden)``."""
    # The few heads come first here and below: libraries are slower for long, thin products.
    return 16 * torch.sigmoid(linear(last, hidden))


def _plain(weight: Tensor, shift: Tensor, last: Tensor, table: Tensor, position: Tensor) -> Tensor:
    return _of_pairs(_values(_hidden(weight, shift, table).relu(), last), position)


def _of_pairs(values: Tensor, position: Tensor) -> Tensor:
    # After the sigmoid, because there are many more pairs than offsets.
    tokens = math.isqrt(len(position))
    return values.index_select(1, position).view(-1, tokens, tokens)


class _PositionBias(torch.autograd.Function):
    """Remembers which hidden values are on, which is all of them that its gradients need.

    With slopes S of the answers (heads x offsets), offsets T (with the ones) and M = 1 where a hidden value is on, all
    three gradients are sums over ``G[h, c, j] = sum_o S[h, o] T[o, c] M[o, j]``.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, shift: Tensor, last: Tensor, table: Tensor, position: Tensor) -> Tensor:
        hidden = _hidden(weight, shift, table).relu_()
        values = _values(hidden, last)
        ctx.save_for_backward(weight, shift, last, table, position, values, hidden.gt_(0))
        return _of_pairs(values, position)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, shift, last, table, position, values, on = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: these gradients are differentiated themselves
            parameters = (weight, shift, last)
            wanted = [t for t, needed in zip(parameters, ctx.needs_input_grad, strict=False) if needed]
            bias = _plain(*parameters, table, position)
            found = iter(torch.autograd.grad(bias, wanted, gradient, create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None
        slope = torch.zeros_like(values).index_add_(1, position, gradient.flatten(1))
        slope.mul_(values).mul_(1 - values / 16)
        sums = linear((slope.unsqueeze(1) * table.t()).flatten(0, 1), on.t()).unflatten(0, (len(slope), -1))
        into_last = (sums * torch.cat((weight.t(), shift.unsqueeze(0)))).sum(1)
        into_both = (sums * last.unsqueeze(1)).sum(0)
        return into_both[:2].t(), into_both[2], into_last, None, None

"""Messages between the cells of a grid: every neighbour of all cells is one shifted copy, so nothing is gathered."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.layers.linear import transformed

Window = tuple[tuple[slice, ...], tuple[slice, ...]]
"""The receivers that have a neighbour at one offset, and these neighbours: slices of the batch and the grid's axes."""


def sum_of_messages(
    receivers: Tensor, senders: Tensor, scale: Tensor, shift: Tensor, windows: Sequence[Window]
) -> Tensor:
    """``sum_k relu(r_i + scale_k s_(i + k) + shift_k)`` over the neighbours k that a cell has.

    Args:
        receivers: ``(B, *grid, channels)``.
        senders: ``(B, *padded, channels)``; where the box is periodic the grid is continued.
        scale, shift: of each offset ``(K, channels)``.
        windows: of each offset, slices of the grid and of the padded one.

    Returns ``(B, *grid, channels)``.
    """
    if transformed():
        return _plain(receivers, senders, scale, shift, windows)
    return _Sum.apply(receivers, senders, scale, shift, windows)


def _plain(receivers: Tensor, senders: Tensor, scale: Tensor, shift: Tensor, windows: Sequence[Window]) -> Tensor:
    """By operations that compilers and ``torch.func`` know; it keeps every message for the backward pass."""
    total = torch.zeros_like(receivers)
    for k, (to, of) in enumerate(windows):
        message = F.relu(torch.addcmul(receivers[to], senders[of], scale[k]) + shift[k])
        total = total + F.pad(message, _around(to, receivers.shape[1:-1]))
    return total


def _around(window: tuple[slice, ...], grid: Sequence[int]) -> list[int]:
    """Argument of ``F.pad`` that puts the values of a window back into their grid."""
    axes = zip(window[:0:-1], grid[::-1], strict=True)
    return [0, 0, *(n for part, size in axes for n in (part.start, size - part.stop))]


class _Sum(torch.autograd.Function):
    """Messages are made again in the backward pass instead of being kept: faster, and of an eighth the memory in 2D,
    because no copy is ever as large as all messages.
    """

    @staticmethod
    def forward(ctx, receivers: Tensor, senders: Tensor, scale: Tensor, shift: Tensor, windows) -> Tensor:
        ctx.save_for_backward(receivers, senders, scale, shift)
        ctx.windows = windows
        total = torch.zeros_like(receivers)
        for k, (to, of) in enumerate(windows):
            message = torch.addcmul(receivers[to], senders[of], scale[k]).add_(shift[k]).relu_()
            total[to].add_(message)  # not total[to] += message, which would copy the sum onto itself
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        receivers, senders, scale, shift = ctx.saved_tensors
        into_receivers, into_senders = torch.zeros_like(receivers), torch.zeros_like(senders)
        into_scale, into_shift = [], []
        channels = receivers.shape[-1]
        for k, (to, of) in enumerate(ctx.windows):
            sent = senders[of]
            before = torch.addcmul(receivers[to], sent, scale[k]).add(shift[k])
            passed = torch.ops.aten.threshold_backward(gradient[to], before, 0)
            into_receivers[to].add_(passed)
            into_senders[of].addcmul_(passed, scale[k])
            into_shift.append(passed.reshape(-1, channels).sum(0))
            into_scale.append((passed * sent).reshape(-1, channels).sum(0))
        return into_receivers, into_senders, torch.stack(into_scale), torch.stack(into_shift), None

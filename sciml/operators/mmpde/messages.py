"""Messages between the cells of a grid: every neighbour of all cells is one shifted copy, so nothing is gathered."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sciml.operators.layers.linear import transformed
from sciml.operators.layers.own_backward import gradients_by_torch

Window = tuple[tuple[slice, ...], tuple[slice, ...]]
"""The receivers that have a neighbour at one offset, and these neighbours: slices of the batch and the grid's axes."""


def sum_of_messages(
    receivers: Tensor, values: Tensor, continued: Tensor, scale: Tensor, shift: Tensor, windows: Sequence[Window]
) -> Tensor:
    """``sum_k relu(r_i + scale_k (v_(i + k) - v_i) + shift_k)`` over the neighbours k that a cell has.

    Args:
        receivers, values: r and v, ``(B, *grid, channels)``.
        continued: the values once more, with the layers in front and behind that they have where the box is periodic
            ``(B, *padded, channels)``.
        scale, shift: of each offset ``(K, channels)``.
        windows: of each offset, slices of the grid and of the padded one.

    Returns ``(B, *grid, channels)``.
    """
    if transformed():
        return _plain(receivers, values, continued, scale, shift, windows)
    return _Sum.apply(receivers, values, continued, scale, shift, windows)


def _plain(
    receivers: Tensor, values: Tensor, continued: Tensor, scale: Tensor, shift: Tensor, windows: Sequence[Window]
) -> Tensor:
    """By operations that compilers and ``torch.func`` know; it keeps every message for the backward pass."""
    total = torch.zeros_like(receivers)
    for k, (to, of) in enumerate(windows):
        message = F.relu(torch.addcmul(receivers[to], continued[of] - values[to], scale[k]) + shift[k])
        total = total + F.pad(message, _around(to, receivers.shape[1:-1]))
    return total


def _around(window: tuple[slice, ...], grid: Sequence[int]) -> list[int]:
    """Argument of ``F.pad`` that puts the values of a window back into their grid."""
    axes = zip(window[:0:-1], grid[::-1], strict=True)
    return [0, 0, *(n for part, size in axes for n in (part.start, size - part.stop))]


class _Sum(torch.autograd.Function):
    """Messages are made again in the backward pass instead of being kept: faster, and of an eighth the memory in 2D,
    because no copy is ever as large as all messages. They are made in place: arrays that are new for each neighbour
    take longer to write, for the pages that they are given.
    """

    @staticmethod
    def forward(ctx, receivers: Tensor, values: Tensor, continued: Tensor, scale: Tensor, shift: Tensor, windows):
        ctx.save_for_backward(receivers, values, continued, scale, shift)
        ctx.windows = windows
        total, room = torch.zeros_like(receivers), torch.empty_like(receivers)
        for k, (to, of) in enumerate(windows):
            apart = torch.sub(continued[of], values[to], out=room[to])
            message = torch.addcmul(receivers[to], apart, scale[k], out=apart).add_(shift[k]).relu_()
            total[to].add_(message)  # not total[to] += message, which would copy the sum onto itself
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph

            def plain(*tensors: Tensor) -> Tensor:
                return _plain(*tensors, ctx.windows)

            return *gradients_by_torch(plain, ctx.saved_tensors, ctx.needs_input_grad[:5], gradient), None
        receivers, values, continued, scale, shift = ctx.saved_tensors
        into_receivers, into_values = torch.zeros_like(receivers), torch.zeros_like(values)
        into_continued, into_scale, into_shift = torch.zeros_like(continued), [], []
        room, other_room = torch.empty_like(receivers), torch.empty_like(receivers)
        nodes = tuple(range(receivers.ndim - 1))
        for k, (to, of) in enumerate(ctx.windows):
            apart = torch.sub(continued[of], values[to], out=room[to])
            message = torch.addcmul(receivers[to], apart, scale[k], out=other_room[to]).add_(shift[k])
            passed = threshold_backward(gradient[to], message, 0, grad_input=message)
            into_receivers[to].add_(passed)
            into_shift.append(passed.sum(nodes))
            into_scale.append(apart.mul_(passed).sum(nodes))
            sent = passed.mul_(scale[k])
            into_continued[of].add_(sent)
            into_values[to].sub_(sent)
        return into_receivers, into_values, into_continued, torch.stack(into_scale), torch.stack(into_shift), None


threshold_backward = torch.ops.aten.threshold_backward.grad_input

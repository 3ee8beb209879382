"""The two halves of a block, ``x + norm(attention(x))`` and ``x + norm(MLP(x))``, with backward passes by hand.

On a CPU a step on a small batch spends a good part of its time on the bookkeeping of hundreds of small operations. A
branch that is one operation to autograd saves most of that. What it computes is what the modules compute; they are
called where a branch does not apply (``branch_applies``), and to differentiate its gradients.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.operators.layers.linear import Linear, input_gradient, linear, transformed, untouched, weight_gradient
from sciml.operators.layers.own_backward import gradients_by_torch
from sciml.operators.poseidon.attention import (
    LARGEST_SCALE,
    AttentionTensors,
    WindowAttention,
    projection_gradients,
    projections,
    scale_of,
)
from sciml.operators.poseidon.fused_attention import Attended, attend, attention_gradients, cosine_attention
from sciml.operators.poseidon.norms import (
    Condition,
    ConditionedNorm,
    Normed,
    NormTensors,
    PlainNorm,
    affine_of_time,
    apply_norm,
    norm_gradients,
    norm_of_samples,
)
from sciml.operators.poseidon.position_bias import Biased, bias_gradients, make_bias, position_bias
from sciml.operators.poseidon.windows import Size, partition, unpartition

KNOWN = (Linear, nn.Linear, WindowAttention, ConditionedNorm, PlainNorm)


def branch_applies(x: Tensor, condition: Condition, modules: list[nn.Module]) -> bool:
    """Whether a branch of these modules is computed in one.

    Only to be differentiated; not where others have replaced a module or hooked onto it, nor where torch transforms or
    compiles the code.
    """
    time = condition.time
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and not (time is not None and time.requires_grad)
        and not transformed()
        and not torch.is_autocast_enabled("cpu")
        and all(untouched(module, KNOWN) for module in modules)
    )


class AttentionSettings(NamedTuple):
    """Tokens of the grid, of a window and of the shift, what the bias measures offsets by, the number of heads, the
    mask of the shift, the norm's epsilon, and the factor of each sample's branch."""

    grid: Size
    window: Size
    shift: Size
    reference: Size
    heads: int
    mask: Tensor | None
    eps: float
    kept: Tensor | None


def attention_branch(
    settings: AttentionSettings, x: Tensor, time: Tensor | None, tensors: AttentionTensors, norm: NormTensors
) -> Tensor:
    """``x + kept norm(attention(x))`` of ``x (B, height, width, channels)``."""
    return _AttentionBranch.apply(settings, x, time, *tensors, *norm)


class MlpSettings(NamedTuple):
    """The norm's epsilon, and the factor of each sample's branch."""

    eps: float
    kept: Tensor | None


def mlp_branch(
    settings: MlpSettings, x: Tensor, time: Tensor | None, tensors: "MlpTensors", norm: NormTensors
) -> Tensor:
    """``x + kept norm(second gelu(first x + first_bias) + second_bias)`` of ``x (B, *, channels)``."""
    return _MlpBranch.apply(settings, x, time, *tensors, *norm)


class MlpTensors(NamedTuple):
    """Weights ``(out, in)`` and biases ``(out,)`` of two layers."""

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor


class _MlpBranch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, settings: MlpSettings, x: Tensor, time: Tensor | None, *tensors: Tensor | None) -> Tensor:
        mlp, norm = MlpTensors(*tensors[:4]), NormTensors(*tensors[4:])
        hidden = linear(x, mlp.first, mlp.first_bias)
        active = F.gelu(hidden)
        out, normed = apply_norm(linear(active, mlp.second, mlp.second_bias), norm, time, settings.eps)
        ctx.settings = settings
        ctx.save_for_backward(x, time, *tensors, hidden, active, *normed)
        return _scaled(out, settings.kept).add_(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, settings, needed = ctx.saved_tensors, ctx.settings, ctx.needs_input_grad
        inputs, (hidden, active, *normed) = saved[:10], saved[10:]
        if torch.is_grad_enabled():  # create_graph
            return None, *gradients_by_torch(_plain_mlp(settings), inputs, needed[1:], gradient)
        x, time, first, _, second, *_ = inputs
        into_made, into_norm = norm_gradients(
            _scaled(gradient, settings.kept), Normed(*normed), NormTensors(*inputs[6:]), time
        )
        into_hidden = input_gradient(into_made, second)
        gelu_backward(into_hidden, hidden, grad_input=into_hidden)
        return (
            None,
            input_gradient(into_hidden, first).add_(gradient) if needed[1] else None,
            None,
            *_layer_gradients(into_hidden, x, needed[3:5]),
            *_layer_gradients(into_made, active, needed[5:7]),
            *_only(needed[7:], into_norm),
        )


def _plain_mlp(settings: MlpSettings) -> Callable[..., Tensor]:
    def plain(x: Tensor, time: Tensor | None, *tensors: Tensor | None) -> Tensor:
        mlp, norm = MlpTensors(*tensors[:4]), NormTensors(*tensors[4:])
        hidden = F.gelu(linear(x, mlp.first, mlp.first_bias))
        made = linear(hidden, mlp.second, mlp.second_bias)
        return add_branch(x, _plain_norm(made, norm, time, settings.eps), settings.kept)

    return plain


class _AttentionBranch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, settings: AttentionSettings, x: Tensor, time: Tensor | None, *tensors: Tensor | None) -> Tensor:
        own, norm = AttentionTensors(*tensors[:11]), NormTensors(*tensors[11:])
        grid, window, shift, reference, heads, mask, eps, _ = settings
        windows = partition(x, window, shift)
        bias, biased = make_bias(own.weight, own.shift, own.last, window, reference)
        qkv = projections(windows, *own[:5]).unflatten(3, (3, heads, -1))
        found, attended = attend(qkv, scale_of(own.logit_scale), bias, mask)
        found = found.reshape(windows.shape)
        made = unpartition(linear(found, own.out, own.out_bias), grid, window, shift)
        out, normed = apply_norm(made, norm, time, eps)
        ctx.settings = settings
        ctx.save_for_backward(x, time, *tensors, windows, found, *biased, *attended, *normed)
        return _scaled(out, settings.kept).add_(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, settings, needed = ctx.saved_tensors, ctx.settings, ctx.needs_input_grad
        inputs, (windows, found, *kept) = saved[:17], saved[17:]
        if torch.is_grad_enabled():  # create_graph
            return None, *gradients_by_torch(_plain_attention(settings), inputs, needed[1:], gradient)
        time, own = inputs[1], AttentionTensors(*inputs[2:13])
        grid, window, shift, *_ = settings
        into_made, into_norm = norm_gradients(
            _scaled(gradient, settings.kept), Normed(*kept[9:]), NormTensors(*inputs[13:]), time
        )
        into_made = partition(into_made, window, shift)  # the adjoint of putting the windows back
        into_found = input_gradient(into_made, own.out).unflatten(3, (settings.heads, -1))
        into_qkv, into_log_scale, into_bias = attention_gradients(into_found, Attended(*kept[5:9]), settings.mask)
        into_qkv = into_qkv.reshape(*windows.shape[:3], -1)
        into_windows, *into_weights = projection_gradients(into_qkv, windows, own.query, own.key, own.value)
        into_x = unpartition(into_windows, grid, window, shift).add_(gradient)
        into_own = (
            *into_weights,
            into_log_scale * (own.logit_scale <= LARGEST_SCALE),
            *bias_gradients(into_bias, Biased(*kept[:5]), own.weight, own.shift, own.last),
            *_layer_gradients(into_made, found, needed[12:14]),
        )
        return None, into_x, None, *_only(needed[3:], (*into_own, *into_norm))


def _plain_attention(settings: AttentionSettings) -> Callable[..., Tensor]:
    def plain(x: Tensor, time: Tensor | None, *tensors: Tensor | None) -> Tensor:
        own, norm = AttentionTensors(*tensors[:11]), NormTensors(*tensors[11:])
        grid, window, shift, reference, heads, mask, eps, kept = settings
        windows = partition(x, window, shift)
        bias = position_bias(own.weight, own.shift, own.last, window, reference)
        qkv = projections(windows, *own[:5]).unflatten(3, (3, heads, -1))
        found = cosine_attention(qkv, scale_of(own.logit_scale), bias, mask).reshape(windows.shape)
        made = unpartition(linear(found, own.out, own.out_bias), grid, window, shift)
        return add_branch(x, _plain_norm(made, norm, time, eps), kept)

    return plain


def add_branch(x: Tensor, branch: Tensor, kept: Tensor | None) -> Tensor:
    """``x + kept branch``."""
    return x + _scaled(branch, kept)


def _scaled(branch: Tensor, kept: Tensor | None) -> Tensor:
    return branch if kept is None else kept * branch


def _plain_norm(x: Tensor, norm: NormTensors, time: Tensor | None, eps: float) -> Tensor:
    gain, shift = affine_of_time(norm.gain_slope, norm.gain, time), affine_of_time(norm.shift_slope, norm.shift, time)
    return norm_of_samples(x, gain, shift, eps)


def _layer_gradients(gradient: Tensor, x: Tensor, needed: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """Of the weight and the bias of a linear layer."""
    into_weight = weight_gradient(gradient, x) if needed[0] else None
    return into_weight, gradient.sum(tuple(range(gradient.ndim - 1))) if needed[1] else None


def _only(needed: Sequence[bool], gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [g if is_needed else None for g, is_needed in zip(gradients, needed, strict=True)]


gelu_backward = torch.ops.aten.gelu_backward.grad_input

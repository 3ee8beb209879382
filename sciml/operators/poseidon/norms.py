"""Layer norm whose gain and shift are affine functions of the lead time (and of physical parameters)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Condition(NamedTuple):
    """What the norms are conditioned on: lead time ``(B, 1)`` and embedded parameters ``(B, K)``; None: not at all."""

    time: Tensor | None
    parameters: Tensor | None


class AffineOfTime(nn.Module):
    """``b + w t``, or the constant b in a network that knows no time."""

    def __init__(self, channels: int, timed: bool) -> None:
        super().__init__()
        self.register_parameter("weight", nn.Parameter(torch.empty(channels, 1)) if timed else None)
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, time: Tensor | None) -> Tensor:
        return affine_of_time(self.weight, self.bias, time)

    def reset(self, deviation: float, offset: float) -> None:
        """Initial weights: a normal slope, a constant offset."""
        if self.weight is not None:
            nn.init.normal_(self.weight, 0.0, deviation)
        nn.init.constant_(self.bias, offset)


def affine_of_time(slope: Tensor | None, offset: Tensor, time: Tensor | None) -> Tensor:
    """``(B, channels)``, or ``(1, channels)`` where nothing depends on the time; an offset of each sample stays."""
    if offset.ndim == 2:
        return offset
    if time is None or slope is None:
        return offset.unsqueeze(0)
    return torch.addcmul(offset, time, slope.t())


class NormTensors(NamedTuple):
    """What a norm is made of: slopes in time ``(channels, 1)`` or None, offsets ``(channels,)``; with physical
    parameters no slopes, and the gain and the shift of each sample ``(B, channels)``."""

    gain_slope: Tensor | None
    gain: Tensor
    shift_slope: Tensor | None
    shift: Tensor


class ConditionedNorm(nn.Module):
    """``g(t, mu) (x - mean) / sqrt(var + eps) + b(t, mu)`` over the channels of ``x (B, *, channels)``.

    ``g`` and ``b`` are affine in the lead time t, as published (Herde et al. 2024, arXiv:2405.19101); embedded physical
    parameters mu add a linear term (ours), which is zero in a network that starts from weights without it.
    """

    def __init__(self, channels: int, eps: float, timed: bool, embedding: int, gain: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = gain
        self.weight = AffineOfTime(channels, timed)
        self.bias = AffineOfTime(channels, timed)
        self.parameters_weight = nn.Linear(embedding, 2 * channels, bias=False) if embedding else None

    def reset(self, deviation: float) -> None:
        """Initial weights: slopes normal, offsets zero except the gain's."""
        self.weight.reset(deviation, self.gain)
        self.bias.reset(deviation, 0.0)
        if self.parameters_weight is not None:
            nn.init.normal_(self.parameters_weight.weight, 0.0, deviation)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        return norm_of_samples(x, *self._affine(condition), self.eps)

    def _affine(self, condition: Condition) -> tuple[Tensor, Tensor]:
        gain, shift = self.weight(condition.time), self.bias(condition.time)
        if self.parameters_weight is not None:
            more_gain, more_shift = self.parameters_weight(condition.parameters).chunk(2, -1)
            gain, shift = gain + more_gain, shift + more_shift
        return gain, shift

    def tensors(self, condition: Condition) -> NormTensors:
        """What it is made of under this condition."""
        if self.parameters_weight is None:
            return NormTensors(self.weight.weight, self.weight.bias, self.bias.weight, self.bias.bias)
        gain, shift = self._affine(condition)
        return NormTensors(None, gain, None, shift)


class PlainNorm(nn.LayerNorm):
    """The same without conditioning."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)

    def reset(self, deviation: float) -> None:
        """Initial weights: gain 1, shift 0."""
        self.reset_parameters()

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        return super().forward(x)

    def tensors(self, condition: Condition) -> NormTensors:
        """What it is made of."""
        return NormTensors(None, self.weight, None, self.bias)


def norm_of_samples(x: Tensor, gain: Tensor, shift: Tensor, eps: float) -> Tensor:
    """The norm of ``x (B, *, channels)`` with a gain and a shift for each sample or one for all."""
    channels = x.shape[-1:]
    if gain.shape[0] == 1 and gain.dtype == x.dtype:
        return F.layer_norm(x, channels, gain.squeeze(0), shift.squeeze(0), eps)
    shape = (gain.shape[0], *(1,) * (x.ndim - 2), *channels)
    return torch.addcmul(shift.view(shape), F.layer_norm(x, channels, eps=eps), gain.view(shape))


# --------------------------------------------------------------------------------- the same with a backward by hand


class Normed(NamedTuple):
    """What the backward pass needs of a norm: what went in ``(B, *, channels)``, mean and 1 / deviation of each token,
    gain and shift ``(channels,)`` or, if each sample has its own, ``(B, channels)``."""

    x: Tensor
    mean: Tensor
    scale: Tensor
    gain: Tensor
    shift: Tensor


def apply_norm(x: Tensor, tensors: NormTensors, time: Tensor | None, eps: float) -> tuple[Tensor, Normed]:
    """The norm, and what its gradients need; not differentiable by torch."""
    gain = affine_of_time(tensors.gain_slope, tensors.gain, time)
    shift = affine_of_time(tensors.shift_slope, tensors.shift, time)
    channels = x.shape[-1:]
    if gain.shape[0] == 1:
        gain, shift = gain[0], shift[0]
        out, mean, scale = torch.native_layer_norm(x, channels, gain, shift, eps)
        return out, Normed(x, mean, scale, gain, shift)
    out, mean, scale = torch.native_layer_norm(x, channels, None, None, eps)
    shape = (gain.shape[0], *(1,) * (x.ndim - 2), *channels)
    torch.addcmul(shift.view(shape), out, gain.view(shape), out=out)
    return out, Normed(x, mean, scale, gain, shift)


def norm_gradients(
    gradient: Tensor, kept: Normed, tensors: NormTensors, time: Tensor | None
) -> tuple[Tensor, NormTensors]:
    """Gradients of ``apply_norm`` with respect to x and to the tensors."""
    x, mean, scale, gain, shift = kept
    if gain.ndim == 1:
        into_x, into_gain, into_shift = _kernel(gradient, x, mean, scale, gain, shift)
        slopes = [None, None]
        if tensors.gain_slope is not None and time is not None:
            slopes = [t.unsqueeze(1) * time for t in (into_gain, into_shift)]
        into_gain, into_shift = into_gain.view_as(tensors.gain), into_shift.view_as(tensors.shift)
        return into_x, NormTensors(slopes[0], into_gain, slopes[1], into_shift)
    # Sample by sample: torch's kernel takes one gain, and what it reads twice stays in the cache.
    parts = [_kernel(*sample) for sample in zip(gradient, x, mean, scale, gain, shift, strict=True)]
    into_x, into_gain, into_shift = (torch.stack(each) for each in zip(*parts, strict=True))
    if tensors.gain.ndim == 2:
        return into_x, NormTensors(None, into_gain, None, into_shift)
    return into_x, NormTensors(into_gain.t() @ time, into_gain.sum(0), into_shift.t() @ time, into_shift.sum(0))


def _kernel(
    gradient: Tensor, x: Tensor, mean: Tensor, scale: Tensor, gain: Tensor, shift: Tensor
) -> tuple[Tensor, ...]:
    return layer_norm_backward(gradient, x, x.shape[-1:], mean, scale, gain, shift, [True, True, True])


layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default

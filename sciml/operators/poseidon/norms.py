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
        if time is None or self.weight is None:
            return self.bias.unsqueeze(0)
        slope = self.weight.squeeze(1)
        if time.shape[0] == 1:  # no batch that the backward pass would have to sum over
            return torch.addcmul(self.bias, time.squeeze(), slope).unsqueeze(0)
        return torch.addcmul(self.bias, time, slope)

    def reset(self, deviation: float, offset: float) -> None:
        """Initial weights: a normal slope, a constant offset."""
        if self.weight is not None:
            nn.init.normal_(self.weight, 0.0, deviation)
        nn.init.constant_(self.bias, offset)


class ConditionedNorm(nn.Module):
    """``g(t, mu) (x - mean) / sqrt(var + eps) + b(t, mu)`` over the channels of ``x (B, *, channels)``.

    ``g`` and ``b`` are affine in the lead time t, as published (Herde et al. 2024, arXiv:2405.19101); embedded physical
    parameters mu add a linear term (ours), which is zero in a network that starts from weights without it.
    """

    def __init__(self, channels: int, eps: float, timed: bool, embedding: int, gain: float) -> None:
        super().__init__()
        self.channels = channels
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
        gain, shift = self.weight(condition.time), self.bias(condition.time)
        if self.parameters_weight is not None:
            more_gain, more_shift = self.parameters_weight(condition.parameters).chunk(2, -1)
            gain, shift = gain + more_gain, shift + more_shift
        if x.shape[0] == 1 and gain.dtype == x.dtype:
            return F.layer_norm(x, (self.channels,), gain.squeeze(0), shift.squeeze(0), self.eps)
        shape = (gain.shape[0], *(1,) * (x.ndim - 2), self.channels)
        normal = F.layer_norm(x, (self.channels,), eps=self.eps)
        return torch.addcmul(shift.view(shape), normal, gain.view(shape))


class PlainNorm(nn.LayerNorm):
    """The same without conditioning."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)

    def reset(self, deviation: float) -> None:
        """Initial weights: gain 1, shift 0."""
        self.reset_parameters()

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        return super().forward(x)

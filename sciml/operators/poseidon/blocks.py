"""The pieces of the U: Swin blocks, residual blocks of the skips, merging and unmerging of tokens.

Tokens are ``(B, height, width, C)`` throughout; modules carry the published tensor names.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.operators.layers.linear import Linear, linear_gelu, untouched
from sciml.operators.poseidon.attention import WindowAttention
from sciml.operators.poseidon.branches import (
    AttentionSettings,
    MlpSettings,
    MlpTensors,
    add_branch,
    attention_branch,
    branch_applies,
    mlp_branch,
)
from sciml.operators.poseidon.config import PoseidonConfig
from sciml.operators.poseidon.norms import Condition, ConditionedNorm, PlainNorm
from sciml.operators.poseidon.windows import Size, partition, shift_mask, unpartition, window_and_shift

TOKEN_NORM_EPS = 1e-5
"""Epsilon of the norms after embedding, merging and unmerging; those of blocks have the configured one."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}
Norm = ConditionedNorm | PlainNorm


EMBEDDED_PARAMETERS = 64
"""Width of the embedding of physical parameters."""


def make_norm(config: PoseidonConfig, channels: int, eps: float) -> Norm:
    """A norm conditioned on what the configuration says."""
    timed, embedding = config.use_conditioning, EMBEDDED_PARAMETERS if config.n_parameters else 0
    if not timed and not embedding:
        return PlainNorm(channels, eps)
    return ConditionedNorm(channels, eps, timed, embedding, config.norm_gain if timed else 1.0)


def kept_samples(x: Tensor, rate: float, training: bool) -> Tensor | None:
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): the factor of a branch, which drops whole samples and
    scales up those that stay, ``(B, 1, ...)``; None: all stay."""
    if rate == 0 or not training:
        return None
    return x.new_empty(x.shape[0], *(1,) * (x.ndim - 1)).bernoulli_(1 - rate) / (1 - rate)


class SwinBlock(nn.Module):
    """``x + norm(attention(x))``, then ``x + norm(MLP(x))``: the norms come last, as in Swin V2.

    Args:
        shifted: whether its windows are shifted by half a window where there are several.
        reference: size of a window on the configured grid; no window is larger.
        drop: rate of stochastic depth.
    """

    def __init__(self, config: PoseidonConfig, level: int, shifted: bool, reference: Size, drop: float) -> None:
        super().__init__()
        channels = config.width(level)
        hidden = int(config.mlp_ratio * channels)
        self.shifted = shifted
        self.periodic = config.periodic
        self.reference = reference
        self.drop = drop
        self.activation = ACTIVATIONS[config.hidden_act]
        dropout = config.hidden_dropout_prob
        self.attention = WindowAttention(
            channels,
            config.num_heads[level],
            config.qkv_bias,
            config.attention_probs_dropout_prob,
            config.attention_probs_dropout_prob,
            reference,
        )
        self.layernorm_before = make_norm(config, channels, config.layer_norm_eps)
        self.layernorm_after = make_norm(config, channels, config.layer_norm_eps)
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense = Linear(channels, hidden)
        self.output.dense = Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, condition: Condition, tokens: Size) -> Tensor:
        """``tokens``: the nominal grid of the level, which sizes the windows (odd grids have one token more)."""
        grid = (x.shape[1], x.shape[2])
        window, shift = window_and_shift(tokens, self.reference)
        if not self.shifted:
            shift = (0, 0)
        mask = None if self.periodic else shift_mask(grid, window, shift, x)
        return self._mixed(self._attended(x, condition, window, shift, mask), condition)

    def _attended(self, x: Tensor, condition: Condition, window: Size, shift: Size, mask: Tensor | None) -> Tensor:
        grid, attention, norm = (x.shape[1], x.shape[2]), self.attention, self.layernorm_before
        kept = kept_samples(x, self.drop, self.training)
        if not self._drops(attention.weights_dropout) and branch_applies(x, condition, [*attention.parts(), norm]):
            settings = AttentionSettings(grid, window, shift, self.reference, attention.heads, mask, norm.eps, kept)
            return attention_branch(settings, x, condition.time, attention.tensors(), norm.tensors(condition))
        attended = attention(partition(x, window, shift), window, mask)
        return add_branch(x, norm(unpartition(attended, grid, window, shift), condition), kept)

    def _mixed(self, x: Tensor, condition: Condition) -> Tensor:
        first, second, norm = self.intermediate.dense, self.output.dense, self.layernorm_after
        kept = kept_samples(x, self.drop, self.training)
        is_gelu = self.activation is F.gelu
        if is_gelu and not self._drops(self.dropout.p) and branch_applies(x, condition, [first, second, norm]):
            tensors = MlpTensors(first.weight, first.bias, second.weight, second.bias)
            return mlp_branch(MlpSettings(norm.eps, kept), x, condition.time, tensors, norm.tensors(condition))
        if is_gelu and untouched(first, (Linear,)):
            hidden = linear_gelu(x, first.weight, first.bias)
        else:
            hidden = self.activation(first(x))
        return add_branch(x, norm(self.dropout(second(hidden)), condition), kept)

    def _drops(self, rate: float) -> bool:
        return self.training and rate > 0


class PeriodicConv2d(nn.Conv2d):
    """A convolution around a periodic box, which may have fewer cells than the kernel reaches."""

    def forward(self, x: Tensor) -> Tensor:
        reach = self.kernel_size[0] // 2
        for axis in (2, 3):
            around = torch.arange(-reach, x.shape[axis] + reach, device=x.device) % x.shape[axis]
            x = x.index_select(axis, around)
        return F.conv2d(x, self.weight, self.bias, groups=self.groups)


def convolution(config: PoseidonConfig, channels: int, kernel: int, **options: Any) -> nn.Conv2d:
    """Channels and grid stay; beyond the grid are zeros or, in a periodic box, its other side."""
    if config.periodic:
        return PeriodicConv2d(channels, channels, kernel, **options)
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, **options)


class ConvNextBlock(nn.Module):
    """A ConvNeXt block (Liu et al. 2022, arXiv:2201.03545) with a conditioned norm."""

    def __init__(self, config: PoseidonConfig, channels: int) -> None:
        super().__init__()
        self.dwconv = convolution(config, channels, 7, groups=channels)
        self.norm = make_norm(config, channels, config.layer_norm_eps)
        self.pwconv1 = Linear(channels, 4 * channels)
        self.pwconv2 = Linear(4 * channels, channels)
        self.weight = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        mixed = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        made = self.pwconv2(linear_gelu(self.norm(mixed, condition), self.pwconv1.weight, self.pwconv1.bias))
        return torch.addcmul(x, self.weight, made)


class ResNetBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norms; it does not know the time."""

    def __init__(self, config: PoseidonConfig, channels: int) -> None:
        super().__init__()
        self.conv1 = convolution(config, channels, 3)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(config, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        h = F.leaky_relu(self.bn1(self.conv1(x.permute(0, 3, 1, 2))))
        return x + self.bn2(self.conv2(h)).permute(0, 2, 3, 1)


RESIDUAL_BLOCKS: dict[str, type[nn.Module]] = {"convnext": ConvNextBlock, "resnet": ResNetBlock}


class PatchMerging(nn.Module):
    """2 x 2 tokens of C channels to one of 2 C: a linear map of the 4 C, then a norm."""

    def __init__(self, config: PoseidonConfig, channels: int) -> None:
        super().__init__()
        self.reduction = Linear(4 * channels, 2 * channels, bias=False)
        self.norm = make_norm(config, 2 * channels, TOKEN_NORM_EPS)

    def forward(self, x: Tensor, condition: Condition) -> Tensor:
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        batch, height, width, channels = x.shape
        # Published order of the four: first down, then right.
        x = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 4, 2, 5)
        return self.norm(self.reduction(x.reshape(batch, height // 2, width // 2, 4 * channels)), condition)


class PatchUnmerging(nn.Module):
    """One token of C channels to 2 x 2 of C / 2: a linear map, a norm, and a linear map that mixes."""

    def __init__(self, config: PoseidonConfig, channels: int) -> None:
        super().__init__()
        self.upsample = Linear(channels, 2 * channels, bias=False)
        self.norm = make_norm(config, channels // 2, TOKEN_NORM_EPS)
        self.mixup = Linear(channels // 2, channels // 2, bias=False)

    def forward(self, x: Tensor, condition: Condition, grid: Size) -> Tensor:
        """``grid``: the finer level's, which may have one row or column less than twice this one."""
        batch, height, width, channels = x.shape
        x = self.upsample(x).view(batch, height, width, 2, 2, channels // 2).transpose(2, 3)
        x = x.reshape(batch, 2 * height, 2 * width, channels // 2)[:, : grid[0], : grid[1]]
        return self.mixup(self.norm(x, condition))

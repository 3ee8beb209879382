"""Poseidon beyond the reference: other grids, periodic boxes, masks, precision, compilation, memory, gradients."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from poseidon_small import SMALL, field, lead, small, vector
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sciml.errors import ConfigError, DataError
from sciml.operators import Poseidon, create_operator
from sciml.operators.poseidon import PoseidonConfig
from sciml.operators.poseidon.attention import WindowAttention, offsets, pairs
from sciml.operators.poseidon.blocks import ConvNextBlock, PeriodicConv2d, ResNetBlock, SwinBlock, drop_path
from sciml.operators.poseidon.fused_attention import cosine_attention
from sciml.operators.poseidon.loss import grouped_loss
from sciml.operators.poseidon.norms import Condition, ConditionedNorm, PlainNorm
from sciml.operators.poseidon.resampling import resample
from sciml.operators.poseidon.windows import partition, shift_mask, unpartition

NOTHING = Condition(None, None)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    """To a part of the largest value."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def gradients(operator: Poseidon) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in operator.named_parameters()}


# ------------------------------------------------------------------------------------------------------------- grids


def test_rectangular_and_odd_grids_are_padded():
    operator = small(image_size=32, patch_size=4, resize="pad")
    for grid in ((96, 64), (100, 52), (102, 53), (3, 41)):
        x = field(grid=grid)
        high, wide = (-(-n // 4) * 4 for n in grid)
        filled = F.pad(x, (0, wide - grid[1], 0, high - grid[0]), mode="replicate")
        y = operator(x, time=lead())
        assert y.shape == x.shape and y.isfinite().all()
        close(y, operator(filled, time=lead())[..., : grid[0], : grid[1]])


def test_a_native_grid_is_a_multiple_of_the_patches():
    operator = small(image_size=32, patch_size=4)
    assert operator(field(grid=(100, 52)), time=lead()).shape == (2, 4, 100, 52)
    with pytest.raises(DataError, match=r'grid \(100, 54\) is not a multiple of patch_size 4 .*resize="pad"'):
        operator(field(grid=(100, 54)), time=lead())


@pytest.mark.parametrize("given, wanted", itertools.product((20, 21), (24, 25, 32, 33, 15, 16)))
def test_resampling_is_exact_for_what_both_grids_resolve(given, wanted):
    def wave(n: int, m: int) -> Tensor:
        x, y = (2 * math.pi * torch.arange(k, dtype=torch.float64) / k for k in (n, m))
        x, y = x[:, None], y[None]
        return (1.5 + torch.sin(3 * x - 2 * y) + 0.5 * torch.cos(7 * y) + torch.cos(5 * x + 4))[None, None]

    close(resample(wave(given, given), (wanted, wanted)), wave(wanted, wanted))
    close(resample(wave(given, wanted), (wanted, given)), wave(wanted, given))


@pytest.mark.parametrize("grid, wanted", [((33, 33), (32, 32)), ((21, 21), (20, 20)), ((96, 64), (128, 128))])
def test_resampling_gives_the_size_that_is_asked_for(grid, wanted):
    x = field(grid=grid)
    assert resample(x, wanted).shape[2:] == wanted
    assert resample(resample(x, wanted), grid).shape == x.shape


@pytest.mark.parametrize("grid", [(12, 13), (13, 12)])
def test_resampling_up_and_down_is_the_identity(grid):
    x = field(grid=grid)
    for finer in ((16, 16), (17, 17), (16, 13), (25, 24)):
        finer = tuple(max(n, m) for n, m in zip(finer, grid, strict=True))
        back = resample(resample(x, finer), grid)
        # Of the highest frequency of an even axis only the part that a real field has on both grids comes back.
        kept = x
        for axis in (2, 3):
            if grid[axis - 2] % 2 == 0 and finer[axis - 2] > grid[axis - 2]:
                kept = kept - highest(kept, axis) + highest(kept, axis) * 1.0
        close(back, kept, 1e-12) if all(n % 2 for n in grid) else close(
            resample(back, finer), resample(x, finer), 0.5
        )


def highest(x: Tensor, axis: int) -> Tensor:
    sign = (-1.0) ** torch.arange(x.shape[axis], dtype=x.dtype)
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return (x * sign.view(shape)).mean(axis, keepdim=True) * sign.view(shape)

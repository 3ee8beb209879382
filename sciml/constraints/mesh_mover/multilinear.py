"""Multilinear interpolation on a lattice of points that are one apart, by index coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def strides(shape: Sequence[int]) -> list[int]:
    """Of the last axes ``shape``, in elements: ``index @ strides`` is the place in the flattened lattice."""
    return [math.prod(shape[k + 1 :]) for k in range(len(shape))]


def cells_of(index: Tensor, shape: Sequence[int]) -> Tensor:
    """Low corner of the lattice cell in which each index coordinate ``(..., d)`` lies, integers ``(..., d)``.

    Coordinates before the first or after the last point belong to the outermost cell. Has no gradient.
    """
    last = torch.tensor([n - 2 for n in shape], dtype=index.dtype, device=index.device)
    # NaN has no cell: the first one, where the fraction is NaN and so is the result
    return torch.minimum(index.detach().floor().nan_to_num(0.0).clamp(min=0), last).long()


def multilinear(values: Tensor, index: Tensor) -> Tensor:
    """``values (B, C, *l)`` at the index coordinates ``index (B, P, d)``: ``(B, C, P)``.

    Tensor product of linear interpolations, continued linearly outside the lattice. A batch of 1 in either serves
    every sample of the other. Differentiable any number of times in both (piecewise in ``index``).
    """
    shape = values.shape[2:]
    batch, channels = max(len(values), len(index)), values.shape[1]
    corner = cells_of(index, shape)
    fraction = (index - corner).to(values.dtype).unbind(-1)
    step = strides(shape)
    place = (corner * torch.tensor(step, device=index.device)).sum(-1)[:, None].expand(batch, channels, -1)
    flat = values.flatten(2).expand(batch, -1, -1)

    def along(axis: int, offset: int) -> Tensor:
        if axis == len(shape):
            return flat.gather(2, place + offset)
        low, high = along(axis + 1, offset), along(axis + 1, offset + step[axis])
        return low + fraction[axis][:, None] * (high - low)

    return along(0, 0)

"""A mesh without folds: scaled back towards the uniform one as far as needed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box, check_corners
from sciml.constraints.mesh_mover.quality import corner_jacobians
from sciml.errors import ConfigError

TOLERANCE = 1e-3
"""How far the scale may be below the largest one that is valid."""


def unfolded(corners: Tensor, box: Box, least: float = 0.05) -> tuple[Tensor, Tensor]:
    """The mesh x_s = xi + s (x - xi), s the largest in [0, 1] for which no cell folds: ``(corners, scale (B,))``.

    Not folded means that every corner Jacobian exceeds ``least`` times that of the uniform mesh. s = 1 gives a sample
    back bit for bit; otherwise s is found for each sample by bisection, to 1e-3 from below. Differentiable in the
    corners, with s held constant. A sample with NaN gets s = 0. Raises ``ConfigError`` for ``least`` outside [0, 1).
    """
    if not 0 <= least < 1:
        raise ConfigError(f"least={least}: the least Jacobian is a share of the uniform one, 0 <= least < 1.")
    dim = check_corners(corners)
    cells = tuple(n - 1 for n in corners.shape[1:-1])
    uniform = box.corners(cells, dtype=corners.dtype, device=corners.device)
    bound = least * math.prod(box.spacing(cells))
    with torch.no_grad():
        scale = corners.new_ones(len(corners))
        finite = corners.flatten(1).isfinite().all(1)
        bad = ~(finite & _valid(corners, bound))
        if bad.any():
            scale[bad] = _largest(corners[bad], uniform, bound, finite[bad])
    if not bad.any():
        return corners, scale
    shape = (-1, *(1,) * (dim + 1))
    scaled = uniform + scale.reshape(shape) * torch.where(finite.reshape(shape), corners - uniform, 0.0)
    return torch.where((scale == 1).reshape(shape), corners, scaled), scale


def _largest(corners: Tensor, uniform: Tensor, bound: float, finite: Tensor) -> Tensor:
    """Bisection: the uniform mesh is valid, the given one is not."""
    low, high = corners.new_zeros(len(corners)), finite.to(corners)
    moves = torch.where(finite.reshape(-1, *(1,) * uniform.ndim), corners - uniform, 0.0)
    for _ in range(math.ceil(math.log2(1 / TOLERANCE))):
        middle = (low + high) / 2
        valid = _valid(uniform + middle.reshape(-1, *(1,) * uniform.ndim) * moves, bound)
        low, high = torch.where(valid, middle, low), torch.where(valid, high, middle)
    return low


def _valid(corners: Tensor, bound: float) -> Tensor:
    return corner_jacobians(corners).flatten(1).amin(1) > bound

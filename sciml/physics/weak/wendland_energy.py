"""The energy product of Wendland functions, K_ij = int grad v_i . grad v_j + m v_i v_j, and its Cholesky factor.

K is a Gram matrix G^T W G over one composite Gauss rule of the whole box, so it is positive semi-definite whatever the
error of the rule. Cells of half a radius with 4 Gauss points an axis put 16 points across a support.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.errors import SolverError
from sciml.physics.weak.box import Box
from sciml.physics.weak.centres import shown
from sciml.physics.weak.quadrature import gauss_legendre, tensor_product
from sciml.physics.weak.wendland_function import wendland

CELLS_A_RADIUS, POINTS_A_CELL = 2, 4
BLOCK = 4096
INDEPENDENT = 1e-10
"""Least share of its energy that a function must have outside the span of those before it: below it, the dual norm of
residuals in single precision would be one of their rounding."""


def energy_matrix(centres: Tensor, radius: float, box: Box, mass: float) -> Tensor:
    """K ``(J, J)``, float64; in slabs across axis 0, of which each meets few of the supports."""
    cells = [max(1, math.ceil(CELLS_A_RADIUS * length / radius)) for length in box.lengths]
    axes = [_composite_rule(start, length, n) for start, length, n in zip(box.origin, box.lengths, cells, strict=True)]
    energy = torch.zeros(len(centres), len(centres), dtype=torch.float64)
    for points0, weights0 in zip(axes[0][0].split(POINTS_A_CELL), axes[0][1].split(POINTS_A_CELL), strict=True):
        near = (centres[:, 0] > points0[0] - radius) & (centres[:, 0] < points0[-1] + radius)
        index = near.nonzero().flatten()
        if len(index) == 0:
            continue
        points, weights = tensor_product([(points0, weights0), *axes[1:]])
        for some, weight in zip(points.split(BLOCK), weights.split(BLOCK), strict=True):
            value, gradient = wendland(some[:, None] - centres[index], radius)
            rows = gradient.permute(0, 2, 1).reshape(-1, len(index))
            block = rows.T @ (weight.repeat_interleave(box.dim)[:, None] * rows)
            energy[index[:, None], index] += block + mass * (value.T @ (weight[:, None] * value))
    return energy


def energy_factor(centres: Tensor, radius: float, box: Box, mass: float) -> Tensor:
    """Lower Cholesky factor ``(J, J)`` of K. Raises ``SolverError`` for linearly dependent test functions."""
    energy = energy_matrix(centres, radius, box, mass)
    scale = energy.diagonal().sqrt()
    factor, info = torch.linalg.cholesky_ex(energy / scale[:, None] / scale)
    pivots = factor.diagonal().square()
    weak = (pivots < INDEPENDENT).nonzero().flatten()
    if int(info) or len(weak):
        which = int(info) - 1 if int(info) else int(weak[0])
        raise SolverError(
            f"the test function around {shown(centres[which])} is nearly a combination of others: "
            f"{len(centres)} centres of the radius {radius} lie too close; take fewer or a smaller radius"
        )
    return scale[:, None] * factor


def _composite_rule(start: float, length: float, cells: int) -> tuple[Tensor, Tensor]:
    nodes, weights = gauss_legendre(POINTS_A_CELL)
    corners = torch.arange(cells, dtype=torch.float64)[:, None]
    return (start + (corners + nodes).reshape(-1) * length / cells), weights.repeat(cells) * length / cells

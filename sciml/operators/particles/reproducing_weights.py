"""Weights that carry a point along with its neighbours: kernel weights, corrected to be first-order exact.

Moving least squares (Lancaster and Salkauskas, Math. Comp. 37 (1981) 141), here as the reproducing-kernel correction
(Liu et al., Int. J. Numer. Meth. Fluids 20 (1995) 1081) of normalised kernel weights v_j about their mean
Y = sum_j v_j Y_j and covariance C:

    w_j = v_j (1 - (Y_j - Y) . C^-1 Y),    Y_j = X_j - X_q,    sum_j w_j = 1,    sum_j w_j X_j = X_q.

Where the neighbours do not surround the point, C^-1 Y is large, and so are the weights. Along each principal axis of
the neighbours the point is therefore clamped to ``reach`` standard deviations from their mean: the weights then
reproduce the clamped point, and sum_j |w_j| <= 1 + dim * reach always. What is left of its position, the remainder
X_q - sum_j w_j X_j, is zero for every point inside; of the others it is for the caller to carry rigidly. A flat or thin
neighbourhood is the same case: no reach across it.

Layout: neighbours before points, ``(dim, K, M)``, so that every sum runs over long contiguous rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

FLAT = 1e-5  # deviation along one axis over that along all, below which the neighbours are a plane or a line
WELL_SHAPED = (
    1e-3  # determinant of the covariance over that of a sphere, above which the closed-form inverse is accurate
)


def kernel_weights(offsets: Tensor, present: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Normalised weights of the neighbours, and the local length that they are scaled with.

    v_j proportional to exp(-(|Y_j| / (width h))^2) / |Y_j|^2, h the distance of the farthest neighbour. The pole makes
    the weights interpolate: a point at the place of a neighbour has weight 1 there (shared by those at the same place)
    and none elsewhere.

    Args:
        offsets: ``(dim, K, M)``, neighbour minus point.
        present: ``(K, M)`` of bool; the others get no weight.
        width: in units of h.

    Returns:
        Weights ``(K, M)`` and h ``(M,)``; h is 1 where all neighbours are at the point.
    """
    squared = offsets.square().sum(0)
    farthest = squared.masked_fill(~present, 0.0).amax(0)
    closest = squared.masked_fill(~present, torch.inf).amin(0)
    scale = torch.where(farthest > 0, farthest, 1.0)
    pole = torch.where(squared > 0, closest / squared, 1.0)  # over the largest of them, so that nothing overflows
    kernel = (pole * torch.exp(-squared / (width**2 * scale))).masked_fill(~present, 0.0)
    return kernel / kernel.sum(0), scale.sqrt()


def reproducing_weights(offsets: Tensor, kernel: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """The first-order exact weights of the module's docstring.

    Args:
        offsets: ``(dim, K, M)``, neighbour minus point, in units of about the neighbours' distance.
        kernel: normalised weights ``(K, M)``.
        reach: standard deviations.

    Returns:
        Weights ``(K, M)``, and the numbers ``(m,)`` of the points that were clamped.
    """
    mean = (kernel * offsets).sum(1)
    centred = offsets - mean[:, None]
    weighted = kernel * centred
    covariance = torch.stack([(row * centred).sum(1) for row in weighted])  # (dim, dim, M)
    adjugate, determinant = _adjugate(covariance)
    trace = covariance.diagonal().sum(1)
    slope = (adjugate * mean).sum(1) / determinant  # C^-1 Y; wherever C is singular it is replaced below
    shaped = determinant > WELL_SHAPED * (trace / len(mean)) ** len(mean)
    inside = shaped & ((slope * mean).sum(0) <= reach**2)
    rest = (~inside).nonzero().squeeze(1)
    clamped = rest
    if len(rest):
        values, axes = torch.linalg.eigh(covariance[:, :, rest].permute(2, 0, 1))
        along = (axes.mT @ mean[:, rest].T[..., None]).squeeze(2)
        flat = values <= FLAT**2 * trace[rest, None]
        deviation = torch.where(flat, 1.0, values).sqrt()
        bound = torch.where(flat, 0.0, reach * deviation)
        kept = torch.where(along.abs() > bound, bound / along.abs(), 1.0)
        inverse = torch.where(flat, 0.0, kept / deviation.square())
        slope[:, rest] = (axes @ (inverse * along)[..., None]).squeeze(2).T
        clamped = rest[(kept < 1).any(1)]
    linear = (centred * slope[:, None]).sum(0)
    linear = linear - (kernel * linear).sum(0)  # zero but for round-off, which grows outside: sum_j w_j stays 1
    return kernel * (1 - linear), clamped


def _adjugate(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Adjugates ``(dim, dim, M)`` and determinants ``(M,)`` of symmetric matrices ``(dim, dim, M)`` of 1 to 3 rows."""
    if len(matrices) == 1:
        return torch.ones_like(matrices), matrices[0, 0]
    if len(matrices) == 2:
        (a, b), (_, c) = matrices
        return torch.stack([torch.stack([c, -b]), torch.stack([-b, a])]), a * c - b * b
    x, y, z = (row.T for row in matrices)
    rows = [torch.linalg.cross(p, q).T for p, q in ((y, z), (z, x), (x, y))]
    return torch.stack(rows), (rows[0] * matrices[0]).sum(0)

"""The rotation that best carries one cloud of points into another, batched and differentiable.

The orthogonal Procrustes problem restricted to rotations (Wahba, SIAM Rev. 7 (1965) 409; Kabsch, Acta Cryst. A32 (1976)
922): for A = sum_j v_j x_j X_j^T the R with det R = 1 that maximises tr(R^T A). Where A leaves R open (fewer than
dim - 1 independent directions) the R nearest the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_rotation(moment: Tensor) -> Tensor:
    """Rotations of moments A: ``(dim, dim, M) -> (dim, dim, M)``, dim 1 to 3.

    A small multiple of the identity is added to A, so that what A leaves open is decided and derivatives stay finite.
    """
    dim = len(moment)
    if dim == 1:
        return torch.ones_like(moment)
    size = moment.square().sum((0, 1)).sqrt()
    prior = torch.finfo(moment.dtype).eps ** 0.7 * size + torch.finfo(moment.dtype).tiny ** 0.5
    identity = torch.eye(dim, dtype=moment.dtype, device=moment.device)[..., None]
    moment = moment + prior.detach() * identity
    return _planar(moment) if dim == 2 else _spatial(moment)


def _planar(moment: Tensor) -> Tensor:
    """tr(R^T A) = cos (A_xx + A_yy) + sin (A_yx - A_xy)."""
    cosine, sine = moment[0, 0] + moment[1, 1], moment[1, 0] - moment[0, 1]
    length = torch.hypot(cosine, sine)
    cosine, sine = cosine / length, sine / length
    return torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])


def _spatial(moment: Tensor) -> Tensor:
    """By singular values; derivatives by one Newton step from there, because those of the factors do not exist where
    two singular values are equal, and that of the rotation does.

    At the maximum S = R^T A is symmetric. With R exp([w]) for R the condition reads, to first order in w,
    (tr(S) I - S) w = (S_zy - S_yz, S_xz - S_zx, S_yx - S_xy): w is zero in value, and exact in its first derivative.
    """
    matrices = moment.permute(2, 0, 1)
    with torch.no_grad():
        left, _, right = torch.linalg.svd(matrices.double())
        sign = torch.ones_like(matrices[:, 0], dtype=torch.float64)
        sign[:, 2] = torch.linalg.det(left @ right)
        rotation = ((left * sign[:, None]) @ right).to(moment.dtype)
    if not (torch.is_grad_enabled() and moment.requires_grad):
        return rotation.permute(1, 2, 0)
    stretch = rotation.mT @ matrices
    axial = torch.stack([stretch[:, j, i] - stretch[:, i, j] for i, j in ((1, 2), (2, 0), (0, 1))], 1)
    with torch.no_grad():  # the matrix multiplies a vector that is zero: its own derivative does not count
        trace = stretch.diagonal(dim1=1, dim2=2).sum(1)
        identity = torch.eye(3, dtype=moment.dtype, device=moment.device)
        inverse = torch.linalg.inv(trace[:, None, None] * identity - stretch)
    turn = (inverse @ axial[..., None]).squeeze(2)
    zero = torch.zeros_like(turn[:, 0])
    x, y, z = turn.T
    generator = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    return (rotation + rotation @ generator).permute(1, 2, 0)

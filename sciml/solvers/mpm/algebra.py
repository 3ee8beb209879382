"""Small dense matrices, one a particle, stored components first.

Vectors are ``(d, P)`` and matrices ``(d, d, P)`` with the P particles last, so that every component is one
contiguous row: a product of 2 x 2 matrices is then a few long vector operations instead of P tiny ones.
``components_first`` and ``particles_first`` are views between this layout and the public ``(P, d[, d])``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def components_first(x: Tensor) -> Tensor:
    """``(P, ...)`` -> ``(..., P)`` (a view)."""
    return x.movedim(0, -1)


def particles_first(x: Tensor) -> Tensor:
    """``(..., P)`` -> ``(P, ...)`` (a view)."""
    return x.movedim(-1, 0)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """A B of matrices ``(d, d, P)``."""
    total = a[:, 0, None] * b[0]
    for k in range(1, len(b)):
        total = torch.addcmul(total, a[:, k, None], b[k])
    return total


def matmul_transposed(a: Tensor, b: Tensor) -> Tensor:
    """A B^T of matrices ``(d, d, P)``."""
    return matmul(a, b.transpose(0, 1))


def trace(a: Tensor) -> Tensor:
    """tr A ``(P,)``."""
    total = a[0, 0] + a[1, 1]
    return total if len(a) == 2 else total + a[2, 2]


def determinant(a: Tensor) -> Tensor:
    """det A ``(P,)``, d = 2 or 3."""
    if len(a) == 2:
        return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    return (
        a[0, 0] * (a[1, 1] * a[2, 2] - a[1, 2] * a[2, 1])
        - a[0, 1] * (a[1, 0] * a[2, 2] - a[1, 2] * a[2, 0])
        + a[0, 2] * (a[1, 0] * a[2, 1] - a[1, 1] * a[2, 0])
    )


def spherical(s: Tensor, d: int) -> Tensor:
    """s I ``(d, d, P)`` from ``(P,)``."""
    return identity(d, s)[..., None] * s


def identity(d: int, like: Tensor) -> Tensor:
    """I ``(d, d)`` with the type and device of ``like``."""
    return torch.eye(d, dtype=like.dtype, device=like.device)


def plus_spherical(a: Tensor, s: Tensor) -> Tensor:
    """A + s I."""
    return torch.addcmul(a, identity(len(a), a)[..., None], s)


def deviator(a: Tensor) -> Tensor:
    """A - (tr A / d) I."""
    return plus_spherical(a, -trace(a) / len(a))


def norm(a: Tensor) -> Tensor:
    """Frobenius norm ``(P,)``; its gradient is zero, not NaN, where A = 0."""
    return (a * a).sum((0, 1)).clamp_min(1e-30).sqrt()

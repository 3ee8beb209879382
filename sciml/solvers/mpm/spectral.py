"""Isotropic functions of symmetric 2 x 2 and 3 x 3 matrices, with gradients that are finite at equal eigenvalues.

A law of an isotropic material needs log B, sqrt B and exp E of symmetric matrices B = F F^T, never U and V of
an SVD. f(B) = sum_i f(b_i) n_i n_i^T is smooth although the n_i are not, and its derivative in the eigenbasis is
the matrix of divided differences (f(b_i) - f(b_j)) / (b_i - b_j), on the diagonal and at equal values f'(b_i)
(Daleckii and Krein; Higham, Functions of Matrices, SIAM 2008, theorem 3.11).
All matrices are ``(d, d, P)``, see ``algebra``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sciml.solvers.mpm.algebra import identity, matmul, matmul_transposed

SWEEPS = 4  # cyclic Jacobi converges quadratically: 3 x 3 matrices reach round-off in float64


@torch.no_grad()
def eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(d, P)``, in no particular order, and eigenvectors as columns ``(d, d, P)`` of symmetric A.

    No gradient flows: use ``isotropic`` for a function of A.
    """
    return _eigen2(a) if len(a) == 2 else _eigen3(a)


def _eigen2(a: Tensor) -> tuple[Tensor, Tensor]:
    mean, half, off = (a[0, 0] + a[1, 1]) / 2, (a[0, 0] - a[1, 1]) / 2, a[0, 1]
    radius = torch.hypot(half, off)
    angle = torch.atan2(off, half) / 2
    c, s = angle.cos(), angle.sin()
    # The smaller one from the determinant: mean - radius would lose its digits in float32.
    large = mean + radius
    small = torch.where(large > 0, (a[0, 0] * a[1, 1] - off * off) / large, mean - radius)
    return torch.stack([large, small]), torch.stack([c, -s, s, c]).view(2, 2, -1)


def _eigen3(a: Tensor) -> tuple[Tensor, Tensor]:
    """Cyclic Jacobi rotations (Golub and Van Loan, section 8.5), all particles at once."""
    m = {(i, j): a[i, j] for i in range(3) for j in range(i, 3)}
    columns = list(identity(3, a)[..., None].expand(3, 3, a.shape[-1]).unbind(1))
    tiny = torch.finfo(a.dtype).tiny
    for _ in range(SWEEPS):
        for p, q, r in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            gap, off = m[q, q] - m[p, p], m[p, q]
            t = 2 * off / (gap.abs() + torch.sqrt(gap * gap + 4 * off * off) + tiny)
            t = torch.where(gap < 0, -t, t)
            c = torch.rsqrt(1 + t * t)
            s = t * c
            shift = t * off
            m[p, p], m[q, q], m[p, q] = m[p, p] - shift, m[q, q] + shift, torch.zeros_like(off)
            rp, rq = (min(r, p), max(r, p)), (min(r, q), max(r, q))
            m[rp], m[rq] = c * m[rp] - s * m[rq], s * m[rp] + c * m[rq]
            columns[p], columns[q] = c * columns[p] - s * columns[q], s * columns[p] + c * columns[q]
    return torch.stack([m[0, 0], m[1, 1], m[2, 2]]), torch.stack(columns, 1)


def rotated_back(values: Tensor, vectors: Tensor) -> Tensor:
    """sum_i y_i n_i n_i^T from values ``(d, P)`` and eigenvectors ``(d, d, P)``."""
    return matmul_transposed(vectors * values, vectors)


def isotropic(a: Tensor, values: Tensor, vectors: Tensor, result: Tensor, slope: Tensor) -> Tensor:
    """f(A) = sum_i f(a_i) n_i n_i^T ``(d, d, P)``, differentiable once in A.

    ``values``, ``vectors``: an eigensystem of A (``eigen``; vectors may come from a matrix that commutes with
    A); ``result``, ``slope``: f and f' at the values, ``(d, P)``, without gradient.
    """
    if torch.is_grad_enabled() and a.requires_grad:
        return _Isotropic.apply(a, values, vectors, result, slope)
    return rotated_back(result, vectors)


class _Isotropic(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, values, vectors, result, slope):
        ctx.save_for_backward(values, vectors, result, slope)
        return rotated_back(result, vectors)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        values, vectors, result, slope = ctx.saved_tensors
        gap = values[:, None] - values[None]
        scale = values.abs().amax(0)
        # Below this gap the mean slope (error gap^2) is nearer than the quotient (error eps / gap).
        near = gap.abs() <= torch.finfo(values.dtype).eps ** (1 / 3) * scale
        quotient = (result[:, None] - result[None]) / torch.where(near, torch.ones_like(gap), gap)
        weights = torch.where(near, (slope[:, None] + slope[None]) / 2, quotient)
        basis = vectors.transpose(0, 1)
        symmetric = (upstream + upstream.transpose(0, 1)) / 2
        inner = weights * matmul(matmul(basis, symmetric), vectors)
        return matmul(matmul(vectors, inner), basis), None, None, None, None


def diagonal_in(vectors: Tensor, a: Tensor) -> Tensor:
    """n_i^T A n_i ``(d, P)``: the eigenvalues of an A that has these eigenvectors."""
    return (vectors * matmul(a, vectors)).sum(0)

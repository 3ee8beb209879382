"""What of a neighbourhood's motion is not affine: the residual of its least-squares fit by an affine map.

The fit is an orthogonal projection on the span of 1 and the coordinates of the neighbours at the anchor, so the
residual of every affine motion vanishes, whatever the shape of the neighbourhood (on a line the span is smaller, the
residual larger, and still zero for affine motions). Layout ``(dim, K, M)`` as in ``reproducing_weights``.
"""

from __future__ import annotations

import torch
from torch import Tensor

DEPENDENT = 1e-12  # of the length of a unit vector: what is left of a coordinate that the others determine


def affine_basis(offsets: Tensor, present: Tensor) -> Tensor:
    """Orthonormal basis of the affine functions at the neighbours, ``(dim + 1, K, M)`` in float64, the constant first.

    Gram and Schmidt, each step twice: orthogonal to round-off however nearly dependent the coordinates are (Giraud et
    al., Numer. Math. 101 (2005) 87). A dependent coordinate gets a row of zeros.

    Args:
        offsets: ``(dim, K, M)``, in units of about the neighbours' distance.
        present: ``(K, M)``; the basis is zero at the others.
    """
    basis: list[Tensor] = []
    for row in (present.double(), *offsets.double()):
        row = row.masked_fill(~present, 0.0)
        for _ in range(2):
            for vector in basis:
                row = row - (vector * row).sum(0) * vector
        length = row.square().sum(0).sqrt()
        basis.append(torch.where(length > DEPENDENT, row / length, 0.0))
    return torch.stack(basis)


def residuals(positions: Tensor, basis: Tensor) -> Tensor:
    """Neighbours minus their affine fit, ``(dim, K, M)``; their positions from anywhere near them, for the digits."""
    fitted = torch.zeros_like(positions)
    for vector in basis:
        fitted = torch.addcmul(fitted, (positions * vector).sum(1, keepdim=True), vector)
    return positions - fitted

"""The energy product of finite-element hats on a box, inverted by one dense eigenbasis an axis.

On a product mesh the Gram matrix K_ij = int grad v_i . grad v_j + m v_i v_j of Q1 hats is a sum over axes of Kronecker
products of the stiffness matrix K1 of that axis and the mass matrices M1 of the others. The vectors of the generalised
problems K1 x = lambda M1 x, with X^T M1 X = 1, diagonalise all of them at once (Lynch, Rice and Thomas, Numer. Math. 6
(1964) 185): in their product basis K is the sum of the lambda plus m, so K^-1 costs two small matrix products an axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def axis_matrices(cells: int, spacing: float) -> tuple[Tensor, Tensor]:
    """Stiffness and mass ``(cells + 1, cells + 1)`` of the hats of an interval, float64."""
    stiffness, mass = torch.zeros(2, cells + 1, cells + 1, dtype=torch.float64)
    k = torch.arange(cells)
    for matrix, own, other in ((stiffness, 1 / spacing, -1 / spacing), (mass, spacing / 3, spacing / 6)):
        matrix[k, k] += own
        matrix[k + 1, k + 1] += own
        matrix[k, k + 1] = matrix[k + 1, k] = other
    return stiffness, mass


class TensorEnergy:
    """K of the module's text for the nodes ``free[j] = (first, last + 1)`` of each axis, and its inverse.

    ``mass`` is m. Bases in float64, kept as ``dtype``. K must be positive definite: some axis without its constants, or
    m > 0.
    """

    def __init__(
        self,
        cells: Sequence[int],
        spacings: Sequence[float],
        free: Sequence[tuple[int, int]],
        *,
        mass: float,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        eigenvalues = torch.tensor(mass, dtype=torch.float64)
        bases = []
        for n, h, (first, end) in zip(cells, spacings, free, strict=True):
            stiffness, m = (matrix[first:end, first:end] for matrix in axis_matrices(n, h))
            # X = L^-T Y with M1 = L L^T and L^-1 K1 L^-T = Y diag(lambda) Y^T
            root = torch.linalg.cholesky(m)
            half = torch.linalg.solve_triangular(root, stiffness, upper=False)
            symmetric = torch.linalg.solve_triangular(root, half.T, upper=False)
            values, vectors = torch.linalg.eigh((symmetric + symmetric.T) / 2)
            bases.append(torch.linalg.solve_triangular(root.T, vectors, upper=True))
            # constants have exactly no energy where no side of the axis is fixed: round-off must not stand for it
            if (first, end) == (0, n + 1):
                values[0] = 0.0
            eigenvalues = eigenvalues.unsqueeze(-1) + values
        self.shape = tuple(len(basis) for basis in bases)
        self._inverse = (1 / eigenvalues).to(device, dtype)
        self._bases = [basis.to(device, dtype).contiguous() for basis in bases]
        self._transposed = [basis.T.to(device, dtype).contiguous() for basis in bases]

    def solve(self, r: Tensor) -> Tensor:
        """K^-1 r for ``(B, J)``, nodes in C order."""
        return self._along_axes(self._modes(r) * self._inverse, self._bases, self._transposed[-1]).reshape(r.shape)

    def inverse_square(self, r: Tensor) -> Tensor:
        """r^T K^-1 r ``(B,)`` of ``(B, J)``: never negative, whatever the round-off."""
        return (self._modes(r).square() * self._inverse).flatten(1).sum(1)

    def _modes(self, r: Tensor) -> Tensor:
        return self._along_axes(r.reshape(-1, *self.shape), self._transposed, self._bases[-1])

    @staticmethod
    def _along_axes(r: Tensor, matrices: Sequence[Tensor], last: Tensor) -> Tensor:
        """Multiply every axis of ``r (B, m_1, ...)`` by its matrix; ``last`` is the transpose of the last one."""
        shape = r.shape
        r = r.reshape(-1, shape[-1]) @ last
        for k, matrix in enumerate(matrices[:-1]):
            r = matrix @ r.reshape(-1, shape[k + 1], shape[k + 2 :].numel())
        return r.reshape(shape)

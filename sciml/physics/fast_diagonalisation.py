"""Direct Poisson and Helmholtz solves on tensor-product grids by eigen-decomposition of each axis.

Lynch, Rice and Thomas, Numer. Math. 6 (1964) 185. With A_j = Q_j diag(lambda_j) Q_j^-1 the second-difference
operator of reference axis j, the operator c_0 + c_1 sum_j A_j / L_j^2 has the eigenvalues c_0 + c_1 sum_j
lambda_j / L_j^2 in the product of the bases, so a solve is one small matrix product per axis, a division, and
one product back. The bases belong to the reference axes and serve every case of a batch, whatever its box
size and coefficient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics.grid import Axis

Location = Literal["cell", "face"]
End = Literal["dirichlet", "neumann", "periodic"]


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """Eigenvalues ``(m,)`` of a 1D operator and the matrices ``(m, m)`` into and out of its eigenvector
    basis, float64.

    ``singular``: constants are in the null space, and exactly one eigenvalue is exactly zero.
    """

    eigenvalues: Tensor
    forward: Tensor
    inverse: Tensor
    singular: bool


def flux_form(axis: Axis, location: Location, low: End, high: End) -> tuple[Tensor, Tensor, Tensor]:
    """Control volumes ``(m,)``, flux conductances ``(f,)`` and incidence ``(f, m)``: A = -W^-1 E^T C E.

    ``location="cell"``: unknowns at the n centres; a Dirichlet end is half a cell away. ``location="face"``:
    unknowns at the n - 1 interior faces; a Dirichlet end is the boundary face itself, at a Neumann end the
    boundary face equals its neighbour. On a periodic axis both have n unknowns. Raises ``ConfigError`` when
    the ends do not fit the axis.
    """
    if (low == "periodic", high == "periodic") != (axis.periodic, axis.periodic):
        raise ConfigError(f"Ends {low!r}, {high!r} do not fit an axis with periodic={axis.periodic}.")
    n, widths, distances = axis.n, axis.widths, axis.centre_distances
    at_cells = location == "cell"
    if axis.periodic:
        volumes, conductances = (widths, 1 / distances[:-1]) if at_cells else (distances[:-1], 1 / widths)
        # flux k joins cell k - 1 and cell k (unknowns at cells), or face k and face k + 1 (unknowns at faces)
        eye = torch.eye(n, dtype=torch.float64)
        incidence = eye - eye.roll(-1, 1) if at_cells else eye.roll(1, 1) - eye
        return volumes, conductances, incidence
    volumes = widths if at_cells else distances[1:-1]
    conductances = 1 / distances if at_cells else 1 / widths
    m = len(volumes)
    incidence = torch.zeros(m + 1, m, dtype=torch.float64)
    index = torch.arange(m)
    incidence[index, index], incidence[index + 1, index] = 1.0, -1.0
    conductances = conductances.clone()
    for k, end in ((0, low), (-1, high)):
        if end == "neumann":
            conductances[k] = 0.0
        elif at_cells:
            conductances[k] = 2 / widths[k]
    return volumes, conductances, incidence


def second_difference_matrix(axis: Axis, location: Location, low: End, high: End) -> Tensor:
    """The dense 1D operator A ``(m, m)`` of ``flux_form`` on the reference axis, float64 (homogeneous
    ends)."""
    volumes, conductances, incidence = flux_form(axis, location, low, high)
    return -(incidence.T * conductances) @ incidence / volumes[:, None]


def eigenbasis(axis: Axis, location: Location, low: End, high: End) -> Eigenbasis:
    """Eigen-decomposition of ``second_difference_matrix``.

    W^1/2 A W^-1/2 is symmetric also on stretched axes, so ``torch.linalg.eigh`` applies: A = (W^-1/2 V) diag
    (V^T W^1/2).
    """
    volumes, conductances, incidence = flux_form(axis, location, low, high)
    root = volumes.sqrt()
    scaled = incidence / root
    eigenvalues, vectors = torch.linalg.eigh(-(scaled.T * conductances) @ scaled)
    singular = low != "dirichlet" and high != "dirichlet"
    if singular:
        eigenvalues[-1] = 0.0  # eigh sorts upwards and all the others are negative
    return Eigenbasis(eigenvalues, vectors.T * root, vectors / root[:, None], singular)


class FastDiagonalisation:
    """Solver of (c_0 + c_1 Laplacian) u = f on a box, one ``Eigenbasis`` per axis.

    ``lengths (B, dim)`` are the box sizes. Fields are ``(B, m_1[, m_2[, m_3]])``. A singular Laplacian is
    solved in the least-squares sense with zero (volume-weighted) mean: the mean of f is ignored. Bases are
    computed in float64 and then cast to ``dtype``. Differentiable in f, in the coefficient and in the
    lengths.
    """

    def __init__(
        self,
        bases: tuple[Eigenbasis, ...],
        lengths: Tensor,
        *,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
    ) -> None:
        dim = len(bases)
        lengths = lengths.to(device=device, dtype=torch.float64)
        total = torch.zeros(())
        for j, basis in enumerate(bases):
            row = basis.eigenvalues.to(device).reshape(1, *(-1 if k == j else 1 for k in range(dim)))
            total = total + row / lengths[:, j].reshape(-1, *(1,) * dim) ** 2
        self.singular = all(basis.singular for basis in bases)
        self.eigenvalues = total.to(dtype)
        self._inverse_laplacian = self._invert(total).to(dtype)
        self._forward = tuple(basis.forward.to(device=device, dtype=dtype).contiguous() for basis in bases)
        self._inverse = tuple(basis.inverse.to(device=device, dtype=dtype).contiguous() for basis in bases)
        # x @ M^T along the last axis: the transposed copies make it one plain matrix product
        self._forward_last = self._forward[-1].T.contiguous()
        self._inverse_last = self._inverse[-1].T.contiguous()

    def _invert(self, eigenvalues: Tensor) -> Tensor:
        if not self.singular:
            return 1 / eigenvalues
        null = eigenvalues == 0
        return torch.where(null, 0.0, 1 / torch.where(null, 1.0, eigenvalues))

    def poisson_factor(self) -> Tensor:
        """1 / lambda ``(B, *m)``, 0 in the null space."""
        return self._inverse_laplacian

    def helmholtz_factor(self, coefficient: Tensor) -> Tensor:
        """1 / (1 - c lambda) ``(B, *m)`` for the coefficient c ``(B,)``."""
        return 1 / (1 - coefficient.to(self.eigenvalues).reshape(-1, *(1,) * len(self._forward)) * self.eigenvalues)

    def apply(self, f: Tensor, factor: Tensor) -> Tensor:
        """Transform ``f``, multiply by ``factor``, transform back."""
        return self._transform(
            self._transform(f, self._forward, self._forward_last) * factor, self._inverse, self._inverse_last
        )

    def solve_poisson(self, f: Tensor) -> Tensor:
        """u with Laplacian u = f and homogeneous ends; zero mean when the Laplacian is singular."""
        return self.apply(f, self._inverse_laplacian)

    def solve_helmholtz(self, f: Tensor, coefficient: Tensor) -> Tensor:
        """u with u - c Laplacian u = f and homogeneous ends, c ``(B,)``."""
        return self.apply(f, self.helmholtz_factor(coefficient))

    @staticmethod
    def _transform(f: Tensor, matrices: tuple[Tensor, ...], last: Tensor) -> Tensor:
        """Multiply every axis of ``f`` by its matrix."""
        shape = f.shape
        f = f.reshape(-1, shape[-1]) @ last
        for k, matrix in enumerate(matrices[:-1]):
            m = shape[k + 1]
            f = f.reshape(-1, m, shape[k + 2 :].numel())
            f = torch.bmm(matrix.expand(f.shape[0], m, m), f)
        return f.reshape(shape)

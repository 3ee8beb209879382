"""The potential of a mesh on the nodes of a grid: its derivatives, and Poisson problems.

The mesh is x = xi + grad psi. Nodes are the corners of the uniform grid, on a periodic axis without the last, which is
the first again: ``(B, *m)`` with m = n + 1 or n. Differences are central, of second order; at a wall psi is continued
evenly, so that its normal derivative is zero and a corner on a wall stays on it exactly. float64 throughout: second
differences of a potential lose half of the digits.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.physics.fast_diagonalisation import Eigenbasis, FastDiagonalisation


class NodeGrid:
    """Differences and the inverse Laplacian on the nodes of ``cells`` cells of a box; kept by ``node_grid``.

    Attributes:
        nodes: of the uniform grid ``(*m, d)``.
        weights: of the trapezoidal mean over the box ``(*m)``; they sum to 1.
        spacing: widths of a cell.
    """

    def __init__(self, box: Box, cells: tuple[int, ...], device: torch.device | str) -> None:
        self.box, self.cells, self.spacing = box, cells, box.spacing(cells)
        nodes = box.corners(cells, dtype=torch.float64, device=device)
        weights = torch.ones((), dtype=torch.float64, device=device)
        for axis, (n, periodic) in enumerate(zip(cells, box.periodic, strict=True)):
            row = torch.ones(n + (not periodic), dtype=torch.float64, device=device)
            if periodic:
                nodes = nodes.narrow(axis, 0, n)
            else:
                row[0] = row[-1] = 0.5
            weights = weights.unsqueeze(-1) * row / row.sum()
        self.nodes, self.weights = nodes, weights
        bases = tuple(node_basis(n, periodic) for n, periodic in zip(cells, box.periodic, strict=True))
        lengths = torch.tensor([box.lengths], dtype=torch.float64)
        self._poisson = FastDiagonalisation(bases, lengths, dtype=torch.float64, device=device)

    def inverse_laplacian(self, f: Tensor) -> Tensor:
        """psi ``(B, *m)`` of mean zero whose Laplacian is f less its mean."""
        return self._poisson.solve_poisson(f)

    def laplacian(self, psi: Tensor) -> Tensor:
        """Sum of the second differences ``(B, *m)``."""
        padded = self._padded(psi)
        return sum(self._second(padded, axis) for axis in range(self.box.dim))

    def gradient(self, psi: Tensor) -> Tensor:
        """Central differences ``(B, *m, d)``: the displacement of the nodes."""
        padded = self._padded(psi)
        return torch.stack([self._first(padded, axis) for axis in range(self.box.dim)], -1)

    def hessian(self, psi: Tensor) -> tuple[list[Tensor], dict[tuple[int, int], Tensor]]:
        """Second differences: of each axis, and mixed ones (of the four diagonal neighbours), each ``(B, *m)``."""
        padded = self._padded(psi)
        dim, mixed = self.box.dim, {}
        for i, j in combinations(range(dim), 2):
            same = _shifted(padded, {i: 1, j: 1}) + _shifted(padded, {i: -1, j: -1})
            opposite = _shifted(padded, {i: 1, j: -1}) + _shifted(padded, {i: -1, j: 1})
            mixed[i, j] = (same - opposite) / (4 * self.spacing[i] * self.spacing[j])
        return [self._second(padded, axis) for axis in range(dim)], mixed

    def mean(self, f: Tensor) -> Tensor:
        """Mean over the box ``(B, 1, …, 1)``."""
        return (f * self.weights).flatten(1).sum(1).reshape(-1, *(1,) * self.box.dim)

    def closed(self, values: Tensor) -> Tensor:
        """Values at the nodes ``(B, *m, …)`` at all corners ``(B, *(n + 1), …)``: the first again on periodic axes."""
        for axis, periodic in enumerate(self.box.periodic, start=1):
            if periodic:
                values = torch.cat((values, values.narrow(axis, 0, 1)), axis)
        return values

    def opened(self, values: Tensor) -> Tensor:
        """The inverse of ``closed``."""
        for axis, (n, periodic) in enumerate(zip(self.cells, self.box.periodic, strict=True), start=1):
            if periodic:
                values = values.narrow(axis, 0, n)
        return values

    def corners(self, psi: Tensor) -> Tensor:
        """The mesh xi + grad psi ``(B, *(n + 1), d)``; on a periodic axis the last = the first + the length."""
        uniform = self.box.corners(self.cells, dtype=psi.dtype, device=psi.device)
        return uniform + self.closed(self.gradient(psi))

    def _padded(self, psi: Tensor) -> Tensor:
        for axis, periodic in enumerate(self.box.periodic, start=1):
            low, high = (-1, 0) if periodic else (1, -2)
            psi = torch.cat((psi.select(axis, low).unsqueeze(axis), psi, psi.select(axis, high).unsqueeze(axis)), axis)
        return psi

    def _first(self, padded: Tensor, axis: int) -> Tensor:
        return (_shifted(padded, {axis: 1}) - _shifted(padded, {axis: -1})) / (2 * self.spacing[axis])

    def _second(self, padded: Tensor, axis: int) -> Tensor:
        both = _shifted(padded, {axis: 1}) + _shifted(padded, {axis: -1})
        return (both - 2 * _shifted(padded, {})) / self.spacing[axis] ** 2


@lru_cache(maxsize=16)
def node_grid(box: Box, cells: tuple[int, ...], device: str) -> NodeGrid:
    """The grid of a box and a number of cells, made once and kept."""
    with torch.inference_mode(False), torch.no_grad():  # a kept inference tensor could not be trained with later
        return NodeGrid(box, cells, device)


def node_basis(n: int, periodic: bool) -> Eigenbasis:
    """Eigenvectors of the second difference on the nodes of n cells of a unit axis.

    Between walls (even continuation): cos(pi k i / n), k = 0 … n, orthogonal with trapezoidal weights (the cosine
    transform DCT-I). Periodic: the real Fourier modes. Eigenvalues -4 n^2 sin^2 of half the phase of one cell.
    """
    i = torch.arange(n if periodic else n + 1, dtype=torch.float64)
    phase = math.pi * (2 if periodic else 1) / n
    eigenvalues = -4 * n**2 * torch.sin(phase * i / 2) ** 2
    eigenvalues[0] = 0.0
    # the phase is reduced by integers first: k i is exact, and so the modes are symmetric to the last digit
    angle = phase * (i[:, None] * i).remainder(n if periodic else 2 * n)
    if periodic:
        modes = torch.where(i[:, None] <= n / 2, torch.cos(angle), torch.sin(angle))
        weights = torch.ones_like(i)
    else:
        modes, weights = torch.cos(angle), torch.ones_like(i)
        weights[0] = weights[-1] = 0.5
    forward = modes * weights / (modes.square() * weights).sum(1, keepdim=True)
    return Eigenbasis(eigenvalues, forward.contiguous(), modes.T.contiguous(), True)


def _shifted(padded: Tensor, shifts: dict[int, int]) -> Tensor:
    """The nodes without the padding, moved by -1, 0 or 1 along each axis."""
    for axis in range(padded.ndim - 1):
        padded = padded.narrow(axis + 1, 1 + shifts.get(axis, 0), padded.shape[axis + 1] - 2)
    return padded

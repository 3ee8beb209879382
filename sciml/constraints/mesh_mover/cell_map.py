"""The maps from the unit cube onto the cells of a moved mesh, tabled as polynomials."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.multilinear import strides


class CellMaps:
    """Of the closed lattice ``nodes (B, *l, d)`` (``lattice.close_nodes``) of ``cells = l - 1`` cells.

    Points are held as ``(d, N)`` with the sample of each, ``(N,)``: long rows, and one read of a table for each.
    """

    def __init__(self, nodes: Tensor, box: Box) -> None:
        self.box, self.nodes = box, nodes
        self.cells = tuple(n - 1 for n in nodes.shape[1:-1])
        self._last = torch.tensor(self.cells, dtype=nodes.dtype, device=nodes.device)[:, None]
        coefficients = nodes[..., None, :]
        for axis in range(1, box.dim + 1):
            low = coefficients.narrow(axis, 0, self.cells[axis - 1])
            step = coefficients.narrow(axis, 1, self.cells[axis - 1]) - low
            coefficients = torch.cat([low, step], -2)
        # the coefficient of the product of the fractions of axes i, j has the number 2^i + 2^j
        self.table = coefficients.flatten(-2).flatten(0, -2)

    def wrapped(self, index: Tensor) -> Tensor:
        """Index coordinates taken into the lattice: by a period, or to the wall."""
        return torch.stack(
            [
                i.remainder(n) if periodic else i.clamp(0, n)
                for i, n, periodic in zip(index, self.cells, self.box.periodic, strict=True)
            ]
        )

    def split(self, index: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """Row of the table ``(N,)`` and place in the cell, in [0, 1], ``(d, N)`` for index coordinates ``(d, N)``."""
        corner = torch.minimum(index.floor().clamp(min=0), self._last - 1)
        row = sample if len(self.nodes) > 1 else torch.zeros_like(sample)
        for axis, n in enumerate(self.cells):
            row = row * n + corner[axis].long()
        return row, index - corner

    def position(self, index: Tensor, sample: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x ``(d, N)`` at index coordinates ``(d, N)``, and its derivative along each of them, d times ``(d, N)``."""
        return self.evaluate(*self.split(index, sample))

    def evaluate(self, row: Tensor, fraction: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As ``position``, from the cell's row of the table and the place in it, which may lie outside."""
        dim = self.box.dim
        c = self.table.index_select(0, row).t().contiguous().unflatten(0, (2**dim, dim))
        if dim == 2:
            s, t = fraction
            along_s, along_t = c[1] + c[3] * t, c[2] + c[3] * s
            return c[0] + along_s * s + c[2] * t, [along_s, along_t]
        s, t, u = fraction
        plane_s, plane_t = c[1] + c[5] * u, c[2] + c[6] * u
        twist = c[3] + c[7] * u
        along_s, along_t = plane_s + twist * t, plane_t + twist * s
        along_u = c[4] + c[5] * s + (c[6] + c[7] * s) * t
        return c[0] + c[4] * u + along_s * s + plane_t * t, [along_s, along_t, along_u]

    def corner_of(self, row: Tensor) -> Tensor:
        """Low corner of the cells in rows of the table, as index coordinates ``(d, N)``."""
        corner = []
        for n, step in zip(self.cells, strides(self.cells), strict=True):
            corner.append((row // step) % n)
        return torch.stack(corner).to(self.nodes.dtype)


def nearest(difference: Tensor, box: Box) -> Tensor:
    """A difference of positions ``(d, N)`` to the nearest image on the periodic axes."""
    if not any(box.periodic):
        return difference
    return torch.stack(
        [
            x - length * (x / length).round() if periodic else x
            for x, length, periodic in zip(difference, box.lengths, box.periodic, strict=True)
        ]
    )


def newton_step(position: Tensor, along: list[Tensor], goal: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """Step of the index coordinates ``(d, N)`` that takes ``position`` to ``goal`` if the map were affine, and how far
    apart they are ``(N,)``, in the largest coordinate.

    Cramer's rule; where the determinant is not positive (a folded cell) the step has the sign of a positive one.
    """
    gap = nearest(goal - position, box)
    if box.dim == 2:
        a, b = along
        determinant = a[0] * b[1] - a[1] * b[0]
        numerators = [gap[0] * b[1] - gap[1] * b[0], a[0] * gap[1] - a[1] * gap[0]]
    else:
        a, b, c = along
        normal = torch.linalg.cross(b, c, dim=0)
        turned = torch.linalg.cross(a, gap, dim=0)
        determinant = (a * normal).sum(0)
        numerators = [(gap * normal).sum(0), (c * turned).sum(0), -(b * turned).sum(0)]
    size = determinant.abs().clamp(min=torch.finfo(gap.dtype).tiny)
    return torch.stack(numerators) / size, gap.abs().amax(0)

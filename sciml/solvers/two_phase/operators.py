"""Differences on the staggered grid, at the sides as the domain says."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.solvers.two_phase.domain import Domain, Faces


def divergence(velocity: Faces, domain: Domain) -> Tensor:
    """``(B, nx, ny)``, 1/s."""
    u, v = velocity
    return torch.diff(u, dim=1) / domain.size(0) + torch.diff(v, dim=2) / domain.size(1)


def gradient(pressure: Tensor, domain: Domain) -> Faces:
    """The difference quotient at every face: 0 on walls, to the pressure 0 half a cell away on open sides."""
    x = _difference(pressure, 1, domain.is_open(0)) / domain.size(0)
    y = _difference(pressure, 2, domain.is_open(1)) / domain.size(1)
    return x, y


def _difference(p: Tensor, dim: int, is_open: tuple[bool, bool]) -> Tensor:
    """n + 1 differences along ``dim``; at an open end to the mirrored value -p."""
    low, high = p.narrow(dim, 0, 1), p.narrow(dim, p.shape[dim] - 1, 1)
    low = 2 * low if is_open[0] else torch.zeros_like(low)
    high = -2 * high if is_open[1] else torch.zeros_like(high)
    return torch.cat((low, torch.diff(p, dim=dim), high), dim)


def face_mean(cells: Tensor) -> Faces:
    """Mean of the two cells at every face; on the sides the value of the inner cell."""
    return _mean(cells, 1), _mean(cells, 2)


def _mean(cells: Tensor, dim: int) -> Tensor:
    n = cells.shape[dim]
    inner = 0.5 * (cells.narrow(dim, 1, n - 1) + cells.narrow(dim, 0, n - 1))
    return torch.cat((cells.narrow(dim, 0, 1), inner, cells.narrow(dim, n - 1, 1)), dim)

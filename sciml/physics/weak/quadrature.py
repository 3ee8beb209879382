"""Gauss-Legendre quadrature on an interval and its products on a box."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.errors import ConfigError


def gauss_legendre(order: int) -> tuple[Tensor, Tensor]:
    """Points and weights ``(order,)`` on [0, 1], float64: exact for polynomials up to the degree 2 order - 1.

    The points are the eigenvalues of the Jacobi matrix of the Legendre polynomials, the weights the squares of the
    first components of its eigenvectors (Golub and Welsch, Math. Comp. 23 (1969) 221). Raises ``ConfigError`` for an
    order below 1.
    """
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ConfigError(f"the order of the quadrature is {order!r}; expected a whole number of points, 1 or more")
    k = torch.arange(1, order, dtype=torch.float64)
    side = k / (4 * k**2 - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return (nodes + 1) / 2, vectors[0] ** 2


def tensor_product(axes: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Points ``(Q, d)`` and weights ``(Q,)`` of the product of one rule ``(points, weights)`` an axis, in C order."""
    points = torch.stack(torch.meshgrid(*(nodes for nodes, _ in axes), indexing="ij"), -1).reshape(-1, len(axes))
    weights = torch.stack(torch.meshgrid(*(weights for _, weights in axes), indexing="ij"), -1).prod(-1).reshape(-1)
    return points, weights


def ball_rule(dim: int, order: int) -> tuple[Tensor, Tensor]:
    """Points ``(Q, dim)`` and weights ``(Q,)`` in the unit ball of 2 or 3 dimensions, ``order``^dim of them.

    ``order`` Gauss points in the radius, ``order`` equal angles around an axis and, in 3D, ``order`` Gauss points in
    the cosine to it. Exact for radial polynomials, odd powers of r included, times polynomials of the coordinates:
    the degree of the latter at most order - 1, with the radial one (and the Jacobian r^(dim - 1)) 2 order - 1.
    """
    radii, weights = gauss_legendre(order)
    weights = weights * radii ** (dim - 1)
    # half a step off the axes, so that the rule does not depend on the sign of a coordinate
    angles = 2 * torch.pi * (torch.arange(order, dtype=torch.float64) + 0.5) / order
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    shares = torch.full((order,), 2 * torch.pi / order, dtype=torch.float64)
    if dim == 3:
        heights, height_weights = gauss_legendre(order)
        heights = (2 * heights - 1).unsqueeze(-1)
        across = (1 - heights**2).sqrt().unsqueeze(-1) * directions  # (heights, angles, 2)
        directions = torch.cat([across, heights.unsqueeze(-1).expand(-1, order, 1)], -1).reshape(-1, 3)
        shares = (2 * height_weights[:, None] * shares).reshape(-1)
    return (radii[:, None, None] * directions).reshape(-1, dim), (weights[:, None] * shares).reshape(-1)


def interval_rule(low: float, high: float, order: int) -> tuple[Tensor, Tensor]:
    """Gauss points and weights in [low, high] around 0, ``order`` on each side of 0 that is not empty: exact also for
    functions of |x| that are polynomials on each side."""
    nodes, weights = gauss_legendre(order)
    ends = [end for end in (low, high) if end != 0.0]
    return torch.cat([end * nodes for end in ends]), torch.cat([abs(end) * weights for end in ends])

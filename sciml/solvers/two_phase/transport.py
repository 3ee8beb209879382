"""Transport of velocity on the staggered grid, u . grad u: upwind, limited, second order in space and time.

Each component is written for
the x axis; the y component is the same function of the transposed fields.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.solvers.two_phase.domain import Domain, Faces


def transport(velocity: Faces, dt: Tensor, domain: Domain) -> Faces:
    """u . grad u ``(m/s^2)`` at every face, centred in the middle of the step ``dt (B,)``."""
    u, v = velocity
    dt = dt[:, None, None]
    x = _transport(u, v, dt, domain, 0)
    y = _transport(v.mT, u.mT, dt, domain, 1).mT.contiguous()
    return x, y


def _transport(u: Tensor, v: Tensor, dt: Tensor, domain: Domain, axis: int) -> Tensor:
    """Of the component ``u (B, n + 1, m)`` along ``axis``, which leads; ``v (B, n, m + 1)`` is the other one."""
    other = 1 - axis
    along = _differences_along(u, domain.is_open(axis))
    through = _beside(v)
    across = 0.5 * (through[..., 1:] + through[..., :-1])
    links = domain.links[axis] if axis == 0 else domain.links[axis].mT
    sideways = _differences_across(u, through, links, domain.is_open(other))
    return u * upwind_difference(along, u, dt, domain.size(axis), 1) + across * upwind_difference(
        sideways, across, dt, domain.size(other), 2
    )


def upwind_difference(first: Tensor, speed: Tensor, dt: Tensor, spacing: Tensor, dim: int) -> Tensor:
    """dq/dx at the n places of ``speed`` from the n + 3 ``first`` differences of q along ``dim``, two before and two
    behind the first and last place.

    Against the wind, between the ends of limited straight pieces (monotonized central slopes, van Leer, J. Comput.
    Phys. 23 (1977) 276), half a step back in time: second order in space and time where q is smooth, and without new
    extrema in one dimension.
    """
    n = first.shape[dim] - 3
    a, b = first.narrow(dim, 0, n + 2), first.narrow(dim, 1, n + 2)
    slope = _minmod(2 * _minmod(a, b), 0.5 * (a + b))
    bend = torch.diff(slope, dim=dim)
    half = 0.5 - 0.5 * dt / spacing * speed.abs()
    backward = torch.addcmul(first.narrow(dim, 1, n), half, bend.narrow(dim, 0, n))
    forward = torch.addcmul(first.narrow(dim, 2, n), half, bend.narrow(dim, 1, n), value=-1)
    return torch.where(speed > 0, backward, forward) / spacing


def _minmod(a: Tensor, b: Tensor) -> Tensor:
    """The smaller one where the signs agree, else 0."""
    return torch.minimum(a, b).clamp(min=0) + torch.maximum(a, b).clamp(max=0)


def _differences_along(u: Tensor, is_open: tuple[bool, bool]) -> Tensor:
    """Of a component along its own axis 1: n + 1 faces -> n + 4. Beyond walls and inlets as inside; beyond an open side
    still air where it flows in, else the velocity of the side."""
    inner = torch.diff(u, dim=1)
    ends = []
    for side, edge, repeated in (
        (0, u[:, :1].clamp(min=0), inner[:, :2].flip(1)),
        (1, -u[:, -1:].clamp(max=0), inner[:, -2:].flip(1)),
    ):
        if not is_open[side]:
            ends.append(repeated)
        else:
            still = torch.zeros_like(edge)
            ends.append(torch.cat((still, edge) if side == 0 else (edge, still), 1))
    return torch.cat((ends[0], inner, ends[1]), 1)


def _differences_across(u: Tensor, through: Tensor, links: Tensor, is_open: tuple[bool, bool]) -> Tensor:
    """Of a component across its axis 2: m faces -> m + 3. 0 towards walls and solids: nothing is carried through them
    (that fluid sticks to them is the viscous stress's part). An open side brings in still air (``through (B, n + 1,
    m + 1)``: the velocity along axis 2)."""
    inner = torch.diff(u, dim=2) * links
    zero = torch.zeros_like(u[..., :1])
    low = torch.where(through[..., :1] > 0, u[..., :1], 0.0) if is_open[0] else zero
    high = torch.where(through[..., -1:] < 0, -u[..., -1:], 0.0) if is_open[1] else zero
    return torch.cat((zero, low, inner, high, zero), 2)


def _beside(v: Tensor) -> Tensor:
    """``(B, n, m + 1)`` -> ``(B, n + 1, m + 1)``: the other component at the corners, on the sides its nearest
    value."""
    return torch.cat((v[:, :1], 0.5 * (v[:, 1:] + v[:, :-1]), v[:, -1:]), 1)

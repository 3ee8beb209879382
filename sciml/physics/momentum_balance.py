"""The force of a flow on a body in it, from the fields around the body alone."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import DataError

_FIRST = ((-25.0, 48.0, -36.0, 16.0, -3.0), (-3.0, -10.0, 18.0, -6.0, 1.0))
"""Twelve times the fourth-order differences in the first and the second of five values."""


def force_on_body(
    velocity: Tensor,
    pressure: Tensor,
    time: Tensor,
    *,
    weight: Tensor,
    lengths: Tensor,
    density: Tensor,
    viscosity: Tensor,
) -> Tensor:
    """Force on a body per metre across the plane, ``(B, T, 2)`` in N/m.

    The momentum equation times a weight w, integrated over the fluid, by parts:

        F_i = -int w rho du_i/dt + int (rho u_i u_j + p delta_ij - tau_ij) dw/dx_j,
        tau_ij = mu (du_i/dx_j + du_j/dx_i),

    for w = 1 on the body and 0 before the boundary of the box (a control volume with a soft edge). Nothing is read off
    at the body's surface, which the grid does not resolve.

    ``velocity (B, T, 2, nx, ny)`` in m/s, 0 in the body, ``pressure (B, T, nx, ny)`` in Pa, ``time (B, T)`` in s,
    equally spaced; ``weight (B, nx, ny)`` at the cell centres; ``lengths (B, 2)`` of the box; ``density`` and
    ``viscosity (B,)``. Derivatives are central differences in space, of fourth order in time from five frames on.

    Raises ``DataError`` for fewer than three frames.
    """
    if velocity.shape[1] < 3:
        raise DataError(f"{velocity.shape[1]} frames; the force needs at least 3, for the velocity's change in time")
    u, p = velocity.double(), pressure.double()
    w = weight.to(u).unsqueeze(1)
    nx, ny = u.shape[3:]
    spacing = lengths.to(u) / u.new_tensor([nx, ny])
    h = [spacing[:, k].reshape(-1, 1, 1, 1) for k in range(2)]
    cell = (spacing[:, 0] * spacing[:, 1]).reshape(-1, 1)
    rho, mu = (value.to(u).reshape(-1, 1, 1, 1) for value in (density, viscosity))
    slope = [torch.gradient(w, dim=2 + k)[0] / h[k] for k in range(2)]
    strain = [[torch.gradient(u[:, :, i], dim=2 + j)[0] / h[j] for j in range(2)] for i in range(2)]
    rate = _rate(u, time.to(u))
    force = []
    for i in range(2):
        density_of_force = -w * rho * rate[:, :, i] + p * slope[i]
        for j in range(2):
            stress = rho * u[:, :, i] * u[:, :, j] - mu * (strain[i][j] + strain[j][i])
            density_of_force = density_of_force + stress * slope[j]
        force.append(density_of_force.sum((2, 3)) * cell)
    return torch.stack(force, -1)


def _rate(u: Tensor, time: Tensor) -> Tensor:
    """du/dt ``(B, T, ...)`` of equally spaced frames: fourth order, or second with fewer than five frames."""
    step = (time[:, -1] - time[:, 0]) / (time.shape[1] - 1)
    if u.shape[1] < 5:
        rate = torch.gradient(u, dim=1, edge_order=2)[0]
    else:
        inner = (8 * (u[:, 3:-1] - u[:, 1:-3]) - (u[:, 4:] - u[:, :-4])) / 12
        first = [torch.einsum("k,bk...->b...", u.new_tensor(row) / 12, u[:, :5]) for row in _FIRST]
        last = [-torch.einsum("k,bk...->b...", u.new_tensor(row) / 12, u[:, -5:].flip(1)) for row in _FIRST]
        rate = torch.cat([torch.stack(first, 1), inner, torch.stack(last[::-1], 1)], 1)
    return rate / step.reshape(-1, *(1,) * (u.ndim - 1))

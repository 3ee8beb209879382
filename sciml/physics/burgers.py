"""The viscous Burgers equation in one and two dimensions, pseudo-spectral: right-hand side and residual.

    u_t + (u . grad) u = nu lap u

on a periodic box, or in one dimension between two walls where u = 0. The walled case is the periodic one on a box of
twice the length whose field is odd about both walls, u(-x) = -u(x), which the equation preserves. Batched over cases
and differentiable in every tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.spectral import PeriodicBox


def burgers_box(
    shape: tuple[int, ...],
    lengths: Tensor,
    *,
    walls: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> PeriodicBox:
    """The periodic box of ``shape`` cells and sides ``lengths (B, dim)``; with walls the one of twice the length.

    Raises ``ConfigError`` for walls in more than one dimension and for lengths that are not positive.
    """
    if walls and len(shape) != 1:
        raise ConfigError(f"walls exist in one dimension only, the grid has {len(shape)}; use walls=False")
    times = 2 if walls else 1
    return PeriodicBox([times * n for n in shape], times * lengths, dtype=dtype, device=device)


def odd_extension(field: Tensor) -> Tensor:
    """``(..., n)`` on the cell centres of [0, L] to ``(..., 2n)`` on those of [0, 2L], odd about 0 and L."""
    return torch.cat([field, -field.flip(-1)], -1)


def burgers_transport(box: PeriodicBox, spectrum: Tensor) -> Tensor:
    """Spectrum of -(u . grad) u from that of u, ``(B, dim, *k)``, free of aliasing errors by the 2/3 rule."""
    kept = spectrum * box.dealias
    values = box.inverse(torch.cat([kept, box.gradient(kept)], 1))
    velocity, gradient = values.split([box.dim, box.dim**2], 1)
    gradient = gradient.unflatten(1, (box.dim, box.dim))  # (B, component, axis, *grid)
    return -box.forward((velocity.unsqueeze(1) * gradient).sum(2)) * box.dealias


def burgers_rhs(velocity: Tensor, lengths: Tensor, viscosity: Tensor, *, walls: bool = False) -> Tensor:
    """nu lap u - (u . grad) u at the cell centres, ``(B, dim, *grid)`` in m/s^2.

    ``velocity (B, dim, *grid)``, ``lengths (B, dim)`` the sides of the box, ``viscosity (B,)``. Raises ``DataError``
    for a velocity of another shape, ``ConfigError`` for walls in more than one dimension.
    """
    shape = tuple(velocity.shape[2:])
    if velocity.shape[1] != len(shape) or lengths.shape != (velocity.shape[0], len(shape)):
        raise DataError(
            f"velocity has shape {tuple(velocity.shape)} and lengths {tuple(lengths.shape)}; expected "
            "(cases, axes, *grid) and (cases, axes)"
        )
    box = burgers_box(shape, lengths, walls=walls, dtype=velocity.dtype, device=velocity.device)
    spectrum = box.forward(odd_extension(velocity) if walls else velocity)
    column = viscosity.to(velocity).reshape(-1, *(1,) * (box.dim + 1))
    rate = box.inverse(column * box.laplacian * spectrum + burgers_transport(box, spectrum))
    return rate[..., : shape[0]] if walls else rate


def burgers_residual(
    before: Tensor, after: Tensor, dt: Tensor, lengths: Tensor, viscosity: Tensor, *, walls: bool = False
) -> Tensor:
    """Residual between two states ``(B, dim, *grid)``, trapezoidal in time:

        (u_1 - u_0) / dt - (R(u_0) + R(u_1)) / 2,    R = ``burgers_rhs``

    ``dt (B,)``. Returns ``(B, dim, *grid)`` in m/s^2: O(dt^2) for a resolved solution. Raises as ``burgers_rhs``.
    """
    step = dt.to(before).reshape(-1, *(1,) * (before.ndim - 1))
    mean = 0.5 * sum(burgers_rhs(state, lengths, viscosity, walls=walls) for state in (before, after))
    return (after - before) / step - mean

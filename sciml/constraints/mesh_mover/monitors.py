"""Monitor functions: how fine the mesh of a field should be where.

A mesh mover makes m(x) det(dx/dxi) the same everywhere, so m is the density of the mesh. Here m = (1 - b) + b H /
mean(H): the *share* b of the cells goes where H is, the others are spread evenly. For the L2 error of piecewise linear
interpolation in d dimensions the optimal isotropic density is H = |Hess u|_F^(2d / (d + 4)) (Huang & Sun, J. Comput.
Phys. 184 (2003) 619), the exponent 2/3 in 2D; m is smoothed, because a mesh can follow only what spans a few cells.

A monitor of one's own is any function (u, box) -> positive ``(B, *n)``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.roughness import OnRough, check_field
from sciml.constraints.mesh_mover.smoothing import smooth
from sciml.errors import ConfigError

MonitorFunction = Callable[[Tensor, Box], Tensor]
"""From a cell-centred field ``(B, C, *n)`` to positive values ``(B, *n)``."""


def curvature_monitor(
    u: Tensor, box: Box, *, share: float = 0.5, smoothing: float | None = None, rough: OnRough = "raise"
) -> Tensor:
    """(1 - b) + b H / mean(H), H = |Hess u|_F^(2d / (d + 4)), cell-centred ``(B, *n)``, mean exactly 1.

    Args:
        u: cell-centred field ``(B, C, *n)``, in any units: each channel is divided by its standard deviation, and the
            squares of several are summed.
        share: b, the share of the mesh that adapts, in [0, 0.95].
        smoothing: standard deviation of the Gaussian in metres; default: a 48th of the longest side, or one cell of
            ``u`` where that is wider.
        rough: what to do with a field too rough for its grid: ``"raise"``, ``"warn"`` or ``"ignore"``.

    A field without curvature (constant, linear) has the monitor 1. Raises ``ConfigError`` for options out of range,
    ``DataError`` for a field that does not fit the box, has NaN or infinite values, or is too rough for its grid.
    """
    exponent = box.dim / (box.dim + 4)
    return _monitor(u, box, _second_derivatives, 2, exponent, share, smoothing, rough)


def gradient_monitor(
    u: Tensor, box: Box, *, share: float = 0.5, smoothing: float | None = None, rough: OnRough = "raise"
) -> Tensor:
    """(1 - b) + b H / mean(H) with H = |grad u|; all else as of ``curvature_monitor``."""
    return _monitor(u, box, _first_derivatives, 1, 0.5, share, smoothing, rough)


MONITORS: dict[str, MonitorFunction] = {"curvature": curvature_monitor, "gradient": gradient_monitor}
"""Monitor functions by name; all take ``share``, ``smoothing`` and ``rough``."""


def _monitor(
    u: Tensor,
    box: Box,
    derivatives: Callable[[Tensor, Box], Tensor],
    order: int,
    exponent: float,
    share: float,
    smoothing: float | None,
    rough: OnRough,
) -> Tensor:
    """``exponent`` is that of the sum of squares."""
    if not 0 <= share <= 0.95:
        raise ConfigError(
            f"share={share}: the share of the mesh that adapts is in [0, 0.95]; beyond, no cells are left for the rest."
        )
    check_field(u, box, rough)
    spacing = box.spacing(u.shape[2:])
    u = _standardised(u)
    square = derivatives(u, box)
    # What rounding alone makes of a field without derivatives (of the mean too, which has been taken off) is none.
    noise = (16 * torch.finfo(u.dtype).eps * u.detach().abs().flatten(2).amax(2) / min(spacing) ** order) ** 2
    seen = square.detach().flatten(2).mean(2) > noise
    square = torch.where(seen.reshape(*seen.shape, *(1,) * box.dim), square, 0.0).sum(1)
    density = square.clamp_min(torch.finfo(u.dtype).tiny) ** exponent
    if smoothing is None:
        smoothing = max(max(box.lengths) / 48, *spacing)
    density = smooth(density.unsqueeze(1), box, smoothing, "even").squeeze(1)
    each = (-1, *(1,) * box.dim)
    density = density / density.flatten(1).mean(1).reshape(each)
    return torch.where(seen.any(1).reshape(each), 1 - share + share * density, 1.0)


def _standardised(u: Tensor) -> Tensor:
    """Each channel less its mean, over its standard deviation; zero where that is only rounding."""
    each = (*u.shape[:2], *(1,) * (u.ndim - 2))
    largest = u.detach().abs().flatten(2).amax(2).reshape(each)
    u = u - u.flatten(2).mean(2).reshape(each)
    deviation = u.flatten(2).square().mean(2).sqrt().reshape(each)
    varies = deviation > 64 * torch.finfo(u.dtype).eps * largest
    return torch.where(varies, u / torch.where(varies, deviation, 1.0), 0.0)


def _first_derivatives(u: Tensor, box: Box) -> Tensor:
    """|grad u|^2 of each channel ``(B, C, *n)``: central differences, one-sided of second order at walls."""
    u = _with_ghosts(u, box)
    spacing = [length / (n - 2) for length, n in zip(box.lengths, u.shape[2:], strict=True)]
    return sum((_difference(u, axis) / (2 * h)) ** 2 for axis, h in enumerate(spacing))


def _second_derivatives(u: Tensor, box: Box) -> Tensor:
    """|Hess u|_F^2 of each channel ``(B, C, *n)``."""
    u = _with_ghosts(u, box)
    spacing = [length / (n - 2) for length, n in zip(box.lengths, u.shape[2:], strict=True)]
    inner = _shifted(u, {})
    total = 0.0
    for axis, h in enumerate(spacing):
        total = total + ((_shifted(u, {axis: 1}) - 2 * inner + _shifted(u, {axis: -1})) / h**2) ** 2
    for i, j in combinations(range(box.dim), 2):
        mixed = _shifted(u, {i: 1, j: 1}) - _shifted(u, {i: 1, j: -1})
        mixed = mixed - _shifted(u, {i: -1, j: 1}) + _shifted(u, {i: -1, j: -1})
        total = total + 2 * (mixed / (4 * spacing[i] * spacing[j])) ** 2
    return total


def _with_ghosts(u: Tensor, box: Box) -> Tensor:
    """One more cell on every side: periodic, or by quadratic extrapolation, which makes central differences one-sided
    ones of second order at a wall.
    """
    for axis, periodic in enumerate(box.periodic, start=2):
        first, last = (0, 1, 2), (-1, -2, -3)
        if periodic:
            low, high = u.select(axis, -1), u.select(axis, 0)
        else:
            low, high = (3 * u.select(axis, a) - 3 * u.select(axis, b) + u.select(axis, c) for a, b, c in (first, last))
        u = torch.cat((low.unsqueeze(axis), u, high.unsqueeze(axis)), axis)
    return u


def _difference(u: Tensor, axis: int) -> Tensor:
    return _shifted(u, {axis: 1}) - _shifted(u, {axis: -1})


def _shifted(u: Tensor, shifts: dict[int, int]) -> Tensor:
    """The cells without the ghosts, moved by -1, 0 or 1 along each axis."""
    for axis in range(u.ndim - 2):
        u = u.narrow(axis + 2, 1 + shifts.get(axis, 0), u.shape[axis + 2] - 2)
    return u

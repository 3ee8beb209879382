"""Monitors of node values on a triangulation: how dense its nodes should be where.

m = (1 - b) + b H / mean(H), as on boxes (``mesh_mover.monitors``): the share b of the mesh goes where H is. H =
|Hess u|_F^(2/3), optimal for the L2 error of linear interpolation in the plane (Huang and Sun, J. Comput. Phys. 184
(2003) 619), or |grad u|, both recovered at the nodes, diffused over a few triangles, and of mean 1 over the domain.

A monitor of one's own is any function (u, triangulation) -> positive ``(B, N)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.triangles.recovery import recovery_matrix
from sciml.constraints.mesh_mover.triangles.smoothing import check_values, smooth_nodes
from sciml.constraints.mesh_mover.triangles.triangulation import Triangulation
from sciml.errors import ConfigError, DataError

TriangleMonitor = Callable[[Tensor, Triangulation], Tensor]
"""From node values ``(B, C, N)`` to positive values ``(B, N)``."""


def triangle_curvature_monitor(
    u: Tensor, triangulation: Triangulation, *, share: float = 0.5, smoothing: float | None = None
) -> Tensor:
    """(1 - b) + b H / mean(H), H = |Hess u|_F^(2/3), at the nodes ``(B, N)``.

    Args:
        u: node values ``(B, C, N)``, in any units: each channel is divided by its standard deviation, and the squares
            of several are summed.
        share: b, the share of the mesh that adapts, in [0, 0.95].
        smoothing: width of the smoothing in metres (see ``smooth_nodes``); default: the mean edge.

    A field without curvature (constant, linear) has the monitor 1. Differentiable in u. Raises ``ConfigError`` for
    options out of range, ``DataError`` for a field of a wrong shape or with NaN or infinite values.
    """
    return _monitor(u, triangulation, slice(2, 5), (1.0, 2.0, 1.0), 1 / 3, share, smoothing)


def triangle_gradient_monitor(
    u: Tensor, triangulation: Triangulation, *, share: float = 0.5, smoothing: float | None = None
) -> Tensor:
    """(1 - b) + b H / mean(H) with H = |grad u|; all else as of ``triangle_curvature_monitor``."""
    return _monitor(u, triangulation, slice(0, 2), (1.0, 1.0), 1 / 2, share, smoothing)


TRIANGLE_MONITORS: dict[str, TriangleMonitor] = {
    "curvature": triangle_curvature_monitor,
    "gradient": triangle_gradient_monitor,
}
"""Monitors by name; all take ``share`` and ``smoothing``."""


def check_triangle_monitor(monitor: Tensor, triangulation: Triangulation) -> None:
    """``DataError`` unless ``monitor`` is ``(B, N)``, finite and positive."""
    if monitor.ndim != 2 or monitor.shape[1] != triangulation.n_nodes or not monitor.is_floating_point():
        raise DataError(
            f"the monitor has shape {tuple(monitor.shape)} and type {monitor.dtype}; expected floating numbers (batch, "
            f"{triangulation.n_nodes}), one value a node of the triangulation"
        )
    check_values(monitor.detach().unsqueeze(1), triangulation)
    least = monitor.detach().amin(1)
    zero = (monitor == 0).all(1)
    if bool(zero.any()):
        raise DataError(
            f"the monitor of sample {int(zero.nonzero()[0])} is zero everywhere: it says nothing about where nodes "
            "should go; add a constant (ones everywhere leave the mesh as it is)"
        )
    if bool((least <= 0).any()):
        sample = int(least.argmin())
        raise DataError(
            f"the monitor of sample {sample} is {float(least[sample]):.3g} somewhere: it is a density of nodes and "
            "must be positive; add a constant floor, as (1 - share) + share * H / mean(H) has"
        )


def _monitor(
    u: Tensor,
    triangulation: Triangulation,
    which: slice,
    counts: tuple[float, ...],
    exponent: float,
    share: float,
    smoothing: float | None,
) -> Tensor:
    """``exponent`` is that of the sum of the squares of the derivatives ``which``, which count ``counts`` times."""
    if not 0 <= share <= 0.95:
        raise ConfigError(f"share is {share}; expected [0, 0.95]: beyond, no nodes are left for the rest")
    check_values(u, triangulation)
    weights = (triangulation.node_areas / triangulation.area).to(u)
    u, varies = _standardised(u, weights)
    slopes = recovery_matrix(triangulation)(u.double().cpu()).unflatten(-1, (5, -1))[..., which, :].to(u)
    squares = (slopes.square() * u.new_tensor(counts).unsqueeze(-1)).sum(-2)  # (B, C, N)
    order = 2 if len(counts) == 3 else 1
    # what rounding alone makes of a field without derivatives is none
    noise = (64 * torch.finfo(u.dtype).eps * u.detach().abs().amax(-1) / triangulation.size**order) ** 2
    seen = varies & ((squares.detach() * weights).sum(-1) > noise)
    square = torch.where(seen.unsqueeze(-1), squares, 0.0).sum(1)
    density = square.clamp_min(torch.finfo(u.dtype).tiny) ** exponent
    width = triangulation.size if smoothing is None else smoothing
    density = smooth_nodes(density.unsqueeze(1), triangulation, width)[:, 0].clamp_min(0)
    density = density / (density * weights).sum(1, keepdim=True)
    return torch.where(seen.any(1, keepdim=True), 1 - share + share * density, 1.0)


def _standardised(u: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel less its mean, over its standard deviation, and whether it varies by more than rounding."""
    largest = u.detach().abs().amax(-1)
    u = u - (u * weights).sum(-1, keepdim=True)
    deviation = (u.square() * weights).sum(-1).sqrt()
    varies = deviation > 64 * torch.finfo(u.dtype).eps * largest
    scale = torch.where(varies, deviation, 1.0).unsqueeze(-1)
    return torch.where(varies.unsqueeze(-1), u / scale, 0.0), varies

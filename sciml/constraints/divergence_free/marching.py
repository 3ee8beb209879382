"""The face velocities behind a cell-centred velocity, without any transform: what a residual is measured with."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.divergence_free.axis_modes import Ends, hides
from sciml.constraints.divergence_free.obstacles import Segments
from sciml.constraints.divergence_free.prescribed import Prescribed
from sciml.physics import Metric, divergence, faces_to_centres


def divergence_residual(u: Tensor, prescribed: Prescribed) -> Tensor:
    """How far ``u (B, dim, *grid)`` float64 is from coming from divergence-free faces, ``(B,)``.

    The square root of the mean over the cells of |h D f|^2 + |what no faces can give|^2, over the rms of |u|: D the
    solver's divergence, h the shortest side of a cell, and f from f[k + 1] = 2 u[k] - f[k], starting at a prescribed
    face. What no faces can give: the alternating part of a component along its own axis between two prescribed faces
    (f misses the far wall by it) or on an even periodic axis, and velocities inside obstacles. Marching adds the
    errors up: rounding u to float32 leaves about 3e-8 times the square root of the number of cells along an axis.
    """
    lift, metrics = prescribed.lift, prescribed.metrics
    change = u - faces_to_centres(lift, metrics)
    missing = torch.zeros_like(change)
    if prescribed.fluid is not None:
        missing = Segments(prescribed).outside(change)
    faces = []
    for i, (metric, ends) in enumerate(zip(metrics, prescribed.open_ends, strict=True)):
        line = (change[:, i] - missing[:, i]).movedim(i + 1, -1)
        f, left = _march(line, metric.periodic, ends)
        faces.append(f.movedim(-1, i + 1) + lift[i])
        missing[:, i] += left.movedim(-1, i + 1)
    rest = _without_hidden(divergence(tuple(faces), metrics), prescribed)
    sharpest = torch.stack(torch.broadcast_tensors(*(m.inverse_width for m in metrics))).amax(0)
    square = (rest / sharpest).square() + missing.square().sum(1)
    square = square.flatten(1).mean(1)
    size = u.square().sum(1).flatten(1).mean(1)
    return (square / torch.where(size == 0, 1.0, size)).sqrt()


def _march(u: Tensor, periodic: bool, ends: Ends) -> tuple[Tensor, Tensor]:
    """Stored faces along the last axis from the cells there, zero at prescribed ends, and the part of u that they
    miss."""
    if not periodic and ends == (True, False):
        f, left = _march(u.flip(-1), False, (False, True))
        return f.flip(-1), left.flip(-1)
    n = u.shape[-1]
    sign = torch.ones(n + 1, dtype=u.dtype, device=u.device)
    sign[1::2] = -1
    left = torch.zeros_like(u)
    if ends == (False, False) and not (periodic and n % 2):
        left = sign[:n] * (sign[:n] * u).mean(-1, keepdim=True)
    total = -2 * (sign[:n] * (u - left)).cumsum(-1)
    f = sign * torch.cat([torch.zeros_like(total[..., :1]), total], -1)
    if periodic:
        if n % 2:
            f = f + 0.5 * f[..., -1:] * sign  # the first face is not zero but such that the last equals it
        f = f[..., :n]
    return f, left


def _without_hidden(rest: Tensor, prescribed: Prescribed) -> Tensor:
    """A divergence less what alternating faces, which the cells do not see, can take away."""
    for axis, ends, metric in zip(prescribed.grid.axes, prescribed.open_ends, prescribed.metrics, strict=True):
        if hides(axis, ends):
            rest = rest - _alternating(rest, metric)
    return rest


def _alternating(rest: Tensor, metric: Metric) -> Tensor:
    sign = torch.ones(metric.n, dtype=rest.dtype, device=rest.device)
    sign[1::2] = -1
    sign = sign.reshape(-1, *(1,) * (rest.ndim - 1 - metric.dim))
    shape = sign * metric.inverse_width
    norm = (sign * shape).expand(rest.shape).sum(metric.dim, keepdim=True)
    return shape * (sign * rest).sum(metric.dim, keepdim=True) / norm

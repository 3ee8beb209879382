"""Volume flux through the sides of a box: the projection has a solution only when inflow and outflow
balance."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.physics.boundary import BoundaryValues
from sciml.physics.stencils import Metric


def face_areas(metrics: tuple[Metric, ...], axis: int) -> Tensor:
    """Area of the faces normal to ``axis`` (a length in 2D, 1 in 1D), broadcastable against a field."""
    area = torch.ones_like(metrics[axis].inverse_width.narrow(axis + 1, 0, 1))
    for metric in metrics:
        if metric.dim != axis + 1:
            area = area / metric.inverse_width
    return area


def boundary_flux(velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...]) -> tuple[Tensor, Tensor]:
    """Net volume flux into the box ``(B,)`` and the sum of the magnitudes, from stored faces."""
    net = velocity[0].new_zeros(velocity[0].shape[0])
    scale = net
    for i, metric in enumerate(metrics):
        if metric.periodic:
            continue
        for position, sign in ((0, 1.0), (metric.n, -1.0)):
            flux = (velocity[i].narrow(metric.dim, position, 1) * face_areas(metrics, i)).flatten(1)
            net, scale = net + sign * flux.sum(1), scale + flux.abs().sum(1)
    return net, scale


def balance_outlets(
    velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...], values: BoundaryValues
) -> tuple[Tensor, ...]:
    """Add one outward velocity to all outlet faces of a case so that the net flux into the box is zero."""
    if not values.outlets:
        return velocity
    net, _ = boundary_flux(velocity, metrics)
    area = torch.zeros_like(net)
    for axis, _ in values.outlets:
        side = velocity[axis].narrow(axis + 1, 0, 1)
        area = area + face_areas(metrics, axis).expand_as(side).flatten(1).sum(1)
    outward = (net / area).reshape(-1, *(1,) * len(metrics))
    result = list(velocity)
    for axis, end in values.outlets:
        u, dim, n = result[axis], axis + 1, metrics[axis].n
        if end == 0:
            result[axis] = torch.cat([u.narrow(dim, 0, 1) - outward, u.narrow(dim, 1, n)], dim)
        else:
            result[axis] = torch.cat([u.narrow(dim, 0, n), u.narrow(dim, n, 1) + outward], dim)
    return tuple(result)

"""Second-order differences on the staggered (MAC) grid in 1 to 3 dimensions.

Harlow and Welch, Phys. Fluids 8 (1965) 2182: velocity component i lives on the faces normal to axis i,
pressure at the cell centres. Three shapes of component i occur: *stored* (``Grid.face_shape``: n + 1 faces
along i, periodic n), *closed* (always n + 1 faces along i, the periodic face repeated) and *unknown* (the
faces the momentum equation holds on: n - 1 interior faces, periodic n). Tensors are ``(B, nx[, ny[, nz]])``,
so axis j is tensor dimension j + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.physics.boundary import BoundaryValues, Slab
from sciml.physics.grid import Grid


@dataclass(frozen=True, eq=False)
class Metric:
    """Reciprocal distances of one axis in physical units, broadcastable against a field.

    ``inverse_width``: 1 / cell width, ``(B, ..., n, ...)``, or extent 1 on a uniform axis;
    ``inverse_spacing``: 1 / centre distance at the unknown faces; ``inverse_ends``: 1 / distance from the
    first and last centre to the wall; ``weight``: interpolation weight of the upper neighbour at the unknown
    faces (a number on a uniform axis).
    """

    dim: int
    n: int
    periodic: bool
    inverse_width: Tensor
    inverse_spacing: Tensor
    inverse_ends: tuple[Tensor, Tensor]
    weight: float | Tensor


def metrics(grid: Grid, *, dtype: torch.dtype, device: torch.device | str | None = None) -> tuple[Metric, ...]:
    """The metric of every axis of ``grid``."""
    result = []
    for j, axis in enumerate(grid.axes):
        widths, distances = (
            axis.widths,
            axis.centre_distances[:-1] if axis.periodic else axis.centre_distances[1:-1],
        )
        lower = widths.roll(1) if axis.periodic else widths[:-1]
        weight: float | Tensor = 0.5
        if axis.uniform:
            widths, distances = widths[:1], distances[:1]
        else:
            weight = _along(0.5 * lower / distances, j, grid.dim).to(dtype=dtype, device=device)
        length = grid.lengths[:, j].to(device=device, dtype=torch.float64).reshape(-1, *(1,) * grid.dim)
        width = length * _along(widths, j, grid.dim).to(device)
        spacing = length * _along(distances, j, grid.dim).to(device)
        ends = tuple((2 / width.narrow(j + 1, k, 1)).to(dtype) for k in (0, width.shape[j + 1] - 1))
        result.append(
            Metric(
                dim=j + 1,
                n=axis.n,
                periodic=axis.periodic,
                inverse_width=(1 / width).to(dtype),
                inverse_spacing=(1 / spacing).to(dtype),
                inverse_ends=(ends[0], ends[1]),
                weight=weight,
            )
        )
    return tuple(result)


def _along(values: Tensor, axis: int, dim: int) -> Tensor:
    """A row of numbers as ``(1, ..., n, ...)`` along ``axis``."""
    return values.reshape(1, *(-1 if k == axis else 1 for k in range(dim)))


def difference(x: Tensor, dim: int) -> Tensor:
    """x[k + 1] - x[k] along a tensor dimension."""
    n = x.shape[dim] - 1
    return x.narrow(dim, 1, n) - x.narrow(dim, 0, n)


def midpoint(x: Tensor, dim: int, weight: float | Tensor = 0.5) -> Tensor:
    """x[k] + weight (x[k + 1] - x[k]) along a tensor dimension."""
    n = x.shape[dim] - 1
    return torch.lerp(x.narrow(dim, 0, n), x.narrow(dim, 1, n), weight)


def closed(x: Tensor, metric: Metric) -> Tensor:
    """Append the first slice at the end of a periodic axis (n -> n + 1 faces); other axes are closed
    already."""
    return torch.cat([x, x.narrow(metric.dim, 0, 1)], metric.dim) if metric.periodic else x


def opened(x: Tensor, metric: Metric) -> Tensor:
    """Prepend the last slice of a periodic axis (cells -1 ... n - 1), so that a difference lands on all n
    faces."""
    return torch.cat([x.narrow(metric.dim, x.shape[metric.dim] - 1, 1), x], metric.dim) if metric.periodic else x


def unknown(x: Tensor, metric: Metric) -> Tensor:
    """The faces that are unknowns of the momentum equation, from n + 1 closed faces."""
    return x.narrow(metric.dim, 0, metric.n) if metric.periodic else x.narrow(metric.dim, 1, metric.n - 1)


def unknown_of_stored(x: Tensor, metric: Metric) -> Tensor:
    """The same from the stored faces (all of them on a periodic axis)."""
    return x if metric.periodic else x.narrow(metric.dim, 1, metric.n - 1)


def divergence(velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...]) -> Tensor:
    """sum_i (u_i[k + 1] - u_i[k]) / width_i at the cells ``(B, *cells)``, from stored faces."""
    total = difference(closed(velocity[0], metrics[0]), 1) * metrics[0].inverse_width
    for u, metric in zip(velocity[1:], metrics[1:], strict=True):
        total = torch.addcmul(total, difference(closed(u, metric), metric.dim), metric.inverse_width)
    return total


def gradient(p: Tensor, metric: Metric) -> Tensor:
    """(p[k] - p[k - 1]) / spacing at the unknown faces of the metric's axis, from cells."""
    return difference(opened(p, metric), metric.dim) * metric.inverse_spacing


def to_nodes(x: Tensor, metric: Metric, slabs: tuple[Slab, Slab]) -> Tensor:
    """From cell positions to the n + 1 faces of an axis, ends included.

    Linear interpolation inside; at an end the boundary value where there is one, else the next cell (zero
    gradient).
    """
    dim = metric.dim
    inner = midpoint(opened(x, metric), dim, metric.weight)
    if metric.periodic:
        return closed(inner, metric)
    low = x.narrow(dim, 0, 1) if slabs[0] is None else slabs[0]
    high = x.narrow(dim, metric.n - 1, 1) if slabs[1] is None else slabs[1]
    return torch.cat([low, inner, high], dim)


def advection(velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...], values: BoundaryValues) -> tuple[Tensor, ...]:
    """div(u u_i) at the unknown faces of every component, from stored faces.

    Divergence form with central fluxes: normal fluxes at the cell centres, cross fluxes at the edges, where
    the product of the two interpolated components serves both. Conserves momentum, and energy on uniform
    grids with div u = 0 (Morinishi et al., J. Comput. Phys. 143 (1998) 90).
    """
    full = tuple(closed(u, metric) for u, metric in zip(velocity, metrics, strict=True))
    total = []
    for u, metric in zip(full, metrics, strict=True):
        centre = midpoint(u, metric.dim)
        total.append(difference(opened(centre * centre, metric), metric.dim) * metric.inverse_spacing)
    for i in range(len(full)):
        for j in range(i + 1, len(full)):
            mi, mj = metrics[i], metrics[j]
            flux = to_nodes(full[i], mj, values.slabs[i][j]) * to_nodes(full[j], mi, values.slabs[j][i])
            total[i] = torch.addcmul(total[i], difference(unknown(flux, mi), mj.dim), mj.inverse_width)
            total[j] = torch.addcmul(total[j], difference(unknown(flux, mj), mi.dim), mi.inverse_width)
    return tuple(total)


def laplacian(velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...], values: BoundaryValues) -> tuple[Tensor, ...]:
    """lap u_i at the unknown faces of every component, from stored faces.

    Along its own axis the component uses its boundary faces (at an outlet: zero gradient over the last cell);
    across, the wall value half a cell away, which in flux form is 2 (u_1 - g) / width_1.
    """
    result = []
    for i, u in enumerate(velocity):
        total = _normal_second_difference(u, metrics[i], _outlet_ends(values, i))
        inner = unknown_of_stored(u, metrics[i])
        for j, metric in enumerate(metrics):
            if j != i:
                slabs = values.slabs[i][j]
                pair = tuple(None if s is None else unknown(s, metrics[i]) for s in slabs)
                total = total + second_difference(inner, metric, (pair[0], pair[1]))
        result.append(total)
    return tuple(result)


def second_difference(x: Tensor, metric: Metric, slabs: tuple[Slab, Slab]) -> Tensor:
    """Second difference along an axis of values at cell positions; slabs as in ``to_nodes``."""
    dim, n = metric.dim, metric.n
    flux = difference(opened(x, metric), dim) * metric.inverse_spacing
    if metric.periodic:
        flux = closed(flux, metric)
    else:
        first, last = x.narrow(dim, 0, 1), x.narrow(dim, n - 1, 1)
        low = torch.zeros_like(first) if slabs[0] is None else (first - slabs[0]) * metric.inverse_ends[0]
        high = torch.zeros_like(last) if slabs[1] is None else (slabs[1] - last) * metric.inverse_ends[1]
        flux = torch.cat([low, flux, high], dim)
    return difference(flux, dim) * metric.inverse_width


def _normal_second_difference(u: Tensor, metric: Metric, outlets: tuple[bool, bool]) -> Tensor:
    """Second difference of a component along its own axis at the unknown faces, from stored faces."""
    dim, n = metric.dim, metric.n
    flux = difference(closed(u, metric), dim) * metric.inverse_width
    if any(outlets):
        parts = [flux.narrow(dim, int(outlets[0]), n - sum(outlets))]
        zero = torch.zeros_like(flux.narrow(dim, 0, 1))
        flux = torch.cat([zero] * outlets[0] + parts + [zero] * outlets[1], dim)
    return difference(opened(flux, metric), dim) * metric.inverse_spacing


def _outlet_ends(values: BoundaryValues, axis: int) -> tuple[bool, bool]:
    return (axis, 0) in values.outlets, (axis, 1) in values.outlets


def faces_to_centres(velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...]) -> Tensor:
    """Cell-centred velocity ``(B, dim, *cells)`` from stored faces: the mean of the two faces of each
    cell."""
    parts = [midpoint(closed(u, metric), metric.dim) for u, metric in zip(velocity, metrics, strict=True)]
    return torch.stack(parts, 1)


def centres_to_faces(velocity: Tensor, metrics: tuple[Metric, ...], values: BoundaryValues) -> tuple[Tensor, ...]:
    """Stored faces from a cell-centred velocity ``(B, dim, *cells)``: linear interpolation, boundary values
    at the ends."""
    result = []
    for i, metric in enumerate(metrics):
        nodes = to_nodes(velocity[:, i], metric, values.slabs[i][i])
        result.append(nodes.narrow(metric.dim, 0, metric.n) if metric.periodic else nodes)
    return tuple(result)


def with_boundary_faces(
    inner: tuple[Tensor, ...], metrics: tuple[Metric, ...], values: BoundaryValues
) -> tuple[Tensor, ...]:
    """Stored faces from the unknown ones: prescribed normal velocities, at outlets the next interior face."""
    result = []
    for i, (u, metric) in enumerate(zip(inner, metrics, strict=True)):
        if metric.periodic:
            result.append(u)
            continue
        low, high = values.slabs[i][i]
        low = u.narrow(metric.dim, 0, 1) if low is None else low
        high = u.narrow(metric.dim, u.shape[metric.dim] - 1, 1) if high is None else high
        result.append(torch.cat([low, u, high], metric.dim))
    return tuple(result)


def padded(inner: Tensor, metric: Metric) -> Tensor:
    """Stored faces from the unknown ones of one component, boundary faces zero."""
    if metric.periodic:
        return inner
    edge = torch.zeros_like(inner.narrow(metric.dim, 0, 1))
    return torch.cat([edge, inner, edge], metric.dim)


def subtract_gradient(velocity: tuple[Tensor, ...], phi: Tensor, metrics: tuple[Metric, ...]) -> tuple[Tensor, ...]:
    """u - grad phi at the unknown faces, from stored faces and cells; boundary faces stay."""
    result = []
    for u, metric in zip(velocity, metrics, strict=True):
        change = difference(opened(phi, metric), metric.dim)
        inner = torch.addcmul(unknown_of_stored(u, metric), change, -metric.inverse_spacing)
        if not metric.periodic:
            ends = u.narrow(metric.dim, 0, 1), u.narrow(metric.dim, metric.n, 1)
            inner = torch.cat([ends[0], inner, ends[1]], metric.dim)
        result.append(inner)
    return tuple(result)


def replace_boundary_faces(
    velocity: tuple[Tensor, ...], metrics: tuple[Metric, ...], values: BoundaryValues
) -> tuple[Tensor, ...]:
    """Stored faces with the prescribed normal velocities put in; outlet faces stay."""
    result = []
    for i, (u, metric) in enumerate(zip(velocity, metrics, strict=True)):
        if not metric.periodic:
            given = u.narrow(metric.dim, 0, 1), u.narrow(metric.dim, metric.n, 1)
            low, high = (g if s is None else s for g, s in zip(given, values.slabs[i][i], strict=True))
            u = torch.cat([low, unknown_of_stored(u, metric), high], metric.dim)
        result.append(u)
    return tuple(result)

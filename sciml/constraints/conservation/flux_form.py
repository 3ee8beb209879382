"""Conservation by construction: a change that is the difference of fluxes through faces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.physics import Grid
from sciml.physics.boundary import AXIS_NAMES, Value, sides
from sciml.physics.stencils import divergence, metrics, to_nodes


def flux_update(u: Tensor, fluxes: tuple[Tensor, ...], grid: Grid, interval: Tensor | float) -> Tensor:
    """``u - interval div F`` at the cells ``(B, C, *grid)``.

    ``fluxes[i] (B, C, *faces)``: the flux along axis i per unit area, in the unit of u times m/s, on the stored faces
    normal to axis i (``Grid.face_shape``); ``interval``: seconds, a number or ``(B,)``. What leaves a cell through a
    face enters the next, so the total over any set of cells changes by the flux through its hull, to round-off.
    Raises ``ConfigError`` for wrong shapes.
    """
    interval = _interval(interval, u)
    if u.ndim != grid.dim + 2 or (u.shape[0], *u.shape[2:]) != (grid.batch, *grid.shape):
        raise ConfigError(f"u has the shape {tuple(u.shape)}; expected ({grid.batch}, C, *{grid.shape}).")
    for i in range(grid.dim):
        expected = (*u.shape[:2], *grid.face_shape(i))
        if len(fluxes) != grid.dim or fluxes[i].shape != expected:
            given = [tuple(f.shape) for f in fluxes]
            raise ConfigError(f"The fluxes have the shapes {given}; that along {AXIS_NAMES[i]} should be {expected}.")
    spacing = metrics(grid, dtype=u.dtype, device=u.device)
    outflow = torch.stack([divergence(tuple(f[:, c] for f in fluxes), spacing) for c in range(u.shape[1])], 1)
    return u - interval.reshape(-1, *(1,) * (u.ndim - 1)) * outflow


def face_fluxes(
    cells: Tensor, grid: Grid, outward: Mapping[str, Value | tuple[Value, ...]], fluid: Tensor | None
) -> tuple[Tensor, ...]:
    """Fluxes on the stored faces, dim times ``(B, C, *faces)``, from their values at the cells ``(B, C, dim, *grid)``.

    Linear interpolation inside, on the sides what is prescribed (``outward``: side -> flux out of the box per unit
    area, a number, ``(B,)`` or ``(B, *side)``, or a tuple of these for the components; sides that are not named are
    closed), and zero on every face of a cell without fluid.
    """
    check_sides(outward, grid)
    names = sides(grid.dim)
    spacing = metrics(grid, dtype=cells.dtype, device=cells.device)
    result = []
    for i, metric in enumerate(spacing):
        parts = []
        for c in range(cells.shape[1]):
            slabs = (None, None)
            if not metric.periodic:
                low, high = names[2 * i : 2 * i + 2]
                slabs = (
                    -_slab(outward.get(low, 0.0), low, c, i, grid, cells),
                    _slab(outward.get(high, 0.0), high, c, i, grid, cells),
                )
            parts.append(to_nodes(cells[:, c, i], metric, slabs))
        flux = torch.stack(parts, 1)
        if metric.periodic:
            flux = flux.narrow(i + 2, 0, metric.n)
        result.append(flux if fluid is None else flux * open_faces(fluid, grid, i).unsqueeze(1).to(flux))
    return tuple(result)


def open_faces(fluid: Tensor, grid: Grid, axis: int) -> Tensor:
    """Which stored faces normal to an axis have fluid on both sides, a side of the box counting as fluid.

    ``(1 or B, *faces)`` bool from ``fluid (1 or B, *grid)`` bool.
    """
    if fluid.shape[1:] != grid.shape or fluid.shape[0] not in (1, grid.batch):
        raise ConfigError(
            f"The fluid mask has the shape {tuple(fluid.shape)}; expected (1 or {grid.batch}, "
            f"{', '.join(str(n) for n in grid.shape)})."
        )
    dim, n = axis + 1, grid.axes[axis].n
    fluid = fluid.bool()
    if grid.axes[axis].periodic:
        return fluid & fluid.roll(1, dim)
    inner = fluid.narrow(dim, 0, n - 1) & fluid.narrow(dim, 1, n - 1)
    return torch.cat([fluid.narrow(dim, 0, 1), inner, fluid.narrow(dim, n - 1, 1)], dim)


def check_sides(outward: Mapping[str, Value], grid: Grid) -> None:
    """``ConfigError`` for a side that the grid does not have, or a flux through a periodic one."""
    names = sides(grid.dim)
    for name in outward:
        if name not in names:
            raise ConfigError(f"Unknown side {name!r} of the boundary fluxes{did_you_mean(name, names)}")
        if grid.axes[names.index(name) // 2].periodic:
            raise ConfigError(f"The side {name!r} is periodic: what crosses it is predicted, leave out its flux.")


def _slab(value: Value | tuple[Value, ...], name: str, component: int, axis: int, grid: Grid, like: Tensor) -> Tensor:
    """A prescribed outward flux of one component ``(B, ..., 1 along the axis, ...)``. ``like (B, C, dim, *grid)``."""
    if isinstance(value, tuple):
        if len(value) != like.shape[1]:
            raise ConfigError(
                f"The side {name!r} has fluxes of {len(value)} components; the field has {like.shape[1]}."
            )
        value = value[component]
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    side = tuple(n for k, n in enumerate(grid.shape) if k != axis)
    if value.ndim == 0 or value.shape == (grid.batch,):
        value = value.reshape(-1, *(1,) * len(side))
    elif value.shape != (grid.batch, *side):
        raise ConfigError(
            f"The flux through the side {name!r} has the shape {tuple(value.shape)}; expected a number, "
            f"({grid.batch},) or {(grid.batch, *side)}."
        )
    if not bool(torch.isfinite(value).all()):
        raise DataError(f"The flux through the side {name!r} is not finite.")
    return value.expand(grid.batch, *side).unsqueeze(axis + 1)


def flux_form(
    u: Tensor,
    fluxes: Tensor,
    owners: Tensor,
    neighbours: Tensor,
    areas: Tensor,
    volumes: Tensor,
    interval: Tensor | float,
) -> Tensor:
    """``u - interval / volume x sum over faces of (+- area F)`` on unstructured finite volumes.

    ``u (B, C, cells)``; ``fluxes (B, C, faces)`` per unit area, positive from the owner to the neighbour; ``owners``
    and ``neighbours (faces,)`` cell indices, neighbour -1 for a face of the boundary (there positive is outward);
    ``areas (faces,)``, ``volumes (cells,)`` or with a batch in front; ``interval`` in seconds, a number or ``(B,)``.
    The total ``sum volume u`` changes by the fluxes through boundary faces alone, to round-off. Raises ``ConfigError``
    for shapes and indices, ``DataError`` for a volume that is not positive.
    """
    if u.ndim != 3 or fluxes.ndim != 3 or fluxes.shape[:2] != u.shape[:2]:
        raise ConfigError(
            f"u has the shape {tuple(u.shape)} and the fluxes {tuple(fluxes.shape)}; expected (B, C, cells) and "
            "(B, C, faces)."
        )
    cells, faces = u.shape[2], fluxes.shape[2]
    for name, indices, lowest in (("owners", owners, 0), ("neighbours", neighbours, -1)):
        if indices.shape != (faces,) or indices.is_floating_point():
            raise ConfigError(
                f"{name} is {indices.dtype} of shape {tuple(indices.shape)}; expected integers ({faces},)."
            )
        wrong = (indices < lowest) | (indices >= cells)
        if bool(wrong.any()):
            place = int(wrong.nonzero()[0])
            raise ConfigError(f"{name}[{place}] is {int(indices[place])}; there are {cells} cells, from 0 on.")
    if bool((owners == neighbours).any()):
        place = int((owners == neighbours).nonzero()[0])
        raise ConfigError(f"Face {place} has the cell {int(owners[place])} on both sides.")
    if areas.shape[-1:] != (faces,) or volumes.shape[-1:] != (cells,):
        raise ConfigError(
            f"areas and volumes have the shapes {tuple(areas.shape)} and {tuple(volumes.shape)}; expected ({faces},) "
            f"and ({cells},)."
        )
    if not bool((volumes > 0).all()):
        raise DataError(f"The smallest cell volume is {float(volumes.min()):g}; volumes must be positive.")
    interval = _interval(interval, u).reshape(-1, 1, 1)
    amounts = fluxes * _batched(areas).to(u)  # through each face per second
    inner = neighbours >= 0
    outflow = torch.zeros_like(u).index_add(2, owners, amounts)
    outflow = outflow.index_add(2, neighbours[inner], -amounts[:, :, inner])
    return u - interval * outflow / _batched(volumes).to(u)


def _batched(values: Tensor) -> Tensor:
    """``(n,)`` or ``(B, n)`` as ``(1 or B, 1, n)``."""
    return values.reshape(-1, 1, values.shape[-1])


def _interval(interval: Tensor | float, u: Tensor) -> Tensor:
    interval = torch.as_tensor(interval, dtype=u.dtype, device=u.device).reshape(-1)
    if len(interval) not in (1, u.shape[0]):
        raise ConfigError(f"The interval has {len(interval)} entries for a batch of {u.shape[0]} cases.")
    if not bool(torch.isfinite(interval).all()):
        raise DataError("The interval of the step is not finite.")
    return interval

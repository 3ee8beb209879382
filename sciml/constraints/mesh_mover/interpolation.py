"""From a moved mesh to any points: consistent interpolation, differentiable in values, nodes and targets."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.cell_map import nearest, newton_step
from sciml.constraints.mesh_mover.inverse_map import check_nodes, locate
from sciml.constraints.mesh_mover.lattice import close_nodes, close_values, ghosts
from sciml.constraints.mesh_mover.multilinear import cells_of, multilinear, strides
from sciml.constraints.mesh_mover.sampling import Location, check_location
from sciml.errors import DataError

__all__ = ["interpolate", "locate"]


def interpolate(
    values: Tensor, nodes: Tensor, targets: Tensor, box: Box, xi: Tensor | None = None, location: Location = "cell"
) -> Tensor:
    """``values (B, C, *m)`` at the moved ``nodes (B, *m, d)`` to ``targets (B, *any, d)``: ``(B, C, *any)``.

    Isoparametric: multilinear in the index coordinates ``xi`` at which the mesh lies at the targets, so exact for
    constants and linear fields on any mesh that is not folded, and of second order for smooth ones. Between the
    outermost centres and a wall the field goes on by its gradient (``lattice``). ``xi``: what ``locate`` gave for the
    same nodes, targets and location, to bring several fields back with one search. A batch of 1 in any of them serves
    every sample of the others.

    Gradients reach values, nodes and targets (those of the last two by the implicit function theorem: one step of
    Newton's method from ``xi``).

    Raises:
        ConfigError: an unknown location.
        DataError: shapes that do not fit, positions that are not finite, or targets beyond a wall.
        SolverError: no cell holds a target (``locate``).
    """
    check_fields(values, nodes, targets, box, xi, location)
    if xi is None:
        xi = locate(nodes, targets, box, location)
    nodes = close_nodes(nodes, box, location)
    index = lattice_index(xi, box, location).flatten(1, -2)
    if torch.is_grad_enabled() and (nodes.requires_grad or targets.requires_grad):
        index = attached(index, nodes, targets.flatten(1, -2), box)
    return multilinear(close_values(values, nodes, box, location), index).unflatten(2, targets.shape[1:-1])


def check_fields(
    values: Tensor, nodes: Tensor, targets: Tensor, box: Box, xi: Tensor | None, location: Location
) -> None:
    """What ``interpolate`` checks of its arguments, and raises."""
    check_location(location)
    check_nodes(nodes, targets, box)
    if values.ndim != box.dim + 2 or values.shape[2:] != nodes.shape[1:-1]:
        raise DataError(
            f"values of shape {tuple(values.shape)} do not fit nodes of shape {tuple(nodes.shape)}; expected (batch, "
            f"channels, {', '.join(str(n) for n in nodes.shape[1:-1])})"
        )
    if len({len(values), len(nodes), len(targets)} - {1}) > 1:
        raise DataError(
            f"values, nodes and targets are of {len(values)}, {len(nodes)} and {len(targets)} samples; give as many of "
            "each, or 1"
        )
    if xi is not None and (xi.shape[1:] != targets.shape[1:] or len(xi) not in (1, max(len(nodes), len(targets)))):
        raise DataError(
            f"xi of shape {tuple(xi.shape)} does not fit targets of shape {tuple(targets.shape)}; give what locate "
            "returned for the same nodes and targets"
        )


def lattice_index(xi: Tensor, box: Box, location: Location) -> Tensor:
    """What ``locate`` gave as coordinates of the closed lattice (``lattice``), without gradient."""
    return xi.detach() + torch.tensor(ghosts(box, location), dtype=xi.dtype, device=xi.device)


def attached(index: Tensor, nodes: Tensor, targets: Tensor, box: Box) -> Tensor:
    """``index (B, P, d)``, the same numbers up to the solver's tolerance, with its gradients with respect to the
    closed lattice ``nodes (B, *l, d)`` and ``targets (B, P, d)``.

    x(xi, nodes) = target defines xi; one step of Newton's method with the Jacobian fixed has its derivatives.
    """
    position = multilinear(nodes.movedim(-1, 1), index)
    gap = nearest((targets.movedim(-1, 1) - position).movedim(1, 0), box)
    with torch.no_grad():
        along = _jacobian(nodes.detach().movedim(-1, 1), index)
    columns = [column.movedim(1, 0) for column in along]
    step, _ = newton_step(gap.new_zeros(()), columns, gap, box)
    return index + step.movedim(0, -1)


def _jacobian(nodes: Tensor, index: Tensor) -> list[Tensor]:
    """Derivatives of the lattice's map along each index coordinate, d times ``(B, d, P)``.

    The map is linear along each axis of a cell: the difference of its values at the two faces.
    """
    shape = nodes.shape[2:]
    corner = cells_of(index, shape)
    fraction = (index - corner).to(nodes.dtype).unbind(-1)
    step = strides(shape)
    batch = max(len(nodes), len(index))
    flat = nodes.flatten(2).expand(batch, -1, -1)
    place = (corner * torch.tensor(step, device=index.device)).sum(-1)[:, None].expand(batch, len(shape), -1)

    def along(axis: int, offset: int, derivative: int) -> Tensor:
        if axis == len(shape):
            return flat.gather(2, place + offset)
        low, high = along(axis + 1, offset, derivative), along(axis + 1, offset + step[axis], derivative)
        return high - low if axis == derivative else low + fraction[axis][:, None] * (high - low)

    return [along(0, 0, axis) for axis in range(len(shape))]

"""Velocities without divergence by construction: the discrete curl of a potential that the network outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciml.constraints.base import Context
from sciml.constraints.divergence_free.faces import TOLERANCES, FaceProjection
from sciml.constraints.divergence_free.prescribed import Faces, Prescribed
from sciml.errors import ConfigError
from sciml.physics import Metric, faces_to_centres
from sciml.physics.stencils import closed, difference, midpoint, opened


class StreamFunction(nn.Module):
    """Cell-centred velocity ``(B, dim, *grid)`` whose faces are the discrete curl of a potential.

    In 2D the potential is a stream function psi on the corners of the cells, f_x = diff_y(psi) / h_y and
    f_y = -diff_x(psi) / h_x; in 3D a vector potential A on their edges, f = curl A (Harlow and Welch's grid is Yee's).
    The divergence ``physics.divergence`` of the faces is zero identically, whatever the network says. The network
    outputs cell values ``(B, channels(dim), *grid)`` in m^2/s: psi, or the three components of A; corners and edges
    take the mean of the cells around them, and on walls and inlets the (tangential)
    potential is 0, so nothing passes through. What does pass is added as a flow without sources from the inlets to
    the outlet (a potential flow, by ``FaceProjection``), uniform through the outlet; psi changes the profile there.

    ``mean_flow``: along periodic axes the mean of a curl is zero; with True the network outputs ``dim`` more channels
    whose means over the box are the mean velocities, of the periodic axes (the others are not used). ``field``: the
    name of the velocity.

    Raises ``ConfigError`` for one axis or a potential of another shape, more than one outlet (the curl does not
    change how the flux is shared), obstacles (the potential of each would be one more unknown; ``DivergenceFree``
    takes them), or prescribed fluxes that do not balance.
    """

    def __init__(self, mean_flow: bool = False, field: str = "velocity") -> None:
        super().__init__()
        self.mean_flow, self.field = mean_flow, field

    def channels(self, dim: int) -> int:
        """How many channels the network outputs on a grid of 2 or 3 axes."""
        if dim not in (2, 3):
            raise ConfigError(f"A stream function needs 2 or 3 axes; the grid has {dim}.")
        return (1 if dim == 2 else 3) + (dim if self.mean_flow else 0)

    def forward(self, potential: Tensor, context: Context) -> Tensor:
        """The velocity at the cell centres, the mean of the two faces of each cell."""
        prescribed, faces = self._faces(potential, context)
        return faces_to_centres(faces, prescribed.metrics).to(potential.dtype)

    def faces(self, potential: Tensor, context: Context) -> Faces:
        """Stored face velocities; prescribed ones with the prescribed bits."""
        prescribed, faces = self._faces(potential, context)
        return prescribed.impose(tuple(f.to(potential.dtype) for f in faces))

    def _faces(self, potential: Tensor, context: Context) -> tuple[Prescribed, Faces]:
        grid = context.grid
        expected = (grid.batch, self.channels(grid.dim), *grid.shape)
        if potential.shape != expected:
            raise ConfigError(f"The potential has the shape {tuple(potential.shape)}; expected {expected}.")
        if context.fluid is not None:
            raise ConfigError("StreamFunction knows no obstacles; DivergenceFree(method='mac') does.")
        prescribed = Prescribed(grid, context.conditions(self.field), potential.device)
        if len(prescribed.values.outlets) > 1:
            raise ConfigError(
                f"{len(prescribed.values.outlets)} sides are outlets, and how the flux is shared between them does not "
                "follow from a stream function; use DivergenceFree(method='mac')."
            )
        prescribed.check_balance()
        values = potential.double()
        count = 1 if grid.dim == 2 else 3
        faces = _curl(values[:, :count], prescribed)
        if prescribed.values.has_inlet:
            through = FaceProjection(prescribed, TOLERANCES[torch.float64]).project(prescribed.lift)
            faces = tuple(f + t for f, t in zip(faces, through, strict=True))
        if self.mean_flow:
            means = values[:, count:].flatten(2).mean(2)
            faces = tuple(
                f + means[:, i].reshape(-1, *(1,) * grid.dim) if axis.periodic else f
                for i, (f, axis) in enumerate(zip(faces, grid.axes, strict=True))
            )
        return prescribed, prescribed.impose(faces)


def _curl(potential: Tensor, prescribed: Prescribed) -> Faces:
    """Stored faces from cell values ``(B, 1 or 3, *grid)`` of the potential."""
    metrics = prescribed.metrics
    dim = len(metrics)
    components = {2: potential[:, 0]} if dim == 2 else dict(enumerate(potential.unbind(1)))
    edges = {i: _to_edges(a, [k for k in range(dim) if k != i], prescribed) for i, a in components.items()}

    def slope(i: int, axis: int) -> Tensor:
        return difference(edges[i], axis + 1) * metrics[axis].inverse_width

    if dim == 2:
        faces = [slope(2, 1), -slope(2, 0)]
    else:
        faces = [slope((i + 2) % 3, (i + 1) % 3) - slope((i + 1) % 3, (i + 2) % 3) for i in range(3)]
    # along its own axis each has n + 1 faces; of a periodic one n are stored
    return tuple(f.narrow(m.dim, 0, m.n) if m.periodic else f for f, m in zip(faces, metrics, strict=True))


def _to_edges(values: Tensor, axes: list[int], prescribed: Prescribed) -> Tensor:
    """From cells to the n + 1 faces of each of the axes: the mean of the neighbours, 0 at prescribed ends, the next
    cell at an outlet."""
    for axis in axes:
        metric, ends = prescribed.metrics[axis], prescribed.open_ends[axis]
        values = _to_nodes(values, metric, ends)
    return values


def _to_nodes(values: Tensor, metric: Metric, open_ends: tuple[bool, bool]) -> Tensor:
    dim = metric.dim
    inner = midpoint(opened(values, metric), dim)
    if metric.periodic:
        return closed(inner, metric)
    ends = [
        values.narrow(dim, cell, 1) * float(is_open) for cell, is_open in zip((0, metric.n - 1), open_ends, strict=True)
    ]
    return torch.cat([ends[0], inner, ends[1]], dim)

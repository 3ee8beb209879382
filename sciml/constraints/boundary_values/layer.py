"""The layer: the nearest field that obeys the declared conditions on all sides of the box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sciml.constraints.base import Constraint, Context, replace_channels
from sciml.constraints.boundary_values.conditions import OF_VELOCITY, side_rows
from sciml.constraints.boundary_values.corners import settled
from sciml.constraints.boundary_values.normal_faces import NormalRows, normal_rows
from sciml.constraints.boundary_values.rows import Location, SideRows
from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.physics import Grid

ORDERS = (1, 2)
LOCATIONS = ("cells", "nodes")
COMPONENTS = ("normal", "tangential", "all")


class BoundaryValues(Constraint):
    """Orthogonal projection (least change in the sum of squares) onto the fields that obey ``context.boundaries``.

    Of a scalar, on each side ``a u + b du/dn`` of the polynomial through the first ``order + 1`` points equals the
    prescribed value (``rows``); that is the discrete condition which holds to round-off.

    Of a velocity at the cell centres, by default the faces of walls and inlets have their normal velocity as the
    staggered grid of the solver holds it (``normal_faces``): the solver's velocities obey already, and stay as they are
    under ``DivergenceFree`` as well. That grid says nothing else of a velocity on its boundary. ``components`` asks for
    more, by polynomials as for scalars: no slip, a moving wall and an inlet prescribe every component, an outlet a
    normal derivative of 0. True flows do not obey these rows (at 64 x 64 cells a cavity flow is 3 % away from them, for
    the most part beside the corners of its lid; 0.3 % with ``gap=8``), so they limit how accurate a prediction can be.

    Every row is the same all along its side, so the projections of the axes commute and one after the other is the
    projection onto all rows at once, also where sides meet: no system to solve, and only the first ``order + 1``
    points at each side change. Of two sides that meet and disagree one has to own the corner (``corners``).

    ``location="cells"``: values at the cell centres, half a cell from the sides; periodic sides need nothing.
    ``"nodes"``: one more point than cells along every axis, those at the ends on the sides; a Dirichlet value is then
    the value of the node, bit for bit, and the two ends of a periodic axis become equal (their mean).

    Obstacles (``context.fluid``) play no part: a side is that of the box.

    Args:
        fields: those to act on; default: all whose conditions are declared.
        order: 2 (quadratic) or 1 (linear).
        location: where the values are.
        corners: axes in the order in which their sides own corners, e.g. ``"x"``: the sides of the other axes give up
            their row at the cell in the corner. Only where two prescribed values, or two derivatives, disagree does
            this have an effect; a value always owns the corner against a derivative.
        components: of a velocity, ``"normal"`` at the faces (cells only, and there the default), or by polynomials
            those ``"tangential"`` to the side or ``"all"`` (the default of nodes). "all" contradicts
            ``DivergenceFree``: two discretisations of the same condition, which differ by O(h^2).
        gap: points beside a corner in which two values disagree where neither side is imposed (0: none). Next to such
            a corner a flow is singular and no polynomial fits it: rows there move a true flow by percents.

    Raises ``ConfigError`` for a missing or unknown side, a condition or value that does not fit, conflicting corners
    without an owner, an axis with fewer than ``2 (order + 1)`` points; ``DataError`` for a field of another shape than
    the grid.
    """

    name = "boundary-values"
    affine = True

    def __init__(
        self,
        fields: Sequence[str] | None = None,
        order: int = 2,
        location: Location = "cells",
        corners: str = "",
        gap: int = 0,
        components: str | None = None,
    ) -> None:
        fields = None if fields is None else list(fields)
        super().__init__(fields=fields, order=order, location=location, corners=corners, gap=gap, components=components)
        if order not in ORDERS:
            raise ConfigError(f"order is {order!r}; expected 1 (linear) or 2 (quadratic)")
        if location not in LOCATIONS:
            raise ConfigError(f"unknown location {location!r}{did_you_mean(str(location), LOCATIONS)}")
        if not isinstance(corners, str) or not set(corners) <= set("xyz") or len(set(corners)) < len(corners):
            raise ConfigError(f"corners is {corners!r}; expected different axes of x, y, z, e.g. 'x' or 'xy'")
        if gap != 0 and gap < order + 1:
            raise ConfigError(
                f"gap is {gap}; expected 0 or at least {order + 1}, so that the rows that are left do not meet"
            )
        if components is not None and components not in COMPONENTS:
            raise ConfigError(f"unknown components {components!r}{did_you_mean(str(components), COMPONENTS)}")
        if components == "normal" and location == "nodes":
            raise ConfigError("components='normal' is of velocities at cells; at nodes take 'tangential' or 'all'")
        self.fields, self.order, self.location = fields, order, location
        self.corners, self.gap = corners, gap
        self.components = components or ("normal" if location == "cells" else "all")

    def forward(self, u: Tensor, context: Context) -> Tensor:
        """The nearest field ``(B, C, *grid)`` that obeys. Differentiable in u, the values and the box."""
        for channels, rows in self._normal_rows(u, context):
            velocity = list(u[:, channels].unbind(1))
            for row in rows:
                velocity[row.axis] = row.moved(u[:, channels])
            u = replace_channels(u, channels, torch.stack(velocity, 1))
        for channels, rows in self._rows(u, context):
            u = replace_channels(u, channels, self._projected(u[:, channels], rows, context.grid))
        return u

    def residual(self, u: Tensor, context: Context) -> Tensor:
        """Root mean square distance from the rows, relative to the field: ``(B,)`` float64.

        The distance ``(w.u - value) / |w|`` of a row has the unit of u; it is divided by the root mean square of the
        field and, so that a field of zeros does not obey values that are not, of ``value / |w|``.
        """
        u = u.double()
        total, count = u.new_zeros(u.shape[0]), u.new_zeros(u.shape[0])
        for channels, rows in self._rows(u, context):
            part = u[:, channels]
            distances = [_flat(row.distance(part), part) for row in rows]
            targets = [_flat(row.kept(row.value / row.square(u.ndim).sqrt()), part) for row in rows]
            held = [_flat(row.kept(torch.ones_like(row.value)), part) for row in rows]
            for axis in self._glued(context.grid):
                ends = part.narrow(axis + 2, 0, 1) - part.narrow(axis + 2, part.shape[axis + 2] - 1, 1)
                distances.append(ends.flatten(1) / 2**0.5)
                held.append(torch.ones_like(distances[-1]))
            if not distances:
                continue
            scale = part.flatten(1).square().mean(1)
            if targets:
                scale = scale + torch.cat(targets, 1).square().mean(1)
            total = total + torch.cat(distances, 1).square().sum(1) / torch.where(scale > 0, scale, 1.0)
            count = count + torch.cat(held, 1).sum(1)
        for channels, rows in self._normal_rows(u, context):
            if rows:
                part = u[:, channels]
                square = torch.cat([row.distance(part) for row in rows], 1).square()
                targets = torch.cat([row.target() for row in rows], 1).square().mean(1)
                scale = part.flatten(1).square().mean(1) + targets
                total = total + square.sum(1) / torch.where(scale > 0, scale, 1.0)
                count = count + square.shape[1]
        return (total / count.clamp(min=1)).sqrt()

    def applies(self, channels: Mapping[str, slice]) -> bool:
        return bool(channels) if self.fields is None else any(name in channels for name in self.fields)

    def _rows(self, u: Tensor, context: Context) -> list[tuple[slice, list[SideRows]]]:
        """The channels and the rows of every field to act on."""
        grid = context.grid
        expected = tuple(axis.n + (self.location == "nodes") for axis in grid.axes)
        if u.ndim != grid.dim + 2 or tuple(u.shape[2:]) != expected or u.shape[0] != grid.batch:
            raise DataError(
                f"the field has shape {tuple(u.shape)}; expected ({grid.batch}, channels, "
                f"{', '.join(map(str, expected))}): the values at the {self.location} of the context's grid"
            )
        if self.gap > min(expected) - self.order - 1 and grid.dim > 1:
            raise ConfigError(
                f"gap is {self.gap} on a grid of {'x'.join(map(str, expected))} {self.location}; expected at most "
                f"{min(expected) - self.order - 1}, so that it does not reach the other corners"
            )
        result = []
        for name in self._names(context):
            channels, conditions = context.slice_of(name), context.conditions(name)
            if self._at_faces(conditions):
                continue
            rows = side_rows(
                name,
                conditions,
                grid,
                len(range(u.shape[1])[channels]),
                u,
                order=self.order,
                location=self.location,
                tangential=self.components == "tangential",
            )
            result.append((channels, settled(name, rows, self.corners or context.corners, self.gap)))
        return result

    def _normal_rows(self, u: Tensor, context: Context) -> list[tuple[slice, list[NormalRows]]]:
        """The channels and the rows of every velocity whose normal component is held at the faces."""
        return [
            (context.slice_of(name), normal_rows(context.conditions(name), context.grid, u))
            for name in self._names(context)
            if self._at_faces(context.conditions(name))
        ]

    def _at_faces(self, conditions: Mapping[str, Any]) -> bool:
        return self.components == "normal" and any(isinstance(each, OF_VELOCITY) for each in conditions.values())

    def _names(self, context: Context) -> Sequence[str]:
        """The fields to act on."""
        if self.fields is not None:
            for name in self.fields:
                context.slice_of(name)
            return self.fields
        names = [name for name in context.boundaries if name in context.channels]
        if not names:
            raise ConfigError(
                f"no boundary conditions of {', '.join(context.channels) or 'any field'} are declared; pass them as "
                "Context(boundaries={field: {side: condition}})"
            )
        return names

    def _projected(self, u: Tensor, rows: list[SideRows], grid: Grid) -> Tensor:
        for axis in range(grid.dim):
            ends = sorted((row for row in rows if row.axis == axis), key=lambda row: row.end)
            if ends:
                low, high = ends
                u = _replace_ends(u, axis, low.moved(u), high.moved(u))
            elif axis in self._glued(grid):
                last = u.shape[axis + 2] - 1
                mean = 0.5 * (u.narrow(axis + 2, 0, 1) + u.narrow(axis + 2, last, 1))
                u = _replace_ends(u, axis, mean, mean)
        if self.location == "nodes":  # the same numbers again, now without round-off; owners of corners come last
            for row in reversed([row for row in rows if row.prescribes_value]):
                dim, n = row.axis + 2, u.shape[row.axis + 2]
                end = u.narrow(dim, row.end * (n - 1), 1)
                value = row.value.expand_as(end) if row.keep is None else torch.where(row.keep > 0, row.value, end)
                rest = u.narrow(dim, 1 - row.end, n - 1)
                u = torch.cat([value, rest] if row.end == 0 else [rest, value], dim)
        return u

    def _glued(self, grid: Grid) -> list[int]:
        """The axes whose two ends are the same point."""
        return [k for k, axis in enumerate(grid.axes) if axis.periodic and self.location == "nodes"]


def _replace_ends(u: Tensor, axis: int, low: Tensor, high: Tensor) -> Tensor:
    dim, width = axis + 2, low.shape[axis + 2]
    return torch.cat([low, u.narrow(dim, width, u.shape[dim] - 2 * width), high], dim)


def _flat(rows: Tensor, u: Tensor) -> Tensor:
    """``(B, rows)`` from the rows of all components."""
    return rows.expand(*u.shape[:2], *rows.shape[2:]).flatten(1)

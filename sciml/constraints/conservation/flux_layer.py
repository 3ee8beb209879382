"""An operator that predicts fluxes instead of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from sciml.constraints.base import Constraint, Context
from sciml.constraints.conservation.flux_form import face_fluxes, flux_update
from sciml.constraints.conservation.quadrature import cell_volumes
from sciml.errors import ConfigError, did_you_mean
from sciml.physics.boundary import Value

Outward: TypeAlias = Mapping[str, Value | str | Sequence[Value | str]]
UNITS = ("physical", "box")


class FluxForm(Constraint):
    """``u = before - interval div F`` with F from the operator: the amount in any set of cells is conserved.

    The operator outputs, in the place of each of the ``fields``, ``components x dim`` channels at the cells (those of
    the first component along x, y[, z], then the second component ...) in the layout of ``context.channels``; the layer
    interpolates them to the faces. ``input_channels`` says how many channels the operator needs in all; the other
    fields pass unchanged. The discrete operator is the finite-volume divergence of face fluxes
    (``stencils.divergence``, stretched axes too); the total over the fluid changes by what crosses the sides of the
    box, to round-off.

    Args:
        fields: names of the conserved fields, per unit volume.
        outward: field -> side -> flux out of the box per unit area: a number, ``(B,)``, ``(B, *side)``, the name of a
            parameter of the problem, or one of these for each component. Sides that are not named are closed walls
            (flux 0); periodic sides are joined. Faces of cells without fluid are closed too.
        units: "physical", unit of the field times m/s; "box": the channels are F x interval / length of the box along
            their axis, in the unit of the field (what a normalised network outputs, whatever the size of the box).

    It fixes the amount, not bounds: values may become negative where the fluxes take out more than there is.
    """

    name = "flux-form"

    def __init__(
        self, fields: Sequence[str] | str, *, outward: Mapping[str, Outward] | None = None, units: str = "physical"
    ) -> None:
        fields = (fields,) if isinstance(fields, str) else tuple(fields)
        outward = {field: dict(values) for field, values in (outward or {}).items()}
        if not fields or len(set(fields)) < len(fields):
            raise ConfigError(f"The fields of FluxForm are {list(fields)}; expected at least one, each once.")
        if units not in UNITS:
            raise ConfigError(f"Unknown units {units!r}{did_you_mean(str(units), UNITS)}")
        for field in outward:
            if field not in fields:
                raise ConfigError(f"Boundary fluxes of {field!r} were given{did_you_mean(field, fields)}")
        super().__init__(fields=list(fields), outward=outward, units=units)
        self.fields, self.outward, self.units = fields, outward, units

    def applies(self, channels: Mapping[str, slice]) -> bool:
        return any(field in channels for field in self.fields)

    def input_channels(self, channels: Mapping[str, slice], dim: int) -> int:
        """How many channels the operator outputs for fields of these channels."""
        return sum((s.stop - s.start) * (dim if name in self.fields else 1) for name, s in channels.items())

    def forward(self, u: Tensor, context: Context) -> Tensor:
        """The fields one step later ``(B, C, *grid)`` from the operator's output ``(B, input_channels, *grid)``."""
        grid, before = context.grid, self._before(context)
        for field in self.fields:
            context.slice_of(field)
        expected = (grid.batch, self.input_channels(context.channels, grid.dim), *grid.shape)
        if u.shape != expected:
            raise ConfigError(
                f"FluxForm got an output of shape {tuple(u.shape)}; with {grid.dim} fluxes for each component of "
                f"{', '.join(self.fields)} it should be {expected}."
            )
        parts, start = [], 0
        for name, channels in sorted(context.channels.items(), key=lambda item: item[1].start):
            components = channels.stop - channels.start
            if name not in self.fields:
                parts.append(u[:, start : start + components])
                start += components
                continue
            cells = u[:, start : start + components * grid.dim].unflatten(1, (components, grid.dim))
            start += components * grid.dim
            parts.append(self._step(before[:, channels].to(u.dtype), cells, name, context))
        return torch.cat(parts, 1)

    def residual(self, u: Tensor, context: Context) -> Tensor:
        """|change of the total - what crossed the sides| over the sum of absolute values, the worst component."""
        grid, before = context.grid, self._before(context)
        if u.shape != before.shape:
            raise ConfigError(
                f"The field has shape {tuple(u.shape)}, the one before the step {tuple(before.shape)}: the residual "
                "is that of the fields after the layer, not of the fluxes."
            )
        volumes = cell_volumes(grid, context.fluid).to(u.device).unsqueeze(1)
        worst = torch.zeros(grid.batch, dtype=torch.float64, device=u.device)
        for field in self.fields:
            channels = context.slice_of(field)
            old, new = before[:, channels].double(), u[:, channels].double()
            silent = torch.zeros(*old.shape[:2], grid.dim, *grid.shape, dtype=torch.float64, device=u.device)
            expected = self._step(old, silent, field, context)  # only the sides act: the right total
            gap = (volumes * (new - expected)).flatten(2).sum(-1).abs()
            scale = (volumes * torch.maximum(new.abs(), expected.abs())).flatten(2).sum(-1)
            worst = torch.maximum(worst, torch.where(scale == 0, 0.0, gap / scale).amax(1))
        return worst

    def _step(self, before: Tensor, cells: Tensor, field: str, context: Context) -> Tensor:
        """One field after the step from its fluxes at the cells ``(B, components, dim, *grid)``."""
        grid = context.grid
        if context.interval is None:
            raise ConfigError("FluxForm needs the length of the step in seconds (Context.interval).")
        interval = context.interval.to(cells)
        if self.units == "box":
            speed = grid.lengths.to(cells) / interval.reshape(-1, 1)
            cells = cells * speed.reshape(-1, 1, grid.dim, *(1,) * grid.dim)
        outward = {side: self._values(value, context) for side, value in self.outward.get(field, {}).items()}
        return flux_update(before, face_fluxes(cells, grid, outward, context.fluid), grid, interval)

    @staticmethod
    def _values(value, context: Context) -> Value | tuple[Value, ...]:
        """A prescribed flux with names of parameters replaced by their values."""
        if isinstance(value, (list, tuple)):
            return tuple(FluxForm._values(part, context) for part in value)
        if not isinstance(value, str):
            return value
        if value not in context.parameters:
            known = did_you_mean(value, context.parameters)
            raise ConfigError(f"The boundary flux {value!r} is not a parameter{known}")
        return context.parameters[value]

    @staticmethod
    def _before(context: Context) -> Tensor:
        if context.before is None:
            raise ConfigError("FluxForm changes the field one step earlier, but the context has none (Context.before).")
        return context.before

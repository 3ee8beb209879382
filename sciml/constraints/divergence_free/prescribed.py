"""What the boundary conditions prescribe of the faces, and whether a flow can obey it."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.constraints.divergence_free.axis_modes import Ends
from sciml.errors import ConfigError
from sciml.physics import Boundaries, BoundaryValues, Grid, Metric, boundary_values, metrics
from sciml.physics.mass_balance import boundary_flux

Faces = tuple[Tensor, ...]

BALANCE = 1e-4
"""Largest net flux, relative to the sum of its magnitudes, that counts as round-off; the solver's bound."""


class Prescribed:
    """The prescribed normal velocities of a box in float64, with faces beside solid cells at rest.

    ``lift``: stored faces ``(B, *face_shape)``, the prescribed values at the boundary and zero inside;
    ``open_ends``: per axis, whether its low and high faces are unknown (an outlet).
    """

    def __init__(
        self, grid: Grid, boundaries: Boundaries, device: torch.device | str, fluid: Tensor | None = None
    ) -> None:
        self.grid, self.device = grid, torch.device(device)
        self.metrics: tuple[Metric, ...] = metrics(grid, dtype=torch.float64, device=device)
        self.values: BoundaryValues = boundary_values(grid, boundaries, dtype=torch.float64, device=device)
        self.open_ends: tuple[Ends, ...] = tuple(
            ((axis, 0) in self.values.outlets, (axis, 1) in self.values.outlets) for axis in range(grid.dim)
        )
        self.fluid = None if fluid is None else checked_mask(fluid, grid, self.device)
        self.lift: Faces = tuple(self._lift(axis) for axis in range(grid.dim))

    def _lift(self, axis: int) -> Tensor:
        metric, pair = self.metrics[axis], self.values.slabs[axis][axis]
        shape = (self.grid.batch, *self.grid.face_shape(axis))
        zero = torch.zeros(shape, dtype=torch.float64, device=self.device)
        if metric.periodic:
            return zero
        inner = zero.narrow(metric.dim, 1, metric.n - 1)
        ends = []
        for slab, cell in zip(pair, (0, metric.n - 1), strict=True):
            value = zero.narrow(metric.dim, 0, 1) if slab is None else slab
            if self.fluid is not None:
                value = value * self.fluid.narrow(metric.dim, cell, 1)
            ends.append(value)
        return torch.cat([ends[0], inner, ends[1]], metric.dim)

    def check_balance(self) -> None:
        """``ConfigError`` naming the case and the flux if the sides bring in a net flux and there is no outlet."""
        if self.values.outlets or not self.values.has_inlet:
            return
        with torch.no_grad():
            flux, scale = boundary_flux(self.lift, self.metrics)
        bad = (flux.abs() > BALANCE * scale).nonzero()
        if len(bad):
            case = int(bad[0])
            raise ConfigError(
                f"The sides of case {case} bring in a net volume flux of {float(flux[case]):g} and no side is an "
                "Outlet(); no velocity without divergence has these boundary values. Make the prescribed fluxes "
                "balance, or declare an outlet."
            )

    def impose(self, faces: Faces) -> Faces:
        """Stored faces with the prescribed values put in, bit by bit."""
        result = []
        for u, lift, metric, ends in zip(faces, self.lift, self.metrics, self.open_ends, strict=True):
            if not metric.periodic:
                given = [u if is_open else lift.to(u.dtype) for is_open in ends]
                low, high = given[0].narrow(metric.dim, 0, 1), given[1].narrow(metric.dim, metric.n, 1)
                u = torch.cat([low, u.narrow(metric.dim, 1, metric.n - 1), high], metric.dim)
            result.append(u)
        return tuple(result)


def checked_mask(fluid: Tensor, grid: Grid, device: torch.device) -> Tensor:
    """The mask as ``(B, *grid)`` bool. Raises ``ConfigError`` for another shape, or a case without fluid."""
    fluid = torch.as_tensor(fluid, device=device).bool()
    if fluid.shape[1:] != grid.shape or fluid.shape[0] not in (1, grid.batch):
        raise ConfigError(
            f"The mask of the fluid has the shape {tuple(fluid.shape)}; expected (1 or {grid.batch}, "
            f"{', '.join(map(str, grid.shape))})."
        )
    empty = (~fluid.flatten(1).any(1)).nonzero()
    if len(empty):
        raise ConfigError(f"There is no fluid in case {int(empty[0])} of the mask.")
    return fluid.expand(grid.batch, *grid.shape)

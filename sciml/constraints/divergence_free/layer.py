"""The constraint layer: velocities without divergence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sciml.constraints.base import Constraint, Context, replace_channels
from sciml.constraints.divergence_free.cells import CellProjection
from sciml.constraints.divergence_free.faces import TOLERANCES, FaceProjection
from sciml.constraints.divergence_free.intersection import Pair, multiplier
from sciml.constraints.divergence_free.marching import divergence_residual
from sciml.constraints.divergence_free.obstacles import Segments, rest_at_solid
from sciml.constraints.divergence_free.periodic import PeriodicProjection
from sciml.constraints.divergence_free.prescribed import Faces, Prescribed
from sciml.errors import ConfigError, did_you_mean

Method = Literal["mac", "spectral", "central"]
METHODS = ("mac", "spectral", "central")


class DivergenceFree(Constraint):
    """The nearest velocity without divergence, in the sum of squares over the cells times their volume.

    Which discrete divergence vanishes is the ``method``:

    * ``"mac"``: that of the solver, ``physics.divergence`` of the face velocities f whose means over the two faces of
      each cell are the output (``physics.faces_to_centres``). Faces of walls and inlets have the prescribed normal
      velocity, those of an outlet are free. Every grid with any sides, stretched or periodic axes, 2D and 3D; with
      obstacles (``context.fluid``) by iteration. Velocities that the solver made stay as they are, and the error
      against them never grows (in that norm). ``faces`` gives f.
    * ``"spectral"``: sum_i d u_i / d x_i of the Fourier series through the cells, ``physics.PeriodicBox``. Uniform
      periodic boxes.
    * ``"central"``: sum_i (u_i[k + 1] - u_i[k - 1]) / 2 h_i, what ``metrics.relative_divergence`` takes inside.
      Uniform periodic boxes.

    A field without divergence in one of these has some in the others. The tangential velocity at walls is not imposed
    (``BoundaryValues``). Everything is computed in float64 and returned in the dtype of u. ``field``: the name of the
    velocity.

    Raises ``ConfigError`` for an unknown method, sides that do not fit, a prescribed net flux without outlet, a mask
    that ``obstacles.check_lines`` refuses; ``SolverError`` if the iteration beside obstacles does not converge.
    """

    name = "divergence-free"
    affine: ClassVar[bool] = True

    def __init__(self, method: Method = "mac", field: str = "velocity") -> None:
        super().__init__(method=method, field=field)
        if method not in METHODS:
            raise ConfigError(f"Unknown method {method!r} of DivergenceFree{did_you_mean(str(method), METHODS)}")
        self.method, self.field = method, field

    def applies(self, channels: Mapping[str, slice]) -> bool:
        return self.field in channels

    def forward(self, u: Tensor, context: Context) -> Tensor:
        velocity = self._velocity(u, context)
        if self.method == "mac":
            velocity = self._project(velocity, self._prescribed(u, context), u.dtype)
        else:
            velocity = self._periodic(u, context).project(velocity)
        return replace_channels(u, context.slice_of(self.field), velocity.to(u.dtype))

    def residual(self, u: Tensor, context: Context) -> Tensor:
        """rms of h div u over rms |u|; with ``"mac"`` ``marching.divergence_residual``."""
        velocity = self._velocity(u, context)
        if self.method == "mac":
            return divergence_residual(velocity, self._prescribed(u, context))
        return self._periodic(u, context).residual(velocity)

    def faces(self, u: Tensor, context: Context) -> Faces:
        """Stored face velocities, one ``(B, *grid.face_shape(i))`` per component, of the nearest field that obeys.

        Prescribed faces have the prescribed bits, those beside obstacles are zero, and the divergence of the others is
        that of rounding them to the dtype of u. Their means are ``forward(u)``. Only with ``method="mac"``.
        """
        if self.method != "mac":
            raise ConfigError(f"DivergenceFree(method={self.method!r}) has no face velocities; method='mac' has.")
        prescribed = self._prescribed(u, context)
        velocity = self._velocity(u, context)
        if prescribed.fluid is not None:
            velocity = self._project(velocity, prescribed, u.dtype)
        faces = CellProjection(prescribed).faces(velocity)
        if prescribed.fluid is not None:
            faces = rest_at_solid(faces, prescribed.fluid, prescribed.metrics)
        # once more at the faces: what is left is round-off, times the number of cells
        faces = FaceProjection(prescribed, TOLERANCES.get(u.dtype, 1e-9)).project(faces)
        return prescribed.impose(tuple(f.to(u.dtype) for f in faces))

    def _project(self, velocity: Tensor, prescribed: Prescribed, dtype: torch.dtype) -> Tensor:
        cells = CellProjection(prescribed)
        projected = cells.project(velocity)
        if prescribed.fluid is None:
            return projected
        segments = Segments(prescribed)
        volume = torch.ones((), dtype=torch.float64, device=velocity.device)
        for metric in prescribed.metrics:
            volume = volume / metric.inverse_width
        pair = Pair(segments.outside, cells.project_change, volume.unsqueeze(1), TOLERANCES.get(dtype, 1e-9))
        change = cells.less_lift(projected)
        change = change - cells.project_change(multiplier(change, pair))
        return cells.plus_lift(change - segments.outside(change))

    def _prescribed(self, u: Tensor, context: Context) -> Prescribed:
        prescribed = Prescribed(context.grid, context.conditions(self.field), u.device, context.fluid)
        prescribed.check_balance()
        return prescribed

    def _periodic(self, u: Tensor, context: Context) -> PeriodicProjection:
        if context.fluid is not None:
            raise ConfigError(f"DivergenceFree(method={self.method!r}) knows no obstacles; method='mac' does.")
        return PeriodicProjection(context.grid, self.method, u.device)  # type: ignore[arg-type]

    def _velocity(self, u: Tensor, context: Context) -> Tensor:
        grid = context.grid
        velocity = u[:, context.slice_of(self.field)].double()
        if velocity.shape != (grid.batch, grid.dim, *grid.shape):
            raise ConfigError(
                f"The field {self.field!r} has the shape {tuple(velocity.shape)}; the grid expects "
                f"{(grid.batch, grid.dim, *grid.shape)}."
            )
        return velocity

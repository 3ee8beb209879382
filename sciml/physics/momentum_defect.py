"""What the momentum equation leaves over of a step on the MAC grid, preconditioned, with the pressure eliminated.

With the residual of the Crank-Nicolson rule at the unknown faces, its pressure left out,

    r = u_1 - u_0 + h/2 (N(u_0) + N(u_1)) - nu h/2 (lap u_0 + lap u_1),

(``navier_stokes.momentum_residual`` times the step h) the defect is P H P r: P the orthogonal projection onto faces
without divergence and without flow through the sides, H = (1 - nu h/2 lap)^-1 component by component, at rest on the
sides. P takes away every discrete pressure gradient before H could mix it up with the rest, and the boundary values
enter r through its Laplacian. H is positive definite, so the defect is 0 exactly where P r is: where u_1 is the step
from u_0 with some pressure. On periodic boxes P and H commute and P H P is the inverse of the implicit part; between
walls they do not, and it is so up to a layer of the thickness sqrt(nu h).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics.boundary import Boundaries, Outlet, boundary_values
from sciml.physics.fast_diagonalisation import Eigenbasis, End, FastDiagonalisation, Location, eigenbasis
from sciml.physics.grid import Axis, Grid
from sciml.physics.stencils import (
    advection,
    divergence,
    laplacian,
    metrics,
    padded,
    subtract_gradient,
    unknown_of_stored,
)

Faces = tuple[Tensor, ...]


def acceleration(velocity: Faces, *, grid: Grid, boundaries: Boundaries, viscosity: Tensor) -> Faces:
    """nu lap u - div(u u) at the unknown faces of every component, from stored faces ``(B, *face_shape)``.

    ``viscosity (B,)``: kinematic.
    """
    dtype, device = velocity[0].dtype, velocity[0].device
    metric = metrics(grid, dtype=dtype, device=device)
    values = boundary_values(grid, boundaries, dtype=dtype, device=device)
    nu = viscosity.to(velocity[0]).reshape(-1, *(1,) * grid.dim)
    diffusion, transport = laplacian(velocity, metric, values), advection(velocity, metric, values)
    return tuple(nu * d - t for d, t in zip(diffusion, transport, strict=True))


class StepPreconditioner:
    """P H P of one grid, viscosity and step: from residuals r to defects.

    ``grid``: that of each of the B steps; ``viscosity (B,)``: kinematic, ``dt (B,)`` the steps in seconds. Raises
    ``ConfigError`` for sides with an ``Outlet``, whose faces are unknowns of their own.
    """

    def __init__(
        self,
        grid: Grid,
        boundaries: Boundaries,
        viscosity: Tensor,
        dt: Tensor,
        *,
        dtype: torch.dtype,
        device: torch.device | str | None = None,
    ) -> None:
        outlets = [side for side, boundary in boundaries.items() if isinstance(boundary, Outlet)]
        if outlets:
            raise ConfigError(f"side {outlets[0]!r} is an outlet; the defect of a step knows no outlets")
        self.metrics = metrics(grid, dtype=dtype, device=device)
        self._poisson = _solver(grid, None, dtype, device)
        coefficient = 0.5 * (viscosity.double() * dt.double().to(viscosity.device))
        helmholtz = [_solver(grid, component, dtype, device) for component in range(grid.dim)]
        self._helmholtz = [(solver, solver.helmholtz_factor(coefficient)) for solver in helmholtz]

    def __call__(self, residual: Faces) -> Faces:
        """Stored faces ``(B, *face_shape)`` without divergence, from r at the unknown faces of every component."""
        pairs = zip(self._project(residual), self._helmholtz, self.metrics, strict=True)
        smooth = [solver.apply(unknown_of_stored(f, metric), factor) for f, (solver, factor), metric in pairs]
        return self._project(tuple(smooth))

    def _project(self, unknowns: Faces) -> Faces:
        stored = tuple(padded(f, metric) for f, metric in zip(unknowns, self.metrics, strict=True))
        return subtract_gradient(stored, self._poisson.solve_poisson(divergence(stored, self.metrics)), self.metrics)


def _solver(
    grid: Grid, component: int | None, dtype: torch.dtype, device: torch.device | str | None
) -> FastDiagonalisation:
    """Of the Laplacian of a velocity component at rest on the sides, or of that of the pressure (None)."""
    bases = tuple(
        _basis(axis.faces.numpy().tobytes(), axis.periodic, "face" if j == component else "cell", component is None)
        for j, axis in enumerate(grid.axes)
    )
    return FastDiagonalisation(bases, grid.lengths, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _basis(faces: bytes, periodic: bool, location: Location, pressure: bool) -> Eigenbasis:
    """Along one axis; computed once."""
    end: End = "periodic" if periodic else "neumann" if pressure else "dirichlet"
    with torch.inference_mode(False), torch.no_grad():  # a kept inference tensor could not be trained with later
        return eigenbasis(Axis(torch.from_numpy(np.frombuffer(faces).copy()), periodic), location, end, end)

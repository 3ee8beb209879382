"""Residuals of the incompressible Navier-Stokes equations in primitive variables on the MAC grid.

    du/dt + div(u u) + grad p - nu lap u = 0,    div u = 0,

with the kinematic pressure p (pressure / density) and the stencils of ``sciml.physics.stencils``. Batched
over cases and differentiable in every tensor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.physics.boundary import Boundaries, boundary_values
from sciml.physics.grid import Grid
from sciml.physics.stencils import advection, divergence, gradient, laplacian, metrics, unknown_of_stored

Faces = tuple[Tensor, ...]


def momentum_residual(
    before: Faces,
    after: Faces,
    pressure: Tensor,
    dt: Tensor,
    *,
    grid: Grid,
    boundaries: Boundaries,
    viscosity: Tensor,
) -> Faces:
    """Residual of the momentum equation between two states, trapezoidal (Crank-Nicolson) in time.

        (u_1 - u_0) / dt + (N(u_0) + N(u_1)) / 2 + grad p - nu (lap u_0 + lap u_1) / 2

    ``before``, ``after``: stored faces of every component ``(B, *face_shape)``; ``pressure (B, *cells)``:
    kinematic, in the middle of the interval; ``dt (B,)``, ``viscosity (B,)``. Returns the residual
    (acceleration, m/s^2 in SI) at the unknown faces of every component: the interior faces, on periodic axes
    all. It is O(h^2 + dt^2) for the continuous solution away from walls. In the cells at a wall the
    symmetric viscous stencil is off by nu u_nn / 4 (u_nn: second normal derivative), whatever h; its solution
    is second order all the same. Raises ``DataError`` for wrong shapes.
    """
    _check_faces(before, grid)
    _check_faces(after, grid)
    dtype, device = before[0].dtype, before[0].device
    metric = metrics(grid, dtype=dtype, device=device)
    values = boundary_values(grid, boundaries, dtype=dtype, device=device)
    column = (-1, *(1,) * grid.dim)
    nu, step = viscosity.to(before[0]).reshape(column), dt.to(before[0]).reshape(column)
    advections = [advection(u, metric, values) for u in (before, after)]
    laplacians = [laplacian(u, metric, values) for u in (before, after)]
    result = []
    for i, m in enumerate(metric):
        change = unknown_of_stored(after[i] - before[i], m) / step
        transport = 0.5 * (advections[0][i] + advections[1][i])
        diffusion = 0.5 * nu * (laplacians[0][i] + laplacians[1][i])
        result.append(change + transport + gradient(pressure, m) - diffusion)
    return tuple(result)


def continuity_residual(velocity: Faces, *, grid: Grid) -> Tensor:
    """div u at the cells ``(B, *cells)`` (1/s) from stored faces. Raises ``DataError`` for wrong shapes."""
    _check_faces(velocity, grid)
    return divergence(velocity, metrics(grid, dtype=velocity[0].dtype, device=velocity[0].device))


def trajectory_residual(
    velocity: Faces,
    pressure: Tensor,
    times: Tensor,
    *,
    grid: Grid,
    boundaries: Boundaries | Callable[[int], Boundaries],
    viscosity: Tensor,
) -> Faces:
    """``momentum_residual`` of every pair of successive frames, with the mean of the two pressures.

    ``velocity``: stored faces ``(B, T, *face_shape)`` per component, ``pressure (B, T, *cells)``, ``times (B,
    T)``. Returns ``(B, T - 1, *unknown faces)`` per component. The boundary values hold over the whole
    trajectory, or ``boundaries(t)`` gives those from frame t to frame t + 1.
    """
    pairs = []
    for t in range(times.shape[1] - 1):
        before, after = tuple(u[:, t] for u in velocity), tuple(u[:, t + 1] for u in velocity)
        middle = 0.5 * (pressure[:, t] + pressure[:, t + 1])
        dt = times[:, t + 1] - times[:, t]
        sides = boundaries(t) if callable(boundaries) else boundaries
        pairs.append(momentum_residual(before, after, middle, dt, grid=grid, boundaries=sides, viscosity=viscosity))
    return tuple(torch.stack(component, 1) for component in zip(*pairs, strict=True))


def _check_faces(velocity: Faces, grid: Grid) -> None:
    expected = [(grid.batch, *grid.face_shape(i)) for i in range(grid.dim)]
    given = [tuple(u.shape) for u in velocity]
    if given != expected:
        raise DataError(f"Face velocities have the shapes {given}; the grid expects {expected}.")

"""The classical mesh mover: the Monge-Ampère equation on a box, by a fixed point of Poisson problems.

The mesh x = xi + grad psi equidistributes the monitor m and stays closest to the uniform one where

    m(x) det(I + Hess psi) = theta,   d psi / dn = 0 at walls,

with theta the constant for which that is possible. For the trace L of I + Hess psi (d = 2 or 3)

    L_new = (L^d + d^d (theta / m(x) - det))^(1/d),   Lap psi_new = L_new - d

leaves exactly the solutions alone (Froese & Oberman, J. Comput. Phys. 230 (2011) 818, Benamou, Froese & Oberman, ESAIM:
M2AN 44 (2010) 737, for d = 2, where it is the root of (psi_xx - psi_yy)^2 + 4 psi_xy^2 + 4 theta / m). The bracket is
positive for every convex |xi|^2 / 2 + psi. theta is such that the right-hand side has mean zero, so the discrete
equation is met exactly at convergence. Anderson's acceleration (``anderson``) saves a third to three quarters of the
iterations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.anderson import Anderson
from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.monitor_values import Monitor, monitor_at
from sciml.constraints.mesh_mover.potential import NodeGrid, node_grid
from sciml.constraints.mesh_mover.roughness import check_monitor, check_positive
from sciml.errors import ConfigError, DataError, SolverError

OnFailure = Literal["warn", "raise", "ignore"]
Reader = Callable[[Tensor, Tensor], Tensor]

ON_THE_WAY = 1e-2
"""Tolerance of the steps of a ramp but the last."""
DEPTH = 5
"""Changes that Anderson's acceleration remembers."""


class MeshNotConvergedWarning(UserWarning):
    """A mesh does not equidistribute its monitor to the tolerance."""


@dataclass(frozen=True)
class MovedMesh:
    """Meshes and how well each was solved.

    Attributes:
        corners: ``(B, *(n + 1), d)``, metres.
        potential: psi ``(B, *(n + 1))``, m^2, of mean zero: corners = uniform corners + grad psi.
        iterations: how many each sample took ``(B,)``.
        residual: root mean square of m det / theta - 1 at the nodes ``(B,)``.
        converged: whether the last step moved no node by more than the tolerance ``(B,)``.
    """

    corners: Tensor
    potential: Tensor
    iterations: Tensor
    residual: Tensor
    converged: Tensor


@torch.no_grad()
def monge_ampere(
    monitor: Monitor,
    cells: Sequence[int],
    box: Box,
    *,
    iterations: int = 200,
    tolerance: float = 1e-5,
    relax: float = 1.0,
    ramp: int = 1,
    start: Tensor | None = None,
    on_failure: OnFailure = "warn",
) -> MovedMesh:
    """The mesh of ``cells`` cells that equidistributes a monitor, for each sample of a batch.

    Args:
        monitor: positive; cell-centred values ``(B, *m)`` on any grid of the box, sampled multilinearly, or a function
            of points ``(B, *any, d) -> (B, *any)``, float64, which is first called with a batch of 1 (or that of
            ``start``) and may answer with a larger one.
        tolerance: an iteration that would move no node by more than this, in widths of a cell, is the last.
        relax: the share of each step that is taken, in (0, 1].
        ramp: solve for the monitor in so many steps, m^(1/ramp), m^(2/ramp), … m, each from the mesh before, where m is
            so uneven that the iteration does not converge from the uniform mesh (shares above 0.8).
        start: a potential ``(B, *(n + 1))`` to begin from, e.g. that of the mesh a frame before.
        on_failure: what to do where ``iterations`` were not enough: warn (``MeshNotConvergedWarning``), raise
            ``SolverError``, or nothing. The mesh is then the one with the smallest step.

    Solved in float64; the result has the dtype and device of the monitor's values (of a function: of ``start``, or
    float64 on the CPU). Has no gradient. A sample gets the same mesh alone and in a batch.

    Raises:
        ConfigError: an option out of range, or ``start`` of another shape.
        DataError: a monitor that is not positive and finite, or too rough for its grid.
        SolverError: not converged, with ``on_failure="raise"``.
    """
    cells = box.checked_cells(cells)
    _check_options(iterations, tolerance, relax, ramp, on_failure)
    if isinstance(monitor, Tensor):
        check_monitor(monitor, box)
    like = monitor if isinstance(monitor, Tensor) else start
    dtype, device = (torch.float64, "cpu") if like is None else (like.dtype, str(like.device))
    grid = node_grid(box, cells, device)
    psi = _start(monitor, start, grid)
    read = _reader(monitor, grid, len(psi))
    for step in range(1, ramp):
        milder = _to_the_power(read, step / ramp)
        psi = grid.opened(_solve(milder, psi, grid, iterations, max(tolerance, ON_THE_WAY), relax).potential)
    mesh = _solve(read, psi, grid, iterations, tolerance, relax)
    if on_failure != "ignore" and not mesh.converged.all():
        _report(mesh, iterations, on_failure)
    return MovedMesh(
        mesh.corners.to(dtype), mesh.potential.to(dtype), mesh.iterations, mesh.residual.to(dtype), mesh.converged
    )


def _solve(read: Reader, psi: Tensor, grid: NodeGrid, iterations: int, tolerance: float, relax: float) -> MovedMesh:
    """Iterate; samples leave the batch as they converge."""
    batch, shape = len(psi), psi.shape[1:]
    done = psi.clone()
    count = torch.zeros(batch, dtype=torch.long, device=psi.device)
    converged = torch.zeros(batch, dtype=torch.bool, device=psi.device)
    residual = psi.new_full((batch,), torch.inf)
    active = torch.arange(batch, device=psi.device)
    source, theta = grid.laplacian(psi), None
    history = Anderson(DEPTH, relax)
    least = psi.new_full((batch,), torch.inf)
    for _ in range(iterations):
        m = read(grid.nodes + grid.gradient(psi), active)
        new, theta, error = _fixed_point(m, psi, theta, grid)
        f = new - source
        step = grid.gradient(grid.inverse_laplacian(f)).abs()
        widths = step.flatten(1, -2).amax(1) / step.new_tensor(grid.spacing)
        move = widths.amax(1)
        count[active] += 1
        better = move < least[active]
        rows = active[better]
        done[rows], residual[rows], least[rows] = psi[better], error[better], move[better]
        converged[active] = move <= tolerance
        go_on = (~(move <= tolerance)).nonzero().squeeze(1)
        if not len(go_on):
            break
        source = history.step(source.flatten(1), f.flatten(1)).reshape(-1, *shape)
        if len(go_on) < len(active):
            active, source, theta = active[go_on], source[go_on], theta[go_on]
            history.keep(go_on)
        psi = grid.inverse_laplacian(source)
    return MovedMesh(grid.corners(done), grid.closed(done), count, residual, converged)


def _fixed_point(m: Tensor, psi: Tensor, theta: Tensor | None, grid: NodeGrid) -> tuple[Tensor, Tensor, Tensor]:
    """The next Laplacian ``(B, *m)``, theta ``(B, 1, …)`` and the residual ``(B,)``; m: the monitor at the nodes."""
    dim = grid.box.dim
    second, mixed = grid.hessian(psi)
    diagonal = [1 + value for value in second]
    if dim == 2:
        off = mixed[0, 1]
        det = diagonal[0] * diagonal[1] - off**2
        convex = (diagonal[0] - diagonal[1]) ** 2 + 4 * off**2
    else:
        xx, yy, zz = diagonal
        xy, xz, yz = mixed[0, 1], mixed[0, 2], mixed[1, 2]
        det = xx * (yy * zz - yz**2) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
        convex = ((xx + yy + zz) ** 3 - 27 * det).clamp_min(0.0)
    inverse = dim**dim / m
    theta = 1 / grid.mean(1 / m) if theta is None else theta
    for _ in range(2):  # Newton's method for the theta with which L_new has the mean d
        bracket = convex + theta * inverse
        root = bracket ** (1 / dim)
        slope = grid.mean(root / bracket * inverse) / dim
        theta = torch.maximum(theta - (grid.mean(root) - dim) / slope, theta / 4)
    new = (convex + theta * inverse) ** (1 / dim)
    error = grid.mean((m * det / theta - 1) ** 2).sqrt().flatten()
    return new - grid.mean(new), theta, error


def _reader(monitor: Monitor, grid: NodeGrid, batch: int) -> Reader:
    """The monitor of the active samples at their points, float64. A function always sees the whole batch."""
    if isinstance(monitor, Tensor):
        values = monitor.double()
        return lambda points, active: monitor_at(values[active], points, grid.box)

    def read(points: Tensor, active: Tensor) -> Tensor:
        everyone = grid.nodes.repeat(batch, *(1,) * grid.nodes.ndim)
        everyone[active] = points
        return monitor_at(monitor, everyone, grid.box)[active].double()

    return read


def _to_the_power(read: Reader, exponent: float) -> Reader:
    return lambda points, active: read(points, active) ** exponent


def _start(monitor: Monitor, start: Tensor | None, grid: NodeGrid) -> Tensor:
    """The potential to begin from at the nodes ``(B, *m)``."""
    if isinstance(monitor, Tensor):
        batch = len(monitor)
    else:
        values = monitor(grid.nodes[None] if start is None else grid.nodes.expand(len(start), *grid.nodes.shape))
        if not isinstance(values, Tensor) or values.shape[1:] != grid.nodes.shape[:-1]:
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise DataError(
                f"The monitor gave {given} at points {(1, *grid.nodes.shape)}: it maps (B, *any, d) to (B, *any)."
            )
        check_positive(values)
        batch = len(values)
    if start is None:
        return grid.nodes.new_zeros(batch, *grid.nodes.shape[:-1])
    shape = (batch, *(n + 1 for n in grid.cells))
    if start.shape != shape:
        raise ConfigError(f"start has the shape {tuple(start.shape)}: a potential on the corners, {shape}, expected.")
    if not start.isfinite().all():
        raise DataError("start has NaN or infinite values: begin without it.")
    psi = grid.opened(start).double()
    return psi - grid.mean(psi)


def _check_options(iterations: int, tolerance: float, relax: float, ramp: int, on_failure: str) -> None:
    if iterations < 1 or ramp < 1 or not tolerance > 0:
        raise ConfigError(f"iterations={iterations}, ramp={ramp} and tolerance={tolerance} must be positive.")
    if not 0 < relax <= 1:
        raise ConfigError(f"relax={relax}: the share of a step that is taken is in (0, 1].")
    if on_failure not in get_args(OnFailure):
        raise ConfigError(f"on_failure={on_failure!r}: choose 'warn', 'raise' or 'ignore'.")


def _report(mesh: MovedMesh, iterations: int, on_failure: str) -> None:
    missed = ~mesh.converged
    trouble = (
        f"{int(missed.sum())} of {len(missed)} meshes did not converge in {iterations} iterations (residual up to "
        f"{float(mesh.residual[missed].max()):.2g}). Allow more iterations, take relax=0.5, or ask for less: a smaller "
        "share, more smoothing, more cells."
    )
    if on_failure == "raise":
        raise SolverError(trouble)
    warnings.warn(trouble, MeshNotConvergedWarning, stacklevel=3)

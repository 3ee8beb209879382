"""Incompressible Navier-Stokes in a box: Adams-Bashforth advection, Crank-Nicolson diffusion, pressure
projection.

    (u* - u^n) / dt + N^{n+1/2} + grad p^{n-1/2} = nu (lap u* + lap u^n) / 2
    lap phi = div u* / dt,   u^{n+1} = u* - dt grad phi,   p^{n+1/2} = p^{n-1/2} + phi - nu div u* / 2

Kim and Moin, J. Comput. Phys. 59 (1985) 308, with the pressure in increments and the rotational pressure
update of Brown, Cortez and Minion, J. Comput. Phys. 168 (2001) 464: second order in time and space. Both
linear systems are solved directly by fast diagonalisation. Every case of a batch has its own viscosity,
boundary values, box size and time step.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.physics.boundary import Boundaries, Outlet, boundary_values, sides
from sciml.physics.fast_diagonalisation import End, FastDiagonalisation, eigenbasis
from sciml.physics.grid import Grid
from sciml.physics.mass_balance import balance_outlets, boundary_flux
from sciml.physics.stencils import (
    advection,
    difference,
    divergence,
    faces_to_centres,
    laplacian,
    metrics,
    opened,
    padded,
    replace_boundary_faces,
    subtract_gradient,
    unknown_of_stored,
    with_boundary_faces,
)
from sciml.solvers.checks import check_finite, per_case
from sciml.solvers.time_step import convection_rate, diffusion_rate, stable_cfl

Faces = tuple[Tensor, ...]
_RECHECK = 50  # steps between two looks at the velocity (CFL number, finiteness)


@dataclass(frozen=True, eq=False)
class FlowState:
    """What the next step needs.

    ``velocity``: stored faces per component ``(B, *face_shape)``; ``pressure (B, *cells)``: kinematic, zero
    mean, in the middle of the last step; ``advection``: div(u u_i) of the step before at the unknown faces,
    and ``previous_step (B,)`` its size; both None before the first step (which is then a forward Euler step
    of the advection).
    """

    velocity: Faces
    pressure: Tensor
    advection: Faces | None = None
    previous_step: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Step:
    """What depends on the step size only."""

    dt: Tensor  # (B,)
    half: Tensor  # dt / 2 as (B, 1, ...), like the next two
    inverse: Tensor
    minus_half_viscosity: Tensor
    helmholtz: Faces  # 1 / (1 - nu dt lambda / 2) per component
    forcing: Faces  # nu dt / 2 times what the boundary values add to the Laplacian


class IncompressibleSolver:
    """Batched solver on ``grid``.

    ``boundaries``: one condition per side (``sciml.physics.boundary``); ``viscosity (B,)``: kinematic.
    ``cfl``: largest max_cells(sum_i |u_i| dt / h_i) of a step (lower where the viscosity is too small to hold
    it stable, ``time_step.stable_cfl``); ``diffusion_number``: largest nu dt / h^2 (a limit of accuracy, not
    of stability: Crank-Nicolson damps faster modes too slowly); ``max_steps``: most steps of one ``advance``.

    Raises ``ConfigError``: wrong batch size, a viscosity or length that is not positive, sides that do not
    fit, inflow that nothing balances.
    """

    def __init__(
        self,
        grid: Grid,
        boundaries: Boundaries,
        viscosity: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        cfl: float = 0.8,
        diffusion_number: float = 4.0,
        max_steps: int = 1_000_000,
    ) -> None:
        for name, limit in (("cfl", cfl), ("diffusion_number", diffusion_number), ("max_steps", max_steps)):
            if not limit > 0:
                raise ConfigError(f"{name} must be positive, got {limit}.")
        self.grid, self.dtype, self.device = grid, dtype, torch.device(device or "cpu")
        self.cfl, self.diffusion_number, self.max_steps = cfl, diffusion_number, max_steps
        self.viscosity = self._per_case("viscosity", viscosity)
        self.metrics = metrics(grid, dtype=dtype, device=self.device)
        self._set_boundaries(boundaries)
        self._helmholtz = tuple(self._solver(i) for i in range(grid.dim))
        self._poisson = self._solver(None)
        if not self.outlets:
            self._check_balance()

    # -- set-up -----------------------------------------------------------------------------------------

    def _set_boundaries(self, boundaries: Boundaries) -> None:
        self.boundaries = dict(boundaries)
        self.values = boundary_values(self.grid, boundaries, dtype=self.dtype, device=self.device)
        self.outlets = self.values.outlets
        zeros = self._zero_faces()
        self._lift = laplacian(self._impose(zeros), self.metrics, self.values)

    def with_boundaries(self, boundaries: Boundaries) -> IncompressibleSolver:
        """The same solver with other boundary values (of the same kinds); states carry over. Cheap.

        Raises ``ConfigError`` when a side changes between outlet, periodic and prescribed velocity.
        """
        other = copy.copy(self)
        other._set_boundaries(boundaries)
        if other.outlets != self.outlets:
            raise ConfigError("with_boundaries cannot turn a side into an outlet or back; build a new solver.")
        if not other.outlets:
            other._check_balance()
        return other

    def _solver(self, component: int | None) -> FastDiagonalisation:
        """Helmholtz solver of a velocity component, or the Poisson solver of the pressure (None)."""
        bases = []
        for j, axis in enumerate(self.grid.axes):
            location = "face" if j == component else "cell"
            ends: list[End] = []
            for name in sides(self.grid.dim)[2 * j : 2 * j + 2]:
                if axis.periodic:
                    ends.append("periodic")
                elif component is None or isinstance(self.boundaries[name], Outlet):
                    ends.append("neumann")
                else:
                    ends.append("dirichlet")
            bases.append(eigenbasis(axis, location, ends[0], ends[1]))
        return FastDiagonalisation(tuple(bases), self.grid.lengths, dtype=self.dtype, device=self.device)

    def _check_balance(self) -> None:
        """Without an outlet what flows in must flow out: the divergence of the boundary faces alone sums to
        zero."""
        if not self.values.has_inlet:
            return
        flux, scale = boundary_flux(self._impose(self._zero_faces()), self.metrics)
        bad = (flux.abs() > 1e-4 * scale).nonzero()
        if len(bad):
            case = bad[0].item()
            raise ConfigError(
                f"The inlets of case {case} bring in a net volume flux of {flux[case].item():g} and no side "
                "is an Outlet()."
            )

    def _zero_faces(self) -> Faces:
        grid = self.grid
        shapes = [tuple(a.n - (j == i and not a.periodic) for j, a in enumerate(grid.axes)) for i in range(grid.dim)]
        return tuple(torch.zeros(grid.batch, *shape, dtype=self.dtype, device=self.device) for shape in shapes)

    def _impose(self, inner: Faces) -> Faces:
        """Stored faces from unknown ones: boundary values, outlets with zero gradient (not yet balanced)."""
        return with_boundary_faces(inner, self.metrics, self.values)

    def _balanced(self, inner: Faces) -> Faces:
        """``_impose`` with the outlet faces corrected to balance the inflow."""
        return balance_outlets(self._impose(inner), self.metrics, self.values)

    # -- states -----------------------------------------------------------------------------------------

    def initial_state(self) -> FlowState:
        """Fluid at rest; with inlets, the potential flow that carries their flux to the outlets."""
        velocity = self._balanced(self._zero_faces())
        if self.values.has_inlet:
            velocity = self._project(velocity)
        pressure = torch.zeros(self.grid.batch, *self.grid.shape, dtype=self.dtype, device=self.device)
        return FlowState(velocity, pressure)

    def state_from_velocity(self, faces: Faces) -> FlowState:
        """State from stored faces ``(B, *face_shape)``: boundary values imposed, made divergence-free by
        projection.

        The pressure is the one that keeps it divergence-free: lap p = div(nu lap u - N(u)). Raises
        ``SolverError`` naming the case when a velocity is not finite, ``ConfigError`` for wrong shapes.
        """
        expected = [(self.grid.batch, *self.grid.face_shape(i)) for i in range(self.grid.dim)]
        given = [tuple(u.shape) for u in faces]
        if given != expected:
            raise ConfigError(f"Face velocities have the shapes {given}; the grid expects {expected}.")
        faces = tuple(u.to(device=self.device, dtype=self.dtype) for u in faces)
        check_finite(faces, "given")
        inner = tuple(unknown_of_stored(u, m) for u, m in zip(faces, self.metrics, strict=True))
        velocity = self._project(self._balanced(inner))
        nu = self._column(self.viscosity)
        transport = advection(velocity, self.metrics, self.values)
        diffusion = laplacian(velocity, self.metrics, self.values)
        force = tuple(nu * d - t for d, t in zip(diffusion, transport, strict=True))
        still = tuple(padded(f, m) for f, m in zip(force, self.metrics, strict=True))
        return FlowState(velocity, self._poisson.solve_poisson(divergence(still, self.metrics)))

    def centred_velocity(self, state: FlowState) -> Tensor:
        """Cell-centred velocity ``(B, dim, *cells)``: the mean of the two faces of each cell."""
        return faces_to_centres(state.velocity, self.metrics)

    def divergence(self, state: FlowState) -> Tensor:
        """Discrete divergence ``(B, *cells)``, at round-off after every step."""
        return divergence(state.velocity, self.metrics)

    def _project(self, velocity: Faces) -> Faces:
        """The nearest divergence-free velocity with the same boundary faces."""
        phi = self._poisson.solve_poisson(divergence(velocity, self.metrics))
        return subtract_gradient(velocity, phi, self.metrics)

    # -- time stepping ----------------------------------------------------------------------------------

    def step(self, state: FlowState, dt: Tensor) -> FlowState:
        """One step of ``dt (B,)``; pure, differentiable in the state, dt, viscosity, boundary values and
        lengths."""
        return self._step(self._with_current_boundaries(state), self._prepare(self._per_case("dt", dt)))

    def advance(self, state: FlowState, duration: Tensor, steps: int | None = None) -> FlowState:
        """Advance every case by its ``duration (B,)``, in one number of steps for the batch and equal steps
        per case.

        The number follows from the CFL and diffusion numbers of the neediest case and is looked at again
        every 50 steps; ``steps`` fixes it. Raises ``SolverError`` naming the case when a velocity becomes
        non-finite, too many steps are needed, or the given steps are too few for stability.
        """
        if steps is not None and steps < 1:
            raise ConfigError(f"steps is {steps}; at least 1 is needed.")
        remaining = self._per_case("duration", duration)
        state = self._with_current_boundaries(state)
        left, prepared = 0, None
        while True:
            if steps is None:
                needed = self._steps_needed(state, remaining)
                if prepared is None or needed > left or needed < 0.7 * left:
                    left = needed
                    prepared = self._prepare(remaining / left)
            else:
                if prepared is None:
                    left = steps
                    prepared = self._prepare(remaining / left)
                self._check_stable(state, prepared.dt)
            burst = min(left, _RECHECK)
            for _ in range(burst):
                state = self._step(state, prepared)
            left -= burst
            if left == 0:
                check_finite(state.velocity, "computed")
                return state
            remaining = remaining - burst * prepared.dt

    def _prepare(self, dt: Tensor) -> _Step:
        coefficient = 0.5 * dt * self.viscosity
        column, half = self._column(coefficient), self._column(0.5 * dt)
        helmholtz = tuple(solver.helmholtz_factor(coefficient) for solver in self._helmholtz)
        forcing = tuple(column * lift for lift in self._lift)
        minus_half_viscosity = -0.5 * self._column(self.viscosity)
        return _Step(dt, half, 0.5 / half, minus_half_viscosity, helmholtz, forcing)

    def _step(self, state: FlowState, step: _Step) -> FlowState:
        transport = advection(state.velocity, self.metrics, self.values)
        # second-order extrapolation to the middle of the step, also when the step size changes
        if state.advection is None or state.previous_step is None:
            new, old = -step.half, None
        else:
            # (limited: extrapolating far beyond a tiny previous step would amplify noise)
            ratio = self._column(0.5 * step.dt / state.previous_step).clamp(max=1.0)
            new, old = -step.half * (1 + ratio), step.half * ratio
        starred = []
        for i, metric in enumerate(self.metrics):
            u = unknown_of_stored(state.velocity[i], metric)
            # Crank-Nicolson: w = (u* + u^n) / 2 obeys (1 - k lap) w = u^n + dt (-N - grad p) / 2, k = nu dt /
            # 2,
            # with the boundary values' part of k lap moved to the right as the forcing
            rhs = torch.addcmul(u + step.forcing[i], transport[i], new)
            if old is not None and state.advection is not None:
                rhs = torch.addcmul(rhs, state.advection[i], old)
            dp = difference(opened(state.pressure, metric), metric.dim)
            rhs = torch.addcmul(rhs, dp, -step.half * metric.inverse_spacing)
            w = self._helmholtz[i].apply(rhs, step.helmholtz[i])
            starred.append(torch.lerp(u, w, 2.0))  # u* = 2 w - u^n
        velocity = self._balanced(tuple(starred))
        div = divergence(velocity, self.metrics)
        phi_dt = self._poisson.apply(div, self._poisson.poisson_factor())  # dt phi
        velocity = subtract_gradient(velocity, phi_dt, self.metrics)
        pressure = torch.addcmul(state.pressure, phi_dt, step.inverse)
        pressure = torch.addcmul(pressure, div, step.minus_half_viscosity)
        return FlowState(velocity, pressure, transport, step.dt)

    def _steps_needed(self, state: FlowState, remaining: Tensor) -> int:
        """Steps for ``remaining`` that keep every case within the CFL and diffusion numbers (no gradient)."""
        with torch.no_grad():
            check_finite(state.velocity, "computed")
            cfl = stable_cfl(state.velocity, self.viscosity, self.metrics).clamp(max=self.cfl)
            convection = convection_rate(state.velocity, self.metrics, self.values) / cfl
            diffusion = diffusion_rate(self.viscosity, self.metrics) / self.diffusion_number
            steps = (remaining * torch.maximum(convection, diffusion)).double()
            most, case = (value.item() for value in steps.max(0))
        if most > self.max_steps:
            raise SolverError(
                f"Case {case} needs {most:.3g} steps, more than max_steps = {self.max_steps}: its velocity "
                "or viscosity is too large for the grid and the duration, or the flow has become unstable; "
                "refine less, shorten the interval or lower cfl."
            )
        return max(1, math.ceil(most * (1 - 1e-6)))

    def _check_stable(self, state: FlowState, dt: Tensor) -> None:
        """``SolverError`` naming the case for which ``dt (B,)`` is above the CFL number that is stable."""
        with torch.no_grad():
            check_finite(state.velocity, "computed")
            limit = stable_cfl(state.velocity, self.viscosity, self.metrics)
            cfl = dt * convection_rate(state.velocity, self.metrics, self.values)
            worst, case = (value.item() for value in (cfl / limit).max(0))
        if worst > 1:
            raise SolverError(
                f"Case {case}: a step of {float(dt[case]):.3g} s has the CFL number {float(cfl[case]):.3g}; the scheme "
                f"takes {float(limit[case]):.3g} here. Take at least {math.ceil(worst)} times as many steps."
            )

    # -- small helpers ----------------------------------------------------------------------------------

    def _column(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *(1,) * self.grid.dim)

    def _per_case(self, name: str, values: Tensor) -> Tensor:
        return per_case(name, values, self.grid.batch, dtype=self.dtype, device=self.device)

    def _with_current_boundaries(self, state: FlowState) -> FlowState:
        """Inlet values may have changed since the state was computed; walls are always 0."""
        if not self.values.has_inlet:
            return state
        return replace(state, velocity=replace_boundary_faces(state.velocity, self.metrics, self.values))

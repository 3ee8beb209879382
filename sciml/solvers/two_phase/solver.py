"""Water and air in a box: volume of fluid, staggered grid, projection with variable density.

A step moves the water (geometric, Weymouth and Yue), then the velocity: transport, viscous stress and weight at the
new density, and the pressure that makes the velocity divergence-free again. The pressure is found in one of two ways:

``"direct"``: div(1/rho grad p) = div(u*) / dt by a factorisation of every case (CPU).

``"split"``: 1/rho grad p = 1/rho_0 grad p + (1/rho - 1/rho_0) grad p^ with the lower density rho_0 and the pressure p^
extrapolated from the last two steps (Dodd and Ferrante, J. Comput. Phys. 273 (2014) 416): one fast solve with constant
coefficients, batched on any device, but steps that resolve how fast the pressure changes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError, did_you_mean
from sciml.physics.grid import check_positive
from sciml.physics.vof import advect, courant_number
from sciml.solvers.checks import check_finite, per_case
from sciml.solvers.two_phase import operators
from sciml.solvers.two_phase.direct import solve_direct
from sciml.solvers.two_phase.domain import Faces, make_domain
from sciml.solvers.two_phase.sides import Side, checked_sides
from sciml.solvers.two_phase.split import SplitPoisson
from sciml.solvers.two_phase.state import TwoPhaseState, joined
from sciml.solvers.two_phase.stress import implicit_change, viscous_force
from sciml.solvers.two_phase.transport import transport

PressureWay = Literal["direct", "split"]

GRAVITY = 9.81
"""m/s^2."""

_USUAL_CFL = 0.45

_WAVE = 0.2
"""Largest step over sqrt(h / g), the time scale of gravity waves as short as a cell (stable below about 1.1): the water
 lags by half a step, which is less than a quarter of a cell where the CFL number limits the step."""

_DIFFUSION = 20.0
"""Largest step over that which an explicit viscous stress takes, a limit of accuracy. Beyond 1 the stress is implicit,
which needs factorisations; with the split pressure it stays explicit."""

_LARGEST_RATIO = {"direct": 1e4, "split": 1e3}
"""Of the two densities."""

_SPLIT_CFL_TIMES_RATIO = 40.0
"""Where a surface crosses a face, the extrapolated pressure is wrong by its change in the step, and the density ratio
multiplies that. Collapsing columns stayed stable up to 0.4 at the ratio 200, 0.2 at 400, 0.1 at 830; a jet of 2 m/s
over a barrier at 830 only below 0.1."""

_SPLIT_RATIO = 10.0
"""Beyond this density ratio waves need shorter steps with the split pressure, by the root: sloshing water is then 2
to 3 % too slow on 32 cells, of which 1 % is the grid's; at the ratio 100 without this it is 8 %."""


@dataclass(frozen=True, eq=False)
class Fluids:
    """Density (kg/m^3) and dynamic viscosity (Pa s) of water and air, ``(B,)`` each; ``gravity (B, 2)`` m/s^2."""

    water_density: Tensor
    air_density: Tensor
    water_viscosity: Tensor
    air_viscosity: Tensor
    gravity: Tensor

    def select(self, cases: Tensor) -> Fluids:
        """The fluids of some cases only."""
        return Fluids(*(values[cases] for values in vars(self).values()))

    @property
    def kinematic_viscosity(self) -> Tensor:
        """Of the more viscous one ``(B,)`` m^2/s."""
        return torch.maximum(self.water_viscosity / self.water_density, self.air_viscosity / self.air_density)

    @property
    def ratio(self) -> Tensor:
        """Of the densities ``(B,)``, at least 1."""
        ratio = self.water_density / self.air_density
        return torch.maximum(ratio, 1 / ratio)

    def density(self, fraction: Tensor) -> Tensor:
        """Of a mixture: by volume."""
        air, water = self.air_density[:, None, None], self.water_density[:, None, None]
        return air + (water - air) * fraction

    def viscosity(self, fraction: Tensor) -> Tensor:
        """Of a mixture: harmonic, as the thin fluid shears first."""
        thin, thick = 1 / self.air_viscosity[:, None, None], 1 / self.water_viscosity[:, None, None]
        return 1 / (thin + (thick - thin) * fraction)


class TwoPhaseSolver:
    """Two incompressible fluids of different density, "water" (fraction 1) and "air", in a box, every case with its
    own size, fluids, inlet and obstacle, and its own step size.

    ``lengths (B, 2)``: the box, metres; ``cells``: (nx, ny); ``densities`` kg/m^3, dynamic ``viscosities`` Pa s: of
    water and air, ``(B,)`` or numbers; ``gravity``: down (-y), ``(B,)`` or a number, or a vector ``(B, 2)``; ``sides``:
    "x_low", ... -> ``Wall``, ``Open`` or ``Inlet`` (default: walls to which fluid sticks); ``solid (B, nx, ny)`` bool:
    cells of obstacles, to which fluid sticks unless ``solid_slip``; ``pressure``: see the module; ``cfl``: largest
    share of a cell that enters or leaves it in a step, at most 0.5, and 40 over the density ratio with the split
    pressure (default: 0.45 or that); ``max_steps``: most steps of one ``advance``.

    Pressure is that over still air at the same height, which is 0 on open sides.

    Raises ``ConfigError``: wrong shapes or values, a ``cfl`` or density ratio that the pressure cannot take, sides that
    do not fit, a solid that cuts the fluid in two or stands in front of an inlet, an inlet without an open side.
    """

    def __init__(
        self,
        lengths: Tensor,
        cells: tuple[int, int],
        *,
        densities: tuple[Tensor | float, Tensor | float],
        viscosities: tuple[Tensor | float, Tensor | float],
        gravity: Tensor | float = GRAVITY,
        sides: Mapping[str, Side] | None = None,
        solid: Tensor | None = None,
        solid_slip: bool = False,
        pressure: PressureWay = "direct",
        cfl: float | None = None,
        max_steps: int = 1_000_000,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> None:
        if pressure not in get_args(PressureWay):
            raise ConfigError(f"Unknown pressure {pressure!r}{did_you_mean(str(pressure), get_args(PressureWay))}")
        if len(cells) != 2 or min(cells) < 4:
            raise ConfigError(f"cells must be (nx, ny) with at least 4 cells along each axis; got {tuple(cells)}.")
        if lengths.ndim != 2 or lengths.shape[1] != 2:
            raise ConfigError(f"lengths must be (batch, 2); got {tuple(lengths.shape)}.")
        check_positive("length", lengths)
        self.max_steps = max_steps
        self.dtype, self.device = dtype, torch.device(device or "cpu")
        self.batch = len(lengths)
        self.fluids = self._fluids(densities, viscosities, gravity)
        self.cfl = _courant_numbers(cfl, self.fluids, pressure)
        self._wave = torch.full_like(self.cfl, _WAVE)
        if pressure == "split":
            self._wave = _WAVE * (_SPLIT_RATIO / self.fluids.ratio).sqrt().clamp(max=1.0)
        spacing = (lengths.double() / torch.tensor(cells)).to(self.device, dtype)
        if solid is None:
            solid = torch.zeros(self.batch, *cells, dtype=torch.bool)
        if solid.shape != (self.batch, *cells) or solid.dtype != torch.bool:
            raise ConfigError(
                f"solid must be a bool tensor {(self.batch, *cells)}; got {solid.dtype} {tuple(solid.shape)}."
            )
        checked = checked_sides(sides or {}, self.batch, tuple(cells), dtype=dtype, device=self.device)
        self.domain = make_domain(spacing, checked, solid.to(self.device), solid_slip=solid_slip)
        self._has_solid, self._open_cells = bool(solid.any()), ~solid.to(self.device)
        self._poisson = SplitPoisson(self.domain) if pressure == "split" else None

    def _fluids(
        self, densities: tuple[Tensor | float, ...], viscosities: tuple[Tensor | float, ...], gravity: Tensor | float
    ) -> Fluids:
        names = ("density of water", "density of air", "viscosity of water", "viscosity of air")
        values = [
            per_case(f"The {name}", value, self.batch, dtype=self.dtype, device=self.device)
            for name, value in zip(names, (*densities, *viscosities), strict=True)
        ]
        g = torch.as_tensor(gravity, dtype=torch.float64)
        if g.ndim < 2:
            down = g.expand(self.batch) if g.ndim == 0 else g
            g = torch.stack((torch.zeros_like(down), -down), 1)
        if g.shape != (self.batch, 2) or not torch.isfinite(g).all():
            raise ConfigError(
                f"gravity must be a finite number, ({self.batch},) or ({self.batch}, 2); got {tuple(g.shape)}."
            )
        return Fluids(*values, gravity=g.to(self.device, self.dtype))

    # -- states -----------------------------------------------------------------------------------------

    def initial_state(self, fraction: Tensor, velocity: Faces | None = None) -> TwoPhaseState:
        """The flow with this water ``(B, nx, ny)`` and velocity (default: at rest), made divergence-free with the
        inlets running, and the pressure that keeps it so.

        Raises ``ConfigError`` for wrong shapes, fractions outside [0, 1] or water inside a solid.
        """
        nx, ny = self.domain.cells
        if fraction.shape != (self.batch, nx, ny):
            raise ConfigError(f"fraction must be {(self.batch, nx, ny)}; got {tuple(fraction.shape)}.")
        fraction = fraction.to(self.device, self.dtype)
        if not bool(((fraction >= 0) & (fraction <= 1)).all()):
            raise ConfigError("The fraction of water must lie in [0, 1].")
        wet = (fraction * (1 - self.domain.fluid)).flatten(1).amax(1).nonzero()
        if len(wet):
            raise ConfigError(f"Case {int(wet[0])} has water inside its solid; set the fraction to 0 there.")
        if velocity is None:
            velocity = tuple(torch.zeros_like(values) for values in self.domain.free)
        shapes = [tuple(values.shape) for values in velocity]
        if shapes != [tuple(values.shape) for values in self.domain.free]:
            raise ConfigError(f"velocity has the shapes {shapes}; expected {(nx + 1, ny)} and {(nx, ny + 1)} per case.")
        given = tuple(values.to(self.device, self.dtype) for values in velocity)
        mobility = self._mobility(fraction)
        still = torch.ones_like(self.fluids.air_density)
        u, _ = self._corrected_direct(self._imposed(given), mobility, still)
        zeros = torch.zeros_like(self.fluids.air_density)
        body, viscous = self._accelerations(fraction, u, zeros, mobility)
        force = _plus(body, viscous, still)
        p = solve_direct(operators.divergence(force, self.domain), mobility, self.domain)
        return TwoPhaseState(fraction, u, p, p, zeros, zeros)

    def divergence(self, state: TwoPhaseState) -> Tensor:
        """``(B, nx, ny)`` 1/s, at round-off after every step."""
        return operators.divergence(state.velocity, self.domain)

    def volume(self, state: TwoPhaseState) -> Tensor:
        """Area of water ``(B,)`` m^2; ``volume - state.entered`` stays what it was."""
        return state.fraction.flatten(1).sum(1) * self.domain.spacing.prod(1)

    # -- time stepping ----------------------------------------------------------------------------------

    def advance(self, state: TwoPhaseState, seconds: Tensor | float) -> TwoPhaseState:
        """Every case ``seconds`` (``(B,)`` or a number) later; each takes steps of its own size and as many as it
        needs.

        Raises ``SolverError`` naming the case when a velocity is not finite or it needs more than ``max_steps`` steps.
        """
        remaining = per_case("seconds", torch.as_tensor(seconds), self.batch, dtype=torch.float64, device=self.device)
        cases = torch.arange(self.batch, device=self.device)
        finished: list[tuple[Tensor, TwoPhaseState]] = []
        solver, axis, taken, after = self, state.first, 0, 1 - state.first
        while len(cases):
            dt, left = solver._next_step(state, remaining, cases, taken)
            state = solver._step(state, dt, axis)
            remaining, axis, taken = remaining - dt, 1 - axis, taken + 1
            if bool((left <= 1).any()):
                done, going = (left <= 1).nonzero()[:, 0], (left > 1).nonzero()[:, 0]
                finished.append((cases[done], state.select(done)))
                if len(going):
                    solver, state = solver.select(going), state.select(going)
                cases, remaining = cases[going], remaining[going]
        return joined(finished, first=after)

    def select(self, cases: Tensor) -> TwoPhaseSolver:
        """The solver of some cases only."""
        other = copy.copy(self)
        other.domain, other.fluids = self.domain.select(cases), self.fluids.select(cases)
        other.cfl, other._wave = self.cfl[cases], self._wave[cases]
        other._open_cells, other.batch = self._open_cells[cases], len(cases)
        if self._poisson is not None:
            other._poisson = self._poisson.select(cases, other.domain)
        return other

    def step_bound(self, state: TwoPhaseState) -> Tensor:
        """The largest step ``(B,)`` that this state allows: by the CFL number, gravity waves and viscosity."""
        spacing, fluids = self.domain.spacing, self.fluids
        courant = courant_number(state.velocity, torch.ones_like(fluids.air_density), spacing)
        weight = torch.linalg.vector_norm(fluids.gravity, dim=1)
        waves = (weight / spacing.amin(1)).sqrt() / self._wave
        times = _DIFFUSION if self._poisson is None else 1.0
        return 1 / torch.maximum(torch.maximum(courant / self.cfl, waves), 1 / (times * self._explicit_step))

    @property
    def _explicit_step(self) -> Tensor:
        """The largest step ``(B,)`` for an explicit viscous stress, with a factor of 2 for walls and mixtures."""
        return 1 / (4 * self.fluids.kinematic_viscosity * (1 / self.domain.spacing**2).sum(1))

    def _next_step(self, state: TwoPhaseState, remaining: Tensor, cases: Tensor, taken: int) -> tuple[Tensor, Tensor]:
        """Step size ``(B,)`` and how many such steps are left."""
        needed = remaining / self.step_bound(state)
        left = (needed - 1e-9).ceil().clamp(min=1)
        bad = (~(left <= self.max_steps - taken)).nonzero()
        if len(bad):
            case = int(cases[bad[0]])
            check_finite(state.velocity, "computed")
            raise SolverError(
                f"Case {case} needs {float(needed[bad[0]]):.3g} more steps after {taken}, more than max_steps = "
                f"{self.max_steps}: its velocity or viscosity is too large for the grid and the time, or the flow has "
                "become unstable; refine less, shorten the time or lower cfl."
            )
        return remaining / left, left

    def _step(self, state: TwoPhaseState, dt: Tensor, axis: int) -> TwoPhaseState:
        domain, dt = self.domain, dt.to(self.dtype)
        fluid = self._open_cells if self._has_solid else None
        fraction, water = advect(
            state.fraction, state.velocity, dt, domain.spacing, first=axis, inflow=domain.inflow(), fluid=fluid
        )
        mobility = self._mobility(fraction)
        body, viscous = self._accelerations(fraction, state.velocity, dt, mobility)
        starred = _plus(_plus(state.velocity, body, dt), viscous, dt)
        stiff = (dt > self._explicit_step).nonzero()[:, 0]
        if len(stiff):
            rate = _plus(body, viscous, torch.ones_like(dt))
            some = self.select(stiff)._implicit(
                state.select(stiff), fraction[stiff], _of(rate, stiff), _of(mobility, stiff), dt[stiff]
            )
            starred = starred[0].index_copy(0, stiff, some[0]), starred[1].index_copy(0, stiff, some[1])
        if self._poisson is None:
            velocity, pressure = self._corrected_direct(starred, mobility, dt)
        else:
            velocity, pressure = self._corrected_split(starred, mobility, state, dt)
        return TwoPhaseState(fraction, velocity, pressure, state.pressure, dt, state.entered + _net_inflow(water))

    def _mobility(self, fraction: Tensor) -> Faces:
        """1 / rho at the faces, 0 on closed ones."""
        density = operators.face_mean(self.fluids.density(fraction))
        return self.domain.free[0] / density[0], self.domain.free[1] / density[1]

    def _accelerations(self, fraction: Tensor, velocity: Faces, dt: Tensor, mobility: Faces) -> tuple[Faces, Faces]:
        """By transport and weight, and by viscous stress, on the free faces.

        Pressure counts from that of still air at the same height, so what is left of gravity is (1 - rho_air / rho) g.
        """
        free, carried = self.domain.free, transport(velocity, dt, self.domain)
        viscous = viscous_force(velocity, self.fluids.viscosity(fraction), self.domain)
        air = self.fluids.air_density[:, None, None]
        x, y = self.fluids.gravity[:, :, None, None].unbind(1)
        body = (
            free[0] * (x - carried[0]) - mobility[0] * (air * x),
            free[1] * (y - carried[1]) - mobility[1] * (air * y),
        )
        return body, (mobility[0] * viscous[0], mobility[1] * viscous[1])

    def _implicit(self, state: TwoPhaseState, fraction: Tensor, rate: Faces, mobility: Faces, dt: Tensor) -> Faces:
        """The velocity before the projection, by implicit viscous stress, from its ``rate`` of change at the beginning
        but for the pressure. The pressure before, at the density before, stands for it, as it balances the weight."""
        before = self._mobility(state.fraction)
        slope = operators.gradient(state.pressure, self.domain)
        air, gravity = self.fluids.air_density[:, None, None], self.fluids.gravity[:, :, None, None].unbind(1)
        x, y = (
            old * s + (old - new) * (air * g) for old, new, s, g in zip(before, mobility, slope, gravity, strict=True)
        )
        rest = rate[0] - x, rate[1] - y
        change = implicit_change(rest, self.fluids.viscosity(fraction), mobility, dt, self.domain)
        return _plus(_plus(state.velocity, change, torch.ones_like(dt)), (x, y), dt)

    def _corrected_direct(self, velocity: Faces, mobility: Faces, dt: Tensor) -> tuple[Faces, Tensor]:
        rhs = operators.divergence(velocity, self.domain) / dt[:, None, None]
        pressure = solve_direct(rhs, mobility, self.domain)
        slope = operators.gradient(pressure, self.domain)
        return _plus(velocity, (mobility[0] * slope[0], mobility[1] * slope[1]), -dt), pressure

    def _corrected_split(
        self, velocity: Faces, mobility: Faces, state: TwoPhaseState, dt: Tensor
    ) -> tuple[Faces, Tensor]:
        assert self._poisson is not None
        ratio = torch.where(state.step > 0, dt / state.step, 0.0).clamp(max=2.0)
        guess = torch.addcmul(state.pressure, ratio[:, None, None], state.pressure - state.previous_pressure)
        light = self.fluids.air_density.minimum(self.fluids.water_density)[:, None, None]
        slope = operators.gradient(guess, self.domain)
        x, y = ((m - free / light) * s for m, free, s in zip(mobility, self.domain.free, slope, strict=True))
        velocity = _plus(velocity, (x, y), -dt)
        scaled = self._poisson.solve(operators.divergence(velocity, self.domain))
        slope = operators.gradient(scaled, self.domain)
        velocity = velocity[0] - self.domain.free[0] * slope[0], velocity[1] - self.domain.free[1] * slope[1]
        return velocity, scaled * light / dt[:, None, None]

    def _imposed(self, velocity: Faces) -> Faces:
        """What is given on the closed faces."""
        free, given = self.domain.free, self.domain.given
        return free[0] * velocity[0] + given[0], free[1] * velocity[1] + given[1]


def _courant_numbers(cfl: float | None, fluids: Fluids, pressure: PressureWay) -> Tensor:
    """The Courant number ``(B,)`` of every case; ``ConfigError`` for one, or a density ratio, that does not work."""
    if cfl is not None and not 0 < cfl <= 0.5:
        raise ConfigError(f"cfl must lie in (0, 0.5], where the transport of the fraction is bounded; got {cfl}.")
    ratio = fluids.ratio
    most, case = (value.item() for value in ratio.max(0))
    if most > _LARGEST_RATIO[pressure] * (1 + 1e-6):
        more = "use pressure='direct', or " if pressure == "split" and most <= _LARGEST_RATIO["direct"] else ""
        raise ConfigError(
            f"The densities of case {case} differ by a factor of {most:.4g}; with pressure={pressure!r} at most "
            f"{_LARGEST_RATIO[pressure]:g} works: {more}bring the densities closer to each other."
        )
    limit = torch.full_like(ratio, 0.5)
    if pressure == "split":
        limit = (_SPLIT_CFL_TIMES_RATIO / ratio).clamp(max=0.5)
    if cfl is None:
        return limit.clamp(max=_USUAL_CFL)
    if cfl > float(limit.min()):
        case = int(limit.argmin())
        raise ConfigError(
            f"cfl = {cfl:g} is more than the split pressure takes at the density ratio {float(ratio[case]):.4g} of "
            f"case {case}: {float(limit[case]):.3g}. Lower cfl, or use pressure='direct'."
        )
    return torch.full_like(ratio, cfl)


def _plus(velocity: Faces, force: Faces, dt: Tensor) -> Faces:
    dt = dt[:, None, None]
    return torch.addcmul(velocity[0], force[0], dt), torch.addcmul(velocity[1], force[1], dt)


def _of(faces: Faces, cases: Tensor) -> Faces:
    return faces[0][cases], faces[1][cases]


def _net_inflow(water: Faces) -> Tensor:
    x, y = water
    return (x[:, 0] - x[:, -1]).sum(1) + (y[..., 0] - y[..., -1]).sum(1)

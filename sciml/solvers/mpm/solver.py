"""The MLS-MPM solver: explicit, symplectic Euler, several scenes at once.

One step: masses and momenta to the grid (with the stress of the particles), gravity and contact on the grid,
velocities back, then positions, deformation, return map and new stress on the particles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.solvers.mpm.algebra import components_first, particles_first
from sciml.solvers.mpm.materials import Around
from sciml.solvers.mpm.obstacles import ContactNodes, Obstacle, ObstacleNodes
from sciml.solvers.mpm.start import MaterialsOf, start
from sciml.solvers.mpm.state import MPMState
from sciml.solvers.mpm.transfer import MPMGrid, add_to_grid, chunks, interpolate, stencil, to_particles
from sciml.solvers.mpm.walls import Contact, Walls

STEPS_BETWEEN_CHECKS = 32
INSTANT = 1e-12  # s, of the first return map: rate-dependent flow divides by the step
VISCOUS_COURANT = 0.5  # of the limit cell^2 / (2 d nu) of explicit diffusion


class MPMSolver:
    """Particles in a closed box ``lower`` ... ``upper`` with square cells of ``cell`` metres.

    ``gravity`` ``(d,)`` in m/s^2; ``walls``: "slip", "stick", ``Coulomb(friction)``, or a pair (low, high) of them for
    every axis; ``obstacles``: ``Obstacle`` s, the same in all scenes. Four particles a cell in 2D and eight in 3D are
    usual. Every step is differentiable where a tensor of the state requires a gradient.
    """

    def __init__(
        self,
        lower: Sequence[float],
        upper: Sequence[float],
        cell: float,
        *,
        gravity: Sequence[float],
        walls: Contact | Sequence[tuple[Contact, Contact]] = "slip",
        obstacles: Sequence[Obstacle] = (),
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.lower, self.upper = tuple(map(float, lower)), tuple(map(float, upper))
        if len(self.lower) not in (2, 3) or not len(self.lower) == len(self.upper) == len(gravity):
            raise ConfigError(
                f"lower, upper and gravity must have 2 or 3 components each, got {len(self.lower)}, {len(self.upper)} "
                f"and {len(gravity)}"
            )
        if not cell > 0 or any(a >= b for a, b in zip(self.lower, self.upper, strict=True)):
            raise ConfigError(
                f"cell must be positive and lower below upper, got cell {cell}, {self.lower}, {self.upper}"
            )
        self.grid = MPMGrid.of_box(self.lower, self.upper, float(cell), dtype, torch.device(device))
        self.cell, self.dtype, self.device = float(cell), dtype, torch.device(device)
        self.gravity = torch.tensor([float(g) for g in gravity], dtype=dtype, device=device)
        if not bool(self.gravity.isfinite().all()):
            raise ConfigError(f"gravity must be finite, got {tuple(gravity)}")
        self.walls = Walls(walls, self.grid)
        self.obstacles = tuple(obstacles)
        self._obstacle_nodes = [ObstacleNodes(obstacle, self.grid) for obstacle in self.obstacles]

    def start(
        self,
        position: Tensor,
        velocity: Tensor,
        volume: Tensor,
        density: float | Tensor,
        materials: MaterialsOf,
        batch: Tensor | None = None,
        deformation: Tensor | None = None,
    ) -> MPMState:
        """The particles at time 0.

        ``position``, ``velocity`` ``(P, d)``; ``volume`` ``(P,)`` m^d; ``density`` kg/m^d (a number or ``(P,)``);
        ``materials``: one material, or pairs (material, particle numbers) that name every particle once;
        ``batch`` ``(P,)``: scene numbers 0 ... B - 1 in ascending order, every scene with a particle;
        ``deformation`` ``(P, d, d)``: elastic deformation gradient (default: undeformed). DataError otherwise, and
        for particles outside the box or inside an obstacle.
        """
        state = start(self, position, velocity, volume, density, materials, batch, deformation)
        return respond(state, components_first(state.deformation), None, INSTANT)

    @torch.no_grad()
    def time_step(self, state: MPMState, courant: float = 0.4) -> float:
        """Stable step in s: ``courant`` cells of the fastest wave plus particle, and the viscous limit."""
        if not 0 < courant <= 1:
            raise ConfigError(f"courant must lie in (0, 1], got {courant}")
        deformation, density = components_first(state.deformation), state.density
        speed = components_first(state.velocity).norm(dim=0)
        limits = []
        for group in state.groups:
            rho = group.of(density)
            wave = group.material.wave_speed(group.of(deformation), rho)
            limits.append(courant * self.cell / (wave + group.of(speed)).max())
            viscosity = group.material.kinematic_viscosity(rho)
            if viscosity is not None:
                limits.append(VISCOUS_COURANT * self.cell**2 / (2 * self.grid.dim * viscosity.max()))
        return torch.stack(limits).min().item()

    def step(self, state: MPMState, dt: float) -> MPMState:
        """The state after one step of ``dt`` seconds."""
        grid, cells = self.grid, self.cell
        x, v, c, f, stress = (
            components_first(t) for t in (state.position, state.velocity, state.affine, state.deformation, state.stress)
        )
        total = grid.size * state.scenes
        offset = None if state.scenes == 1 else state.batch * grid.size
        # m v + (m C - dt 4 / cell^2 V tau) (x_i - x_p); the rows after it carry the mass, and the volume if wanted.
        slope = torch.addcmul(state.mass * c, state.volume * (4 / cells**2), stress, value=-dt)
        scalars = [state.mass, state.volume] if self._wants_filling(state) else [state.mass]
        slope = torch.cat([slope, slope.new_zeros(len(scalars), *slope.shape[1:])])
        carried = torch.cat([state.mass * v, torch.stack(scalars)])
        parts = chunks(x)
        stencils = [stencil(x[:, k], grid, None if offset is None else offset[k], total) for k in parts]
        nodes = torch.zeros(len(carried), total, dtype=x.dtype, device=x.device)
        for at, k in zip(stencils, parts, strict=True):
            add_to_grid(at, carried[:, k], slope[..., k], nodes)
        contacts = [obstacle.at(state.time, dt) for obstacle in self._obstacle_nodes]
        velocity = self._grid_velocity(nodes, contacts, state.scenes, dt)
        v, c = _joined([to_particles(at, velocity) for at in stencils])
        filling = None
        if self._wants_filling(state):
            full = self._grid_filling(nodes[-1], contacts, state.scenes)
            (filling,) = _joined([(interpolate(at, full),) for at in stencils])
        state = replace(
            state,
            position=particles_first(x + dt * v),
            velocity=particles_first(v),
            affine=particles_first(c),
            time=state.time + dt,
        )
        return respond(state, f, filling, dt)

    @staticmethod
    def _wants_filling(state: MPMState) -> bool:
        return any(group.material.uses_filling for group in state.groups)

    def _grid_velocity(self, nodes: Tensor, contacts: list[ContactNodes], scenes: int, dt: float) -> Tensor:
        """Velocity ``(d, nodes)`` after gravity and contact, from momentum and mass ``(d + 1 ..., nodes)``."""
        d = self.grid.dim
        mass = nodes[d]
        velocity = nodes[:d] / torch.where(mass > 0, mass, torch.ones_like(mass))
        velocity = (velocity + (dt * self.gravity)[:, None]).view(d, scenes, self.grid.size)
        for contact in contacts:
            velocity = contact.apply(velocity)
        return self.walls.apply(velocity).view(d, -1)

    def _grid_filling(self, volume: Tensor, contacts: list[ContactNodes], scenes: int) -> Tensor:
        """Volume of particles and solid per volume ``(nodes,)``, from the undeformed volume at the nodes."""
        solid = self.walls.solid
        for contact in contacts:
            solid = torch.maximum(solid, contact.solid)
        return (volume.view(scenes, -1) / self.cell**self.grid.dim + solid).view(-1)

    def run(
        self, state: MPMState, times: Sequence[float] | Tensor, courant: float = 0.4, max_steps: int = 1_000_000
    ) -> dict[str, Tensor]:
        """Frames at ``times`` (T,) s, the first of which is the state's own.

        Returns ``position`` and ``velocity`` ``(T, P, d)``. The steps within a frame are equal while the
        stability limit allows. SolverError for NaN, particles that leave the box, or more than ``max_steps`` steps.
        """
        times = [float(t) for t in times]
        if not times or times[0] != state.time or any(b <= a for a, b in itertools.pairwise(times)):
            raise ConfigError(f"times must ascend from the time of the state, {state.time:g} s, got {times[:4]} ...")
        frames, steps = [(state.position, state.velocity)], 0
        low, high = (torch.tensor(c, dtype=self.dtype, device=self.device) for c in (self.lower, self.upper))
        for time in times[1:]:
            state, taken = self.advance(state, time, courant, max_steps - steps)
            steps += taken
            # The check allowed round-off beyond the walls; what is handed out lies inside.
            frames.append((state.position.clamp(low, high), state.velocity))
        position, velocity = (torch.stack(parts) for parts in zip(*frames, strict=True))
        return {"position": position, "velocity": velocity}

    def advance(
        self, state: MPMState, time: float, courant: float = 0.4, max_steps: int = 1_000_000
    ) -> tuple[MPMState, int]:
        """(the state at ``time``, steps taken); errors as in ``run``."""
        taken = 0
        while (left := time - state.time) > 0:
            count = max(1, math.ceil(left / self.time_step(state, courant) - 1e-9))
            if taken + count > max_steps:
                raise SolverError(
                    f"the particles need {count} more steps of {left / count:.3g} s to reach {time:g} s, but only "
                    f"{max_steps - taken} are left of max_steps: raise it, or take a coarser grid or a softer material"
                )
            dt = left / count
            burst = min(count, STEPS_BETWEEN_CHECKS)
            for _ in range(burst):
                state = self.step(state, dt)
            taken += burst
            self.check(state)
            if burst == count:
                state = replace(state, time=time)
        return state, taken

    @torch.no_grad()
    def check(self, state: MPMState) -> None:
        """SolverError that names the scene of a particle that is NaN or outside the box."""
        slack = 1e-3 * self.cell
        low, high = (torch.tensor(c, dtype=self.dtype, device=self.device) for c in (self.lower, self.upper))
        x = state.position
        good = ((x >= low - slack) & (x <= high + slack) & state.velocity.isfinite()).all(1)
        if bool(good.all()):
            return
        bad = (~good).nonzero()[:, 0]
        first = int(bad[0])
        what = "left the box" if bool(x[first].isfinite().all()) else "became NaN"
        raise SolverError(
            f"scene {int(state.batch[first])}: {len(bad)} particles {what} by t = {state.time:.4g} s (the first is "
            f"number {first} at {[round(c, 4) for c in x[first].tolist()]}); the time step is too long for this "
            "motion: use a smaller courant or a stiffer material"
        )


def _joined(parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The tensors of all chunks of particles, put together."""
    return parts[0] if len(parts) == 1 else tuple(torch.cat(part, -1) for part in zip(*parts, strict=True))


def respond(state: MPMState, deformation: Tensor, filling: Tensor | None, dt: float) -> MPMState:
    """Deformation, stress and swelling of every material after the velocity gradient acted for ``dt``."""
    rate, density, parts = components_first(state.affine), state.density, []
    for g in state.groups:
        around = Around(g.of(rate), g.of(density), None if filling is None else g.of(filling))
        parts.append(g.material.respond(g.of(deformation), g.of(state.swelling), around, dt))
    deformation, stress, swelling = (state.regroup(list(part)) for part in zip(*parts, strict=True))
    return replace(
        state,
        deformation=particles_first(deformation),
        stress=particles_first(stress),
        swelling=swelling,
    )

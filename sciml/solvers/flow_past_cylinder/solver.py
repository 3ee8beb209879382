"""Flow past a cylinder in a channel, a batch of geometries at once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.mesh import TriangleMesh
from sciml.solvers.flow_past_cylinder.case_flow import CaseFlow
from sciml.solvers.flow_past_cylinder.cases import CylinderCases
from sciml.solvers.flow_past_cylinder.discretisation import Discretisation, disc_edge, disc_mesh
from sciml.solvers.flow_past_cylinder.sampling import GridSampler, interpolation
from sciml.solvers.flow_past_cylinder.state import CylinderState


class FlowPastCylinder:
    """Incompressible Navier-Stokes flow in channels [0, Lx] x [0, Ly], each with a disc.

    u_t + (u . grad) u = nu lap u - grad p, div u = 0, with p the pressure over the density. u = 6 U y (Ly - y) / Ly^2
    at x = 0, u = 0 at y = 0, y = Ly and on the disc, nu du/dn = p n at x = Lx.

    ``lengths``, ``centre`` ``(B, 2)`` m; ``radius (B,)`` m; ``speed (B,)``: U, the mean of the inflow, m/s;
    ``viscosity (B,)``: kinematic, m^2/s. ``h``: edges of the triangles in the wake (twice that far from it) and
    ``h_disc``: on the disc, both in diameters (the default is ``disc_edge`` of each Reynolds number); ``cfl``: edges of
    a triangle that the Stokes flow crosses in a step, at most. Each case has its own mesh and steps: it comes out as it
    does alone and costs as much (factors of one case fill the cache; steps of all at once took 25 % longer).

    Raises ``ConfigError`` as ``CylinderCases``, and for sizes that are out of range.
    """

    def __init__(
        self,
        lengths: Tensor,
        centre: Tensor,
        radius: Tensor,
        speed: Tensor,
        viscosity: Tensor,
        *,
        h: float = 0.35,
        h_disc: float | None = None,
        cfl: float = 0.3,
    ) -> None:
        if not 0 < cfl < float("inf"):
            raise ConfigError(f"cfl is {cfl}; expected a positive number")
        self.cases = CylinderCases(lengths, centre, radius, speed, viscosity)
        self._flows = []
        for case, reynolds in enumerate(self.cases.reynolds.tolist()):
            mesh = disc_mesh(self.cases, case, h, disc_edge(reynolds) if h_disc is None else h_disc)
            space = Discretisation(mesh, self.cases.scaled_lengths(case)[1])
            self._flows.append(CaseFlow(case, space, 1 / reynolds, cfl))
        self._samplers: dict[tuple[int, ...], list[GridSampler]] = {}

    @property
    def meshes(self) -> list[TriangleMesh]:
        """One mesh a case, in diameters; its boundaries are ``inflow``, ``outflow``, ``wall`` and ``disc``."""
        return [flow.space.mesh for flow in self._flows]

    def initial_state(self, *, spin_up: float = 30.0, kick: float = 1.0) -> CylinderState:
        """The flow ``spin_up`` times D / U after the start from the Stokes flow.

        ``kick``: speed, over U, of a vortex behind the disc that the start adds; without one a wake that sheds stays
        symmetric until round-off has grown. At Re 100 the lift has its range to 1 % after 30 D / U.
        """
        starts = (flow.start(self.cases.scaled_centre(case), kick) for case, flow in enumerate(self._flows))
        state = CylinderState(tuple(starts))
        return self.advance(state, spin_up * self.cases.time_unit) if spin_up else state

    def advance(self, state: CylinderState, seconds: Tensor) -> CylinderState:
        """The state ``seconds (B,)`` later, by a whole number of equal steps of each case.

        Raises ``ConfigError`` for times that are not positive, ``SolverError`` naming the case where the flow is no
        longer finite.
        """
        spans = (self._per_case("seconds", seconds) / self.cases.time_unit).tolist()
        pairs = zip(self._flows, state.cases, spans, strict=True)
        return CylinderState(tuple(flow.advance(before, span) for flow, before, span in pairs))

    def sample(self, state: CylinderState, shape: tuple[int, int]) -> dict[str, Tensor]:
        """Fields on ``shape`` cells of each channel, float64, SI units.

        ``velocity (B, 2, nx, ny)`` and ``pressure (B, 1, nx, ny)`` (over the density) at the centres of cells, 0 where
        those are in the disc; ``face_velocity_x (B, nx + 1, ny)``, ``face_velocity_y (B, nx, ny + 1)``: means over the
        faces, differences of ``stream_function (B, nx + 1, ny + 1)`` at the corners, so free of divergence.
        """
        shape = tuple(shape)
        if len(shape) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
            raise ConfigError(f"shape is {shape}; expected two whole numbers of cells, 1 or more")
        if shape not in self._samplers:
            scale = self.cases.diameter.unsqueeze(1)
            lengths, centres = self.cases.lengths / scale, self.cases.centre / scale
            self._samplers[shape] = [
                GridSampler(mesh, *place, shape) for mesh, *place in zip(self.meshes, lengths, centres, strict=True)
            ]
        velocity, pressure, stream_function = [], [], []
        for sampler, case in zip(self._samplers[shape], state.cases, strict=True):
            nodal = case.velocity[0].numpy()
            velocity.append(sampler.velocity(nodal))
            pressure.append(sampler.pressure(case.pressure.numpy()))
            stream_function.append(sampler.stream_function(nodal))
        speed = self.cases.speed[:, None, None]
        psi = torch.as_tensor(np.stack(stream_function)) * speed * self.cases.diameter[:, None, None]
        d_x, d_y = ((self.cases.lengths[:, k] / shape[k])[:, None, None] for k in (0, 1))
        return {
            "velocity": torch.as_tensor(np.stack(velocity)) * speed.unsqueeze(1),
            "pressure": torch.as_tensor(np.stack(pressure)) * speed.unsqueeze(1) ** 2,
            "face_velocity_x": psi.diff(dim=2) / d_y,
            "face_velocity_y": -psi.diff(dim=1) / d_x,
            "stream_function": psi,
        }

    def forces(self, state: CylinderState) -> Tensor:
        """Drag and lift per length and density ``(B, 2)``, m^3/s^2 (see ``DiscForces``)."""
        force = np.stack([flow.forces(case) for flow, case in zip(self._flows, state.cases, strict=True)])
        return torch.as_tensor(force) * (self.cases.speed**2 * self.cases.diameter).unsqueeze(1)

    def pressure_at(self, state: CylinderState, points: Tensor) -> Tensor:
        """Pressure over density ``(B, P)``, m^2/s^2, at ``points (B, P, 2)`` or ``(P, 2)``, m, of the fluid or on the
        disc."""
        points = torch.as_tensor(points).to(torch.float64)
        batch = len(self.cases.radius)
        if points.ndim == 2:
            points = points.expand(batch, -1, -1)
        if points.ndim != 3 or points.shape[0] != batch or points.shape[2] != 2:
            raise DataError(f"points have shape {tuple(points.shape)}; expected ({batch}, P, 2) or (P, 2)")
        rows = []
        for case, mesh in enumerate(self.meshes):
            scale = self.cases.diameter[case]
            centre = self.cases.centre[case] / scale
            scaled = points[case] / scale
            inside = ((scaled - centre).norm(dim=1) < 0.5 - 1e-6).nonzero().flatten()
            if len(inside):
                raise DataError(f"point {int(inside[0])} of case {case} lies in the disc; expected points of the fluid")
            rows.append(interpolation(mesh, 1, scaled, centre) @ state.cases[case].pressure.numpy())
        return torch.as_tensor(np.stack(rows)) * (self.cases.speed**2).unsqueeze(1)

    def nodal(self, state: CylinderState, case: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vertices ``(N, 2)`` m, triangles ``(T, 3)``, velocity ``(2, N)`` m/s and pressure over density ``(N,)`` at
        the vertices of a case."""
        mesh, held = self.meshes[case], state.cases[case]
        velocity = held.velocity[0, : len(mesh.vertices)].T * self.cases.speed[case]
        pressure = held.pressure * self.cases.speed[case] ** 2
        return mesh.vertices * self.cases.diameter[case], mesh.triangles, velocity, pressure

    def _per_case(self, name: str, values: Tensor) -> Tensor:
        values = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()
        batch = len(self.cases.radius)
        values = values.expand(batch) if values.ndim == 0 else values
        if values.shape != (batch,) or not bool((torch.isfinite(values) & (values > 0)).all()):
            raise ConfigError(f"{name} is {values.tolist()}; expected {batch} positive number(s), one per case")
        return values

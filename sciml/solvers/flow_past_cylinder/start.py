"""How a flow past a cylinder starts: the Stokes flow, a disturbance of it, and the step that its speed allows."""

from __future__ import annotations

import numpy as np
import torch

from sciml.solvers.flow_past_cylinder.discretisation import Discretisation
from sciml.solvers.stokes import StokesSolver

KICK_BEHIND, KICK_WIDTH = 1.5, 0.5
"""Place of the disturbance behind the centre of the disc, and its width, in diameters."""


def stokes_flow(space: Discretisation, viscosity: float) -> tuple[np.ndarray, np.ndarray]:
    """Velocity ``(N2, 2)`` and pressure ``(N1,)`` of the Stokes flow."""
    solver = StokesSolver(space.mesh, viscosity)
    inflow = torch.as_tensor(space.given_velocity[space.boundary(["inflow"], 2), 0])
    velocity, pressure = solver.solve(inflow.unsqueeze(0))
    return np.ascontiguousarray(velocity[0].T.numpy()), pressure[0, 0].numpy()


def kicked(space: Discretisation, velocity: np.ndarray, centre: tuple[float, float], kick: float) -> np.ndarray:
    """``velocity`` plus a vortex behind the disc: the curl of kick w exp(-r^2 / (2 w^2)), 0 at fixed nodes.

    It is symmetric about its centre, so it moves water across the axis of the wake, one way before it and the other
    way behind.
    """
    free = space.others(["inflow", "wall", "disc"], 2)
    offset = space.mesh.nodes(2).numpy()[free] - np.array(centre) - np.array([KICK_BEHIND, 0.0])
    bump = kick / KICK_WIDTH * np.exp(-(offset**2).sum(1, keepdims=True) / (2 * KICK_WIDTH**2))
    velocity = velocity.copy()
    velocity[free] += bump * np.stack([-offset[:, 1], offset[:, 0]], 1)
    return velocity


def step_limit(space: Discretisation, velocity: np.ndarray) -> float:
    """The time in which the fastest flow through a triangle crosses it."""
    return 1 / float(space.convection.rates(space.convection.carriers(velocity)).max())

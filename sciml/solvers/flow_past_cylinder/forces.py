"""Drag and lift on the disc as functionals of the discrete equations.

Tested with the quadratic functions of the nodes on the disc, the momentum equation leaves the force over:
F = -int (u_t + (u . grad) u) . v + nu grad u : grad v - p div v for v = e_k on the disc. It converges twice as fast as
the stress integrated along the disc (Babuska and Miller, Int. J. Numer. Meth. Engng. 20 (1984) 1085).
"""

from __future__ import annotations

import numpy as np

from sciml.solvers.flow_past_cylinder.discretisation import Discretisation


class DiscForces:
    """For the disc of ``space``; ``viscosity`` is 1 / Re."""

    def __init__(self, space: Discretisation, viscosity: float) -> None:
        self._convection, self._nodes = space.convection, space.boundary(["disc"], 2)
        self._mass, self._stiffness = space.mass[self._nodes], viscosity * space.stiffness[self._nodes]
        self._thrust = [part.T.tocsr()[self._nodes] for part in space.gradients]

    def __call__(self, velocity: np.ndarray, rate: np.ndarray, pressure: np.ndarray) -> np.ndarray:
        """``(2,)`` in U^2 D of ``velocity`` and its time derivative ``rate (N2, 2)``, ``pressure (N1,)``."""
        left_over = self._mass @ rate + self._stiffness @ velocity + self._convection(velocity)[self._nodes]
        left_over -= np.stack([part @ pressure for part in self._thrust], 1)
        return -left_over.sum(0)

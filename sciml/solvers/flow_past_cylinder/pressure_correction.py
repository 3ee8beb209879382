"""One step: second-order backward differences, half-implicit convection, rotational incremental pressure correction.

    (3 u - 4 u' + u'') / (2 dt) + (w0 . grad) u - nu lap u + grad(p' + 4/3 phi' - 1/3 phi'') = -((w - w0) . grad) w
    lap phi = 3 / (2 dt) div u,   phi = 0 at the outflow
    p = p' + phi - nu div u

(Guermond, Minev and Shen, Comput. Methods Appl. Mech. Engrg. 195 (2006) 6011, sections 3.3 and 3.5, in the form in
which the projected velocity is eliminated.) Primes count steps back; w = 2 u' - u'' extrapolates; w0 is a background
flow that stays for many steps, and its matrix with it. The small triangles at the disc, which bound the step of
explicit convection, see a flow that changes little: with w0 near the present flow the step may be several times longer
at the same cost. The weak form keeps the condition at the outflow, that of ``Backflow``. A steady state has phi = 0 and
div u = 0 tested with every linear function: it is the Taylor-Hood solution itself, whatever the step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sciml.physics.weak.sparse import symmetric_factor
from sciml.solvers.flow_past_cylinder.backflow import Backflow
from sciml.solvers.flow_past_cylinder.discretisation import Discretisation
from sciml.solvers.flow_past_cylinder.momentum_matrix import MomentumMatrix

if TYPE_CHECKING:
    pass


class PressureCorrection:
    """Steps of one size: ``viscosity`` (1 / Re) and ``step``, ``background (N2, 2)`` w0, in units of D and U."""

    def __init__(
        self, space: Discretisation, fixed: FixedOperators, viscosity: float, step: float, background: np.ndarray
    ) -> None:
        self._space, self._fixed, self._viscosity, self.step = space, fixed, viscosity, step
        self._given_at_rest = 1.5 / step * (space.mass @ space.given_velocity)
        self._given_at_rest += viscosity * (space.stiffness @ space.given_velocity)
        self._take(background, space.convection.carriers(background))

    def __call__(
        self, velocity: tuple[np.ndarray, np.ndarray], pressure: np.ndarray, increments: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Velocity ``(N2, 2)``, pressure and increment ``(N1,)`` from the last two velocities and increments."""
        space, fixed = self._space, self._fixed
        last, before = velocity
        ahead = 2 * last - before
        right = space.mass @ ((4 * last - before) / (2 * self.step))
        right += fixed.thrust(pressure + (4 / 3) * increments[0] - (1 / 3) * increments[1])
        right -= space.convection(ahead, self._carriers) + self._given
        fixed.backflow.add(right, ahead)
        new = space.given_velocity.copy()
        rows = fixed.momentum.order
        new[rows] = self._factors.solve(right[rows])
        divergence = fixed.divergence(new)
        increment = fixed.solve(-1.5 / self.step * divergence)
        return new, pressure + increment - self._viscosity * (divergence / space.pressure_mass), increment

    def follow(self, velocity: np.ndarray, share: float) -> bool:
        """Take ``velocity`` as the background if what it has more than the present one crosses more than ``share`` of a
        triangle in a step. True if it does."""
        convection = self._space.convection
        carriers = convection.carriers(velocity)
        late = convection.rates(carriers - self._carriers).max() * self.step > share
        if late:
            self._take(velocity, carriers)
        return bool(late)

    def _take(self, background: np.ndarray, carriers: np.ndarray) -> None:
        convection = self._space.convection
        self.background, self._carriers = background, carriers
        local = convection.local_matrices(carriers)
        self._factors = self._fixed.momentum.factors(1.5 / self.step, self._viscosity, local)
        # what the given velocity contributes to the left side
        self._given = self._given_at_rest + convection.transport(carriers, self._space.given_velocity)


class FixedOperators:
    """What does not depend on the step and the flow: the projection, and the pattern of the momentum matrix."""

    def __init__(self, space: Discretisation) -> None:
        from scipy.sparse import hstack, vstack  # here: only meshes of triangles need them

        free = space.others(["inflow", "wall", "disc"], 2)
        self.momentum = MomentumMatrix(space.mass, space.stiffness, space.mesh.triangle_nodes(2).numpy(), free)
        self.backflow = Backflow(space)
        self._thrust = vstack([part.T for part in space.gradients], format="csr")
        self._divergence = hstack(space.gradients, format="csr")
        self._inside = space.others(["outflow"], 1)
        self._factors = symmetric_factor(space.laplacian[self._inside][:, self._inside])

    def thrust(self, pressure: np.ndarray) -> np.ndarray:
        """int p div v ``(N2, 2)`` for the quadratic v."""
        return (self._thrust @ pressure).reshape(2, -1).T

    def divergence(self, velocity: np.ndarray) -> np.ndarray:
        """int q div u ``(N1,)`` for the linear q."""
        return self._divergence @ velocity.T.reshape(-1)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """phi with int grad phi . grad q = ``right`` for all q but those of the outflow, where phi = 0."""
        solution = np.zeros(len(right))
        solution[self._inside] = self._factors.solve(right[self._inside])
        return solution

"""The flow of one case in time, in units of the diameter and the mean speed."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch

from sciml.errors import SolverError
from sciml.solvers.flow_past_cylinder.discretisation import Discretisation
from sciml.solvers.flow_past_cylinder.forces import DiscForces
from sciml.solvers.flow_past_cylinder.pressure_correction import FixedOperators, PressureCorrection
from sciml.solvers.flow_past_cylinder.start import kicked, step_limit, stokes_flow
from sciml.solvers.flow_past_cylinder.state import CaseState

CHECK_EVERY = 5
"""Steps between two looks at how far the flow has moved away from the background that carries implicitly."""

EXPLICIT_SHARE = 0.2
"""Share of a triangle that the rest may cross in a step. Explicit convection of all of a flow at Re 100 is stable up to
0.1 to 0.14; the rest is large in a few triangles only, and 0.3 was stable in every trial."""

BEYOND = 100.0
"""Speed, over the mean of the inflow, that no flow of these Reynolds numbers reaches."""


class CaseFlow:
    """``number``: of the case in its batch, for messages; ``viscosity``: 1 / Re; ``cfl``: as ``FlowPastCylinder``."""

    def __init__(self, number: int, space: Discretisation, viscosity: float, cfl: float) -> None:
        self.number, self.space, self.viscosity, self.cfl = number, space, viscosity, cfl
        self._fixed = FixedOperators(space)
        self._kept: tuple[torch.Tensor, PressureCorrection] | None = None

    def start(self, centre: tuple[float, float], kick: float) -> CaseState:
        """The Stokes flow with a vortex behind the disc at ``centre``."""
        stokes, pressure = self._stokes
        velocity = torch.as_tensor(kicked(self.space, stokes, centre, kick))
        increments = torch.zeros(2, len(pressure), dtype=torch.float64)
        return CaseState(velocity.expand(3, -1, -1), torch.as_tensor(pressure), increments, velocity, 0.0, 0.0)

    def advance(self, state: CaseState, span: float) -> CaseState:
        """The state ``span`` D / U later. Raises ``SolverError`` where the flow grows beyond all bounds."""
        count = math.ceil(span / self._limit - 1e-9)
        step = span / count
        stepper = self._stepper(step, state.background)
        now, before, older = _respaced(state, step)
        pressure, (phi, phi_before), background = state.pressure.numpy(), state.increments.numpy(), state.background
        with np.errstate(over="ignore", invalid="ignore"):
            for number in range(count):
                if number % CHECK_EVERY == 0:
                    self._check(now)
                    if stepper.follow(now, EXPLICIT_SHARE):
                        background = torch.as_tensor(now)
                new, pressure, increment = stepper((now, before), pressure, (phi, phi_before))
                now, before, older = new, now, before
                phi, phi_before = increment, phi
        self._check(now)
        self._kept = (background, stepper)
        velocity, increments = (torch.as_tensor(np.stack(parts)) for parts in ((now, before, older), (phi, phi_before)))
        return CaseState(velocity, torch.as_tensor(pressure), increments, background, step, state.time + span)

    def forces(self, state: CaseState) -> np.ndarray:
        """Drag and lift ``(2,)`` in U^2 D; the flow counts as steady before the first step."""
        now, before, older = state.velocity.numpy()
        twice = 2 * state.step if state.step else math.inf
        return self._disc_forces(now, (3 * now - 4 * before + older) / twice, state.pressure.numpy())

    @cached_property
    def _stokes(self) -> tuple[np.ndarray, np.ndarray]:
        return stokes_flow(self.space, self.viscosity)

    @cached_property
    def _limit(self) -> float:
        return self.cfl * step_limit(self.space, self._stokes[0])

    @cached_property
    def _disc_forces(self) -> DiscForces:
        return DiscForces(self.space, self.viscosity)

    def _stepper(self, step: float, background: torch.Tensor) -> PressureCorrection:
        """That of the last ``advance`` if this one goes on from there: frames of equal length share its factors."""
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] is background and math.isclose(kept[1].step, step, rel_tol=1e-12):
            return kept[1]
        return PressureCorrection(self.space, self._fixed, self.viscosity, step, background.numpy())

    def _check(self, velocity: np.ndarray) -> None:
        if not np.abs(velocity).max() < BEYOND:  # so that NaN is caught
            raise SolverError(
                f"the velocity of case {self.number} is beyond {BEYOND:g} times the mean of its inflow or not finite; "
                f"lower cfl (it is {self.cfl}) or give smaller triangles (h, h_disc)"
            )


def _respaced(state: CaseState, step: float) -> np.ndarray:
    """The last three velocities ``step`` apart, by the parabola through those that the state holds. (The increments of
    the pressure stay as they are: to scale them with the step changes the flow by some 1e-6.)"""
    levels = state.velocity.numpy()
    ratio = step / state.step if state.step else 1.0
    if math.isclose(ratio, 1.0, rel_tol=1e-10):
        return levels
    first, second = levels[0] - levels[1], levels[0] - 2 * levels[1] + levels[2]
    return np.stack([levels[0], *(levels[0] - s * first + s * (s - 1) / 2 * second for s in (ratio, 2 * ratio))])

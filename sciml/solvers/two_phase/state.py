"""What the two-phase solver knows of a batch of flows at one time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.solvers.two_phase.domain import Faces


@dataclass(frozen=True, eq=False)
class TwoPhaseState:
    """``fraction (B, nx, ny)`` of water, 0 in solids; ``velocity`` on the faces; ``pressure (B, nx, ny)`` pascals, and
    that of the step before, of ``step (B,)`` seconds; ``entered (B,)``: area of water (m^2) that came in through the
    sides since the initial state, less what left; ``first``: the axis that the next ``advance`` sweeps first."""

    fraction: Tensor
    velocity: Faces
    pressure: Tensor
    previous_pressure: Tensor
    step: Tensor
    entered: Tensor
    first: int = 0

    def select(self, cases: Tensor) -> TwoPhaseState:
        """The state of some cases only."""
        return TwoPhaseState(
            self.fraction[cases],
            (self.velocity[0][cases], self.velocity[1][cases]),
            self.pressure[cases],
            self.previous_pressure[cases],
            self.step[cases],
            self.entered[cases],
            self.first,
        )


def joined(parts: list[tuple[Tensor, TwoPhaseState]], *, first: int) -> TwoPhaseState:
    """One state from the states of disjoint cases, with the case numbers of each."""
    order = torch.cat([cases for cases, _ in parts]).argsort()

    def together(name: str) -> Tensor:
        return torch.cat([getattr(state, name) for _, state in parts])[order]

    u, v = (torch.cat([state.velocity[j] for _, state in parts])[order] for j in range(2))
    return TwoPhaseState(
        together("fraction"),
        (u, v),
        together("pressure"),
        together("previous_pressure"),
        together("step"),
        together("entered"),
        first,
    )

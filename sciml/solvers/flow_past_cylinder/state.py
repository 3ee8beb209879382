"""What the next step of a flow past cylinders needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CaseState:
    """Nodal values of one case, float64, in units of the diameter D and the mean speed U.

    ``velocity (3, N2, 2)``: at the quadratic nodes now, one and two steps ago; ``pressure (N1,)``: kinematic, at the
    vertices; ``increments (2, N1)``: what the last two projections added to it (before the rotational part);
    ``background (N2, 2)``: the flow that carries implicitly; ``step``: the last step (0 before the first) and ``time``:
    since the start, both in D / U.
    """

    velocity: Tensor
    pressure: Tensor
    increments: Tensor
    background: Tensor
    step: float
    time: float


@dataclass(frozen=True, eq=False)
class CylinderState:
    """The states of the cases of a batch."""

    cases: tuple[CaseState, ...]

    @property
    def step(self) -> Tensor:
        """``(B,)`` in D / U."""
        return torch.tensor([case.step for case in self.cases], dtype=torch.float64)

    @property
    def time(self) -> Tensor:
        """``(B,)`` in D / U."""
        return torch.tensor([case.time for case in self.cases], dtype=torch.float64)

"""What the layer says of its last solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ExpertReport:
    """Of every case ``(B,)``, float64, without gradients; root mean squares of rows of order 1.

    Attributes:
        least_squares: the solver's report. Its items are the cases; with independent tiles case b and expert k are item
            b K + k.
        sampled: residual of the experts on the rows that they were solved on.
        held_out: residual of the experts on the rows that were not sampled; NaN where all rows were.
        stitched: residual of the whole field, across tiles: what ``Equation.rows`` says of the result.
        jump: largest difference of two neighbours' values at the faces between them, in units of the field's scale; 0
            without neighbours.
        failed: whether the solver did not converge, ``(B, K)`` with independent tiles, else ``(B, 1)``. Such a case has
            the best weights that were found, which are finite, and what gradient they have left (``least_squares``).
    """

    least_squares: Any
    sampled: Tensor
    held_out: Tensor
    stitched: Tensor
    jump: Tensor
    failed: Tensor

    def summary(self) -> str:
        """One line for a log: the worst case of everything."""
        parts = [f"residual on the solved rows {self.sampled.max():.2e}"]
        if not bool(self.held_out.isnan().all()):
            parts.append(f"held out {self.held_out.max():.2e}")
        parts += [f"stitched {self.stitched.max():.2e}", f"largest jump {self.jump.max():.2e}"]
        parts.append(f"{int(self.failed.sum())} of {self.failed.numel()} solves failed")
        return ", ".join(parts)

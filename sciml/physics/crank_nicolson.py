"""What an equation leaves over of a step: the defect of the Crank-Nicolson rule, preconditioned, pseudo-spectral.

For du/dt = L u + N(u) with L diagonal in Fourier space, two states u_0, u_1 and the step h

    defect = u_1 - (1 - h/2 L)^-1 [ (1 + h/2 L) u_0 + h/2 (N(u_0) + N(u_1)) ].

This is h (1 - h/2 L)^-1 times the trapezoidal residual, in the units of u: 0 exactly where u_1 is the step of Crank and
Nicolson (Proc. Camb. Phil. Soc. 43 (1947) 50) from u_0, and e + O(h) where u_1 is that step plus an error e, however
fast L damps (the residual itself would weigh the wave k with 1 + h/2 |L(k)|). Of a solution of the equation the defect
is O(h^3). Batched and differentiable in the states.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.physics.spectral import PeriodicBox


def spectral_defects(
    frames: Tensor, dt: Tensor, *, box: PeriodicBox, linear: Tensor, nonlinear: Callable[[Tensor], Tensor]
) -> Tensor:
    """Defects ``(B, K, C, *grid)`` of the steps between consecutive frames ``(B, K + 1, C, *grid)``.

    ``dt (B,)``: seconds from frame to frame; ``linear``: the symbol of L in 1/s, broadcastable to ``(B, C, *k)``;
    ``nonlinear``: spectra ``(B, K + 1, C, *k)`` to those of N. Every frame is transformed once. Raises ``DataError``
    for frames of another grid.
    """
    half = 0.5 * dt.to(linear).reshape(-1, *(1,) * (box.dim + 1))
    implicit = 1 / (1 - half * linear)
    explicit, weight = ((1 + half * linear) * implicit).unsqueeze(1), (half * implicit).unsqueeze(1)
    spectra = box.forward(frames)
    forces = nonlinear(spectra)
    reached = explicit * spectra[:, :-1] + weight * (forces[:, :-1] + forces[:, 1:])
    # the frame itself is not sent through the transforms: in single precision their round-off would show
    return frames[:, 1:] - box.inverse(reached)


def of_each_frame(nonlinear: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A map of spectra ``(B, C, *k)`` as one of ``(B, T, C, *k)``, frame by frame."""
    return lambda spectra: torch.stack([nonlinear(spectrum) for spectrum in spectra.unbind(1)], 1)

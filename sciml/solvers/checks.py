"""Checks of what solvers are given and of what they computed; messages name the case."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.physics.boundary import AXIS_NAMES
from sciml.physics.grid import check_positive


def per_case(name: str, values: Tensor, batch: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``values`` as a positive finite ``(batch,)`` tensor; a number serves every case. Else
    ``ConfigError``."""
    values = values if isinstance(values, Tensor) else torch.as_tensor(values, dtype=torch.float64)
    if values.ndim == 0:
        values = values.expand(batch)
    if values.shape != (batch,):
        raise ConfigError(f"{name} must be ({batch},), one per case; got {tuple(values.shape)}.")
    check_positive(name, values.detach())
    return values.to(dtype=dtype, device=device)


def check_finite(velocity: tuple[Tensor, ...], what: str) -> None:
    """``SolverError`` naming the first case with a velocity that is not finite. One reduction per
    component."""
    for i, u in enumerate(velocity):
        bad = ~torch.isfinite(u.detach().flatten(1).abs().amax(1))  # amax passes NaN on
        if bool(bad.any()):
            raise SolverError(
                f"The {what} {AXIS_NAMES[i]} velocity of case {int(bad.nonzero()[0])} is not finite; check "
                "the input, lower cfl, or refine the grid."
            )

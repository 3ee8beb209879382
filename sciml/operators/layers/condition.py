"""The vector that an operator is conditioned on: physical parameters and lead time."""

import math

import torch
from torch import Tensor, nn


class Condition(nn.Module):
    """``parameters (B, P)`` and ``time (B,)`` to one vector ``(B, features)``; it has no weights.

    The time enters as ``t`` and ``sin, cos(2^k pi t)``, k = 0 .. ``octaves`` - 1, so it should be of order
    one (a fraction of the longest lead time). ``features`` is 0 for an operator without parameters and time.
    """

    def __init__(self, n_parameters: int, time_conditioning: bool, octaves: int = 4) -> None:
        super().__init__()
        self.n_parameters = n_parameters
        self.octaves = octaves if time_conditioning else 0
        self.features = n_parameters + (1 + 2 * octaves if time_conditioning else 0)

    def forward(self, x: Tensor, parameters: Tensor | None, time: Tensor | None) -> Tensor | None:
        """``x`` lends its dtype; None where there is nothing to condition on."""
        parts = []
        if self.n_parameters and parameters is not None:
            parts.append(parameters.to(x.dtype))
        if self.octaves and time is not None:
            t = time.to(x.dtype).unsqueeze(1)
            phase = t * (math.pi * 2.0 ** torch.arange(self.octaves, device=x.device, dtype=x.dtype))
            parts += [t, phase.sin(), phase.cos()]
        return torch.cat(parts, dim=1) if parts else None

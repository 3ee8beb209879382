"""An initial field that the user gives instead of a drawn one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.errors import ConfigError


def as_initial(
    initial: Tensor, shape: Sequence[int], *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """``initial`` as a tensor of ``shape = (B, components, *grid)``.

    Raises ``ConfigError`` for another shape or for values that are not finite.
    """
    values = torch.as_tensor(initial).to(device=device, dtype=dtype)
    if tuple(values.shape) != tuple(shape):
        raise ConfigError(
            f"initial has shape {tuple(values.shape)}; expected {tuple(shape)} = (cases, components, *grid)"
        )
    finite = torch.isfinite(values.detach()).flatten(1).all(1)
    if not bool(finite.all()):
        raise ConfigError(f"initial of case {int((~finite).nonzero()[0])} is not finite; remove NaN and infinities")
    return values

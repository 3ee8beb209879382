"""What backward passes of our own share: they are written for speed, and differentiate themselves by torch's."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gradients_by_torch(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of ``function(*inputs)`` that can be differentiated themselves (``create_graph``); None: not needed."""
    wanted = [t for t, is_needed in zip(inputs, needed, strict=True) if is_needed]
    found = iter(torch.autograd.grad(function(*inputs), wanted, gradient, create_graph=True))
    return tuple(next(found) if is_needed else None for is_needed in needed)

"""How the networks of subtasks are called, and what is said where one does not fit the coarse grid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sciml.errors import DataError
from sciml.operators.inner_operator import call


def call_on_phases(
    network: Callable[..., Tensor],
    phases: Tensor,
    offsets: Tensor | None,
    conditions: Mapping[str, Tensor],
    gives: int,
) -> Tensor:
    """One network on several phases, which join the batch.

    Args:
        phases: ``(B, S, C, *coarse)``.
        offsets: where each phase lies, ``(S, dim)``, appended as constant channels; None: not told.
        conditions: ``time (B,)`` and ``parameters (B, P)``.
        gives: channels of the network's output.

    Returns ``(B, S, gives, *coarse)``.
    """
    batch, count, _, *coarse = phases.shape
    if offsets is not None:
        told = offsets.view(1, count, -1, *[1] * len(coarse)).expand(batch, -1, -1, *coarse)
        phases = torch.cat([phases, told], 2)
    repeated = {name: value.repeat_interleave(count, 0) for name, value in conditions.items()}
    return call("neuralstagger", network, phases.flatten(0, 1), repeated, gives).unflatten(0, (batch, count))


@contextmanager
def explained(coarse: Sequence[int], factors: Sequence[int]) -> Iterator[None]:
    """What the sub-operator says of a grid is said of the coarse one, which the user has not given."""
    try:
        yield
    except DataError as error:
        raise DataError(
            f"neuralstagger: the sub-operator does not take the coarse grid {tuple(coarse)} that the factors "
            f"{tuple(factors)} leave; choose smaller factors, or other options for it. It says: {error}"
        ) from error

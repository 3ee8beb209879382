"""What a Markov chain sampler gives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError


@dataclass(frozen=True)
class Chains:
    """Draws of several chains after their warm-up.

    ``draws (chains, draws, L)``; ``log_likelihood (chains, draws)``; ``acceptance (chains,)``, the mean acceptance
    probability of the proposals; ``step``: the step size the warm-up ended with; ``divergences (chains,)``: proposals
    whose log likelihood is not finite (of HMC: whose energy error is not finite or above 1000); they are rejected.
    """

    draws: Tensor
    log_likelihood: Tensor
    acceptance: Tensor
    step: float
    divergences: Tensor

    @property
    def flat(self) -> Tensor:
        """All draws ``(chains * draws, L)``."""
        return self.draws.flatten(0, 1)


def check_counts(**counts: int) -> None:
    """Refuse numbers of draws, steps, ... below 1 (``warmup``: below 0)."""
    for name, value in counts.items():
        least = 0 if name == "warmup" else 1
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} is {value!r}; expected a whole number, at least {least}.")


def check_starts(log_likelihood: Tensor) -> None:
    """Refuse chains ``(chains,)`` that start where the posterior vanishes."""
    bad = (~torch.isfinite(log_likelihood)).nonzero().flatten()
    if len(bad):
        raise SolverError(
            f"The log likelihood is not finite at the start of {len(bad)} of {len(log_likelihood)} chains, the first "
            f"is chain {int(bad[0])}; start from maximum_posteriori or from draws that it can be evaluated at."
        )

"""Preconditioned Crank-Nicolson: Markov chains without gradients, whose acceptance does not fall with the dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.inference.chains import Chains, check_counts, check_starts
from sciml.inference.density import LogDensity, check_vectors, evaluate, log_prior, standard_normal
from sciml.inference.gaussian import Gaussian
from sciml.progress import Progress


def sample_pcn(
    log_likelihood: LogDensity,
    starts: Tensor,
    *,
    draws: int,
    generator: torch.Generator,
    warmup: int = 1000,
    thin: int = 1,
    step: float = 0.3,
    acceptance: float = 0.27,
    reference: Gaussian | None = None,
    progress: Progress | None = None,
) -> Chains:
    """Chains of z' = sqrt(1 - step^2) z + step xi, xi ~ N(0, I), accepted with min(1, likelihood ratio): reversible for
    the posterior (Cotter, Roberts, Stuart and White, Stat. Sci. 28 (2013) 424, arXiv 1202.0709).

    ``starts (chains, L)``; ``draws`` kept of each chain, every ``thin``-th. In the ``warmup`` the step, one for all
    chains, is brought to the mean ``acceptance`` (Robbins-Monro on its logit); with ``warmup=0`` it stays as given.
    ``reference``: a Gaussian near the posterior (Laplace or variational) to move in instead of the prior,
    z' = m + sqrt(1 - step^2) (z - m) + step C xi, accepted with the ratio of posterior / reference (Rudolf and
    Sprungk, Found. Comput. Math. 18 (2018) 309): as exact, and a large step even where the data say much. Its tails
    must not be lighter than the posterior's.

    Raises ``ConfigError`` for wrong arguments, ``SolverError`` for starts whose log likelihood is not finite.
    """
    z = check_vectors("starts", starts).clone()
    check_counts(draws=draws, thin=thin, warmup=warmup)
    for name, value in (("step", step), ("acceptance", acceptance)):
        if not 0 < value < 1:
            raise ConfigError(f"{name} is {value}; expected a number between 0 and 1.")
    if reference is not None:
        reference.check_vectors(z)
    progress = progress or Progress()
    kept = z.new_empty(draws, *z.shape)
    kept_likelihood = z.new_empty(draws, len(z))
    accepted, divergences = z.new_zeros(len(z)), torch.zeros(len(z), dtype=torch.int64, device=z.device)
    logit = math.log(step / (1 - step))
    total = warmup + draws * thin

    def weight(z: Tensor, likelihood: Tensor) -> Tensor:
        """Log of posterior / reference, up to a constant."""
        return likelihood if reference is None else likelihood + log_prior(z) - reference.log_density(z)

    with torch.no_grad(), progress.phase("pCN", total):
        likelihood = evaluate(log_likelihood, z)
        check_starts(likelihood)
        here = weight(z, likelihood)
        for k in range(total):
            step = 1 / (1 + math.exp(-logit))
            keep = math.sqrt(1 - step**2)
            noise = standard_normal(tuple(z.shape), z, generator)
            if reference is None:
                proposal = keep * z + step * noise
            else:
                proposal = reference.mean + keep * (z - reference.mean) + step * (noise @ reference.scale_tril.T)
            proposed = evaluate(log_likelihood, proposal)
            there = weight(proposal, proposed)
            probability = (there - here).clamp(max=0).exp()
            uniform = torch.rand(len(z), generator=generator, dtype=z.dtype, device=generator.device).to(z.device)
            accept = uniform < probability
            z = torch.where(accept[:, None], proposal, z)
            here, likelihood = torch.where(accept, there, here), torch.where(accept, proposed, likelihood)
            if k < warmup:
                logit += (float(probability.mean()) - acceptance) * 10 / (k + 10) ** 0.6
                logit = min(max(logit, -14.0), 14.0)
            else:
                accepted += probability
                divergences += ~torch.isfinite(proposed)
                if (k - warmup + 1) % thin == 0:
                    kept[(k - warmup) // thin], kept_likelihood[(k - warmup) // thin] = z, likelihood
            progress.advance()
    return Chains(
        kept.transpose(0, 1).contiguous(), kept_likelihood.T.contiguous(), accepted / (draws * thin), step, divergences
    )

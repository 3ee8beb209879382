"""Bayesian inference of a vector z with the prior N(0, I), given a differentiable log likelihood of many z at once.

::

    noise = UnknownNoise.guess(0.05)  # or GaussianNoise(0.05)

    def log_likelihood(z):  # (n, L) -> (n,)
        return noise.log_likelihood(predict(z) - observed)

    generator = torch.Generator().manual_seed(0)
    optimum = maximum_posteriori(log_likelihood, torch.randn(8, L, generator=generator))
    near = fit_gaussian(log_likelihood, optimum.best, generator=generator).gaussian
    chains = sample_hmc(log_likelihood, near.sample(8, generator), draws=1000, mass=near, generator=generator)
    trouble = check(chains.draws, divergences=chains.divergences.sum()).trouble()
    if trouble:
        warnings.warn(trouble, ChainsDisagreeWarning)
    bands = torch.quantile(chains.flat, torch.tensor([0.05, 0.95]), dim=0)
    sigma = noise.noise_samples(predict(chains.flat) - observed, generator)

A prior other than N(0, I) comes in by a map: ``flow = fit_flow(samples, ...).flow``, and ``flow(z)[0]`` in the place
of z inside the log likelihood.

Knows nothing of PDEs. All randomness comes from the generator; float32 and float64, on the device of the vectors.
"""

from sciml.inference.chains import Chains
from sciml.inference.density import LogDensity, log_posterior, log_prior, value_and_gradient
from sciml.inference.diagnostics import (
    ChainsDisagreeWarning,
    Diagnostics,
    bulk_effective_sample_size,
    check,
    effective_sample_size,
    rank_normalised_rhat,
    tail_effective_sample_size,
)
from sciml.inference.flow import Flow, FlowFit, fit_flow
from sciml.inference.gaussian import Gaussian
from sciml.inference.hmc import sample_hmc
from sciml.inference.laplace import laplace
from sciml.inference.noise import GaussianNoise, UnknownNoise
from sciml.inference.optimise import Optimum, maximum_posteriori
from sciml.inference.pcn import sample_pcn
from sciml.inference.variational import GaussianFit, fit_gaussian

__all__ = [
    "Chains",
    "ChainsDisagreeWarning",
    "Diagnostics",
    "Flow",
    "FlowFit",
    "Gaussian",
    "GaussianFit",
    "GaussianNoise",
    "LogDensity",
    "Optimum",
    "UnknownNoise",
    "bulk_effective_sample_size",
    "check",
    "effective_sample_size",
    "fit_flow",
    "fit_gaussian",
    "laplace",
    "log_posterior",
    "log_prior",
    "maximum_posteriori",
    "rank_normalised_rhat",
    "sample_hmc",
    "sample_pcn",
    "tail_effective_sample_size",
    "value_and_gradient",
]

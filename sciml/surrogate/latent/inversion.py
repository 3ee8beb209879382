"""The input function that explains a few noisy observations: the posterior of the latent vector.

With z ~ N(0, I), beta = T(z) (T the surrogate's prior, or the identity) and observations y_m = u(x_m; beta) + e_m,

    log p(z | y) = log p(y | z) + log N(z; 0, I) + const

e has the deviation of the noise (given, or one unknown number that is integrated out) and, in quadrature, the
surrogate's own error on its validation cases. What is sampled is z; the input function and the solution follow.

``method="field"`` draws the input function itself, from the prior that the problem states (``InputSpace``), with the
encoder and the solution's decoder as forward model: the decoder of the input function, which blurs what it cannot
represent, is then left out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sciml.errors import ConfigError, did_you_mean
from sciml.inference import (
    ChainsDisagreeWarning,
    Diagnostics,
    Gaussian,
    GaussianNoise,
    Optimum,
    UnknownNoise,
    check,
    fit_gaussian,
    laplace,
    maximum_posteriori,
    sample_hmc,
    sample_pcn,
)
from sciml.operators.multionet.core import Basis
from sciml.progress import Progress
from sciml.surrogate.latent.observations import Observations, channel_names
from sciml.surrogate.latent.spaces import InputSpace, LatentSpace, Space
from sciml.surrogate.latent.surrogate import LatentSurrogate
from sciml.surrogate.ranges import OutOfRangeWarning

Method = Literal["hmc", "pcn", "vi", "map", "field"]
METHODS = ("hmc", "pcn", "vi", "map", "field")
CHAINS = ("hmc", "pcn", "field")
"""Methods that are judged by how their chains agree."""

CANDIDATES = 1000
"""Draws from the prior, of which the best fitting are where optimisation starts."""
UNEXPLAINED = 2.0
"""Mean squared residual, in units of the variance of the noise, from which observations count as not explained."""
LEAST_DRAWS = 8
"""Of a chain, which is judged by its two halves."""
NOISY = 0.3
"""The same of noise that is not known: share of the observations' root mean square."""
PART = 200
"""Latent vectors that are decoded at once."""
THIN, STEP = 8, 0.1
"""Of chains in the space of input functions: every THIN-th is a draw, after THIN times the warm-up; first step."""
JUDGED = 32
"""Numbers of z, the most important first, by which chains are judged."""


UNKNOWN = UnknownNoise.guess(0.1)
"""Noise whose level is not known: about a tenth of the observations' root mean square, worth one observation."""


@dataclass(frozen=True)
class Inversion:
    """The posterior of the latent vector, and what follows from it.

    ``draws (chains, draws, L)``: standard normal vectors z (one chain of one draw, the optimum, with ``map``; with
    ``field`` numbers of the input function's own prior); ``optimum``: where each start ended (None with ``field``);
    ``diagnostics``: of Markov chains; ``noise``: the given deviation, or None;
    ``deviation``: root mean square residual of the posterior mean solution, relative to that of the observations;
    ``misfit``: its square in units of the variance of noise and surrogate, None where the noise is not known.
    """

    surrogate: LatentSurrogate
    observations: Observations
    method: str
    draws: Tensor
    optimum: Optimum | None
    noise: float | None
    deviation: float
    misfit: float | None
    diagnostics: Diagnostics | None = None

    @property
    def space(self) -> Space:
        """What the draws are."""
        return space_of(self.surrogate, self.method)

    @torch.no_grad()
    def inputs(self, points: Tensor | None = None) -> Tensor:
        """The input function of every draw ``(n, Q)`` in physical units, by default at the problem's points."""
        surrogate = self.surrogate
        where = None if points is None else torch.as_tensor(points).to(surrogate.input_points)
        return torch.cat([self.space.inputs(z, where) for z in self._flat().split(PART)])

    @torch.no_grad()
    def solutions(self, points: Tensor | None = None) -> Tensor:
        """The solution channels of every draw ``(n, C, N)``, by default at the problem's points."""
        surrogate = self.surrogate
        where = surrogate.points if points is None else surrogate.check_points(points)
        basis = surrogate.operator.basis(where)
        return torch.cat([_solution(surrogate, self.space, z, where, basis) for z in self._flat().split(PART)])

    def input_mean(self) -> Tensor:
        """Posterior mean of the input function ``(P,)``."""
        return self.inputs().mean(0)

    def input_bands(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """Pointwise credible band of the input function: lower and upper ends ``(P,)``.

        What the decoder cannot represent (``surrogate.input_deviation``) is part of it, independent from point to
        point; of two values, one of them is drawn with the decoder's probability.
        """
        return bands(self.with_decoder_noise(self.inputs()), level)

    def solution_bands(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        """The same of the solution channels ``(C, N)``."""
        return bands(self.solutions(), level)

    def noise_draws(self, seed: int = 0) -> Tensor:
        """Draws of the noise's standard deviation ``(n,)``: the given one, or of its posterior."""
        if self.noise is not None:
            return torch.full((len(self._flat()),), self.noise)
        residuals = _residuals(self.surrogate, self.space, self.observations, self._flat())
        generator = torch.Generator().manual_seed(seed)
        return UNKNOWN.noise_samples(residuals, generator)[:, 0]

    def _flat(self) -> Tensor:
        return self.draws.flatten(0, 1)

    def with_decoder_noise(self, inputs: Tensor) -> Tensor:
        """Drawn input functions ``(n, P)`` with what the decoder cannot represent, drawn as well."""
        surrogate = self.surrogate
        if self.method == "field":
            return inputs  # no decoder made them
        generator = torch.Generator().manual_seed(0)
        if surrogate.problem.link == "two_values":
            low, high = surrogate.problem.levels
            uniform = torch.rand(inputs.shape, generator=generator).to(inputs)
            return torch.where(uniform < (inputs - low) / (high - low), high, low)
        noise = torch.randn(inputs.shape, generator=generator).to(inputs)
        noise = noise * surrogate.input_deviation * surrogate.std
        return inputs * noise.exp() if surrogate.problem.link == "log" else inputs + noise


def bands(draws: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the central interval of probability ``level`` of draws ``(n, ...)``.

    Raises ``ConfigError`` for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ConfigError(f"the level of a band is {level}; expected a number between 0 and 1, e.g. 0.9")
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=draws.dtype, device=draws.device)
    low, high = torch.quantile(draws, ends, dim=0)
    return low, high


def invert(
    surrogate: LatentSurrogate,
    observations: Observations,
    noise: float | None = None,
    *,
    method: Method = "hmc",
    draws: int = 500,
    chains: int = 8,
    warmup: int = 500,
    starts: int = 32,
    consistent: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Inversion:
    """The posterior of the input function given noisy ``observations``.

    ``noise``: standard deviation in the unit of the observed field; None: unknown, one number for all observations
    (each channel relative to the root mean square of what was observed of it), integrated out. ``method``: Hamiltonian
    Monte Carlo (``hmc``), preconditioned Crank-Nicolson (``pcn``), a Gaussian in z by variational inference (``vi``),
    the optimum alone (``map``), or pCN in the input function's own prior (``field``). ``draws`` of each of ``chains``
    after ``warmup`` steps (``field``: of eight iterations each). The others begin with ``starts`` optimisations from
    the best fitting of many draws from the prior, each also passed through the encoder; ``field`` begins with the best
    fitting of the draws themselves.

    Warns (``ChainsDisagreeWarning``) when chains disagree, and (``OutOfRangeWarning``) when the observations are not
    explained or the input function found leaves the training range. Raises ``DataError`` for bad observations,
    ``ConfigError`` for bad arguments, ``SolverError`` where nothing can be evaluated.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}{did_you_mean(method, METHODS)}; there are {', '.join(METHODS)}")
    for name, value in (("draws", draws), ("chains", chains), ("starts", starts)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is {value!r}; expected a whole number above 0")
    if method in CHAINS and draws < LEAST_DRAWS:
        raise ConfigError(
            f"draws is {draws}; chains are judged by their draws, of which each needs {LEAST_DRAWS} or more"
        )
    if noise is not None and not (isinstance(noise, (int, float)) and math.isfinite(noise) and noise > 0):
        raise ConfigError(
            f"the noise is {noise!r}; expected its standard deviation, a positive number, or None where it is unknown"
        )
    progress = progress or Progress()
    observations.check(surrogate.problem)
    generator = torch.Generator().manual_seed(seed)
    model = GaussianNoise(_deviations(surrogate, observations, noise)) if noise is not None else UNKNOWN
    points = surrogate.check_points(observations.points)
    space = space_of(surrogate, method)
    with _frozen(surrogate):
        basis = surrogate.operator.basis(points)

        def log_likelihood(z: Tensor) -> Tensor:
            value = model.log_likelihood(_residuals(surrogate, space, observations, z, points, basis))
            judged = consistent and surrogate.consistency and method != "field"
            return value + _consistency(surrogate, z) if judged else value

        optimum = diagnostics = None
        if method != "field":
            optimum = maximum_posteriori(
                log_likelihood, _starts(surrogate, log_likelihood, starts, generator), progress=progress
            )
        if optimum is None:
            begin = _best_of_prior(log_likelihood, space.size, chains, generator, surrogate.points)
            chain = sample_pcn(
                log_likelihood,
                begin,
                draws=draws,
                warmup=THIN * warmup,
                thin=THIN,
                step=STEP,
                generator=generator,
                progress=progress,
            )
            judged = chain.draws[..., :JUDGED]
            names = [f"coefficient {k + 1} of the {surrogate.problem.input.name}" for k in range(judged.shape[-1])]
            found, diagnostics = chain.draws, check(judged, names)
        elif method == "map":
            found = optimum.best[None, None]
        else:
            near = fit_gaussian(log_likelihood, laplace(log_likelihood, optimum.best), generator=generator).gaussian
            if method == "vi":
                found = near.sample(chains * draws, generator).unflatten(0, (chains, draws))
            else:
                found, diagnostics = _sample(
                    method, log_likelihood, near, optimum, chains, draws, warmup, generator, progress
                )
    deviation, misfit = _fit(surrogate, space, observations, found.flatten(0, 1), noise, points, basis)
    result = Inversion(surrogate, observations, method, found, optimum, noise, deviation, misfit, diagnostics)
    if diagnostics is not None and (trouble := diagnostics.trouble()):
        warnings.warn(trouble, ChainsDisagreeWarning, stacklevel=2)
    for sentence in doubts(result):
        warnings.warn(sentence, OutOfRangeWarning, stacklevel=2)
    return result


@contextmanager
def _frozen(surrogate: LatentSurrogate) -> Iterator[None]:
    """In evaluation mode and with weights that want no gradients: only the latent vector's are needed."""
    training, wanted = surrogate.training, [p for p in surrogate.parameters() if p.requires_grad]
    surrogate.eval().requires_grad_(False)
    try:
        yield
    finally:
        surrogate.train(training)
        for parameter in wanted:
            parameter.requires_grad_()


def doubts(result: Inversion) -> list[str]:
    """Why the input function may be unlike those of the training: sentences, none where nothing speaks for it."""
    surrogate, sentences = result.surrogate, []
    name = surrogate.problem.input.name
    if result.misfit is None and result.deviation > NOISY:
        sentences.append(
            f"the noise found is large: {result.deviation:.0%} of the observations are not explained. The {name} may "
            "be unlike those of the training"
        )
    if result.misfit is not None and result.misfit > UNEXPLAINED:
        sentences.append(
            f"the observations are not explained: their mean squared residual is {result.misfit:.3g} times the "
            f"variance of the noise. The {name} may be unlike those of the training, or the noise greater than was said"
        )
    low, high = surrogate.ranges[name]
    mean = result.input_mean()
    slack = 0.05 * (high - low)
    if float(mean.min()) < low - slack or float(mean.max()) > high + slack:
        sentences.append(
            f"the {name} found is from {float(mean.min()):.4g} to {float(mean.max()):.4g}; the surrogate was trained "
            f"on {low:.4g} to {high:.4g} and its error is unknown outside"
        )
    square = result.draws.square().sum(-1).mean()
    size = result.draws.shape[-1]
    limit = size + 5 * math.sqrt(2 * size)  # of a chi-squared number of that many degrees of freedom
    if float(square) > limit:
        sentences.append(
            f"the latent vector found is far from those of the training: its square is {float(square):.0f}, expected "
            f"about {size} and less than {limit:.0f}; the {name} may be unlike those of the training"
        )
    return sentences


def _sample(
    method: str,
    log_likelihood,
    near: Gaussian,
    optimum: Optimum,
    chains: int,
    draws: int,
    warmup: int,
    generator: torch.Generator,
    progress: Progress,
) -> tuple[Tensor, Diagnostics]:
    # From different optima where there are several: chains that stay in theirs then disagree, and that is said.
    order = optimum.values.argsort(descending=True)
    begin = optimum.points[order[torch.arange(chains) % len(order)]]
    if method == "hmc":
        found = sample_hmc(
            log_likelihood, begin, draws=draws, warmup=warmup, mass=near, generator=generator, progress=progress
        )
    else:
        # Around the Gaussian: proposals from the prior alone hardly move where the data say much.
        found = sample_pcn(
            log_likelihood,
            begin,
            draws=draws,
            warmup=4 * warmup,
            thin=10,
            reference=near,
            generator=generator,
            progress=progress,
        )
    return found.draws, check(found.draws, divergences=int(found.divergences.sum()))


@torch.no_grad()
def _starts(surrogate: LatentSurrogate, log_likelihood, count: int, generator: torch.Generator) -> Tensor:
    """The best fitting of many draws from the prior; every second is the encoder's answer to what it decodes to."""
    best = _best_of_prior(log_likelihood, surrogate.operator.latent, count, generator, surrogate.points)
    inputs = surrogate.decoded_input(surrogate.latent_from(best[::2]))
    encoded = surrogate.operator.encode(surrogate.standardised(inputs)).mean
    best[::2] = surrogate.normal_from(encoded)
    return best


def _best_of_prior(log_likelihood, size: int, count: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """The ``count`` best fitting of ``CANDIDATES`` draws from N(0, I), best first ``(count, size)``."""
    z = torch.randn(max(CANDIDATES, count), size, generator=generator).to(like)
    with torch.no_grad():
        value = torch.cat([log_likelihood(part) for part in z.split(PART)])
    return z[value.argsort(descending=True)[:count]]


def space_of(surrogate: LatentSurrogate, method: str) -> Space:
    """What a method draws. Raises ``ConfigError`` where the problem does not state the prior that ``field`` needs."""
    return InputSpace(surrogate) if method == "field" else LatentSpace(surrogate)


def _solution(surrogate: LatentSurrogate, space: Space, z: Tensor, points: Tensor, basis: Basis) -> Tensor:
    latent, inputs = space.decode(z)
    return surrogate.values(latent, points, inputs, basis)


def _residuals(
    surrogate: LatentSurrogate,
    space: Space,
    observations: Observations,
    z: Tensor,
    points: Tensor | None = None,
    basis: Basis | None = None,
) -> Tensor:
    """Predicted minus observed ``(n, M K)``; each channel in units of the root mean square of its observations."""
    points = surrogate.check_points(observations.points) if points is None else points
    basis = surrogate.operator.basis(points) if basis is None else basis
    made = _solution(surrogate, space, z, points, basis)[:, _columns(surrogate, observations)]
    values = observations.values.T.to(made)
    return ((made - values) / _units(observations).to(made).unsqueeze(1)).flatten(1)


def _consistency(surrogate: LatentSurrogate, z: Tensor) -> Tensor:
    """Log likelihood ``(n,)`` of the residual of what z decodes to: none where it is as small as for cases like those
    of the training, beyond their mean a half normal distribution of its logarithm with their deviation.
    """
    assert surrogate.consistency is not None
    mean, deviation = surrogate.consistency
    excess = (surrogate.log_residual(surrogate.latent_from(z)) - mean) / deviation
    return -0.5 * excess.clamp(min=0).square()


def _columns(surrogate: LatentSurrogate, observations: Observations) -> Sequence[int]:
    names = channel_names(surrogate.problem)
    return [names.index(name) for name in observations.channels]


def _units(observations: Observations) -> Tensor:
    """Root mean square of each channel's observations ``(K,)``; 1 where they all vanish."""
    size = observations.values.square().mean(0).sqrt()
    return torch.where(size > 0, size, 1.0)


def _deviations(surrogate: LatentSurrogate, observations: Observations, noise: float) -> Tensor:
    """Of noise and surrogate together, of each observation ``(M K,)``, in the units of ``_residuals``."""
    own = torch.tensor(surrogate.errors or [0.0] * len(channel_names(surrogate.problem)), dtype=torch.float64)
    own = own[list(_columns(surrogate, observations))]
    total = (noise**2 + own.square()).sqrt() / _units(observations)
    return total.repeat_interleave(len(observations.points))


@torch.no_grad()
def _fit(
    surrogate: LatentSurrogate,
    space: Space,
    observations: Observations,
    z: Tensor,
    noise: float | None,
    points: Tensor,
    basis: Basis,
) -> tuple[float, float | None]:
    """Root mean square residual of the posterior mean solution (in units of each channel's root mean square), and its
    square in units of the assumed variance.
    """
    total = sum(_residuals(surrogate, space, observations, part, points, basis).sum(0) for part in z.split(PART))
    residual = total / len(z)
    deviation = float(residual.square().mean().sqrt())
    if noise is None:
        return deviation, None
    relative = residual / _deviations(surrogate, observations, noise).to(residual)
    return deviation, float(relative.square().mean())

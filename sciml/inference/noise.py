"""Log likelihood of residuals under Gaussian noise whose level is known, or unknown and integrated out.

Where the noise of the observations differs by known factors, divide the residuals by them first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError


class GaussianNoise:
    """Independent noise of known standard deviation, one number or one per observation ``(M,)``, in the unit of the
    residuals.

    Raises ``ConfigError`` for a standard deviation that is not positive and finite.
    """

    def __init__(self, standard_deviation: float | Tensor) -> None:
        self.standard_deviation = torch.as_tensor(standard_deviation)
        if self.standard_deviation.ndim > 1 or not self.standard_deviation.numel():
            raise ConfigError(
                f"The standard deviation of the noise has shape {tuple(self.standard_deviation.shape)}; expected a "
                "number or one per observation, (M,)."
            )
        good = (self.standard_deviation > 0) & torch.isfinite(self.standard_deviation)
        if not bool(good.all()):
            raise ConfigError(
                f"The standard deviation of the noise is {self.standard_deviation.tolist()}; expected positive, finite "
                "numbers. For noise of unknown level use UnknownNoise."
            )

    def log_likelihood(self, residuals: Tensor) -> Tensor:
        """-sum_m (r_m^2 / (2 sigma_m^2) + log(2 pi sigma_m^2) / 2) of ``residuals (n, M)``: ``(n,)``."""
        sigma = self._per_observation(residuals)
        return -0.5 * (residuals / sigma).square().sum(1) - sigma.log().sum() - 0.5 * len(sigma) * math.log(2 * math.pi)

    def noise_samples(self, residuals: Tensor, generator: torch.Generator) -> Tensor:
        """The known standard deviation, ``(n, M)`` like the residuals: nothing is drawn."""
        return self._per_observation(residuals).expand(residuals.shape)

    def _per_observation(self, residuals: Tensor) -> Tensor:
        _check_residuals(residuals)
        sigma = self.standard_deviation.to(residuals)
        if sigma.ndim and len(sigma) not in (1, residuals.shape[1]):
            raise ConfigError(
                f"{len(sigma)} standard deviations of the noise are given and {residuals.shape[1]} observations; give "
                "one per observation or a single number."
            )
        return sigma.expand(residuals.shape[1])


@dataclass(frozen=True)
class UnknownNoise:
    """Independent noise of one unknown variance with the prior sigma^2 ~ inverse gamma(shape, scale), density
    proportional to (sigma^2)^(-shape - 1) exp(-scale / sigma^2); ``scale`` in the unit of the residuals squared.

    Both must be positive: with as many unknowns as observations the likelihood would otherwise be infinite at a perfect
    fit. Raises ``ConfigError`` when they are not.
    """

    shape: float
    scale: float

    def __post_init__(self) -> None:
        for name, value in (("shape", self.shape), ("scale", self.scale)):
            if not 0 < value < math.inf:
                raise ConfigError(f"The {name} of the prior of the noise is {value}; expected a positive number.")

    @classmethod
    def guess(cls, standard_deviation: float, worth: float = 1.0) -> UnknownNoise:
        """The prior that weighs as much as ``worth`` observations whose noise has this root mean square (the scaled
        inverse chi-squared distribution of ``worth`` degrees of freedom)."""
        if not 0 < standard_deviation < math.inf or not 0 < worth < math.inf:
            raise ConfigError(
                f"The noise is guessed as {standard_deviation}, worth {worth} observations; expected positive numbers."
            )
        return cls(worth / 2, worth * standard_deviation**2 / 2)

    def log_likelihood(self, residuals: Tensor) -> Tensor:
        """The log of int N(r; 0, sigma^2 I) p(sigma^2) dsigma^2, of ``residuals (n, M)``: ``(n,)``.

        In closed form, a Student-t density of 2 shape degrees of freedom: with a, b = shape, scale
        log Gamma(a + M / 2) - log Gamma(a) + a log b - M / 2 log(2 pi) - (a + M / 2) log(b + |r|^2 / 2)
        (Gelman et al., Bayesian Data Analysis, 3rd ed., section 3.2).
        """
        _check_residuals(residuals)
        half = residuals.shape[1] / 2
        constant = math.lgamma(self.shape + half) - math.lgamma(self.shape) - half * math.log(2 * math.pi)
        # a log b - (a + M/2) log(b + q) = -(a + M/2) log(1 + q/b) - M/2 log b: no large numbers that cancel
        relative = 0.5 * residuals.square().sum(1) / self.scale
        return constant - half * math.log(self.scale) - (self.shape + half) * torch.log1p(relative)

    def noise_samples(self, residuals: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of the standard deviation for each row of ``residuals (n, M)``, as ``(n, M)``:
        sigma^2 | r ~ inverse gamma(shape + M / 2, scale + |r|^2 / 2). With rows from draws of the posterior these are
        draws of the posterior of sigma.
        """
        _check_residuals(residuals)
        shape = torch.full(
            (len(residuals),), self.shape + residuals.shape[1] / 2, dtype=torch.float64, device=generator.device
        )
        # What torch.distributions.Gamma draws with; that class takes no generator.
        gamma = torch._standard_gamma(shape, generator=generator).to(residuals.device)
        rate = self.scale + 0.5 * residuals.detach().double().square().sum(1)
        return (rate / gamma).sqrt().to(residuals.dtype)[:, None].expand(residuals.shape)


def _check_residuals(residuals: Tensor) -> None:
    if residuals.ndim != 2 or residuals.shape[1] < 1:
        raise ConfigError(
            f"The residuals have shape {tuple(residuals.shape)}; expected (n, M), at least one observation."
        )

"""Have the chains converged, and how many independent draws are they worth?

Rank-normalised split R-hat and effective sample sizes of Vehtari, Gelman, Simpson, Carpenter and Buerkner, Bayesian
Analysis 16 (2021) 667, arXiv 1903.08008. Quantities are ``(chains, draws, K)``: the vector itself or whatever is
derived from it (a field at some points, the noise level, the log likelihood).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError


class ChainsDisagreeWarning(UserWarning):
    """The chains have not converged to one distribution: what they say of the posterior cannot be trusted."""


def rank_normalised_rhat(quantities: Tensor) -> Tensor:
    """The larger of R-hat of the rank-normalised quantities and of their distances from the median, each chain split in
    two halves: ``(K,)``, float64; 1 when the chains agree, NaN for a quantity that never changes.
    """
    x = _split(_checked(quantities))
    folded = (x - x.flatten(0, 1).median(0).values).abs()
    return _constant_is_nan(x, torch.fmax(_rhat(_rank_normalised(x)), _rhat(_rank_normalised(folded))))


def bulk_effective_sample_size(quantities: Tensor) -> Tensor:
    """Effective sample size of the rank-normalised quantities, ``(K,)``, float64: for means and medians."""
    x = _split(_checked(quantities))
    return _constant_is_nan(x, _effective_sample_size(_rank_normalised(x)))


def tail_effective_sample_size(quantities: Tensor) -> Tensor:
    """The smaller of the effective sample sizes of the 5 % and the 95 % quantile, ``(K,)``, float64: for bands."""
    x = _split(_checked(quantities))
    # (torch.quantile refuses more than 2^24 values.)
    ordered = x.flatten(0, 1).sort(0).values
    last = len(ordered) - 1
    low, high = ordered[math.floor(0.05 * last)], ordered[math.ceil(0.95 * last)]
    # A quantile may be the largest value, and its indicator constant: then it says nothing (NaN), the other decides.
    below, above = (x <= low).double(), (x >= high).double()
    return torch.fmin(*(_constant_is_nan(part, _effective_sample_size(part)) for part in (below, above)))


def effective_sample_size(quantities: Tensor) -> Tensor:
    """Effective sample size of the plain mean, ``(K,)``, float64: its standard error is the standard deviation of the
    quantity over the root of this."""
    x = _split(_checked(quantities))
    return _constant_is_nan(x, _effective_sample_size(x))


@dataclass(frozen=True)
class Diagnostics:
    """R-hat, bulk and tail effective sample size ``(K,)`` of the quantities, and how the sampler fared."""

    names: tuple[str, ...]
    rhat: Tensor
    bulk: Tensor
    tail: Tensor
    chains: int
    draws: int
    rhat_limit: float
    least_effective: float
    divergences: int = 0

    def trouble(self) -> str:
        """What is wrong, in sentences for a person; empty when nothing is."""
        sentences = []
        stuck = torch.isnan(self.rhat)
        if bool(stuck.any()):
            names = [name for name, bad in zip(self.names, stuck.tolist(), strict=True) if bad]
            sentences.append(f"{_some(names)} never changed in any chain.")
        worst = torch.where(stuck, 0.0, self.rhat)  # may be inf
        if float(worst.max()) > self.rhat_limit:
            count = int((worst > self.rhat_limit).sum())
            sentences.append(
                f"The {self.chains} chains disagree: R-hat of {self.names[int(worst.argmax())]} is "
                f"{float(worst.max()):.2f} ({count} of {len(self.names)} quantities are above {self.rhat_limit:g}). "
                "Either the posterior has several modes or the chains are too short; what they say of the posterior "
                "cannot be trusted. Run more draws, and start the chains from different optima."
            )
        for kind, sizes in (("means", self.bulk), ("bands", self.tail)):
            known = torch.nan_to_num(sizes, nan=math.inf)
            if float(known.min()) < self.least_effective:
                sentences.append(
                    f"For {kind}, the {self.chains} x {self.draws} draws of {self.names[int(known.argmin())]} are "
                    f"worth {float(known.min()):.0f} independent ones, fewer than {self.least_effective:g}: run more "
                    "draws."
                )
        if self.divergences:
            sentences.append(
                f"{self.divergences} of {self.chains * self.draws} proposals failed numerically and were rejected: a "
                "part of the posterior may never be reached. Raise the acceptance that the step size is adapted to, or "
                "look where the log likelihood is not finite."
            )
        return " ".join(sentences)


def check(
    quantities: Tensor,
    names: Sequence[str] | None = None,
    *,
    rhat_limit: float = 1.05,
    least_effective: float = 100.0,
    divergences: int = 0,
) -> Diagnostics:
    """Diagnostics of ``quantities (chains, draws, K)``; ``names`` of the K quantities, by default their numbers.

    Raises ``ConfigError`` for wrong shapes, ``DataError`` for values that are not finite.
    """
    x = _checked(quantities)
    names = tuple(f"quantity {k}" for k in range(x.shape[2])) if names is None else tuple(names)
    if len(names) != x.shape[2]:
        raise ConfigError(f"{len(names)} names are given for {x.shape[2]} quantities; give one each.")
    return Diagnostics(
        names,
        rank_normalised_rhat(x),
        bulk_effective_sample_size(x),
        tail_effective_sample_size(x),
        chains=x.shape[0],
        draws=x.shape[1],
        rhat_limit=rhat_limit,
        least_effective=least_effective,
        divergences=int(divergences),
    )


def _checked(quantities: Tensor) -> Tensor:
    if quantities.ndim != 3 or quantities.shape[1] < 8 or not quantities.shape[0] or not quantities.shape[2]:
        raise ConfigError(
            f"The quantities have shape {tuple(quantities.shape)}; expected (chains, draws, K) with at least "
            "one chain, 8 draws and one quantity."
        )
    if not bool(torch.isfinite(quantities).all()):
        raise DataError(
            f"{int((~torch.isfinite(quantities)).sum())} of {quantities.numel()} values of the chains are not finite; "
            "look at what is derived from the draws."
        )
    return quantities.detach().double()


def _split(x: Tensor) -> Tensor:
    """Each chain as two halves, of an odd number of draws without the middle one: ``(2 chains, draws // 2, K)``."""
    half = x.shape[1] // 2
    return torch.cat([x[:, :half], x[:, -half:]])


def _rank_normalised(x: Tensor) -> Tensor:
    """Normal scores Phi^-1((rank - 3/8) / (S + 1/4)) of the ranks among all S draws; equal ones share the mean rank."""
    columns = x.flatten(0, 1).T.contiguous()
    ordered = columns.sort(1).values
    below, up_to = (torch.searchsorted(ordered, columns, right=right) for right in (False, True))
    rank = (below + up_to + 1) / 2
    score = torch.special.ndtri((rank.double() - 3 / 8) / (columns.shape[1] + 1 / 4))
    return score.T.reshape(x.shape)


def _rhat(x: Tensor) -> Tensor:
    """sqrt of (variance of all chains together / mean variance within a chain), equations 1 to 4."""
    n = x.shape[1]
    within = x.var(1).mean(0)
    return ((n - 1) / n + x.mean(1).var(0) / within).sqrt()


def _effective_sample_size(x: Tensor) -> Tensor:
    """Equations 5 to 12 with Geyer's initial monotone sequence, of (already split) chains ``(C, N, K)``."""
    chains, n = x.shape[:2]
    centred = x - x.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=1)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * n, dim=1)[:, :n] / n
    within = covariance[:, 0].mean(0) * n / (n - 1)
    total = within * (n - 1) / n + (x.mean(1).var(0) if chains > 1 else 0.0)
    # A halved chain beside its other half: there are always at least two.
    correlation = 1 - (within - covariance.mean(0) * n / (n - 1)) / total
    correlation[0] = 1
    pairs = correlation[: n // 2 * 2].reshape(n // 2, 2, -1).sum(1)
    positive = (pairs > 0).long().cumprod(0).bool()
    pairs = torch.where(positive, pairs, torch.zeros_like(pairs)).cummin(0).values
    time = 2 * pairs.sum(0) - 1
    # Of antithetic chains the size may exceed the number of draws, but not without end.
    draws = chains * n
    return draws / time.clamp(min=1 / math.log10(draws))


def _constant_is_nan(x: Tensor, value: Tensor) -> Tensor:
    flat = x.flatten(0, 1)
    return torch.where((flat == flat[0]).all(0), torch.nan, value)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more quantities"

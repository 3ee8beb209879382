"""R-hat and effective sample sizes: against theory, a direct implementation, and chains that disagree."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sciml.errors import ConfigError, DataError
from sciml.inference import (
    bulk_effective_sample_size,
    check,
    effective_sample_size,
    rank_normalised_rhat,
    sample_hmc,
    tail_effective_sample_size,
)


def autoregressive(rho: float, chains: int, draws: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    """Stationary AR(1) chains of variance 1: ``(chains, draws, count)``."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, chains, count, generator=generator, dtype=torch.float64)
    x = torch.empty_like(noise)
    x[0] = noise[0]
    for k in range(1, draws):
        x[k] = rho * x[k - 1] + math.sqrt(1 - rho**2) * noise[k]
    return x.transpose(0, 1).contiguous()


def direct_size(x: np.ndarray) -> float:
    """Effective sample size of split chains ``(C, N)``, by the sums of Vehtari et al., appendix A of the preprint."""
    chains, n = x.shape
    centred = x - x.mean(1, keepdims=True)
    covariance = np.array([[(c[: n - t] * c[t:]).sum() / n for t in range(n)] for c in centred])
    within = x.var(1, ddof=1).mean()
    total = (n - 1) / n * within + x.mean(1).var(ddof=1)
    rho = 1 - (within - (covariance * n / (n - 1)).mean(0)) / total
    rho[0] = 1
    sums, t = [], 0
    while t + 1 < n and rho[t] + rho[t + 1] > 0:
        sums.append(min([rho[t] + rho[t + 1], *sums[-1:]]))
        t += 2
    return chains * n / max(2 * sum(sums) - 1, 1 / math.log10(chains * n))


def direct_rhat(x: np.ndarray) -> float:
    n = x.shape[1]
    within = x.var(1, ddof=1).mean()
    return math.sqrt((n - 1) / n + x.mean(1).var(ddof=1) / within)


def split(x: np.ndarray) -> np.ndarray:
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def scores(x: np.ndarray) -> np.ndarray:
    return stats.norm.ppf((stats.rankdata(x) - 0.375) / (x.size + 0.25)).reshape(x.shape)


@pytest.mark.parametrize("draws", [100, 151])
@pytest.mark.parametrize("kind", ["correlated", "antithetic", "shifted", "repeated"])
def test_against_a_direct_implementation(draws, kind):
    x = autoregressive({"correlated": 0.8, "antithetic": -0.4}.get(kind, 0.2), 4, draws, 3)
    if kind == "shifted":
        x[1] += 1.0
        x[2] *= 3.0
    if kind == "repeated":  # as of rejected proposals: ranks are shared
        x = x.round(decimals=0)
    found = [f(x) for f in (rank_normalised_rhat, bulk_effective_sample_size, effective_sample_size)]
    tail = tail_effective_sample_size(x)
    for k in range(3):
        y = split(x[..., k].numpy())
        folded = np.abs(y - np.sort(y.flatten())[(y.size - 1) // 2])
        expected = [max(direct_rhat(scores(y)), direct_rhat(scores(folded))), direct_size(scores(y)), direct_size(y)]
        np.testing.assert_allclose([float(f[k]) for f in found], expected, rtol=1e-9)
        if kind != "repeated":
            low, high = np.quantile(y, [0.05, 0.95])
            sizes = [direct_size((y <= low).astype(float)), direct_size((y >= high).astype(float))]
            assert float(tail[k]) == pytest.approx(min(sizes), rel=1e-9)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_size_of_an_autoregressive_chain(rho):
    """n (1 - rho) / (1 + rho): the mean of 50 chains sets, each estimated to some 5 %."""
    x = autoregressive(rho, 4, 4000, 50)
    theory = 16_000 * (1 - rho) / (1 + rho)
    for size in (effective_sample_size, bulk_effective_sample_size):
        assert float(size(x).mean()) == pytest.approx(theory, rel=0.05)


def test_standard_error_is_true():
    """Over 400 repetitions the mean of the chains spreads by the standard deviation over the root of the size."""
    x = autoregressive(0.8, 4, 500, 400)
    error = x.mean((0, 1)) / (x.std((0, 1)) / effective_sample_size(x).sqrt())
    assert 0.85 < error.std() < 1.15


def test_one_law_has_rhat_one():
    x = autoregressive(0.3, 4, 1000, 100)
    assert rank_normalised_rhat(x).max() < 1.02
    result = check(x)
    assert result.trouble() == "" and result.chains == 4 and result.draws == 1000
    assert result.names[7] == "quantity 7"


@pytest.mark.parametrize("change", ["shift", "width", "drift"])
def test_chains_of_different_laws_are_told_apart(change):
    """A chain elsewhere, a chain wider, all chains on their way: what the ranks, the folding and the split see."""
    x = autoregressive(0.0, 4, 1000)
    if change == "shift":
        x[0] += 1
    elif change == "width":
        x[0] *= 4
    else:
        x += torch.linspace(0, 3, 1000)[:, None]
    assert rank_normalised_rhat(x) > 1.05
    assert "4 chains disagree: R-hat of height" in check(x, ["height"]).trouble()


def test_infinite_variance_does_not_matter():
    """Cauchy chains have no mean; their ranks have, and a shifted chain is still found."""
    x = autoregressive(0.0, 4, 1000).div(autoregressive(0.0, 4, 1000, seed=1))
    assert rank_normalised_rhat(x) < 1.01
    x[0] += 4
    assert rank_normalised_rhat(x) > 1.05


def test_samplers_in_two_modes_disagree():
    """Two narrow modes, chains in both: each chain samples one perfectly."""

    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        return torch.logsumexp(-0.5 * ((z[:, :1] - torch.tensor([-1.5, 1.5])) / 0.1).square(), 1)

    starts = torch.tensor([[-1.4, 0.0], [-1.6, 0.0], [1.4, 0.0], [1.6, 0.0]])
    generator = torch.Generator().manual_seed(0)
    chains = sample_hmc(log_likelihood, starts, draws=300, warmup=200, generator=generator)
    result = check(chains.draws, ["first", "second"])
    assert result.rhat[0] > 1.5 and result.rhat[1] < 1.05
    assert "The 4 chains disagree: R-hat of first is" in result.trouble()
    assert "1 of 2 quantities are above 1.05" in result.trouble() and "several modes" in result.trouble()
    same = check(chains.draws[:2], ["first", "second"])
    assert "disagree" not in same.trouble()


def test_too_few_draws_are_told():
    trouble = check(autoregressive(0.95, 4, 250), ["level"]).trouble()
    assert "For means, the 4 x 250 draws of level are worth" in trouble
    assert "fewer than 100: run more draws." in trouble


def test_constant_quantities_and_stuck_chains():
    x = autoregressive(0.0, 4, 100, 2)
    x[..., 0] = 1.5
    result = check(x, ["wall", "field"])
    assert math.isnan(result.rhat[0]) and math.isnan(result.bulk[0]) and not math.isnan(result.rhat[1])
    assert result.trouble() == "wall never changed in any chain."
    stuck = torch.arange(4.0)[:, None, None].expand(4, 100, 1)
    result = check(stuck)
    assert result.rhat[0] == math.inf and result.bulk[0] <= 8 and "R-hat of quantity 0 is inf" in result.trouble()


def test_divergences_are_told():
    x = autoregressive(0.0, 4, 200)
    assert check(x, divergences=3).trouble().startswith("3 of 800 proposals failed numerically")


@pytest.mark.slow
def test_any_number_of_quantities_in_float32():
    """2^24 values and more, as of a field of 2200 points."""
    x = torch.randn(8, 1000, 2200, generator=torch.Generator().manual_seed(0))
    assert tail_effective_sample_size(x).shape == (2200,)


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"shape \(4, 100\)"):
        check(torch.zeros(4, 100))
    with pytest.raises(ConfigError, match=r"shape \(4, 5, 1\)"):
        check(torch.zeros(4, 5, 1))
    with pytest.raises(DataError, match=r"1 of 400 values of the chains are not finite"):
        x = torch.zeros(4, 100, 1)
        x[0, 0] = torch.nan
        check(x)
    with pytest.raises(ConfigError, match=r"2 names are given for 1 quantities"):
        check(torch.zeros(4, 100, 1), ["a", "b"])

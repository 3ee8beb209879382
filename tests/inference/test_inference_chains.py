"""pCN and HMC: the posterior in closed form, the laws they keep, and what they adapt."""

import pytest
import torch
from linear_gaussian import linear_gaussian, standard_errors

from sciml.errors import ConfigError, SolverError
from sciml.inference import Gaussian, check, effective_sample_size, log_prior, sample_hmc, sample_pcn

N_CHAINS = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pcn(log_likelihood, starts, **options):
    return sample_pcn(
        log_likelihood, starts, **{"draws": 400, "warmup": 400, "thin": 10, "generator": generator(), **options}
    )


def hmc(log_likelihood, starts, **options):
    return sample_hmc(log_likelihood, starts, **{"draws": 120, "warmup": 200, "generator": generator(), **options})


PROBLEM = linear_gaussian(5, 4, 0.5)
"""Its posterior is up to 6 times narrower than the prior, and correlated."""


def rough(posterior: Gaussian) -> Gaussian:
    """Near the posterior, but shifted by half a width, wider, and blind to the correlations."""
    return Gaussian(posterior.mean + 0.5 * posterior.standard_deviation, torch.diag(1.3 * posterior.standard_deviation))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ["pcn", "pcn in a reference", "hmc", "hmc with mass", "hmc, mass not adapted"])
def test_mean_and_covariance_of_a_linear_problem(method, dtype):
    """Within 4 standard errors each, which are at most 0.06 posterior widths."""
    posterior = PROBLEM.posterior
    near = Gaussian(rough(posterior).mean.to(dtype), rough(posterior).scale_tril.to(dtype))
    starts = torch.randn(N_CHAINS, 5, generator=generator(1), dtype=dtype)
    if method.startswith("pcn"):
        chains = pcn(PROBLEM.log_likelihood, starts, reference=near if "reference" in method else None)
    else:
        chains = hmc(
            PROBLEM.log_likelihood, starts, mass=near if "mass" in method else None, adapt_mass="not" not in method
        )
    assert chains.draws.dtype == dtype and chains.flat.shape == (chains.draws[..., 0].numel(), 5)
    mean_error, product_error = standard_errors(chains.draws, posterior)
    assert mean_error.abs().max() < 4 and product_error.abs().max() < 4
    assert effective_sample_size(chains.draws).min() > 300
    assert check(chains.draws, divergences=int(chains.divergences.sum())).trouble() == ""
    expected = PROBLEM.log_likelihood(chains.flat.double()).reshape(chains.log_likelihood.shape)
    torch.testing.assert_close(chains.log_likelihood.double(), expected, rtol=1e-4, atol=1e-4)


def test_hmc_in_128_dimensions():
    """With the mass of the posterior: 128 means and 500 covariances. Of so many normal
    numbers the largest is about 3, so their root mean square is looked at too."""
    problem = linear_gaussian(128, 25, 0.1)
    starts = torch.randn(32, 128, generator=generator(1), dtype=torch.float64)
    chains = hmc(problem.log_likelihood, starts, mass=problem.posterior, warmup=100)
    mean_error, product_error = standard_errors(chains.draws, problem.posterior)
    for error in (mean_error, product_error):
        assert abs(error.square().mean().sqrt() - 1) < 4 / (2 * len(error)) ** 0.5
        assert error.abs().max() < 4.5
    assert effective_sample_size(chains.draws).min() > 1500


class TwoModes:
    """The posterior is the equal mixture of N(-m, w^2 I) and N(m, w^2 I): its draws are known, and not Gaussian."""

    mean, width = torch.tensor([0.8, 0.3]).double(), 0.6

    def log_likelihood(self, z: torch.Tensor) -> torch.Tensor:
        parts = [log_prior((z - sign * self.mean) / self.width) for sign in (-1, 1)]
        return torch.logaddexp(*parts) - log_prior(z)

    def draws(self, n: int) -> torch.Tensor:
        sign = torch.randint(0, 2, (n, 1), generator=generator(5)).double() * 2 - 1
        return sign * self.mean + self.width * torch.randn(n, 2, generator=generator(6)).double()


def moments(z: torch.Tensor) -> torch.Tensor:
    x, y = z.T
    return torch.stack([x, y, x * x, x * y, y * y, x**3, y**3, x**4, y**4, (x.abs() < 0.3).double()], 1)


@pytest.mark.parametrize("method", ["pcn", "pcn in a reference", "hmc", "hmc with mass"])
def test_law_of_exact_draws_is_kept(method):
    """40000 chains of 4 moves that reject about a third: 10 moments after as before, within 4 standard errors."""
    target = TwoModes()
    n = 40_000
    start = target.draws(n)
    near = Gaussian(torch.tensor([0.4, -0.2]).double(), torch.tensor([[1.2, 0.0], [0.3, 0.9]]).double())
    options = {"draws": 4, "warmup": 0}
    if method.startswith("pcn"):
        chains = pcn(
            target.log_likelihood, start, step=0.8, thin=1, reference=near if "ref" in method else None, **options
        )
    else:
        chains = hmc(target.log_likelihood, start, step=0.95, mass=near if "mass" in method else None, **options)
    assert 0.2 < chains.acceptance.mean() < 0.95
    end = chains.draws[:, -1]
    assert (end != start).any(1).double().mean() > 0.5
    exact = moments(target.draws(2_000_000))
    error = (moments(end).mean(0) - exact.mean(0)) / (exact.std(0) / n**0.5)
    assert error.abs().max() < 4


def test_detailed_balance():
    """From exact draws, moves from the left to the right third are as many as back: a chain that only keeps its law
    need not pass."""
    target = TwoModes()
    start = target.draws(200_000)
    for chains in (
        pcn(target.log_likelihood, start, step=0.7, thin=1, draws=1, warmup=0),
        hmc(target.log_likelihood, start, step=0.8, draws=1, warmup=0),
    ):
        end = chains.draws[:, 0]
        there = ((start[:, 0] < -0.5) & (end[:, 0] > 0.5)).sum()
        back = ((start[:, 0] > 0.5) & (end[:, 0] < -0.5)).sum()
        assert there > 1500 and abs(there - back) < 4 * float(there + back) ** 0.5


def test_warmup_finds_the_asked_acceptance():
    starts = torch.randn(16, 5, generator=generator(1), dtype=torch.float64)
    for wanted in (0.2, 0.5):
        chains = pcn(PROBLEM.log_likelihood, starts, acceptance=wanted, step=0.9)
        assert chains.acceptance.mean() == pytest.approx(wanted, abs=0.05)
    for wanted in (0.6, 0.9):
        chains = hmc(lambda z: -z.square().sum(1), torch.zeros(16, 100), acceptance=wanted, step=20.0, warmup=500)
        assert chains.acceptance.mean() == pytest.approx(wanted, abs=0.06)


def test_without_warmup_the_step_stays():
    starts = torch.zeros(2, 5)
    assert pcn(PROBLEM.log_likelihood, starts, draws=10, warmup=0, step=0.123).step == pytest.approx(0.123)
    assert hmc(PROBLEM.log_likelihood, starts, draws=10, warmup=0, step=0.123).step == 0.123


def test_mass_is_adapted_to_very_different_widths():
    """Widths from 0.01 to 1: the step of the unadapted chain follows the narrowest, its walk is too short for the
    widest."""
    sigma = torch.tensor([0.01, 0.03, 0.1, 0.3, 100.0]).double()

    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((z - 0.5) / sigma).square().sum(1)

    starts = torch.randn(8, 5, generator=generator(1), dtype=torch.float64)
    adapted, plain = (hmc(log_likelihood, starts, max_steps=16, adapt_mass=adapt) for adapt in (True, False))
    assert adapted.step > 20 * plain.step
    least, less = (effective_sample_size(chains.draws).min() for chains in (adapted, plain))
    assert least > 200 and least > 10 * less


def test_acceptance_of_pcn_does_not_fall_with_the_dimension():
    """The same observation of the first unknown, in 2 and in 500 dimensions. (A random walk's would fall.)"""

    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        return -2 * (z[:, 0] - 1).square()

    few, many = (
        pcn(log_likelihood, torch.zeros(50, size), draws=200, thin=1, warmup=0, step=0.5).acceptance.mean()
        for size in (2, 500)
    )
    assert many == pytest.approx(float(few), abs=0.03)


def test_reference_equal_to_the_posterior_is_always_accepted():
    starts = torch.randn(8, 5, generator=generator(1), dtype=torch.float64)
    chains = pcn(PROBLEM.log_likelihood, starts, reference=PROBLEM.posterior, draws=50)
    torch.testing.assert_close(chains.acceptance, torch.ones(8).double())


def test_thinned_chain_is_every_third_of_the_full_one():
    starts = torch.zeros(2, 5)
    full = pcn(PROBLEM.log_likelihood, starts, draws=30, thin=1, warmup=20)
    thin = pcn(PROBLEM.log_likelihood, starts, draws=10, thin=3, warmup=20)
    assert torch.equal(full.draws[:, 2::3], thin.draws) and full.step == thin.step


def test_seed_decides():
    starts = torch.zeros(2, 5)
    for sample in (pcn, hmc):
        first, second, third = (
            sample(PROBLEM.log_likelihood, starts, draws=10, warmup=20, generator=generator(seed)).draws
            for seed in (0, 0, 1)
        )
        assert torch.equal(first, second) and not torch.equal(first, third)


def half_known(z: torch.Tensor) -> torch.Tensor:
    """NaN left of -0.5."""
    return torch.where(z[:, 0] < -0.5, torch.nan, -(z[:, 0] ** 2))


@pytest.mark.parametrize("sample", [pcn, hmc])
def test_failures_are_rejected_and_counted(sample):
    chains = sample(half_known, torch.zeros(4, 2), draws=200)
    assert torch.isfinite(chains.draws).all() and torch.isfinite(chains.log_likelihood).all()
    assert chains.draws[..., 0].min() >= -0.5 and chains.divergences.sum() > 20
    assert "failed numerically" in check(chains.draws, divergences=int(chains.divergences.sum())).trouble()


def test_divergence_of_a_step_far_too_large():
    chains = hmc(PROBLEM.log_likelihood, torch.zeros(3, 5), step=50.0, warmup=0, draws=20)
    assert (chains.divergences == 20).all() and (chains.acceptance == 0).all()


@pytest.mark.parametrize("sample", [pcn, hmc])
def test_what_is_refused(sample):
    with pytest.raises(SolverError, match=r"not finite at the start of 1 of 2 chains, the first is chain 1"):
        sample(half_known, torch.tensor([[0.0, 0.0], [-1.0, 0.0]]))
    with pytest.raises(ConfigError, match=r"draws is 0"):
        sample(half_known, torch.zeros(1, 2), draws=0)
    with pytest.raises(ConfigError, match=r"warmup is -1"):
        sample(half_known, torch.zeros(1, 2), warmup=-1)
    with pytest.raises(ConfigError, match=r"step is -1"):
        sample(half_known, torch.zeros(1, 2), step=-1)
    with pytest.raises(ConfigError, match=r"The Gaussian has dimension, type and device \(3,"):
        sample(
            half_known,
            torch.zeros(1, 2),
            **{"reference" if sample is pcn else "mass": Gaussian.standard(torch.ones(3))},
        )
    with pytest.raises(ConfigError, match=r"starts are"):
        sample(half_known, torch.zeros(2))

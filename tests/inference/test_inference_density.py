"""Log densities, and the likelihood under noise of known and unknown level."""

import math

import pytest
import torch
from scipy import integrate, stats

from sciml.errors import ConfigError
from sciml.inference import GaussianNoise, UnknownNoise, log_posterior, log_prior, sample_hmc, value_and_gradient
from sciml.inference.density import evaluate, standard_normal


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_known_noise_is_the_normal_density():
    r = normal(5, 7)
    sigma = 0.1 + normal(7, seed=1).abs()
    for given, noise in ((0.3, GaussianNoise(0.3)), (sigma, GaussianNoise(sigma))):
        expected = torch.distributions.Normal(0, given).log_prob(r).sum(1)
        torch.testing.assert_close(noise.log_likelihood(r), expected)
        samples = noise.noise_samples(r, torch.Generator())
        torch.testing.assert_close(samples, torch.as_tensor(given).double().expand(5, 7))


def test_unknown_noise_is_the_integral_over_its_level():
    r = normal(3, 6) * torch.tensor([[0.2], [1.0], [5.0]])
    noise = UnknownNoise(1.5, 0.4)
    for row, value in zip(r, noise.log_likelihood(r).tolist(), strict=True):

        def density(log_variance, row=row):
            variance = math.exp(log_variance)
            prior = stats.invgamma.logpdf(variance, 1.5, scale=0.4) + log_variance
            return math.exp(prior + stats.norm.logpdf(row.numpy(), scale=variance**0.5).sum())

        integral = integrate.quad(density, -8, 12, epsabs=0, epsrel=1e-9, limit=200)[0]
        assert value == pytest.approx(math.log(integral), abs=1e-7)
    student = stats.multivariate_t(shape=0.4 / 1.5 * torch.eye(6).numpy(), df=3)
    torch.testing.assert_close(noise.log_likelihood(r), torch.as_tensor(student.logpdf(r.numpy())))


def test_unknown_noise_is_drawn_from_its_posterior():
    r = normal(1, 6).expand(4000, 6)
    sigma = UnknownNoise(1.5, 0.4).noise_samples(r, torch.Generator().manual_seed(0))
    assert torch.equal(sigma[:, 0], sigma[:, 5])
    posterior = stats.invgamma(1.5 + 3, scale=0.4 + 0.5 * float(r[0].square().sum()))
    assert stats.kstest(sigma[:, 0].square().numpy(), posterior.cdf).pvalue > 0.01


def test_guess_weighs_as_many_observations_as_it_is_worth():
    """The posterior of a guess worth 4, given 6 residuals, is that of a guess worth 10 of the pooled mean square."""
    r = normal(1, 6)
    pooled = math.sqrt((4 * 0.3**2 + float(r.square().sum())) / 10)
    guess, later = UnknownNoise.guess(0.3, 4), UnknownNoise.guess(pooled, 10)
    assert guess.shape + 3 == pytest.approx(later.shape)
    assert guess.scale + 0.5 * float(r.square().sum()) == pytest.approx(later.scale)


def test_noise_and_vector_together_agree_with_integration():
    """y = a z + noise with one unknown z: the marginal of z and of sigma on a fine grid."""
    a, z_true = normal(8, seed=2), 0.7
    y = a * z_true + 0.4 * normal(8, seed=3)
    noise = UnknownNoise.guess(0.3)
    z = torch.linspace(-3, 4, 701, dtype=torch.float64)
    sigma = torch.linspace(0.02, 4, 2000, dtype=torch.float64)
    residual = ((z[:, None] * a - y).square().sum(1))[:, None]
    prior = stats.invgamma.logpdf(sigma.numpy() ** 2, noise.shape, scale=noise.scale)
    log_joint = -8 * sigma.log() - 0.5 * residual / sigma**2 - 0.5 * z[:, None] ** 2
    joint = (log_joint + torch.as_tensor(prior) + sigma.log()).exp()  # d(sigma^2) = 2 sigma d sigma
    joint /= joint.sum()
    expected = {
        "z": (z[:, None] * joint).sum(),
        "z^2": (z[:, None] ** 2 * joint).sum(),
        "sigma": (sigma * joint).sum(),
        "z sigma": (z[:, None] * sigma * joint).sum(),
    }

    generator = torch.Generator().manual_seed(0)
    chains = sample_hmc(
        lambda x: noise.log_likelihood(x * a - y),
        normal(100, 1, seed=4),
        draws=100,
        warmup=100,
        generator=generator,
    )
    level = noise.noise_samples(chains.flat * a - y, generator)[:, 0].reshape(100, 100)
    drawn = chains.draws[..., 0]
    found = {"z": drawn, "z^2": drawn**2, "sigma": level, "z sigma": drawn * level}
    for name, value in found.items():
        per_chain = value.mean(1)  # chains are independent of one another
        error = per_chain.std() / 10
        assert error < 0.02 * value.std() + 0.01
        assert abs(per_chain.mean() - expected[name]) < 4 * error, name


def test_prior_and_posterior():
    z = normal(4, 3)
    expected = torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double()).log_prob(z)
    torch.testing.assert_close(log_prior(z), expected)
    torch.testing.assert_close(log_posterior(lambda z: z[:, 0])(z), expected + z[:, 0])
    value, gradient = value_and_gradient(log_posterior(lambda z: z[:, 0]), z)
    torch.testing.assert_close(gradient, torch.tensor([1.0, 0, 0]).double() - z)
    assert not value.requires_grad and not gradient.requires_grad


def test_impossible_is_minus_infinity():
    given = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0])
    assert evaluate(lambda z: given, torch.zeros(4, 2)).tolist() == [-math.inf, -math.inf, -math.inf, 1.0]


def test_draws_follow_the_seed_and_the_type():
    first, second = (
        standard_normal((5, 3), torch.zeros(1, dtype=dtype), torch.Generator().manual_seed(0))
        for dtype in (torch.float64, torch.float64)
    )
    assert torch.equal(first, second) and first.dtype == torch.float64


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"gave \(4, 1\) for vectors \(4, 2\)"):
        evaluate(lambda z: z[:, :1], torch.zeros(4, 2))
    with pytest.raises(ConfigError, match=r"torch can differentiate"):
        value_and_gradient(lambda z: z.detach().sum(1), torch.zeros(4, 2))
    for sigma in (0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0])):
        with pytest.raises(ConfigError, match=r"standard deviation of the noise is"):
            GaussianNoise(sigma)
    with pytest.raises(ConfigError, match=r"3 standard deviations of the noise are given and 4 observations"):
        GaussianNoise(torch.ones(3)).log_likelihood(torch.zeros(2, 4))
    with pytest.raises(ConfigError, match=r"residuals have shape \(4,\)"):
        UnknownNoise(1.0, 1.0).log_likelihood(torch.zeros(4))
    with pytest.raises(ConfigError, match=r"shape of the prior of the noise is 0"):
        UnknownNoise(0, 1.0)
    with pytest.raises(ConfigError, match=r"guessed as -1"):
        UnknownNoise.guess(-1.0)

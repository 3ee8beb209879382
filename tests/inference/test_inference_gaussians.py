"""Gaussian approximations of a posterior: Laplace and variational, where the posterior is Gaussian and where not."""

import math

import pytest
import torch
from linear_gaussian import LinearGaussian, linear_gaussian

from sciml.errors import ConfigError, SolverError
from sciml.inference import Gaussian, fit_gaussian, laplace, log_posterior, log_prior, maximum_posteriori


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def divergence(q: Gaussian, p: Gaussian) -> float:
    """KL(q | p)."""
    first, second = (
        torch.distributions.MultivariateNormal(g.mean.double(), scale_tril=g.scale_tril.double()) for g in (q, p)
    )
    return float(torch.distributions.kl_divergence(first, second))


def test_gaussian_whitens_and_draws():
    posterior = linear_gaussian(4, 3, 0.5).posterior
    z = posterior.sample(50_000, generator())
    torch.testing.assert_close(posterior.colour(posterior.whiten(z)), z)
    w = posterior.whiten(z)
    assert (w.mean(0).abs() < 4 / 50_000**0.5).all()
    assert ((w.T @ w / 50_000 - torch.eye(4)).abs() < 4 * (2 / 50_000) ** 0.5).all()
    expected = torch.distributions.MultivariateNormal(posterior.mean, posterior.covariance).log_prob(z[:10])
    torch.testing.assert_close(posterior.log_density(z[:10]), expected)
    torch.testing.assert_close(posterior.standard_deviation, posterior.covariance.diagonal().sqrt())
    torch.testing.assert_close(Gaussian.standard(z).log_density(z[:10]), log_prior(z[:10]))


@pytest.mark.parametrize("size, n_observed, noise", [(3, 5, 0.3), (128, 40, 0.02)])
def test_laplace_is_the_posterior_of_a_linear_problem(size, n_observed, noise):
    problem = linear_gaussian(size, n_observed, noise)
    found = laplace(problem.log_likelihood, problem.posterior.mean)
    torch.testing.assert_close(found.covariance, problem.posterior.covariance, rtol=1e-6, atol=1e-9)
    # The factor of a covariance that is nearly singular: the last digits are the library's.
    torch.testing.assert_close(found.scale_tril, problem.posterior.scale_tril, rtol=1e-6, atol=1e-6)
    single = laplace(problem.log_likelihood, problem.posterior.mean.float())
    assert single.scale_tril.dtype == torch.float32 and divergence(single, problem.posterior) < 1e-2


def test_laplace_is_nowhere_wider_than_the_prior():
    found = laplace(lambda z: z[:, 0] ** 2 - 4 * z[:, 1] ** 2, torch.zeros(3))
    torch.testing.assert_close(found.covariance, torch.diag(torch.tensor([1.0, 1 / 9, 1.0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size, n_observed, noise", [(4, 6, 0.4), (20, 10, 0.3)])
def test_full_rank_finds_a_gaussian_posterior_exactly(size, n_observed, noise, dtype):
    """From half the width and a shifted mean; no noise is left at the optimum, and the bound is the evidence there."""
    problem = linear_gaussian(size, n_observed, noise)
    posterior = problem.posterior
    start = Gaussian(
        posterior.colour(0.5 * torch.ones(1, size).double())[0].to(dtype), 0.5 * posterior.scale_tril.to(dtype)
    )
    fit = fit_gaussian(problem.log_likelihood, start, steps=1000, generator=generator())
    assert divergence(fit.gaussian, posterior) < 1e-3 and divergence(start, posterior) > 1
    assert fit.elbo == pytest.approx(problem.log_evidence, abs=5 * fit.elbo_error + 1e-4)
    assert fit.elbo_error < 0.01 and fit.mean.dtype == dtype
    assert fit.history.shape == (1000,) and fit.history[-100:].mean() > fit.history[:10].mean() + 0.5
    assert fit.sample(7, generator()).shape == (7, size)


def test_point_starts_from_laplace():
    problem = linear_gaussian(128, 25, 0.1)
    optimum = maximum_posteriori(problem.log_likelihood, torch.zeros(1, 128))
    fit = fit_gaussian(problem.log_likelihood, optimum.best, steps=200, generator=generator())
    assert divergence(fit.gaussian, problem.posterior) < 0.05
    assert fit.elbo == pytest.approx(problem.log_evidence, abs=0.1)


def test_mean_field_has_the_conditional_widths():
    """The nearest product of Gaussians to N(m, P^-1) is N(m, diag(P)^-1), log evidence - (log det diag P - log det P)
    / 2 its bound."""
    problem = linear_gaussian(6, 8, 1.0)
    conditional = problem.precision.diagonal().rsqrt()
    start = Gaussian(problem.posterior.mean + 0.2, 0.3 * torch.eye(6).double())
    fit = fit_gaussian(
        problem.log_likelihood, start, full_rank=False, steps=2000, samples=32, elbo_samples=4096, generator=generator()
    )
    assert torch.equal(fit.scale_tril, torch.diag(fit.scale_tril.diagonal()))
    torch.testing.assert_close(fit.scale_tril.diagonal(), conditional, rtol=0.03, atol=0)
    assert (fit.mean - problem.posterior.mean).abs().div(conditional).max() < 0.03
    assert (problem.posterior.standard_deviation / conditional).max() > 1.3  # what it cannot see
    gap = 0.5 * (problem.precision.diagonal().log().sum() - torch.logdet(problem.precision))
    assert fit.elbo == pytest.approx(problem.log_evidence - float(gap), abs=4 * fit.elbo_error + 0.005)


def test_mean_field_starts_with_the_conditional_widths_of_a_gaussian():
    problem = linear_gaussian(6, 8, 1.0)
    fit = fit_gaussian(problem.log_likelihood, problem.posterior, full_rank=False, steps=1, generator=generator())
    torch.testing.assert_close(fit.scale_tril.diagonal(), problem.precision.diagonal().rsqrt(), rtol=0.05, atol=0)


def test_curved_posterior_is_fitted_better_than_by_laplace():
    """z1 observed through z1 + z0^2: the fit's bound lies between Laplace's and the evidence by quadrature."""

    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((z[:, 1] + z[:, 0] ** 2 - 0.5) / 0.3) ** 2

    axis = torch.linspace(-6, 6, 1201).double()
    grid = torch.cartesian_prod(axis, axis)
    evidence = float((log_posterior(log_likelihood)(grid)).logsumexp(0)) + 2 * math.log(0.01)
    optimum = maximum_posteriori(log_likelihood, torch.full((1, 2), 0.1).double())
    near = laplace(log_likelihood, optimum.best)
    z = near.sample(20_000, generator(1))
    bound = log_posterior(log_likelihood)(z) - near.log_density(z)
    fit = fit_gaussian(log_likelihood, near, steps=1000, samples=16, elbo_samples=20_000, generator=generator())
    assert float(bound.mean()) + 0.05 < fit.elbo < evidence
    # No Gaussian nearby is better: the same draws for all.
    w = torch.randn(20_000, 2, generator=generator(2)).double()

    def elbo(q: Gaussian) -> torch.Tensor:
        z = q.colour(w)
        return log_posterior(log_likelihood)(z) - q.log_density(z)

    for change in (0.8, 1.25):
        for other in (
            Gaussian(fit.mean, change * fit.scale_tril),
            Gaussian(fit.mean + (change - 1) * fit.gaussian.standard_deviation, fit.scale_tril),
        ):
            gain = elbo(other) - elbo(fit.gaussian)
            assert gain.mean() < 2 * gain.std() / 20_000**0.5


def test_seed_decides():
    problem = linear_gaussian(3, 4, 0.5)
    first, second, third = (
        fit_gaussian(problem.log_likelihood, Gaussian.standard(torch.zeros(3)), steps=20, generator=generator(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.mean, second.mean) and not torch.equal(first.mean, third.mean)


def never_finite(z: torch.Tensor) -> torch.Tensor:
    return z[:, 0] * torch.nan


def differentiable_once(z: torch.Tensor) -> torch.Tensor:
    """Minus the distance from a point; torch has no second derivative of it."""
    return -torch.cdist(z, torch.ones(1, 3))[:, 0]


def test_what_is_refused():
    problem: LinearGaussian = linear_gaussian(3, 4, 0.01)
    start = Gaussian.standard(torch.zeros(3))
    with pytest.raises(SolverError, match=r"finite at 0 of 8 draws in step 1"):
        fit_gaussian(never_finite, start, generator=generator())
    with pytest.raises(SolverError, match=r"variational fit diverged.*learning_rate \(30\)"):
        fit_gaussian(problem.log_likelihood, start, learning_rate=30, steps=20, generator=generator())
    with pytest.raises(SolverError, match=r"log posterior or its Hessian is not finite"):
        laplace(never_finite, torch.zeros(3))
    with pytest.raises(SolverError, match=r"cannot be differentiated twice"):
        laplace(differentiable_once, torch.zeros(3))
    with pytest.raises(ConfigError, match=r"samples is 3"):
        fit_gaussian(problem.log_likelihood, start, samples=3, generator=generator())
    with pytest.raises(ConfigError, match=r"expected one vector, \(L,\)"):
        laplace(problem.log_likelihood, torch.zeros(1, 3))
    with pytest.raises(ConfigError, match=r"lower triangular with a positive diagonal"):
        Gaussian(torch.zeros(2), torch.ones(2, 2))
    with pytest.raises(ConfigError, match=r"not \(2,\) and \(3, 3\)"):
        Gaussian(torch.zeros(2), torch.eye(3))

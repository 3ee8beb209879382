"""Maxima of the posterior."""

import pytest
import torch
from linear_gaussian import linear_gaussian

from sciml.errors import ConfigError, SolverError
from sciml.inference import log_posterior, maximum_posteriori


def starts(n: int, size: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("size, n_observed, noise", [(5, 8, 0.3), (64, 25, 0.1), (128, 200, 0.5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_problem_in_closed_form(size, n_observed, noise, dtype):
    problem = linear_gaussian(size, n_observed, noise)
    optimum = maximum_posteriori(problem.log_likelihood, starts(4, size, dtype))
    assert optimum.converged.all() and optimum.points.dtype == dtype
    best = log_posterior(problem.log_likelihood)(problem.posterior.mean[None])
    # What a converged start may lack: the tolerance, and the round-off of the sum of squares.
    assert ((best - optimum.values.double()) < (1e-3 if dtype == torch.float32 else 1.1e-4)).all()
    away = problem.posterior.whiten(optimum.points.double())
    assert away.norm(dim=1).max() < 0.05  # of a posterior standard deviation in any direction


def double_well(z: torch.Tensor) -> torch.Tensor:
    """Two modes along the first axis, at about +-1.5, the right one higher by about 1."""
    return -2 * (z[:, 0] ** 2 - 3) ** 2 / 3 + 0.3 * z[:, 0] - 5 * (z[:, 1] - z[:, 0]) ** 2


def test_every_start_finds_its_own_mode_and_the_best_is_the_highest():
    z = starts(16, 2)
    optimum = maximum_posteriori(double_well, z)
    assert optimum.converged.all()
    right = optimum.points[:, 0] > 0
    assert 0 < right.sum() < 16
    assert (optimum.points[right, 0].std() < 0.01) and (optimum.points[~right, 0].std() < 0.01)
    assert optimum.best[0] > 0 and optimum.values[right].min() > optimum.values[~right].max()
    point = optimum.points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_posterior(double_well)(point).sum(), point)
    assert gradient.abs().max() < 0.1


def test_starts_do_not_see_one_another():
    z = starts(6, 2)
    together = maximum_posteriori(double_well, z)
    for k in range(6):
        alone = maximum_posteriori(double_well, z[k : k + 1])
        torch.testing.assert_close(alone.points[0], together.points[k], rtol=0, atol=1e-8)


def test_too_few_steps_have_not_converged():
    problem = linear_gaussian(64, 100, 0.01)
    optimum = maximum_posteriori(problem.log_likelihood, starts(3, 64), steps=3, polish=3)
    assert not optimum.converged.any()


def test_start_where_the_likelihood_fails_is_marked_and_the_others_are_found():
    def log_likelihood(z: torch.Tensor) -> torch.Tensor:
        return z[:, 0].log() - z[:, 0] ** 2  # NaN for negative z: the maximum is at 3^(-1/2)

    optimum = maximum_posteriori(log_likelihood, torch.tensor([[1.0, 0.3], [-1.0, 0.2], [3.0, 1.0]]))
    assert optimum.converged.tolist() == [True, False, True]
    assert optimum.values[1] == -torch.inf and torch.isfinite(optimum.points).all()
    torch.testing.assert_close(optimum.best, torch.tensor([3**-0.5, 0.0]), rtol=0, atol=0.02)


def test_what_is_refused():
    with pytest.raises(SolverError, match=r"not finite at any of the 2 starts"):
        maximum_posteriori(lambda z: z[:, 0] * torch.nan, torch.zeros(2, 3))
    with pytest.raises(ConfigError, match=r"starts are torch.float32 \(3,\)"):
        maximum_posteriori(double_well, torch.zeros(3))
    with pytest.raises(ConfigError, match=r"starts: 1 of 2 vectors are not finite, the first is number 1"):
        maximum_posteriori(double_well, torch.tensor([[0.0, 0.0], [torch.nan, 0.0]]))
    with pytest.raises(ConfigError, match=r"steps is 0"):
        maximum_posteriori(double_well, torch.zeros(1, 2), steps=0)
    with pytest.raises(ConfigError, match=r"learning_rate is -1"):
        maximum_posteriori(double_well, torch.zeros(1, 2), learning_rate=-1)

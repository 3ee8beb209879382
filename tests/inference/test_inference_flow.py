"""Normalising flow: an exact inverse, the right density, and a better fit than a Gaussian."""

import json
import math

import pytest
import torch
from linear_gaussian import linear_gaussian

from sciml.errors import ConfigError, DataError
from sciml.inference import Flow, fit_flow, log_prior, sample_hmc


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(dim: int, dtype: torch.dtype = torch.float64, **options) -> Flow:
    """A flow none of whose parts is the identity, nor so wild that round-off grows."""
    flow = Flow(dim, **{"hidden_channels": 16, **options}).to(dtype)
    for parameter in flow.parameters():
        parameter.data += (0.2 if dim < 10 else 0.05) * torch.randn(
            parameter.shape, generator=generator(1), dtype=dtype
        )
    flow.centre += 0.3
    flow.factor.copy_(linear_gaussian(dim, 3, 1.0).posterior.scale_tril)
    return flow


@pytest.mark.parametrize("dim", [2, 3, 7, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_undoes_forward(dim, dtype):
    flow = shaken(dim, dtype)
    z = torch.randn(50, dim, generator=generator(), dtype=dtype)
    x, forward = flow(z)
    back, backward = flow.inverse(x)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(back, z, rtol=0, atol=tolerance)
    torch.testing.assert_close(backward, -forward, rtol=0, atol=10 * tolerance)
    assert (x - z).abs().max() > 0.5 and x.dtype == dtype


@pytest.mark.parametrize("dim", [2, 3, 8])
def test_volume_is_that_of_the_jacobian(dim):
    flow = shaken(dim)
    z = torch.randn(5, dim, generator=generator(), dtype=torch.float64)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda v: flow(v[None])[0][0], row) for row in z])
    torch.testing.assert_close(flow(z)[1], torch.linalg.slogdet(jacobians).logabsdet)
    # Every output depends on every input.
    assert (jacobians.abs().amax(0) > 1e-6).all()


def test_density_integrates_to_one_and_is_that_of_the_draws():
    flow = shaken(2)
    axis = torch.linspace(-15, 15, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_density(grid).exp() * 0.05**2
        x = flow.sample(100_000, generator())
    assert float(density.sum()) == pytest.approx(1, abs=1e-3)
    for moment in (lambda x: x, lambda x: x**2, lambda x: x[:, :1] * x[:, 1:]):
        expected = (density[:, None] * moment(grid)).sum(0)
        values = moment(x)
        assert ((values.mean(0) - expected).abs() < 4 * values.std(0) / 100_000**0.5 + 1e-3).all()


def banana(n: int, seed: int) -> tuple[torch.Tensor, float]:
    """Draws, and the mean of their own log density."""
    z = torch.randn(n, 2, generator=generator(seed))
    x = torch.stack([z[:, 0], 0.4 * z[:, 1] + z[:, 0] ** 2 - 1], 1)
    return x, float(log_prior(z).mean()) - math.log(0.4)


def two_moons(n: int, seed: int) -> torch.Tensor:
    angle = math.pi * torch.rand(n, generator=generator(seed))
    upper = torch.rand(n, generator=generator(seed + 1)) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1) + 0.1 * torch.randn(n, 2, generator=generator(seed + 2))


def gaussian_density(samples: torch.Tensor, at: torch.Tensor) -> float:
    normal = torch.distributions.MultivariateNormal(samples.mean(0), samples.T.cov())
    return float(normal.log_prob(at).mean())


def test_banana_is_learned_nearly_exactly():
    samples = banana(1500, 0)[0]
    fit = fit_flow(samples, flow=Flow(2, hidden_channels=64), epochs=40, generator=generator())
    unseen, exact = banana(5000, 1)
    with torch.no_grad():
        found = float(fit.flow.log_density(unseen).mean())
        drawn = fit.flow.sample(5000, generator(2))
    assert gaussian_density(samples, unseen) < exact - 1  # there is something to learn
    assert found > exact - 0.1
    assert fit.validation > fit.gaussian + 1 and max(fit.history) == fit.validation
    curve = drawn[:, 1] - drawn[:, 0] ** 2 + 1
    assert abs(curve.mean()) < 0.1 and curve.std() == pytest.approx(0.4, abs=0.15)


def test_two_moons_are_learned_better_than_by_a_gaussian():
    samples, unseen = two_moons(1500, 0), two_moons(3000, 10)
    fit = fit_flow(samples, flow=Flow(2, hidden_channels=64), epochs=60, generator=generator())
    with torch.no_grad():
        assert float(fit.flow.log_density(unseen).mean()) > gaussian_density(samples, unseen) + 0.7


def curved(n: int, seed: int) -> torch.Tensor:
    """128 unknowns, each of the last 64 the square of one of the first and noise."""
    z = torch.randn(n, 128, generator=generator(seed))
    return torch.cat([z[:, :64], 0.3 * z[:, 64:] + 0.7 * (z[:, :64] ** 2 - 1)], 1)


def test_128_dimensions_and_few_samples():
    """400 draws in 128 dimensions: a flow of a million ways to overfit is on unseen draws no worse than the Gaussian
    with the sample covariance, which itself overfits."""
    samples, unseen = curved(400, 0), curved(1000, 1)
    fit = fit_flow(samples, flow=Flow(128, n_layers=4), epochs=20, patience=5, generator=generator())
    assert fit.validation >= fit.gaussian
    with torch.no_grad():
        assert float(fit.flow.log_density(unseen).mean()) > gaussian_density(samples, unseen)


def test_flow_is_a_prior():
    """Observe the second coordinate of a banana: posterior of the first by HMC through the flow, and by integration of
    the flow's own density."""
    flow = Flow(2, n_layers=4, hidden_channels=16)
    fit_flow(banana(1500, 0)[0].double(), flow=flow, epochs=20, generator=generator())
    flow.requires_grad_(False)

    def of_image(x: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((x[:, 1] - 1) / 0.3).square()

    axis = torch.linspace(-6, 6, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    weight = (flow.log_density(grid) + of_image(grid)).softmax(0)
    starts = torch.randn(100, 2, generator=generator(1), dtype=torch.float64)
    chains = sample_hmc(lambda z: of_image(flow(z)[0]), starts, draws=100, warmup=100, generator=generator())
    x = flow(chains.flat)[0].reshape(100, 100, 2)
    for k, power in ((0, 2), (1, 1), (1, 2)):
        per_chain = (x[..., k] ** power).mean(1)
        expected = (weight * grid[:, k] ** power).sum()
        assert abs(per_chain.mean() - expected) < 4 * per_chain.std() / 10


def test_options_and_state_make_it_again():
    flow = shaken(5, n_layers=3, hidden_channels=8, seed=4)
    again = Flow(**json.loads(json.dumps(flow.options))).double()
    again.load_state_dict(flow.state_dict())
    z = torch.randn(4, 5, generator=generator(), dtype=torch.float64)
    assert torch.equal(flow(z)[0], again(z)[0])


def test_seed_decides():
    samples = banana(200, 0)[0]
    first, second, third = (fit_flow(samples, epochs=3, generator=generator(seed)).flow.log_scale for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_what_is_refused():
    samples = banana(200, 0)[0]
    with pytest.raises(ConfigError, match=r"dim is 1"):
        Flow(1)
    with pytest.raises(ConfigError, match=r"n_layers is 0"):
        Flow(2, n_layers=0)
    with pytest.raises(ConfigError, match=r"scale_limit is 0"):
        Flow(2, scale_limit=0.0)
    with pytest.raises(ConfigError, match=r"The flow has 3 dimensions and the samples 2"):
        fit_flow(samples, flow=Flow(3), generator=generator())
    with pytest.raises(ConfigError, match=r"validation is 1.5"):
        fit_flow(samples, validation=1.5, generator=generator())
    with pytest.raises(DataError, match=r"fitted to 5 samples"):
        fit_flow(samples[:5], generator=generator())
    with pytest.raises(DataError, match=r"1 of 200 samples are not finite, the first is number 3"):
        fit_flow(samples.index_fill(0, torch.tensor([3]), torch.nan), generator=generator())
    with pytest.raises(DataError, match=r"Components \[1\] of the samples are constant"):
        fit_flow(samples * torch.tensor([1.0, 0.0]), generator=generator())
    with pytest.raises(ConfigError, match=r"samples are \(200,\)"):
        fit_flow(samples[:, 0], generator=generator())

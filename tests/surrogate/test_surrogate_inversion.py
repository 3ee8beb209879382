"""Inversion: what a surrogate itself has made is found again, with honest bands; every part of the likelihood."""

import warnings

import pytest
import torch
from tiny_latent import untrained

from sciml.errors import ConfigError
from sciml.inference import ChainsDisagreeWarning
from sciml.surrogate import OutOfRangeWarning
from sciml.surrogate.latent import Observations, bands
from sciml.surrogate.latent.inversion import _consistency, doubts

QUICK = {"draws": 60, "warmup": 60, "chains": 2, "starts": 4}
pytestmark = pytest.mark.filterwarnings(
    "ignore::sciml.inference.ChainsDisagreeWarning", "ignore::sciml.surrogate.OutOfRangeWarning"
)


def seen(surrogate, sensors: int = 40, noise: float = 0.0):
    """A latent vector, what the surrogate makes of it at random points, and the true input function."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(1, surrogate.operator.latent, generator=generator)
    points = 0.05 + 0.9 * torch.rand(sensors, 2, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        inputs = surrogate.decoded_input(z)
        values = surrogate.values(z, points.float(), inputs)[0].T.double()
    values = values + noise * values.std() * torch.randn(values.shape, generator=generator, dtype=torch.float64)
    return inputs[0], Observations(points, values, ("pressure",)), noise * float(values.std())


def far_apart(surrogate):
    """Weights large enough that latent vectors matter."""
    with torch.no_grad():
        for decoder in (surrogate.operator.solution_decoder, surrogate.operator.coefficient_decoder):
            for parameter in decoder.branch.parameters():
                parameter.mul_(2.0)
    return surrogate.eval().requires_grad_(False)


@pytest.mark.parametrize("method", ["hmc", "pcn", "vi", "map"])
def test_what_the_surrogate_made_is_found_again(method):
    surrogate = far_apart(untrained("darcy", "smooth"))
    truth, observations, noise = seen(surrogate, noise=0.02)
    found = surrogate.invert(observations, noise, method=method, **QUICK)
    away = (surrogate.decoded_input(torch.zeros(1, surrogate.operator.latent))[0] - truth).norm()
    assert float((found.input_mean() - truth).norm()) < 0.5 * float(away)
    assert found.misfit < 1.6 and found.method == method
    assert (found.diagnostics is None) == (method in ("vi", "map"))
    low, high = found.input_bands(0.9)
    if method != "map":
        inside = float(((low <= truth) & (truth <= high)).float().mean())
        assert inside > 0.5 and bool((low < high).all())
    assert found.solutions().shape == (len(found.inputs()), 1, len(surrogate.points))


@pytest.mark.parametrize("subset", ["smooth", "piecewise", "waves"])
def test_input_functions_are_drawn_from_their_own_prior(subset):
    surrogate = far_apart(untrained("darcy", subset))
    problem = surrogate.problem
    generator = torch.Generator().manual_seed(3)
    truth = problem.inputs_from_normals(torch.randn(1, problem.n_normals, generator=generator))
    latent = surrogate.operator.encode(surrogate.standardised(truth)).mean
    values = surrogate.values(latent, surrogate.points, truth)[0, 0]
    noise = 0.02 * float(values.std())
    observed = values + noise * torch.randn(len(values), generator=generator)
    observations = Observations(surrogate.points.double(), observed.double().unsqueeze(1), ("pressure",))
    found = surrogate.invert(observations, noise, method="field", draws=40, warmup=60, chains=4)
    inputs, solutions = found.inputs(), found.solutions()
    assert inputs.shape == (160, len(problem.input_points)) and found.optimum is None and found.diagnostics is not None
    assert found.draws.shape == (4, 40, problem.n_normals) and found.misfit < 2.5
    own = surrogate.operator.encode(surrogate.standardised(inputs[7:8])).mean
    torch.testing.assert_close(solutions[7], surrogate.values(own, surrogate.points, inputs[7:8])[0])
    prior = problem.inputs_from_normals(torch.randn(200, problem.n_normals, generator=generator)).mean(0)
    if subset == "waves":  # of the others the untrained encoder hardly tells one from another
        assert (found.input_mean() - truth[0]).norm() < 0.9 * (prior - truth[0]).norm()
    assert torch.equal(found.with_decoder_noise(inputs), inputs)
    if subset == "piecewise":
        assert set(inputs.unique().tolist()) == {5.0, 10.0}


def test_a_prior_that_the_problem_does_not_state():
    surrogate = untrained("burgers").eval()
    observations = Observations(surrogate.points[:9].double(), torch.ones(9, 1, dtype=torch.float64), ("velocity",))
    with pytest.raises(ConfigError, match="use method 'hmc', 'pcn' or 'vi'"):
        surrogate.invert(observations, 0.1, method="field")


def test_noise_that_is_not_known_is_found():
    surrogate = far_apart(untrained("darcy", "smooth"))
    _, observations, noise = seen(surrogate, sensors=80, noise=0.1)
    found = surrogate.invert(observations, None, **QUICK)
    unit = float(observations.values.square().mean().sqrt())
    assert found.misfit is None and found.noise is None
    assert 0.7 * noise < float(found.noise_draws().median()) * unit < 1.4 * noise


def test_two_values_are_drawn_with_their_probability():
    surrogate = untrained("darcy", "piecewise").eval()
    _, observations, _ = seen(surrogate)
    found = surrogate.invert(observations, 0.1, method="vi", **QUICK)
    drawn = found.with_decoder_noise(torch.full((4000, 3), 6.0))
    assert set(drawn.unique().tolist()) == {5.0, 10.0}
    torch.testing.assert_close(drawn.mean(0), torch.full((3,), 6.0), atol=0.15, rtol=0)


def test_consistency_is_the_upper_half_of_a_normal_distribution():
    surrogate = untrained("darcy", "smooth").eval().requires_grad_(False)
    z = torch.randn(5, surrogate.operator.latent, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        level = surrogate.log_residual(z)
        surrogate.consistency = (float(level.mean()), 0.5)
        expected = -0.5 * ((level - level.mean()) / 0.5).clamp(min=0) ** 2
        torch.testing.assert_close(_consistency(surrogate, z), expected)
    # A candidate with its own residual: log of what the problem says of the decoded pair.
    inputs = surrogate.decoded_input(z)
    points = surrogate.problem.collocation(None, z)
    own = surrogate.problem.residual_square(points, surrogate.candidate(z, points, inputs), inputs)
    torch.testing.assert_close(level, own.detach().log())


def test_what_cannot_be_explained_is_said():
    surrogate = far_apart(untrained("darcy", "smooth"))
    _, observations, noise = seen(surrogate, noise=0.02)
    wild = Observations(observations.points, 30 * observations.values.flip(0), observations.channels)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = surrogate.invert(wild, noise, method="map", starts=4)
    assert any(issubclass(each.category, OutOfRangeWarning) and "not explained" in str(each.message) for each in caught)
    assert doubts(found)


def test_chains_that_disagree_are_said():
    surrogate = far_apart(untrained("darcy", "smooth"))
    _, observations, noise = seen(surrogate, noise=1e-4)
    with pytest.warns(ChainsDisagreeWarning):
        surrogate.invert(observations, noise, method="pcn", draws=8, warmup=1, chains=4, starts=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 0.0}, r"the noise is 0\.0"),
        ({"noise": -1.0}, r"the noise is -1\.0"),
        ({"method": "mcmc"}, "unknown method 'mcmc'"),
        ({"draws": 3}, "each needs 8 or more"),
        ({"chains": 0}, "chains is 0"),
    ],
)
def test_bad_arguments(options, message):
    surrogate = untrained("darcy", "smooth")
    _, observations, _ = seen(surrogate)
    with pytest.raises(ConfigError, match=message):
        surrogate.invert(observations, **{"noise": 0.1, **options})


def test_bands_of_a_level_that_is_none():
    with pytest.raises(ConfigError, match="level of a band"):
        bands(torch.zeros(3, 2), 1.5)

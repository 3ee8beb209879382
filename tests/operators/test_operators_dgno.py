"""DGNO: encoders, the distribution of its latent vectors, both decoders and their derivatives, storage, errors."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.operators import LATENT_OPERATORS
from sciml.operators.dgno import DGNO, LatentNormal
from sciml.operators.dgno.cosine import CosineDecoder

DOUBLE = torch.float64
SMALL = {
    "cosine": {"modes": 3, "hidden_channels": 5, "n_layers": 1},
    "multionet": {"hidden_channels": 5, "n_layers": 3, "averaged_layers": 2},
}


def network(decoder="cosine", dtype=DOUBLE, **options) -> DGNO:
    torch.manual_seed(0)
    fixed = {
        "n_inputs": 12,
        "out_channels": 2,
        "low": (0.0, -1.0),
        "high": (2.0, 3.0),
        "latent": 4,
        "encoder_channels": (6,),
        "decoder": decoder,
        "coefficient_decoder": decoder,
        "decoder_options": SMALL[decoder],
        "coefficient_options": SMALL[decoder],
    }
    return DGNO(**{**fixed, **options}).to(dtype)


def points(count=7):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 2, dtype=DOUBLE, generator=generator) * torch.tensor([2.0, 4.0]) - torch.tensor([0.0, 1.0])


# ---------------------------------------------------------------------------------------------------------- the encoder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder": "convolution", "input_shape": (4, 3), "encoder_channels": (3, 5)},
        {"encoder": "convolution", "input_shape": (12,), "encoder_channels": (3,)},
        {"encoder": "convolution", "input_shape": (2, 3, 2), "encoder_channels": (3,)},
    ],
)
def test_encoders_read_one_value_a_point(options):
    net = network(**options)
    x = torch.randn(5, 12, dtype=DOUBLE)
    found = net.encode(x)
    assert found.mean.shape == found.log_std.shape == (5, 4)
    torch.testing.assert_close(net.encode(x[2:3]).mean, found.mean[2:3])  # cases do not see one another
    assert not torch.allclose(found.mean[0], found.mean[1])
    with pytest.raises(DataError, match=r"the input function has shape \(5, 11\); expected \(B, 12\)"):
        net.encode(x[:, :11])


def test_convolutions_see_neighbours_on_the_grid():
    """Of an input on 8 x 8 points the first convolution's outputs change near the point that changes alone."""
    net = network(n_inputs=64, encoder="convolution", input_shape=(8, 8), encoder_channels=(3,))
    x = torch.zeros(2, 64, dtype=DOUBLE)
    x[1, 6 * 8 + 1] = 1.0  # row 6, column 1
    first = net.encoder[1](net.encoder[0](x))
    changed = (first[1] - first[0]).abs().sum(0) > 1e-12
    assert changed.nonzero().tolist() == [[3, 0], [3, 1]]


def test_without_variation_the_latent_vector_is_one_point():
    net = network(variational=False)
    found = net.encode(torch.randn(3, 12, dtype=DOUBLE))
    assert float(found.log_std.max()) == -8.0 and found.mean.shape == (3, 4)


def test_deviations_stay_within_bounds():
    found = network().encode(1e6 * torch.randn(50, 12, dtype=DOUBLE)).log_std.detach()
    assert float(found.min()) == -8.0 and float(found.max()) == 2.0


def test_divergence_is_that_of_normal_distributions():
    mean, log_std = torch.randn(6, 5, dtype=DOUBLE), torch.randn(6, 5, dtype=DOUBLE)
    expected = kl_divergence(Normal(mean, log_std.exp()), Normal(torch.zeros(5, dtype=DOUBLE), 1.0)).sum(1)
    torch.testing.assert_close(LatentNormal(mean, log_std).divergence(), expected)
    assert float(LatentNormal(torch.zeros(1, 3), torch.zeros(1, 3)).divergence()) == 0


def test_samples_have_mean_and_deviation_and_follow_the_generator():
    found = LatentNormal(torch.tensor([[1.0, -2.0]]).expand(20_000, 2), torch.tensor([[0.5, -1.0]]).expand(20_000, 2))
    drawn, again, other = (found.sample(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)
    error = (drawn.mean(0) - torch.tensor([1.0, -2.0])) / torch.tensor([0.5, -1.0]).exp()
    assert float(error.abs().max()) < 4 / math.sqrt(20_000)
    torch.testing.assert_close(drawn.std(0), torch.tensor([0.5, -1.0]).exp(), rtol=0.03, atol=0)
    log_std = torch.zeros(1, 1, requires_grad=True)
    mean = torch.zeros(1, 1, requires_grad=True)
    sample = LatentNormal(mean, log_std).sample(torch.Generator().manual_seed(0))
    sample.backward()
    assert float(mean.grad) == 1 and float(log_std.grad) == pytest.approx(sample.item())


# ------------------------------------------------------------------------------------------------------------- decoders


@pytest.mark.parametrize("decoder", SMALL)
def test_gradients_are_those_of_autograd_in_physical_coordinates(decoder):
    net, latent, where = network(decoder), torch.randn(3, 4, dtype=DOUBLE), points().requires_grad_()
    value, gradient = net.solution_with_gradient(latent, where)
    assert value.shape == (3, 2, 7) and gradient.shape == (3, 2, 7, 2)
    torch.testing.assert_close(value, net.solution(latent, where))
    for case in range(3):
        for channel in range(2):
            (expected,) = torch.autograd.grad(net.solution(latent, where)[case, channel].sum(), where)
            torch.testing.assert_close(gradient[case, channel], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("decoder", SMALL)
def test_derivatives_by_latent_vector_and_points_against_differences(decoder):
    net, latent = network(decoder), torch.randn(2, 4, dtype=DOUBLE).requires_grad_()
    assert torch.autograd.gradcheck(net.solution_with_gradient, (latent, points(3).requires_grad_()))
    assert torch.autograd.gradcheck(net.coefficient, (latent, points(3).requires_grad_()))


@pytest.mark.parametrize("decoder", SMALL)
def test_one_basis_serves_all_latent_vectors(decoder):
    net, latent, where = network(decoder), torch.randn(5, 4, dtype=DOUBLE), points()
    basis, own = net.basis(where), net.coefficient_basis(where)
    for case in range(5):
        one = latent[case : case + 1]
        torch.testing.assert_close(
            net.solution_decoder.combine(basis, one), net.solution(latent, where)[case].unsqueeze(0)
        )
        found = net.coefficient_decoder.combine(own, one)[:, 0]
        torch.testing.assert_close(found[0], net.coefficient(latent, where)[case])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_cosine_decoder_against_its_formula(dim):
    torch.manual_seed(0)
    decoder = CosineDecoder(4, dim, 2, modes=3, hidden_channels=6, n_layers=1).to(DOUBLE)
    features, where = torch.randn(2, 4, dtype=DOUBLE), 2 * torch.rand(5, dim, dtype=DOUBLE) - 1
    coefficients = decoder.branch(features).reshape(2, 2, *[3] * dim)
    expected = torch.zeros(2, 2, 5, dtype=DOUBLE)
    for number in torch.cartesian_prod(*[torch.arange(3)] * dim).reshape(-1, dim).tolist():
        wave = torch.ones(5, dtype=DOUBLE)
        for axis, m in enumerate(number):
            wave = wave * torch.cos(math.pi * m * (where[:, axis] + 1) / 2)
        weight = 1 / (1 + math.sqrt(sum(m * m for m in number)))
        expected += coefficients[(slice(None), slice(None), *number)].unsqueeze(-1) * weight * wave
    torch.testing.assert_close(decoder(features, where), expected, rtol=1e-6, atol=1e-7)  # weights are kept in float32
    with pytest.raises(DataError, match=r"has no gradients"):
        decoder.combine_with_gradient(decoder.trunk(where), features)
    with pytest.raises(DataError, match=rf"expected \(Q, {dim}\)"):
        decoder.trunk(where[0])


def test_input_function_and_solution_may_live_in_other_coordinates():
    net = network(input_low=(0.0,), input_high=(5.0,))
    latent = torch.randn(3, 4, dtype=DOUBLE)
    line = torch.linspace(0, 5, 6, dtype=DOUBLE).unsqueeze(1)
    assert net.coefficient(latent, line).shape == (3, 6) and net.solution(latent, points()).shape == (3, 2, 7)
    torch.testing.assert_close(
        (line[[0, -1]] - net.input_centre) / net.input_half, torch.tensor([[-1.0], [1.0]]).double()
    )


# -------------------------------------------------------------------------------------------------------------- storage


@pytest.mark.parametrize("decoder", SMALL)
def test_what_is_saved_comes_back(decoder, tmp_path):
    net = network(decoder, torch.float32)
    again = DGNO.from_pretrained(net.save_pretrained(tmp_path))
    assert again.config == net.config and LATENT_OPERATORS["dgno"] is DGNO
    x, where = torch.randn(2, 12), points().float()
    assert torch.equal(again.encode(x).log_std, net.encode(x).log_std)
    latent = net.encode(x).mean
    assert torch.equal(again.solution(latent, where), net.solution(latent, where))
    assert torch.equal(again.coefficient(latent, where), net.coefficient(latent, where))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        DGNO.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"latent": 0}, r"latent is 0; expected a whole number above 0"),
        ({"encoder": "cnn"}, r"encoder is 'cnn'; expected 'perceptron' or 'convolution'"),
        ({"encoder": "convolution"}, r"needs inputs on a grid of 1 to 3 axes"),
        ({"coefficient_decoder": "cosin"}, r"unknown decoder 'cosin'; did you mean 'cosine'"),
        ({"decoder_options": {"mode": 3}}, r"decoder 'cosine' has no option 'mode'; did you mean 'modes'"),
        ({"decoder_options": {"modes": 0}}, r"modes.* is 0; expected a whole number"),
        ({"high": (0.0, 3.0)}, r"the box from \(0.0, -1.0\) to \(0.0, 3.0\) is empty"),
        ({"low": (0.0,)}, r"is empty"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        network(**options)

"""Surrogates of weak problems: units, solutions anywhere, storage, and what is refused."""

import json
import math

import pytest
import torch
from tiny_latent import untrained

import sciml
from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.inference import Flow
from sciml.physics.weak import Fields
from sciml.problems.weak import BoxProblem
from sciml.surrogate.latent import LatentSurrogate, channel_names

LINKS = {"log": ("darcy", "smooth"), "two_values": ("darcy", "piecewise"), "identity": ("burgers", None)}


def cases(surrogate: LatentSurrogate, count: int = 4) -> torch.Tensor:
    return surrogate.problem.inputs(surrogate.problem.draw_cases(count, seed=5))


# ---------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("link", LINKS)
def test_what_is_standardised_comes_back(link):
    surrogate = untrained(*LINKS[link])
    assert surrogate.problem.link == link
    inputs = cases(surrogate)
    x = surrogate.standardised(inputs)
    if link == "two_values":
        assert set(x.unique().tolist()) == {-1.0, 1.0}
        x = 40 * x  # logits of certainty
    else:
        seen = surrogate.problem.inputs(surrogate.problem.draw_cases(40, seed=0))
        own = surrogate.standardised(seen)
        assert float(own.mean()) == pytest.approx(0, abs=1e-5) and float(own.std()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(surrogate.input_from(x), inputs, rtol=1e-9, atol=1e-9)


def test_two_values_are_a_mean_under_their_probabilities():
    surrogate = untrained("darcy", "piecewise")
    logits = torch.tensor([0.0, math.log(3.0), -math.log(3.0)])
    torch.testing.assert_close(surrogate.input_from(logits), torch.tensor([7.5, 8.75, 6.25]))


@pytest.mark.parametrize("link", LINKS)
def test_reconstruction_is_a_negative_log_likelihood(link):
    surrogate = untrained(*LINKS[link])
    x = surrogate.standardised(cases(surrogate)).double()
    output = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = surrogate.reconstruction(output, x)
    if link == "two_values":
        expected = -torch.distributions.Bernoulli(logits=output).log_prob((x > 0).double()).sum(1).mean()
        torch.testing.assert_close(found, expected)
        return
    # Up to a constant: the normal density with the deviation that makes it largest.
    deviation = (output - x).square().mean().sqrt()
    best = -torch.distributions.Normal(x, deviation).log_prob(output).sum(1).mean()
    torch.testing.assert_close(found, best - 0.5 * x.shape[1] * (math.log(2 * math.pi) + 1))
    for factor in (0.9, 1.1):
        assert -torch.distributions.Normal(x, factor * deviation).log_prob(output).sum(1).mean() > best


# ------------------------------------------------------------------------------------------------------------ solutions


@pytest.mark.parametrize("problem, subset", [*LINKS.values(), ("darcy_mixed", "piecewise")])
def test_solutions_at_points_are_those_at_the_problem_s(problem, subset):
    surrogate = untrained(problem, subset)
    inputs = cases(surrogate)
    everywhere = surrogate.solve(inputs)
    assert list(everywhere) == [field.name for field in surrogate.problem.fields]
    some = torch.tensor([3, 40, 17])
    there = surrogate.solve(inputs, surrogate.problem.points[some])
    for field in surrogate.problem.fields:
        assert everywhere[field.name].shape == (4, field.components, len(surrogate.points))
        torch.testing.assert_close(there[field.name], everywhere[field.name][..., some], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        surrogate.solve(inputs[1:2])[field.name], everywhere[field.name][1:2], rtol=1e-4, atol=1e-5
    )


def test_candidates_for_training_are_the_solutions():
    surrogate = untrained("burgers").double()
    inputs = cases(surrogate)
    latent = surrogate.operator.encode(surrogate.standardised(inputs)).mean
    points = torch.tensor([[0.5, 0.3], [1.3, 0.8]], dtype=torch.float64)
    found = surrogate.candidate(latent, points, inputs)
    assert isinstance(found, Fields)
    torch.testing.assert_close(found.value, surrogate.values(latent, points, inputs))
    for axis, shift in enumerate(1e-5 * torch.eye(2, dtype=torch.float64)):
        high, low = (surrogate.values(latent, points + sign * shift, inputs) for sign in (1, -1))
        torch.testing.assert_close(found.gradient[..., axis], (high - low) / 2e-5, rtol=1e-6, atol=1e-6)


def test_names_of_channels():
    assert channel_names(untrained("darcy_mixed").problem) == ("pressure", "flux_x", "flux_y")


@pytest.mark.parametrize(
    "points, message",
    [
        (torch.tensor([[0.5, 0.5], [1.2, 0.5]]), r"1 of 2 points lie outside the domain of darcy.*point 1"),
        (torch.tensor([[0.5, math.nan]]), r"point 0 is not finite"),
        (torch.zeros(3), r"points have shape \(3,\); expected \(N, 2\) of x, y"),
        (torch.zeros(0, 2), r"points have shape \(0, 2\)"),
    ],
)
def test_bad_points(points, message):
    surrogate = untrained()
    with pytest.raises(DataError, match=message):
        surrogate.solve(cases(surrogate), points)


def test_bad_inputs():
    surrogate = untrained()
    with pytest.raises(DataError, match=r"permeability has shape \(4, 63\); expected \(cases, 64\)"):
        surrogate.solve(cases(surrogate)[:, 1:])
    with pytest.raises(DataError, match=r"it must be positive and finite"):
        surrogate.solve(-cases(surrogate))


# -------------------------------------------------------------------------------------------------------------- storage


def test_what_is_saved_gives_the_same_numbers(tmp_path):
    surrogate = untrained("darcy", "smooth")
    surrogate.errors, surrogate.input_deviation, surrogate.provenance = (0.25,), 0.125, {"seed": 3}
    torch.manual_seed(0)
    surrogate.prior = Flow(surrogate.operator.latent)
    again = sciml.load(surrogate.save(tmp_path / "s"))
    inputs = cases(surrogate)
    assert torch.equal(again.solve(inputs)["pressure"], surrogate.solve(inputs)["pressure"])
    z = torch.randn(3, surrogate.operator.latent)
    with torch.no_grad():
        torch.testing.assert_close(again.latent_from(z), surrogate.latent_from(z))
        torch.testing.assert_close(again.normal_from(again.latent_from(z)), z, rtol=1e-4, atol=1e-4)
        assert torch.equal(again.decoded_input(z), surrogate.decoded_input(z))
    for name in ("mean", "std", "errors", "input_deviation", "ranges", "provenance"):
        assert getattr(again, name) == getattr(surrogate, name), name
    assert (again.problem.name, again.problem.subset, again.problem.cells) == ("darcy", "smooth", 8)
    assert "permeability" in (tmp_path / "s" / "README.md").read_text()


def test_damaged_surrogates_are_named(tmp_path):
    surrogate = untrained()
    surrogate.prior = Flow(surrogate.operator.latent)
    surrogate.save(tmp_path)
    (tmp_path / "prior.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match=r"prior\.safetensors cannot be read"):
        sciml.load(tmp_path)
    config = json.loads((tmp_path / "surrogate.json").read_text())
    del config["mean"]
    (tmp_path / "surrogate.json").write_text(json.dumps({**config, "prior": None}))
    with pytest.raises(CheckpointError, match=r"lacks the key 'mean'"):
        sciml.load(tmp_path)


class Mine(BoxProblem):
    name, resolution = "mine", 8

    def flux(self, x, u, du, a):
        return du[:, 0]

    def source(self, x, u, du, a):
        return -a

    def draw_input(self, generator, points):
        return 1 + torch.rand(1, generator=generator, dtype=points.dtype) * points[:, 0]


def test_a_problem_of_one_s_own_is_given_to_load(tmp_path):
    problem = Mine()
    known = untrained()
    surrogate = LatentSurrogate(known.operator, problem, mean=1.0, std=0.5, ranges={"coefficient": (1, 2)})
    surrogate.save(tmp_path)
    with pytest.raises(ConfigError, match=r"'mine', a problem of your own: give it with sciml\.load\(path, problem"):
        sciml.load(tmp_path)
    with pytest.raises(ConfigError, match=r"at the resolution 8; given is 'mine', subset 'own', at 12"):
        sciml.load(tmp_path, problem=Mine(resolution=12))
    with pytest.raises(ConfigError, match=r"given is 'darcy'"):
        sciml.load(tmp_path, problem=known.problem)
    again = sciml.load(tmp_path, problem=problem)
    inputs = problem.inputs(problem.draw_cases(2, 0))
    assert torch.equal(again.solve(inputs)["solution"], surrogate.solve(inputs)["solution"])

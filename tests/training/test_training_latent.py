"""Training on weak problems: the evidence bound term by term, what is learned from, resuming, configuration errors."""

import json
import math
import shutil

import pytest
import torch
from tiny_latent import tiny_latent, untrained

import sciml
from sciml.errors import ConfigError
from sciml.problems import PROBLEMS
from sciml.problems.weak import WEAK_PROBLEMS, BoxProblem, get_weak_problem
from sciml.progress import Progress
from sciml.training import resolve_config, train
from sciml.training.latent.config import WEAK_ONLY, complete_latent
from sciml.training.latent.data import LatentBatch, LatentCases, prepare_latent
from sciml.training.latent.objective import EvidenceBound, relative_square
from sciml.training.latent.run import train_latent


def batch_of(surrogate, labelled=(True, False, True, False)):
    problem = surrogate.problem
    inputs = problem.inputs(problem.draw_cases(len(labelled), seed=9))
    mask = torch.tensor(labelled)
    return LatentBatch(inputs.float(), problem.solve(inputs).float(), mask)


# ------------------------------------------------------------------------------------------------------------ the bound


@pytest.mark.parametrize("problem, subset", [("darcy", "smooth"), ("darcy", "piecewise"), ("burgers", None)])
@pytest.mark.parametrize("learn", ["physics", "data", "both"])
def test_the_bound_is_the_sum_of_its_terms(problem, subset, learn):
    surrogate = untrained(problem, subset)
    weights = {"physics": 1.5, "data": 0.5, "divergence": 2.0, "anneal": 0.0}
    task = tiny_latent(problem, task={"learn": learn, **weights}).task
    bound, batch = EvidenceBound(surrogate, task), batch_of(surrogate)
    bound.begin(0.0)
    found = bound(batch, torch.Generator().manual_seed(3))

    generator = torch.Generator().manual_seed(3)
    weak, operator = surrogate.problem, surrogate.operator
    x = surrogate.standardised(batch.inputs)
    q = operator.encode(x)
    latent = q.mean + q.log_std.exp() * torch.randn(q.mean.shape, generator=generator)
    output = operator.coefficient(latent, weak.input_points.float())
    if weak.link == "two_values":
        expected = -torch.distributions.Bernoulli(logits=output).log_prob((x > 0).float()).sum(1).mean()
    else:
        expected = x.shape[1] / 2 * (output - x).square().mean().log()
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(q.mean, q.log_std.exp()), normal(0.0, 1.0)).sum(1).mean()
    expected = expected + 2.0 * kl
    if learn != "data":
        points = weak.collocation(generator, batch.inputs)
        squares = []
        for case in range(4):  # one case at a time
            inputs = batch.inputs[case : case + 1]
            candidate = surrogate.candidate(latent[case : case + 1], points, inputs)
            squares.append(weak.residual_square(points, candidate, inputs))
        expected = expected + 1.5 * weak.n_residuals / 2 * torch.cat(squares).mean().log()
    if learn != "physics":
        made = surrogate.values(latent, surrogate.points, batch.inputs)
        squares = [((made[i] - batch.solutions[i]).norm() / batch.solutions[i].norm()) ** 2 for i in (0, 2)]
        expected = expected + 0.5 * 0.5 * len(weak.points) / 2 * (sum(squares) / 2).log()
    torch.testing.assert_close(found, expected / x.shape[1], rtol=1e-4, atol=1e-5)
    assert bound.numbers()["divergence"] == pytest.approx(kl.item(), rel=1e-4)
    assert set(bound.numbers()) == {
        "divergence",
        *(["residual"] if learn != "data" else []),
        *(["labels"] if learn != "physics" else []),
    }


def test_the_divergence_s_weight_grows_over_a_part_of_training():
    surrogate = untrained()
    bound, batch = EvidenceBound(surrogate, tiny_latent(task={"anneal": 0.5}).task), batch_of(surrogate)

    def value(fraction):
        bound.begin(fraction)
        return bound(batch, torch.Generator().manual_seed(0)).item()

    none, half, whole, late = (value(fraction) for fraction in (0.0, 0.25, 0.5, 0.9))
    assert whole == late and half == pytest.approx((none + whole) / 2, rel=1e-5)
    assert whole - none == pytest.approx(bound.numbers()["divergence"] / batch.inputs.shape[1], rel=1e-3)


def test_a_batch_without_labels_learns_from_residuals_alone():
    surrogate = untrained()
    batch = batch_of(surrogate, (False, False))
    both, physics = (EvidenceBound(surrogate, tiny_latent(task={"learn": learn}).task) for learn in ("both", "physics"))
    values = [bound(batch, torch.Generator().manual_seed(0)) for bound in (both, physics)]
    assert torch.equal(*values) and "labels" not in both.numbers()


def test_relative_squares_take_the_components_of_a_field_together():
    truth = torch.zeros(1, 3, 2)
    truth[0, 0], truth[0, 1] = 2.0, 4.0
    made = truth + torch.tensor([1.0, 0.0, 2.0])[:, None]
    torch.testing.assert_close(relative_square(made, truth, [1, 2]), torch.tensor([[0.25, 0.25]]))


# ------------------------------------------------------------------------------------------------------------ the cases


def test_labelled_cases_are_the_first_and_parts_differ():
    config = tiny_latent(task={"learn": "both"}, data={"labelled": 5, "cases": {"train": 12}})
    problem = get_weak_problem("darcy", None, 8)
    split = prepare_latent(problem, config.data, Progress())
    assert len(split.train) == 12 and len(split.train.solutions) == 5 and len(split.test.solutions) == 3
    batch = split.train.batch([1, 11, 4])
    assert batch.labelled.tolist() == [True, False, True]
    expected = problem.solve(batch.inputs.double()).float()
    torch.testing.assert_close(batch.solutions[[0, 2]], expected[[0, 2]], rtol=1e-4, atol=1e-6)
    assert not torch.equal(split.train.inputs[:3], split.test.inputs)
    longer = prepare_latent(problem, config.data.model_copy(update={"labelled": 0}), Progress())
    assert torch.equal(longer.test.inputs, split.test.inputs)
    assert LatentCases(split.train.inputs, split.train.solutions[:0]).batch([0, 1]).labelled.tolist() == [False, False]


# ---------------------------------------------------------------------------------------------------- the run


@pytest.mark.parametrize("learn", ["physics", "data", "both"])
def test_learning_lowers_the_error(learn, tmp_path):
    labelled = {"both": 20}.get(learn, 0)
    config = tiny_latent(
        task={"learn": learn},
        data={"subset": "smooth", "labelled": labelled},
        budget={"steps": 80},
        validate_every=80,
        optimizer={"learning_rate": 3e-3},
    )
    before = untrained("darcy", "smooth")
    summary = train(config, tmp_path / "run").summary
    after = summary["test"]["relative_l2"]["pressure"]
    cases = get_weak_problem("darcy", "smooth", 8)
    inputs = cases.inputs(cases.draw_cases(3, 0))
    truth = cases.solve(inputs).float()
    start = relative_square(before.solve(inputs)["pressure"], truth, [1]).sqrt().mean().item()
    assert start > 0.7 and after < 0.5
    assert summary["learned_from"] == learn and math.isfinite(summary["test"]["relative_l2_against_finer"]["pressure"])
    surrogate = sciml.load(tmp_path / "run")
    assert len(surrogate.errors) == 1 and 0 < surrogate.errors[0] < truth.abs().max()
    assert surrogate.provenance["of them labelled"] == {"physics": 0, "data": 40, "both": 20}[learn]


def test_a_resumed_run_gives_the_same_bits(tmp_path):
    config = tiny_latent("burgers")
    whole = train(config, tmp_path / "whole")
    shutil.copytree(whole.directory, tmp_path / "parts")
    (tmp_path / "parts" / "summary.json").unlink()
    shutil.rmtree(max((tmp_path / "parts" / "checkpoints").iterdir()))  # as if it had been stopped after 5 steps
    parts = train(config, resume=str(tmp_path / "parts"))
    assert parts.summary["steps"] == whole.summary["steps"] == 10
    states = [sciml.load(run.directory).operator.state_dict() for run in (whole, parts)]
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["test"] == whole.summary["test"]


def test_a_prior_is_fitted_after_training(tmp_path):
    run = train(tiny_latent(task={"prior": "flow"}), tmp_path / "run")
    surrogate = sciml.load(run.directory)
    z = torch.randn(3, 6)
    with torch.no_grad():
        assert surrogate.prior is not None and not torch.allclose(surrogate.latent_from(z), z)
        torch.testing.assert_close(surrogate.normal_from(surrogate.latent_from(z)), z, rtol=1e-3, atol=1e-3)


class Reaction(BoxProblem):
    name, resolution = "reaction", 8

    def flux(self, x, u, du, a):
        return a.unsqueeze(-1) * du[:, 0]

    def source(self, x, u, du, a):
        return u[:, 0] ** 3 - 50

    def draw_input(self, generator, points):
        return 1 + torch.rand(1, generator=generator, dtype=points.dtype) * points[:, 0]


@pytest.mark.parametrize("learn", ["physics", "data"])
def test_a_problem_of_one_s_own(learn, tmp_path):
    config = tiny_latent(
        task={"learn": learn}, budget={"steps": 80}, validate_every=80, optimizer={"learning_rate": 3e-3}
    )
    config = config.model_copy(update={"data": config.data.model_copy(update={"subset": "all", "resolution": None})})
    problem = Reaction()
    run = train_latent(config, tmp_path / "run", problem=problem)
    assert run.summary["problem"] == "reaction" and run.summary["test"]["relative_l2"]["solution"] < 0.5
    assert "problem: reaction" in (run.directory / "config.yaml").read_text()
    assert sciml.load(run.directory, problem=problem).provenance["of them labelled"] == (
        0 if learn == "physics" else 40
    )


# ---------------------------------------------------------------------------------------------------- errors


def test_problems_without_another_form_are_known_before_torch_is():
    assert set(WEAK_ONLY) == set(WEAK_PROBLEMS) - set(PROBLEMS)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data": {"labelled": 4}}, r"data.labelled is 4, but task.learn=physics looks at no solution"),
        (
            {"task": {"learn": "both"}, "data": {"labelled": 41}},
            r"data.labelled is 41, more than the 40 training cases",
        ),
        ({"task": {"learn": "fysics"}}, r"'task.learn' is 'fysics'"),
        ({"task": {"physiks": 1.0}}, r"unknown configuration key 'task.physiks'; did you mean 'physics'"),
        ({"data": {"subset": "smoth"}}, r"no subset 'smoth'"),
        ({"data": {"resolution": 3}}, r"'data.resolution' is 3"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_latent(**changes)


def test_bad_operators_and_keys():
    with pytest.raises(ConfigError, match=r"operator 'dgno' has no argument 'latents'; did you mean 'latent'"):
        untrained(operator={"latents": 3})
    with pytest.raises(ConfigError, match=r"is learned by dgno alone; operator 'fno' cannot"):
        resolve_config("stokes", "fno")
    with pytest.raises(ConfigError, match=r"experts is for operators between fields on grids"):
        resolve_config("darcy", "dgno", overrides=["experts.tiles=[2,2]"])


def test_an_own_problem_has_its_own_mesh_and_subset():
    config = tiny_latent(data={"resolution": 12})
    with pytest.raises(ConfigError, match=r"data.resolution is 12 and data.subset 'piecewise', but the problem.*has 8"):
        complete_latent(config, Reaction())

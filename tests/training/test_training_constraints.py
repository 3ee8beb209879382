"""Constraints in training, in evaluation, on disk and on the command line."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import tiny_config, tiny_run_config
from typer.testing import CliRunner

import sciml
from sciml.cli.main import app
from sciml.constraints import CONSTRAINTS, create_constraint
from sciml.errors import ConfigError
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.surrogate import OutOfRangeWarning
from sciml.surrogate.constraining import Imposed, problem_context
from sciml.training import train
from sciml.training.build import build_constraints, build_operator, build_surrogate
from sciml.training.config import make_config
from sciml.training.data import prepare, trajectories

BOTH = [{"name": "divergence-free"}, {"name": "boundary-values"}]


@pytest.fixture(scope="module")
def run(cavity_file, tmp_path_factory):
    """A finished run of the cavity with both constraints."""
    values = tiny_config(cavity_file, constraints=BOTH)
    return train(make_config(values), tmp_path_factory.mktemp("constrained") / "run")


def test_the_table_says_before_and_after(run):
    rows = {row["constraint"]: row for row in run.summary["test"]["constraints"]}
    assert list(rows) == ["divergence-free", "boundary-values"]
    for row in rows.values():
        assert row["imposed"] == "both"
        assert row["before"] > 1e-3 and row["after"] < 2e-6 and row["rollout"] < 2e-6
    assert rows["divergence-free"]["truth"] < 2e-6
    logged = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    found = [line["validation_residual_divergence-free"] for line in logged if "validation_nmse" in line]
    assert found and max(found) < 2e-6


def test_saved_with_the_surrogate(run, cavity_file):
    surrogate = sciml.load(run.directory)
    kept = [(imposed.constraint.name, imposed.when) for imposed in surrogate.imposed]
    assert kept == [("divergence-free", "both"), ("boundary-values", "both")]
    assert "divergence-free" in (run.directory / "surrogate" / "README.md").read_text()
    data, parameters, context = a_state(surrogate, cavity_file)
    with pytest.warns(OutOfRangeWarning):  # of 14 cases, the three others lie outside
        made = surrogate.rollout(data, parameters, 3)
    for frame in made.unbind(1):
        for imposed in surrogate.imposed:
            assert float(imposed.constraint.residual(frame, context).max()) < 2e-6


def a_state(surrogate, file):
    """The third frame of three cases, their parameters, and the context of a prediction."""
    config = tiny_run_config(tiny_config(file))
    problem = get_problem("cavity")
    (part,) = prepare(config.data, problem, "cpu", Progress()).test
    cases = trajectories(part, ["velocity"])
    parameters = {name: values[:, 0] for name, values in cases.parameters.items()}
    context = problem_context(problem, surrogate.fields, parameters, cases.state.shape[3:])
    return cases.state[:, 2], parameters, context


@pytest.mark.parametrize("when", ["both", "training", "evaluation"])
def test_when(cavity_file, when):
    values = tiny_config(cavity_file, constraints=[{"name": "divergence-free", "when": when}])
    config = tiny_run_config(values)
    problem = get_problem("cavity")
    split = prepare(config.data, problem, "cpu", Progress())
    surrogate = build_surrogate(config, problem, build_operator(config, problem), split.train)
    state, parameters, context = a_state(surrogate, cavity_file)
    interval = torch.full((len(state),), problem.frame_interval, dtype=torch.float64)
    (constraint,) = (imposed.constraint for imposed in surrogate.imposed)
    for mode, training in (("training", True), ("evaluation", False)):
        surrogate.train(training)
        with torch.no_grad():
            residual = float(constraint.residual(surrogate(state.unsqueeze(1), parameters, interval), context).max())
        assert (residual < 2e-6) == (when in ("both", mode)), (mode, residual)


def test_training_differentiates_through_the_constraints(cavity_file, tmp_path):
    """The weights differ from those of an unconstrained run: the loss saw the constrained prediction."""
    weights = []
    for constraints in ([], BOTH, [{**each, "when": "evaluation"} for each in BOTH]):
        result = train(make_config(tiny_config(cavity_file, constraints=constraints)), tmp_path / str(len(weights)))
        weights.append(torch.cat([p.flatten() for p in sciml.load(result.directory).operator.parameters()]))
    assert torch.equal(weights[0], weights[2])
    assert not torch.allclose(weights[0], weights[1])


def test_not_imposed_but_watched(cavity_file, tmp_path):
    result = train(make_config(tiny_config(cavity_file)), tmp_path / "run")
    (row,) = result.summary["test"]["constraints"]
    assert row["constraint"] == "divergence-free" and row["imposed"] == "no"
    assert row["before"] == row["after"] > 1e-3 > 2e-6 > row["truth"]


@pytest.mark.parametrize(
    "constraints, message",
    [
        ([{"name": "divergence-fre"}], "unknown constraint 'divergence-fre'.*did you mean 'divergence-free'"),
        ([{"name": "divergence-free", "methd": "mac"}], "no option 'methd'.*did you mean 'method'"),
        ([{"name": "divergence-free", "method": "spectral"}], "periodic"),
        ([{"name": "divergence-free", "when": "always"}], r"constraints\.0\.when"),
    ],
)
def test_mistakes_are_met_before_the_data(constraints, message):
    values = {"problem": "cavity", "constraints": constraints}
    with pytest.raises(ConfigError, match=message):
        build_constraints(tiny_run_config(values), get_problem("cavity"))


@pytest.mark.parametrize(
    "problem, name, message",
    [
        ("burgers", "divergence-free", "velocity of problem 'burgers' is not divergence-free: leave"),
        ("cylinder", "divergence-free", "is not divergence-free on the cells beside its obstacles"),
        ("periodic_flow", "boundary-values", "leaves every field .* as it is"),
        ("tube", "conservation", "needs the option 'totals'"),
    ],
)
def test_constraints_that_make_no_sense(problem, name, message):
    config = tiny_run_config({"problem": problem, "dim": 2, "constraints": [{"name": name}]})
    with pytest.raises(ConfigError, match=message):
        build_constraints(config, get_problem(problem, 2))


@pytest.mark.parametrize(
    "problem, constraint",
    [
        ("tube", {"name": "divergence-free"}),
        ("tube", {"name": "boundary-values", "components": "tangential", "gap": 8}),
        ("periodic_flow", {"name": "divergence-free", "method": "spectral"}),
        ("burgers", {"name": "conservation", "totals": "velocity"}),
        ("darcy", {"name": "boundary-values"}),
        ("diffusion_sorption", {"name": "boundary-values"}),
    ],
)
def test_constraints_of_other_problems(problem, constraint):
    config = tiny_run_config({"problem": problem, "constraints": [constraint]})
    (imposed,) = build_constraints(config, get_problem(problem))
    assert imposed.constraint.name == constraint["name"]


def test_nothing_to_act_on():
    config = tiny_run_config({"problem": "diffusion_sorption", "constraints": [{"name": "divergence-free"}]})
    with pytest.raises(ConfigError, match=r"'divergence-free' has nothing to act on .*concentration"):
        build_constraints(config, get_problem("diffusion_sorption"))


def test_when_is_checked_in_code():
    with pytest.raises(ConfigError, match=r"when='always'"):
        Imposed(create_constraint("divergence-free"), "always")  # type: ignore[arg-type]


def test_command_line(run):
    runner = CliRunner()
    told = runner.invoke(app, ["evaluate", str(run.directory)])
    assert told.exit_code == 0, told.output
    assert "largest relative residual" in told.output and "boundary-values" in told.output
    config = runner.invoke(app, ["train", "-p", "cavity", "--constraint", "divergence-free", "--print-config"])
    assert "name: divergence-free" in config.output
    wrong = runner.invoke(app, ["train", "-p", "cavity", "--constraint", "divergence-fre"])
    assert wrong.exit_code != 0 and "did you mean 'divergence-free'" in wrong.output


def test_names_on_the_command_line_are_those_of_the_registry():
    from sciml.cli import options

    assert sorted(CONSTRAINTS) == list(options.CONSTRAINTS)

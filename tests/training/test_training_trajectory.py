"""Training without data: whole trajectories from the residual alone, soft and with experts, from the command line."""

import json
import os
import signal
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import sciml
from sciml.cli.main import app
from sciml.constraints.least_squares import LeastSquaresWarning
from sciml.datasets import DatasetFile
from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.problems import get_problem
from sciml.surrogate import OutOfRangeWarning, TrajectorySurrogate
from sciml.surrogate.trajectory import coordinates, equation_residual
from sciml.training import evaluate_run, train
from sciml.training.config import resolve_config
from sciml.training.loop import Interrupted, Trainer
from sciml.training.random_cases import RandomCases, random_cases
from sciml.training.trajectory import ResidualLoss, build_trajectory_surrogate

TINY = {
    "diffusion_sorption": ["data.frames=6", "data.interval=100.0", "operator.n_modes=[3,5]", "experts.tiles=[1,2]"],
    "vorticity": ["data.frames=4", "data.interval=0.1", "operator.n_modes=[3,5,5]", "experts.tiles=[1,2,1]"],
    "burgers": ["data.frames=4", "data.resolution=128", "operator.n_modes=[3,5]", "experts.tiles=[1,2]"],
    "darcy": ["operator.n_modes=[5,5]", "experts.tiles=[1,2]"],
}
SHARED = [
    "data.resolution=16",
    "data.cases.validation=2",
    "data.cases.test=3",
    "data.workers=1",
    "operator.hidden_channels=6",
    "operator.n_layers=1",
    "experts.bases=4",
    "batch_size=2",
    "validate_every=4",
    "checkpoint.every_steps=2",
    "budget.steps=4",
    "device=cpu",
]


def words(problem: str, hard: bool, folder: Path, *more: str) -> list[str]:
    given = [*SHARED, *TINY[problem], f"data.directory={folder / 'data'}", *more]
    return given if hard else [each for each in given if not each.startswith("experts")]


def config(problem: str, hard: bool, folder: Path, *more: str):
    return resolve_config(
        problem, overrides=words(problem, hard, folder, *more), flags={"task": {"kind": "trajectory"}}
    )


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One finished run of each kind, trained when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("trajectories"), {}

    def run(problem: str, hard: bool, *more: str) -> Path:
        key = (problem, hard, more)
        if key not in made:
            made[key] = train(config(problem, hard, folder, *more), folder / f"run{len(made)}")
        return made[key].directory

    run.folder = folder
    return run


# -------------------------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
@pytest.mark.parametrize("problem", TINY)
def test_a_run_ends_with_a_surrogate_that_solves(runs, problem, hard):
    run = runs(problem, hard)
    test = json.loads((run / "summary.json").read_text())["test"]
    assert test["cases"] == 3 and 0 < test["relative_l2"] < 1.5 and test["residual"] > 0
    surrogate = sciml.load(run)
    assert isinstance(surrogate, TrajectorySurrogate) and (surrogate.experts is not None) == hard
    own = get_problem(problem)
    parameters = own.sample(2, read(run)["data"]["subset"], 5, surrogate.grid[0]).parameters
    fields = solve(surrogate, parameters)
    truth = own.solve(parameters, surrogate.grid, surrogate.times)
    assert fields.keys() == truth.keys()
    for name, values in truth.items():
        assert fields[name].shape == values.shape and fields[name].dtype == values.dtype
    torch.testing.assert_close(fields["time"], truth["time"])
    if not own.static:  # the first frame is given
        name = own.learned[0]
        torch.testing.assert_close(fields[name][:, 0], truth[name][:, 0], rtol=1e-6, atol=1e-6)
    again = solve(sciml.load(run / "surrogate"), parameters)
    for name in fields:  # not to the bit: where its memory lies may decide how a matrix product is rounded
        torch.testing.assert_close(again[name], fields[name], rtol=1e-5, atol=1e-6)
    assert not list((run / "surrogate").glob("*.p*t*")) and "without data" in (run / "surrogate/README.md").read_text()


def read(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


def solve(surrogate, parameters, **given):
    with warnings.catch_warnings():
        # Neither range nor convergence are the matter of a network that has hardly been trained.
        warnings.simplefilter("ignore", OutOfRangeWarning)
        warnings.simplefilter("ignore", LeastSquaresWarning)
        return surrogate.solve(parameters, **given)


def test_solver_agrees_with_the_evaluation(runs):
    """What the summary says is what ``solve`` and ``problem.solve`` give on the held-out cases."""
    run = runs("vorticity", True)
    surrogate, test = sciml.load(run), json.loads((run / "summary.json").read_text())["test"]
    assert evaluate_run(run) == test
    (file,) = (runs.folder / "data").glob("vorticity*.h5")
    data = DatasetFile(file)
    assert data.n_cases == 5  # validation and test, none to train on
    everything = evaluate_run(run, [file])
    parameters = {name: torch.as_tensor(values) for name, values in data.parameters.items()}
    made = solve(surrogate, parameters)["vorticity"][:, 1:].flatten(1)
    truth = data.state()[:, 1:].flatten(1)
    error = ((made - truth).norm(dim=1) / truth.norm(dim=1)).mean()
    assert everything["relative_l2"] == pytest.approx(float(error), rel=1e-4)
    assert everything["persistence_relative_l2"] > 0 and everything["truth_residual"] < everything["residual"]
    report = surrogate.residual_report(parameters)
    assert everything["residual"] == pytest.approx(float(report["residual"].mean()), rel=1e-4)
    assert report.keys() == {"residual", "sampled", "held_out", "jump", "failed"}


def test_training_lowers_the_residual(tmp_path):
    """The loss of a fixed set of cases, before and after 120 soft steps."""
    more = ("budget.steps=120", "validate_every=120", "checkpoint.every_steps=120", "operator.hidden_channels=12")
    chosen = config("diffusion_sorption", False, tmp_path, *more)
    problem = get_problem("diffusion_sorption")
    untrained = build_trajectory_surrogate(chosen, problem)
    cases = random_cases(chosen, problem).batch(range(10**6, 10**6 + 8))
    trained = sciml.load(train(chosen, tmp_path / "run").directory)
    before, after = (
        float(ResidualLoss(each)(cases, torch.Generator().manual_seed(0)).detach()) for each in (untrained, trained)
    )
    assert after < 0.5 * before


def test_experts_lower_the_residual_of_an_untrained_network(tmp_path):
    problem = get_problem("diffusion_sorption")
    losses = []
    for hard in (False, True):
        surrogate = build_trajectory_surrogate(config("diffusion_sorption", hard, tmp_path), problem)
        cases = random_cases(config("diffusion_sorption", hard, tmp_path), problem).batch(range(4))
        loss = ResidualLoss(surrogate)
        losses.append(float(loss(cases, torch.Generator().manual_seed(0)).detach()))
        assert loss.numbers().get("solves") == (4 if hard else None)
    assert losses[1] < 0.3 * losses[0]


def test_loss_is_the_residual_of_the_equation(tmp_path):
    """Geometric mean of the root mean square rows, here from the problem's own equation."""
    problem = get_problem("burgers")
    chosen = config("burgers", False, tmp_path)
    surrogate, cases = build_trajectory_surrogate(chosen, problem), random_cases(chosen, problem).batch(range(3))
    loss = ResidualLoss(surrogate)(cases, torch.Generator())
    fields = solve(surrogate, cases.parameters)["velocity"][:, :, 0].double()
    equation = problem.equation(cases.parameters, surrogate.grid, surrogate.times)
    rows = equation.rows(fields).flatten(1).square().mean(1).sqrt()
    assert float(loss.detach()) == pytest.approx(float(rows.log().mean().exp()), rel=1e-4)
    torch.testing.assert_close(equation_residual(equation, fields), rows)


def test_gradient_is_a_mean_over_cases_however_they_are_divided(tmp_path):
    """So several processes, whose gradients are averaged, take the steps of one."""
    problem, chosen = get_problem("diffusion_sorption"), config("diffusion_sorption", True, tmp_path)
    surrogate, source = build_trajectory_surrogate(chosen, problem), random_cases(chosen, problem)
    loss = ResidualLoss(surrogate)

    def gradient(numbers):
        surrogate.zero_grad()
        loss(source.batch(numbers), torch.Generator().manual_seed(0)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in surrogate.parameters()])

    whole, parts = gradient([0, 1, 2, 3]), (gradient([0, 2]) + gradient([1, 3])) / 2
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-3 * float(whole.abs().max()))


def test_failed_solves_and_held_out_rows_are_logged(runs):
    run = runs("diffusion_sorption", True, "experts.samples=12", "experts.iterations=1")
    lines = lines_of(run)
    assert lines[0]["solves"] == 2 and 0 <= lines[0]["failed_solves"] <= 2
    validation = next(line for line in lines if "validation_nmse" in line)
    assert validation["validation_failed_solves"] == 2  # one iteration does not converge
    assert validation["validation_held_out_residual"] > 0
    surrogate = sciml.load(run)
    parameters = get_problem("diffusion_sorption").sample(1, "soil", 3).parameters
    with pytest.warns(LeastSquaresWarning, match="not converged"):
        surrogate.solve(parameters)


def test_no_training_case_is_solved(runs, tmp_path, monkeypatch):
    """With the held-out cases there, the solver is not needed any more."""
    runs("diffusion_sorption", False)
    problem = get_problem("diffusion_sorption")

    def refuse(*arguments, **options):
        raise AssertionError("the solver was called")

    monkeypatch.setattr(type(problem), "solve", refuse)
    with pytest.raises(AssertionError, match="the solver was called"):
        train(config("diffusion_sorption", False, tmp_path), tmp_path / "other")  # no data there: they are generated
    train(config("diffusion_sorption", False, runs.folder), tmp_path / "run")


@pytest.mark.parametrize("hard", [False, True], ids=["soft", "hard"])
def test_resume_gives_the_same_bits(runs, tmp_path, monkeypatch, hard):
    straight = runs("diffusion_sorption", hard)
    one_step = Trainer.one_step

    def interrupting(self, fraction):
        if self.position.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return one_step(self, fraction)

    chosen = config("diffusion_sorption", hard, runs.folder)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "one_step", interrupting)
        with pytest.raises(Interrupted):
            train(chosen, tmp_path / "run")
    train(chosen, resume=str(tmp_path / "run"))
    weights = [sciml.load(run).operator.state_dict() for run in (straight, tmp_path / "run")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    with pytest.raises(CheckpointError, match="another configuration"):
        train(config("diffusion_sorption", not hard, runs.folder), resume=str(tmp_path / "run"))


# ------------------------------------------------------------------------------------------------------------- parts


def test_random_cases_are_functions_of_their_numbers():
    source = RandomCases(get_problem("vorticity"), "all", 0, 32, 10)
    assert source.indices(4, 0, 0) == [0, 1, 2, 3] and source.indices(4, 3, 0) == [12, 13, 14, 15]
    whole, part = source.batch(range(6)).parameters, source.batch([4, 1]).parameters
    for name, values in whole.items():
        assert torch.equal(values[[4, 1]], part[name])
    assert len(whole["draw"].unique()) == 6
    assert (whole["forcing"] > 0).tolist() == [False, True] * 3  # decaying and forced in turn
    other = RandomCases(get_problem("vorticity"), "all", 1, 32, 10).batch(range(6)).parameters
    assert not torch.isin(other["draw"], whole["draw"]).any()


def test_coordinates_of_periodic_and_other_axes():
    found = coordinates((4, 8), (False, True), (1, 0))
    assert found.shape == (3, 5, 8)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75, 1.25]).double())
    angle = 2 * torch.pi * (torch.arange(8).double() + 0.5) / 8
    torch.testing.assert_close(found[1:, 3], torch.stack([angle.sin(), angle.cos()]))


def test_periodic_axes_are_not_padded(tmp_path):
    """Shifting the initial field of a flow without source by some cells shifts the answer, but for the coordinates."""
    problem = get_problem("vorticity")
    surrogate = build_trajectory_surrogate(config("vorticity", False, tmp_path), problem)
    known = torch.randn(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    conditions = torch.zeros(1, len(problem.condition_names))
    lifting = surrogate.operator.lifting[0].weight
    with torch.no_grad():
        lifting[:, 2:6] = 0  # sine and cosine of x and y
        moved = surrogate._output(known.roll(5, 3), conditions)
        torch.testing.assert_close(moved, surrogate._output(known, conditions).roll(5, 3), rtol=1e-4, atol=1e-5)


def test_graded_times(tmp_path):
    chosen = config("diffusion_sorption", False, tmp_path)
    surrogate = build_trajectory_surrogate(chosen, get_problem("diffusion_sorption"))
    assert surrogate.times == pytest.approx([500 * (i / 5) ** 2 for i in range(6)])


def test_given_initial_field(runs):
    surrogate = sciml.load(runs("diffusion_sorption", False))
    problem = get_problem("diffusion_sorption")
    parameters = problem.sample(2, "soil", 3).parameters
    initial = problem.initial(parameters, 16)
    other = {name: values for name, values in parameters.items() if name != "initial"}
    own, given = (solve(surrogate, p, **k) for p, k in ((parameters, {}), (other, {"initial": initial})))
    torch.testing.assert_close(own["concentration"], given["concentration"], rtol=1e-5, atol=1e-6)
    changed = solve(surrogate, other, initial=initial + 0.1)
    assert not torch.allclose(changed["concentration"], own["concentration"], atol=1e-3)
    with pytest.raises(ConfigError, match="no argument 'permeability'"):
        surrogate.solve(other, permeability=initial)
    with pytest.raises(DataError, match="grid 16"):
        surrogate.solve(other, initial=torch.ones(2, 1, 20))


def test_warns_out_of_range(runs):
    surrogate = sciml.load(runs("diffusion_sorption", False))
    problem = get_problem("diffusion_sorption")
    inside = problem.sample(1, "soil", 3).parameters
    surrogate.solve({**inside, "initial": 0.1})  # a warning would be an error
    with pytest.warns(OutOfRangeWarning) as told:
        surrogate.solve({**inside, "porosity": 0.9})
    assert any("porosity is 0.9" in str(each.message) for each in told)
    assert all(each.filename == __file__ for each in told)


# ------------------------------------------------------------------------------------------------- the command line


def test_command_line(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*words("diffusion_sorption", True, runs.folder), "--out", "run", "--json"]
    start = ("train", "--problem", "diffusion_sorption", "--physics-only", "--constraint", "mixture-of-experts")
    done = invoke(*start, *arguments)
    assert done.exit_code == 0, done.output
    figures = {path.name for path in Path("run/figures").iterdir()}
    assert {"training.png", "rollout_error.png"} <= figures and any(name.startswith("space_time") for name in figures)
    told = invoke("evaluate", "run")
    assert told.exit_code == 0 and "persistence" in told.output and "residual" in told.output
    refused = invoke("predict", "run", "--input", next((runs.folder / "data").glob("diff*.h5")), "--out", "x.h5")
    assert refused.exit_code != 0 and "whole solutions" in refused.output


def test_pictures_of_a_static_problem(runs):
    from sciml.plotting import run_figures

    names = {path.name for path in run_figures(runs("darcy", True))}
    assert {"training.png", "case_errors.png", "fields_smooth.png"} <= names


def test_experts_flag_means_the_defaults(tmp_path):
    done = invoke(
        *("train", "-p", "diffusion_sorption", "--physics-only", "--constraint", "mixture-of-experts", "--print-config")
    )
    assert done.exit_code == 0, done.output
    printed = yaml.safe_load(done.output)
    assert printed["task"]["kind"] == "trajectory" and printed["constraints"] == []
    file = tmp_path / "mine.yaml"
    file.write_text(done.output)
    assert yaml.safe_load(invoke("train", "--config", file, "--print-config").output) == printed
    assert printed["experts"]["tiles"] == [2, 8] and printed["experts"]["bases"] == 32
    soft = invoke("train", "-p", "diffusion_sorption", "--physics-only", "--print-config")
    assert yaml.safe_load(soft.output)["experts"] is None
    dotted = invoke("train", "-p", "vorticity", "--physics-only", "experts.tiles=[1,4,4]", "--print-config")
    assert yaml.safe_load(dotted.output)["experts"]["tiles"] == [1, 4, 4]


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-p", "tube", "--physics-only"), "cannot be learned without data"),
        (("-p", "cavity", "--physics-only", "task.kind=trajectory"), "cannot be learned without data"),
        (("-p", "burgers", "--dim", "2", "--physics-only", "task.kind=trajectory"), "without data in 2D"),
        (("-p", "diffusion_sorption", "--constraint", "mixture-of-experts"), "add --physics-only"),
        (("-p", "diffusion_sorption", "experts.bases=8"), "add --physics-only"),
        (("-p", "vorticity", "--physics-only", "--constraint", "boundary-values"), "single frames"),
        (("-p", "vorticity", "--physics-only", "experts.tile=[1,2,2]"), "did you mean 'tiles'"),
        (("-p", "vorticity", "--physics-only", "experts.bases=0"), "experts.bases"),
        (("-p", "vorticity", "--physics-only", "experts.tiling=glued"), "experts.tiling"),
        (("-p", "vorticity", "--physics-only", "task.points=5"), "task.points is 5"),
        (("-p", "vorticity", "--physics-only", "data.files=[a.h5]"), "data.files"),
        (("-p", "darcy", "--physics-only", "data.grading=2"), "data.grading"),
    ],
)
def test_bad_configurations(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("train", *arguments)
    assert done.exit_code != 0
    assert message in " ".join(done.output.replace("│", " ").split()), done.output
    assert not list(tmp_path.iterdir())  # nothing generated, no run


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["experts.tiles=[1,40]"], "40 tiles along axis 1 of 16"),
        (["experts.tiles=[1,2,2]"], "expected 2 counts"),
        (["experts.bases=60"], "rows for the weights of 60 basis fields"),
        (["operator.n_modes=[3,5,5]"], "has to be on 2 axes"),
        (["operator.name=poseidon"], "does not exist on|no argument"),
        (["data.subset=clay"], "no subset 'clay'"),
        (["operator.modes=3"], "no argument 'modes'"),
    ],
)
def test_what_does_not_fit_is_refused_before_generation(tmp_path, more, message):
    chosen = config("diffusion_sorption", True, tmp_path, *more)
    with pytest.raises(ConfigError, match=message):
        train(chosen, tmp_path / "run")
    assert not (tmp_path / "data").exists() and not (tmp_path / "run").exists()


def test_data_of_another_grid_or_other_times_are_refused(runs, tmp_path):
    from sciml.problems.generate import generate

    run = runs("diffusion_sorption", False)
    for options, message in (
        ({"resolution": 20, "frames": 6}, "grid of 20 cells"),
        ({"resolution": 16, "frames": 6, "interval": 50.0}, "frames up to 250 s"),
    ):
        file = generate("diffusion_sorption", tmp_path / f"{message[-5:]}.h5", cases=2, **options)
        with pytest.raises(DataError, match=message):
            evaluate_run(run, [file])

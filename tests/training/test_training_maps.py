"""Maps from fields, points or parameters to fields: training, evaluation, the surrogate, the command line."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_run_config
from typer.testing import CliRunner

import sciml
from sciml.datasets import DatasetFile
from sciml.errors import ConfigError, DataError
from sciml.operators.layers.scattered import nearest_values
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.surrogate import OutOfRangeWarning
from sciml.training import map_evaluation, train
from sciml.training.build import build_operator, build_surrogate
from sciml.training.config import complete, make_config, resolve_config
from sciml.training.data import MapCases, prepare
from sciml.training.losses import relative_l2
from sciml.training.run import evaluate_run
from sciml.training.tasks import PairLoss, observed

KINDS = {
    "fields": {"kind": "map"},
    "points": {"kind": "map", "points": 40},
    "parameters": {"kind": "map"},
}


def map_config(file, kind, **changes):
    inputs = [] if kind == "parameters" else ["velocity"]
    values = tiny_config(file, task=KINDS[kind], **changes)
    values["data"] = values["data"] | {"inputs": inputs}
    return values


@pytest.fixture(scope="module", params=list(KINDS))
def run(request, cavity_file, tmp_path_factory):
    """A finished run of each kind of map on the cavity: the initial (and last) velocity to the last one."""
    directory = tmp_path_factory.mktemp("maps") / request.param
    values = map_config(cavity_file, request.param, budget={"steps": 12})
    return request.param, train(make_config(values), directory)


def test_run_writes_scores_of_every_contender(run):
    _, result = run
    test = result.summary["test"]
    assert test["cases"] == 3
    for prefix in ("", "mean_", "lookup_"):
        assert test[prefix + "relative_l2_worst"] >= test[prefix + "relative_l2"] > 0
        assert math.isclose(test[prefix + "nmse"], test[prefix + "nmse"]) and test[prefix + "nmse"] > 0
    per_subset = test["per_subset"].values()
    mean = sum(row["cases"] * row["nmse"] for row in per_subset) / 3
    assert math.isclose(mean, test["nmse"], rel_tol=1e-6)


def test_surrogate_loads_and_solves_as_evaluated(run, cavity_file):
    kind, result = run
    surrogate = sciml.load(result.directory)
    file = DatasetFile(cavity_file)
    cases = [2, 5]
    parameters = {name: torch.as_tensor(values[cases]) for name, values in file.parameters.items()}
    velocity = file.trajectory(cases)["velocity"]
    seconds = float(file.times[0, -1])
    if kind == "parameters":
        answer = surrogate.solve({}, parameters)["velocity"]
        direct = surrogate(torch.empty(2, 1, 0), parameters, torch.full((2,), seconds))
    elif kind == "fields":
        answer = surrogate.solve({"velocity": velocity[:, 0]}, parameters)["velocity"]
        direct = surrogate(velocity[:, :1], parameters, torch.full((2,), seconds))
        assert torch.equal(answer, surrogate.solve(velocity[:, 0], parameters))
    else:
        fractions = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        values = torch.randn(2, 2, 7, generator=torch.Generator().manual_seed(1))
        box = torch.stack([parameters["width"], parameters["height"]], 1)
        answer = surrogate.solve({"velocity": values}, parameters, points=fractions * box[:, None])["velocity"]
        direct = surrogate(values[:, None], parameters, torch.full((2,), seconds), fractions)
    assert answer.shape == (2, 2, 24, 24)
    torch.testing.assert_close(answer, direct.detach())


def test_evaluation_of_the_saved_run_agrees_with_its_summary(run):
    _, result = run
    again = evaluate_run(result.directory)
    assert math.isclose(again["nmse"], result.summary["test"]["nmse"], rel_tol=1e-4)


def test_predictions_hold_what_pictures_need(run):
    kind, result = run
    with np.load(result.directory / "predictions.npz", allow_pickle=False) as arrays:
        assert str(arrays["kind"]) == "map" and str(arrays["problem"]) == "cavity"
        assert arrays["truth"].shape == arrays["prediction"].shape == (3, 1, 2, 24, 24)
        assert arrays["lengths"].shape == (3, 2) and arrays["relative_l2"].shape == (3,)
        if kind == "points":
            points = arrays["points"]
            assert points.shape == (3, 40, 2) and (points > 0).all() and (points < arrays["lengths"][:, None]).all()
        else:
            assert "points" not in arrays


def test_command_line_predicts_from_a_file(run, cavity_file, tmp_path):
    from sciml.cli.main import app

    _, result = run
    out = tmp_path / "out.h5"
    asked = ["predict", str(result.directory), "--input", str(cavity_file), "--out", str(out), "--json"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    written, file = DatasetFile(out), DatasetFile(cavity_file)
    assert written.n_frames == 1 and np.allclose(written.times[:, 0], file.times[:, -1])
    truth = file.state(None, [file.n_frames - 1])[:, :, :2].double()
    made = written.state().double()
    error = ((made - truth).square().sum((1, 2, 3, 4)) / truth.square().sum((1, 2, 3, 4))).sqrt().mean()
    assert math.isclose(report["relative_l2_last"], float(error), rel_tol=1e-5)
    done = CliRunner().invoke(app, [*asked[:-1], "--overwrite", "--steps", "3"])
    assert done.exit_code == 2 and "no steps" in done.stderr


def test_training_learns(cavity_file, tmp_path):
    """On its own training data the loss of a few dozen steps falls far below that of the training mean."""
    values = map_config(cavity_file, "fields", budget={"steps": 60}, optimizer={"learning_rate": 5e-3})
    result = train(make_config(values), tmp_path / "run")
    lines = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.4 * losses[0]


@pytest.fixture(scope="module")
def pieces(cavity_file):
    config = tiny_run_config(map_config(cavity_file, "points"))
    problem = get_problem("cavity")
    split = prepare(config.data, problem, "cpu", Progress())
    return build_surrogate(config, problem, build_operator(config, problem), split.train), split


def test_loss_is_that_of_the_surrogates_own_prediction(pieces):
    surrogate, split = pieces
    batch = MapCases(split.train, ["velocity"], ["velocity"]).batch([0, 3])
    loss = PairLoss(surrogate, relative_l2)(batch, torch.Generator().manual_seed(5))
    state, points = observed(surrogate, batch.input, torch.Generator().manual_seed(5), shared=True)
    assert points.shape == (1, 40, 2)
    made = surrogate(state, batch.parameters, batch.interval, points)
    scale = surrogate.field_scales(batch.parameters)[:, :1, None, None]  # components in the unit of the first
    expected = relative_l2(made / scale, batch.target / scale, [2])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in surrogate.parameters())


def test_observed_values_lie_at_their_points(pieces):
    surrogate, split = pieces
    fields = MapCases(split.train, ["velocity"], ["velocity"]).batch([1]).target
    values, points = observed(surrogate, fields, torch.Generator().manual_seed(0))
    cells = (points[0] * 24 - 0.5).round().long()
    assert len({tuple(cell) for cell in cells.tolist()}) == 40, "no point is drawn twice"
    assert torch.equal(values[0, 0], fields[0][:, cells[:, 0], cells[:, 1]])


def test_training_mean_and_lookup_by_hand(pieces):
    surrogate, split = pieces
    train_pairs = MapCases(split.train, ["velocity"], ["velocity"]).all()
    speed = train_pairs.parameters["lid_velocity"]
    scale = torch.stack([speed, speed * train_pairs.parameters["height"] / train_pairs.parameters["width"]], 1)
    mean = (train_pairs.target / scale[..., None, None]).mean(0) * scale[:, :, None, None]
    torch.testing.assert_close(
        map_evaluation.training_mean(surrogate, train_pairs, train_pairs), mean.float(), rtol=1e-4, atol=1e-6
    )
    found = map_evaluation.lookup(surrogate, train_pairs, train_pairs)
    torch.testing.assert_close(found, train_pairs.target, rtol=1e-4, atol=1e-6)


def test_nearest_values_against_brute_force():
    generator = torch.Generator().manual_seed(0)
    values, points = torch.randn(2, 3, 11, generator=generator), torch.rand(2, 11, 2, generator=generator)
    for periodic in ((False, False), (True, False)):
        found, distance = nearest_values(values, points, (6, 4), periodic)
        for b in range(2):
            for i in range(6):
                for j in range(4):
                    cell = torch.tensor([(i + 0.5) / 6, (j + 0.5) / 4])
                    apart = (points[b] - cell).abs()
                    if periodic[0]:
                        apart[:, 0] = torch.minimum(apart[:, 0], 1 - apart[:, 0])
                    apart = apart.norm(dim=1)
                    assert torch.equal(found[b, :, i, j], values[b, :, apart.argmin()])
                    assert math.isclose(float(distance[b, 0, i, j]), float(apart.min() * 11**0.5), rel_tol=1e-5)
    turned, _ = nearest_values(values, points.flip(2), (4, 6))
    straight, _ = nearest_values(values, points, (6, 4))
    assert torch.equal(turned.transpose(2, 3), straight)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.inputs=[velocity]"], r"data.inputs goes with task.kind=map"),
        (["task.points=5"], r"task.points goes with task.kind=map"),
        (["task.kind=map", "task.history=2"], "a map reads one frame"),
        (["data.frames=2"], "at least 3"),
        (["dim=3"], "does not exist in 3D; it exists in 2D"),
        (["task.kind=maps"], "task.kind"),
    ],
)
def test_tasks_that_do_not_exist(overrides, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config("cavity", overrides=overrides)


def test_problems_without_hard_subsets_have_no_extrapolation():
    with pytest.raises(ConfigError, match="'burgers' has no held-out subsets"):
        resolve_config("burgers", overrides=["data.split=extrapolate"])
    assert resolve_config("tube", overrides=["data.split=extrapolate"]).data.split == "extrapolate"


def test_defaults_come_from_the_problem():
    config = resolve_config("cavity")
    assert (config.dim, config.data.resolution, config.data.frames) == (2, 64, 21)
    assert config.data.fields == ["velocity"] and config.task.kind == "step" and config.data.inputs == []
    assert complete(config, get_problem("cavity")) == config
    assert resolve_config("cavity", overrides=["task.kind=map"]).data.inputs == []


def test_mistakes_of_callers(run):
    kind, result = run
    surrogate = sciml.load(result.directory)
    parameters = {"lid_velocity": 10.0, "density": 1.0, "viscosity": 1.43e-3, "height": 0.01, "width": 0.01}
    field = torch.zeros(1, 2, 24, 24)
    with pytest.raises(ConfigError, match="is a map, it has no steps"):
        surrogate.step(field, parameters)
    if kind == "fields":
        with pytest.raises(DataError, match="without points"):
            surrogate.solve(field, parameters, points=torch.zeros(3, 2))
        with pytest.raises(DataError, match="lack the field 'velocity'"):
            surrogate.solve({"speed": field}, parameters)
        with pytest.raises(DataError, match=r"\(1, 3, 24, 24\); expected \(batch, 2, \*grid\)"):
            surrogate.solve(torch.zeros(1, 3, 24, 24), parameters)
        with pytest.raises(DataError, match="the input of case 0 holds NaN"):
            surrogate.solve(field.fill_(math.nan), parameters)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", OutOfRangeWarning)
            surrogate.solve(torch.zeros(1, 2, 24, 24), parameters | {"lid_velocity": 500.0})
        assert any("lid_velocity is 500" in str(each.message) for each in caught)
    if kind == "points":
        with pytest.raises(DataError, match="give points"):
            surrogate.solve(torch.zeros(1, 2, 5), parameters)
        with pytest.raises(DataError, match=r"points have shape \(4, 2\); expected \(5, 2\)"):
            surrogate.solve(torch.zeros(1, 2, 5), parameters, points=torch.zeros(4, 2))
        with pytest.raises(DataError, match="outside the box"):
            surrogate.solve(torch.zeros(1, 2, 5), parameters, points=torch.full((5, 2), 0.02))


def test_operator_of_another_dimension_is_refused(cavity_file, tmp_path):
    values = tiny_config(cavity_file, operator={"name": "fno", "n_modes": [4], "hidden_channels": 4})
    values["operator"] = {"name": "fno", "n_modes": [4], "hidden_channels": 4}
    with pytest.raises(ConfigError, match="is for 1 dimensions, the problem 'cavity' has 2"):
        train(make_config(values), tmp_path / "run")


def test_a_grid_that_the_operator_cannot_take_is_met_before_generation(tmp_path):
    config = resolve_config("vorticity", overrides=["data.resolution=50", f"data.directory={tmp_path / 'data'}"])
    with pytest.raises(DataError, match="not a multiple of 8"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "data").exists() and not (tmp_path / "run").exists()


def test_the_operator_knows_whether_the_box_is_periodic():
    """Burgers between walls pads its Fourier layers, the periodic one does not."""
    for subset, padding in (("fno", 0.0), ("dgno", 0.125)):
        config = resolve_config("burgers", overrides=[f"data.subset={subset}"])
        assert build_operator(config, get_problem("burgers")).config["padding"] == padding
    config = resolve_config("vorticity")
    assert build_operator(config, get_problem("vorticity")).config["periodic"]

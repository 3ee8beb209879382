"""Training and judging where there is an obstacle: statistics, losses, measures and series are those of the fluid."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from blocked import BIAS, Blocked, registered
from tiny import tiny_config, tiny_run_config
from typer.testing import CliRunner

from sciml import metrics
from sciml.cli.main import app
from sciml.cli.report import print_results, series_table
from sciml.datasets import DatasetFile
from sciml.errors import CheckpointError
from sciml.operators import OPERATORS, Operator
from sciml.problems.generate import generate
from sciml.progress import Progress
from sciml.training import evaluate_run, evaluation, make_config, map_evaluation, pretrain, series_evaluation, train
from sciml.training.build import build_operator, build_surrogate
from sciml.training.data import FramePairs, MapCases, Trajectories, Windows, prepare, trajectories
from sciml.training.losses import LOSSES
from sciml.training.mixture import ChannelSubset, build_shared_operator, members_of, subset_of, union_of
from sciml.training.mixture_config import make_pretrain_config
from sciml.training.tasks import PairLoss, UnrolledLoss, fluid_beside

SMALL = {
    "deeponet": {"n_sensors": [3, 3]},
    "fno": {"n_modes": [4, 4], "hidden_channels": 6, "n_layers": 1},
    "mmpde": {"hidden_channels": 6, "n_layers": 1},
    "moving_mesh": {"options": {"hidden_channels": [8, 8], "embedding_channels": 8}},
    "multionet": {"n_sensors": [3, 3]},
    "neuralstagger": {"spatial": 2, "options": {"n_modes": [4, 4], "hidden_channels": 6, "n_layers": 1}},
    "poseidon": {
        "image_size": 24,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [2, 1],
        "num_heads": [2, 2],
        "skip_connections": [1, 0],
        "window_size": 3,
        "resize": "pad",
    },
    "unet": {"hidden_channels": [8, 8], "embedding_channels": 8},
}


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with registered():
        yield


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """20 cases of 24 x 24 cells and 6 frames."""
    path = tmp_path_factory.mktemp("data") / "blocked.h5"
    return generate("blocked", path, cases=20, resolution=24, frames=6, seed=0)


@pytest.fixture(scope="module")
def run(file, tmp_path_factory):
    return train(make_config(tiny_config(file, problem="blocked")), tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def pieces(file):
    """A surrogate at its start, and the parts of its data."""
    config = tiny_run_config(tiny_config(file, problem="blocked"))
    split = prepare(config.data, Blocked(), "cpu", Progress())
    return build_surrogate(config, Blocked(), build_operator(config, Blocked()), split.train), split


# ------------------------------------------------------------------------------------------------------------ the file


def test_generation_writes_the_geometry_and_the_series(file):
    read, problem = DatasetFile(file).trajectory(), Blocked()
    parameters = {name: torch.as_tensor(values) for name, values in DatasetFile(file).parameters.items()}
    fluid = problem.fluid_cells(parameters, (24, 24))
    assert torch.equal(read["fluid"][:, 0] > 0.5, fluid) and set(Blocked.series) <= set(read)
    assert (read["velocity"].movedim(2, -1)[~fluid[:, None].expand(-1, 6, -1, -1)] == 0).all()


# --------------------------------------------------------------------------------------------------------- the training


def test_statistics_are_of_the_fluid(pieces):
    surrogate, split = pieces
    read = DatasetFile(split.train.files[0]).trajectory(list(split.train.cases))
    cases = {
        n: torch.as_tensor(v)[list(split.train.cases)] for n, v in DatasetFile(split.train.files[0]).parameters.items()
    }
    inside = (read["fluid"] > 0.5).expand(-1, 6, -1, -1)
    scaled = read["velocity"].double() / surrogate.problem.scales(cases)["velocity"][:, None, :, None, None]
    for channel in range(2):
        chosen = scaled[:, :, channel][inside]
        assert float(surrogate.normaliser.mean[channel]) == pytest.approx(float(chosen.mean()), rel=1e-5)
        assert float(surrogate.normaliser.std[channel]) == pytest.approx(float(chosen.std(correction=0)), rel=1e-5)
        assert float(scaled[:, :, channel].std()) != pytest.approx(float(chosen.std()), rel=1e-2)


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_see_the_fluid_alone(name):
    """The loss of fields with solid cells is that of the fluid cells in a row, whatever the solid ones hold."""
    generator, loss, groups = torch.Generator().manual_seed(0), LOSSES[name], [2, 1]
    p, y = (torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    fluid = torch.ones(2, 6, 5, dtype=torch.bool)
    fluid[0, 1:3, 2:4] = fluid[1, 3:5, 1:3] = False
    row = [torch.stack([values[case][:, fluid[case]] for case in range(2)]) for values in (p, y)]
    wild = p.masked_fill(~fluid.unsqueeze(1), 1e3)
    torch.testing.assert_close(loss(wild, y, groups, fluid), loss(*row, groups))
    torch.testing.assert_close(loss(p, y, groups, torch.ones_like(fluid)), loss(p, y, groups))
    p.requires_grad_()
    loss(p, y, groups, fluid).backward()
    assert (p.grad.movedim(1, -1)[~fluid] == 0).all() and (p.grad.movedim(1, -1)[fluid] != 0).all()


@pytest.mark.parametrize("loss", ["relative_l2", "mse"])
def test_training_does_not_see_what_the_block_holds(pieces, loss):
    """The loss of a batch of windows, and of pairs, from files that hold other numbers in the obstacle."""
    surrogate, split = pieces
    windows = Windows(split.train.windows(["velocity"], 1, 2)).batch(range(0, 40, 8))
    pairs = FramePairs(split.train, ["velocity"]).batch([1, 2, 3, 22, 23])  # of different frames
    generator = torch.Generator()
    for objective, batch, names in (
        (UnrolledLoss(surrogate, LOSSES[loss]), windows, ["state"]),
        (PairLoss(surrogate, LOSSES[loss]), pairs, ["input", "target"]),
    ):
        now = {name: values[:, 0] if values.ndim == 2 else values for name, values in batch.parameters.items()}
        wild = {}
        for name in names:
            field = getattr(batch, name)
            solid = ~fluid_beside(surrogate, now, field).reshape(5, *(1,) * (field.ndim - 3), 24, 24)
            wild[name] = field.masked_fill(solid, 7.0)
        assert torch.equal(objective(batch, generator), objective(replace(batch, **wild), generator))


@pytest.mark.parametrize("task", [{"history": 2, "noise": 0.1}, {"kind": "map"}, {"kind": "map", "points": 30}])
@pytest.mark.parametrize("loss", ["relative_l2", "mse"])
def test_other_tasks(file, tmp_path, task, loss):
    values = tiny_config(file, problem="blocked", task={**task, "loss": loss})
    if "points" in task:
        values["data"]["inputs"] = ["pressure"]
    result = train(make_config(values), tmp_path / "run")
    arrays = np.load(result.directory / "predictions.npz")
    assert arrays["fluid"].shape == (3, 24, 24) and arrays["fluid"].dtype == bool
    made = np.moveaxis(arrays["prediction"][:, -1], 1, -1)
    assert (made[~arrays["fluid"]] == 0).all() and (made[arrays["fluid"]] != 0).any()
    assert np.isfinite(result.summary["test"]["nmse"])


def test_pairs_of_frames(file, tmp_path):
    config = tiny_config(file, problem="blocked", task={"pairs": "all"}, operator={"time_conditioning": True})
    summary = train(make_config(config), tmp_path / "run").summary["test"]
    assert 0 < summary["direct_last"] < float("inf") and "push" in summary["series"]


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_reads_the_geometry(file, pieces, name):
    """All operators of the registry take the channels; predictions are zero in the block."""
    split = pieces[1]
    values = tiny_config(file, problem="blocked")
    values["operator"] = {"name": name, **SMALL.get(name, {})}
    config = tiny_run_config(values)
    model = build_surrogate(config, Blocked(), build_operator(config, Blocked()), split.train).eval()
    assert model.operator.in_channels == 4
    read = DatasetFile(file).trajectory([0, 5], [2])
    parameters = {n: torch.as_tensor(v)[[0, 5]] for n, v in DatasetFile(file).parameters.items()}
    made = model.step(read["velocity"][:, 0], parameters)
    assert torch.isfinite(made).all()
    assert (made.movedim(1, -1)[read["fluid"][:, 0] < 0.5] == 0).all()
    elsewhere = model.step(read["velocity"][:, 0], {**parameters, "block": parameters["block"].flip(0)})
    both = Blocked().fluid_cells({**parameters, "block": parameters["block"].flip(0)}, (24, 24))
    both = both & (read["fluid"][:, 0] > 0.5)
    assert not torch.equal(made.movedim(1, -1)[both], elsewhere.movedim(1, -1)[both]), "it sees where the block is"


# ------------------------------------------------------------------------------------------------------ the evaluation


def test_measures_are_of_the_fluid(run, file):
    """``summary.json`` and the error curves are those of the fluid cells, recomputed here from the predictions."""
    arrays = {
        name: torch.as_tensor(values)
        for name, values in np.load(run.directory / "predictions.npz").items()
        if values.dtype.kind in "fb"
    }
    fluid, truth, made = arrays["fluid"], arrays["truth"][:, 1:], arrays["prediction"][:, 1:]
    assert len(fluid) == 3, "all test cases are shown"
    found = metrics.relative_l2(made, truth, fluid)
    torch.testing.assert_close(arrays["rollout_relative_l2"].sort(0).values, found.sort(0).values, rtol=1e-5, atol=0)
    per_field = run.summary["test"]["fields"]["rollout"]["velocity"]
    assert per_field["mse"] == pytest.approx(float(metrics.mse(made, truth, fluid).mean()), rel=1e-5)
    assert per_field["mse"] != pytest.approx(float(metrics.mse(made, truth).mean()), rel=1e-2)


def test_values_in_the_block_do_not_count(pieces, monkeypatch):
    """A file that holds other numbers inside the obstacle gives the same scores, that of the divergence too."""
    monkeypatch.setattr(Blocked, "divergence_free", True)
    surrogate, split = pieces
    data = trajectories(split.test[0], ["velocity"])
    solid = ~evaluation.fluid_of(surrogate, data)[:, None, None]
    wild = Trajectories(data.state.masked_fill(solid, 9.0), data.parameters, data.time, data.subsets, data.series)
    one, other = (evaluation.evaluate(surrogate.eval(), None, [each])[0] for each in (data, wild))
    for summary in (one, other):
        del summary["constraints"], summary["series"]  # the estimate of this problem reads the block too
    assert one == other


def test_a_map_is_of_the_fluid_too(file):
    """Its statistics and its scores."""
    values = tiny_config(file, problem="blocked", task={"kind": "map"}, data={"inputs": ["pressure"]})
    config = tiny_run_config(values)
    split = prepare(config.data, Blocked(), "cpu", Progress())
    surrogate = build_surrogate(config, Blocked(), build_operator(config, Blocked()), split.train).eval()
    train, data = (MapCases(part, ["pressure"], ["velocity"]).all() for part in (split.train, split.test[0]))
    for names, fields, mean in (
        ("velocity", train.target, surrogate.normaliser.mean),
        ("pressure", train.input, surrogate.normaliser.input_mean),
    ):
        fluid = fluid_beside(surrogate, train.parameters, fields)
        scaled = fields.double() / surrogate.problem.scales(train.parameters)[names][..., None, None]
        torch.testing.assert_close(mean.double(), scaled.movedim(1, -1)[fluid].mean(0), rtol=1e-5, atol=0)
    solid = ~fluid_beside(surrogate, data.parameters, data.target).unsqueeze(1)
    wild = replace(data, input=data.input.masked_fill(solid, 9.0), target=data.target.masked_fill(solid, 9.0))
    one, other = (map_evaluation.evaluate(surrogate, None, each)[0] for each in (data, wild))
    del one["constraints"], other["constraints"]
    assert one == other


def test_the_series(run, file):
    """The estimate is off by a tenth on true frames, and the surrogate is compared with both."""
    found = run.summary["test"]["series"]
    assert set(found) == {"push", "swing"} and found["push"]["unit"] == "m/s"
    push = found["push"]
    assert push["truth"]["mean"] == pytest.approx(BIAS * push["solver"]["mean"], rel=1e-5)
    bias = push["truth"]["against_solver"]
    assert 0 < bias["mean_error"] < BIAS - 1 + 1e-6, "the mean is at most the rms"
    assert set(push["prediction"]) >= {"against_solver", "against_truth"}
    assert "against_truth" not in push["truth"] and set(found["swing"]) == {"unit", "solver"}
    arrays = np.load(run.directory / "predictions.npz")
    assert list(arrays["series"]) == ["push", "swing"] and list(arrays["series_units"]) == ["m/s", "1"]
    shape = arrays["time"].shape
    assert arrays["solver_push"].shape == arrays["truth_push"].shape == arrays["prediction_push"].shape == shape
    assert np.allclose(arrays["truth_push"], BIAS * arrays["solver_push"], rtol=1e-5)
    assert np.array_equal(arrays["truth_push"][:, 0], arrays["prediction_push"][:, 0]), "the rollout starts true"
    json.dumps(run.summary, allow_nan=False)


class Swinging(Blocked):
    """Of which fields of one number each give the series."""

    def diagnose(self, frames, parameters, time):
        return {"push": frames["velocity"][:, :, 0].double().mean((2, 3))}


def test_numbers_of_the_series(pieces, monkeypatch):
    """Mean, range and frequency of known curves: the prediction is 1 too high, has half the range, is 5 % too fast."""
    surrogate = pieces[0]
    monkeypatch.setattr(surrogate, "problem", Swinging())
    time = torch.linspace(0, 4, 41, dtype=torch.float64).expand(2, -1)
    first, rate = 1, torch.tensor([[1.0], [1.5]]).double()

    def curve(mean, amplitude, factor):
        return mean + amplitude * torch.sin(2 * torch.pi * factor * rate * time)

    solver, made = curve(3.0, 2.0, 1.0), curve(4.0, 1.0, 1.05)
    state, rollout = (v[:, :, None, None, None].expand(-1, -1, 2, 4, 4) for v in (solver, made[:, first:]))
    parameters = {name: torch.ones(2, 40).double() for name in Blocked().parameter_names}
    data = Trajectories(state, parameters, time, ("a", "a"), {"push": solver, "swing": torch.ones_like(solver)})
    found = series_evaluation.report(surrogate, rollout, data, first)

    def median_error(number):
        size = solver[:, 1:].square().mean(1).sqrt()
        return float(np.median((number(made[:, 1:]) - number(solver[:, 1:])).abs() / size))

    push, against = found["push"], found["push"]["prediction"]["against_solver"]
    assert push["solver"]["frequency"] == pytest.approx(1.25, rel=1e-5) and push["solver"]["frequency_cases"] == 2
    assert push["prediction"]["mean"] == pytest.approx(float(made[:, 1:].mean()), rel=1e-9)
    assert against["mean_error"] == pytest.approx(median_error(lambda v: v.mean(1)), rel=1e-9)
    assert against["range_error"] == pytest.approx(median_error(lambda v: v.amax(1) - v.amin(1)), rel=1e-9)
    assert against["mean_error"] == pytest.approx(1 / 11**0.5, rel=0.05), "the rms is sqrt(9 + 4 / 2)"
    assert against["frequency_error"] == pytest.approx(0.05, rel=1e-4) and against["frequency_cases"] == 2
    assert push["truth"]["against_solver"]["mean_error"] == pytest.approx(0, abs=1e-6)
    assert found["swing"]["solver"]["frequency"] is None and found["swing"]["solver"]["range"] == 0
    # A rollout that has blown up has no numbers, not good ones.
    lost = series_evaluation.report(surrogate, rollout * torch.nan, data, first)["push"]["prediction"]
    assert lost["mean"] is lost["range"] is lost["frequency"] is None
    assert lost["against_solver"]["mean_error"] is None and lost["against_solver"]["frequency_cases"] == 0


def test_the_report(run, capsys):
    table = series_table("unet", run.summary["test"])
    assert [str(cell) for cell in table.columns[1].cells] == ["solver", "true fields", "unet", "solver"]
    print_results("unet", run.summary["test"])
    assert "push (m/s)" in capsys.readouterr().out
    assert series_table("unet", {"nmse": 1.0}) is None


def test_a_run_is_evaluated_again(run, file):
    again = evaluate_run(run.directory)
    assert again["nmse"] == pytest.approx(run.summary["test"]["nmse"], rel=1e-6) and set(again["series"]) == {
        "push",
        "swing",
    }


@pytest.mark.filterwarnings("ignore::sciml.surrogate.OutOfRangeWarning")
def test_predicted_files_keep_the_geometry(run, file, tmp_path):
    out = tmp_path / "predicted.h5"
    result = CliRunner().invoke(app, ["predict", str(run.directory), "--input", str(file), "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    made, given = DatasetFile(out), DatasetFile(file)
    assert torch.equal(made.constant("fluid"), given.constant("fluid")) and not made.info.series
    last = made.trajectory(None, [5])["velocity"][:, 0]
    assert (last.movedim(1, -1)[made.constant("fluid")[:, 0] < 0.5] == 0).all()


# --------------------------------------------------------------------------------------- one operator, several problems

POSEIDON = {"name": "poseidon", **SMALL["poseidon"], "window_size": 3}


def mixture_config(file, **changes):
    section = {"files": [str(file)], "cases": {"train": 14, "validation": 3, "test": 3}}
    cavity = {"resolution": 24, "frames": 4, "cases": {"train": 4, "validation": 2, "test": 2}, "workers": 1}
    cavity["directory"] = str(file.parent)
    base = {
        "problems": {"blocked": {"data": section}, "cavity": {"data": cavity}},
        "device": "cpu",
        "batch_size": 4,
        "validate_every": 4,
        "operator": {**POSEIDON, "time_conditioning": False},
        "task": {"pairs": "successive", "target": "increment"},
        "budget": {"steps": 4},
    }
    return make_pretrain_config({**base, **changes})


def test_a_problem_without_obstacles_reads_fluid_everywhere(file):
    config = mixture_config(file)
    members = members_of(config)
    union = union_of(members)
    assert union.inputs == ("velocity_x", "velocity_y", "fluid", "signed_distance")
    shared = build_shared_operator(config, members)
    read = []
    shared.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    for member in members:
        n = len(member.inputs)
        subset_of(shared, member, union)(torch.full((1, n, 24, 24), 0.5), parameters=torch.zeros(1, 3))
    blocked, cavity = read
    assert (blocked == 0.5).all() and (cavity[:, :2] == 0.5).all()
    assert (cavity[:, 2] == 1).all() and (cavity[:, 3] == 0).all()
    assert not len(ChannelSubset(shared, [0], [0]).ones)


def test_pretraining_and_fine_tuning_by_name(file, tmp_path):
    """Weights of channels are found by name: those of the geometry too, from a mixture to a problem of its own."""
    found = pretrain(mixture_config(file), tmp_path / "mixture")
    assert found.summary["channels"] == ["velocity_x", "velocity_y", "fluid", "signed_distance"]
    assert (
        np.isfinite(found.summary["test"]["blocked"]["nmse"]) and "push" in found.summary["test"]["blocked"]["series"]
    )
    values = tiny_config(file, problem="blocked", pretrained=str(tmp_path / "mixture" / "operator"))
    values["operator"] = {"name": "poseidon"}
    values["budget"] = {"steps": 1}
    config = tiny_run_config(values)
    tuned = build_operator(config, Blocked())
    shared = Operator.from_pretrained(tmp_path / "mixture" / "operator")
    weights = [model.embeddings.patch_embeddings.projection.weight for model in (tuned, shared)]
    torch.testing.assert_close(weights[0], weights[1])


def test_an_operator_without_the_channels_is_refused(file, cavity_file, tmp_path):
    """Weights that do not know the geometry, of an operator that has no names for its channels."""
    plain = train(make_config(tiny_config(cavity_file)), tmp_path / "plain")
    values = tiny_config(file, problem="blocked", pretrained=str(plain.directory / "surrogate"))
    with pytest.raises(CheckpointError, match=r"has in_channels = 2, 4 are needed here"):
        build_operator(tiny_run_config(values), Blocked())

"""Steps of any length: all pairs of frames, the lead time of the surrogate, jumps beside rollouts."""

import io
import json
import math
import warnings

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_run_config

import sciml
from sciml.datasets import DatasetFile
from sciml.errors import ConfigError, DataError
from sciml.problems import get_problem
from sciml.problems.generate import generate
from sciml.progress import Progress
from sciml.surrogate import OutOfRangeWarning, Surrogate
from sciml.training import data as training_data
from sciml.training import evaluation, train
from sciml.training.build import build_operator, build_surrogate
from sciml.training.config import complete, make_config, merge, resolve_config
from sciml.training.data import FramePairs, MapCases, Part, prepare, trajectories, whole
from sciml.training.loop import Interrupted, Trainer
from sciml.training.losses import relative_l1, relative_l2
from sciml.training.map_evaluation import predict as predict_maps
from sciml.training.run import evaluate_run, learning, read_config
from sciml.training.tasks import PairLoss


def pairs_config(file, **changes):
    values = tiny_config(file, task={"pairs": "all"}, operator={"time_conditioning": True})
    return merge(values, changes)


def built(file, **changes):
    config = tiny_run_config(pairs_config(file, **changes))
    problem = get_problem(config.problem, config.dim)
    split = prepare(config.data, problem, "cpu", Progress())
    surrogate = build_surrogate(config, problem, build_operator(config, problem), split.train)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return config, split, surrogate.eval()


@pytest.fixture(scope="module")
def setting(cavity_file):
    return built(cavity_file)


@pytest.fixture(scope="module")
def run(cavity_file, tmp_path_factory):
    """A finished run on all pairs; the validation cases are judged too."""
    values = pairs_config(cavity_file, task={"loss": "relative_l1"}, data={"fields": ["velocity", "pressure"]})
    return train(make_config(values), tmp_path_factory.mktemp("pairs") / "run")


@pytest.fixture(autouse=True)
def range_warnings_are_tested_where_they_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfRangeWarning)
        yield


def case_of(file, case):
    """Parameters of a case of a file, and its frames of velocity with their times."""
    held = DatasetFile(file)
    parameters = {name: values[[case]] for name, values in held.parameters.items()}
    return parameters, held.trajectory([case])["velocity"], torch.as_tensor(held.times[[case]])


# ---------------------------------------------------------------------------------------------------------- the pairs


def test_every_ordered_pair_is_there_once(cavity_file):
    part = whole(cavity_file)
    chosen = Part(part.files, (3, 11), (part.subsets[3], part.subsets[11]))
    pairs = FramePairs(chosen, ["velocity"])
    found = [pairs.frames(index) for index in range(len(pairs))]
    assert found == [(row, i, j) for row in (0, 1) for i in range(6) for j in range(i, 6)]
    assert sum(i == j for _, i, j in found) == 12, "every frame with itself"
    from_one = FramePairs(chosen, ["velocity"], 1)
    left_out = set(found) - {from_one.frames(index) for index in range(len(from_one))}
    assert left_out == {(0, 0, 0), (1, 0, 0)}, "only that of the fluid at rest with itself"


@pytest.mark.parametrize("limit", [0, 2**30], ids=["read", "kept"])
def test_a_batch_holds_the_frames_it_names(cavity_file, limit, monkeypatch):
    monkeypatch.setattr(training_data, "IN_MEMORY", limit)
    part, file = whole(cavity_file), DatasetFile(cavity_file)
    pairs = FramePairs(part, ["pressure", "velocity"])
    indices = [0, 5, 21 * 7 + 8, len(pairs) - 1]
    batch = pairs.batch(indices)
    truth = file.trajectory()
    both = torch.cat([truth["pressure"], truth["velocity"]], 2)
    for k, index in enumerate(indices):
        case, i, j = pairs.frames(index)
        assert torch.equal(batch.input[k], both[case, i]) and torch.equal(batch.target[k], both[case, j])
        assert float(batch.interval[k]) == file.times[case, j] - file.times[case, i]
        assert all(float(batch.parameters[name][k]) == values[case] for name, values in file.parameters.items())
        assert batch.subsets[k] == part.subsets[case]


def test_only_the_frames_of_a_batch_are_read(cavity_file, monkeypatch):
    monkeypatch.setattr(training_data, "IN_MEMORY", 0)
    read, state = [], DatasetFile.state
    monkeypatch.setattr(DatasetFile, "state", lambda self, *where: read.append(where) or state(self, *where))
    pairs = FramePairs(whole(cavity_file), ["velocity"])
    assert not read
    pairs.batch([2, 2 + 21])
    assert read == [([0], [0, 2]), ([1], [0, 2])]


def test_files_of_different_lengths(cavity_file, tmp_path):
    short = generate("cavity", tmp_path / "short.h5", cases=2, resolution=24, frames=3, seed=5)
    files = (short, cavity_file)
    pairs = FramePairs(Part(files, (1, 2), ("a", "b")), ["velocity"])
    assert len(pairs) == 6 + 21
    assert [pairs.frames(index) for index in (5, 6, 26)] == [(0, 2, 2), (1, 0, 0), (1, 5, 5)]
    assert pairs.batch([5, 26]).input.shape == (2, 2, 24, 24)


def test_parameters_that_change_in_time_are_refused(tmp_path):
    file = generate("cavity", tmp_path / "lid.h5", subset="lid_change", cases=2, resolution=24, frames=4)
    with pytest.raises(DataError, match=r"lid_velocity of case 0 changes in time, and task\.pairs=all"):
        FramePairs(whole(file), ["velocity"])


# ------------------------------------------------------------------------------------------------------ the lead time


def test_lead_time_is_told_and_conditions_are_those_of_the_longest(setting, cavity_file):
    _, _, surrogate = setting
    parameters, frames, time = case_of(cavity_file, 4)
    longest = float(time[0, -1])
    assert surrogate.time_scale == pytest.approx(longest) and surrogate.interval == pytest.approx(longest / 5)
    assert surrogate.ranges["interval"] == pytest.approx((longest / 5, longest))
    seen = {}

    def look(module, args, kwargs):
        seen.update(kwargs)

    handle = surrogate.operator.register_forward_pre_hook(look, with_kwargs=True)
    values = surrogate.problem.as_parameters(parameters)
    for share in (0.0, 0.2, 1.0):
        with torch.no_grad():
            made = surrogate(frames[:, :1], values, torch.tensor([share * longest], dtype=torch.float64))
        assert torch.isfinite(made).all(), "a step of no time is legal"
        assert float(seen["time"]) == pytest.approx(share)
        raw = surrogate.problem.conditions(values, torch.tensor([longest])).float()
        norm = surrogate.normaliser
        torch.testing.assert_close(seen["parameters"], (raw - norm.condition_mean) / norm.condition_std)
    handle.remove()


def test_a_jump_is_one_step_with_a_long_interval(setting):
    _, split, surrogate = setting
    data = trajectories(split.train, ["velocity"])
    made = evaluation.predict(surrogate, data)
    constant = {name: values[:, 0] for name, values in data.parameters.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutOfRangeWarning)
        for number, frame in enumerate(range(2, 6)):
            elapsed = data.time[:, frame] - data.time[:, 1]
            jump = surrogate.step(data.state[:, 1], constant, interval=elapsed)
            torch.testing.assert_close(jump, made.direct.frames[:, number], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.direct.frames[:, 0], made.rollout[:, 0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(made.direct.frames[:, 3], made.rollout[:, 3], rtol=1e-3), "a jump is no rollout"
    with pytest.warns(OutOfRangeWarning, match="interval is"):
        surrogate.step(data.state[:, 1], constant, interval=2 * surrogate.time_scale)


@pytest.mark.parametrize("task", [{"pairs": "all"}, {"pairs": "all", "target": "increment"}, {"pairs": "successive"}])
def test_saved_surrogate_keeps_its_lead_time(cavity_file, tmp_path, task):
    _, _, surrogate = built(cavity_file, task=task)
    parameters, frames, _ = case_of(cavity_file, 0)
    again = sciml.load(surrogate.save(tmp_path))
    assert (again.time_scale, again.pairs, again.ranges) == (surrogate.time_scale, task["pairs"], surrogate.ranges)
    spacing = surrogate.interval
    assert again.time_scale == pytest.approx(spacing * (5 if task["pairs"] == "all" else 1))
    for interval in (None, spacing):
        assert torch.equal(
            again.step(frames[:, 1], parameters, interval), surrogate.step(frames[:, 1], parameters, interval)
        )
    a, b = (model.rollout(frames[:, 1], parameters, 2, [[spacing, spacing]]) for model in (again, surrogate))
    assert torch.equal(a, b)


def test_surrogates_from_before_lead_time_still_load(cavity_file, tmp_path):
    _, _, surrogate = built(cavity_file, task={"pairs": "successive"}, operator={"time_conditioning": False})
    assert surrogate.time_scale is None
    parameters, frames, _ = case_of(cavity_file, 0)
    before = surrogate.step(frames[:, 1], parameters)
    surrogate.save(tmp_path)
    stored = json.loads((tmp_path / "surrogate.json").read_text())
    (tmp_path / "surrogate.json").write_text(
        json.dumps({k: stored[k] for k in stored if k not in ("time_scale", "pairs")})
    )
    assert torch.equal(sciml.load(tmp_path).step(frames[:, 1], parameters), before)


def test_increments_are_measured_over_all_pairs(cavity_file):
    """With target increment the operator's output is of order one over the pairs, not over successive frames."""
    _, split, surrogate = built(cavity_file, task={"pairs": "all", "target": "increment"})
    data = trajectories(split.train, ["velocity"])
    scale = surrogate.field_scales({name: values[:, 0] for name, values in data.parameters.items()}).double()
    scaled = data.state.double() / scale[:, None, :, None, None]
    apart = [scaled[:, j] - scaled[:, i] for j in range(6) for i in range(j)]
    expected = torch.stack(apart).std((0, 1, 3, 4), correction=0)
    torch.testing.assert_close(surrogate.normaliser.increment_std.double(), expected, rtol=1e-5, atol=0)
    one_frame = scaled.diff(dim=1).std((0, 1, 3, 4))
    assert (expected > 1.1 * one_frame).all()


@pytest.mark.parametrize("problem", ["cavity", "darcy"])
def test_maps_with_lead_time(problem, cavity_file, tmp_path):
    file = cavity_file if problem == "cavity" else generate("darcy", tmp_path / "darcy.h5", cases=20, resolution=16)
    data = {"inputs": ["velocity"]} if problem == "cavity" else {}
    changes = {"problem": problem, "task": {"kind": "map", "pairs": "successive"}, "data": data, "budget": {"steps": 2}}
    values = pairs_config(file, **changes)
    values["operator"] = {"name": "unet", "hidden_channels": [8, 8], "time_conditioning": True}
    result = train(make_config(values), tmp_path / "run")
    surrogate = sciml.load(result.directory)
    end = float(DatasetFile(file).times[0, -1])
    assert surrogate.time_scale == (None if problem == "darcy" else pytest.approx(end))
    pairs = MapCases(whole(file), list(surrogate.inputs), list(surrogate.fields)).all()
    assert surrogate.lead_time(pairs.interval).tolist() == [1.0] * 20
    asked = {name: values for name, values in pairs.parameters.items() if name not in surrogate.problem.draw_names}
    torch.testing.assert_close(surrogate.solve(pairs.input, asked), predict_maps(surrogate, pairs)[0])
    assert 0 < result.summary["test"]["median_relative_l1"] < math.inf


# ----------------------------------------------------------------------------------------------------------- learning


def test_loss_is_that_of_the_surrogates_own_steps(setting):
    config, split, surrogate = setting
    (source, late), objective = learning(config, surrogate, split.train)
    assert isinstance(objective, PairLoss) and source is late and len(source) == 14 * 20
    batch = source.batch([0, 8, 33])
    loss = objective(batch, torch.Generator())
    scale = surrogate.field_scales(batch.parameters)[:, :1, None, None]  # components in the unit of the first
    made = surrogate(batch.input.unsqueeze(1), batch.parameters, batch.interval)
    torch.testing.assert_close(loss, relative_l2(made / scale, batch.target / scale, [2]))


def test_relative_l1_against_numpy():
    generator = torch.Generator().manual_seed(0)
    p, y = (torch.randn(3, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    y[0, 2] = 0  # one sample without pressure: the others carry the field
    parts = [np.abs((p - y).numpy()[:, c]).mean() / np.abs(y.numpy()[:, c]).mean() for c in (slice(0, 2), slice(2, 3))]
    assert float(relative_l1(p, y, [2, 1])) == pytest.approx(np.mean(parts), rel=1e-9)


def test_training_on_all_pairs_learns(cavity_file, tmp_path):
    """Every lead time gains: neither the identity nor the longest jump is left behind."""
    values = pairs_config(
        cavity_file, budget={"steps": 150}, optimizer={"learning_rate": 5e-3}, batch_size=8, validate_every=150
    )
    surrogate = sciml.load(train(make_config(values), tmp_path / "run").directory)
    config = tiny_run_config(values)
    split = prepare(config.data, surrogate.problem, "cpu", Progress())
    untrained = build_surrogate(config, surrogate.problem, build_operator(config, surrogate.problem), split.train)
    pairs = FramePairs(split.train, ["velocity"], 1)
    kinds = {}
    for index in range(len(pairs)):
        _, i, j = pairs.frames(index)
        kinds.setdefault(j - i if i else "from rest", []).append(index)
    for lead in (0, 1, 4):
        batch = pairs.batch(kinds[lead])
        with torch.no_grad():
            before, after = (float(PairLoss(m, relative_l2)(batch, torch.Generator())) for m in (untrained, surrogate))
        assert after < 0.5 * before, f"pairs {lead} frames apart"


def test_resumed_run_equals_a_straight_one(cavity_file, run, tmp_path, monkeypatch):
    config = make_config(
        pairs_config(cavity_file, task={"loss": "relative_l1"}, data={"fields": ["velocity", "pressure"]})
    )
    one_step = Trainer.one_step

    def interrupted(self, fraction):
        if self.position.step == 5:
            self.save()
            raise Interrupted
        return one_step(self, fraction)

    monkeypatch.setattr(Trainer, "one_step", interrupted)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run")
    monkeypatch.setattr(Trainer, "one_step", one_step)
    again = train(config, resume=str(tmp_path / "run"))
    assert again.summary["steps"] == 8
    left, right = (sciml.load(each.directory).state_dict() for each in (run, again))
    assert all(torch.equal(left[key], right[key]) for key in left)


# --------------------------------------------------------------------------------------------------------- evaluation


def test_summary_sets_jumps_beside_rollouts(run):
    surrogate, test = sciml.load(run.directory), run.summary["test"]
    config = read_config(run.directory)
    (part,) = prepare(config.data, surrogate.problem, "cpu", Progress()).test
    data = trajectories(part, ["velocity", "pressure"])
    constant = {name: values[:, 0] for name, values in data.parameters.items()}
    errors, last = [], None
    for frame in range(2, 6):
        last = surrogate.step(data.state[:, 1], constant, data.time[:, frame] - data.time[:, 1]).double()
        truth = data.state[:, frame].double()
        errors.append((last - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1))
    curve = torch.stack(errors, 1)
    assert test["direct_cases"] == test["cases"] == 3
    assert test["direct_relative_l2"] == pytest.approx(curve.mean(0).tolist(), rel=1e-4)
    assert test["direct_mean"] == pytest.approx(float(curve.mean()), rel=1e-4)
    assert test["direct_last"] == pytest.approx(float(curve[:, -1].mean()), rel=1e-4)
    assert test["direct_worst_last"] == pytest.approx(float(curve[:, -1].max()), rel=1e-4)
    truth = data.state[:, -1].double()
    medians = [
        np.median([float((last[k, c] - truth[k, c]).abs().sum() / truth[k, c].abs().sum()) for k in range(3)])
        for c in (slice(0, 2), slice(2, 3))
    ]
    assert test["direct_last_median_relative_l1"] == pytest.approx(np.mean(medians), rel=1e-4)
    assert "persistence_direct_mean" not in test and test["per_subset"]
    assert all("direct_last" in row and "median_relative_l1" in row for row in test["per_subset"].values())
    assert evaluate_run(run.directory)["direct_mean"] == pytest.approx(test["direct_mean"], rel=1e-4)
    with np.load(run.directory / "predictions.npz") as arrays:
        np.testing.assert_allclose(arrays["direct_relative_l2"], curve.numpy(), rtol=1e-4)


def test_median_relative_l1_of_one_step_and_rollout():
    generator = torch.Generator().manual_seed(3)
    target, one_step, rollout = (torch.randn(4, 5, 3, 6, 6, generator=generator) for _ in range(3))
    found = evaluation.score(evaluation.Predictions(one_step, rollout), target, [2, 1]).summary()
    y = target.double().numpy()

    def field(p, c):
        return np.abs(p[:, :, c] - y[:, :, c]).sum((2, 3, 4)) / np.abs(y[:, :, c]).sum((2, 3, 4))

    a, b = one_step.double().numpy(), rollout.double().numpy()
    fields = (slice(0, 2), slice(2, 3))
    assert found["median_relative_l1"] == pytest.approx(np.mean([np.median(field(a, c)) for c in fields]))
    last = np.mean([np.median(field(b, c)[:, -1]) for c in fields])
    assert found["rollout_last_median_relative_l1"] == pytest.approx(last)
    assert "direct_mean" not in found


def test_validation_logs_jumps_and_runs_of_successive_frames_have_none(run, cavity_file, tmp_path):
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert any("validation_direct_last" in line for line in lines)
    values = pairs_config(cavity_file, task={"pairs": "successive"}, budget={"steps": 1})
    test = train(make_config(values), tmp_path / "run").summary["test"]
    assert not [key for key in test if key.startswith("direct")]
    assert test["median_relative_l1"] > 0 and test["persistence_rollout_last_median_relative_l1"] > 0


def test_cases_whose_parameters_change_are_not_jumped_through(run, cavity_file, tmp_path):
    file = generate("cavity", tmp_path / "lid.h5", subset="lid_change", cases=2, resolution=24, frames=6)
    only = evaluate_run(run.directory, data=[file])
    assert only["rollout_last"] > 0 and not [key for key in only if key.startswith("direct")]
    steady = generate("cavity", tmp_path / "bc.h5", subset="bc", cases=1, resolution=24, frames=6)
    surrogate = sciml.load(run.directory)
    data = [trajectories(whole(path), ["velocity", "pressure"]) for path in (file, steady)]
    summary, made = evaluation.evaluate(surrogate, None, data)
    assert made[""].direct.steady.tolist() == [False, False, True] and summary["direct_cases"] == 1
    assert summary["direct_last"] == summary["per_subset"]["bc"]["direct_last"]
    assert "direct_last" not in summary["per_subset"]["lid_change"]


def test_report_and_picture_show_jumps(run):
    from rich.console import Console

    from sciml.cli.report import results_table
    from sciml.plotting import run_figures

    stream = io.StringIO()
    Console(file=stream, width=160).print(results_table("unet", run.summary["test"]))
    text = stream.getvalue()
    assert "direct" in text and f"{run.summary['test']['direct_last']:.3g}" in text and "jumps" in text
    written = {path.name for path in run_figures(run.directory)}
    assert "rollout_error.png" in written


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("problem", "task", "message"),
    [
        ("cavity", {"history": 2}, "task.history is 2; task.pairs=all learns single steps"),
        ("cavity", {"unroll": 3}, "task.unroll is 3"),
        ("cavity", {"noise": 0.1}, "task.noise is 0.1"),
        ("cavity", {"pushforward": True}, "task.pushforward is True"),
        ("cavity", {"kind": "map"}, "task.pairs=all goes with task.kind=step"),
        ("darcy", {}, "task.pairs=all goes with task.kind=step"),
    ],
)
def test_what_does_not_go_with_all_pairs(problem, task, message):
    config = make_config({"problem": problem, "task": {"pairs": "all", **task}})
    with pytest.raises(ConfigError, match=message):
        complete(config, get_problem(problem))


def test_defaults_of_all_pairs_survive_the_recipe_and_the_file():
    task = resolve_config("vorticity", overrides=["task.pairs=all", "operator.time_conditioning=true"]).task
    assert (task.pairs, task.target, task.unroll) == ("all", "state", 1)
    asked = resolve_config("cavity", overrides=["task.pairs=all", "task.target=increment"])
    assert asked.task.target == "increment"
    assert complete(make_config(asked.model_dump()), get_problem("cavity")).task == asked.task
    plain = complete(make_config({}), get_problem("cavity")).task
    assert (plain.pairs, plain.target, plain.unroll) == ("successive", "increment", 2)


def test_an_operator_without_lead_time_is_refused_before_the_data(tmp_path):
    values = {"task": {"pairs": "all"}, "data": {"directory": str(tmp_path / "data")}}
    with pytest.raises(ConfigError, match=r"operator\.time_conditioning=true"):
        train(make_config(values), tmp_path / "run")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_scale": None}, "time_scale is None; expected seconds"),
        ({"time_scale": -1.0}, "must be positive"),
        ({"history": 2}, "history=1"),
    ],
)
def test_surrogates_that_contradict_themselves(setting, changes, message):
    _, _, own = setting
    arguments = {"time_scale": own.time_scale, "pairs": "all", **changes}
    with pytest.raises(ConfigError, match=message):
        Surrogate(own.operator, own.problem, own.normaliser, **arguments)


def test_time_scale_needs_an_operator_with_lead_time(cavity_file, setting):
    _, _, plain = built(cavity_file, task={"pairs": "successive"}, operator={"time_conditioning": False})
    with pytest.raises(ConfigError, match="time_conditioning=True"):
        Surrogate(plain.operator, plain.problem, plain.normaliser, time_scale=1.0)

"""The evaluation: baselines and scores against plain re-computations."""

import pytest
import torch
from tiny import tiny_config, tiny_run_config

from sciml.errors import DataError
from sciml.problems import get_problem
from sciml.problems.generate import generate
from sciml.progress import Progress
from sciml.training import make_config
from sciml.training.build import build_operator, build_surrogate
from sciml.training.data import Trajectories, prepare, trajectories
from sciml.training.evaluation import evaluate, lookup, persistence, predict
from sciml.training.run import evaluate_run, train


@pytest.fixture(scope="module")
def setting(cavity_file):
    config = tiny_run_config(tiny_config(cavity_file))
    problem = get_problem("cavity")
    split = prepare(config.data, problem, "cpu", Progress())
    known = trajectories(split.train, ["velocity"])
    surrogate = build_surrogate(config, problem, build_operator(config, problem), split.train).eval()
    (part,) = split.test
    return surrogate, known, trajectories(part, ["velocity"])


def test_parts_are_disjoint_and_aligned_with_their_labels(cavity_file):
    config = tiny_run_config(tiny_config(cavity_file))
    split = prepare(config.data, get_problem("cavity"), "cpu", Progress())
    parts = [split.train, split.validation, *split.test]
    assert sorted(case for part in parts for case in part.cases) == list(range(20))
    data = trajectories(split.train, ["velocity"])
    geo = torch.tensor([label == "geo" for label in data.subsets])
    height = data.parameters["height"][:, 0]
    assert geo.any() and ((height != 0.01) == geo).all()


def test_untrained_increment_model_is_persistence(setting):
    """Zero output means no change: with the last layer zeroed the surrogate copies its input."""
    surrogate, _, data = setting
    head = surrogate.operator.head
    before = [p.clone() for p in head.parameters()]
    with torch.no_grad():
        for p in head.parameters():
            p.zero_()
    ours, copied = predict(surrogate, data), persistence(data, 2)
    torch.testing.assert_close(ours.one_step, copied.one_step)
    torch.testing.assert_close(ours.rollout, copied.rollout)
    with torch.no_grad():
        for p, value in zip(head.parameters(), before, strict=True):
            p.copy_(value)


@pytest.mark.filterwarnings("ignore::sciml.surrogate.OutOfRangeWarning")
def test_rollout_starts_at_frame_one(setting):
    surrogate, _, data = setting
    predictions = predict(surrogate, data)
    assert predictions.rollout.shape == data.state[:, 2:].shape
    torch.testing.assert_close(predictions.rollout[:, 0], predictions.one_step[:, 0])
    constant = {name: values[:, 0] for name, values in data.parameters.items()}
    own = surrogate.rollout(data.state[:, 1], constant, 4)
    torch.testing.assert_close(own, predictions.rollout, rtol=1e-4, atol=1e-4)


def test_lookup_finds_itself_and_rescales(setting):
    surrogate, known, _ = setting
    found = lookup(surrogate, known, known, 2)
    torch.testing.assert_close(found.rollout, known.state[:, 2:])
    torch.testing.assert_close(found.one_step, known.state[:, 2:])
    # The same flows twice as fast in half the time are the same in dimensionless form.
    faster = Trajectories(
        2 * known.state,
        {
            name: values * (2 if name in ("lid_velocity", "viscosity") else 1)
            for name, values in known.parameters.items()
        },
        known.time / 2,
        known.subsets,
    )
    torch.testing.assert_close(lookup(surrogate, known, faster, 2).rollout, faster.state[:, 2:])


def test_summary_agrees_with_plain_formulas(setting):
    surrogate, known, data = setting
    summary, made = evaluate(surrogate, known, [data])
    target, p = data.state[:, 2:].double(), made[""].rollout.double()
    error = (p - target).flatten(2).norm(dim=2) / target.flatten(2).norm(dim=2)
    assert summary["rollout_mean"] == pytest.approx(float(error.mean()))
    assert summary["rollout_worst_last"] == pytest.approx(float(error[:, -1].max()))
    assert summary["rollout_relative_l2"] == pytest.approx(error.mean(0).tolist())
    increment = (target - data.state[:, 1:-1]).square().flatten(2).sum(2) / target.square().flatten(2).sum(2)
    assert summary["persistence_nmse"] == pytest.approx(float(increment.mean()))
    velocity = summary["fields"]["rollout"]["velocity"]
    assert velocity["mse"] == pytest.approx(float((p - target).square().mean()))
    assert velocity["max_error"] == pytest.approx(float((p - target).abs().max()))
    assert velocity["mae_per_step"] == pytest.approx((p - target).abs().mean((0, 2, 3, 4)).tolist())
    counts = {label: entry["cases"] for label, entry in summary["per_subset"].items()}
    assert sum(counts.values()) == summary["cases"] == 3
    weighted = sum(entry["rollout_mean"] * entry["cases"] for entry in summary["per_subset"].values()) / 3
    assert weighted == pytest.approx(summary["rollout_mean"])
    assert 0 < summary["truth_divergence"] < 0.3 and summary["divergence"] > 0


def test_extrapolating_split_and_evaluation_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = {
        "problem": "cavity",
        "device": "cpu",
        "batch_size": 4,
        "data": {
            "split": "extrapolate",
            "resolution": 44,
            "frames": 4,
            "workers": 1,
            "cases": {"train": 4, "validation": 2, "test": 3},
        },
        "operator": {"name": "unet", "hidden_channels": [8, 8], "embedding_channels": 8},
        "budget": {"steps": 2},
    }
    run = train(make_config(values), tmp_path / "run")
    assert set(run.summary["test"]["per_subset"]) == {"reynolds_band", "aspect_band", "lid_change"}
    again = evaluate_run(run.directory)
    assert again["nmse"] == pytest.approx(run.summary["test"]["nmse"])
    kept = sorted((tmp_path / "data").iterdir())
    only = evaluate_run(run.directory, data=[next(p for p in kept if "lid_change" in p.name)])
    assert only["rollout_mean"] == pytest.approx(run.summary["test"]["per_subset"]["lid_change"]["rollout_mean"])


def test_data_that_do_not_fit_the_surrogate(tmp_path, cavity_file, straight_run):
    def evaluated(**options):
        name = "-".join(str(value) for value in options.values())
        file = generate("cavity", tmp_path / f"{name}.h5", cases=1, **{"resolution": 24, "frames": 6, **options})
        return evaluate_run(straight_run, data=[file, cavity_file])

    assert evaluated(seed=9)["cases"] == 21
    with pytest.raises(DataError, match="grid of 32x32 cells, the surrogate was trained on 24x24"):
        evaluated(resolution=32)
    with pytest.raises(DataError, match="4 and 6 frames"):
        evaluated(frames=4)
    with pytest.raises(DataError, match="have 2 frames; this surrogate needs at least 3"):
        short = generate("cavity", tmp_path / "short.h5", cases=1, resolution=24, frames=2)
        evaluate_run(straight_run, data=[short])


@pytest.fixture(scope="module")
def straight_run(cavity_file, tmp_path_factory):
    config = make_config(tiny_config(cavity_file, budget={"steps": 1}))
    return train(config, tmp_path_factory.mktemp("evaluated") / "run").directory

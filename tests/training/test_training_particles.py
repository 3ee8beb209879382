"""Training on particles: windows, noise, losses, statistics, radius, whole runs, resume, evaluation, commands."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_particles
import torch
from typer.testing import CliRunner

import sciml
from sciml.cli.main import app
from sciml.datasets.particles import ParticleFile, particle_statistics
from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.problems import PARTICLE_PROBLEMS, get_problem
from sciml.progress import Progress
from sciml.surrogate.particles import ParticleSurrogate, join, scene_of
from sciml.training import ParticleConfig, evaluate_run, make_config, resolve_config, train
from sciml.training.checkpoint import checkpoints, load_checkpoint
from sciml.training.loop import Trainer
from sciml.training.particles import data as particle_data
from sciml.training.particles.build import body_count, build_surrogate
from sciml.training.particles.config import PARTICLES
from sciml.training.particles.data import SparseWindows, prepare, whole
from sciml.training.particles.evaluation import (
    acceleration_error,
    error_curve,
    extrapolations,
    roll_out,
    scores,
)
from sciml.training.particles.task import ParticleLoss, mirrored, random_walk


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tiny_particles.write(tmp_path_factory.mktemp("particles") / "mine.h5")


def config(file, *more: str, **changes) -> ParticleConfig:
    words = [
        f"data.files=[{file}]",
        "data.cases.train=3",
        "data.cases.validation=1",
        "data.cases.test=2",
        "data.points=30",
        "data.draws=4",
        "operator.hidden_channels=8",
        "operator.latent_channels=8",
        "operator.n_layers=[1,1]",
        "task.queries=20",
        "task.noise=0.05",
        "task.anchor_every=4",
        "task.lifetime=1",
        "batch_size=2",
        "validate_every=4",
        "checkpoint.every_steps=4",
        "budget.steps=8",
        "device=cpu",
        *more,
    ]
    made = resolve_config("particles", "giorom", None, words, changes)
    assert isinstance(made, ParticleConfig)
    return made


def split(file, *more: str):
    made = config(file, *more)
    return made, prepare(made.data, get_problem("particles"), "cpu", Progress())


def weights(run) -> dict[str, torch.Tensor]:
    return load_checkpoint(checkpoints(run / "checkpoints")[-1])["surrogate"]


def equal(a, b) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# ------------------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_window_is_what_the_file_holds(file, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr(particle_data, "IN_MEMORY", 0)
    made, parts = split(file)
    source = SparseWindows(parts.train, made.data, made.task, 2, seed=0)
    assert len(source) == sum(tiny_particles.trajectory(n).n_frames - 7 for n in range(3)) * 4
    index = len(source) - 5  # of the last case
    batch = source.batch([index, 3])
    last, number = parts.train.cases[-1]
    frames = last.trajectory(number).position
    start, draw = divmod(index - int(source.ends[-2]), 4)
    points = source.points[-1][draw]
    own = batch.scene.batch == 0
    assert torch.equal(batch.scene.history[:, own], frames[start : start + 6, points])
    assert torch.equal(batch.future[:, own], frames[start + 6 : start + 8, points])
    following = batch.following
    assert following is not None
    mine = following.scene.batch == 0
    later = following.later[mine]
    rows = [int((frames[start + 5] == place).all(1).nonzero()[0]) for place in later]
    assert len(set(rows)) == len(rows) and set(points.tolist()) <= set(rows)
    stepped = following.stepped[following.stepped < int(mine.sum())]
    assert [rows[k] for k in stepped.tolist()] == points.tolist()
    assert len(rows) - len(points) == 20
    again = source.batch([index, 3])
    assert again.following is not None and torch.equal(again.following.later, following.later)


def test_all_particles_are_stepped_with_points_null(file):
    made, parts = split(file, "data.points=null")
    source = SparseWindows(parts.train, made.data, made.task, 1, seed=0)
    batch = source.batch([0])
    assert batch.following is None
    assert len(batch.scene) == parts.train.cases[0][0].count(parts.train.cases[0][1])


def test_too_short_trajectories_are_said(tmp_path):
    short = tiny_particles.write(tmp_path / "short.h5", frames=6)
    made, parts = split(short)
    with pytest.raises(DataError, match=r"no training trajectory has 7 frames"):
        SparseWindows(parts.train, made.data, made.task, 1, seed=0)


def test_noise_is_a_random_walk_of_free_particles():
    whole_scene = scene_of(tiny_particles.trajectory(0), tiny_particles.info(), slice(0, 6))
    many = join([whole_scene] * 200)
    walk = random_walk(many, 0.01, torch.Generator().manual_seed(0))
    assert not walk[0].any() and not walk[:, many.fixed].any()
    velocity = walk.diff(dim=0)[:, ~many.fixed]
    spread = velocity.square().mean((1, 2)).sqrt()
    expected = 0.01 * (torch.arange(1, 6) / 5).sqrt()
    torch.testing.assert_close(spread, expected, rtol=0.02, atol=0)


def test_a_mirrored_scene_keeps_its_box_and_its_gravity():
    scenes = join([scene_of(tiny_particles.trajectory(n), tiny_particles.info(), slice(0, 6)) for n in range(6)])
    future = scenes.history[:2]
    turned, ahead = mirrored(scenes, future, torch.Generator().manual_seed(1))
    torch.testing.assert_close(turned.history[..., 1], scenes.history[..., 1])
    flipped = ((turned.history - scenes.history)[..., 0].abs() > 1e-4).any(0)
    assert 0 < int(flipped.sum()) < len(scenes)
    torch.testing.assert_close(turned.history[:, flipped, 0], 1 - scenes.history[:, flipped, 0])
    torch.testing.assert_close(ahead[..., 0], turned.history[:2, :, 0])


# ---------------------------------------------------------------------------------------------------------- the model


def test_the_statistics_are_isotropic_and_their_mean_is_gravity(file):
    made, parts = split(file)
    model = build_surrogate(made, parts.train)
    found = particle_statistics(parts.train.cases)
    statistics = model.normaliser.statistics
    pull = -9.81 * tiny_particles.INTERVAL**2
    assert statistics["acceleration_gravity"] == pytest.approx(found.acceleration_mean[1] / pull)
    expected = np.sqrt((np.square(found.acceleration_std).sum() + found.acceleration_mean[0] ** 2) / 2)
    assert statistics["acceleration_std"] == pytest.approx(expected)
    assert statistics["noise"] == pytest.approx(0.05 * statistics["velocity_std"])
    bounces = _bounces(parts.train)
    assert model.ranges["bounce"] == pytest.approx((min(bounces), max(bounces)))


def _bounces(part):
    return [float(file.trajectory(case).parameters[0, 0]) for file, case in part.cases]


def test_the_radius_connects_the_points_and_a_small_one_is_refused(file):
    made, parts = split(file)
    radius = build_surrogate(made, parts.train).stepper.radius
    with pytest.raises(DataError, match=r"at the radius 0\.02, at most .* Use a radius of"):
        build_surrogate(*((small := split(file, "task.radius=0.02"))[0], small[1].train))
    wide, same = split(file, f"task.radius={2 * radius}")
    assert build_surrogate(wide, same.train).stepper.radius == 2 * radius
    body = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))
    assert body_count(torch.cat([body, body + 30])) == 2 and body_count(body[:1]) == 1


class Oracle(torch.nn.Module):
    """Knows where the particles go: its loss is zero, whatever the noise."""

    def __init__(self, inner: ParticleSurrogate, target: torch.Tensor) -> None:
        super().__init__()
        self.inner, self.target = inner, target
        self.normaliser, self.upsampler, self.moved = inner.normaliser, inner.upsampler, inner.moved

    def forward(self, scene):
        before, now = scene.history[-2:]
        gravity = scene.gravity[scene.batch]
        return self.normaliser.normalised(self.target - 2 * now + before, gravity)


def test_the_loss_of_the_true_acceleration_is_zero(file):
    made, parts = split(file, "task.mirror=false")
    model = build_surrogate(made, parts.train)
    batch = SparseWindows(parts.train, made.data, made.task, 1, seed=0).batch([0, 50])
    noise = 1e-3
    walk = random_walk(batch.scene, noise, torch.Generator().manual_seed(7))
    loss = ParticleLoss(Oracle(model, batch.future[0] + walk[-1]), made.task, noise)
    value = loss(replace(batch, following=None), torch.Generator().manual_seed(7))
    assert float(value.detach()) < 1e-6
    still = ParticleLoss(model, made.task, noise)
    with torch.no_grad():
        assert float(still(replace(batch, following=None), torch.Generator().manual_seed(7))) > 0.01
        assert 0 < float(still.following_loss(batch.following)) < 0.2, "in radii, and moving least squares is near"


def test_every_weight_has_a_gradient(file):
    made, parts = split(file, "task.unroll=2")
    model = build_surrogate(made, parts.train)
    batch = SparseWindows(parts.train, made.data, made.task, 2, seed=0).batch([0, 60])
    for _ in range(2):  # the last layers start at zero or near it: the others move after the first step
        ParticleLoss(model, made.task, 1e-4)(batch, torch.Generator().manual_seed(0)).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


# ------------------------------------------------------------------------------------------------------------- metrics


def test_extrapolation_is_exact_in_free_fall():
    steps = torch.arange(20.0)[:, None, None]
    fall = torch.tensor([0.0, -9.81]) * tiny_particles.INTERVAL**2
    position = torch.rand(1, 5, 2) + steps * torch.tensor([1e-3, 0.0]) + 0.5 * steps * (steps + 1) * fall
    scene = scene_of(tiny_particles.trajectory(0).subsampled(torch.arange(5)), tiny_particles.info(), slice(0, 6))
    scene = replace(scene, history=position[:6], bounds=None)
    made = extrapolations(scene, position[6:])
    torch.testing.assert_close(made["constant_acceleration"], position[6:], rtol=0, atol=1e-4)
    assert float((made["constant_velocity"] - position[6:]).abs().max()) > 0.02


def test_the_error_is_relative_to_displacement():
    start = torch.zeros(4, 2)
    truth = torch.ones(3, 4, 2)
    assert error_curve(truth, truth, start).tolist() == [0, 0, 0]
    assert error_curve(start.expand(3, 4, 2), truth, start).tolist() == pytest.approx([1, 1, 1])
    assert error_curve(1.1 * truth, truth, start).tolist() == pytest.approx([0.1] * 3)


def test_scores_of_a_perfect_rollout_are_zero(file):
    made, parts = split(file)
    model = build_surrogate(made, parts.train)
    handle, case = parts.test.cases[0]
    rollout = roll_out(model, handle.trajectory(case), handle.info, 0)
    perfect = replace(rollout, dense=rollout.truth, sparse=rollout.truth[:, rollout.stepped])
    numbers, curves = scores(perfect, handle.info, 0.05)
    for key in ("dense", "sparse", "dense_last", "momentum_drift", "energy_drift", "volume_drift", "chamfer"):
        assert numbers[key] == pytest.approx(0, abs=1e-6), key
    assert numbers["constant_velocity"] > 0.1 and numbers["upsampled_truth"] > 0
    assert set(curves) >= {"dense", "sparse", "upsampled_truth", "constant_velocity", "constant_acceleration"}
    gone = replace(rollout, dense=torch.full_like(rollout.dense, torch.nan))
    assert np.isnan(scores(gone, handle.info, 0.05)[0]["dense"])


# ---------------------------------------------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def straight(file, tmp_path_factory):
    return train(config(file), tmp_path_factory.mktemp("runs") / "straight")


def test_a_run_has_everything(straight, file):
    test = straight.summary["test"]
    assert test["kind"] == "particles" and test["cases"] == 2 and test["diverged"] == 0
    assert set(test["per_subset"]) == {"even", "odd"}
    for key in ("dense", "sparse", "upsampled_truth", "constant_velocity", "nmse", "energy_drift", "sinkhorn"):
        assert np.isfinite(test[key]), key
    with np.load(straight.directory / "predictions.npz") as stored:
        assert stored["truth_0"].shape == stored["dense_0"].shape
        assert stored["sparse_0"].shape[1] == len(stored["sparse_index_0"]) == 30
        assert np.array_equal(stored["truth_0"][:6], stored["dense_0"][:6])
    again = evaluate_run(straight.directory)
    assert again["dense"] == pytest.approx(test["dense"]) and again["nmse"] == pytest.approx(test["nmse"])
    assert isinstance(sciml.load(straight.directory), ParticleSurrogate)


def test_training_learns(file, tmp_path):
    """Single steps of the training scenes: 1 would be the mean acceleration, which free fall is, as most frames are."""
    words = ["budget.steps=150", "optimizer.learning_rate=5e-3", "optimizer.ema=0", "task.noise=0.001", "batch_size=4"]
    made = config(file, *words, "validate_every=150", "task.huber=null")
    run = train(made, tmp_path / "r")
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert any("acceleration_loss" in line and "upsampling_loss" in line for line in lines)
    parts = prepare(made.data, get_problem("particles"), "cpu", Progress())
    untrained = acceleration_error(build_surrogate(made, parts.train).eval(), parts.train)
    trained = acceleration_error(sciml.load(run.directory), parts.train)
    assert trained < 0.95 * untrained


def test_stopped_and_resumed_it_has_the_same_bits(file, straight, tmp_path, monkeypatch):
    step = Trainer.one_step

    def failing(self, fraction):
        if self.position.step == 5:
            raise RuntimeError("made to fail")
        return step(self, fraction)

    monkeypatch.setattr(Trainer, "one_step", failing)
    with pytest.raises(RuntimeError, match="made to fail"):
        train(config(file), tmp_path / "run")
    monkeypatch.setattr(Trainer, "one_step", step)
    train(config(file), resume=str(tmp_path / "run"))
    assert equal(straight.directory, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"task\.noise: 0\.05 in the run, 0\.5 now"):
        train(config(file, "task.noise=0.5"), resume=str(tmp_path / "run"))


def test_two_ranks_train_as_one(file, straight, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        "import sys, torch\nfrom sciml.training import make_config, train\ntorch.set_num_threads(1)\n"
        f"train(make_config({config(file).model_dump(mode='json')!r}), sys.argv[1])\n"
    )
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run([sys.executable, *launch, str(tmp_path / "two")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = weights(straight.directory), weights(tmp_path / "two")
    # Noise is drawn by each rank for its own scenes, so the two runs see other noise: they are near, not equal.
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 0.1
    assert (tmp_path / "two" / "summary.json").exists()


def test_gns_steps_all_particles(file, tmp_path):
    made = resolve_config(
        "particles",
        "gns",
        None,
        [
            f"data.files=[{file}]",
            "data.points=null",
            "data.cases={train: 3, validation: 1, test: 2}",
            "operator.hidden_channels=8",
            "operator.n_layers=2",
            "budget.steps=3",
            "batch_size=2",
        ],
    )
    run = train(made, tmp_path / "run")
    assert run.summary["test"]["dense"] == pytest.approx(run.summary["test"]["sparse"])
    assert run.summary["test"]["upsampled_truth"] == 0


# ------------------------------------------------------------------------------------------------------ configuration


def test_the_names_are_those_of_the_registry():
    assert sorted(PARTICLES) == sorted([*PARTICLE_PROBLEMS, "particles"])


@pytest.mark.parametrize("problem", sorted(PARTICLES))
def test_every_recipe_is_a_configuration(problem):
    more = ["data.files=[mine.h5]"] if problem == "particles" else []
    for operator in (None, "gns"):
        made = resolve_config(problem, operator, None, more)
        assert isinstance(made, ParticleConfig)
        assert make_config(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("words", "flags", "message"),
    [
        (["operator.name=fno"], {}, r"'fno' is for fields on grids; particles are stepped by giorom or gns"),
        (["operator.name=giorum"], {}, "did you mean 'giorom'"),
        (["operator.width=3"], {}, "no argument 'width'"),
        (["operator.radius=0.1"], {}, "operator.radius follows from task.radius"),
        (["task.upsampler={neighbors: 3}"], {}, "no argument 'neighbors'; did you mean 'neighbours'"),
        ([], {"constraints": [{"name": "conservation"}]}, "constraints is for fields on grids"),
        ([], {"task": {"kind": "trajectory"}}, "leave task.kind out"),
        (["task.nois=1"], {}, "unknown configuration key 'task.nois'.* did you mean 'noise'"),
        (["data.points=1"], {}, "data.points"),
    ],
)
def test_mistakes_are_said_before_any_work(file, words, flags, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(resolve_config("particles", None, None, [f"data.files=[{file}]", *words], flags), tmp_path / "run")


def test_data_that_do_not_fit(file, tmp_path):
    with pytest.raises(ConfigError, match=r"give --data FILE\.h5"):
        resolve_config("particles")
    with pytest.raises(ConfigError, match=r"holds the problem 'mine'; the run is for 'water'.* --problem particles"):
        train(resolve_config("water", None, None, [f"data.files=[{file}]"]), tmp_path / "a")
    solid = tiny_particles.write(tmp_path / "solid.h5", cases=3, frames=10, dim=3)
    with pytest.raises(ConfigError, match=r"is in 3D; the run is in 2D \(--dim 3\)"):
        train(config(solid), tmp_path / "b")


# ----------------------------------------------------------------------------------------------------------- commands


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.filterwarnings("ignore::sciml.surrogate.OutOfRangeWarning")
def test_commands(straight, file, tmp_path):
    shown = invoke("evaluate", straight.directory)
    assert shown.exit_code == 0, shown.output
    assert "constant acceleration" in shown.output and "stepped particles" in shown.output
    numbers = json.loads(invoke("evaluate", straight.directory, "--data", file, "--json").stdout)
    assert numbers["cases"] == 6
    out = tmp_path / "predicted.h5"
    done = invoke("predict", straight.directory, "--input", file, "--out", out, "--steps", 5, "--points", 20, "--json")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["error"]) == 5
    predicted, given = ParticleFile(out), ParticleFile(file)
    assert predicted.frames(0) == 11 and predicted.count(0) == given.count(0)
    assert torch.equal(predicted.positions(0, 0, 6), given.positions(0, 0, 6))
    assert invoke("predict", straight.directory, "--input", file, "--out", out).exit_code == 2  # it is there already
    ahead = tmp_path / "ahead.h5"
    beyond = invoke("predict", straight.directory, "--input", file, "--out", ahead, "--frame", -1, "--steps", 3)
    assert beyond.exit_code == 0 and ParticleFile(ahead).frames(0) == 9
    early = invoke("predict", straight.directory, "--input", file, "--out", tmp_path / "x.h5", "--frame", 2)
    assert early.exit_code != 0 and "starts from frame 5 at the earliest" in early.stderr
    assert "6 cases" in invoke("info", file).output or invoke("info", file).exit_code == 0


def test_training_from_the_command_line(file, tmp_path):
    words = config(file, "budget.steps=2").to_yaml()
    (tmp_path / "mine.yaml").write_text(words)
    done = invoke("train", "--config", tmp_path / "mine.yaml", "--out", tmp_path / "run", "--no-figures")
    assert done.exit_code == 0, done.output
    assert "sciml predict" in done.output
    assert (tmp_path / "run" / "surrogate" / "README.md").exists()
    wrong = invoke("train", "--problem", "particles", "--data", file, "--constraint", "conservation")
    assert wrong.exit_code == 2 and "constraints is for fields" in wrong.stderr


def test_an_evaluation_needs_cases_of_the_same_kind(straight, tmp_path):
    solid = tiny_particles.write(tmp_path / "solid.h5", cases=3, frames=10, dim=3)
    with pytest.raises(ConfigError, match="is in 3D"):
        evaluate_run(straight.directory, [solid])
    assert len(whole([ParticleFile(solid)])) == 3


def test_one_number_of_cases_leaves_the_others():
    made = resolve_config("water", None, None, ["data.cases.train=10"], {})
    assert (made.data.cases.train, made.data.cases.validation, made.data.cases.test) == (10, 3, 8)

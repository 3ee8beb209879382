"""Tasks, losses and the loop: what a step computes, exact resume, clean stops."""

import importlib.util
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_run_config

from sciml.datasets import DatasetInfo, DatasetWriter, FieldInfo
from sciml.errors import CheckpointError, ConfigError, DataError, SolverError
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.surrogate import load
from sciml.training import make_config, train
from sciml.training.build import build_operator, build_surrogate
from sciml.training.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from sciml.training.data import Batch, gather, prepare, trajectories
from sciml.training.evaluation import predict, score
from sciml.training.loop import Interrupted
from sciml.training.losses import LOSSES, relative_l2
from sciml.training.sampling import shuffled_batch, step_generator
from sciml.training.tasks import UnrolledLoss, transition


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load(run).state_dict()


def equal(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def straight(cavity_file, tmp_path_factory):
    """An uninterrupted run of eight steps with averaged weights and input noise."""
    config = make_config(tiny_config(cavity_file, optimizer={"ema": 0.9}, task={"noise": 0.1}))
    return train(config, tmp_path_factory.mktemp("runs") / "straight")


# ------------------------------------------------------------------------------------------------------ losses and task


@pytest.mark.parametrize("name", LOSSES)
def test_losses_vanish_only_at_the_target(name):
    y = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    loss = LOSSES[name]
    assert float(loss(y, y, [2, 1])) < 1e-5
    assert float(loss(y + 0.1, y, [2, 1])) > 1e-3
    if name in ("relative_l2", "nmse"):
        torch.testing.assert_close(loss(5 * y + 5, 5 * y, [2, 1]), loss(y + 1, y, [2, 1]))


def test_relative_l2_weighs_fields_equally():
    y = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    p = y.clone()
    p[:, 2] = 1.5  # pressure off by half, velocity exact
    assert math.isclose(float(relative_l2(p, y, [2, 1])), 0.25, rel_tol=1e-5)


@pytest.fixture
def setting(cavity_file):
    config = tiny_run_config(tiny_config(cavity_file))
    problem = get_problem("cavity")
    split = prepare(config.data, problem, "cpu", Progress())
    operator = build_operator(config, problem)
    surrogate = build_surrogate(config, problem, operator, split.train)
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=step_generator(0, 0)))
    return config, split, surrogate


def test_unrolled_loss_is_the_mean_over_the_models_own_steps(setting):
    _, split, surrogate = setting
    batch = gather(split.train.windows(["velocity"], 1, 3), [0, 5, 9])
    loss = UnrolledLoss(surrogate, relative_l2)(batch, step_generator(0, 0))
    state, errors = batch.state[:, 0], []
    for index in range(3):
        parameters, interval = transition(batch, index)
        state = surrogate(state.unsqueeze(1), parameters, interval)
        errors.append(relative_l2(state, batch.state[:, index + 1], [2]))
    torch.testing.assert_close(loss, torch.stack(errors).mean(), rtol=1e-5, atol=1e-6)


def test_training_and_evaluation_see_the_same_step(setting):
    """The loss over the windows of a case is the evaluation's one-step error of that case: parameters in one order,
    frames in one place.
    """
    _, split, surrogate = setting
    cases = trajectories(split.train, ["velocity"])
    windows = split.train.windows(["velocity"], 1, 1)
    nmse = score(predict(surrogate.eval(), cases), cases.state[:, 2:]).nmse
    for case in (0, 7, 13):
        losses = UnrolledLoss(surrogate, LOSSES["nmse"])(
            gather(windows, range(5 * case + 1, 5 * case + 5)), step_generator(0, 0)
        )
        assert float(losses.detach()) == pytest.approx(float(nmse[case].mean()), rel=1e-4)


def test_pushforward_differentiates_the_last_step_only(setting):
    _, split, surrogate = setting
    batch = gather(split.train.windows(["velocity"], 1, 2), [0, 5])
    loss = UnrolledLoss(surrogate, relative_l2, pushforward=True)(batch, step_generator(0, 0))
    with torch.no_grad():
        first = surrogate(batch.state[:, :1], *transition(batch, 0))
    again = Batch(
        torch.stack([first, batch.state[:, 2]], 1),
        {name: values[:, 1:] for name, values in batch.parameters.items()},
        batch.time[:, 1:],
    )
    single = UnrolledLoss(surrogate, relative_l2)(again, step_generator(0, 0))
    torch.testing.assert_close(loss, single)
    a = torch.autograd.grad(loss, list(surrogate.parameters()))
    b = torch.autograd.grad(single, list(surrogate.parameters()))
    assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a, b, strict=True))


def test_noise_has_the_stated_size(setting):
    _, split, surrogate = setting
    batch = gather(split.train.windows(["velocity"], 1, 1), range(20))
    task = UnrolledLoss(surrogate, relative_l2, noise=0.5)
    parameters, _ = transition(batch, 0)
    noisy = task._with_noise(batch.state[:, :1], parameters, step_generator(0, 1))
    scaled = (noisy - batch.state[:, :1]) / surrogate.field_scales(parameters).reshape(-1, 1, 2, 1, 1)
    expected = 0.5 * surrogate.normaliser.increment_std
    torch.testing.assert_close(scaled.std((0, 1, 3, 4)).float(), expected, rtol=0.05, atol=0)


def test_normaliser_standardises_scaled_fields_of_the_train_split(setting):
    _, split, surrogate = setting
    cases = trajectories(split.train, ["velocity"])
    now = {name: values[:, 0] for name, values in cases.parameters.items()}
    scale = get_problem("cavity").scales(now)["velocity"]
    scaled = cases.state.double() / scale.reshape(-1, 1, 2, 1, 1)
    torch.testing.assert_close(
        surrogate.normaliser.std.double(), scaled.std((0, 1, 3, 4), correction=0), rtol=1e-5, atol=0
    )
    increments = scaled.diff(dim=1).std((0, 1, 3, 4), correction=0)
    torch.testing.assert_close(surrogate.normaliser.increment_std.double(), increments, rtol=1e-5, atol=0)


def test_an_epoch_visits_every_window_once():
    steps = [shuffled_batch(50, 10, step, seed=1) for step in range(10)]
    assert sorted(itertools.chain(*steps[:5])) == list(range(50)) == sorted(itertools.chain(*steps[5:]))
    assert steps[:5] != steps[5:] and steps[0] == shuffled_batch(50, 10, 0, seed=1)
    assert sorted(itertools.chain(*(shuffled_batch(7, 3, step, 0) for step in range(7)))) == sorted(3 * list(range(7)))


# ------------------------------------------------------------------------------------------------------ runs and resume


def test_run_directory_and_summary(straight):
    assert {p.name for p in straight.directory.iterdir()} >= {
        "config.yaml",
        "env.json",
        "metrics.jsonl",
        "checkpoints",
        "surrogate",
        "summary.json",
        "predictions.npz",
    }
    summary = json.loads((straight.directory / "summary.json").read_text())
    assert {"operator", "n_parameters", "test", "seconds"} <= summary.keys()
    wanted = {
        "nmse",
        "persistence_nmse",
        "lookup_nmse",
        "vrmse",
        "rollout_relative_l2",
        "persistence_rollout_relative_l2",
        "divergence",
    }
    assert wanted <= summary["test"].keys() and len(summary["test"]["rollout_relative_l2"]) == 4
    lines = [json.loads(line) for line in (straight.directory / "metrics.jsonl").read_text().splitlines()]
    assert any("loss" in line for line in lines) and any("validation_nmse" in line for line in lines)


@pytest.mark.parametrize("stop_at", [3, 4, 6])
def test_resume_is_exact(cavity_file, straight, tmp_path, stop_at, monkeypatch):
    values = tiny_config(cavity_file, optimizer={"ema": 0.9}, task={"noise": 0.1})
    interrupt_at(monkeypatch, stop_at)
    with pytest.raises(Interrupted):
        train(make_config(values), tmp_path / "run")
    monkeypatch.undo()
    assert checkpoints(tmp_path / "run" / "checkpoints")
    train(make_config(values), resume=str(tmp_path / "run"))
    assert equal(straight.directory, tmp_path / "run")


def test_resume_with_soap_is_exact(cavity_file, tmp_path, monkeypatch):
    values = tiny_config(cavity_file, optimizer={"method": "soap"})
    train(make_config(values), tmp_path / "straight")
    interrupt_at(monkeypatch, 4)
    with pytest.raises(Interrupted):
        train(make_config(values), tmp_path / "run")
    monkeypatch.undo()
    train(make_config(values), resume=str(tmp_path / "run"))
    assert equal(tmp_path / "straight", tmp_path / "run")
    train(make_config(tiny_config(cavity_file)), tmp_path / "adamw")
    assert not equal(tmp_path / "straight", tmp_path / "adamw")


def interrupt_at(monkeypatch, step):
    """Send this process a SIGINT during the given training step."""
    from sciml.training.loop import Trainer

    one_step = Trainer.one_step

    def interrupting(self, fraction):
        if self.position.step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return one_step(self, fraction)

    monkeypatch.setattr(Trainer, "one_step", interrupting)


def run_script(text: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_kill_in_the_middle_of_a_checkpoint_write_loses_nothing(cavity_file, straight, tmp_path):
    values = tiny_config(cavity_file, optimizer={"ema": 0.9}, task={"noise": 0.1})
    script = textwrap.dedent(
        f"""
        import os, signal, torch
        from sciml.training import checkpoint, make_config, train
        torch.set_num_threads(1)
        save = torch.save
        def dying(state, stream):
            if state["position"]["step"] == 8:
                stream.write(b"half a checkpoint")
                stream.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            save(state, stream)
        torch.save = dying
        train(make_config({values!r}), {str(tmp_path / "run")!r})
        """
    )
    assert run_script(script).returncode == -signal.SIGKILL
    folder = tmp_path / "run" / "checkpoints"
    assert [p.name for p in checkpoints(folder)] == ["step_00000004"] and list(folder.glob("*.tmp"))
    train(make_config(values), resume=str(tmp_path / "run"))
    assert equal(straight.directory, tmp_path / "run") and not list(folder.glob("*.tmp"))


RANKS = """
import os, sys, torch
from pathlib import Path
from sciml.training import make_config, train
from sciml.training.loop import Trainer
torch.set_num_threads(1)
if __name__ == "__main__":
    out, stop, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    one_step = Trainer.one_step
    def dying(self, fraction):
        if stop and self.position.step == stop and rank in (-1, self.world.rank):
            raise RuntimeError("this rank was made to fail")
        return one_step(self, fraction)
    Trainer.one_step = dying
    train(make_config(VALUES), out, resume="auto")
print("threads", *(Path(f"/proc/self/task/{t}/comm").read_text().strip() for t in os.listdir("/proc/self/task")))
"""


@pytest.fixture
def on_two_ranks(cavity_file, tmp_path):
    """Run the tiny configuration with torchrun on two gloo ranks; the given rank (-1: both) fails at a step."""
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.replace("VALUES", repr(tiny_config(cavity_file))))

    def run(name: str, stop: int = 0, rank: int = -1) -> subprocess.CompletedProcess:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        return subprocess.run(
            [sys.executable, *launch, str(tmp_path / name), str(stop), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_two_ranks_train_and_resume_exactly(cavity_file, tmp_path, on_two_ranks):
    done = on_two_ranks("two")
    assert done.returncode == 0, done.stderr[-2000:]
    # A process group that outlives the run, with its threads, now and then aborts a process at exit.
    assert done.stdout.count("threads") == 2 and "gloo" not in done.stdout, done.stdout
    # One failing rank ends both, with its reason; the checkpoint of step 4 is there.
    failed = on_two_ranks("stopped", stop=6, rank=1)
    assert failed.returncode != 0 and "this rank was made to fail" in failed.stderr
    assert [p.name for p in checkpoints(tmp_path / "stopped" / "checkpoints")] == ["step_00000004"]
    resumed = on_two_ranks("stopped")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert equal(tmp_path / "two", tmp_path / "stopped")
    one = train(make_config(tiny_config(cavity_file)), tmp_path / "one")
    a, b = weights(one.directory), weights(tmp_path / "two")
    worst = max(float((a[k] - b[k]).abs().max()) for k in a)
    assert worst < 2e-3, "two ranks average to the same steps as one process, up to the order of sums"


KEPT = """
import os
from pathlib import Path
import torch
from sciml.training.parallel import world

torch.set_num_threads(1)
with world("cpu") as here:
    kept = here.wrap(torch.nn.Linear(2, 1))
    kept(torch.ones(1, 2)).sum().backward()
    here.barrier()
threads = [Path(f"/proc/self/task/{t}/comm").read_text().strip() for t in os.listdir("/proc/self/task")]
print("ended" if not any("gloo" in name for name in threads) else threads)
assert kept.module.weight.grad is not None
"""


def test_a_process_group_ends_before_the_modules_that_it_served(tmp_path):
    script = tmp_path / "kept.py"
    script.write_text(KEPT)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run([sys.executable, *launch], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("ended") == 2, done.stdout


def test_early_stopping_keeps_the_best_weights(cavity_file, tmp_path):
    values = tiny_config(
        cavity_file, budget={"steps": 200, "patience": 1}, validate_every=2, optimizer={"learning_rate": 0.5}
    )
    run = train(make_config(values), tmp_path / "run")
    assert run.summary["steps"] < 200
    state = load_checkpoint(checkpoints(run.directory / "checkpoints")[-1])
    assert state["position"]["best_step"] < run.summary["steps"] and len(state["best"]) > 0


def test_time_budget_anneals_and_ends(cavity_file, tmp_path):
    values = tiny_config(cavity_file, budget={"steps": None, "minutes": 0.05})
    values["budget"] = {"minutes": 0.05}
    run = train(make_config(values), tmp_path / "run")
    assert 2.5 < run.summary["seconds"]["train"] < 10
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["step"] == 1


# --------------------------------------------------------------------------------------------------------- bad input


def test_resume_with_another_configuration_is_refused(cavity_file, straight):
    values = tiny_config(cavity_file, optimizer={"ema": 0.9}, task={"noise": 0.1}, batch_size=2)
    with pytest.raises(CheckpointError, match="batch_size: 4 in the run, 2 now"):
        train(make_config(values), resume=str(straight.directory))


def test_a_finished_run_is_not_overwritten(cavity_file, straight):
    with pytest.raises(ConfigError, match="holds a run already"):
        train(make_config(tiny_config(cavity_file)), straight.directory)


def test_resume_of_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="not a run directory"):
        train(make_config({}), resume=str(tmp_path))


def test_damaged_checkpoint_is_named(tmp_path):
    path = save_checkpoint(tmp_path, 3, {"a": torch.ones(1000)})
    (path / "state.pt").write_bytes((path / "state.pt").read_bytes()[:700])
    with pytest.raises(CheckpointError, match="step_00000003 is damaged"):
        load_checkpoint(path)


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {"a": torch.ones(1)}, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step_00000003", "step_00000004"]


def test_diverged_training_says_so(cavity_file, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "mse", lambda p, y, groups: (p * math.nan).sum())
    with pytest.raises(SolverError, match=r"diverged.*learning_rate"):
        train(make_config(tiny_config(cavity_file, task={"loss": "mse"})), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"operator": {"name": "unett"}}, ConfigError, "did you mean 'unet'"),
        ({"operator": {"name": "unet", "hiden_channels": 3}}, ConfigError, "did you mean 'hidden_channels'"),
        ({"data": {"fields": ["vorticity"]}}, (ConfigError, DataError), "vorticity"),
        ({"task": {"unroll": 9}}, DataError, "no window of 1"),
    ],
)
def test_bad_choices(cavity_file, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(make_config(tiny_config(cavity_file, **changes)), tmp_path / "run")


def test_tensorboard_is_an_extra(cavity_file, tmp_path):
    config = make_config(tiny_config(cavity_file, tensorboard=True, budget={"steps": 1}))
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(ConfigError, match=r"pip install 'sciml\[log\]'"):
            train(config, tmp_path / "run")
    else:
        train(config, tmp_path / "run")
        assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_missing_data_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.h5"):
        train(make_config(tiny_config(Path("nowhere.h5"))), tmp_path / "run")


def test_unwritable_run_directory(cavity_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write the run directory"):
        train(make_config(tiny_config(cavity_file)), tmp_path / "file" / "run")


def test_cuda_that_is_not_there(cavity_file, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="no CUDA device"):
        train(make_config(tiny_config(cavity_file, device="cuda")), tmp_path / "run")


def test_non_finite_data_is_located(cavity_file, tmp_path):
    import shutil

    import h5py

    damaged = tmp_path / "damaged.h5"
    shutil.copy(cavity_file, damaged)
    with h5py.File(damaged, "r+") as file:
        file["sciml/state"][7, 3, 5, 5, 1] = math.nan
    with pytest.raises(DataError, match=r"NaN in field 'velocity' of case 7, frame 3"):
        train(make_config(tiny_config(damaged)), tmp_path / "run")


def test_data_of_another_problem(tmp_path):
    info = DatasetInfo(
        problem="tube",
        fields=(FieldInfo("velocity", 2, "m/s", order=1),),
        parameters={"speed": "m/s"},
        grid=(8, 8),
        n_frames=2,
        boundaries=dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), "wall"),
    )
    centres = (torch.arange(8) + 0.5) / 8
    with DatasetWriter(tmp_path / "tube.h5", info, 1, {"speed": 1.0}) as writer:
        fields = {"velocity": torch.zeros(1, 2, 2, 8, 8), "time": torch.tensor([[0.0, 1.0]])}
        writer.write([0], fields, {"x": centres, "y": centres})
        writer.finish()
    with pytest.raises(ConfigError, match="holds the problem 'tube'; the run is for 'cavity'"):
        train(make_config(tiny_config(tmp_path / "tube.h5")), tmp_path / "run")
    (tmp_path / "foreign.h5").write_bytes(b"not a data file at all")
    with pytest.raises(DataError, match=r"foreign\.h5"):
        train(make_config(tiny_config(tmp_path / "foreign.h5")), tmp_path / "run2")

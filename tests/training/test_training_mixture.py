"""Pretraining on a mixture: the union of channels, which problem a step is on, resume, ranks, what is written."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch
import yaml
from typer.testing import CliRunner

from sciml.cli.main import app
from sciml.cli.pretrain import SIZES as CLI_SIZES
from sciml.errors import CheckpointError, ConfigError
from sciml.operators import Operator
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.training import pretrain, resolve_config, train
from sciml.training.build import build_operator
from sciml.training.checkpoint import checkpoints, load_checkpoint
from sciml.training.config import merge
from sciml.training.data import prepare
from sciml.training.loop import Interrupted, Trainer
from sciml.training.losses import relative_l1
from sciml.training.mixture import MixtureSource, build_shared_operator, members_of, subset_of, union_of
from sciml.training.mixture_config import SIZES, make_pretrain_config, resolve_pretrain_config
from sciml.training.mixture_run import _trainer
from sciml.training.parallel import World
from sciml.training.sampling import Shuffled, step_generator

POSEIDON = {
    "name": "poseidon",
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [2, 2],
    "skip_connections": [1, 0],
    "window_size": 4,
    "resize": "pad",
    "norm_gain": 1.0,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Where the generated data of all tests of this module are."""
    return tmp_path_factory.mktemp("data")


def tiny(data: Path, **changes: dict) -> dict:
    """A pretraining configuration that runs in a second: two problems that share no channel."""
    section = {
        "directory": str(data),
        "resolution": 32,
        "frames": 4,
        "cases": {"train": 4, "validation": 2, "test": 2},
        "workers": 1,
    }
    base = {
        "problems": {"burgers": {"data": section}, "vorticity": {"data": section}},
        "device": "cpu",
        "batch_size": 4,
        "validate_every": 4,
        "operator": {"name": "unet", "hidden_channels": [8, 8], "embedding_channels": 8, "time_conditioning": True},
        "task": {"pairs": "all", "loss": "relative_l1"},
        "optimizer": {"ema": 0.9},
        "budget": {"steps": 8},
        "checkpoint": {"every_steps": 4},
    }
    if "name" in changes.get("operator", {}):
        del base["operator"]
    return merge(base, changes)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """An uninterrupted run of eight steps."""
    return pretrain(make_pretrain_config(tiny(data)), tmp_path_factory.mktemp("runs") / "straight")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return Operator.from_pretrained(run / "operator").state_dict()


def equal(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# ------------------------------------------------------------------------------------------------------------ channels


def test_union_has_every_name_once(data):
    config = make_pretrain_config(
        tiny(data, problems={"periodic_flow": {"data": {"fields": ["velocity", "pressure"]}}, "gray_scott": {}})
    )
    union = union_of(members_of(config))
    assert union.inputs == union.outputs
    assert union.inputs == ("velocity_x", "velocity_y", "species_a", "species_b", "pressure", "vorticity")
    assert len(set(union.parameters)) == len(union.parameters) and "drag" in union.parameters
    assert union.parameters.count("log_reynolds") == 1


def test_a_problem_sees_the_shared_operator_on_the_padded_input(data):
    config = make_pretrain_config(tiny(data, operator=POSEIDON))
    members = members_of(config)
    union, operator = union_of(members), build_shared_operator(config, members)
    whirls = members[1]
    assert whirls.name == "vorticity" and operator.config["channel_names"] == list(union.inputs)
    x, time = torch.randn(3, 1, 32, 32), torch.rand(3)
    conditions = torch.randn(3, len(whirls.problem.condition_names))
    full, everything = torch.zeros(3, 3, 32, 32), torch.zeros(3, len(union.parameters))
    full[:, 2:] = x
    for column, name in enumerate(whirls.problem.condition_names):
        everything[:, union.parameters.index(name)] = conditions[:, column]
    expected = operator(full, time=time, parameters=everything)[:, 2:]
    subset = subset_of(operator, whirls, union)
    assert torch.equal(subset(x, time=time, parameters=conditions), expected)
    assert not list(subset.parameters()), "the weights belong to the mixture, once"
    # Without conditions of its own a problem has zeros.
    assert torch.equal(subset(x, time=time), operator(full, time=time, parameters=torch.zeros_like(everything))[:, 2:])


def trainer_of(values: dict, directory: Path) -> Trainer:
    config = make_pretrain_config(values)
    members = members_of(config)
    operator = build_shared_operator(config, members)
    splits = {m.name: prepare(config.problems[m.name].data, m.problem, "cpu", Progress()) for m in members}
    world = World(0, 1, torch.device("cpu"))
    return _trainer(config, members, operator, splits, directory, world, Progress())


def test_channels_that_a_problem_lacks_are_not_in_its_loss(data, tmp_path):
    trainer = trainer_of(tiny(data, operator=POSEIDON), tmp_path)
    source = trainer.sources[0]
    operator = trainer.surrogate.operator
    own = {0: slice(0, 2), 1: slice(2, 3)}
    for member, start in enumerate(source.starts[:2]):
        operator.zero_grad()
        batch = source.batch([start, start + 5])
        assert batch.member == member
        loss = trainer.task(batch, step_generator(0, 0))
        loss.backward()
        # The last layer mixes the channels of the recovery: its rows are the outputs.
        outputs = operator.patch_recovery.mixup.weight.grad
        inputs = operator.embeddings.patch_embeddings.projection.weight.grad
        others = own[1 - member]
        assert not outputs[others].any() and not inputs[:, others].any()
        assert outputs[own[member]].abs().sum() > 0 and inputs[:, own[member]].abs().sum() > 0
        # The loss is that of the problem's own surrogate, in its own units.
        surrogate, pairs = trainer.surrogate.surrogates[member], batch.batch
        made, scale = surrogate.predict(pairs.input.unsqueeze(1), pairs.parameters, pairs.interval)
        groups = [field.components for field in surrogate.fields.values()]
        torch.testing.assert_close(loss, relative_l1(made, pairs.target / scale, groups))


def test_one_set_of_parameters(data, tmp_path):
    trainer = trainer_of(tiny(data), tmp_path)
    mixture = trainer.surrogate
    assert [id(p) for p in mixture.parameters()] == [id(p) for p in mixture.operator.parameters()]
    assert [id(p) for p in trainer.task.parameters()] == [id(p) for p in mixture.operator.parameters()]
    assert sum(key.startswith("operator.") for key in mixture.state_dict()) == len(mixture.operator.state_dict())
    scales = [surrogate.time_scale for _, surrogate in mixture]
    assert scales == pytest.approx([3 * 0.05, 3 * 0.5]), "each problem has a clock of its own"


# --------------------------------------------------------------------------------------------------------- the drawing


class Numbers(Shuffled):
    """A source whose samples are numbers."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def batch(self, indices):
        return [self.first + index for index in indices]


def test_problems_are_drawn_by_weight_and_a_step_is_on_one():
    source = MixtureSource([Numbers(0, 10), Numbers(100, 7), Numbers(200, 30)], [1.0, 2.0, 5.0])
    steps, seen = 4000, {0: 0, 1: 0, 2: 0}
    values: set[int] = set()
    for step in range(steps):
        indices = source.indices(4, step, seed=3)
        batch = source.batch(indices)
        assert batch.member == source.member(step, 3) and {value // 100 for value in batch.batch} == {batch.member}
        # A share of the batch, as another rank takes it, is of the same problem.
        assert source.batch(indices[1::2]).member == batch.member
        seen[batch.member] += 1
        values |= set(batch.batch)
    for member, share in enumerate((1 / 8, 2 / 8, 5 / 8)):
        deviation = (share * (1 - share) / steps) ** 0.5
        assert abs(seen[member] / steps - share) < 4 * deviation
    assert values == {*range(10), *range(100, 107), *range(200, 230)} and len(source) == 47
    draws = [source.member(step, 3) for step in range(50)]
    assert draws == [source.member(step, 3) for step in range(50)]
    assert draws != [source.member(step, 4) for step in range(50)]


def test_weights_are_the_numbers_of_training_cases_unless_given(data, tmp_path):
    values = tiny(data, problems={"burgers": {"data": {"cases": {"train": 8}}}})
    assert trainer_of(values, tmp_path / "a").sources[0].cumulative == [8, 12]
    values = merge(values, {"problems": {"vorticity": {"weight": 2.5}}})
    assert trainer_of(values, tmp_path / "b").sources[0].cumulative == [8, 10.5]


# ---------------------------------------------------------------------------------------------------- runs and resuming


def test_run_directory_and_summary(straight):
    assert {path.name for path in straight.directory.iterdir()} == {
        "config.yaml",
        "env.json",
        "metrics.jsonl",
        "checkpoints",
        "operator",
        "summary.json",
    }
    summary = json.loads((straight.directory / "summary.json").read_text())
    assert summary["steps"] == 8 and summary["task"]["target"] == "state"
    assert summary["channels"] == ["velocity_x", "velocity_y", "vorticity"]
    assert summary["problems"]["burgers"]["cases"] == {"train": 4, "validation": 2, "test": 2}
    for test in summary["test"].values():
        assert test["cases"] == 2
        assert {"nmse", "persistence_nmse", "rollout_last", "persistence_rollout_last"} <= test.keys()
    lines = [json.loads(line) for line in (straight.directory / "metrics.jsonl").read_text().splitlines()]
    (last,) = [line for line in lines if "validation_nmse" in line and line["step"] == 8]
    each = last["validation_burgers_nmse"] * last["validation_vorticity_nmse"]
    assert last["validation_nmse"] == pytest.approx(each**0.5)
    card = (straight.directory / "operator" / "README.md").read_text()
    for words in ("burgers 2D", "vorticity 2D", "`velocity_y`", "log_reynolds", "task.target=state", "8 steps"):
        assert words in card


@pytest.mark.parametrize("stop_at", [3, 4, 6])
def test_resume_is_exact(data, straight, tmp_path, stop_at, monkeypatch):
    one_step = Trainer.one_step

    def interrupting(self, fraction):
        if self.position.step == stop_at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return one_step(self, fraction)

    monkeypatch.setattr(Trainer, "one_step", interrupting)
    with pytest.raises(Interrupted):
        pretrain(make_pretrain_config(tiny(data)), tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "summary.json").exists()
    pretrain(make_pretrain_config(tiny(data)), resume=str(tmp_path / "run"))
    assert equal(straight.directory, tmp_path / "run")


RANKS = """
import sys, torch
from sciml.training import pretrain
from sciml.training.mixture_config import make_pretrain_config
torch.set_num_threads(1)
if __name__ == "__main__":
    pretrain(make_pretrain_config(VALUES), sys.argv[1], resume="auto")
"""


def test_two_ranks_are_one_process(data, tmp_path):
    # relative_l2 is a mean over samples, so that the mean over two halves of a batch is that of the whole.
    values = tiny(data, task={"loss": "relative_l2"})
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.replace("VALUES", repr(values)))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    run = pretrain(make_pretrain_config(values), tmp_path / "one")
    one, two = weights(run.directory), weights(tmp_path / "two")
    assert max(float((one[key] - two[key]).abs().max()) for key in one) < 2e-3, "up to the order of sums"


def test_held_out_cases_are_never_trained_on(data, straight, tmp_path):
    """Spoiling them changes the scores, not the weights."""
    spoiled = tmp_path / "data"
    shutil.copytree(data, spoiled)
    config = make_pretrain_config(tiny(spoiled))
    for member in members_of(config):
        split = prepare(config.problems[member.name].data, member.problem, "cpu", Progress())
        (part,) = split.test
        assert not set(part.cases) & set(split.train.cases)
        with h5py.File(part.files[0], "r+") as file:
            for case in (*part.cases, *split.validation.cases):
                file["sciml/state"][case] *= 3.0
    run = pretrain(config, tmp_path / "run")
    assert equal(straight.directory, run.directory)
    assert run.summary["test"]["burgers"]["nmse"] != straight.summary["test"]["burgers"]["nmse"]


def test_the_operator_can_be_fine_tuned_on_a_problem_it_never_saw(data, tmp_path):
    run = pretrain(make_pretrain_config(tiny(data, operator=POSEIDON)), tmp_path / "run")
    shared = weights(run.directory)
    config = resolve_config(
        "periodic_flow",
        overrides=[
            "dim=2", f"pretrained={run.directory}", "task.pairs=all", "device=cpu", f"data.directory={data}",
            "data.resolution=32", "data.frames=4", "data.cases.train=4", "data.cases.validation=2",
            "data.cases.test=2", "budget.steps=1", "data.workers=1",
        ],
    )  # fmt: skip
    operator = build_operator(config, get_problem("periodic_flow", 2))
    # What both know by name is kept: two channels, and of the conditions log Re.
    start = operator.state_dict()
    name = "embeddings.patch_embeddings.projection.weight"
    assert torch.equal(start[name], shared[name][:, :2])
    assert train(config, tmp_path / "tuned").summary["steps"] == 1


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"problems": {"darcy": {}}}, "problem 'darcy' is static"),
        ({"problems": {"diffusion_sorption": {}}}, "does not exist in 2D; it exists in 1D"),
        ({"problems": {"burger": {}}}, "did you mean 'burgers'"),
        ({"problems": {"burgers": {"data": {"casses": 3}}}}, "'problems.burgers.data.casses'; did you mean 'cases'"),
        ({"problems": {"burgers": {"weight": 0}}}, "'problems.burgers.weight' is 0"),
        ({"task": {"kind": "map"}}, "steps from one frame"),
        ({"task": {"history": 2}}, "steps from one frame"),
        ({"task": {"residual": 0.5}}, "task.residual is 0.5; pretraining learns from data alone"),
        ({"task": {"unroll": 2}}, "task.unroll is 2"),
        ({"optimiser": {}}, "did you mean 'optimizer'"),
    ],
)
def test_bad_configurations(data, changes, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        make_pretrain_config(tiny(data, **changes))


def test_no_problems(data):
    with pytest.raises(ConfigError, match="no problems"):
        make_pretrain_config({**tiny(data), "problems": {}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operator": {"name": "unett"}}, "did you mean 'unet'"),
        ({"operator": {"time_conditioning": False}}, "operator.time_conditioning=true"),
        ({"operator": {"name": "fno", "n_modes": [4], "time_conditioning": True}}, "is for 1 dimensions"),
        ({"operator": {"name": "neuralstagger", "temporal": 2, "time_conditioning": True}}, "2 frames at once"),
        ({"optimizer": {"group_rates": {"embeddings": 1e-3}}}, "embeddings"),
    ],
)
def test_bad_operators_are_met_before_generation(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        pretrain(make_pretrain_config(tiny(tmp_path / "nowhere", **changes)), tmp_path / "run")
    assert not (tmp_path / "nowhere").exists()


def test_an_operator_of_the_plane_refuses_problems_on_a_line(data, tmp_path):
    values = {**tiny(data, operator=POSEIDON), "dim": 1, "problems": {"diffusion_sorption": {}}}
    with pytest.raises(ConfigError, match="exists in 2D, the problems of the mixture are in 1D"):
        pretrain(make_pretrain_config(values), tmp_path / "run")


def test_resume_with_another_mixture_is_refused(data, straight, tmp_path):
    with pytest.raises(CheckpointError, match=r"problems\.burgers\.weight: None in the run, 3\.0 now"):
        pretrain(make_pretrain_config(tiny(data, problems={"burgers": {"weight": 3}})), resume=str(straight.directory))
    with pytest.raises(CheckpointError, match="not a run directory"):
        pretrain(make_pretrain_config(tiny(data)), resume=str(tmp_path))
    (tmp_path / "config.yaml").write_text("problem: cavity\n")
    with pytest.raises(CheckpointError, match="not a pretraining run"):
        pretrain(make_pretrain_config(tiny(data)), resume=str(tmp_path))


def test_fewer_samples_than_processes(data, tmp_path, monkeypatch):
    from contextlib import nullcontext

    from sciml.training import mixture_run

    three = World(0, 3, torch.device("cpu"))
    monkeypatch.setattr(mixture_run, "world", lambda device: nullcontext(three))
    with pytest.raises(ConfigError, match="batch_size is 2 for 3 processes"):
        pretrain(make_pretrain_config(tiny(data, batch_size=2)), tmp_path / "run")


# ------------------------------------------------------------------------------------------------ recipe, file, options


def test_recipe_and_what_overrides_it(tmp_path):
    config = resolve_pretrain_config()
    assert list(config.problems) == sorted(config.problems) and len(config.problems) == 7
    assert config.operator.name == "poseidon"
    assert config.task.pairs == "successive" and config.task.target == "increment"
    every = resolve_pretrain_config(overrides=["task.pairs=all"]).task
    assert (every.pairs, every.target, every.loss) == ("all", "state", config.task.loss)
    assert resolve_pretrain_config(["vorticity", "tube"]) == resolve_pretrain_config(["tube", "vorticity"])
    assert build_shared_operator(config, members_of(config)).n_parameters == 15
    chosen = resolve_pretrain_config(
        ["tube", "burgers"],
        overrides=[
            "data.cases.train=5",
            "problems.tube.data.cases.train=6",
            "budget.steps=3",
            "problems.tube.weight=2",
        ],
    )
    assert [entry.data.cases.train for entry in chosen.problems.values()] == [5, 6]
    assert chosen.problems["tube"].weight == 2 and chosen.budget.minutes is None
    # A resolved configuration, as a run directory holds it, is read back as it is; the command line changes it.
    file = tmp_path / "config.yaml"
    file.write_text(resolve_pretrain_config(["tube", "burgers"], size="tiny").to_yaml())
    assert resolve_pretrain_config(file=file) == resolve_pretrain_config(["tube", "burgers"], size="tiny")
    again = resolve_pretrain_config(file=file, overrides=["data.cases.train=7"])
    assert {entry.data.cases.train for entry in again.problems.values()} == {7}
    twice = "problems: {a: {problem: burgers}, b: {problem: burgers, data: {seed: 1}}, tube: }\n"
    file.write_text(twice)
    assert [e.problem for e in resolve_pretrain_config(file=file).problems.values()] == ["burgers", "burgers", "tube"]


def test_sizes():
    assert tuple(SIZES) == CLI_SIZES
    assert resolve_pretrain_config(size="tiny").operator.depths == [4, 4, 4, 4]
    assert resolve_pretrain_config(size="large").operator.embed_dim == 192
    for arguments, message in (
        ({"size": "huge"}, "unknown size 'huge'"),
        ({"size": "tiny", "overrides": ["operator.name=fno"]}, "sizes are those of poseidon"),
        ({"overrides": ["problems=[burgers]"]}, "expected names of problems"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve_pretrain_config(**arguments)


def test_command_line(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    options = ["--problems", "burgers,vorticity", "--device", "cpu", "--seed", "3"]
    printed = runner.invoke(app, ["pretrain", *options, "--time-limit", "2", "--print-config"])
    assert printed.exit_code == 0, printed.stderr
    config = yaml.safe_load(printed.stdout)
    assert list(config["problems"]) == ["burgers", "vorticity"] and config["budget"]["minutes"] == 2
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny(data)))
    done = runner.invoke(app, ["pretrain", "--config", "tiny.yaml", "--out", "run", "budget.steps=2", "--json"])
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["directory"] == "run" and answer["steps"] == 2
    assert "persistence" in done.stderr and "sciml train --problem NAME --from run" in done.stderr
    # Going on needs no configuration; a longer budget is allowed.
    longer = runner.invoke(app, ["pretrain", "--resume", "run", "budget.steps=4"])
    assert longer.exit_code == 0, longer.stderr
    assert "vorticity (2)" in longer.stdout and "operator   run/operator" in longer.stdout
    assert load_checkpoint(checkpoints(Path("run/checkpoints"))[-1])["position"]["step"] == 4
    wrong = runner.invoke(app, ["pretrain", "--problems", "burgers,cavty"])
    assert wrong.exit_code == 2 and "did you mean 'cavity'" in wrong.stderr

"""Starting from pretrained weights, and learning rates of parameter groups."""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_run_config

from sciml.errors import CheckpointError, ConfigError
from sciml.operators import FNO, Operator, UNet, create_operator
from sciml.operators.stored import ParameterGroup
from sciml.problems import PROBLEMS, get_problem
from sciml.progress import Progress
from sciml.surrogate import channel_names, load
from sciml.training import make_config, resolve_config, train
from sciml.training.build import build_operator, build_surrogate
from sciml.training.checkpoint import checkpoints, load_checkpoint
from sciml.training.config import OptimizerConfig, complete
from sciml.training.data import Windows, prepare
from sciml.training.fine_tuning import RATES, find_pretrained
from sciml.training.loop import Interrupted, Trainer, make_optimizer
from sciml.training.losses import relative_l2
from sciml.training.sampling import step_generator
from sciml.training.tasks import UnrolledLoss

PLANE = [(name, 2) for name, problem in PROBLEMS.items() if 2 in problem.dims]
SMALL_POSEIDON = {
    "name": "poseidon",
    "image_size": 24,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "skip_connections": [1, 0],
    "window_size": 4,
    "resize": "pad",
    "norm_gain": 1.0,
}


def grouped(self: Operator) -> list[ParameterGroup]:
    """Three groups by the shape of the tensor, in another order than ``parameters()``; one of them is empty."""
    parameters = list(self.parameters())
    return [
        ParameterGroup("vectors", [p for p in parameters if p.ndim == 1], decay=False),
        ParameterGroup("none", []),
        ParameterGroup("arrays", [p for p in parameters if p.ndim != 1]),
    ]


def state(run: Path) -> dict[str, torch.Tensor]:
    return load(run).state_dict()


def first_loss(run: Path) -> float:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    one_step = Trainer.one_step

    def interrupting(self, fraction):
        if self.position.step == step - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return one_step(self, fraction)

    monkeypatch.setattr(Trainer, "one_step", interrupting)


def train_in_two(values: dict, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the third of eight steps, then resumed."""
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(Interrupted):
            train(make_config(values), run)
    train(make_config(values), resume=str(run))


@pytest.fixture(scope="module")
def unet_run(cavity_file, tmp_path_factory) -> Path:
    """A trained run of the tiny U-Net."""
    return train(make_config(tiny_config(cavity_file)), tmp_path_factory.mktemp("runs") / "unet").directory


@pytest.fixture(scope="module")
def poseidon_run(cavity_file, tmp_path_factory) -> Path:
    """A trained run of a tiny Poseidon, of velocity and pressure."""
    values = {**tiny_config(cavity_file, data={"fields": ["velocity", "pressure"]}), "operator": SMALL_POSEIDON}
    return train(make_config(values), tmp_path_factory.mktemp("runs") / "poseidon").directory


def from_(source: Path | str, file: Path, **changes: object) -> dict:
    """The tiny configuration, starting from these weights."""
    values = {**tiny_config(file, **changes), "pretrained": str(source)}
    del values["operator"]
    return values


# ---------------------------------------------------------------------------------------------------- learning rates


def unet() -> UNet:
    return UNet(2, 2, n_parameters=3, hidden_channels=[8, 8], embedding_channels=8)


def test_one_group_is_the_optimizer_of_before():
    operator, config = unet(), OptimizerConfig()
    optimizer, rates = make_optimizer(config, operator)
    plain = torch.optim.AdamW(operator.parameters(), lr=2e-3, weight_decay=1e-4, betas=(0.9, 0.98), fused=True)
    assert optimizer.state_dict() == plain.state_dict() and rates == [2e-3]
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], operator.parameters(), strict=True))


def test_a_checkpoint_of_a_plain_optimizer_loads(cavity_file, unet_run):
    """As runs of before this option wrote it."""
    operator = build_operator(tiny_run_config(tiny_config(cavity_file)), get_problem("cavity"))
    plain = torch.optim.AdamW(operator.parameters(), lr=1e-3, weight_decay=1e-4, betas=(0.9, 0.98), fused=True)
    plain.load_state_dict(load_checkpoint(checkpoints(unet_run / "checkpoints")[-1])["optimizer"])
    optimizer, rates = make_optimizer(OptimizerConfig(), operator)
    optimizer.load_state_dict(plain.state_dict())
    assert len(optimizer.state) == len(list(operator.parameters())) and len(rates) == len(optimizer.param_groups) == 1


def test_rates_and_decay_reach_the_named_tensors(monkeypatch):
    monkeypatch.setattr(UNet, "parameter_groups", grouped)
    operator = unet()
    config = OptimizerConfig(learning_rate=1e-3, weight_decay=0.5, group_rates={"vectors": 1e-2})
    optimizer, rates = make_optimizer(config, operator)
    assert rates == [1e-2, 1e-3]
    before = {name: p.detach().clone() for name, p in operator.named_parameters()}
    for parameter in operator.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # a gradient of zero: what moves is moved by the decay, by rate x decay
    for name, parameter in operator.named_parameters():
        expected = before[name] * (1 if parameter.ndim == 1 else 1 - 1e-3 * 0.5)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=0)
    for parameter in operator.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: p.detach().clone() for name, p in operator.named_parameters()}
    fresh, _ = make_optimizer(config.model_copy(update={"weight_decay": 0.0}), operator)
    fresh.step()  # the first step of Adam is the rate, whatever the gradient
    for name, parameter in operator.named_parameters():
        step = 1e-2 if parameter.ndim == 1 else 1e-3
        torch.testing.assert_close(
            before[name] - parameter.detach(), torch.full_like(parameter, step), rtol=1e-2, atol=0
        )


def test_every_group_follows_the_schedule_of_the_base_rate(cavity_file, tmp_path, monkeypatch):
    monkeypatch.setattr(UNet, "parameter_groups", grouped)
    seen, one_step = [], Trainer.one_step

    def watching(self, fraction):
        result = one_step(self, fraction)
        seen.append((fraction, [group["lr"] for group in self.optimizer.param_groups]))
        return result

    monkeypatch.setattr(Trainer, "one_step", watching)
    values = tiny_config(
        cavity_file, optimizer={"learning_rate": 1e-3, "warmup": 0.25, "group_rates": {"vectors": 5e-3}}
    )
    run = train(make_config(values), tmp_path / "run")
    shapes = [0.01, 0.5, *(0.5 * (1 + math.cos(math.pi * (k / 8 - 0.25) / 0.75)) for k in range(2, 8))]
    assert [fraction for fraction, _ in seen] == [k / 8 for k in range(8)]
    for (_, rates), shape in zip(seen, shapes, strict=True):
        assert rates == pytest.approx([5e-3 * shape, 1e-3 * shape])
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["learning_rate"] == pytest.approx(1e-3 * 0.01), "logged is the base rate"


def test_resume_with_groups_is_exact(cavity_file, tmp_path, monkeypatch):
    monkeypatch.setattr(UNet, "parameter_groups", grouped)
    values = tiny_config(cavity_file, optimizer={"group_rates": {"vectors": 1e-2}, "ema": 0.9})
    straight = train(make_config(values), tmp_path / "straight").directory
    train_in_two(values, tmp_path / "two", monkeypatch)
    assert equal(state(straight), state(tmp_path / "two"))
    other = tiny_config(cavity_file, optimizer={"ema": 0.9})
    assert not equal(state(straight), state(train(make_config(other), tmp_path / "other").directory))


def test_an_unknown_group_is_answered_before_the_data(cavity_file, tmp_path):
    values = tiny_config(cavity_file, optimizer={"group_rates": {"embedding": 1e-2}})
    values["data"]["files"] = []
    with pytest.raises(ConfigError, match=r"unet has no parameter group 'embedding'; known: rest"):
        train(make_config(values), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"group_rates\.rest"):
        make_config(tiny_config(cavity_file, optimizer={"group_rates": {"rest": 0}}))


# --------------------------------------------------------------------------------------------------- names of channels


@pytest.mark.parametrize(("name", "dim"), [(name, dim) for name, problem in PROBLEMS.items() for dim in problem.dims])
@pytest.mark.parametrize("task", [{}, {"history": 3}, {"kind": "map"}, {"kind": "map", "points": 9}])
def test_channels_have_different_names_and_the_operator_reads_them(name, dim, task):
    problem = get_problem(name, dim)
    if problem.static and task.get("kind") != "map":
        task = {"kind": "map"}
    values = {"problem": name, "dim": dim, "task": task}
    if task.get("kind") == "map" and not problem.static:
        values["data"] = {"inputs": list(problem.learned)}
    config = complete(make_config(values), problem)
    inputs, outputs = channel_names(problem, config.data.fields, config.data.inputs, config.task)
    sizes = {field.name: field.components for field in problem.fields}
    assert len(outputs) == len(set(outputs)) == sum(sizes[field] for field in config.data.fields)
    read = sum(sizes[field] for field in config.data.inputs or config.data.fields) * config.task.history
    assert len(inputs) == len(set(inputs)) == read + ("points" in task) + len(problem.geometry_channels)


def test_names_of_channels():
    problem = get_problem("cavity")

    def names(**task):
        config = tiny_run_config({"problem": "cavity", "data": {"fields": ["velocity", "pressure"]}, "task": task})
        return channel_names(problem, config.data.fields, config.data.inputs, config.task)

    now = ["velocity_x", "velocity_y", "pressure"]
    before = [f"{name}_before{frames}" for frames in (2, 1) for name in now]
    assert names(history=3) == (before + now, now)
    assert names(kind="map") == (["one"], now)


# ----------------------------------------------------------------------------------------------------- where it starts


def test_a_run_goes_on_from_the_weights_of_another(cavity_file, unet_run, tmp_path):
    config = tiny_run_config(from_(unet_run, cavity_file))
    problem, trained = get_problem("cavity"), load(unet_run)
    split = prepare(config.data, problem, "cpu", Progress())
    surrogate = build_surrogate(config, problem, build_operator(config, problem), split.train)
    assert equal(surrogate.state_dict(), trained.state_dict())
    untrained = build_operator(tiny_run_config(tiny_config(cavity_file)), problem).state_dict()
    assert not equal(untrained, surrogate.operator.state_dict())
    # The first loss that the run logs is that of the trained surrogate on the same batch.
    source = Windows(split.train.windows(["velocity"], 1, 1))
    batch = source.batch(source.indices(config.batch_size, 0, config.seed))
    with torch.no_grad():
        loss = float(UnrolledLoss(trained.train(), relative_l2)(batch, step_generator(0, 0)))
    run = train(config, tmp_path / "run").directory
    assert first_loss(run) == pytest.approx(loss, rel=1e-6) and abs(first_loss(unet_run) / loss - 1) > 0.01


def test_a_run_from_weights_resumes_exactly(cavity_file, unet_run, tmp_path, monkeypatch):
    monkeypatch.chdir(unet_run.parent)
    values = from_(unet_run.name, cavity_file)
    straight = train(make_config(values), tmp_path / "straight").directory
    # Resumed from elsewhere, as 'sciml train --resume RUN' does: with the configuration that the run recorded.
    with monkeypatch.context() as patched:
        interrupt_at(patched, 3)
        with pytest.raises(Interrupted):
            train(make_config(values), tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    recorded = resolve_config("cavity", file=tmp_path / "two" / "config.yaml")
    assert recorded.pretrained == str(unet_run / "surrogate")
    train(recorded, resume=str(tmp_path / "two"))
    assert equal(state(straight), state(tmp_path / "two"))


def test_resuming_needs_the_pretrained_directory(cavity_file, unet_run, tmp_path, monkeypatch):
    copy = shutil.copytree(unet_run, tmp_path / "copy")
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        train(make_config(from_(copy, cavity_file)), tmp_path / "run")
    monkeypatch.undo()
    shutil.rmtree(copy)
    with pytest.raises(CheckpointError, match=r"copy.*is not there; --from \(pretrained in config.yaml, which a res"):
        resolve_config("cavity", file=tmp_path / "run" / "config.yaml")


def test_what_from_takes(unet_run, tmp_path, monkeypatch):
    operator = str(unet_run / "surrogate")
    for given in (unet_run, unet_run / "surrogate", f"{unet_run}/", os.path.relpath(unet_run)):
        found = find_pretrained(str(given))
        assert (found.path, found.operator) == (operator, "unet")
    shutil.copytree(operator, tmp_path / "pretraining" / "operator")
    assert find_pretrained(str(tmp_path / "pretraining")).path == str(tmp_path / "pretraining" / "operator")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_pretrained("~/pretraining").path == str(tmp_path / "pretraining" / "operator")
    published = tmp_path / "published"
    published.mkdir()
    (published / "config.json").write_text(json.dumps({"architectures": ["ScOT"], "model_type": "swinv2"}))
    assert find_pretrained(str(published)).operator == "poseidon"
    hub = find_pretrained("camlab-ethz/Poseidon-T", "poseidon")
    assert (hub.path, hub.operator) == ("camlab-ethz/Poseidon-T", "poseidon")


def test_what_from_does_not_take(unet_run, tmp_path):
    for given in ("camlab-ethz/Poseidon-T", str(tmp_path / "nothing")):
        with pytest.raises(CheckpointError, match=r"is not there; .*with --operator poseidon a hub id"):
            find_pretrained(given)
    with pytest.raises(CheckpointError, match="is not there"):
        find_pretrained(str(tmp_path / "nothing"), "poseidon")
    with pytest.raises(CheckpointError, match="is not there"):
        find_pretrained("camlab-ethz/Poseidon-T", "fno")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file"):
        find_pretrained(str(unet_run / "surrogate" / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"holds no operator: no config\.json"):
        find_pretrained(str(tmp_path))
    (tmp_path / "config.yaml").write_text("problem: cavity\n")
    with pytest.raises(CheckpointError, match=r"holds no operator \(the run is unfinished\)"):
        find_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match="holds the operator 'unet', not 'fno'"):
        find_pretrained(str(unet_run), "fno")
    for content, message in (("{", "cannot be read"), ("[]", "holds list"), ("{}", "does not say which operator")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            find_pretrained(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    with pytest.raises(CheckpointError, match="does not say which operator"):
        find_pretrained(str(tmp_path))


def test_weights_that_do_not_fit_are_refused(cavity_file, unet_run, tmp_path):
    problem = get_problem("cavity")
    wide = tiny_run_config(from_(unet_run, cavity_file, data={"fields": ["velocity", "pressure"]}))
    with pytest.raises(CheckpointError, match=r"in_channels = 2, 3 are needed here"):
        build_operator(wide, problem)
    other = tiny_run_config({**from_(unet_run, cavity_file), "operator": {"hidden_channels": [16, 16]}})
    with pytest.raises(CheckpointError, match=r"hidden_channels = \[8, 8\], not \[16, 16\]"):
        build_operator(other, problem)
    with pytest.raises(ConfigError, match="holds the operator 'unet', not 'fno'"):
        tiny_run_config({**from_(unet_run, cavity_file), "operator": {"name": "fno"}})
    create_operator("unet", in_channels=2, out_channels=2, n_parameters=3, dim=3).save_pretrained(tmp_path / "unet3d")
    with pytest.raises(ConfigError, match=r"is for 3 dimensions.*start from other weights"):
        build_operator(tiny_run_config(from_(tmp_path / "unet3d", cavity_file)), problem)


def test_an_operator_that_does_not_exist_in_so_many_dimensions_says_so(monkeypatch):
    monkeypatch.setattr(FNO, "dims", (1, 2))
    config = complete(make_config({"problem": "gray_scott", "operator": {"name": "fno"}}), get_problem("gray_scott"))
    with pytest.raises(ConfigError, match=r"'fno' exists in 1D and 2D, the problem 'gray_scott' is in 3D here"):
        build_operator(config, get_problem("gray_scott"))


# ------------------------------------------------------------------------------------------------------------- recipes


def test_the_recipes_architecture_gives_way_to_the_weights(unet_run):
    assert resolve_config("cavity", "unet").operator.model_dump().keys() > {"name"}
    config = resolve_config("cavity", overrides=["operator.embedding_channels=8"], flags={"pretrained": str(unet_run)})
    assert config.operator.model_dump() == {"name": "unet", "embedding_channels": 8}
    assert config.optimizer == resolve_config("cavity", "unet").optimizer
    learned = {"pairs": config.task.pairs, "target": config.task.target, "loss": config.task.loss}
    assert learned == {
        "pairs": "successive",
        "target": "increment",
        "loss": "relative_l2",
    }  # as the run, not the recipe
    assert config.task.unroll == resolve_config("cavity", "unet").task.unroll


def test_the_recipe_of_fine_tuning(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ScOT"]}))

    def optimizer(*overrides: str) -> OptimizerConfig:
        return resolve_config("cavity", overrides=overrides, flags={"pretrained": str(tmp_path)}).optimizer

    base = RATES["poseidon"].base
    assert optimizer().learning_rate == base
    assert optimizer().group_rates == {"embedding_recovery": 10 * base, "time_embedding": 10 * base}
    assert optimizer("optimizer.learning_rate=1e-4").group_rates == pytest.approx(
        {"embedding_recovery": 1e-3, "time_embedding": 1e-3}
    )
    assert optimizer("optimizer.group_rates={}").group_rates == {}
    assert optimizer("optimizer.group_rates.time_embedding=1e-3").group_rates == {"time_embedding": 1e-3}
    assert resolve_config("cavity", "poseidon").optimizer.group_rates == {}


@pytest.mark.parametrize(("name", "dim"), PLANE)
def test_every_problem_of_the_plane_has_a_poseidon(name, dim):
    config = resolve_config(name, "poseidon", flags={"dim": dim, "data": {"files": []}})
    problem = get_problem(name, dim)
    operator = build_operator(config, problem)  # runs it on the problem's grid
    assert operator.config["image_size"] == list(problem.grid()) and operator.n_parameters == len(
        problem.condition_names
    )
    assert tuple(operator.config["out_channel_names"]) == tuple(
        channel_names(problem, problem.learned, (), config.task)[1]
    )


@pytest.mark.parametrize("name", ["diffusion_sorption", "burgers", "gray_scott"])
def test_off_the_plane_there_is_no_poseidon(name):
    problem = get_problem(name)
    with pytest.raises(ConfigError, match=r"'poseidon' exists in 2D, the problem .* is in [13]D here"):
        build_operator(resolve_config(name, "poseidon"), problem)


# ------------------------------------------------------------------------------------------------------------ Poseidon


def test_poseidon_keeps_the_channels_it_knows(cavity_file, poseidon_run):
    """From velocity and pressure to pressure alone."""
    config = tiny_run_config(from_(poseidon_run, cavity_file, data={"fields": ["pressure"]}))
    operator, trained = build_operator(config, get_problem("cavity")), load(poseidon_run).operator
    assert (operator.in_channels, operator.out_channels, operator.config["depths"]) == (1, 1, [1, 1])
    key = "embeddings.patch_embeddings.projection.weight"
    assert torch.equal(operator.state_dict()[key][:, 0], trained.state_dict()[key][:, 2])
    key = "encoder.layers.0.blocks.0.attention.self.query.weight"
    assert torch.equal(operator.state_dict()[key], trained.state_dict()[key])


def test_poseidon_is_fine_tuned_and_resumes_exactly(cavity_file, poseidon_run, tmp_path, monkeypatch):
    rates = {"embedding_recovery": 5e-3, "time_embedding": 5e-3}
    values = from_(
        poseidon_run,
        cavity_file,
        data={"fields": ["velocity", "pressure"]},
        optimizer={"learning_rate": 5e-4, "group_rates": rates},
    )
    straight = train(make_config(values), tmp_path / "straight").directory
    train_in_two(values, tmp_path / "two", monkeypatch)
    assert equal(state(straight), state(tmp_path / "two"))
    assert first_loss(straight) < first_loss(poseidon_run)


def test_new_weights_of_poseidon_are_a_function_of_the_configuration(cavity_file, tmp_path):
    """Pressure is new to a Poseidon of velocities."""
    velocity = ["velocity_x", "velocity_y"]
    names = {"channel_names": velocity, "out_channel_names": velocity}
    options = {key: value for key, value in SMALL_POSEIDON.items() if key != "name"}
    create_operator("poseidon", in_channels=2, out_channels=2, **options, **names).save_pretrained(tmp_path)

    config = tiny_run_config(from_(tmp_path, cavity_file, data={"fields": ["velocity", "pressure"]}))
    made = []
    for other in (3, 4):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        made.append(build_operator(config, get_problem("cavity")).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert equal(*made)

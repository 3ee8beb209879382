"""The surrogate: physical units in and out, saved without pickles, honest about its range."""

import json
import warnings

import pytest
import torch
from tiny import tiny_config, tiny_run_config

import sciml
from sciml.errors import CheckpointError, ConfigError, DataError
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.surrogate import OutOfRangeWarning, Surrogate
from sciml.training.build import build_operator, build_surrogate
from sciml.training.data import prepare

GENERATOR = torch.Generator().manual_seed(0)


def make(cavity_file, **changes) -> Surrogate:
    config = tiny_run_config(tiny_config(cavity_file, **changes))
    problem = get_problem("cavity")
    split = prepare(config.data, problem, "cpu", Progress())
    surrogate = build_surrogate(config, problem, build_operator(config, problem), split.train)
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=GENERATOR))
    return surrogate.eval()


@pytest.fixture(scope="module")
def surrogate(cavity_file):
    return make(cavity_file)


@pytest.fixture(scope="module")
def inside(surrogate) -> dict[str, list[float]]:
    """Two cases in the middle of the training range."""
    return {
        "lid_velocity": [10.0, 9.0],
        "density": [1.0, 1.0],
        "viscosity": [1.43e-3] * 2,
        "height": [0.01] * 2,
        "width": [0.01] * 2,
    }


@pytest.fixture(autouse=True)
def range_warnings_are_tested_where_they_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfRangeWarning)
        yield


STATE = torch.randn(2, 2, 24, 24, generator=GENERATOR)


def test_saved_surrogate_is_the_same(surrogate, inside, tmp_path):
    surrogate.save(tmp_path / "run" / "surrogate")
    assert {p.name for p in (tmp_path / "run" / "surrogate").iterdir()} == {
        "surrogate.json",
        "config.json",
        "model.safetensors",
        "README.md",
    }
    for path in (tmp_path / "run", tmp_path / "run" / "surrogate"):
        again = sciml.load(path)
        assert torch.equal(surrogate.step(STATE, inside), again.step(STATE, inside))
        assert again.ranges == surrogate.ranges and again.interval == surrogate.interval
    card = (tmp_path / "run" / "surrogate" / "README.md").read_text()
    assert "lid_velocity" in card and "training cases: 14" in card


def test_form_of_the_answer_follows_the_question(surrogate, inside):
    tensor = surrogate.step(STATE, inside)
    fields = surrogate.step({"velocity": STATE}, inside)
    assert tensor.shape == (2, 2, 24, 24) and torch.equal(fields["velocity"], tensor)
    assert surrogate.rollout({"velocity": STATE}, inside, 3)["velocity"].shape == (2, 3, 2, 24, 24)


def test_rollout_is_repeated_steps(surrogate, inside):
    frames = surrogate.rollout(STATE, inside, 3)
    state = STATE
    for index in range(3):
        state = surrogate.step(state, inside)
        assert torch.equal(state, frames[:, index])
    assert not torch.is_grad_enabled() or frames.grad_fn is None


def test_units_do_not_matter(surrogate):
    """The same flow twice as fast, in half the time: twice the answer."""
    slow = {"lid_velocity": 5.0, "density": 1.0, "viscosity": 1e-3, "height": 0.01, "width": 0.01}
    fast = {**slow, "lid_velocity": 10.0, "viscosity": 2e-3}
    a = surrogate.step(STATE, slow, interval=2e-3)
    b = surrogate.step(2 * STATE, fast, interval=1e-3)
    torch.testing.assert_close(b, 2 * a, rtol=1e-4, atol=1e-4)


def test_batch_equals_single(surrogate, inside):
    both = surrogate.rollout(STATE, inside, 2)
    one = surrogate.rollout(STATE[1:], {name: values[1:] for name, values in inside.items()}, 2)
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-4)


def test_parameters_that_change_in_time(surrogate, inside):
    changing = {**inside, "lid_velocity": [[10.0, 5.0], [9.0, 9.0]]}
    frames = surrogate.rollout(STATE, changing, 2)
    constant = surrogate.rollout(STATE, inside, 2)
    assert torch.equal(frames[:, 0], constant[:, 0]) and torch.equal(frames[1], constant[1])
    assert not torch.equal(frames[0, 1], constant[0, 1])
    second = surrogate.step(frames[:, 0], {**inside, "lid_velocity": [5.0, 9.0]})
    assert torch.equal(second, frames[:, 1])


def test_history(cavity_file, inside):
    model = make(cavity_file, task={"history": 2})
    window = torch.stack([STATE, STATE + 0.1], 1)
    frames = model.rollout(window, inside, 2)
    again = model.step(torch.stack([window[:, 1], frames[:, 0]], 1), inside)
    assert torch.equal(again, frames[:, 1])
    with pytest.raises(DataError, match=r"expected \(batch, 2, 2, \*grid\)"):
        model.step(STATE, inside)


def test_state_target_and_pressure(cavity_file, inside):
    model = make(cavity_file, task={"target": "state"}, data={"fields": ["velocity", "pressure"]})
    state = {"velocity": STATE, "pressure": torch.randn(2, 1, 24, 24, generator=GENERATOR)}
    out = model.step(state, inside)
    assert out["velocity"].shape == (2, 2, 24, 24) and out["pressure"].shape == (2, 1, 24, 24)


def test_gradient_reaches_the_input(surrogate, inside):
    values = surrogate.problem.as_parameters(inside)
    values["viscosity"] = values["viscosity"].clone().requires_grad_()
    state = STATE.clone().requires_grad_()
    surrogate(state.unsqueeze(1), values, torch.full((2,), 1e-3)).square().sum().backward()
    assert state.grad.any() and values["viscosity"].grad.any()


def test_warns_outside_the_training_range(surrogate, inside):
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutOfRangeWarning)
        surrogate.step(STATE, inside)
    with pytest.warns(OutOfRangeWarning, match="lid_velocity is 60; the surrogate was trained on"):
        surrogate.step(STATE, {**inside, "lid_velocity": 60.0})
    with pytest.warns(OutOfRangeWarning, match="the state has 32x24 cells; the surrogate was trained on 24x24"):
        surrogate.step(torch.zeros(2, 2, 32, 24), inside)
    with pytest.warns(OutOfRangeWarning, match="interval"):
        surrogate.step(STATE, inside, interval=5e-3)


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        (STATE[:, :1], DataError, r"shape \(2, 1, 24, 24\); expected \(batch, 2, \*grid\).*velocity \(2\)"),
        (STATE[0], DataError, "shape"),
        (torch.full_like(STATE, float("nan")), DataError, "case 0 holds NaN"),
        ({"pressure": STATE}, DataError, "lacks the field 'velocity'"),
    ],
)
def test_wrong_states(surrogate, inside, state, error, message):
    with pytest.raises(error, match=message):
        surrogate.step(state, inside)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"lid_velocity": [1.0, 2.0, 3.0]}, {}, "lid_velocity"),
        ({"viscosity": -1.0}, {}, "positive"),
        ({"lid_velocity": [[1.0, 1.0]] * 2}, {"steps": 3}, "given for 2 steps; 3 are asked for"),
        ({}, {"steps": 0}, "steps is 0"),
        ({}, {"interval": -1.0}, "interval must be positive"),
        ({}, {"interval": torch.ones(3)}, "interval has shape"),
    ],
)
def test_wrong_arguments(surrogate, inside, changes, arguments, message):
    with pytest.raises(ConfigError, match=message):
        surrogate.rollout(STATE, {**inside, **changes}, **{"steps": 2, **arguments})


def test_wrong_directories(surrogate, tmp_path):
    with pytest.raises(CheckpointError, match="is not there"):
        sciml.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no surrogate"):
        sciml.load(tmp_path)
    surrogate.save(tmp_path)
    whole = (tmp_path / "surrogate.json").read_text()
    (tmp_path / "surrogate.json").write_text(whole[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        sciml.load(tmp_path)
    config = json.loads(whole)
    del config["normaliser"]
    (tmp_path / "surrogate.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="lacks the key 'normaliser'"):
        sciml.load(tmp_path)
    (tmp_path / "surrogate.json").write_text(whole)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        sciml.load(tmp_path)

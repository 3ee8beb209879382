"""Operators on moved meshes through a whole run: trained, saved, loaded, rolled out."""

import pytest
import torch

import sciml
from sciml.training import resolve_config, train

TINY = [
    "budget.steps=3",
    "batch_size=2",
    "data.resolution=32",
    "data.frames=4",
    "data.cases.train=3",
    "data.cases.validation=2",
    "data.cases.test=2",
]
OPTIONS = {
    "mmpde": ["operator.hidden_channels=6", "operator.n_layers=2", "task.history=2"],
    "moving_mesh": ["operator.options.hidden_channels=[4,6]", "operator.mover_options.share=0.7"],
}


@pytest.mark.filterwarnings("ignore::sciml.surrogate.ranges.OutOfRangeWarning")  # three cases are a small range
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_run_from_data_to_rollout(name, tmp_path):
    config = resolve_config("burgers", name, None, [*TINY, *OPTIONS[name]], {"dim": 2})
    surrogate = sciml.load(train(config, tmp_path / "run").directory)
    operator, history = surrogate.operator, surrogate.history
    assert operator.name == name and operator.motion.moves
    names = operator.config["channel_names"]
    newest = [index for index, channel in enumerate(names) if "before" not in channel]
    assert operator.motion.channels == newest and history * len(newest) == len(names)
    cases = surrogate.problem.sample(2, "viscosity", seed=7, resolution=32).parameters
    times = surrogate.problem.frame_interval * torch.arange(history)
    fields = surrogate.problem.solve(cases, 32, times.expand(2, -1))
    state = {field: fields[field] if history > 1 else fields[field][:, 0] for field in surrogate.fields}
    frames = surrogate.rollout(state, cases, 3)
    for field, values in frames.items():
        assert values.shape[:2] == (2, 3) and torch.isfinite(values).all(), field

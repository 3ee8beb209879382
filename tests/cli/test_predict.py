"""``sciml predict``: the written file against the surrogate that made it."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sciml.cli.main import app
from sciml.datasets import DatasetFile, DatasetWriter
from sciml.problems import get_problem

CASES, FRAMES, GRID = 3, 6, (8, 6)


class Halving:
    """A surrogate whose every step halves the velocity and adds the lid speed times the interval."""

    def __init__(self, history=1, interval=0.001, problem="cavity"):
        self.problem = get_problem("cavity") if problem == "cavity" else type("P", (), {"name": problem})()
        self.fields = {field.name: field for field in get_problem("cavity").fields if field.name == "velocity"}
        self.history, self.interval = history, interval
        self.kind, self.inputs = "step", self.fields

    def rollout(self, state, parameters, steps, interval):
        assert state.ndim == (5 if self.history > 1 else 4) and interval.shape == (len(state), steps)
        now, frames = state[:, -1] if self.history > 1 else state, []
        for step in range(steps):
            lid = parameters["lid_velocity"]
            lid = lid[:, step] if lid.ndim == 2 else lid
            now = 0.5 * now + (lid * interval[:, step]).reshape(-1, 1, 1, 1).float()
            frames.append(now)
        return torch.stack(frames, 1)


@pytest.fixture
def file(tmp_path):
    """A small data file with a lid that changes its speed and frames that are not evenly spaced."""
    problem = get_problem("cavity")
    values = {name: np.full(CASES, 0.01) for name in ("height", "width", "viscosity")} | {"density": np.ones(CASES)}
    values["lid_velocity"] = np.arange(1.0, 1 + CASES * FRAMES).reshape(CASES, FRAMES)
    info = problem.dataset_info(GRID, FRAMES)
    generator = torch.Generator().manual_seed(0)
    draw = {
        field.name: torch.rand(CASES, FRAMES, field.components, *GRID, generator=generator) for field in info.fields
    }
    draw |= {
        face.name: torch.rand(CASES, FRAMES, *info.face_shape(face.name), generator=generator)
        for face in info.face_fields
    }
    draw["time"] = torch.tensor([0.0, 1, 2, 4, 6, 9], dtype=torch.float64).expand(CASES, -1) * 1e-3
    coordinates = {axis: (np.arange(n) + 0.5) / n * 0.01 for axis, n in zip("xy", GRID, strict=True)}
    with DatasetWriter(tmp_path / "in.h5", info, CASES, values, ["bc", "geo", "bc"]) as writer:
        writer.write(range(CASES), draw, coordinates)
        writer.finish()
    return tmp_path / "in.h5"


def predict(monkeypatch, surrogate, file, *arguments):
    monkeypatch.setattr("sciml.surrogate.load", lambda path, device: surrogate)
    out = file.with_name("out.h5")
    words = ["predict", "run", "--input", file, "--out", out, "--device", "cpu", *arguments]
    return CliRunner().invoke(app, [str(word) for word in words]), out


def test_rolls_out_to_the_end_of_the_file(monkeypatch, file):
    surrogate = Halving()
    result, out = predict(monkeypatch, surrogate, file, "--json")
    assert result.exit_code == 0, result.output
    given, made = DatasetFile(file), DatasetFile(out)
    assert made.info.channel_names == ("velocity_x", "velocity_y") and not made.info.face_fields
    assert made.subsets == given.subsets and made.n_frames == FRAMES
    np.testing.assert_allclose(made.times, given.times)
    start = given.state(frames=[0])[:, 0, :2]
    parameters = {name: torch.as_tensor(value) for name, value in given.parameters.items()}
    expected = surrogate.rollout(start, parameters, 5, torch.as_tensor(given.times).diff(dim=1))
    torch.testing.assert_close(made.state(), torch.cat([start[:, None], expected], 1))
    content = json.loads(result.stdout)
    assert content["steps"] == content["compared_frames"] == 5 and content["frame"] == 0
    truth = given.state(frames=[5])[:, 0, :2]
    error = (expected[:, -1] - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
    assert content["relative_l2_last"] == pytest.approx(float(error.mean()), rel=1e-5)


def test_beyond_the_end_with_history(monkeypatch, file):
    result, out = predict(monkeypatch, Halving(history=2), file, "--frame", -1, "--steps", 3, "--json")
    assert result.exit_code == 0, result.output
    made, given = DatasetFile(out), DatasetFile(file)
    assert made.n_frames == 5
    torch.testing.assert_close(made.state(frames=[0, 1]), given.state(frames=[4, 5])[:, :, :2])
    # The last interval (3 ms) and the last lid speed go on.
    np.testing.assert_allclose(made.times[0], np.array([6, 9, 12, 15, 18]) * 1e-3)
    np.testing.assert_allclose(made.parameters["lid_velocity"][0], [5, 6, 6, 6, 6])
    expected = 0.5 * given.state(frames=[5])[0, 0, :2] + 6 * 3e-3
    torch.testing.assert_close(made.state(frames=[2])[0, 0], expected)
    content = json.loads(result.stdout)
    assert content["relative_l2"] == [] and content["relative_l2_last"] is None


def test_an_existing_output_is_kept(monkeypatch, file):
    predict(monkeypatch, Halving(), file)
    result, _ = predict(monkeypatch, Halving(), file)
    assert result.exit_code == 2 and "--overwrite" in result.stderr
    assert predict(monkeypatch, Halving(), file, "--overwrite")[0].exit_code == 0


@pytest.mark.parametrize(
    ("surrogate", "arguments", "code", "words"),
    [
        (Halving(), ["--frame", 6], 2, "frames 0 to 5"),
        (Halving(history=3), ["--frame", 1], 2, "reads 3 frames"),
        (Halving(problem="tube"), [], 1, "'tube'"),
    ],
    ids=str,
)
def test_mistakes(monkeypatch, file, surrogate, arguments, code, words):
    result, out = predict(monkeypatch, surrogate, file, *arguments)
    assert result.exit_code == code and words in result.stderr and not out.exists()


def test_missing_and_foreign_input(monkeypatch, tmp_path):
    result, _ = predict(monkeypatch, Halving(), tmp_path / "no.h5")
    assert result.exit_code == 1 and "no.h5" in result.stderr
    (tmp_path / "text.h5").write_text("hello")
    result, _ = predict(monkeypatch, Halving(), tmp_path / "text.h5")
    assert result.exit_code == 1 and "HDF5" in result.stderr

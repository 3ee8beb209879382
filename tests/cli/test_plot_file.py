"""``sciml plot FILE``: the pictures of a case of a data file."""

import json

import numpy as np
import pytest
from cli_helpers import invoke
from PIL import Image

from sciml.datasets import DatasetInfo, DatasetWriter, FieldInfo
from sciml.datasets.particles import ParticleInfo, ParticleTrajectory, ParticleWriter


def write_file(path, fields, grid, frames=4, kind="periodic", cases=2):
    """A data file of smooth waves; ``fields`` maps name to components."""
    axes = "xyz"[: len(grid)]
    info = DatasetInfo(
        problem="waves",
        fields=[FieldInfo(name, n, "m/s", order=int(n > 1)) for name, n in fields.items()],
        parameters={},
        grid=grid,
        n_frames=frames,
        boundaries={f"{axis}_{side}": kind for axis in axes for side in ("low", "high")},
    )
    x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in grid), indexing="ij")
    wave = sum(np.sin(2 * np.pi * (i + 1) * each) for i, each in enumerate(x))
    trajectory = {
        name: np.stack([np.stack([wave * (t + 1 + c) for c in range(n)]) for t in range(frames)])[None]
        for name, n in fields.items()
    }
    with DatasetWriter(path, info, cases, {}, ["a"] * cases) as writer:
        for case in range(cases):
            centres = {axis: ((np.arange(n) + 0.5) / n)[None] for axis, n in zip(axes, grid, strict=True)}
            values = {name: (case + 1) * array for name, array in trajectory.items()}
            writer.write([case], values | {"time": 0.1 * np.arange(frames)[None]}, centres)
        writer.finish()
    return path


class TestPlotFile:
    @pytest.mark.parametrize(
        ("grid", "fields", "frames", "kind", "suffixes"),
        [
            ((16,), {"height": 1, "speed": 1}, 4, "periodic", ["", "_lines"]),
            ((16,), {"height": 1}, 1, "wall", ["_lines"]),
            ((12, 8), {"vorticity": 1}, 4, "periodic", ["", "_spectrum"]),
            ((40, 8), {"velocity": 2, "pressure": 1}, 4, "wall", [""]),
            ((8, 8), {"permeability": 1, "pressure": 1}, 1, "wall", [""]),
            ((8, 8, 8), {"velocity": 3}, 2, "periodic", ["", "_spectrum"]),
        ],
        ids=lambda v: str(v)[:16],
    )
    def test_pictures(self, tmp_path, grid, fields, frames, kind, suffixes):
        file = write_file(tmp_path / "data.h5", fields, grid, frames, kind)
        result = invoke("plot", file, "--case", 1)
        assert result.exit_code == 0, result.stderr
        expected = [tmp_path / f"data_case1{suffix}.png" for suffix in suffixes]
        assert result.stdout.split() == [str(path) for path in expected]
        for path in expected:
            with Image.open(path) as picture:
                assert np.asarray(picture.convert("L")).std() > 8

    def test_first_case_by_default_and_json(self, tmp_path):
        result = invoke("plot", write_file(tmp_path / "data.h5", {"height": 1}, (16,), 1), "--json")
        assert json.loads(result.stdout) == {"figures": [str(tmp_path / "data_case0_lines.png")]}

    def test_particles(self, tmp_path):
        position = np.random.default_rng(0).random((3, 20, 2))
        info = ParticleInfo("water", 2, 0.1, ((0.0, 1.0), (0.0, 1.0)), (0.0, -9.81), ("water",))
        with ParticleWriter(tmp_path / "data.h5", info, 1) as writer:
            writer.write(0, ParticleTrajectory(position))
            writer.finish()
        result = invoke("plot", tmp_path / "data.h5", "--vtk", tmp_path / "series", "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout) == {
            "figures": [str(tmp_path / f"data_case0.{suffix}") for suffix in ("png", "gif")],
            "series": [str(tmp_path / "series" / "data_case0.pvd")],
        }
        assert len(list((tmp_path / "series").glob("data_case0_*.vtu"))) == 3

    def test_errors(self, tmp_path):
        file = write_file(tmp_path / "data.h5", {"height": 1}, (16,), 1)
        for case in (2, -1):
            result = invoke("plot", file, "--case", case)
            assert result.exit_code == 1 and f"has no case {case}" in result.stderr and "2 cases" in result.stderr
        result = invoke("plot", file, "--vtk", tmp_path / "series")
        assert result.exit_code == 1 and "holds no particles" in result.stderr
        result = invoke("plot", tmp_path / "missing.h5")
        assert result.exit_code == 1 and "missing.h5" in result.stderr
        (tmp_path / "text.h5").write_text("no data")
        assert invoke("plot", tmp_path / "text.h5").exit_code == 1
        result = invoke("plot", tmp_path, "--case", 1)
        assert result.exit_code == 2 and "--case" in result.stderr

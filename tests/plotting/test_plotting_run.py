"""All pictures of a run directory."""

import json

import numpy as np
import pytest
from plotting_helpers import flow

from sciml.errors import CheckpointError, DataError
from sciml.plotting import run_figures


def write_run(directory, cases=2, **extra):
    """A run directory with what the pictures need."""
    directory.mkdir(parents=True)
    records = [{"step": s, "loss": 1 / s, "learning_rate": 1e-3} for s in range(1, 20)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (directory / "summary.json").write_text(json.dumps({"operator": "unet"}))
    truth, prediction = flow(frames=5, nx=16, ny=16)
    many = {name: np.stack([values] * cases) for name, values in (("truth", truth), ("prediction", prediction))}
    parameters = {"lid_velocity": 10.0, "density": 1.0, "viscosity": 1e-4, "width": 0.01, "height": 0.01}
    arrays = {
        **many,
        "time": np.tile(np.arange(1, 6) * 1e-3, (cases, 1)),
        "fields": np.array(["velocity"]),
        "subset": np.array(["bc", "geo"][:cases]),
        "case": np.arange(cases),
        "rollout_relative_l2": np.full((7, 4), 0.01),
        "persistence_rollout_relative_l2": np.full((7, 4), 0.5),
        **{f"parameter_{name}": np.full(cases, value) for name, value in parameters.items()},
    }
    np.savez(directory / "predictions.npz", **(arrays | extra))
    return directory


class TestRunFigures:
    def test_all_pictures(self, tmp_path):
        run = write_run(tmp_path / "run", cases=1)
        written = run_figures(run)
        names = {path.name for path in written}
        assert names == {
            "training.png",
            "rollout_error.png",
            "rollout_bc_case0.gif",
            "fields_bc_case0.png",
            "profiles_bc_case0.png",
        }
        assert all(path.parent == run / "figures" and path.stat().st_size > 5000 for path in written)

    def test_a_scalar_field(self, tmp_path):
        truth, prediction = flow(frames=5, nx=16, ny=16)
        only = {
            "truth": truth[None, :, :1],
            "prediction": prediction[None, :, :1],
            "fields": np.array(["pressure"]),
        }
        names = {path.name for path in run_figures(write_run(tmp_path / "run", 1, **only))}
        assert "fields_bc_case0.png" in names and not any("profiles" in name for name in names)

    def test_an_unfinished_run_gives_its_loss(self, tmp_path):
        run = write_run(tmp_path / "run")
        (run / "predictions.npz").unlink()
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step": 20, "lo')
        assert [path.name for path in run_figures(run)] == ["training.png"]

    def test_errors(self, tmp_path):
        with pytest.raises(CheckpointError, match="is not a directory"):
            run_figures(tmp_path / "nothing")
        with pytest.raises(CheckpointError, match="holds neither"):
            run_figures(tmp_path)
        run = write_run(tmp_path / "run")
        (run / "predictions.npz").write_bytes((run / "predictions.npz").read_bytes()[:3000])
        with pytest.raises(DataError, match="cannot read"):
            run_figures(run)
        run = write_run(tmp_path / "other", time=np.zeros((2, 3)))
        with pytest.raises(DataError, match="do not fit"):
            run_figures(run)

    def test_damaged_metrics(self, tmp_path):
        run = write_run(tmp_path / "run")
        (run / "metrics.jsonl").write_text('{"step": 1, "lo\n{"step": 2, "loss": 1}\n')
        with pytest.raises(DataError, match="line 1 is not JSON"):
            run_figures(run)

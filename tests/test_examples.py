"""The examples run and give what they say."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sciml.problems import PROBLEMS

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_own_data(tmp_path, capsys):
    load("own_data").main(tmp_path / "mine.h5")
    assert "3 cases of 6 frames" in capsys.readouterr().out


def test_solve_cavity(capsys):
    assert load("solve_cavity").main() == pytest.approx(-0.214, abs=0.01)


@pytest.mark.filterwarnings("ignore::sciml.surrogate.OutOfRangeWarning")
def test_train_in_python(tmp_path, capsys):
    load("train_in_python").main(tmp_path, steps=3)
    assert "frame 5: relative error" in capsys.readouterr().out


def test_map_darcy(tmp_path, capsys):
    error = load("map_darcy").main(tmp_path, steps=30)
    assert error < 0.6 and "from 40 wells" in capsys.readouterr().out


def test_fine_tune_poseidon(tmp_path, capsys):
    assert load("fine_tune_poseidon").main(tmp_path, steps=40) < 0.9
    assert "3 channels; loss" in capsys.readouterr().out
    assert (tmp_path / "tuned" / "config.json").is_file()


def test_constrain_a_network(capsys):
    assert load("constrain_a_network").main() < 0.8
    assert "constrained" in capsys.readouterr().out


def test_solve_without_data(tmp_path, capsys):
    assert load("solve_without_data").main(tmp_path, steps=20) < 0.5
    assert "20 steps without data" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::sciml.surrogate.OutOfRangeWarning")
def test_own_pde(tmp_path, capsys):
    """So few steps are inexact, but the equation has been learned from without a solution."""
    error, _ = load("own_pde").main(tmp_path, steps=60, method="map")
    printed = capsys.readouterr().out
    assert error < 0.4 and "60 steps without a solution" in printed and "from 25 sensors" in printed


def test_moving_mesh(tmp_path, capsys):
    errors = load("moving_mesh").main(tmp_path)
    assert errors["uniform"] > 3 * errors["classical"] and errors["uniform"] > 2.8 * errors["learned"]
    assert (tmp_path / "front.png").stat().st_size > 10_000 and (tmp_path / "front.vtu").exists()


def test_invert_darcy(tmp_path, capsys):
    """It runs; so few steps find little."""
    errors = load("invert_darcy").main(tmp_path, steps=60, draws=8)
    printed = capsys.readouterr().out
    assert max(errors[:2]) < 0.6 and "random field, 25 sensors" in printed and "checkerboard" in printed


def test_control_vortex(tmp_path, capsys):
    """It runs; so few steps teach nothing that could be used."""
    example = load("control_vortex")
    example.main(tmp_path, tmp_path / "control.png", steps=10, iterations=2)
    printed = capsys.readouterr().out
    assert "10 steps without data" in printed and "without control:      2.042 by the solver" in printed
    assert (tmp_path / "control.png").stat().st_size > 10_000


@pytest.mark.slow
def test_control_vortex_lowers_its_objective_ten_times_as_the_solver_confirms(tmp_path, capsys):
    assert load("control_vortex").main(tmp_path, tmp_path / "control.png", steps=600, iterations=40) > 10


def test_particles(tmp_path, capsys):
    assert load("particles").main(tmp_path, steps=30) < 1.5
    assert "60 of them stepped" in capsys.readouterr().out
    assert len(list(tmp_path.glob("**/*.vtu"))) == 20


def test_gallery(tmp_path, monkeypatch):
    """Every problem is drawn; the quick ones are enough here."""
    gallery = load("gallery")
    assert set(gallery.SHOWN) == set(PROBLEMS)
    monkeypatch.setattr(gallery, "PROBLEMS", ["burgers", "darcy", "diffusion_sorption", "vorticity"] * 2)
    assert gallery.main(tmp_path / "all.png").stat().st_size > 10_000


def test_every_example_is_tested():
    tested = Path(__file__).read_text()
    assert all(f'load("{path.stem}")' in tested for path in EXAMPLES.glob("*.py"))

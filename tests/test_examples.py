"""The examples run and give what they say."""

import importlib.util
import sys
from pathlib import Path

import pytest

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


def test_every_example_is_tested():
    tested = Path(__file__).read_text()
    assert all(f'load("{path.stem}")' in tested for path in EXAMPLES.glob("*.py"))

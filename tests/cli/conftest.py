import pytest
from cli_helpers import Recorder


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """A command that goes further than a test expects must not leave data and runs in the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def recorder(monkeypatch, tmp_path):
    recorder = Recorder(tmp_path / "run")
    monkeypatch.setattr("sciml.training.train", recorder.train, raising=False)
    monkeypatch.setattr("sciml.plotting.run_figures", lambda run, progress: [run / "figures" / "a.png"], raising=False)
    return recorder

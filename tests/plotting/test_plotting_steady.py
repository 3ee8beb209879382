"""The rollout to steady flow is drawn where the surrogate was trained, and nowhere else."""

import pytest
from tiny import tiny_config, tiny_run_config

from sciml.plotting.steady import steady_profiles
from sciml.problems import get_problem
from sciml.progress import Progress
from sciml.training.build import build_operator, build_surrogate
from sciml.training.data import prepare


@pytest.fixture(scope="module")
def surrogate(cavity_file):
    config, problem = tiny_run_config(tiny_config(cavity_file)), get_problem("cavity")
    split = prepare(config.data, problem, "cpu", Progress())
    return build_surrogate(config, problem, build_operator(config, problem), split.train).eval()


def test_only_reynolds_numbers_of_the_training_range(surrogate, tmp_path):
    # 24 x 24 cells resolve up to Re 140: of the table only Re 100 remains.
    paths = steady_profiles(surrogate, tmp_path)
    assert [path.name for path in paths] == ["profiles_steady_re100.png"]
    assert paths[0].stat().st_size > 10_000


def test_nothing_without_an_interval(surrogate, tmp_path, monkeypatch):
    monkeypatch.setattr(surrogate, "interval", None)
    assert steady_profiles(surrogate, tmp_path) == []

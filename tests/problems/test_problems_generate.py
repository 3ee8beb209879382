"""Generation: the same file however it is made, also after a kill."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch

from sciml.datasets import DatasetFile, merge_files
from sciml.errors import ConfigError, DataError, SolverError
from sciml.problems import PROBLEMS, Cavity, get_problem, workers
from sciml.problems.generate import generate, generate_timed
from sciml.progress import Progress

SMALL = {"cases": 26, "resolution": 24, "frames": 3, "seed": 5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> DatasetFile:
    return DatasetFile(generate("cavity", tmp_path_factory.mktemp("whole") / "a.h5", **SMALL))


class Told(Progress):
    """Keeps the messages."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


def same(a: DatasetFile, b: DatasetFile) -> bool:
    faces = [torch.equal(a.face_field(f.name), b.face_field(f.name)) for f in a.info.face_fields]
    return torch.equal(a.state(), b.state()) and all(faces)


def test_file_holds_the_sample(whole):
    assert whole.n_cases == 26 and whole.n_frames == 3 and set(whole.subsets) == {"bc", "prop", "geo"}
    assert whole.info.boundaries["y_high"] == "moving_wall"
    cavity = get_problem("cavity")
    sample = cavity.sample(26, "all", 5, 24, 3)
    direct = cavity.solve(sample.select([7]).parameters, 24, cavity.frame_times(sample.select([7]).parameters, 3))
    stored = whole.trajectory([7])
    assert torch.allclose(stored["velocity"], direct["velocity"], rtol=2e-2, atol=2e-2), (
        "batch and single differ in step count only"
    )


def test_two_workers_make_the_same_file(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("sciml.problems.workers.WARM_SECONDS", 0.0)
    monkeypatch.setattr("sciml.problems.workers.WORTH_SECONDS", 0.0)
    made = generate_timed("cavity", tmp_path / "b.h5", workers=2, **SMALL)
    assert (made.processes, made.cases, made.solved) == (2, 26, 26)
    assert same(whole, DatasetFile(made.path))


def test_short_work_starts_no_workers(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("sciml.problems.workers.ProcessPoolExecutor", None)
    torch.set_num_threads(2)
    try:
        made = generate_timed("cavity", tmp_path / "b.h5", workers=2, **SMALL)
        assert torch.get_num_threads() == 2, "restored"
    finally:
        torch.set_num_threads(1)
    assert made.processes == 1 and 0 < made.seconds_per_case == made.seconds / 26
    assert same(whole, DatasetFile(made.path))


def test_merged_shards_are_the_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(Cavity, "group", 1)  # solved alone, a case takes the same time steps whatever the shard
    small = {**SMALL, "cases": 7}
    shards = [generate("cavity", tmp_path / f"{i}.h5", shard=(i, 3), **small) for i in (3, 1, 2)]
    merged = DatasetFile(merge_files(tmp_path / "merged.h5", shards))
    whole = DatasetFile(generate("cavity", tmp_path / "whole.h5", **small))
    assert same(merged, whole)
    assert merged.info == whole.info and merged.subsets == whole.subsets
    for group in ("parameters", "coordinates"):
        assert all((getattr(merged, group)[name] == values).all() for name, values in getattr(whole, group).items())
    assert (merged.times == whole.times).all()


def test_a_dead_worker_is_said(tmp_path, monkeypatch):
    class Pool(ThreadPoolExecutor):
        def __init__(self, workers, **_):
            super().__init__(workers)

    def die(*_):
        raise BrokenProcessPool

    monkeypatch.setattr("sciml.problems.workers.WARM_SECONDS", 0.0)
    monkeypatch.setattr("sciml.problems.workers.WORTH_SECONDS", 0.0)
    monkeypatch.setattr("sciml.problems.workers.ProcessPoolExecutor", Pool)
    solve, calls = workers._outcome, []
    monkeypatch.setattr(workers, "_outcome", lambda *a: calls.append(a) or (solve if len(calls) == 1 else die)(*a))
    with pytest.raises(SolverError, match="a worker process died: out of memory"):
        generate("cavity", tmp_path / "x.h5", workers=2, **SMALL)
    monkeypatch.undo()
    progress = Told()
    generate("cavity", tmp_path / "x.h5", progress=progress, **SMALL)
    assert "12 of 26 cases are there already" in progress.messages[0]


@pytest.mark.parametrize("says_which", [True, False])
def test_a_failing_case_is_named_and_the_others_are_kept(whole, tmp_path, monkeypatch, says_which):
    shard, number = {"shard": (1, 1), **SMALL}, 7

    class Failing(Cavity):
        def solve(self, parameters, *arguments, **options):
            place = (parameters["viscosity"] == whole.parameters["viscosity"][number]).nonzero()
            if len(place):
                raise SolverError(f"case {int(place[0])} blew up at 0.5 s" if says_which else "blew up at 0.5 s")
            return super().solve(parameters, *arguments, **options)

    monkeypatch.setitem(PROBLEMS, "cavity", Failing)
    out, progress = tmp_path / "x.h5", Told()
    with pytest.raises(SolverError) as error:
        generate("cavity", out, progress=progress, **shard)
    named = f"case {number} blew up" if says_which else rf"one of the cases [\d, ]*\b{number}\b[\d, ]*: blew up"
    assert re.match(named, str(error.value)) and re.match(named, progress.messages[0])
    assert "1 of 3 groups of cases failed" in str(error.value) and "x.h5.partial keeps" in str(error.value)
    assert not out.exists()
    monkeypatch.undo()
    progress = Told()
    assert same(whole, DatasetFile(generate("cavity", out, progress=progress, **shard)))
    assert re.search("(14|24) of 26 cases are there already", progress.messages[0])


def test_a_failing_case_of_a_shard_has_its_number_in_the_sample(tmp_path, monkeypatch):
    viscosity = get_problem("cavity").sample(26, "all", 5, 24, 3).parameters["viscosity"]

    class Failing(Cavity):
        def solve(self, parameters, *_, **__):
            raise SolverError(f"case {int((parameters['viscosity'] == viscosity[3]).nonzero()[0])} blew up")

    monkeypatch.setitem(PROBLEMS, "cavity", Failing)
    with pytest.raises(SolverError, match="case 3 blew up"):
        generate("cavity", tmp_path / "x.h5", shard=(4, 8), **SMALL)  # cases 3, 11 and 19


@pytest.mark.parametrize("frames", [None, 1])
def test_a_static_problem_has_one_frame(tmp_path, frames):
    file = DatasetFile(generate("darcy", tmp_path / "x.h5", cases=3, resolution=16, frames=frames))
    assert file.n_frames == 1 and (file.times == 0).all()
    with pytest.raises(ConfigError, match="frames is 5; problem 'darcy' has no time"):
        generate("darcy", tmp_path / "y.h5", cases=3, resolution=16, frames=5)


def test_killed_generation_continues_to_the_same_file(whole, tmp_path):
    out = tmp_path / "killed.h5"
    script = textwrap.dedent(
        f"""
        import os, signal, torch
        from sciml.datasets import DatasetWriter
        from sciml.problems.generate import generate
        torch.set_num_threads(1)
        write, count = DatasetWriter.write, [0]
        def dying(self, *arguments):
            if count[0] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            count[0] += 1
            write(self, *arguments)
        DatasetWriter.write = dying
        generate("cavity", {str(out)!r}, **{SMALL!r})
        """
    )
    died = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert died.returncode == -signal.SIGKILL
    assert not out.exists() and Path(f"{out}.partial").exists()
    progress = Told()
    assert same(whole, DatasetFile(generate("cavity", out, progress=progress, **SMALL)))
    assert "24 of 26 cases are there already" in progress.messages[0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"shard": (3, 2)}, ConfigError, "shard is 3/2"),
        ({"shard": (3, 3), "cases": 2}, ConfigError, "empty"),
        ({"frames": 1}, ConfigError, "frames is 1"),
        ({"subset": "geom"}, ConfigError, "did you mean 'geo'"),
    ],
)
def test_bad_arguments(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        generate("cavity", tmp_path / "x.h5", **{**SMALL, **changes})


def test_unwritable_output(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(DataError, match="cannot create"):
        generate("cavity", blocker / "x.h5", **SMALL)


def test_interval_between_frames(tmp_path):
    path = generate("burgers", tmp_path / "b.h5", subset="fno", cases=2, resolution=96, frames=4, interval=0.02)
    file = DatasetFile(path)
    assert np.allclose(file.times, 0.02 * np.arange(4))
    usual = get_problem("burgers").solve(
        {name: values for name, values in file.parameters.items()}, 96, [0.0, 0.02, 0.04, 0.06]
    )
    np.testing.assert_allclose(file.state()[:, :, :1], usual["velocity"], rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="interval between frames is -1"):
        generate("burgers", tmp_path / "c.h5", cases=2, interval=-1.0)

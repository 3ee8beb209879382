"""Generation: the same file however it is made, also after a kill."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from sciml.datasets import DatasetFile
from sciml.errors import ConfigError, DataError
from sciml.problems.generate import generate

SMALL = {"cases": 26, "resolution": 24, "frames": 3, "seed": 5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> DatasetFile:
    return DatasetFile(generate("cavity", tmp_path_factory.mktemp("whole") / "a.h5", **SMALL))


def same(a: DatasetFile, b: DatasetFile) -> bool:
    faces = [torch.equal(a.face_field(f.name), b.face_field(f.name)) for f in a.info.face_fields]
    return torch.equal(a.state(), b.state()) and all(faces)


def test_file_holds_the_sample(whole):
    assert whole.n_cases == 26 and whole.n_frames == 3 and set(whole.subsets) == {"bc", "prop", "geo"}
    assert whole.info.boundaries["y_high"] == "moving_wall"
    from sciml.problems import get_problem

    cavity = get_problem("cavity")
    sample = cavity.sample(26, "all", 5, 24, 3)
    direct = cavity.solve(sample.select([7]).parameters, 24, cavity.frame_times(sample.select([7]).parameters, 3))
    stored = whole.trajectory([7])
    assert torch.allclose(stored["velocity"], direct["velocity"], rtol=2e-2, atol=2e-2), (
        "batch and single differ in step count only"
    )


def test_two_workers_make_the_same_file(whole, tmp_path):
    assert same(whole, DatasetFile(generate("cavity", tmp_path / "b.h5", workers=2, **SMALL)))


def test_shards_hold_every_case_once(whole, tmp_path):
    seen = []
    for index in (1, 2):
        shard = DatasetFile(generate("cavity", tmp_path / f"{index}.h5", shard=(index, 2), **SMALL))
        seen += shard.parameters["viscosity"].tolist()
    assert sorted(seen) == sorted(whole.parameters["viscosity"].tolist())


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
    messages = []

    class Told(type(__import__("sciml.progress", fromlist=["Progress"]).Progress())):
        def message(self, text):
            messages.append(text)

    assert same(whole, DatasetFile(generate("cavity", out, progress=Told(), **SMALL)))
    assert "24 of 26 cases are there already" in messages[0]


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

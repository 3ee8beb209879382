"""``sciml merge`` from the command line, and what the other commands make of its result."""

import json
from pathlib import Path

import pytest
import torch
from cli_helpers import invoke

from sciml.datasets import DatasetFile
from sciml.problems.generate import generate


@pytest.fixture
def shards() -> list[Path]:
    """Two shards of 5 cases in the (temporary) working directory."""
    options = {"cases": 5, "resolution": 24, "frames": 3}
    return [generate("cavity", f"part{i}.h5", shard=(i, 2), **options) for i in (1, 2)]


def test_merge_and_info(shards):
    result = invoke("merge", "all.h5", *reversed(shards), "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    assert (content["file"], content["cases"]) == ("all.h5", 5)
    assert [Path(part).name for part in content["parts"]] == ["part2.h5", "part1.h5"]
    assert "5 cases of 2 files, which it needs where they are" in result.stderr
    said = invoke("info", "all.h5").stdout
    assert "virtual" in said and "part1.h5  3 cases" in said
    told = json.loads(invoke("info", "all.h5", "--json").stdout)
    assert told["cases"] == 5 and len(told["parts"]) == 2
    assert "parts" not in json.loads(invoke("info", shards[0], "--json").stdout)
    merged, first = DatasetFile("all.h5"), DatasetFile(shards[0])
    assert torch.equal(merged.state([0, 2, 4]), first.state())


def test_copy_and_overwrite(shards):
    assert invoke("merge", "all.h5", *shards).exit_code == 0
    refused = invoke("merge", "all.h5", *shards, "--copy")
    assert refused.exit_code == 1 and "exists already" in refused.stderr and refused.stdout == ""
    result = invoke("merge", "all.h5", *shards, "--copy", "--overwrite")
    assert result.exit_code == 0 and "needs" not in result.stderr
    for shard in shards:
        shard.unlink()
    assert DatasetFile("all.h5").n_cases == 5


def test_mistakes(shards):
    assert invoke("merge", "all.h5").exit_code == 2
    result = invoke("merge", "all.h5", shards[0])
    assert result.exit_code == 1 and "shard 2/2 of the sample of part1.h5" in result.stderr
    assert "no data-set file" in invoke("merge", "all.h5", "none.h5").stderr
    invoke("merge", "all.h5", *shards)
    shards[0].unlink()
    result = invoke("info", "all.h5")
    assert result.exit_code == 1 and "part1.h5" in result.stderr and "put the file back" in result.stderr


@pytest.mark.slow
def test_train_on_a_merged_file():
    options = {"cases": 12, "resolution": 24, "frames": 5}
    shards = [generate("cavity", f"part{i}.h5", shard=(i, 2), **options) for i in (1, 2)]
    invoke("merge", "all.h5", *shards)
    result = invoke(
        "train", "-p", "cavity", "--data", "all.h5", "--device", "cpu", "--time-limit", "0.05", "--no-figures",
        "--json", "--out", "runs", "operator.hidden_channels=[8,8]",
        "data.cases.train=8", "data.cases.validation=2", "data.cases.test=2",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["test"]["cases"] == 2

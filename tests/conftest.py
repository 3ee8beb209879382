"""Shared by all tests: one thread, no display, and a tiny cavity data set made by the package itself."""

import os
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(1)
# Subprocesses of tests too: small tensors with several threads on a busy machine can be 20 times slower.
os.environ["OMP_NUM_THREADS"] = "1"

RESOLUTION, FRAMES = 24, 6


@pytest.fixture(scope="session")
def cavity_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 cavity cases of all subsets, 24 x 24 cells, 6 frames."""
    from sciml.problems.generate import generate

    path = tmp_path_factory.mktemp("data") / "cavity.h5"
    return generate("cavity", path, cases=20, resolution=RESOLUTION, frames=FRAMES, seed=0)


def tiny_config(file: Path, **changes: object) -> dict:
    """A training configuration that runs in a second or two on ``cavity_file``."""
    from sciml.training.config import merge

    base = {
        "problem": "cavity",
        "device": "cpu",
        "batch_size": 4,
        "validate_every": 4,
        "data": {"files": [str(file)], "cases": {"train": 14, "validation": 3, "test": 3}},
        "operator": {"name": "unet", "hidden_channels": [8, 8], "embedding_channels": 8},
        "task": {"unroll_from": 0.5},
        "budget": {"steps": 8},
        "checkpoint": {"every_steps": 4},
    }
    return merge(base, changes)

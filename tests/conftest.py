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

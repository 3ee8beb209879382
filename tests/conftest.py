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


@pytest.fixture(scope="session")
def latent_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the weak form of Darcy flow, 8 x 8 cells, of a few seconds. Not to be written into."""
    from sciml.training import resolve_config, train

    small = ["data.subset=waves", "data.resolution=8", "data.cases.train=60", "data.cases.validation=4"]
    small += ["data.cases.test=3", "budget.steps=60", "batch_size=10", "threads=1", "validate_every=30"]
    small += ["operator.latent=8"]
    config = resolve_config("darcy", "dgno", overrides=small)
    return train(config, tmp_path_factory.mktemp("latent") / "run").directory

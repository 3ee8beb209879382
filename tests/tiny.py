"""A training configuration that runs in a second or two."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sciml.training.config import TrainConfig


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


def tiny_run_config(values: dict) -> "TrainConfig":
    """The validated configuration with what it leaves to the problem filled in, as ``train`` does."""
    from sciml.problems import get_problem
    from sciml.training.config import complete, make_config

    config = make_config(values)
    return complete(config, get_problem(config.problem, config.dim))

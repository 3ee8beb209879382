"""Fits an operator on a data set: configuration, tasks, losses, the loop, checkpoints, parallelism.

Importing this package is light; torch is loaded with the first use of ``train`` or ``evaluate_run``.
"""

from typing import TYPE_CHECKING, Any

from sciml.training.config import TrainConfig, make_config, resolve_config
from sciml.training.latent.config import LatentConfig
from sciml.training.particles.config import ParticleConfig

if TYPE_CHECKING:
    from sciml.training.mixture_run import pretrain
    from sciml.training.run import RunResult, evaluate_run, train

__all__ = [
    "LatentConfig",
    "ParticleConfig",
    "RunResult",
    "TrainConfig",
    "evaluate_run",
    "make_config",
    "pretrain",
    "resolve_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in ("RunResult", "evaluate_run", "train"):
        from sciml.training import run

        return getattr(run, name)
    if name == "pretrain":
        from sciml.training import mixture_run

        return mixture_run.pretrain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

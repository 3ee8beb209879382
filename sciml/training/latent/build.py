"""The untrained surrogate of a run on a weak problem, its weights a function of the seed."""

from __future__ import annotations

import datetime
import math

import torch

from sciml.operators.dgno import DGNO
from sciml.operators.stored import build
from sciml.problems.weak import WeakProblem
from sciml.surrogate.latent import LatentSurrogate
from sciml.training.latent.config import LatentConfig
from sciml.training.latent.data import LatentCases

FIRST_LOG_STD = -4.0
"""Of the latent vectors before training: the decoders first learn from vectors that mean something."""


def build_latent_operator(config: LatentConfig, problem: WeakProblem) -> DGNO:
    """The operator for the problem's points and fields.

    Raises ``ConfigError`` for misspelt or wrong arguments.
    """
    options = {key: value for key, value in config.operator.model_dump().items() if key != "name"}
    input_low, input_high = problem.input_points.amin(0), problem.input_points.amax(0)
    fixed = {
        "n_inputs": len(problem.input_points),
        "out_channels": sum(field.components for field in problem.fields),
        "low": list(problem.box[0]),
        "high": list(problem.box[1]),
        "input_low": input_low.tolist(),
        "input_high": input_high.tolist(),
        "input_shape": list(problem.input_shape or ()),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        operator: DGNO = build(DGNO, {**fixed, **options})
    if operator.variational:
        last = [each for each in operator.encoder.modules() if isinstance(each, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.bias[operator.latent :] = FIRST_LOG_STD
    return operator


def build_latent_surrogate(
    config: LatentConfig, problem: WeakProblem, operator: DGNO, train: LatentCases
) -> LatentSurrogate:
    """The surrogate with the statistics of the training inputs."""
    seen = train.inputs.double()
    values = seen.log() if problem.link == "log" else seen
    std = float(values.std())
    return LatentSurrogate(
        operator,
        problem,
        mean=float(values.mean()),
        std=std if math.isfinite(std) and std > 0 else 1.0,
        ranges={problem.input.name: (float(seen.min()), float(seen.max()))},
        provenance={
            "training cases": len(train),
            "of them labelled": len(train.solutions),
            "learned from": config.task.learn,
            "subset": problem.subset,
            "seed": config.seed,
            "date": datetime.date.today().isoformat(),
        },
    )

"""The untrained surrogate of steps that are learned without data, and what its training needs."""

from __future__ import annotations

import datetime
import math

import torch
from torch import Tensor

from sciml.operators import Operator
from sciml.problems.base import Problem
from sciml.surrogate import Normaliser, Surrogate, observed_ranges
from sciml.training.build import build_constraints
from sciml.training.by_equation.loss import EquationLoss
from sciml.training.by_equation.pool import FieldPool
from sciml.training.config import TrainConfig
from sciml.training.random_cases import RANGE_CASES, random_cases

STARTS = 32
"""Cases whose first states the statistics are taken from."""


def build_surrogate_without_data(config: TrainConfig, problem: Problem, operator: Operator) -> Surrogate:
    """The operator with statistics of random first states, and of the steps that the equation begins them with.

    The change of a state in a first step is about minus the defect of staying where it is: nothing is solved.
    """
    interval = config.data.interval or problem.frame_interval
    cases = random_cases(config, problem).batch(range(RANGE_CASES)).parameters
    few = {name: values[:STARTS] for name, values in cases.items()}
    start = problem.start(few, config.data.resolution).float()
    change = problem.step_defect(start, start, few, torch.full((STARTS,), interval, dtype=torch.float64))
    scales = problem.scales(few)
    unit = torch.cat([scales[name] for name in problem.learned], -1).reshape(*start.shape[:2], *(1,) * problem.dim)
    scaled = (start / unit).transpose(0, 1).flatten(1).double()
    steps = (change / unit).transpose(0, 1).flatten(1).double()
    intervals = torch.full((RANGE_CASES, 1), interval, dtype=torch.float64)
    conditions = problem.conditions(cases, intervals[:, 0])
    normaliser = Normaliser(
        {
            "mean": scaled.mean(1).tolist(),
            "std": _positive(scaled.std(1)).tolist(),
            "increment_std": _positive(steps.square().mean(1).sqrt()).tolist(),
            "condition_mean": conditions.mean(0).tolist(),
            "condition_std": _positive(conditions.std(0)).tolist(),
        }
    )
    time_scale = interval if operator.time_conditioning else None
    return Surrogate(
        operator,
        problem,
        normaliser,
        fields=config.data.fields,
        target=config.task.target,
        interval=interval,
        time_scale=time_scale,
        grid=problem.grid(config.data.resolution),
        ranges=observed_ranges(problem, cases, intervals, time_scale),
        constraints=build_constraints(config, problem),
        provenance={
            "training": "residual of the equation, no data",
            "cases": f"subset {config.data.subset}, random",
            "seed": config.seed,
            "date": datetime.date.today().isoformat(),
        },
    )


def equation_loss(config: TrainConfig, surrogate: Surrogate) -> EquationLoss:
    """The loss of a run's steps by the equation, with its pool of flows; ``surrogate`` is that of the run.

    Flows live as long as the trajectories that the surrogate is judged by.
    """
    problem, task = surrogate.problem, config.task
    frames = config.data.frames or problem.frames
    pool = FieldPool(
        random_cases(config, problem),
        problem,
        surrogate.interval or problem.frame_interval,
        size=task.pool,
        batch=config.batch_size,
        lifetime=math.ceil((frames - 1) / surrogate.temporal),
    )
    return EquationLoss(surrogate, pool, calls=task.unroll if task.residual == 1 else 1, grow=task.grow)


def _positive(std: Tensor) -> Tensor:
    return torch.where(std > 1e-9, std, torch.ones_like(std))

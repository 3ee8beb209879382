"""Do weights that solve the equation beat a network that is asked to? PI-HC and PI-HC-MoE beside soft penalties.

python benchmarks/hard_constraint_experts.py [--problem vorticity] [--minutes 0.7] [--seeds 0 1 2] [--only coupled-4 ...]

No data: every contender is the same small FNO over space-time (initial field and parameters in, with coordinates),
trained on the mean square residual of fresh random cases for the same wall-clock. ``soft``: its output is the field.
``hc``: its N outputs are basis fields, whose weights solve the equation on the whole grid (PI-HC); ``coupled-K``,
``overlap-K``, ``independent-K``: on K tiles (PI-HC-MoE; independent as published). The initial field is imposed exactly
on all of them, all use all residual rows. Judged on the same cases: relative L2 error to the problem's solver on a grid
three times as fine with its own, adaptive time steps, and the residual.

Each finished run is kept in ``--directory`` at once; what is there is not run again, and two processes may share it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import Row, report
from torch import Tensor

from sciml.constraints.least_squares import Options
from sciml.constraints.mixture_of_experts import Equation, MixtureOfExpertsConstraint
from sciml.operators import FNO
from sciml.problems import Problem, get_problem

NAME = "hard_constraint_experts"
TEST_SEED, REFINEMENT = 7, 3
"""Three fine cells to a coarse one: the middle one has the same centre, so that nothing is interpolated."""
CONTENDERS = ("soft", "hc", *(f"{tiling}-{k}" for k in (4, 16) for tiling in ("coupled", "overlap", "independent")))


@dataclass(frozen=True)
class Setting:
    """One problem of the comparison. ``tiles``: of 4 and of 16 experts."""

    subset: str
    cells: int
    times: Tensor
    functions: int
    batch: int
    modes: tuple[int, ...]
    tiles: dict[int, tuple[int, ...]]
    interface_weight: float
    width: int = 32
    padding: float = 0.125
    learning_rate: float = 4e-3
    soft_learning_rate: float = 8e-3
    soft_batch: int = 2
    test_cases: int = 16


SETTINGS = {
    # The column starts with a jump at the inlet: early frames are close together.
    "diffusion_sorption": Setting(
        subset="soil",
        cells=64,
        times=500 * torch.linspace(0, 1, 25, dtype=torch.float64) ** 2,
        functions=48,
        batch=2,
        modes=(15, 23),
        tiles={4: (1, 4), 16: (4, 4)},
        interface_weight=10.0,
    ),
    "vorticity": Setting(
        subset="decaying",
        cells=24,
        times=torch.linspace(0, 0.5, 9, dtype=torch.float64),
        functions=32,
        batch=2,
        modes=(5, 9, 9),
        tiles={4: (1, 2, 2), 16: (1, 4, 4)},
        interface_weight=3.0,
    ),
}
SOLVER = Options(max_iterations=20, gradient_tolerance=1e-6, cost_tolerance=1e-6, step_tolerance=1e-6, polish=1)
TRAINING_STEPS_LIMIT = 100_000


class Contender(torch.nn.Module):
    """The network, and what makes its output a field."""

    def __init__(self, name: str, problem: Problem, setting: Setting) -> None:
        super().__init__()
        self.setting, self.soft = setting, name == "soft"
        self.network = FNO(
            1,
            1 if self.soft else setting.functions,
            n_parameters=len(problem.condition_names),
            n_modes=setting.modes,
            hidden_channels=setting.width,
            patch_size=1,
            padding=setting.padding,
        )
        tiling, _, count = name.partition("-")
        self.constraint = None
        if not self.soft:
            tiles = setting.tiles[int(count)] if count else None
            self.constraint = MixtureOfExpertsConstraint(
                tiles,
                tiling=tiling if count else "coupled",
                interface_weight=setting.interface_weight,
                options=SOLVER,
            )

    def forward(self, equation: Equation, conditions: Tensor, draw: int) -> Tensor:
        """The field ``(B, *shape)`` in physical units."""
        unit = equation.scale.reshape(-1, *(1,) * (equation.offset.ndim - 1))
        output = self.network((equation.offset / unit).float().unsqueeze(1), parameters=conditions)
        if self.constraint is not None:
            return self.constraint(output, equation, draw=draw)
        return equation.offset + equation.lift(output.double())[:, 0]


def cases(problem: Problem, setting: Setting, count: int, seed: int) -> tuple[dict[str, Tensor], Equation, Tensor]:
    """Parameters, equation and conditions (of the whole duration) of random cases."""
    parameters = problem.sample(count, setting.subset, seed, setting.cells).parameters
    equation = problem.equation(parameters, setting.cells, setting.times)  # type: ignore[attr-defined]
    duration = setting.times[-1].expand(count)
    return parameters, equation, problem.conditions(parameters, duration).float()


def resolved(problem: Problem, setting: Setting, parameters: dict[str, Tensor]) -> Tensor:
    """The field ``(B, *shape)`` by the problem's solver on a finer grid."""
    trajectory = problem.solve(parameters, REFINEMENT * setting.cells, setting.times, dtype=torch.float64)
    field = trajectory[problem.learned[0]][:, :, 0]
    for axis in range(problem.dim):
        field = field.movedim(axis + 2, -1)[..., REFINEMENT // 2 :: REFINEMENT].movedim(-1, axis + 2)
    return field


def train(name: str, problem: Problem, setting: Setting, seed: int, seconds: float) -> tuple[Contender, int]:
    """Train for ``seconds``; the learning rate falls to zero by half a cosine over that time."""
    torch.manual_seed(seed)
    contender = Contender(name, problem, setting)
    rate = setting.soft_learning_rate if contender.soft else setting.learning_rate
    optimizer = torch.optim.Adam(contender.parameters(), rate)
    begin, step = time.process_time(), 0
    while (spent := time.process_time() - begin) < seconds and step < TRAINING_STEPS_LIMIT:
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * spent / seconds)).item())
        _, equation, conditions = cases(
            problem, setting, setting.soft_batch if contender.soft else setting.batch, 100_000 * (seed + 1) + step
        )
        residual = equation.rows(contender(equation, conditions, step))
        loss = residual.flatten(1).square().mean(1).log().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(contender.parameters(), 1.0)
        optimizer.step()
        step += 1
        if VERBOSE and step % 10 == 1:
            print(f"{spent:6.1f} s, step {step}, log residual {0.5 * float(loss):.3f}", flush=True)
    return contender, step


VERBOSE = False


def judge(contender: Contender, problem: Problem, setting: Setting) -> dict[str, float]:
    """Error, residual and time of the test cases."""
    parameters, equation, conditions = cases(problem, setting, setting.test_cases, TEST_SEED)
    truth = resolved(problem, setting, parameters)
    with torch.no_grad():
        begin = time.process_time()
        field = contender(equation, conditions, 0)
        seconds = (time.process_time() - begin) / setting.test_cases
    error = (field - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
    residual = equation.rows(field).flatten(1).square().mean(1).sqrt()
    found = {
        "error": float(error.mean()),
        "worst error": float(error.max()),
        "residual": float(residual.mean()),
        "inference ms": 1e3 * seconds,
    }
    if contender.constraint is not None and contender.constraint.report is not None:
        own = contender.constraint.report
        found |= {"residual of the experts": float(own.sampled.mean()), "jump": float(own.jump.mean())}
        found |= {"failed solves": float(own.failed.sum())}
    return found

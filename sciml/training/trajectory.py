"""Learning whole trajectories without data: random cases, the residual as the loss, and the untrained surrogate."""

from __future__ import annotations

import datetime

import torch
from torch import Tensor, nn

from sciml.constraints.mixture_of_experts import Equation
from sciml.errors import ConfigError
from sciml.operators import Operator, create_operator
from sciml.operators.base import find_operator
from sciml.problems.base import Problem
from sciml.problems.generate import graded
from sciml.surrogate import TrajectorySurrogate, observed_ranges
from sciml.surrogate.trajectory import equation_residual, input_names
from sciml.training.config import TrainConfig
from sciml.training.random_cases import RANGE_CASES, Cases, random_cases


class ResidualLoss(nn.Module):
    """Geometric mean over the cases of the root mean square residual of the whole field, with the gradient of its
    logarithm.

    So every case weighs by how much better it becomes and not by how bad it is, and the gradient is a mean over cases,
    however they are divided among processes.
    """

    def __init__(self, surrogate: TrajectorySurrogate) -> None:
        super().__init__()
        self.surrogate = surrogate
        self._solves = self._failed = 0

    def forward(self, batch: Cases, generator: torch.Generator) -> Tensor:
        """The loss of a batch; ``generator`` draws the rows that experts are solved on."""
        surrogate = self.surrogate
        equation = surrogate.equation(batch.parameters)
        draw = int(torch.randint(2**31, (), generator=generator))
        field = surrogate(equation, surrogate.conditions(batch.parameters), draw)
        if surrogate.constraint is not None and surrogate.constraint.report is not None:
            failed = surrogate.constraint.report.least_squares.failed
            self._solves, self._failed = self._solves + failed.numel(), self._failed + int(failed.sum())
        loss = equation_residual(equation, field).log().mean()
        return loss + (loss.exp() - loss).detach()

    def numbers(self) -> dict[str, float]:
        """Solves since the last call, and those that did not converge."""
        found = {"solves": self._solves, "failed_solves": self._failed} if self._solves else {}
        self._solves = self._failed = 0
        return found


def frame_times(config: TrainConfig, problem: Problem, parameters: dict[str, Tensor]) -> list[float]:
    """The times that all cases are solved at, given the parameters of some of them."""
    times = graded(problem.frame_times(parameters, config.data.frames, config.data.interval), config.data.grading)
    return times[0].tolist()


def build_trajectory_surrogate(config: TrainConfig, problem: Problem) -> TrajectorySurrogate:
    """The untrained surrogate, its weights a function of the seed, tried out on one case.

    Raises ``ConfigError`` for an operator that does not exist on so many axes, wrong keys, tiles that do not fit the
    grid, or more basis fields than a tile has rows: mistakes are better met before minutes of generation.
    """
    problem.check_subset(1, config.data.subset)
    cases = random_cases(config, problem).batch(range(RANGE_CASES)).parameters
    one = {name: values[:1] for name, values in cases.items()}
    times = frame_times(config, problem, one)
    axes = () if problem.static else (torch.tensor(times, dtype=torch.float64),)
    equation: Equation = problem.equation(one, problem.grid(config.data.resolution), *axes)  # type: ignore[attr-defined]
    duration = torch.full((RANGE_CASES, 1), times[-1], dtype=torch.float64)
    conditions = problem.conditions(cases, duration[:, 0])
    spread, seen = conditions.std(0), observed_ranges(problem, cases, duration)
    surrogate = TrajectorySurrogate(
        _operator(config, problem, equation),
        problem,
        times=times,
        grid=problem.grid(config.data.resolution),
        periodic=equation.periodic,
        condition_mean=conditions.mean(0).tolist(),
        condition_std=torch.where(spread > 1e-9, spread, torch.ones_like(spread)).tolist(),
        experts=None if config.experts is None else config.experts.model_dump(),
        ranges={name: bounds for name, bounds in seen.items() if name != "interval"},
        provenance={
            "training": "residual of the equation, no data",
            "cases": f"subset {config.data.subset}, random",
            "seed": config.seed,
            "date": datetime.date.today().isoformat(),
        },
    )
    with torch.no_grad():
        surrogate(equation, surrogate.conditions(one))
    return surrogate


def _operator(config: TrainConfig, problem: Problem, equation: Equation) -> Operator:
    family = find_operator(config.operator.name)
    axes = len(equation.shape)
    if axes not in family.dims:
        raise ConfigError(
            f"the operator {family.name!r} does not exist on {axes} axes, which trajectories of {problem.name!r} have "
            f"({'space' if problem.static else 'time and space'}); use fno or unet"
        )
    inputs = input_names(problem, equation.periodic)
    count = 1 if config.experts is None else config.experts.bases
    outputs = list(problem.learned) if count == 1 else [f"basis_{number}" for number in range(count)]
    names = list(problem.condition_names)
    chosen = {key: value for key, value in config.operator.model_dump().items() if key != "name"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.pretrained is not None:
            return family.fine_tuned_from(
                config.pretrained, inputs=inputs, outputs=outputs, parameters=names, options=chosen
            )
        options = {
            **family.options_for(axes, all(equation.periodic)),
            **family.options_for_names(inputs, outputs, names),
            **chosen,
        }
        operator = create_operator(
            family.name, in_channels=len(inputs), out_channels=len(outputs), n_parameters=len(names), **options
        )
    if operator.dim != axes or operator.time_conditioning or operator.temporal > 1:
        raise ConfigError(
            f"the operator {family.name!r} has to be on {axes} axes, time first, and without time_conditioning or "
            "several frames at once (temporal) here: change its arguments (e.g. n_modes, dim)"
        )
    return operator

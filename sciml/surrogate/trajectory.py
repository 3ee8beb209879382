"""A surrogate of whole trajectories: from parameters and initial field to the solution in space and time, at once.

    surrogate = sciml.load(RUN)
    fields = surrogate.solve(parameters)        # {"concentration": (B, T, 1, n), "time": (B, T)}

It is trained without data, on the residual of the equation (``sciml.constraints.mixture_of_experts.Equation``). The
operator has one axis more than the problem, time first. It reads what is known of the solution in every frame (the
initial field, in natural units) and the coordinates of space-time; its output is the field (the "soft" way), or N basis
fields whose weights solve the equation in every tile of space-time (the "hard" way, PI-HC-MoE). Both leave the initial
field as it is given.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.constraints.least_squares import LeastSquaresWarning, Options
from sciml.constraints.mixture_of_experts import Equation, MixtureOfExpertsConstraint
from sciml.errors import ConfigError, DataError
from sciml.operators import Operator
from sciml.problems.base import Problem
from sciml.problems.cases import ParameterValues
from sciml.surrogate.conditions import observed_ranges
from sciml.surrogate.ranges import warn_out_of_range

PADDING = 0.125
"""Of every axis that is not periodic, this fraction is added behind its end before the operator and cut off after it:
Fourier modes take every axis for periodic."""

TOLERANCE = 1e-6
"""Of the solve for the weights: their errors are then far below what the basis can represent."""


class TrajectorySurrogate(nn.Module):
    """Operator, problem and space-time grid, and how the operator's output becomes a solution.

    Args:
        operator: the channels ``input_names(...)`` to one (soft) or N (hard) on the axes (time, x[, y]), or (x, y) of a
            static problem, conditioned on the problem's conditions of the whole duration.
        problem: has an ``equation``.
        times: of the frames, from 0; of a static problem [0].
        grid: cells.
        periodic: whether each axis of the operator is periodic.
        condition_mean, condition_std: that the operator sees the conditions in.
        experts: the hard constraint's options (``ExpertsConfig``); None: soft.
        ranges: name -> (low, high) of the training cases' parameters and conditions.
        provenance: anything worth keeping about the training.
    """

    kind: ClassVar[str] = "trajectory"

    def __init__(
        self,
        operator: Operator,
        problem: Problem,
        *,
        times: Sequence[float],
        grid: Sequence[int],
        periodic: Sequence[bool],
        condition_mean: Sequence[float],
        condition_std: Sequence[float],
        experts: Mapping[str, Any] | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.operator, self.problem = operator, problem
        self.times, self.grid, self.periodic = tuple(times), tuple(grid), tuple(periodic)
        self.experts = None if experts is None else dict(experts)
        self.constraint = None if experts is None else _layer(experts)
        known = {field.name: field for field in problem.fields}
        self.fields = {name: known[name] for name in problem.learned}
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in (ranges or {}).items()}
        self.provenance = dict(provenance or {})
        self.register_buffer("condition_mean", torch.tensor(condition_mean, dtype=torch.float32))
        self.register_buffer("condition_std", torch.tensor(condition_std, dtype=torch.float32))

    condition_mean: Tensor
    condition_std: Tensor

    # --------------------------------------------------------------------------- what training differentiates through

    def forward(self, equation: Equation, conditions: Tensor, draw: int = 0) -> Tensor:
        """The solution ``(B, *shape)`` float64 in physical units; ``draw``: of the rows that experts are solved on."""
        output = self._output(equation.inputs, conditions)
        if self.constraint is not None:
            return self.constraint(output, equation, draw=draw)
        return equation.offset + equation.lift(output.double())[:, 0]

    def _output(self, known: Tensor, conditions: Tensor) -> Tensor:
        """The operator's channels ``(B, N, *shape)``."""
        shape = known.shape[2:]
        padding = [0 if periodic else round(PADDING * n) for n, periodic in zip(shape, self.periodic, strict=True)]
        x = F.pad(known.float(), [each for added in reversed(padding) for each in (0, added)], mode="replicate")
        places = coordinates(shape, self.periodic, padding).to(x)
        x = torch.cat([x, places.expand(len(x), *places.shape)], 1)
        parameters = (conditions.to(x) - self.condition_mean) / self.condition_std if conditions.shape[1] else None
        output = self.operator(x, parameters=parameters)
        for axis, n in enumerate(shape):
            output = output.narrow(axis + 2, 0, n)
        return output

    def equation(self, parameters: Mapping[str, Tensor], **given: Tensor) -> Equation:
        """The equation of cases on this grid; ``given``: the initial field, or the given fields of a static problem.

        Raises ``ConfigError`` for cases whose box is periodic where the surrogate's is not, or the other way.
        """
        problem, device = self.problem, self.condition_mean.device
        given = given or known_fields(problem, parameters, self.grid, device)
        given = {name: torch.as_tensor(value).to(device, torch.float64) for name, value in given.items()}
        times = () if problem.static else (torch.tensor(self.times, dtype=torch.float64),)
        equation: Equation = problem.equation(parameters, self.grid, *times, **given)  # type: ignore[attr-defined]
        if tuple(equation.periodic) != self.periodic:
            raise ConfigError("the surrogate was trained for other boundaries: periodic ones, or walls")
        return equation

    def conditions(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The dimensionless numbers ``(B, P)`` of the whole duration."""
        batch = len(next(iter(parameters.values())))
        return self.problem.conditions(parameters, torch.full((batch,), self.times[-1], dtype=torch.float64))

    # --------------------------------------------------------------------------------------------- what users call

    @torch.no_grad()
    def solve(self, parameters: ParameterValues, **given: Tensor) -> dict[str, Tensor]:
        """The fields and ``time (B, T)``, in physical units, as ``problem.solve`` returns them, float32.

        ``parameters``: as for ``problem.solve``. ``given``: ``initial (B, components, *grid)`` in place of the initial
        field that the parameters say; of a static problem its given fields, e.g. ``permeability=(B, 1, nx, ny)``.

        Raises ``ConfigError`` and ``DataError`` for wrong parameters, shapes or non-finite values; warns
        (``OutOfRangeWarning``) when a parameter leaves the training range, and (``LeastSquaresWarning``) where the
        weights of basis fields are not at a minimum.
        """
        equation, field = self._solved(self._values(parameters, given), given)
        report = None if self.constraint is None else self.constraint.report
        if report is not None and (trouble := report.least_squares.trouble()):
            warnings.warn(f"{trouble}; see residual_report()", LeastSquaresWarning, stacklevel=3)
        fields = equation.trajectory(field)
        return {name: value if name == "time" else value.float() for name, value in fields.items()}

    @torch.no_grad()
    def residual_report(self, parameters: ParameterValues, **given: Tensor) -> dict[str, Tensor]:
        """How well the solutions of these cases obey the equation, ``(B,)`` float64 each.

        ``residual``: root mean square of the rows of the whole field, which are of order 1. With experts also
        ``sampled``, ``held_out``: of the rows that they were solved on and of the others (NaN without any); ``jump``:
        the largest difference at a face between two tiles in units of the field's scale; ``failed``: solves that did
        not converge. Arguments as of ``solve``.
        """
        equation, field = self._solved(self._values(parameters, given), given)
        found = {"residual": equation_residual(equation, field)}
        if self.constraint is not None and (report := self.constraint.report) is not None:
            found |= {"sampled": report.sampled, "held_out": report.held_out, "jump": report.jump}
            failed = report.least_squares.failed.reshape(equation.batch, -1)
            found["failed"] = failed.sum(1).double()
        return found

    def _values(self, parameters: ParameterValues, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Checked parameters of every case; warns of those out of range."""
        wanted = self.problem.given if self.problem.static else ("initial",)
        for name in given:
            if name not in wanted:
                raise ConfigError(f"solve() has no argument {name!r}; of this problem may be given {', '.join(wanted)}")
        batch = None
        for name, value in given.items():
            shape = tuple(torch.as_tensor(value).shape)
            if shape[2:] != self.grid:
                raise DataError(
                    f"{name} has shape {shape}; this surrogate has the grid "
                    f"{'x'.join(map(str, self.grid))}: expected (B, components, *grid)"
                )
            batch = shape[0]
        own = {p.name: 0.0 for p in self.problem.parameters if p.name in given}
        values = self.problem.as_parameters({**own, **parameters}, batch)
        intervals = torch.full((len(next(iter(values.values()))), 1), self.times[-1], dtype=torch.float64)
        warn_out_of_range(observed_ranges(self.problem, values, intervals), self.ranges, stacklevel=5)
        return values

    def _solved(self, values: dict[str, Tensor], given: Mapping[str, Tensor]) -> tuple[Equation, Tensor]:
        training = self.training
        self.eval()
        equation = self.equation(values, **given)
        field = self(equation, self.conditions(values))
        self.train(training)
        return equation, field

    def save(self, directory: Path | str) -> Path:
        """Write the surrogate without pickles; return the directory."""
        from sciml.surrogate.trajectory_storage import save

        return save(self, directory)


def equation_residual(equation: Equation, field: Tensor) -> Tensor:
    """Root mean square ``(B,)`` of the rows of a field ``(B, *shape)``, conditions that no row contains included."""
    square = equation.rows(field).flatten(1).square().mean(1)
    if not equation.conditions_in_rows:
        found = equation.conditions(field.unsqueeze(1), homogeneous=False)
        if found is not None:
            square = square + found[0][:, 0].square().mean(1)
    return square.sqrt()


def known_fields(
    problem: Problem, parameters: Mapping[str, Tensor], grid: Sequence[int], device: torch.device
) -> dict[str, Tensor]:
    """What ``problem.equation`` starts from, by the name of its argument: ``initial``, or a static problem's fields."""
    names = problem.given if problem.static else ("initial",)
    return {name: getattr(problem, name)(parameters, grid, dtype=torch.float64, device=device) for name in names}


def coordinates(shape: Sequence[int], periodic: Sequence[bool], padding: Sequence[int]) -> Tensor:
    """Coordinate channels ``(C, *(n + padding))`` of the cells: (-1, 1) on an axis, beyond 1 in its padding; sine and
    cosine on one that is periodic.
    """
    channels = []
    whole = [n + added for n, added in zip(shape, padding, strict=True)]
    for axis, (n, total) in enumerate(zip(shape, whole, strict=True)):
        place = (torch.arange(total, dtype=torch.float64) + 0.5) / n
        own = [(2 * torch.pi * place).sin(), (2 * torch.pi * place).cos()] if periodic[axis] else [2 * place - 1]
        column = [1] * len(shape)
        column[axis] = total
        channels += [values.reshape(column).expand(whole) for values in own]
    return torch.stack(channels)


def input_names(problem: Problem, periodic: Sequence[bool]) -> list[str]:
    """Names of the operator's input channels: what ``Equation.inputs`` gives, then the coordinates."""
    known = problem.given if problem.static else problem.learned
    axes = "xyz"[: problem.dim] if problem.static else "t" + "xyz"[: problem.dim]
    pairs = zip(axes, periodic, strict=True)
    return [*known, *(name for axis, loop in pairs for name in ([f"sin_{axis}", f"cos_{axis}"] if loop else [axis]))]


def _layer(experts: Mapping[str, Any]) -> MixtureOfExpertsConstraint:
    options = {name: value for name, value in experts.items() if name not in ("bases", "tiles", "iterations")}
    solver = Options(
        max_iterations=experts["iterations"],
        gradient_tolerance=TOLERANCE,
        cost_tolerance=TOLERANCE,
        step_tolerance=TOLERANCE,
        polish=1,
    )
    return MixtureOfExpertsConstraint(experts["tiles"], **options, options=solver, on_failure="mask")

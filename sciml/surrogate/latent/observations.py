"""Noisy values of solution fields at a few points."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sciml.errors import DataError, did_you_mean
from sciml.problems.weak import WeakProblem


@dataclass(frozen=True)
class Observations:
    """``points (M, d)`` in the domain, ``values (M, K)`` of the ``channels`` there (all in physical units).

    ``channels``: K names of solution components, as ``channel_names`` gives them.
    """

    points: Tensor
    values: Tensor
    channels: tuple[str, ...]

    def check(self, problem: WeakProblem) -> None:
        """Raise ``DataError`` for no sensors, wrong shapes, unknown channels, NaN, or sensors outside the domain."""
        known, axes = channel_names(problem), problem.axes
        count = len(self.points) if self.points.ndim else 0
        if count < 1:
            raise DataError("there are no observations; at least one sensor is needed")
        if self.points.ndim != 2 or self.points.shape[1] != len(axes):
            raise DataError(
                f"the sensors have shape {tuple(self.points.shape)}; expected (M, {len(axes)}) of {', '.join(axes)}"
            )
        if not self.channels:
            raise DataError(f"no field is observed; {problem.name} has {', '.join(known)}")
        for name in self.channels:
            if name not in known:
                raise DataError(
                    f"{problem.name} has no field {name!r}{did_you_mean(name, known)}; it has {', '.join(known)}"
                )
        if tuple(self.values.shape) != (count, len(self.channels)):
            raise DataError(
                f"the observed values have shape {tuple(self.values.shape)}; expected ({count}, {len(self.channels)}): "
                "a row a sensor, a column a field"
            )
        for what, tensor in (("position", self.points), ("value", self.values)):
            bad = (~torch.isfinite(tensor)).nonzero()
            if len(bad):
                raise DataError(
                    f"sensor {int(bad[0, 0])} has a {what} that is not a number: {tensor[bad[0, 0]].tolist()}"
                )
        outside = ~problem.inside(self.points)
        if bool(outside.any()):
            first = int(outside.nonzero()[0, 0])
            low, high = problem.box
            raise DataError(
                f"{int(outside.sum())} of {count} sensors lie outside the domain of {problem.name}, the first is "
                f"sensor {first} at {tuple(self.points[first].tolist())}; its box is from {low} to {high}"
            )

    @classmethod
    def read(cls, file: Path | str, problem: WeakProblem) -> Observations:
        """From a CSV file with a header: the coordinates (``x``, ``y``, ``t``: the problem's axes) and one column a
        field.

        Raises ``DataError`` for a missing file, wrong columns, or entries that are not numbers.
        """
        path = Path(file)
        try:
            with path.open(newline="", encoding="utf-8-sig") as opened:
                rows = [row for row in csv.reader(opened) if row and any(cell.strip() for cell in row)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"cannot read the observations {path}: {reason}") from None
        known, axes = channel_names(problem), problem.axes
        expected = f"expected {','.join(axes)} and one or more of {', '.join(known)}"
        if not rows:
            raise DataError(f"{path} is empty; {expected}")
        header = [name.strip() for name in rows[0]]
        for name in axes:
            if name not in header:
                raise DataError(f"{path} has the columns {', '.join(header)}; {name} is missing: {expected}")
        channels = tuple(name for name in header if name not in axes)
        for name in channels:
            if name not in known:
                raise DataError(f"{path} has a column {name!r}{did_you_mean(name, known)}; {expected}")
        if len(set(header)) < len(header) or not channels:
            raise DataError(f"{path} has the columns {', '.join(header)}; {expected}, each once")
        numbers = [_numbers(path, line, row, header) for line, row in enumerate(rows[1:], 2)]
        table = torch.tensor(numbers, dtype=torch.float64).reshape(-1, len(header))
        points = table[:, [header.index(name) for name in axes]]
        found = cls(points, table[:, [header.index(name) for name in channels]], channels)
        found.check(problem)
        return found


def channel_names(problem: WeakProblem) -> tuple[str, ...]:
    """Names of the solution's components: a field of one component its own, else ``velocity_x``, ..."""
    names: list[str] = []
    for field in problem.fields:
        if field.components == 1:
            names.append(field.name)
        else:
            names += [f"{field.name}_{axis}" for axis in "xyz"[: field.components]]
    return tuple(names)


def channel_units(problem: WeakProblem) -> dict[str, str]:
    """Name of each of the solution's components -> its unit."""
    units = [field.unit for field in problem.fields for _ in range(field.components)]
    return dict(zip(channel_names(problem), units, strict=True))


def _numbers(path: Path, line: int, row: Sequence[str], header: Sequence[str]) -> list[float]:
    if len(row) != len(header):
        raise DataError(f"{path}, line {line} has {len(row)} entries; expected {len(header)}: {', '.join(header)}")
    numbers = []
    for name, cell in zip(header, row, strict=True):
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DataError(f"{path}, line {line}: {name} is {cell.strip()!r}; expected a number")
        numbers.append(number)
    return numbers

"""Files of input functions of weak problems (a permeability, say): NumPy arrays, and tables with a row a point."""

import csv
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from sciml.problems.weak import WeakProblem

CLOSE = 1e-4
"""How far, in units of the domain's extent, a point of a table may be from the problem's."""


def read_input_functions(path: Path, problem: "WeakProblem") -> "Tensor":
    """Input functions ``(cases, P)`` float64 at the problem's ``input_points``.

    ``.npy``: ``(P,)``, ``(cases, P)``, or with the axes of the grid in place of P; ``.npz``: the same under the name of
    the input function (or as its only array); otherwise a table (CSV) whose header names the coordinates, a row a
    point in any order, and in the other columns a case each.

    Raises ``DataError`` for a missing or damaged file, another shape, other points, or values that the problem does
    not allow.
    """
    import torch

    values = _array(path, problem) if path.suffix in (".npy", ".npz") else _table(path, problem)
    count, grid = len(problem.input_points), problem.input_shape
    shape = tuple(values.shape)
    if grid is not None and shape[-len(grid) :] == tuple(grid):
        values = values.reshape(-1, count)
    elif not shape or shape[-1] != count or len(shape) > 2 or 0 in shape:
        on_grid = f", or (cases, {', '.join(map(str, grid))})" if grid is not None and len(grid) > 1 else ""
        raise DataError(
            f"{path} holds {problem.input.name} of shape {shape}; expected (cases, {count}){on_grid}: the values at "
            "the surrogate's input_points"
        )
    return problem.check_inputs(torch.as_tensor(values.reshape(-1, count)))


def _array(path: Path, problem: "WeakProblem") -> Any:
    import numpy as np

    name = problem.input.name
    try:
        with open(path, "rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if path.suffix == ".npz":
                arrays = {key: found[key] for key in found.files}
                if name not in arrays and len(arrays) != 1:
                    raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}; expected {name!r}")
                found = arrays.get(name, next(iter(arrays.values())))
        return np.asarray(found, dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _table(path: Path, problem: "WeakProblem") -> Any:
    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            rows = [row for row in csv.reader(opened) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    axes = problem.input_axes
    header = [name.strip() for name in rows[0]] if rows else []
    if any(name not in header for name in axes) or len(header) <= len(axes):
        found = f"has the columns {', '.join(header)}" if header else "is empty"
        raise DataError(f"{path} {found}; expected {','.join(axes)} and one or more columns of {problem.input.name}")
    table = np.array([_numbers(path, line, row, len(header)) for line, row in enumerate(rows[1:], 2)])
    points = problem.input_points.numpy()
    if len(table) != len(points):
        raise DataError(f"{path} has {len(table)} points; {problem.name} has {len(points)}: surrogate.input_points")
    columns = [header.index(name) for name in axes]
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    away = np.linalg.norm(points[:, None] - table[None, :, columns], axis=-1)
    nearest = away.argmin(1)
    wrong = away[np.arange(len(points)), nearest] > CLOSE * extent
    if wrong.any():
        where = ", ".join(f"{value:.6g}" for value in points[wrong.argmax()])
        raise DataError(f"{path} has no row at ({where}), where {problem.name} needs its {problem.input.name}")
    others = [number for number in range(len(header)) if number not in columns]
    return table[nearest][:, others].T


def _numbers(path: Path, line: int, row: list[str], count: int) -> list[float]:
    try:
        numbers = [float(cell) for cell in row]
    except ValueError:
        numbers = [math.nan]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise DataError(f"{path}, line {line} is {','.join(row)!r}; expected {count} numbers")
    return numbers

"""The vorticity of a velocity on cells, with differences that do not reach into bodies or out of the box."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting.solids import fluid_cells

Array = NDArray[np.float64]


def vorticity(velocity: ArrayLike, *, width: float, height: float, fluid: ArrayLike | None = None) -> Array:
    """``dv/dx - du/dy (..., nx, ny)`` of a velocity ``(..., 2, nx, ny)`` in a box ``width`` x ``height``.

    Central differences of second order; beside a body (``fluid (nx, ny)``: 1 in the fluid, 0 in the solid) and at the
    box's sides one-sided, of second order where two fluid cells follow and of first order where one does. 0 in solids.

    Raises DataError for shapes that do not fit.
    """
    field = np.asarray(velocity, dtype=np.float64)
    if field.ndim < 3 or field.shape[-3] != 2 or 0 in field.shape:
        raise DataError(f"velocity has shape {field.shape}; expected (..., 2, nx, ny)")
    nx, ny = field.shape[-2:]
    cells = fluid_cells(fluid, (nx, ny))
    open_cells = np.ones((nx, ny), dtype=bool) if cells is None else cells
    # A prediction that blew up may overflow: infinite, or not a number, is the right answer then.
    with np.errstate(over="ignore", invalid="ignore"):
        along_x = _slope(field[..., 1, :, :].swapaxes(-1, -2), open_cells.T, width / nx).swapaxes(-1, -2)
        return np.where(open_cells, along_x - _slope(field[..., 0, :, :], open_cells, height / ny), 0.0)


def _slope(f: Array, fluid: NDArray[np.bool_], step: float) -> Array:
    """The derivative of ``f (..., m, n)`` along its last axis from fluid cells ``(m, n)`` alone."""
    n = f.shape[-1]
    padded = np.pad(f, [(0, 0)] * (f.ndim - 1) + [(2, 2)])
    known = np.pad(fluid, [(0, 0), (2, 2)])
    value = {k: padded[..., 2 + k : 2 + k + n] for k in range(-2, 3)}
    there = {k: known[:, 2 + k : 2 + k + n] for k in range(-2, 3)}
    cases = [(there[-1] & there[1], (value[1] - value[-1]) / 2)]
    for side in (1, -1):
        cases.append((there[side] & there[2 * side], side * (4 * value[side] - 3 * f - value[2 * side]) / 2))
    cases += [(there[side], side * (value[side] - f)) for side in (1, -1)]
    conditions = [np.broadcast_to(condition, f.shape) for condition, _ in cases]
    return np.select(conditions, [difference for _, difference in cases], 0.0) / step

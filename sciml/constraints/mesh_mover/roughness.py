"""Refusing what no mesh can follow: non-finite or non-positive values, and fields too rough for their grid."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from sciml.constraints.mesh_mover.box import Box
from sciml.constraints.mesh_mover.smoothing import Continuation, smooth
from sciml.errors import ConfigError, DataError

OnRough = Literal["raise", "warn", "ignore"]

TOO_ROUGH, RESOLVED = 0.85, 0.5
"""Roughness from which a field is refused, and below which what is proposed instead must come."""

UNEVEN = 0.25
"""Root mean square of the change of a monitor from cell to cell, relative to its mean, from which roughness matters."""


class RoughFieldWarning(UserWarning):
    """A field changes from cell to cell as no smooth field would."""


def roughness(u: Tensor, box: Box) -> Tensor:
    """Second differences of neighbours over those of every other cell, root mean squares over a field: ``(B, C)``.

    ``u (B, C, *n)``. 1/4 of a smooth field, 0.71 of a jump, 1 of white noise or one cell, more of a checkerboard; 0
    of a field without second differences, or with less than 5 cells along every axis.
    """
    near = far = u.new_zeros(u.shape[:2])
    for axis, periodic in enumerate(box.periodic, start=2):
        if u.shape[axis] >= 5:
            near = near + _second_difference(u, axis, 1, periodic).square().flatten(2).mean(2)
            far = far + _second_difference(u, axis, 2, periodic).square().flatten(2).mean(2)
    significant = near.sqrt() > 16 * torch.finfo(u.dtype).eps * u.abs().flatten(2).amax(2)
    return torch.where(significant, (near / far).sqrt(), 0.0)


def check_field(u: Tensor, box: Box, rough: OnRough = "raise") -> None:
    """Raises ``DataError`` unless the field ``(B, C, *n)`` fits the box, is finite and resolved by its grid.

    ``rough``: whether roughness raises, warns (``RoughFieldWarning``) or is let pass; anything else is a
    ``ConfigError``.
    """
    if rough not in ("raise", "warn", "ignore"):
        raise ConfigError(f"rough={rough!r}: choose 'raise', 'warn' or 'ignore'.")
    if not u.is_floating_point() or u.ndim != box.dim + 2 or min(u.shape[2:]) < 3:
        raise DataError(
            f"A field of a {box.dim}D box is a floating tensor (batch, channels, {', '.join('xyz'[: box.dim])}) of at "
            f"least 3 cells along each axis, not {u.dtype} {tuple(u.shape)}."
        )
    u = u.detach()
    _check_finite(u, "field")
    if rough == "ignore":
        return
    worst = roughness(u, box).amax(1)
    if not (worst > TOO_ROUGH).any():
        return
    sample = int(worst.argmax())
    width, cells = _enough_smoothing(u[sample : sample + 1], box, "odd")
    trouble = (
        f"The field of sample {sample} is too rough for its grid of {_by(u.shape[2:])} cells: second differences of "
        f"neighbours are {float(worst[sample]):.2f} times those of every other cell (0.25 where resolved, 0.71 at a "
        f"jump, 1 for noise). Smooth it first by a Gaussian of {width:.3g} m ({cells:g} cells): "
        f"smooth(u, box, {width:.3g}), or give it on a finer grid."
    )
    if rough == "raise":
        raise DataError(f"{trouble} rough='ignore' takes it as it is.")
    warnings.warn(trouble, RoughFieldWarning, stacklevel=4)


def check_monitor(monitor: Tensor, box: Box) -> None:
    """Raises ``DataError`` unless cell-centred monitor values ``(B, *n)`` can be equidistributed.

    They must be finite, positive, and not both uneven and changing from cell to cell as noise does.
    """
    if not monitor.is_floating_point() or monitor.ndim != box.dim + 1 or min(monitor.shape[1:]) < 2:
        raise DataError(
            f"A monitor of a {box.dim}D box is a floating tensor (batch, {', '.join('xyz'[: box.dim])}), not "
            f"{monitor.dtype} {tuple(monitor.shape)}."
        )
    monitor = monitor.detach()
    check_positive(monitor)
    values = (monitor / monitor.flatten(1).mean(1).reshape(-1, *(1,) * box.dim)).unsqueeze(1)
    bad = ((_unevenness(values, box) > UNEVEN) & (roughness(values, box) > TOO_ROUGH)).squeeze(1)
    if bad.any():
        sample = int(bad.nonzero()[0])
        width, cells = _enough_smoothing(values[sample : sample + 1], box, "even")
        raise DataError(
            f"The monitor of sample {sample} is too rough for its grid of {_by(monitor.shape[1:])} cells: it changes "
            f"from cell to cell by {100 * float(_unevenness(values, box)[sample, 0]):.0f} % of its mean, and no less "
            f"than over two cells. Smooth it by a Gaussian of {width:.3g} m ({cells:g} cells): smoothing={width:.3g} "
            f"in the house monitors, smooth(m, box, {width:.3g}, 'even') in one's own."
        )


def check_positive(monitor: Tensor) -> None:
    """Raises ``DataError`` unless all values ``(B, *any)`` of a monitor are finite and positive."""
    _check_finite(monitor, "monitor")
    flat = monitor.flatten(1)
    zero = (flat == 0).all(1)
    if zero.any():
        raise DataError(
            f"The monitor of sample {int(zero.nonzero()[0])} is zero everywhere: it does not say where cells should "
            "go. Add a constant (an all-ones monitor is the uniform mesh)."
        )
    least = flat.amin(1)
    if (least <= 0).any():
        sample = int(least.argmin())
        raise DataError(
            f"The monitor of sample {sample} is {float(least[sample]):.3g} somewhere: it is a density of cells and "
            "must be positive. Add a constant floor, as (1 - share) + share * H / mean(H) has."
        )


def _check_finite(values: Tensor, what: str) -> None:
    finite = values.isfinite().flatten(1).all(1)
    if not finite.all():
        sample = int((~finite).nonzero()[0])
        count = int((~values[sample].isfinite()).sum())
        raise DataError(
            f"The {what} of sample {sample} has {count} NaN or infinite values of {values[sample].numel()}: no mesh "
            "can be made of it. See where they come from (a diverged solution?), or leave the sample out."
        )


def _second_difference(u: Tensor, axis: int, step: int, periodic: bool) -> Tensor:
    if periodic:
        return u.roll(step, axis) - 2 * u + u.roll(-step, axis)
    n = u.shape[axis] - 2 * step
    return u.narrow(axis, 0, n) - 2 * u.narrow(axis, step, n) + u.narrow(axis, 2 * step, n)


def _unevenness(values: Tensor, box: Box) -> Tensor:
    """Root mean square change from cell to cell, over all axes ``(B, C)``."""
    squares = [values.diff(dim=axis + 2).square().flatten(2).mean(2) for axis in range(box.dim)]
    return torch.stack(squares).mean(0).sqrt()


def _enough_smoothing(u: Tensor, box: Box, continuation: Continuation) -> tuple[float, float]:
    """The first width of 1, 1.5, 2, 3, … cells after which a field is resolved: in metres, and in cells."""
    cell = max(box.spacing(u.shape[2:]))
    for cells in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0):
        if float(roughness(smooth(u, box, cells * cell, continuation), box).amax()) <= RESOLVED:
            break
    return cells * cell, cells


def _by(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))

"""What every function of the room asks of its points before it starts."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError


def check_points(name: str, points: Tensor) -> None:
    """Refuse anything but finite floating-point coordinates ``(N, d)``, d = 1, 2 or 3; N may be 0.

    Raises ``ConfigError`` for the wrong type or shape, ``DataError`` for coordinates that are not finite.
    """
    if not isinstance(points, Tensor) or not points.is_floating_point():
        kind = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise ConfigError(f"{name} are {kind}; expected a tensor of floating-point coordinates (N, d).")
    if points.ndim != 2 or not 1 <= points.shape[1] <= 3:
        raise ConfigError(f"{name} have shape {tuple(points.shape)}; expected (N, d) with d = 1, 2 or 3.")
    good = torch.isfinite(points.detach())
    if not bool(good.all()):
        bad = (~good.all(1)).nonzero().flatten()
        first = int(bad[0])
        raise DataError(
            f"{name}: {len(bad)} of {len(points)} points have coordinates that are not finite; the first is point "
            f"{first} at {points[first].tolist()}. Remove them, or look for the step that made them."
        )


def check_alike(first: tuple[str, Tensor], second: tuple[str, Tensor]) -> None:
    """Refuse two sets of points of different dimension or on different devices."""
    (a, x), (b, y) = first, second
    if x.shape[1] != y.shape[1]:
        raise ConfigError(f"{a} have {x.shape[1]} coordinates and {b} {y.shape[1]}; they must have as many.")
    if x.device != y.device:
        raise ConfigError(f"{a} are on {x.device} and {b} on {y.device}; move one of them.")


def check_scenes(name: str, batch: Tensor, points: Tensor) -> None:
    """Refuse scene numbers that are not ``(N,)`` int64, at least 0, beside their points."""
    if batch.shape != points.shape[:1] or batch.dtype != torch.int64 or batch.device != points.device:
        raise ConfigError(
            f"{name} is {batch.dtype} {tuple(batch.shape)} on {batch.device}; expected the scene number of every "
            f"point, int64 {tuple(points.shape[:1])} on {points.device}."
        )
    if len(batch) and int(batch.min()) < 0:
        raise ConfigError(f"{name} has the scene number {int(batch.min())}; scenes are numbered from 0.")

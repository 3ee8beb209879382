"""What a panel shows: the points of a truth or a rollout over time, and in words how far off they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting.panels import per_cent

Array = NDArray[Any]

LOST = 9.99
"""Above this error the number says nothing more."""


@dataclass(frozen=True)
class Scene:
    """The box ``bounds (d, 2)`` in metres, the seconds between frames, the names of the particle kinds, and the axis
    that points up in the pictures.
    """

    bounds: NDArray[np.float64]
    interval: float
    kinds: tuple[str, ...]
    up: int

    @property
    def dim(self) -> int:
        return len(self.bounds)


def check_scene(
    bounds: ArrayLike, interval: ArrayLike, kinds: Sequence[str], *, gravity: ArrayLike | None = None, where: str
) -> Scene:
    """A scene in two or three dimensions. Up is against ``gravity (d,)``, without one along y.

    Raises DataError, which begins with ``where``, for a box, an interval or kinds that make no sense.
    """
    box = np.asarray(bounds, dtype=np.float64)
    if box.shape not in ((2, 2), (3, 2)) or not np.isfinite(box).all() or (box[:, 0] >= box[:, 1]).any():
        raise DataError(f"{where}: bounds are {box.tolist()}; expected (low, high) of each of 2 or 3 axes, low < high")
    seconds = np.asarray(interval, dtype=np.float64)
    if seconds.shape != () or not np.isfinite(seconds) or seconds <= 0:
        raise DataError(
            f"{where}: interval is {seconds.tolist()}; expected a positive number of seconds between frames"
        )
    if not kinds:
        raise DataError(f"{where}: kinds is empty; expected the name of at least one kind of particles")
    pull = np.zeros(len(box)) if gravity is None else np.asarray(gravity, dtype=np.float64)
    if pull.shape != (len(box),) or not np.isfinite(pull).all():
        raise DataError(f"{where}: gravity is {pull.tolist()}; expected {len(box)} finite numbers")
    # Only three dimensions can be turned; a plane is shown as it is.
    up = int(np.argmin(pull)) if len(box) == 3 and (pull < 0).any() else 1
    return Scene(box, float(seconds), tuple(kinds), up)


@dataclass(frozen=True)
class Cloud:
    """Points ``position (T, n, d)`` in metres of ``kind (n,)``, of which the ``fixed (n,)`` are drawn grey."""

    name: str
    position: Array
    kind: Array
    fixed: Array
    remarks: Sequence[str] = field(default=())
    """What is said of each frame, T of them or none."""
    note: str = ""
    """What is said of all frames, how many points it has, say."""

    def speed(self, frame: int, interval: float) -> Array:
        """Distance from the frame before in m/s ``(n,)``, of the first frame to the next; 0 where not finite."""
        now = max(frame, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            step = self.position[now].astype(np.float64) - self.position[now - 1]
            speed = np.sqrt(np.sum(step**2, axis=1)) / interval
        return np.nan_to_num(speed, nan=0.0, posinf=np.finfo(np.float32).max)

    def remark(self, frame: int) -> str:
        return self.remarks[frame] if self.remarks else ""

    def thin(self, most: int) -> "Cloud":
        """At most ``most`` of the points, drawn at random and the same for clouds of one size."""
        count = self.position.shape[1]
        if count <= most:
            return self
        kept = np.sort(np.random.default_rng(0).choice(count, most, replace=False))
        return Cloud(self.name, self.position[:, kept], self.kind[kept], self.fixed[kept], self.remarks, self.note)


def displacement(truth: Array, given: int) -> float:
    r"""Root mean square of :math:`|y_i(t) - y_i(t_0)|` over the points of ``truth (T, n, d)`` and the frames after the
    last given one :math:`t_0`: what errors of rollouts are relative to.

    Not the positions themselves, which would say how far away the origin is. NaN where nothing moves.
    """
    first = max(given, 1)
    way = truth[first:].astype(np.float64) - truth[first - 1]
    return float(np.sqrt(np.mean(np.sum(way**2, axis=2)))) or float("nan")


def rollout_remarks(prediction: Array, truth: Array, fixed: Array, bounds: Array, given: int) -> list[str]:
    """Of each frame of a rollout ``(T, n, d)``: that it was given, its error, or how many points are not finite.

    The error is the root mean square distance from the truth of the points that are not fixed, over their
    ``displacement``; points that left the box are counted.
    """
    free = ~fixed if (~fixed).any() else np.ones_like(fixed)
    way = displacement(truth[:, free], given)
    slack = 0.01 * (bounds[:, 1] - bounds[:, 0])
    words = []
    for frame in range(len(truth)):
        now = prediction[frame]
        if frame < given:
            words.append("given")
        elif lost := int((~np.isfinite(now)).any(axis=1).sum()):
            words.append(f"{lost:,} of {len(now):,} not finite")
        else:
            with np.errstate(over="ignore"):
                off = now[free].astype(np.float64) - truth[frame, free]
                error = float(np.sqrt(np.mean(np.sum(off**2, axis=1)))) / way
            if error > LOST:
                words.append(f"error > {per_cent(LOST)}")
                continue
            outside = int(((now < bounds[:, 0] - slack) | (now > bounds[:, 1] + slack)).any(axis=1).sum())
            words.append(f"error {per_cent(error)}" + (f", {outside:,} outside" if outside else ""))
    return words

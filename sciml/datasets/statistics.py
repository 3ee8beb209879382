"""Mean and standard deviation of fields and their increments over cases, frames and cells, in float64."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.datasets.collection import Collection, Source
from sciml.errors import DataError

Transform = Callable[[Tensor, dict[str, Tensor]], Tensor]
Cells = Callable[[dict[str, Tensor]], Tensor]
CONSTANT = 1e-6  # relative to the largest magnitude: less variation than this is float32 rounding


@dataclass(frozen=True)
class FieldStatistics:
    """Per channel; ``increment_*`` of one step (frame t + stride minus frame t). Units are the data's.

    A channel that does not vary has std 1, so that dividing by it is harmless, and its name in ``constant``
    (or in ``constant_increment``). Standard deviations are of the population (divided by n).
    """

    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    increment_mean: tuple[float, ...]
    increment_std: tuple[float, ...]
    constant: tuple[str, ...]
    constant_increment: tuple[str, ...]
    n_cases: int

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FieldStatistics":
        """The inverse of `to_dict`."""
        return cls(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})


@dataclass
class Moments:
    """Count, mean, sum of squared deviations, merged stably in pairs (Chan, Golub, LeVeque 1983)."""

    n: int
    mean: np.ndarray
    m2: np.ndarray
    largest: np.ndarray

    @classmethod
    def empty(cls, n_channels: int) -> "Moments":
        return cls(0, np.zeros(n_channels), np.zeros(n_channels), np.zeros(n_channels))

    def add(self, values: np.ndarray) -> None:
        """``values`` (channels, n) float64."""
        mean = values.mean(axis=1)
        m2 = np.square(values - mean[:, None]).sum(axis=1)
        self.merge(Moments(values.shape[1], mean, m2, np.abs(values).max(axis=1)))

    def merge(self, other: "Moments") -> None:
        """Take in what ``other`` has counted."""
        delta, total = other.mean - self.mean, self.n + other.n
        if not other.n:
            return
        self.m2 += other.m2 + delta**2 * (self.n * other.n / total)
        self.mean += delta * (other.n / total)
        self.n = total
        self.largest = np.maximum(self.largest, other.largest)

    def std(self) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviations, 1 where constant, and which are constant."""
        std = np.sqrt(self.m2 / max(self.n, 1))
        constant = std <= CONSTANT * self.largest
        return np.where(constant, 1.0, std), constant


def field_statistics(
    files: Source | Collection | Iterable[Source],
    fields: Sequence[str] = ("velocity",),
    cases: Sequence[int] | np.ndarray | None = None,
    transform: Transform | None = None,
    *,
    cells: Cells | None = None,
    first_frame: int = 0,
    stride: int = 1,
) -> FieldStatistics:
    """Statistics of ``fields`` over ``cases`` (global indices; None takes all), one case in memory at a time.

    ``transform(state (1, T, C, *grid) float64, parameters)`` with the case's parameters (name -> (1,) or (1,
    T) float64, all frames) returns the state to be counted, same shape: for example velocities in units of
    the lid's speed. ``cells(parameters) (1, *grid)`` bool says which cells count (those in the fluid); by default all.
    Frames before ``first_frame`` are left out after it; increments are over ``stride``
    frames. Raises `DataError` for unknown fields, no cases, and values that are not finite.
    """
    source = Collection(files)
    cases = np.arange(source.n_cases) if cases is None else np.asarray(cases, dtype=np.int64).reshape(-1)
    if not cases.size:
        raise DataError("statistics need at least one case, got none")
    info = source.info
    channels = np.concatenate([np.arange(info.n_channels)[info.channels(f)] for f in fields])
    names = tuple(info.channel_names[c] for c in channels)
    values, increments = Moments.empty(len(channels)), Moments.empty(len(channels))
    for case in cases:
        file, local = (int(i[0]) for i in source.locate([case]))
        state = source.files[file].state([local])[:, :, channels].double()
        if transform is not None:
            shape = state.shape
            state = transform(state, source.parameters([case]))
            if state.shape != shape:
                raise DataError(f"transform must keep the shape {tuple(shape)}, returned {tuple(state.shape)}")
        state = state[0, first_frame:].movedim(1, 0)  # (C, T, *grid)
        if not torch.isfinite(state).all():
            raise DataError(f"non-finite values in case {case} of {source.files[file].path}; see check_finite")
        state = state.flatten(2)
        if cells is not None:
            state = state[:, :, cells(source.parameters([case]))[0].flatten()]
        if state.shape[1] and state.shape[2]:
            values.add(state.flatten(1).numpy())
        if state.shape[1] > stride and state.shape[2]:
            increments.add((state[:, stride:] - state[:, :-stride]).flatten(1).numpy())
    if not values.n:
        where = "" if cells is None else " and no cell that counts"
        raise DataError(
            f"no frame from {first_frame} on{where} in these {len(cases)} cases; choose a smaller first_frame"
        )
    std, constant = values.std()
    increment_std, still = increments.std()
    return FieldStatistics(
        channels=names,
        mean=tuple(values.mean.tolist()),
        std=tuple(std.tolist()),
        increment_mean=tuple(increments.mean.tolist()),
        increment_std=tuple(increment_std.tolist()),
        constant=tuple(n for n, c in zip(names, constant, strict=True) if c),
        constant_increment=tuple(n for n, c in zip(names, still, strict=True) if c),
        n_cases=len(cases),
    )

"""Files of the public GIOROM code: ``rollout.pt``, ``rollout_full.pt`` (trajectories), ``train.obj``, ``test.pt``
(windows of 6 frames).

A file is a dictionary of lists, one entry each for every example: particle_type (n,), position (n, T, d), output
(n, d) = the frame after a window. The arrays are numpy's, so that the files are pickles. Windows overlap in all but one
frame and follow one another; they are put together again to the trajectories that they were cut from, where the bits of
the overlap are equal. ``metadata.json`` beside them is not used: its bounds and dt are constants of the code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.datasets.particles.archives import read_torch
from sciml.datasets.particles.gns import FIXED, TYPE_NAMES
from sciml.datasets.particles.records import ParticleTrajectory
from sciml.datasets.particles.source import ParticleSource, Told, describe
from sciml.errors import DataError

LONGEST_WINDOW = 10
"""Frames; what is longer is a trajectory."""
KEYS = ("particle_type", "position", "output")


def giorom_source(path: Path, told: Told) -> ParticleSource:
    """One case for each trajectory. The interval has to be told, the bounds are those of the particles unless told.

    Raises `DataError` for other files and for windows that do not follow one another.
    """
    content = read_torch(path, told.allow_pickle)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), (list, tuple)) for key in KEYS):
        raise DataError(f"{path} is no file of GIOROM: expected a dictionary with the lists {', '.join(KEYS)}")
    types = [_array(path, value, 1) for value in content["particle_type"]]
    positions = [_array(path, value, 3) for value in content["position"]]
    if not positions or len(types) != len(positions) or len(content["output"]) != len(positions):
        raise DataError(f"{path}: the lists {', '.join(KEYS)} must have as many entries each, and at least one")
    if max(position.shape[1] for position in positions) <= LONGEST_WINDOW:
        outputs = [_array(path, value, 2) for value in content["output"]]
        positions, types = _join_windows(path, positions, types, outputs)
    numbers = sorted({int(number) for type_ in types for number in np.unique(type_)})

    def load(case: int) -> ParticleTrajectory:
        position, type_ = positions[case], types[case]
        if len(type_) != len(position):
            raise DataError(f"{path}: example {case} has {len(position)} particles and {len(type_)} types")
        return ParticleTrajectory(
            position.swapaxes(0, 1).copy(), np.searchsorted(numbers, type_), type_ == FIXED, subset=path.stem
        )

    info = describe(
        told,
        path,
        dim=positions[0].shape[2],
        kinds=[TYPE_NAMES.get(number, f"type {number}") for number in numbers],
        positions=lambda: (torch.from_numpy(position) for position in positions),
        format_name="GIOROM",
    )
    return ParticleSource(info, len(positions), load)


def _array(path: Path, value: Any, ndim: int) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.ndim != ndim:
        raise DataError(f"{path}: expected arrays of numbers with {ndim} axes, got {array.dtype} of {array.shape}")
    return array if ndim == 1 else array.astype(np.float32, copy=False)


def _join_windows(
    path: Path, windows: Sequence[np.ndarray], types: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Trajectories (n, T, d) and their types: a window whose first frames are the last of the one before goes on."""
    starts = [
        index
        for index, window in enumerate(windows)
        if index == 0
        or window.shape != windows[index - 1].shape
        or not np.array_equal(window[:, :-1], windows[index - 1][:, 1:])
    ]
    if len(starts) * 2 > len(windows):
        raise DataError(
            f"{path} holds {len(windows)} windows of {windows[0].shape[1]} frames which do not follow one another, so "
            "that no trajectories can be made of them; convert rollout_full.pt or rollout.pt instead"
        )
    joined = []
    for start, stop in zip(starts, [*starts[1:], len(windows)], strict=True):
        if outputs[stop - 1].shape != windows[start][:, 0].shape:
            raise DataError(f"{path}: the output of window {stop - 1} has the shape {outputs[stop - 1].shape}")
        later = [windows[index][:, -1:] for index in range(start + 1, stop)]
        joined.append(np.concatenate([windows[start], *later, outputs[stop - 1][:, None]], axis=1))
    return joined, [types[start] for start in starts]

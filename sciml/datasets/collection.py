"""Several files as one data set: cases are numbered through, file after file."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from sciml.datasets.info import DatasetInfo, FaceFieldInfo, FieldInfo
from sciml.datasets.reader import DatasetFile
from sciml.errors import DataError

AGREE = ("problem", "fields", "face_fields", "constant_fields", "series", "grid", "parameters")
"""What files must share to be one data set."""
Source = str | os.PathLike[str] | DatasetFile


class Collection:
    """Files of one problem, fields, parameters and grid. Numbers of cases and frames may differ between
    files.

    ``info`` is the first file's; ``subsets`` has one label a case; ``n_cases`` counts all files' cases.
    Raises `DataError` naming both files where they disagree.
    """

    def __init__(self, files: "Source | Collection | Iterable[Source]") -> None:
        if isinstance(files, Collection):
            files = files.files
        elif isinstance(files, str | os.PathLike | DatasetFile):
            files = [files]
        self.files = [f if isinstance(f, DatasetFile) else DatasetFile(f) for f in files]
        if not self.files:
            raise DataError("a data set needs at least one file, got none")
        self.info: DatasetInfo = self.files[0].info
        for other in self.files[1:]:
            require_agreement(self.files[0], other)
        self.subsets = [label for f in self.files for label in f.subsets]
        self._starts = np.cumsum([0, *(f.n_cases for f in self.files)])
        self.n_cases = int(self._starts[-1])

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(self.info.parameters)

    def locate(self, cases: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of the file and of the case within it, for each global case.

        Raises `DataError` out of range.
        """
        cases = np.asarray(cases, dtype=np.int64).reshape(-1)
        if cases.size and (cases.min() < 0 or cases.max() >= self.n_cases):
            raise DataError(f"cases must be from 0 to {self.n_cases - 1}, got {cases.min()} to {cases.max()}")
        files = np.searchsorted(self._starts, cases, side="right") - 1
        return files, cases - self._starts[files]

    def n_frames(self, cases: Sequence[int] | np.ndarray) -> np.ndarray:
        """Number of frames of each case."""
        return np.array([f.n_frames for f in self.files])[self.locate(cases)[0]]

    def trajectory(self, cases: Sequence[int] | np.ndarray | None = None) -> dict[str, Tensor]:
        """Whole trajectories (all cases by default): fields ``(b, T, components, *grid)``, face fields,
        constant fields ``(b, 1, *grid)``, series and ``time (b, T)``.

        Raises `DataError` when the cases' numbers of frames differ: ask for them in groups.
        """
        cases = np.arange(self.n_cases) if cases is None else np.asarray(cases)
        files, local = self._one_length(cases)
        if len(set(files)) == 1:
            return self.files[files[0]].trajectory(local)
        parts = [self.files[f].trajectory([c]) for f, c in zip(files, local, strict=True)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def parameters(self, cases: Sequence[int] | np.ndarray | None = None) -> dict[str, Tensor]:
        """Name -> float64 (b,), or (b, T) where it varies in time in any of the files the cases come from."""
        cases = np.arange(self.n_cases) if cases is None else np.asarray(cases)
        files, local = self.locate(cases)
        result = {}
        for name in self.parameter_names:
            rows = [self.files[f].parameters[name][c] for f, c in zip(files, local, strict=True)]
            if any(row.ndim for row in rows):
                self._one_length(cases)
                frames = max(row.size for row in rows)
                rows = [np.broadcast_to(row, (frames,)) for row in rows]
            result[name] = torch.from_numpy(np.array(rows, dtype=np.float64))
        return result

    def coordinates(self, cases: Sequence[int] | np.ndarray | None = None) -> dict[str, Tensor]:
        """Axis -> cell centres, float64 (b, n)."""
        cases = np.arange(self.n_cases) if cases is None else np.asarray(cases)
        files, local = self.locate(cases)
        return {
            axis: torch.from_numpy(
                np.array([self.files[f].coordinates[axis][c] for f, c in zip(files, local, strict=True)])
            )
            for axis in self.info.axes
        }

    def _one_length(self, cases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = set(self.n_frames(cases).tolist())
        if len(lengths) > 1:
            raise DataError(f"these cases have {sorted(lengths)} frames: ask for cases of one length at a time")
        return self.locate(cases)


def require_agreement(first: DatasetFile, other: DatasetFile, keys: Sequence[str] = AGREE) -> None:
    """Raises `DataError` that names both files where they differ in one of the ``keys`` of their infos."""
    for key in keys:
        here, there = getattr(first.info, key), getattr(other.info, key)
        if here != there:
            if _names(here) != _names(there):
                here, there = _names(here), _names(there)
            raise DataError(
                f"{first.path} and {other.path} are not one data set: {key} is {here!r} and {there!r}; "
                "use files of the same problem, fields, parameters and grid"
            )


def _names(value: object) -> object:
    """Fields by their names, for a short message; anything else as it is."""
    if isinstance(value, tuple) and all(isinstance(f, FieldInfo | FaceFieldInfo) for f in value):
        return [f.name for f in value]
    return value

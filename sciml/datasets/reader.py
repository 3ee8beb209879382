"""Read a data-set file: small arrays at once, fields through memory maps (h5py where they are packed)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from sciml.datasets.info import SCHEMA, DatasetInfo
from sciml.datasets.layout import (
    PARTIAL,
    PARTICLES,
    Slot,
    constant_path,
    coordinate_path,
    face_path,
    series_path,
    slot,
)
from sciml.datasets.parts import JoinedArray, find_part, read_parts
from sciml.errors import DataError, did_you_mean

Indices = Sequence[int] | np.ndarray | slice | None


class DatasetFile:
    """One file of schema ``sciml/1``, open for reading; safe to pickle, to fork and to share between threads.

    - ``path``, ``info``, ``n_cases``, ``n_frames``
    - ``parameters``: name -> float64 (N,) or (N, T);  ``times``: float64 (N, T)
    - ``coordinates``: axis -> cell centres, float64 (N, n);  ``subsets``: list of N labels
    - ``parts``: the files that a merged file refers to (`merge_files`), none of any other file

    Raises `DataError` for a file that is missing, unfinished, cut short, foreign, damaged or of a newer
    schema, and for a merged file of which a part is, or has been replaced.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._slots: dict[str, Slot | None] = {}
        self._opened: dict[str, np.ndarray | h5py.Dataset] = {}
        self._pid = os.getpid()
        self.parts: tuple[DatasetFile, ...] = ()
        with open_checked(self.path) as file:
            try:
                self._read_description(file)
                joined = read_parts(file)
            except KeyError as error:
                raise DataError(f"{self.path} is damaged: {error}; make or download it again") from error
        if joined is not None:
            names, marks, self._places = joined
            self.parts = tuple(self._open_part(name, mark) for name, mark in zip(names, marks, strict=True))
        size = self.path.stat().st_size
        for path, place in self._slots.items():
            if place is not None and place.end > size:
                raise DataError(
                    f"{self.path} is cut short: {path} ends at byte {place.end}, the file has {size}; "
                    "make or download it again"
                )

    def _open_part(self, name: str, mark: str) -> "DatasetFile":
        remedy = "put the file back, or merge the files again where they are now"
        try:
            part = DatasetFile(find_part(name, self.path))
        except DataError as error:
            raise DataError(
                f"{self.path} is merged from other files, of which {name} fails: {error}; {remedy}"
            ) from None
        if part.fingerprint != mark:
            raise DataError(f"{self.path} is merged from other files, and {name} is no longer the one it was; {remedy}")
        return part

    def _read_description(self, file: h5py.File) -> None:
        group = file["sciml"]
        self.fingerprint = str(group.attrs.get("fingerprint", ""))
        self.info = info = DatasetInfo.from_json(group["info"].asstr()[()])
        self.subsets: list[str] = [str(s) for s in group["subset"].asstr()[()]]
        self.times: np.ndarray = group["time"][()]
        self.n_cases, self.n_frames = self.times.shape
        self.coordinates = {a: file[coordinate_path(a)][()] for a in info.axes}
        self.parameters = {name: np.asarray(file["scalars"][name][()]) for name in info.parameters}
        frames = (self.n_cases, self.n_frames)
        expected = {"/sciml/state": (*frames, *info.grid, info.n_channels)}
        expected |= {face_path(f.name): (*frames, *info.face_shape(f.name)) for f in info.face_fields}
        expected |= {constant_path(f.name): (self.n_cases, *info.grid) for f in info.constant_fields}
        expected |= {series_path(name): frames for name in info.series}
        for path, shape in expected.items():
            if file[path].shape != shape or file[path].dtype.kind != "f":
                raise DataError(
                    f"{self.path} is damaged: {path} must hold numbers of shape {shape}, has {file[path].shape} of "
                    f"{file[path].dtype}; make or download it again"
                )
            self._slots[path] = slot(file[path])

    @property
    def memory_mapped(self) -> bool:
        """Whether the state is read through memory maps (False for chunked or compressed copies)."""
        if self.parts:
            return all(part.memory_mapped for part in self.parts)
        return self._slots["/sciml/state"] is not None

    def array(self, path: str = "/sciml/state") -> Any:
        """The array behind an HDF5 path: a read-only numpy view of the mapped file, else an h5py dataset.

        That of a merged file is indexed by one case first. Opened on first use and again in every process.
        """
        if self._pid != os.getpid():  # an h5py handle must not be used across a fork
            self._opened, self._pid = {}, os.getpid()
        if path not in self._opened:
            if path not in self._slots:
                raise DataError(f"{self.path} has no array {path!r}; known: {sorted(self._slots)}")
            place = self._slots[path]
            if self.parts:
                self._opened[path] = JoinedArray([part.array(path) for part in self.parts], self._places)
            elif place is None:
                self._opened[path] = open_checked(self.path)[path]
            else:
                mapped = np.memmap(self.path, place.dtype, mode="r", offset=place.offset, shape=place.shape)
                self._opened[path] = mapped.view(np.ndarray)  # slicing the memmap class costs microseconds
        return self._opened[path]

    def _gather(self, path: str, cases: Indices, frames: Indices, dtype: type = np.float32) -> np.ndarray:
        """(b, t, ...) copy."""
        array = self.array(path)
        rows, columns = _indices(cases, self.n_cases, "case"), _indices(frames, self.n_frames, "frame")
        out = np.empty((len(rows), len(columns), *array.shape[2:]), dtype=dtype)
        for k, case in enumerate(rows):
            # Consecutive frames as a slice: one copy for the map, one request for h5py.
            if len(columns) and (np.diff(columns) == 1).all():
                out[k] = array[case, columns[0] : columns[-1] + 1]
            else:
                for j, frame in enumerate(columns):
                    out[k, j] = array[case, frame]
        return out

    def state(self, cases: Indices = None, frames: Indices = None) -> Tensor:
        """All cell-centred fields, ``(b, t, C, *grid)`` float32, channels-last strides; None takes all."""
        return torch.from_numpy(self._gather("/sciml/state", cases, frames)).movedim(-1, 2)

    def face_field(self, name: str, cases: Indices = None, frames: Indices = None) -> Tensor:
        """A face field, ``(b, t, *face grid)`` float32."""
        self.info.face_shape(name)  # names the face fields there are
        return torch.from_numpy(self._gather(face_path(name), cases, frames))

    def constant(self, name: str, cases: Indices = None) -> Tensor:
        """A field that does not change in time, ``(b, 1, *grid)`` float32.

        Raises `DataError` naming those there are.
        """
        known = [f.name for f in self.info.constant_fields]
        if name not in known:
            raise DataError(f"{self.path} has no constant field {name!r}{did_you_mean(name, known)}")
        array, rows = self.array(constant_path(name)), _indices(cases, self.n_cases, "case")
        out = np.empty((len(rows), 1, *array.shape[1:]), dtype=np.float32)
        for k, case in enumerate(rows):
            out[k, 0] = array[case]
        return torch.from_numpy(out)

    def series(self, name: str, cases: Indices = None, frames: Indices = None) -> Tensor:
        """A number of each frame, ``(b, t)`` float64. Raises `DataError` naming those there are."""
        if name not in self.info.series:
            raise DataError(f"{self.path} has no series {name!r}{did_you_mean(name, self.info.series)}")
        return torch.from_numpy(self._gather(series_path(name), cases, frames, np.float64))

    def trajectory(self, cases: Indices = None, frames: Indices = None) -> dict[str, Tensor]:
        """Fields ``(b, t, components, *grid)``, face fields ``(b, t, ...)``, constant fields ``(b, 1, *grid)``, series
        and ``time (b, t)`` float64.
        """
        state = self.state(cases, frames)
        result = {f.name: state[:, :, self.info.channels(f.name)] for f in self.info.fields}
        result |= {f.name: self.face_field(f.name, cases, frames) for f in self.info.face_fields}
        result |= {f.name: self.constant(f.name, cases) for f in self.info.constant_fields}
        result |= {name: self.series(name, cases, frames) for name in self.info.series}
        rows, columns = _indices(cases, self.n_cases, "case"), _indices(frames, self.n_frames, "frame")
        result["time"] = torch.from_numpy(self.times[np.ix_(rows, columns)])
        return result

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}

    def __repr__(self) -> str:
        what = f"{self.info.problem}, {self.n_cases} cases x {self.n_frames} frames"
        return f"DatasetFile({str(self.path)!r}: {what})"


def open_checked(path: Path) -> h5py.File:
    """Open for reading a complete file of our schema.

    Raises `DataError` that says what is wrong and what to do.
    """
    partial = Path(f"{path}{PARTIAL}")
    if not path.is_file():
        hint = f"; {partial} is unfinished: run what writes it again, it continues" if partial.exists() else ""
        raise DataError(f"no data-set file {path}{hint or '; check the path or generate it'}")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        if "truncated" in str(error):
            raise DataError(f"{path} is cut short ({error}); make or download it again") from error
        if not h5py.is_hdf5(path):
            raise DataError(
                f"{path} is not an HDF5 file; expected a file written by sciml (schema {SCHEMA})"
            ) from error
        raise DataError(f"cannot open {path}: {error}") from error
    try:
        _check_schema(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check_schema(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") == PARTICLES:
        raise DataError(f"{path} holds particles (open it with sciml.datasets.particles.ParticleFile), expected fields")
    if "sciml" not in file or "schema" not in file["sciml"].attrs:
        raise DataError(
            f"{path} is HDF5 but not a sciml data set: its top level holds {sorted(file)}, expected a group 'sciml' "
            f"with the attribute schema = {SCHEMA!r}; convert it with DatasetWriter"
        )
    schema = str(file["sciml"].attrs["schema"])
    if schema != SCHEMA:
        raise DataError(f"{path} has the schema {schema!r}, this sciml reads {SCHEMA!r}; install a newer sciml")
    written = file["sciml/written"][()] if "sciml/written" in file else np.ones(1)
    if not written.all():
        raise DataError(
            f"{path} is unfinished: {int(written.sum())} of {len(written)} cases are written; run what writes it "
            "again, it continues"
        )


def _indices(given: Indices, n: int, what: str) -> np.ndarray:
    """Indices from 0 to n - 1 as an array; None and slices are expanded, negative ones count from the end."""
    if given is None or isinstance(given, slice):
        return np.arange(n)[given if given is not None else slice(None)]
    array = np.asarray(given, dtype=np.int64).reshape(-1)
    if array.size and (array.min() < -n or array.max() >= n):
        raise DataError(f"{what} index out of range: got {array.tolist()[:8]}, there are {n} {what}s")
    return array % n

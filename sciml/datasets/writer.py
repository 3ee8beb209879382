"""Write a data set case by case, so that a run that is killed continues where it stopped.

The HDF5 structures are written once, whole, before the first case; cases are then put at their byte offsets
with ``pwrite`` and flushed to the device before the case's flag is. A kill at any moment therefore leaves a
file that opens, and flags that tell the truth. `DatasetWriter.finish` gives it its final name.
"""

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from sciml.datasets import well
from sciml.datasets.disk import os_error, pwrite, reserve, sync_directory
from sciml.datasets.info import DatasetInfo, differing_keys
from sciml.datasets.layout import (
    LIBVER,
    PARTIAL,
    Slot,
    as_numpy,
    constant_path,
    coordinate_path,
    create,
    data_bytes,
    face_path,
    fingerprint,
    parameter_arrays,
    series_path,
    shapes,
    slot,
    well_field_path,
    well_series_path,
)
from sciml.errors import DataError

METADATA_BYTES = 1 << 20  # more than HDF5's structures need


class DatasetWriter:
    """Writes ``path + ".partial"`` and renames it to ``path`` when every case is there.

    ``parameters``: name -> (N,), (N, T) or a number; ``subsets``: one label a case (default "all" for each);
    ``materialize``: plain copies of the fields for clients without HDF5 virtual datasets, at twice the size;
    ``overwrite``: let `finish` replace a file that has the final name.

    Use as a context manager::

        with DatasetWriter(path, info, n_cases, parameters, subsets) as writer:
            for case in writer.missing():
                writer.write([case], trajectory, coordinates)
            writer.finish()

    Raises `DataError`: ``path`` exists, the directory cannot be written, the disk is full, a ``.partial``
    file is damaged, belongs to another data set or is being written by another process, an argument does not
    fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: DatasetInfo,
        n_cases: int,
        parameters: Mapping[str, Any],
        subsets: Sequence[str] | None = None,
        *,
        materialize: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = Path(f"{self.path}{PARTIAL}")
        self.info, self.n_cases, self.materialize = info, n_cases, materialize
        subsets = ["all"] * n_cases if subsets is None else [str(s) for s in subsets]
        if n_cases < 1 or len(subsets) != n_cases:
            raise DataError(
                f"need one subset label for each of at least 1 cases, got {len(subsets)} for {n_cases} cases"
            )
        if self.path.exists() and not overwrite:
            raise DataError(f"{self.path} exists already; read it, remove it, or write with overwrite=True")
        arrays = parameter_arrays(info, n_cases, parameters)
        self._shapes = shapes(info, n_cases, materialize)
        self._mark = fingerprint(info, n_cases, arrays, subsets, materialize)
        self._fd: int | None = None
        if not self.partial.exists():
            self._create(arrays, subsets)
        self._lock(self.partial, os.O_RDWR)
        try:
            self._slots = self._read_slots()
        except BaseException:
            self.close()
            raise

    # -- opening

    def _create(self, parameters: Mapping[str, np.ndarray], subsets: Sequence[str]) -> None:
        """The whole file without its data, under a third name until it is complete."""
        new = Path(f"{self.partial}.new")
        directory = new.parent
        try:
            if directory.exists() and not directory.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise os_error("cannot create", self.partial, error) from error
        self._lock(new, os.O_RDWR | os.O_CREAT)
        try:
            if self.partial.exists():  # another process has been quicker
                new.unlink()
                return
            # HDF5 crashes on a full disk: meet it before HDF5 does, and before hours of solving.
            reserve(self._descriptor(), data_bytes(self.info, self.n_cases, self.materialize) + METADATA_BYTES)
            with h5py.File(new, "w", libver=LIBVER, locking=False) as file:
                create(file, self.info, self.n_cases, parameters, subsets, self._mark, self.materialize)
                well.write_tree(file, self.info, self.n_cases)
            reserve(self._descriptor(), os.fstat(self._descriptor()).st_size)
            os.fsync(self._descriptor())
            os.replace(new, self.partial)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise os_error("cannot create", self.partial, error) from error
        finally:
            self.close()

    def _lock(self, path: Path, flags: int) -> None:
        """Open ``path`` for this process alone."""
        try:
            self._fd = os.open(path, flags, 0o666)
        except OSError as error:
            raise os_error("cannot open", path, error) from error
        try:  # the kernel releases this lock when the process dies
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise DataError(f"{self.partial} is being written by another process; wait for it or stop it") from error
        except OSError:  # a file system without locks
            pass

    def _read_slots(self) -> dict[str, Slot]:
        remedy = f"remove {self.partial} to start again"
        try:
            with h5py.File(self.partial, "r", locking=False) as file:
                if file["sciml"].attrs["fingerprint"] != self._mark:
                    differences = differing_keys(DatasetInfo.from_json(file["sciml/info"].asstr()[()]), self.info)
                    raise DataError(
                        f"{self.partial} holds an unfinished data set that differs from this one: "
                        + ("; ".join(differences) or "its parameters, subsets, number of cases or materialize")
                        + f" (there and here); {remedy}, or write to another path"
                    )
                slots = {path: slot(file[path]) for path in self._shapes}
        except (OSError, KeyError, RuntimeError) as error:
            raise DataError(f"{self.partial} is damaged ({error}); {remedy}") from error
        if None in slots.values() or max(s.end for s in slots.values() if s) > os.fstat(self._fd).st_size:
            raise DataError(f"{self.partial} is damaged (shorter than its contents); {remedy}")
        return {path: s for path, s in slots.items() if s}

    # -- writing

    def written(self) -> np.ndarray:
        """(N,) bool: the cases that are on disk."""
        return np.frombuffer(self._pread("/sciml/written"), dtype=np.uint8).astype(bool)

    def missing(self) -> list[int]:
        """Indices of the cases that are not yet written."""
        return [int(i) for i in np.flatnonzero(~self.written())]

    def write(self, cases: Sequence[int], trajectory: Mapping[str, Any], coordinates: Mapping[str, Any]) -> None:
        """Put solved cases on disk.

        ``trajectory``: every field ``(b, T, components, *grid)``, every face field ``(b, T, *face grid)``, every
        constant field ``(b, 1, *grid)``, every series ``(b, T)`` and ``time (b, T)``, torch or numpy, case
        ``cases[k]`` at index k; ``coordinates``: axis name -> cell centres ``(n,)`` or ``(b, n)``. Writing a case
        again replaces it. Raises `DataError` for missing or
        ill-shaped entries, for NaN and infinity (naming case, frame and field) and when the system cannot
        write; nothing that was written before is harmed.
        """
        cases = [int(c) for c in cases]
        if not cases or min(cases) < 0 or max(cases) >= self.n_cases or len(set(cases)) != len(cases):
            raise DataError(f"cases must be distinct indices from 0 to {self.n_cases - 1}, got {cases}")
        arrays = self._arrays(cases, trajectory, coordinates)
        try:
            for path, array in arrays.items():
                place = self._slots[path]
                for k, case in enumerate(cases):
                    block = np.ascontiguousarray(array[k], dtype=place.dtype)
                    pwrite(self._descriptor(), block, place.offset + case * place.case_bytes)
            os.fsync(self._descriptor())
            for case in cases:
                pwrite(self._descriptor(), np.ones(1, np.uint8), self._slots["/sciml/written"].offset + case)
            os.fsync(self._descriptor())
        except OSError as error:
            raise os_error(f"cannot write cases {cases} to", self.partial, error) from error

    def _arrays(
        self, cases: list[int], trajectory: Mapping[str, Any], coordinates: Mapping[str, Any]
    ) -> dict[str, np.ndarray]:
        """Path -> (b, ...) in the file's order of axes, checked."""
        info, b = self.info, len(cases)
        expected = _entries(info, b)
        if set(trajectory) != set(expected):
            raise DataError(
                f"a trajectory of {info.problem!r} has the entries {sorted(expected)}, got {sorted(trajectory)}"
            )
        if set(coordinates) != set(info.axes):
            raise DataError(f"coordinates are needed for the axes {list(info.axes)}, got {sorted(coordinates)}")
        values = {name: as_numpy(trajectory[name]) for name in expected}
        constant, doubles = {f.name for f in info.constant_fields}, {"time", *info.series}
        for name, array in values.items():
            if array.shape != expected[name]:
                raise DataError(f"{name!r} must have the shape {expected[name]}, got {array.shape}")
            _refuse_non_finite(name, array, cases, single=name not in doubles, framed=name not in constant)
        if info.n_frames > 1 and not (np.diff(values["time"], axis=1) > 0).all():
            raise DataError(f"the times of cases {cases} must increase from frame to frame")
        state = np.empty((b, info.n_frames, *info.grid, info.n_channels), dtype=np.float32)
        for f in info.fields:
            state[..., info.channels(f.name)] = np.moveaxis(values[f.name], 2, -1)
        arrays = {"/sciml/state": state, "/sciml/time": values["time"], "/dimensions/time": values["time"]}
        if self.materialize:
            for f in info.fields:
                part = state[..., info.channels(f.name)]
                arrays[well_field_path(f)] = part if f.order else part[..., 0]
            arrays |= {well_field_path(f): values[f.name][:, 0] for f in info.constant_fields}
            arrays |= {well_series_path(name): values[name] for name in info.series}
        arrays |= {face_path(f.name): values[f.name] for f in info.face_fields}
        arrays |= {constant_path(f.name): values[f.name][:, 0] for f in info.constant_fields}
        arrays |= {series_path(name): values[name] for name in info.series}
        for axis, n in zip(info.axes, info.grid, strict=True):
            along = as_numpy(coordinates[axis]).astype(np.float64)
            if along.shape not in ((n,), (b, n)) or not np.isfinite(along).all():
                raise DataError(
                    f"coordinate {axis!r} must be finite with the shape ({n},) or ({b}, {n}), got {along.shape}"
                )
            arrays[coordinate_path(axis)] = arrays[f"/dimensions/{axis}"] = np.broadcast_to(along, (b, n))
        return arrays

    def finish(self) -> Path:
        """Complete the file, flush it and give it its final name, which is returned.

        Raises `DataError` when cases are missing or the system cannot write.
        """
        if missing := self.missing():
            raise DataError(
                f"{self.partial}: {len(missing)} of {self.n_cases} cases are missing (first: {missing[:5]}); "
                "write them, then finish"
            )
        try:
            os.fsync(self._descriptor())
            os.replace(self.partial, self.path)
            sync_directory(self.path.parent)
        except OSError as error:
            raise os_error("cannot finish", self.partial, error) from error
        self.close()
        return self.path

    # -- the file descriptor

    def close(self) -> None:
        """Let go of the file. What is written stays; opening the same data set again continues."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _descriptor(self) -> int:
        if self._fd is None:
            raise DataError(f"the writer of {self.path} is closed; open a new DatasetWriter")
        return self._fd

    def _pread(self, path: str) -> bytes:
        place = self._slots[path]
        return os.pread(self._descriptor(), place.end - place.offset, place.offset)


def _entries(info: DatasetInfo, b: int) -> dict[str, tuple[int, ...]]:
    """The entries of a trajectory of ``b`` cases, name -> shape."""
    entries = {f.name: (b, info.n_frames, f.components, *info.grid) for f in info.fields}
    entries |= {f.name: (b, info.n_frames, *info.face_shape(f.name)) for f in info.face_fields}
    entries |= {f.name: (b, 1, *info.grid) for f in info.constant_fields}
    return entries | {name: (b, info.n_frames) for name in (*info.series, "time")}


def _refuse_non_finite(name: str, array: np.ndarray, cases: Sequence[int], *, single: bool, framed: bool) -> None:
    """``single``: stored as float32; ``framed``: its second axis is that of the frames."""
    with np.errstate(over="ignore"):  # what float64 holds and float32 does not is as useless as infinity
        bad = ~np.isfinite(array.astype(np.float32) if single else array)
    if bad.any():
        where = np.argwhere(bad)[0]
        frame = f", frame {where[1]}" if framed else ""
        raise DataError(
            f"NaN or infinity in {name!r} of case {cases[where[0]]}{frame}: the case is not written; "
            "solve it again (smaller time step, finer grid) or leave it out"
        )

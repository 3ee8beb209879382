"""Where things live in a file of schema ``sciml/1``.

The arrays that grow with the number of cases sit in contiguous, uncompressed HDF5 datasets, so that a reader
maps them into memory at their offset and a writer puts bytes at an offset without touching HDF5's own
structures:

===========================  =====================  ========  ================================================
``/sciml/state``             (N, T, X, Y[, Z], C)   float32   all cell-centred fields, channels as in the info
``/sciml/faces/<name>``      (N, T, X+1, Y) ...     float32   face fields
``/sciml/constants/<name>``  (N, X, Y[, Z])         float32   fields that do not change in time
``/sciml/series/<name>``     (N, T)                 float64   numbers of each frame
``/sciml/time``              (N, T)                 float64   times of the frames
``/sciml/coordinates/<x>``   (N, X)                 float64   cell centres along an axis
``/sciml/written``           (N,)                   uint8     1 where a case is complete
``/sciml/subset``            (N,)                   string    subset label of each case
``/scalars/<parameter>``     (N,) or (N, T)         float64   parameters
``/dimensions/<time, x>``    (N, T), (N, X)         float32   the same times and coordinates for The Well
===========================  =====================  ========  ================================================

``/sciml`` has the attributes ``schema`` and ``fingerprint`` and the dataset ``info`` (JSON). The rest of the
tree, which shows the same bytes the way The Well wants them, is `sciml.datasets.well`. No structure depends
on the data, so that all of them are written before the first case. In a merged file the state and the faces are
virtual, and ``/sciml/parts`` says over what (`sciml.datasets.parts`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from sciml.datasets.info import DatasetInfo, FieldInfo
from sciml.errors import DataError, did_you_mean

PARTIAL = ".partial"
PARTICLES = "sciml-lagrangian"
"""The attribute ``format`` of a particle file (`sciml.datasets.particles`)."""
LIBVER = (
    "earliest",
    "v110",
)  # HDF5 2.0 would otherwise write what 1.10 clients cannot open; virtual data needs 1.10


@dataclass(frozen=True)
class Slot:
    """A contiguous dataset's place in its file: bytes ``offset`` to ``end``."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def case_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def end(self) -> int:
        return self.offset + self.shape[0] * self.case_bytes


def slot(dataset: h5py.Dataset) -> Slot | None:
    """The place of a dataset's bytes, None when they are chunked, compressed or elsewhere."""
    if dataset.chunks is not None or dataset.is_virtual or dataset.external:
        return None
    offset = dataset.id.get_offset()
    return None if offset is None else Slot(offset, dataset.shape, dataset.dtype)


def face_path(name: str) -> str:
    """Where a face field lives."""
    return f"/sciml/faces/{name}"


def constant_path(name: str) -> str:
    """Where a constant field lives."""
    return f"/sciml/constants/{name}"


def series_path(name: str) -> str:
    """Where a series lives."""
    return f"/sciml/series/{name}"


def coordinate_path(axis: str) -> str:
    """Where the cell centres along ``axis`` live."""
    return f"/sciml/coordinates/{axis}"


def well_field_path(f: FieldInfo) -> str:
    """Where The Well looks for a field."""
    return f"/t{f.order}_fields/{f.name}"


def well_series_path(name: str) -> str:
    """Where The Well looks for a number of each frame."""
    return f"/scalars/{name}"


def shapes(info: DatasetInfo, n_cases: int, materialize: bool) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path -> (shape, dtype) of every contiguous dataset."""
    frames = (n_cases, info.n_frames)
    layout = {"/sciml/state": ((*frames, *info.grid, info.n_channels), "<f4")}
    layout |= {face_path(f.name): ((*frames, *info.face_shape(f.name)), "<f4") for f in info.face_fields}
    layout |= {constant_path(f.name): ((n_cases, *info.grid), "<f4") for f in info.constant_fields}
    layout |= {series_path(name): (frames, "<f8") for name in info.series}
    if materialize:
        components = {f: (f.components,) if f.order else () for f in info.fields}
        layout |= {well_field_path(f): ((*frames, *info.grid, *components[f]), "<f4") for f in info.fields}
        layout |= {well_field_path(f): ((n_cases, *info.grid), "<f4") for f in info.constant_fields}
        layout |= {well_series_path(name): (frames, "<f8") for name in info.series}
    layout["/sciml/time"] = (frames, "<f8")
    layout["/dimensions/time"] = (frames, "<f4")
    for axis, n in zip(info.axes, info.grid, strict=True):
        layout[coordinate_path(axis)] = ((n_cases, n), "<f8")
        layout[f"/dimensions/{axis}"] = ((n_cases, n), "<f4")
    layout["/sciml/written"] = ((n_cases,), "|u1")
    return layout


def data_bytes(info: DatasetInfo, n_cases: int, materialize: bool) -> int:
    """Bytes of all contiguous datasets, and of parameters that all vary in time."""
    arrays = [*shapes(info, n_cases, materialize).values()]
    arrays.append(((n_cases, info.n_frames, len(info.parameters)), "<f8"))
    return sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in arrays)


def create(
    file: h5py.File,
    info: DatasetInfo,
    n_cases: int,
    parameters: Mapping[str, np.ndarray],
    subsets: Sequence[str],
    mark: str,
    materialize: bool,
    views: Mapping[str, h5py.VirtualLayout] = MappingProxyType({}),
) -> None:
    """Every group and dataset of ``/sciml`` in a new file, with room for all cases but no data.

    ``mark`` is the `fingerprint`; ``views``: path -> what stands there instead of room, in other files.
    """
    group = file.create_group("sciml")
    group.attrs["schema"] = info.schema
    group.attrs["fingerprint"] = mark
    text = h5py.string_dtype()
    group.create_dataset("info", data=info.to_json(), dtype=text)
    group.create_dataset("subset", data=np.asarray(subsets, dtype=object), dtype=text)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # contiguous datasets otherwise have no offset until written
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    for path, (shape, dtype) in shapes(info, n_cases, materialize).items():
        if path in views:
            file.create_virtual_dataset(path, views[path])
            continue
        parent, _, name = path.rpartition("/")
        space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype))
        h5py.h5d.create(file.require_group(parent).id, name.encode(), kind, space, dcpl=properties)
    for f in info.fields:
        channels = info.channels(f.name)
        group["state"].attrs[f"channels_{f.name}"] = [channels.start, channels.stop]
        group["state"].attrs[f"unit_{f.name}"] = f.unit
    group["state"].attrs["channel_names"] = list(info.channel_names)
    group["state"].attrs["location"] = "cell"
    for face in info.face_fields:
        file[face_path(face.name)].attrs.update(unit=face.unit, axis=face.axis, location=face.location)
    for f in info.constant_fields:
        file[constant_path(f.name)].attrs.update(unit=f.unit, location=f.location)
    for name, unit in info.series.items():
        file[series_path(name)].attrs.update(unit=unit, location="frame")
    file["/sciml/time"].attrs["location"] = "frame"
    for name, values in parameters.items():
        scalar = file.require_group("scalars").create_dataset(name, data=values)
        scalar.attrs.update(unit=info.parameters[name], sample_varying=True, time_varying=values.ndim == 2)


def fingerprint(
    info: DatasetInfo,
    n_cases: int,
    parameters: Mapping[str, np.ndarray],
    subsets: Sequence[str],
    materialize: bool,
) -> str:
    """SHA-256 of all that says what the data will be: an unfinished file is continued only if it agrees."""
    digest = hashlib.sha256(f"{info.to_json()}\n{n_cases} {materialize}\n".encode())
    for name in sorted(parameters):
        digest.update(f"{name}{parameters[name].shape}".encode() + parameters[name].astype("<f8").tobytes())
    digest.update("\0".join(subsets).encode())
    return digest.hexdigest()


def parameter_arrays(info: DatasetInfo, n_cases: int, parameters: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Parameters as float64 ``(N,)`` or ``(N, T)``; numbers are repeated for every case.

    Raises `DataError` for missing, unknown, non-finite or ill-shaped ones.
    """
    arrays = {}
    for name in parameters:
        if name not in info.parameters:
            raise DataError(
                f"parameter {name!r} is not in the data set's description" + did_you_mean(name, info.parameters)
            )
    for name in info.parameters:
        if name not in parameters:
            raise DataError(f"parameter {name!r} is missing; expected {sorted(info.parameters)}")
        values = np.array(as_numpy(parameters[name]), dtype=np.float64)
        if values.ndim == 0:
            values = np.full(n_cases, values)
        if values.shape not in ((n_cases,), (n_cases, info.n_frames)):
            raise DataError(
                f"parameter {name!r} must have shape ({n_cases},), or ({n_cases}, {info.n_frames}) when it varies "
                f"in time, got {values.shape}"
            )
        if not np.isfinite(values).all():
            raise DataError(f"parameter {name!r} is not finite in case {int(np.argwhere(~np.isfinite(values))[0, 0])}")
        arrays[name] = values
    return arrays


def as_numpy(values: Any) -> np.ndarray:
    """A torch tensor (any device), array, list or number as a numpy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)

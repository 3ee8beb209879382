"""Join data files of one problem into one: shards in the order of their sample, other files one after another."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from sciml.datasets import well
from sciml.datasets.collection import AGREE, Collection, Source, require_agreement
from sciml.datasets.disk import os_error
from sciml.datasets.info import DatasetInfo
from sciml.datasets.layout import (
    LIBVER,
    PARTIAL,
    constant_path,
    coordinate_path,
    create,
    face_path,
    fingerprint,
    parameter_arrays,
    series_path,
    shapes,
)
from sciml.datasets.parts import part_name, write_parts
from sciml.datasets.reader import DatasetFile
from sciml.datasets.shards import check_distinct, merged_info, order_of_cases
from sciml.datasets.writer import DatasetWriter
from sciml.errors import DataError
from sciml.progress import Progress

COPY_BYTES = 1 << 25
"""Roughly what a copy holds in memory at a time."""


def merge_files(
    out: str | os.PathLike[str],
    files: Sequence[Source],
    *,
    copy: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write one data file ``out`` with the cases of ``files`` and return its path.

    The fields stay where they are: ``out`` refers to them (HDF5 virtual datasets, relative paths), so it is small and
    needs its parts; a folder that holds all of them can be moved. ``copy`` writes a file that needs nothing else; a
    copy that was interrupted continues. Shards ``i/n`` of one sample (``generate``) are put in the sample's order;
    what they hold is kept bit for bit. Other files follow one another.

    Raises `DataError`: ``out`` exists (without ``overwrite``) or is one of the files; a file is unfinished, given
    twice or does not agree with the others; a shard is missing or given twice; the system cannot write.
    """
    out = Path(out)
    for file in files:
        if not isinstance(file, DatasetFile) and str(file).endswith(PARTIAL):
            raise DataError(f"{file} is unfinished: run the command that writes it again, it continues; then merge")
    data = Collection(files)
    check_distinct(out, data.files, overwrite)
    for other in data.files[1:]:
        require_agreement(data.files[0], other, (*AGREE, "n_frames", "boundaries", "boundary_parameters"))
    order, whole_sample = order_of_cases(data.files)
    info = merged_info([file.info for file in data.files], whole_sample)
    if copy:
        return _copy(out, info, data, order, overwrite, progress or Progress())
    return _join(out, info, data, order)


# ------------------------------------------------------------------------------------------------------------ writing


def _copy(
    out: Path, info: DatasetInfo, data: Collection, order: np.ndarray, overwrite: bool, progress: Progress
) -> Path:
    """A file of its own, a few cases in memory at a time."""
    subsets = [data.subsets[case] for case in order]
    case_bytes = sum(
        int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(kind).itemsize
        for shape, kind in shapes(info, len(order), False).values()
    )
    step = max(1, COPY_BYTES // case_bytes)
    with DatasetWriter(out, info, len(order), data.parameters(order), subsets, overwrite=overwrite) as writer:
        missing = writer.missing()
        with progress.phase(f"copy to {out}", len(missing)):
            for first in range(0, len(missing), step):
                cases = missing[first : first + step]
                writer.write(cases, data.trajectory(order[cases]), data.coordinates(order[cases]))
                progress.advance(len(cases))
        return writer.finish()


def _join(out: Path, info: DatasetInfo, data: Collection, order: np.ndarray) -> Path:
    """A file that refers to the others, under another name until it is complete."""
    new = Path(f"{out}.new")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            with h5py.File(new, "w", libver=LIBVER, locking=False) as file:
                _write_join(file, out, info, data, order)
            os.replace(new, out)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise os_error("cannot create", out, error) from error
    return out


def _write_join(file: h5py.File, out: Path, info: DatasetInfo, data: Collection, order: np.ndarray) -> None:
    part, local = data.locate(order)
    names = [part_name(each.path, out) for each in data.files]
    n_cases, subsets = len(order), [data.subsets[case] for case in order]
    parameters = parameter_arrays(info, n_cases, data.parameters(order))
    views = {}
    for path in (
        "/sciml/state",
        *(face_path(face.name) for face in info.face_fields),
        *(constant_path(f.name) for f in info.constant_fields),
        *(series_path(name) for name in info.series),
    ):
        shape, kind = shapes(info, n_cases, False)[path]
        views[path] = h5py.VirtualLayout(shape=shape, dtype=kind)
        for number, (name, each) in enumerate(zip(names, data.files, strict=True)):
            rows = np.flatnonzero(part == number)
            step = int(rows[1] - rows[0]) if len(rows) > 1 else 1  # a shard's cases are equally far apart
            # HDF5 reads % in the name of a source as a placeholder; %% is the character.
            source = h5py.VirtualSource(
                name.replace("%", "%%"), path, shape=(each.n_cases, *shape[1:]), dtype=each.array(path).dtype
            )
            views[path][int(rows[0]) : int(rows[-1]) + 1 : step] = source
    mark = fingerprint(info, n_cases, parameters, subsets, False)
    create(file, info, n_cases, parameters, subsets, mark, False, views)
    well.write_tree(file, info, n_cases)
    write_parts(file, names, [each.fingerprint for each in data.files], np.stack([part, local], axis=1))
    times = np.concatenate([each.times for each in data.files])[order]
    file["/sciml/time"][...] = file["/dimensions/time"][...] = times
    for axis, values in data.coordinates(order).items():
        file[coordinate_path(axis)][...] = file[f"/dimensions/{axis}"][...] = values.numpy()
    file["/sciml/written"][...] = 1

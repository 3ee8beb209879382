"""Join data files of one problem into one: shards in the order of their sample, other files one after another."""

import dataclasses
import json
import os
import re
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
    coordinate_path,
    create,
    face_path,
    fingerprint,
    parameter_arrays,
    shapes,
)
from sciml.datasets.parts import part_name, write_parts
from sciml.datasets.reader import DatasetFile
from sciml.datasets.writer import DatasetWriter
from sciml.errors import DataError
from sciml.progress import Progress
from sciml.version import __version__

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
    _check(out, data.files, overwrite)
    for other in data.files[1:]:
        require_agreement(data.files[0], other, (*AGREE, "n_frames", "boundaries", "boundary_parameters"))
    order, whole_sample = _order(data)
    info = _merged_info([file.info for file in data.files], whole_sample)
    if copy:
        return _copy(out, info, data, order, overwrite, progress or Progress())
    return _join(out, info, data, order)


def _check(out: Path, files: Sequence[DatasetFile], overwrite: bool) -> None:
    seen: set[Path] = set()
    for file in files:
        place = file.path.resolve()
        if place in seen:
            raise DataError(f"{file.path} is given twice; give every file once")
        seen.add(place)
    if out.resolve() in seen:
        raise DataError(f"{out} is one of the files to merge; choose another name for the merged file")
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists already; choose another name, remove it, or overwrite it (--overwrite)")


# ------------------------------------------------------------------------------------------------- the order of cases


def _order(data: Collection) -> tuple[np.ndarray, bool]:
    """The collection's cases in the merged order, and whether they are one whole sample.

    Shard i/n holds the cases i - 1, i - 1 + n, ... of its sample.
    """
    samples: dict[str, list[int]] = {}
    for number, file in enumerate(data.files):
        samples.setdefault(_sample(file.info) or f"file {number}", []).append(number)
    starts = np.cumsum([0, *(file.n_cases for file in data.files)])
    pieces = []
    for members in samples.values():
        division = _division([data.files[number] for number in members])
        piece = np.empty(sum(data.files[number].n_cases for number in members), dtype=np.int64)
        for number, first in zip(members, division, strict=True):
            piece[first :: len(members)] = np.arange(starts[number], starts[number + 1])
        pieces.append(piece)
    whole = len(samples) == 1 and _shard(data.files[0].info) is not None
    return np.concatenate(pieces), whole


def _shard(info: DatasetInfo) -> tuple[int, int] | None:
    """``(i, n)`` of a generated file, None of any other."""
    match = re.fullmatch(r"(\d+)/(\d+)", str(info.extra.get("shard", "")))
    return (int(match[1]), int(match[2])) if match else None


def _sample(info: DatasetInfo) -> str | None:
    """What the shards of one sample have in common, None for a file that is no shard."""
    if _shard(info) is None:
        return None
    extra = {key: value for key, value in info.extra.items() if key != "shard"}
    return json.dumps({**info.to_dict(), "extra": extra, "version": None}, sort_keys=True)


def _division(files: Sequence[DatasetFile]) -> list[int]:
    """The first case of each file in the sample that they divide: all shards of it, each once."""
    if _shard(files[0].info) is None:
        return [0]
    shards = [_shard(file.info) or (1, 1) for file in files]
    named = [f"{file.path} (shard {i}/{n})" for file, (i, n) in zip(files, shards, strict=True)]
    count = shards[0][1]
    for number, (index, other) in enumerate(shards):
        if other != count:
            raise DataError(
                f"{named[0]} and {named[number]} divide one sample differently and hold some of its cases twice; "
                f"give the shards 1/{count} to {count}/{count} or those of the other division"
            )
        first = shards.index((index, other))
        if first != number:
            raise DataError(
                f"shard {index}/{count} is given twice: {files[first].path} and {files[number].path}; give one of them"
            )
    missing = [f"{i}/{count}" for i in range(1, count + 1) if (i, count) not in shards]
    if missing:
        raise DataError(
            f"shard {', '.join(missing)} of the sample of {named[0]} is missing; generate it with --shard, or use "
            "the files as they are: commands take several (--data a.h5 b.h5)"
        )
    total = sum(file.n_cases for file in files)
    if any(file.n_cases != len(range(i - 1, total, n)) for file, (i, n) in zip(files, shards, strict=True)):
        sizes = ", ".join(f"{name} has {file.n_cases}" for file, name in zip(files, named, strict=True))
        raise DataError(
            f"the shards are not of one sample, they were made with different numbers of cases: {sizes}; generate "
            "them again with the same --cases"
        )
    return [index - 1 for index, _ in shards]


def _merged_info(infos: Sequence[DatasetInfo], whole_sample: bool) -> DatasetInfo:
    """The first file's, without what the others do not share; a whole sample's as if it had been made in one piece."""
    first = infos[0]
    extra = {key: value for key, value in first.extra.items() if all(i.extra.get(key) == value for i in infos)}
    extra.pop("shard", None)
    return dataclasses.replace(
        first,
        extra={**extra, "shard": "1/1"} if whole_sample else extra,
        seed=first.seed if all(i.seed == first.seed for i in infos) else None,
        solver="; ".join(dict.fromkeys(i.solver for i in infos)),
        version=first.version if all(i.version == first.version for i in infos) else __version__,
    )


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
    for path in ("/sciml/state", *(face_path(face.name) for face in info.face_fields)):
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

"""The parts of a merged file: which file, and which case of it, each case comes from.

===========================  =====================  ========  ================================================
``/sciml/parts/file``        (P,)                   string    path of each part, relative to the merged file
``/sciml/parts/fingerprint`` (P,)                   string    its fingerprint, so that another file is noticed
``/sciml/parts/case``        (N, 2)                 int64     part and case within it
===========================  =====================  ========  ================================================

The fields of a merged file are HDF5 virtual datasets over those of its parts. HDF5 gives fill values where a part is
missing; therefore a reader of ours goes through this table and opens the parts itself.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

GROUP = "/sciml/parts"


class JoinedArray:
    """Arrays of the parts as one array of cases; indexed ``[case, ...]`` with one whole number as ``case``."""

    def __init__(self, arrays: Sequence[Any], places: np.ndarray) -> None:
        self.shape, self.dtype = (len(places), *arrays[0].shape[1:]), arrays[0].dtype
        self._arrays = arrays
        self._part, self._case = places[:, 0].tolist(), places[:, 1].tolist()  # lists: quicker for one number

    def __getitem__(self, index: int | tuple) -> np.ndarray:
        case, *rest = index if isinstance(index, tuple) else (index,)
        return self._arrays[self._part[case]][(self._case[case], *rest)]


def write_parts(file: h5py.File, names: Sequence[str], fingerprints: Sequence[str], places: np.ndarray) -> None:
    """Put the table into a new file."""
    group, text = file.create_group(GROUP), h5py.string_dtype()
    group.create_dataset("file", data=np.asarray(names, dtype=object), dtype=text)
    group.create_dataset("fingerprint", data=np.asarray(fingerprints, dtype=object), dtype=text)
    group.create_dataset("case", data=np.asarray(places, dtype=np.int64))


def read_parts(file: h5py.File) -> tuple[list[str], list[str], np.ndarray] | None:
    """Names, fingerprints and places; None for a file that is not merged."""
    if GROUP not in file:
        return None
    group = file[GROUP]
    return list(group["file"].asstr()[()]), list(group["fingerprint"].asstr()[()]), group["case"][()]


def part_name(part: Path, merged: Path) -> str:
    """The path of a part as the merged file keeps it: relative, so that a folder of both can be moved."""
    return Path(os.path.relpath(part.resolve(), merged.resolve().parent)).as_posix()


def find_part(name: str, merged: Path) -> Path:
    """Where a part lies: beside the merged file as it was named, or beside what a symbolic link points to."""
    here = Path(os.path.normpath(merged.parent / name))
    return here if here.exists() else merged.resolve().parent / name

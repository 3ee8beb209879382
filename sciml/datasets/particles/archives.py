"""Files that may hold pickles: numpy archives (.npz), torch files (.pt), plain pickles (.obj, .pkl)."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.datasets.particles.restricted_pickle import DANGER, load_pickle
from sciml.errors import DataError


def npz_names(path: Path) -> list[str]:
    """Names of the arrays of a numpy archive, in their order. Raises `DataError` for other files."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is missing or no numpy archive (.npz): {error}") from error


def read_npz(path: Path, name: str, allow_pickle: bool) -> np.ndarray:
    """One array of a numpy archive. Arrays of objects are pickles: they need ``allow_pickle`` and go through
    `load_pickle`. Raises `DataError`."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            content = file.read()
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise DataError(f"{path}: the array {name!r} is damaged ({error})") from error
    if dtype.hasobject:
        if not allow_pickle:
            raise DataError(f"{path} {DANGER}")
        found = load_pickle(content, path)
        if not isinstance(found, np.ndarray):
            raise DataError(f"{path}: {name!r} is {type(found).__name__}, expected an array")
        return found
    if len(content) != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise DataError(f"{path}: the array {name!r} is cut short")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()


def read_torch(path: Path, allow_pickle: bool) -> Any:
    """What ``torch.save`` wrote: tensors in lists and dictionaries as torch reads them (``weights_only=True``); a file
    with numpy arrays in it is a pickle, which needs ``allow_pickle`` and goes through `load_pickle`.

    Raises `DataError`.
    """
    if not zipfile.is_zipfile(path):  # a plain pickle, or a torch file older than torch 1.6, which begins with one
        return read_pickle(path, allow_pickle)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass  # numpy arrays, or worse
    except Exception as error:  # torch raises many kinds for files that are none of its
        raise DataError(f"{path} cannot be read as a torch file: {error}") from error
    if not allow_pickle:
        raise DataError(f"{path} {DANGER}")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise DataError(f"{path} is no torch file: it has no data.pkl")
        try:
            content = archive.read(names[0])
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is damaged: {error}") from error
    return load_pickle(content, path)


def read_pickle(path: Path, allow_pickle: bool) -> Any:
    """A plain pickle, through `load_pickle`. Raises `DataError`, without ``allow_pickle`` always."""
    if not allow_pickle:
        raise DataError(f"{path} {DANGER}")
    return load_pickle(path.read_bytes(), path)

"""Whether a file's numbers are numbers."""

import os

import numpy as np

from sciml.datasets.layout import constant_path, face_path, series_path
from sciml.datasets.reader import DatasetFile
from sciml.errors import DataError

CHUNK_BYTES = 1 << 24


def check_finite(file: str | os.PathLike[str] | DatasetFile) -> None:
    """Scan every field, face field, constant field and series.

    Raises `DataError` at the first NaN or infinity: field, case, frame, file.
    """
    file = file if isinstance(file, DatasetFile) else DatasetFile(file)
    for f in file.info.constant_fields:
        array = file.array(constant_path(f.name))
        for case in range(file.n_cases):
            values = np.asarray(array[case])
            if not np.isfinite(values).all():
                raise DataError(
                    f"{_kind(values[~np.isfinite(values)][0])} in constant field {f.name!r} of case {case} (file "
                    f"{file.path}); generate the file again or leave the case out"
                )
    faces = (face_path(f.name) for f in file.info.face_fields)
    for path in ("/sciml/state", *faces, *(series_path(name) for name in file.info.series)):
        array = file.array(path)
        frame_bytes = int(np.prod(array.shape[2:])) * array.dtype.itemsize
        step = max(1, CHUNK_BYTES // max(1, frame_bytes))
        for case in range(file.n_cases):
            for first in range(0, file.n_frames, step):
                chunk = array[case, first : first + step]
                if not np.isfinite(chunk).all():
                    where = np.argwhere(~np.isfinite(chunk))[0]
                    raise DataError(
                        f"{_kind(chunk[tuple(where)])} in field {_field(file, path, int(where[-1]))!r} of case "
                        f"{case}, frame {first + int(where[0])} (file {file.path}); generate the file again or "
                        "leave the case out"
                    )


def _kind(value: np.floating) -> str:
    return "NaN" if np.isnan(value) else "infinity"


def _field(file: DatasetFile, path: str, channel: int) -> str:
    if path != "/sciml/state":
        return path.rpartition("/")[2]
    return next(f.name for f in file.info.fields if channel < file.info.channels(f.name).stop)

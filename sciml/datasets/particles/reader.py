"""Read a particle file: descriptions and sizes at once, positions by windows of frames."""

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from sciml.datasets.layout import PARTIAL
from sciml.datasets.particles.info import ParticleInfo
from sciml.datasets.particles.layout import FORMAT, NAMES, VERSION, case_path, read_case, read_moments
from sciml.datasets.particles.records import ParticleTrajectory, check_inside
from sciml.datasets.particles.statistics import trajectory_moments
from sciml.datasets.statistics import Moments
from sciml.errors import DataError

AGAIN = "make or download it again"


class ParticleFile:
    """One particle file, open for reading; safe to pickle and to fork.

    - ``path``, ``info``, ``len(file)`` = number of cases, ``subsets``: their labels
    - ``case_parameters``: name -> float64 (cases,)

    Raises `DataError` for a file that is missing, unfinished, cut short, of another format, damaged or of a newer
    version, for missing keys and wrong shapes; what is damaged within an array is met when it is read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._pid = os.getpid()
        with _open_checked(self.path) as file:
            try:
                self.info = ParticleInfo.from_json(str(file.attrs["info"]))
                names = sorted(file["traj"])
                if not names or names != [case_path(case).rpartition("/")[2] for case in range(len(names))]:
                    raise KeyError(f"the cases must be numbered from 000000 without a gap, found {names[:5]}")
                self._sizes = [_check_case(file["traj"][name], self.info) for name in names]
                attributes = [file["traj"][name].attrs for name in names]
                self.subsets = tuple(str(each["subset"]) for each in attributes)
                numbers = [json.loads(each["case_parameters"]) for each in attributes]
                self.case_parameters = {
                    name: np.array([float(each[name]) for each in numbers]) for name in self.info.case_parameters
                }
            except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
                raise DataError(f"{self.path} is damaged: {_text(error)}; {AGAIN}") from error

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def n_cases(self) -> int:
        """``len(file)``, as a file of fields calls it."""
        return len(self)

    def frames(self, case: int) -> int:
        """Number of frames of a case."""
        return self._sizes[self._case(case)][0]

    def count(self, case: int) -> int:
        """Number of particles of a case."""
        return self._sizes[self._case(case)][1]

    def trajectory(self, case: int) -> ParticleTrajectory:
        """A whole case. Raises `DataError` where it is damaged, not finite or outside the bounds."""
        case = self._case(case)
        try:
            trajectory = read_case(self._group(case))
            check_inside(trajectory.position, self.info)
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise self._damaged(case, error) from error
        return trajectory

    def positions(self, case: int, start: int = 0, stop: int | None = None, particles: Any = None) -> Tensor:
        """``(t, n, d)`` float32: the frames ``start`` to ``stop`` - 1 (default: to the end), of the ``particles``
        (indices; default: all). Only the chunks that hold these frames are read and unpacked.

        Raises `DataError` for frames or particles that are not there and for damaged data.
        """
        return self._window("position", case, start, stop, particles)

    def velocities(self, case: int, start: int = 0, stop: int | None = None, particles: Any = None) -> Tensor | None:
        """``(t, n, d)`` float32 in m/s, as `positions`; None where the file has none."""
        if "velocity" not in self._group(self._case(case)):
            return None
        return self._window("velocity", case, start, stop, particles)

    def moments(self, case: int) -> list[Moments]:
        """Of velocity, acceleration and parameters of the free particles; computed where the file has none."""
        case = self._case(case)
        group = self._group(case)
        if "moments" not in group:
            return trajectory_moments(self.trajectory(case))
        try:
            return read_moments(group)
        except (OSError, KeyError, RuntimeError, TypeError) as error:
            raise self._damaged(case, error) from error

    def copy_case(self, case: int, target: h5py.Group, name: str) -> None:
        """Copy a case, packed as it is, to ``target[name]``. Raises `DataError` where it is damaged."""
        case = self._case(case)
        try:
            target.file.copy(self._group(case), target, name)
        except (KeyError, RuntimeError) as error:
            raise self._damaged(case, error) from error

    def _window(self, name: str, case: int, start: int, stop: int | None, particles: Any) -> Tensor:
        case = self._case(case)
        frames, count = self._sizes[case]
        stop = frames if stop is None else stop
        if not 0 <= start < stop <= frames:
            raise DataError(f"case {case} of {self.path} has the frames 0 to {frames - 1}, asked for {start}:{stop}")
        try:
            window = torch.from_numpy(self._group(case)[name][start:stop])
        except (OSError, KeyError, RuntimeError) as error:
            raise self._damaged(case, error) from error
        if particles is None:
            return window
        index = torch.as_tensor(particles, dtype=torch.int64)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= count):
            raise DataError(f"case {case} of {self.path} has the particles 0 to {count - 1}, asked for others")
        return window[:, index]

    def _case(self, case: int) -> int:
        if not -len(self) <= case < len(self):
            raise DataError(f"{self.path} has the cases 0 to {len(self) - 1}, asked for {case}")
        return int(case) % len(self)

    def _group(self, case: int) -> h5py.Group:
        if self._pid != os.getpid():  # an h5py handle must not be used across a fork
            self._file, self._pid = None, os.getpid()
        if self._file is None:
            self._file = _open_checked(self.path)
        return self._file[case_path(case)]

    def _damaged(self, case: int, error: Exception) -> DataError:
        return DataError(f"case {case} of {self.path} is damaged: {_text(error)}; {AGAIN}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __repr__(self) -> str:
        return f"ParticleFile({str(self.path)!r}: {self.info.problem}, {self.info.dim}-D, {len(self)} cases)"


def is_particle_file(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is an HDF5 file of this format (any version), without reading it."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return file.attrs.get("format") == FORMAT
    except OSError:
        return False


def _open_checked(path: Path) -> h5py.File:
    partial = Path(f"{path}{PARTIAL}")
    if not path.is_file():
        hint = f"; {partial} is unfinished: run what writes it again, it continues" if partial.exists() else ""
        raise DataError(f"no particle file {path}{hint or '; check the path, generate it or convert one'}")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        if "truncated" in str(error):
            raise DataError(f"{path} is cut short ({error}); {AGAIN}") from error
        if not h5py.is_hdf5(path):
            raise DataError(
                f"{path} is not an HDF5 file; convert other particle formats with: sciml convert {path} --out FILE.h5"
            ) from error
        raise DataError(f"cannot open {path}: {error}") from error
    try:
        _check_format(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check_format(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT:
        if "sciml" in file:
            raise DataError(f"{path} holds fields on a grid (open it with DatasetFile), expected particles")
        raise DataError(
            f"{path} is HDF5 but no particle file: its top level holds {sorted(file)[:8]}, expected the attribute "
            f"format = {FORMAT!r}"
        )
    version = file.attrs.get("version")
    if version != VERSION:
        raise DataError(f"{path} has version {version} of {FORMAT}, this sciml reads {VERSION}; install a newer sciml")


def _check_case(group: h5py.Group, info: ParticleInfo) -> tuple[int, int]:
    """(frames, particles) of a case whose arrays have the right names, shapes and types; else KeyError."""
    shape = group["position"].shape
    if len(shape) != 3 or shape[2] != info.dim or 0 in shape:
        raise KeyError(f"{group.name}/position must have the shape (frames, particles, {info.dim}), has {shape}")
    n = shape[1]
    expected = {name: (n,) for name, _ in NAMES.values()} | {"position": shape}
    expected["material_param"] = (n, len(info.parameters))
    if "velocity" in group:
        expected["velocity"] = shape
    for name, wanted in expected.items():
        if name not in group:
            raise KeyError(f"{group.name}/{name} is missing")
        if group[name].shape != wanted or group[name].dtype.kind not in "fiub":
            raise KeyError(
                f"{group.name}/{name} must hold numbers of shape {wanted}, has {group[name].shape} of "
                f"{group[name].dtype}"
            )
    return int(shape[0]), int(n)


def _text(error: Exception) -> str:
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)

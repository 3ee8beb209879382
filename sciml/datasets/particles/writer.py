"""Write a particle file case by case, so that a run that is killed continues where it stopped.

Compressed cases of unknown size cannot have their places reserved as those of a grid file have. Each case is therefore
a small HDF5 file of its own in the directory ``path + ".partial"``, built in memory, written under another name,
flushed to the device and only then renamed: what has a case's name is whole. `ParticleWriter.finish` copies the cases
(packed as they are) in their order into one file, which so has the same bits however often the writing was stopped.
"""

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from sciml.datasets.disk import os_error, pwrite, reserve, sync_directory
from sciml.datasets.layout import LIBVER, PARTIAL
from sciml.datasets.particles.info import ParticleInfo, differing_keys
from sciml.datasets.particles.layout import case_path, read_moments, write_case, write_header, write_statistics
from sciml.datasets.particles.records import ParticleTrajectory, check_trajectory
from sciml.datasets.particles.statistics import pooled_statistics
from sciml.datasets.statistics import Moments
from sciml.errors import DataError

DESCRIPTION = "description.json"
NEW = ".new"
"""Ends the name of what is not complete."""
METADATA_BYTES = 1 << 20  # more than the structures of the joined file need beside those of the cases
GROWTH = 1 << 22
"""Bytes by which a file in memory grows."""


class ParticleWriter:
    """Writes ``cases`` trajectories to the directory ``path + ".partial"`` and `finish`es them into the file ``path``.

    ``overwrite``: let `finish` replace a file that has the final name. Use as a context manager::

        with ParticleWriter(path, info, cases) as writer:
            for case in writer.missing():
                writer.write(case, trajectory)
            writer.finish()

    Raises `DataError`: ``path`` exists, the directory cannot be written, the disk is full, what is in ``.partial`` is
    damaged, belongs to another data set or is being written by another process, a trajectory does not fit ``info``.
    """

    def __init__(
        self, path: str | os.PathLike[str], info: ParticleInfo, cases: int, *, overwrite: bool = False
    ) -> None:
        self.path, self.info, self.cases = Path(path), info, int(cases)
        self.partial = Path(f"{self.path}{PARTIAL}")
        self._fd: int | None = None
        if self.cases < 1:
            raise DataError(f"a particle file needs at least 1 case, got {cases}")
        if self.path.is_dir() or (self.path.exists() and not overwrite):
            raise DataError(f"{self.path} exists already; read it, remove it, or write with overwrite=True")
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._describe()
        except OSError as error:
            self.close()
            raise os_error("cannot create", self.partial, error) from error
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        """Keep the directory for this process alone."""
        self._fd = os.open(self.partial, os.O_RDONLY | os.O_DIRECTORY)
        try:  # the kernel releases this lock when the process dies
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{self.partial} is being written by another process; wait for it or stop it") from error
        except OSError:  # a file system without locks
            pass

    def _describe(self) -> None:
        """Leave a description for who continues, or check the one that is there."""
        file, remedy = self.partial / DESCRIPTION, f"remove {self.partial} to start again"
        if not file.exists():
            if strangers := sorted(name for name in os.listdir(self.partial) if not name.endswith(NEW)):
                raise DataError(
                    f"{self.partial} is not an unfinished particle file, it holds {strangers[:3]}; {remedy}"
                )
            self._put(DESCRIPTION, json.dumps({"cases": self.cases, "info": self.info.to_json()}).encode())
            return
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            info, cases = ParticleInfo.from_json(content["info"]), content["cases"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is damaged ({error}); {remedy}") from error
        differences = differing_keys(info, self.info)
        if cases != self.cases:
            differences.append(f"cases: {cases} and {self.cases}")
        if differences:
            raise DataError(
                f"{self.partial} holds an unfinished data set that differs from this one: {'; '.join(differences)} "
                f"(there and here); {remedy}, or write to another path"
            )

    # -- writing

    def _case_file(self, case: int) -> Path:
        return self.partial / f"{case:06d}.h5"

    def missing(self) -> list[int]:
        """Numbers of the cases that are not yet written."""
        self._open()
        return [case for case in range(self.cases) if not self._case_file(case).exists()]

    def write(self, case: int, trajectory: ParticleTrajectory) -> None:
        """Put a case on disk; writing it again replaces it.

        Raises `DataError` for a trajectory that the info does not describe (`check_trajectory`) and when the system
        cannot write; nothing that was written before is harmed.
        """
        self._open()
        if not 0 <= case < self.cases:
            raise DataError(f"case must be from 0 to {self.cases - 1}, got {case}")
        try:
            check_trajectory(trajectory, self.info)
        except DataError as error:
            raise DataError(f"case {case} is not written: {error}") from error
        with h5py.File(
            f"{case}.h5", "w", libver=LIBVER, driver="core", backing_store=False, block_size=GROWTH
        ) as file:  # in memory, because HDF5 crashes on a full disk
            write_case(file.create_group(case_path(case)), trajectory, self.info)
            file.flush()
            image = file.id.get_file_image()
        try:
            self._put(self._case_file(case).name, image)
        except OSError as error:
            raise os_error(f"cannot write case {case} to", self.partial, error) from error

    def _put(self, name: str, content: bytes) -> None:
        """A whole file or none."""
        new = self.partial / f"{name}{NEW}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            pwrite(fd, np.frombuffer(content, np.uint8), 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(new, self.partial / name)
        sync_directory(self.partial)

    def finish(self) -> Path:
        """Join the cases into the final file, which is returned, and remove the directory of the parts.

        Raises `DataError` when cases are missing or damaged, when nothing moves freely, or the system cannot write
        (room for all the cases a second time is needed).
        """
        if missing := self.missing():
            raise DataError(
                f"{self.partial}: {len(missing)} of {self.cases} cases are missing (first: {missing[:5]}); "
                "write them, then finish"
            )
        new = self.partial / f"joined{NEW}"
        try:
            size = sum(self._case_file(case).stat().st_size for case in range(self.cases)) + METADATA_BYTES
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                reserve(fd, size)  # a full disk is met here rather than in HDF5, which crashes
                self._join(new)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(new, self.path)
            sync_directory(self.path.parent)
            for case in range(self.cases):  # the description last: a kill here leaves what can be continued
                self._case_file(case).unlink()
            shutil.rmtree(self.partial)
        except OSError as error:
            raise os_error("cannot finish", self.path, error) from error
        self.close()
        return self.path

    def _join(self, new: Path) -> None:
        dim = self.info.dim
        total = [Moments.empty(n) for n in (dim, dim, len(self.info.parameters))]
        with h5py.File(new, "w", libver=LIBVER, locking=False) as file:
            write_header(file, self.info)
            target = file.create_group("traj")
            for case in range(self.cases):
                path = self._case_file(case)
                try:
                    with h5py.File(path, "r", locking=False) as part:
                        group = part[case_path(case)]
                        for one, all_ in zip(read_moments(group), total, strict=True):
                            all_.merge(one)
                        part.copy(group, target)
                except (OSError, KeyError, RuntimeError) as error:
                    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                        raise
                    raise DataError(f"{path} is damaged ({error}); remove it, write its case again") from error
            if total[1].n:  # else a file of walls, or of states at one time
                write_statistics(file, pooled_statistics(total, str(self.path)))

    # -- the directory

    def close(self) -> None:
        """Let go of the directory. What is written stays; opening the same data set again continues."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "ParticleWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        if self._fd is None:
            raise DataError(f"the writer of {self.path} is closed; open a new ParticleWriter")

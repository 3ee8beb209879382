"""What the writer asks of the operating system."""

import errno
import os
from pathlib import Path

import numpy as np

from sciml.errors import DataError


def reserve(fd: int, size: int) -> None:
    """Give the file's first ``size`` bytes room on the device.

    Raises OSError (ENOSPC, EDQUOT, EFBIG) when there is none.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS: a full disk is met when writing
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot promise room
            raise


def pwrite(fd: int, block: np.ndarray, offset: int) -> None:
    """All of ``block`` at ``offset`` (one system call writes at most 2 GiB)."""
    view = memoryview(block).cast("B")
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def sync_directory(directory: Path) -> None:
    """Make a rename in ``directory`` last through a power cut."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def os_error(what: str, path: Path, error: OSError) -> DataError:
    """``what path: reason; what to do``, to be raised."""
    reason = error.strerror or str(error)
    return DataError(f"{what} {path}: {reason}; free space or choose a directory that can be written, then run again")

"""Join particle files of one problem into one: shards in the order of their sample, others one after another."""

import os
from collections.abc import Sequence
from pathlib import Path

import h5py

from sciml.datasets.disk import os_error, reserve, sync_directory
from sciml.datasets.layout import LIBVER
from sciml.datasets.particles.info import ParticleInfo, differing_keys
from sciml.datasets.particles.layout import case_path, write_header, write_statistics
from sciml.datasets.particles.reader import ParticleFile
from sciml.datasets.particles.statistics import pooled_moments, pooled_statistics
from sciml.datasets.particles.writer import METADATA_BYTES
from sciml.datasets.shards import check_distinct, merged_info, order_of_cases
from sciml.errors import DataError
from sciml.progress import Progress

MAY_DIFFER = ("solver", "seed", "extra", "version")


def merge_particle_files(
    out: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str] | ParticleFile],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write one particle file ``out`` with the cases of ``files``, packed as they are, and return its path.

    Shards ``i/n`` of one sample are put in the sample's order. ``out`` needs no other file.

    Raises `DataError`: ``out`` exists (without ``overwrite``) or is one of the files; a file is unfinished, damaged,
    given twice or describes other particles (`MAY_DIFFER` may differ); a shard is missing or given twice; the system
    cannot write.
    """
    out, opened = Path(out), [file if isinstance(file, ParticleFile) else ParticleFile(file) for file in files]
    if not opened:
        raise DataError("need at least one file to merge")
    check_distinct(out, opened, overwrite)
    for other in opened[1:]:
        if differences := differing_keys(opened[0].info, other.info, MAY_DIFFER):
            raise DataError(
                f"{opened[0].path} and {other.path} differ in {'; '.join(differences)}; merge files of one set"
            )
    order, whole_sample = order_of_cases(opened)
    places = [(file, case) for file in opened for case in range(len(file))]
    cases = [places[index] for index in order]
    new = Path(f"{out}.new")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            reserve(
                fd, sum(file.path.stat().st_size for file in opened) + METADATA_BYTES
            )  # HDF5 crashes on a full disk
            _join(new, merged_info([file.info for file in opened], whole_sample), cases, progress or Progress())
            os.fsync(fd)
            os.replace(new, out)
            sync_directory(out.parent)
        finally:
            os.close(fd)
            new.unlink(missing_ok=True)
    except OSError as error:
        raise os_error("cannot create", out, error) from error
    return out


def _join(new: Path, info: ParticleInfo, cases: Sequence[tuple[ParticleFile, int]], progress: Progress) -> None:
    with h5py.File(new, "w", libver=LIBVER, locking=False) as file, progress.phase("merge", len(cases)):
        write_header(file, info)
        target = file.create_group("traj")
        for number, (source, case) in enumerate(cases):
            source.copy_case(case, target, case_path(number).rpartition("/")[2])
            progress.advance()
        total = pooled_moments(cases)
        if total[1].n:
            write_statistics(file, pooled_statistics(total, str(new)))

"""Recognise a foreign format and convert it."""

import os
from pathlib import Path
from typing import Any

from sciml.datasets.particles.giorom import giorom_source
from sciml.datasets.particles.gns import SPLITS, gns_source
from sciml.datasets.particles.nclaw import nclaw_source, state_folders
from sciml.datasets.particles.source import ParticleSource, Told
from sciml.datasets.particles.vtk import SUFFIXES, series_files, vtk_source
from sciml.errors import DataError
from sciml.progress import Progress

FORMATS = (
    "GNS (.npz, or a directory of train.npz, valid.npz, test.npz; metadata.json beside them), NCLaw (a directory with "
    "state/NNNN.pt), GIOROM (.pt, .obj, .pkl), series of point clouds (.pvd, or a directory of numbered "
    f"{', '.join(SUFFIXES)} files)"
)


def open_source(path: str | os.PathLike[str], **told: Any) -> ParticleSource:
    """The trajectories of a foreign file or directory; ``told``: the fields of `Told`.

    Raises `DataError` for a path that is missing, of no known format or damaged, or that holds a pickle without
    ``allow_pickle=True``; `ConfigError` for an interval that nobody says.
    """
    path, given = Path(path), Told(**told)
    if not path.exists():
        raise DataError(f"{path} is not there; expected one of: {FORMATS}")
    suffix = path.suffix.lower()
    if path.is_dir():
        if any((path / f"{split}.npz").is_file() for split in SPLITS):
            return gns_source(path, given)
        if state_folders(path):
            return nclaw_source(path, given)
    elif suffix == ".npz":
        return gns_source(path, given)
    elif suffix in (".pt", ".obj", ".pkl", ".pickle"):
        return giorom_source(path, given)
    if series_files(path)[0]:
        return vtk_source(path, given)
    raise DataError(f"{path} is of no known format; expected one of: {FORMATS}")


def convert_particles(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **told: Any,
) -> Path:
    """Write the trajectories of a foreign file or directory as a particle file ``out``, and return its path.

    Stopped, it goes on where it was when called again. Raises as `open_source` and `ParticleWriter` do.
    """
    return open_source(path, **told).write(Path(out), overwrite=overwrite, progress=progress)

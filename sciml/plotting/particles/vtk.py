"""Particles as series of files for ParaView."""

from pathlib import Path

import numpy as np

from sciml.errors import DataError
from sciml.plotting.particles.clouds import Cloud, Scene
from sciml.plotting.particles.data_file import open_case
from sciml.plotting.particles.predictions import has_particles, read_particles
from sciml.plotting.particles.run import clouds_of


def particle_series(target: str | Path, directory: str | Path, case: int = 0) -> list[Path]:
    """Write a run's cases, or case number ``case`` of a particle data file, into ``directory``; returns the ``.pvd``
    files, which ParaView opens.

    Of a run (its directory, or a ``predictions.npz``) ``<case>_truth``, ``<case>_sparse`` and ``<case>_dense``
    (``<case>_prediction`` where no particle was left out) of every case that is drawn; of a data file
    ``<file>_case<N>``, with all that it says of its particles. Those of a run have ``kind``, ``fixed`` and ``speed``.

    Raises DataError for a target that holds no particles.
    """
    from sciml.datasets.particles import is_particle_file, write_vtk_case

    target, directory = Path(target), Path(directory)
    predictions = target / "predictions.npz" if target.is_dir() else target
    if has_particles(predictions):
        file = read_particles(predictions)
        return [
            _write(directory, f"{each.name}_{cloud.name}", cloud, file.scene)
            for each in file.cases()
            for cloud in clouds_of(each, file.scene)
        ]
    if target.is_file() and is_particle_file(target):
        file = open_case(target, case)
        return [write_vtk_case(directory, f"{target.stem}_case{case}", file.trajectory(case), file.info.interval)]
    raise DataError(
        f"{target} holds no particles to write for ParaView; give a particle data file, or a particle run that was "
        "evaluated"
    )


def _write(directory: Path, name: str, cloud: Cloud, scene: Scene) -> Path:
    from sciml.datasets.particles import write_vtk_series

    frames = len(cloud.position)
    speed = np.stack([cloud.speed(frame, scene.interval) for frame in range(frames)]).astype(np.float32)
    data = {"kind": cloud.kind, "fixed": cloud.fixed, "speed": speed}
    times = scene.interval * np.arange(frames)
    return write_vtk_series(directory, name, cloud.position, times, point_data=data)

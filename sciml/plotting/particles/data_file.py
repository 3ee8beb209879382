"""Pictures of a case of a particle data file: what ``sciml generate`` made."""

from pathlib import Path
from typing import TYPE_CHECKING

from sciml.errors import DataError
from sciml.plotting.particles.animation import animate_particles
from sciml.plotting.particles.clouds import Cloud, check_scene
from sciml.plotting.particles.frames import particle_frames

if TYPE_CHECKING:
    from sciml.datasets.particles import ParticleFile


def particle_case_figure(path: str | Path, case: int, folder: str | Path | None = None) -> list[Path]:
    """Draw case number ``case`` of a particle file: ``<file>_case<N>.png``, the particles at five times, and
    ``<file>_case<N>.gif``; returns the paths, in ``folder`` or beside the file.

    Raises DataError for a file that cannot be read or has no such case, and for one of a single dimension.
    """
    path = Path(path)
    file = open_case(path, case)
    info, trajectory = file.info, file.trajectory(case)
    if len(trajectory.position) < 2:
        raise DataError(f"case {case} of {path} has a single frame; expected at least two, which give the speed")
    scene = check_scene(info.bounds, info.interval, info.kinds, gravity=info.gravity, where=str(path))
    cloud = Cloud("", *(array.numpy() for array in (trajectory.position, trajectory.kind, trajectory.fixed)))
    words = (info.problem, trajectory.subset, f"case {case}", f"{file.count(case):,} points")
    title = ", ".join(word for word in words if word)
    target = (Path(folder) if folder is not None else path.parent) / f"{path.stem}_case{case}.png"
    particle_frames([cloud], scene, title=title, path=target)
    return [target, animate_particles([cloud], scene, title=title, path=target.with_suffix(".gif"))]


def open_case(path: Path, case: int) -> "ParticleFile":
    """A particle file that has case number ``case``. Raises DataError when it has not, or cannot be read."""
    from sciml.datasets.particles import ParticleFile  # torch and h5py are heavy

    file = ParticleFile(path)
    if not 0 <= case < len(file):
        raise DataError(f"{path} has no case {case}; its {len(file)} cases are counted from 0")
    return file

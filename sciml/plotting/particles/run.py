"""The pictures of a particle run, and of a case of a particle data file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sciml.plotting.particles.animation import animate_particles
from sciml.plotting.particles.clouds import Cloud, Scene, rollout_remarks
from sciml.plotting.particles.curves import particle_errors
from sciml.plotting.particles.frames import particle_frames
from sciml.plotting.particles.predictions import ParticleCase, ParticlePredictions, read_particles


def particle_figures(predictions: Path, figures: Path, operator: str) -> list[Callable[[], Path]]:
    """What draws ``rollout_error.png``, and for each case ``rollout_<case>.gif`` and ``frames_<case>.png``.

    Raises DataError when the file lacks a key or its arrays do not fit.
    """
    file = read_particles(predictions)
    tasks = [partial(_errors, file, figures / "rollout_error.png", operator)]
    for position in range(len(file)):
        # Each reads its case when its turn comes: all of them together may not fit into memory.
        tasks += [partial(draw, file, position, figures) for draw in (_animation, _frames)]
    return tasks


def clouds_of(case: ParticleCase, scene: Scene) -> list[Cloud]:
    """Truth, sparse prediction and dense prediction; no sparse one where nothing was left out."""
    index = case.sparse_index
    truth = Cloud("truth", case.truth, case.kind, case.fixed, note=_count(case.truth))
    rows = [("sparse", case.sparse, case.truth[:, index], case.kind[index], case.fixed[index])] if case.thinned else []
    rows.append(("dense" if case.thinned else "prediction", case.dense, case.truth, case.kind, case.fixed))
    predicted = [
        Cloud(name, p, kind, fixed, rollout_remarks(p, y, fixed, scene.bounds, case.given), _count(p))
        for name, p, y, kind, fixed in rows
    ]
    return [truth, *predicted]


def _count(position: NDArray[Any]) -> str:
    return f"{position.shape[1]:,} points"


def _errors(file: ParticlePredictions, path: Path, operator: str) -> Path:
    case = file.case(0)
    curves = dict(file.curves)
    if not case.thinned:  # one curve under two names
        del curves["sparse"], curves["upsampled_truth"]
    title = f"Rollout error of {operator} relative to the displacement of the truth"
    particle_errors(curves, given=case.given, title=title, path=path)
    return path


def _animation(file: ParticlePredictions, position: int, figures: Path) -> Path:
    case = file.case(position)
    path = figures / f"rollout_{case.name}.gif"
    return animate_particles(clouds_of(case, file.scene), file.scene, title=case.title, path=path)


def _frames(file: ParticlePredictions, position: int, figures: Path) -> Path:
    case = file.case(position)
    path = figures / f"frames_{case.name}.png"
    title = f"{case.title}    (error: distance from the truth relative to its displacement)"
    particle_frames(clouds_of(case, file.scene), file.scene, start=case.given - 1, title=title, path=path)
    return path

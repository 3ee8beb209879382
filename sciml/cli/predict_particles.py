"""``sciml predict`` for particles: roll scenes of a particle file out and write them as one."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.cli.progress import RichProgress
from sciml.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sciml.surrogate import Surrogate
    from sciml.surrogate.particles import ParticleSurrogate


def predict_particles(
    surrogate: "ParticleSurrogate | Surrogate | Any",
    input: Path,
    out: Path,
    steps: int | None,
    frame: int | None,
    points: int | None,
    source: Path,
    progress: RichProgress,
) -> dict[str, Any]:
    """Write the frames that the surrogate reads and those that it predicts, of all particles of every case.

    Raises ConfigError where the surrogate or the file is not one of particles or the frame is not there, DataError
    where the file's particles are others than the surrogate's.
    """
    import torch

    from sciml.datasets.particles import ParticleFile, ParticleWriter
    from sciml.surrogate.particles import scene_of
    from sciml.surrogate.particles.companions import choose
    from sciml.training.particles.evaluation import error_curve

    if surrogate.kind != "particles":
        raise ConfigError(f"{input} holds particles, the surrogate in {source} predicts fields")
    file = ParticleFile(input)
    given, info = surrogate.history + 1, file.info
    for key, ours, theirs in (
        ("kinds", surrogate.kinds, info.kinds),
        ("parameters", tuple(surrogate.parameter_units), info.parameter_names),
        ("interval", surrogate.interval, info.interval),
    ):
        if ours != theirs:
            raise DataError(f"{input} has {key} {theirs}; the surrogate was trained with {ours}")
    device = next(surrogate.parameters()).device
    errors, longest = [], 0
    written = replace(info, solver=f"surrogate {source}", extra={**info.extra, "input": str(input)})
    aside = out.with_name(out.name + ".new")  # a file that is replaced stays whole until this one is
    with ParticleWriter(aside, written, len(file)) as writer, progress.phase("predict", len(file)):
        for case in range(len(file)):
            trajectory = file.trajectory(case)
            last = _frame(trajectory.n_frames, given, frame)
            truth = trajectory.position[last + 1 :]
            ahead = steps or len(truth)
            if not ahead:
                raise ConfigError(f"case {case} ends at frame {last}, from which it is to go on: say --steps")
            scene = scene_of(trajectory, info, slice(last + 1 - given, last + 1)).to(device)
            stepped = choose(scene, points or surrogate.points, surrogate.sampling, case)
            known = truth.to(device) if len(truth) >= ahead else None
            frames = surrogate.dense_rollout(scene, ahead, stepped=stepped, prescribed=known)
            made = torch.stack([each.position.cpu() for each in frames])
            position = torch.cat([trajectory.position[last + 1 - given : last + 1], made])
            writer.write(case, replace(trajectory, position=position, velocity=None))
            compared = min(len(truth), ahead)
            if compared:
                free = ~trajectory.fixed
                start = trajectory.position[last, free]
                errors.append(error_curve(made[:compared, free], truth[:compared, free], start))
            longest = max(longest, ahead)
            progress.advance()
        writer.finish()
    aside.replace(out)
    shortest = min((len(error) for error in errors), default=0)
    mean = torch.stack([error[:shortest] for error in errors]).mean(0).tolist() if errors else []
    told = f"; error relative to displacement after {shortest} steps {mean[-1]:.3g}" if mean else ""
    progress.message(f"wrote {out}: {len(file)} cases, {longest} steps{told}")
    return {"file": str(out), "cases": len(file), "steps": longest, "compared_frames": shortest, "error": mean}


def _frame(frames: int, given: int, frame: int | None) -> int:
    """The last frame that is read."""
    last = given - 1 if frame is None else frame + frames if frame < 0 else frame
    if not given - 1 <= last < frames:
        raise ConfigError(
            f"--frame {frame} is not possible: the file has frames 0 to {frames - 1}, and the surrogate reads {given}, "
            f"so that it starts from frame {given - 1} at the earliest"
        )
    return last

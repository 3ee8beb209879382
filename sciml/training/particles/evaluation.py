"""How good a particle surrogate is on scenes that it never saw, beside extrapolating and beside true sparse points.

Protocol: the first ``given_frames`` frames are given, the rest is rolled out. Errors are relative to displacement: the
root mean square distance to the truth over all free particles (and frames), divided by the root mean square
displacement of the truth from the last given frame, over the same particles and all frames. Extrapolations (constant
velocity, constant acceleration) go through walls; ``_contained`` stops them there.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.datasets.particles import ParticleInfo, ParticleTrajectory
from sciml.errors import DataError, SolverError
from sciml.points import chamfer, sinkhorn
from sciml.problems.particles.balance import kinetic_energy, momentum, occupied_volume, potential_energy
from sciml.progress import Progress
from sciml.surrogate import OutOfRangeWarning
from sciml.surrogate.particles import ParticleSurrogate, Scene, join, scene_of
from sciml.training.particles.data import ParticlePart

DISTANCE_FRAMES = 4
"""Frames of a rollout, the last among them, at which distances between point sets are measured."""
DISTANCE_POINTS = 512
"""Points of either set that they are measured on."""
SHOWN = 4
"""Cases kept for pictures."""
VALIDATION_STEPS = 100
"""Frames that validation rolls out."""


@dataclass(frozen=True)
class Rollout:
    """A held-out case from the last given frame on: ``truth``, ``dense``, from true sparse points ``upsampled`` and the
    extrapolations ``(T, N, d)``, ``sparse (T, n, d)`` of the particles ``stepped``; NaN after a rollout has diverged.
    """

    trajectory: ParticleTrajectory
    start: Tensor
    truth: Tensor
    dense: Tensor
    sparse: Tensor
    upsampled: Tensor
    extrapolated: Mapping[str, Tensor]
    stepped: Tensor
    seconds: float
    case: int = 0


def roll_out(surrogate: ParticleSurrogate, trajectory: ParticleTrajectory, info: ParticleInfo, case: int) -> Rollout:
    """One case, on the surrogate's device; its tensors are on the CPU.

    Raises ``DataError`` for a trajectory too short to start from.
    """
    given = given_frames(surrogate)
    if trajectory.n_frames <= given:
        raise DataError(f"case {case} has {trajectory.n_frames} frames; {given} are given and at least 1 is predicted")
    device = next(surrogate.parameters()).device
    scene = scene_of(trajectory, info, slice(given - surrogate.history - 1, given)).to(device)
    truth = trajectory.position[given:]
    stepped = surrogate.choose(scene, seed=case)
    told = truth.to(device)
    dense, sparse = torch.full_like(truth, torch.nan), torch.full_like(truth[:, stepped.cpu()], torch.nan)
    started = time.perf_counter()
    # A rollout that diverges leaves NaN, and the scores say so; that a material is a little outside the training range
    # is what held-out cases are for.
    with suppress(SolverError), warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfRangeWarning)
        for number, frame in enumerate(surrogate.dense_rollout(scene, len(truth), stepped=stepped, prescribed=told)):
            dense[number], sparse[number] = frame.position.cpu(), frame.sparse.cpu()
    seconds = time.perf_counter() - started
    upsampled = torch.stack(
        [frame.cpu() for frame in surrogate.upsampled(scene, told[:, stepped], stepped, prescribed=told)]
    )
    return Rollout(
        trajectory,
        scene.position.cpu(),
        truth,
        dense,
        sparse,
        upsampled,
        extrapolations(scene_of(trajectory, info, slice(given - 3, given)), truth),
        stepped.cpu(),
        seconds,
        case,
    )


def given_frames(surrogate: ParticleSurrogate) -> int:
    """Frames before a rollout: those that the surrogate reads, and at least the three that have an acceleration."""
    return max(surrogate.history + 1, 3)


def extrapolations(scene: Scene, truth: Tensor) -> dict[str, Tensor]:
    """``constant_velocity`` and ``constant_acceleration`` from the last three frames, the same stopped by the box."""
    steps = torch.arange(1, len(truth) + 1).to(truth)[:, None, None]
    velocity = scene.displacements[-1]
    acceleration = velocity - scene.displacements[-2]
    found = {
        "constant_velocity": scene.position + steps * velocity,
        # semi-implicit: v grows by a before every step
        "constant_acceleration": scene.position + steps * velocity + 0.5 * steps * (steps + 1) * acceleration,
    }
    if scene.bounds is not None:
        low, high = scene.bounds[scene.batch].unbind(-1)
        found |= {f"{name}_contained": path.clamp(low, high) for name, path in found.items()}
    return {name: torch.where(scene.fixed[:, None], truth, path) for name, path in found.items()}


def error_curve(prediction: Tensor, truth: Tensor, start: Tensor) -> Tensor:
    """Root mean square error of each frame over the root mean square displacement of all frames, ``(T,)``."""
    scale = (truth - start).double().square().sum(-1).mean().sqrt()
    return (prediction - truth).double().square().sum(-1).mean(1).sqrt() / scale.clamp(min=1e-30)


def overall(curve: Tensor) -> float:
    """The error over all frames together."""
    return float(curve.square().mean().sqrt())


def scores(rollout: Rollout, info: ParticleInfo, spacing: float) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Numbers of one case, and its error curves. ``spacing``: of the cells that the volume is counted in, in metres."""
    free = ~rollout.trajectory.fixed
    truth, start = rollout.truth[:, free], rollout.start[free]
    paths = {"dense": rollout.dense, "upsampled_truth": rollout.upsampled, **rollout.extrapolated}
    curves = {name: error_curve(path[:, free], truth, start) for name, path in paths.items()}
    own = ~rollout.trajectory.fixed[rollout.stepped]
    chosen = rollout.stepped[own]
    curves["sparse"] = error_curve(rollout.sparse[:, own], rollout.truth[:, chosen], rollout.start[chosen])
    numbers = {name: overall(curve) for name, curve in curves.items()}
    numbers |= {f"{name}_last": float(curves[name][-1]) for name in ("dense", "sparse")}
    numbers |= balances(rollout.dense[:, free], truth, rollout.trajectory.mass[free], info, spacing)
    return {**numbers, **distances(rollout.dense[:, free], truth, start)}, curves


def balances(dense: Tensor, truth: Tensor, mass: Tensor, info: ParticleInfo, spacing: float) -> dict[str, float]:
    """How far momentum, energy and volume drift from the truth's.

    Momentum and energy (kinetic and potential): root mean square difference over the frames, in units of the greatest
    momentum ``sum m |v|`` and of the greatest mechanical energy above the lowest of the truth. Volume: mean of
    (predicted - true) / true occupied cells.
    """
    if not bool(torch.isfinite(dense).all()):
        return dict.fromkeys(("momentum_drift", "energy_drift", "volume_drift"), float("nan"))
    if len(truth) < 2:
        return {}
    speed = truth.diff(dim=0).double().norm(dim=2) / info.interval
    unit = (speed * mass).sum(1).max().clamp(min=1e-30)
    change = (momentum(dense, mass, info.interval) - momentum(truth, mass, info.interval)).norm(dim=1)
    energies = [
        kinetic_energy(path, mass, info.interval) + potential_energy(path, mass, info.gravity)[1:]
        for path in (dense, truth)
    ]
    range_ = (energies[1].max() - potential_energy(truth, mass, info.gravity).min()).clamp(min=1e-30)
    few = torch.linspace(0, len(truth) - 1, min(len(truth), 30)).long()
    volumes = [occupied_volume(path[few], spacing) for path in (dense, truth)]
    return {
        "momentum_drift": float(change.square().mean().sqrt() / unit),
        "energy_drift": float((energies[0] - energies[1]).square().mean().sqrt() / range_),
        "volume_drift": float((volumes[0] / volumes[1] - 1).mean()),
    }


def distances(dense: Tensor, truth: Tensor, start: Tensor) -> dict[str, float]:
    """Chamfer distance and the root of the Sinkhorn divergence (which is a squared length, as W2^2) of the clouds at
    some frames, in the mean, over the root mean square displacement.
    """
    if not bool(torch.isfinite(dense).all()):
        return {"chamfer": float("nan"), "sinkhorn": float("nan")}
    scale = float((truth - start).double().square().sum(-1).mean().sqrt())
    frames = torch.linspace(0, len(truth) - 1, DISTANCE_FRAMES + 1)[1:].long().unique()
    generator = torch.Generator().manual_seed(0)
    few = [torch.randperm(truth.shape[1], generator=generator)[:DISTANCE_POINTS] for _ in range(2)]
    clouds = [(dense[frame], truth[frame]) for frame in frames.tolist()]
    near = [chamfer(a, b) for a, b in clouds]
    moved = [sinkhorn(a[few[0]], b[few[0]]) for a, b in clouds]
    return {
        "chamfer": float(torch.stack(near).mean()) / scale,
        "sinkhorn": float(torch.stack(moved).clamp(min=0).sqrt().mean()) / scale,
    }


def evaluate(
    surrogate: ParticleSurrogate, part: ParticlePart, progress: Progress | None = None
) -> tuple[dict[str, Any], list[Rollout], dict[str, Tensor]]:
    """The ``test`` entry of ``summary.json``, a few rollouts to draw, and the mean error curves."""
    progress = progress or Progress()
    rows: list[dict[str, float]] = []
    curves: dict[str, list[Tensor]] = {}
    shown: list[Rollout] = []
    seconds, steps = 0.0, 0
    for number, (file, case) in enumerate(part.cases):
        rollout = roll_out(surrogate, file.trajectory(case), file.info, number)
        found, paths = scores(rollout, file.info, _spacing(rollout))
        rows.append(found)
        for name, curve in paths.items():
            curves.setdefault(name, []).append(curve)
        seconds, steps = seconds + rollout.seconds, steps + len(rollout.truth)
        if len(shown) < SHOWN and part.subsets[number] not in [each.trajectory.subset for each in shown]:
            shown.append(rollout)
        progress.advance(1 / len(part), part.subsets[number])
    one_step = acceleration_error(surrogate, part)
    summary: dict[str, Any] = {
        "kind": surrogate.kind,
        "cases": len(rows),
        "nmse": one_step,
        **_means(rows),
        "diverged": sum(not np.isfinite(row["dense"]) for row in rows),
        "seconds_per_step": seconds / steps,
        "per_subset": {
            subset: {"cases": len(own), **_means(own)}
            for subset in dict.fromkeys(part.subsets)
            if (own := [row for row, label in zip(rows, part.subsets, strict=True) if label == subset])
        },
    }
    return summary, shown, {name: _mean_curve(each) for name, each in curves.items()}


@torch.no_grad()
def acceleration_error(surrogate: ParticleSurrogate, part: ParticlePart, windows: int = 64) -> float:
    """Mean square error of one step's acceleration from true frames, over that of the mean acceleration.

    Over so many windows, evenly spread over the cases and their frames, of the points that are stepped by default.
    """
    device = next(surrogate.parameters()).device
    given, error, plain = surrogate.history + 1, 0.0, 0.0
    each = max(1, windows // len(part))
    for number, (file, case) in enumerate(part.cases):
        trajectory = file.trajectory(case)
        first = scene_of(trajectory, file.info, slice(0, given))
        stepped = surrogate.choose(first, seed=number)
        starts = torch.linspace(0, trajectory.n_frames - given - 1, each).long().unique().tolist()
        scenes = join([scene_of(trajectory, file.info, slice(s, s + given), stepped) for s in starts]).to(device)
        target = torch.cat([trajectory.position[s + given][stepped] for s in starts]).to(device)
        free, gravity = ~scenes.fixed, scenes.gravity[scenes.batch]
        true = surrogate.normaliser.normalised(target - scenes.position - scenes.displacements[-1], gravity)
        error += float((surrogate(scenes) - true)[free].double().square().sum())
        plain += float(true[free].double().square().sum())
    return error / max(plain, 1e-30)


def validation(part: ParticlePart, steps: int = VALIDATION_STEPS) -> Callable[[ParticleSurrogate], dict[str, float]]:
    """The errors of a surrogate on the validation cases: of one step, and of a rollout of the stepped points."""
    cases = [(file.trajectory(case), file.info) for file, case in part.cases]

    @torch.no_grad()
    def judge(model: ParticleSurrogate) -> dict[str, float]:
        device = next(model.parameters()).device
        given = model.history + 1
        length = min(steps, min(trajectory.n_frames for trajectory, _ in cases) - given)
        scenes, paths = [], []
        for number, (trajectory, info) in enumerate(cases):
            stepped = model.choose(scene_of(trajectory, info, slice(0, given)), seed=number)
            scenes.append(scene_of(trajectory, info, slice(0, given), stepped))
            paths.append(trajectory.position[given : given + length, stepped])
        scene, truth = join(scenes).to(device), torch.cat(paths, 1).to(device)
        made = torch.full_like(truth, torch.nan)
        with suppress(SolverError), warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfRangeWarning)
            for number, position in enumerate(model.rollout(scene, length, prescribed=truth)):
                made[number] = position
        free = ~scene.fixed
        error = overall(error_curve(made[:, free], truth[:, free], scene.position[free]))
        return {"nmse": acceleration_error(model, part), "rollout": error}

    return judge


def save_predictions(
    file: Path, shown: Sequence[Rollout], curves: Mapping[str, Tensor], info: ParticleInfo, given: int
) -> None:
    """What ``sciml.plotting`` draws; the given frames come first in every path."""
    content: dict[str, Any] = {
        "bounds": np.array(info.bounds),
        "interval": np.array(info.interval),
        "kinds": np.array(info.kinds),
        "cases": np.array([rollout.case for rollout in shown]),
        "subsets": np.array([rollout.trajectory.subset for rollout in shown]),
        "gravity": np.array(info.gravity),
        **{f"curve_{name}": torch.cat([curve.new_zeros(given), curve]).numpy() for name, curve in curves.items()},
    }
    for number, rollout in enumerate(shown):
        first = rollout.trajectory.position[:given]
        content |= {
            f"truth_{number}": torch.cat([first, rollout.truth]).numpy(),
            f"dense_{number}": torch.cat([first, rollout.dense]).numpy(),
            f"sparse_{number}": torch.cat([first[:, rollout.stepped], rollout.sparse]).numpy(),
            f"sparse_index_{number}": rollout.stepped.numpy(),
            f"kind_{number}": rollout.trajectory.kind.numpy(),
            f"fixed_{number}": rollout.trajectory.fixed.numpy(),
        }
    np.savez_compressed(file, **content)


def _spacing(rollout: Rollout) -> float:
    """Twice the distance between particles: the volume's cells then hold several."""
    volume = float(rollout.trajectory.volume.double().mean())
    return 2 * volume ** (1 / rollout.truth.shape[2])


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in rows[0]}


def _mean_curve(curves: Sequence[Tensor]) -> Tensor:
    shortest = min(len(curve) for curve in curves)
    return torch.stack([curve[:shortest] for curve in curves]).mean(0)

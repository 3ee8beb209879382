"""Mean and standard deviation of velocity, acceleration and particle parameters, pooled over particles and frames.

In frame differences, the time unit being one frame: v_t = x_t - x_(t-1), a_t = x_(t+1) - 2 x_t + x_(t-1). Particles
that are fixed (kinematic) do not count. Moments of each case are stored with it, so that those of any choice of cases
are pooled (exactly, after Chan, Golub and LeVeque 1983) without reading positions again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.datasets.particles.records import ParticleTrajectory
from sciml.datasets.statistics import Moments
from sciml.errors import DataError

if TYPE_CHECKING:
    from sciml.datasets.particles.reader import ParticleFile

BLOCK_VALUES = 1 << 22
"""Numbers that are differenced at a time."""


@dataclass(frozen=True)
class ParticleStatistics:
    """Velocity and acceleration per axis in frame differences (dt = 1 frame), parameters per column; float64.

    Standard deviations are of the population; where nothing varies they are 1, so that dividing by them is harmless.
    """

    velocity_mean: list[float]
    velocity_std: list[float]
    acceleration_mean: list[float]
    acceleration_std: list[float]
    parameter_mean: list[float]
    parameter_std: list[float]

    def to_dict(self) -> dict[str, list[float]]:
        """JSON types; ``ParticleStatistics(**values)`` is the inverse."""
        return asdict(self)


def particle_statistics(cases: Sequence[tuple["ParticleFile", int]]) -> ParticleStatistics:
    """Statistics over ``cases``, pairs of a file and a case of it.

    Raises `DataError` for no cases, for cases of other dimension or with other parameters, and when no particle is
    free or no case has 3 frames.
    """
    if not cases:
        raise DataError("statistics need at least one case, got none")
    return pooled_statistics(pooled_moments(cases), f"{len(cases)} cases of {cases[0][0].path}")


def pooled_moments(cases: Sequence[tuple["ParticleFile", int]]) -> list[Moments]:
    """Of velocity, acceleration and parameters over all cases. Raises `DataError` for cases that do not agree."""
    first = cases[0][0]
    pooled = [Moments.empty(n) for n in (first.info.dim, first.info.dim, len(first.info.parameters))]
    for file, case in cases:
        if file.info.dim != first.info.dim or file.info.parameter_names != first.info.parameter_names:
            raise DataError(
                f"{file.path} ({file.info.dim}-D, parameters {list(file.info.parameters)}) and {first.path} "
                f"({first.info.dim}-D, {list(first.info.parameters)}) cannot have common statistics"
            )
        for total, part in zip(pooled, file.moments(case), strict=True):
            total.merge(part)
    return pooled


def pooled_statistics(moments: Sequence[Moments], what: str) -> ParticleStatistics:
    """From the moments of velocity, acceleration and parameters; ``what`` they are of, for the error message."""
    velocity, acceleration, parameters = moments
    if not acceleration.n:
        raise DataError(f"{what}: no free particle has 3 frames, so there is no acceleration to learn")
    values: dict[str, Any] = {}
    for name, each in (("velocity", velocity), ("acceleration", acceleration), ("parameter", parameters)):
        values[f"{name}_mean"], values[f"{name}_std"] = each.mean.tolist(), each.std()[0].tolist()
    return ParticleStatistics(**values)


def trajectory_moments(trajectory: ParticleTrajectory) -> list[Moments]:
    """Moments of velocity (d), acceleration (d) and parameters (P) over the free particles of one trajectory."""
    free = ~trajectory.fixed.numpy()
    position = trajectory.position.numpy()
    frames, dim = trajectory.n_frames, trajectory.dim
    velocity, acceleration = Moments.empty(dim), Moments.empty(dim)
    parameters = Moments.empty(trajectory.parameters.shape[1])
    if not free.any():
        return [velocity, acceleration, parameters]
    step = max(1, BLOCK_VALUES // (int(free.sum()) * dim))
    for start in range(0, frames - 1, step):  # velocities start to start + step - 1, and the accelerations after them
        block = position[start : start + step + 2, free].astype(np.float64)
        difference = np.diff(block, axis=0)
        velocity.add(_columns(difference[:step]))
        if len(difference) > 1:
            acceleration.add(_columns(np.diff(difference, axis=0)))
    parameters.add(trajectory.parameters.numpy()[free].astype(np.float64).T)
    return [velocity, acceleration, parameters]


def _columns(values: np.ndarray) -> np.ndarray:
    """(t, n, d) -> (d, t n)."""
    return values.reshape(-1, values.shape[2]).T

"""One trajectory of particles in memory, and whether it is what a file's description says."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.datasets.particles.info import ParticleInfo
from sciml.errors import DataError, did_you_mean

OUTSIDE = 1e-4
"""How far, in lengths of the box, a particle may lie outside of it: float32 rounding and a solver's slack."""


@dataclass(frozen=True, eq=False, repr=False)
class ParticleTrajectory:
    """N particles over T frames that are equally far apart in time. All tensors lie on the CPU.

    - ``position (T, N, d)`` float32, metres, every particle in the same row of every frame
    - ``kind (N,)`` int64: index into ``ParticleInfo.kinds`` (default: all 0)
    - ``fixed (N,)`` bool: kinematic particles, which move as prescribed, walls above all (default: none)
    - ``parameters (N, P)`` float32: material of each particle, the columns of ``ParticleInfo.parameters``
    - ``mass (N,)`` in kg, ``volume (N,)`` in m^d, float32 (where a foreign format has none: 1 each)
    - ``velocity (T, N, d)`` float32, m/s, or None
    - ``subset``: label;  ``case_parameters``: name -> number of the whole case

    Tensors, arrays and lists are taken. Raises `DataError` for wrong shapes, an empty scene, NaN and infinity
    (naming array, frame and particle).
    """

    position: Tensor
    kind: Tensor | None = None
    fixed: Tensor | None = None
    parameters: Tensor | None = None
    mass: Tensor | None = None
    volume: Tensor | None = None
    velocity: Tensor | None = None
    subset: str = ""
    case_parameters: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        position = _tensor("position", self.position, torch.float32)
        if position.ndim != 3 or 0 in position.shape:
            hint = "; an empty scene has nothing to learn from: leave it out" if 0 in position.shape else ""
            raise DataError(f"position must have the shape (frames, particles, dim), got {tuple(position.shape)}{hint}")
        n = position.shape[1]
        given = {
            "position": position,
            "kind": torch.zeros(n, dtype=torch.int64) if self.kind is None else _whole("kind", self.kind),
            "fixed": torch.zeros(n, dtype=torch.bool) if self.fixed is None else _flags("fixed", self.fixed),
        }
        defaults = {"parameters": torch.zeros(n, 0), "mass": torch.ones(n), "volume": torch.ones(n)}
        for name, default in defaults.items():
            value = getattr(self, name)
            given[name] = default if value is None else _tensor(name, value, torch.float32)
        if self.velocity is not None:
            given["velocity"] = _tensor("velocity", self.velocity, torch.float32)
        for name, value in given.items():
            object.__setattr__(self, name, value)
        _check_shapes(self)
        for name, value in given.items():
            if value.is_floating_point():
                _refuse_non_finite(name, value)
        for name in ("mass", "volume"):
            if (given[name] < 0).any():
                raise DataError(f"{name} must not be negative; particle {int((given[name] < 0).nonzero()[0])} has")
        object.__setattr__(self, "case_parameters", {k: float(v) for k, v in self.case_parameters.items()})

    @property
    def n_frames(self) -> int:
        return self.position.shape[0]

    @property
    def n_particles(self) -> int:
        return self.position.shape[1]

    @property
    def dim(self) -> int:
        return self.position.shape[2]

    def __repr__(self) -> str:
        what = f"{self.n_frames} frames, {self.n_particles} particles, {self.dim}-D, subset {self.subset!r}"
        return f"ParticleTrajectory({what})"

    def subsampled(self, particles: Tensor) -> "ParticleTrajectory":
        """The same with the ``particles`` (indices, in that order) only."""
        rows = {name: getattr(self, name)[particles] for name in ("kind", "fixed", "parameters", "mass", "volume")}
        velocity = None if self.velocity is None else self.velocity[:, particles]
        return replace(self, position=self.position[:, particles], velocity=velocity, **rows)


def check_trajectory(trajectory: ParticleTrajectory, info: ParticleInfo) -> None:
    """Whether a trajectory is one of those that ``info`` describes.

    Raises `DataError`: wrong dimension, unknown kind, other parameters than declared, particles outside the bounds by
    more than `OUTSIDE` (how many, the first).
    """
    if trajectory.dim != info.dim:
        raise DataError(f"positions have {trajectory.dim} components, the {info.problem!r} file is {info.dim}-D")
    low, high = int(trajectory.kind.min()), int(trajectory.kind.max())
    if low < 0 or high >= len(info.kinds):
        raise DataError(f"kind must be an index into the kinds {list(info.kinds)}, got {low} to {high}")
    if trajectory.parameters.shape[1] != len(info.parameters):
        raise DataError(
            f"particles need the parameters {list(info.parameters)}, one a column, got "
            f"{trajectory.parameters.shape[1]} columns"
        )
    for name in {*trajectory.case_parameters} ^ {*info.case_parameters}:
        problem = "is missing" if name in info.case_parameters else "is not in the file's description"
        raise DataError(f"case parameter {name!r} {problem}" + did_you_mean(name, info.case_parameters))
    bad = {k: v for k, v in trajectory.case_parameters.items() if not np.isfinite(v)}
    if bad:
        raise DataError(f"case parameters must be finite, got {bad}")
    check_inside(trajectory.position, info)


def check_inside(position: Tensor, info: ParticleInfo) -> None:
    """Raises `DataError` where particles of ``position (T, N, d)`` lie outside the bounds by more than `OUTSIDE`."""
    bounds = torch.tensor(info.bounds, dtype=torch.float64)
    slack = OUTSIDE * (bounds[:, 1] - bounds[:, 0])
    low, high = (bounds[:, 0] - slack).to(position.dtype), (bounds[:, 1] + slack).to(position.dtype)
    lowest, highest = position.amin(dim=(0, 1)), position.amax(dim=(0, 1))
    if (lowest >= low).all() and (highest <= high).all():
        return
    out = ((position < low) | (position > high)).any(dim=2)
    frame, particle = out.nonzero()[0].tolist()
    first = ", ".join(f"{x:.6g}" for x in position[frame, particle].tolist())
    raise DataError(
        f"{int(out.any(dim=0).sum())} of {position.shape[1]} particles leave the bounds {info.bounds}, the first in "
        f"frame {frame}: particle {particle} at ({first}); all particles together reach from {_numbers(lowest)} to "
        f"{_numbers(highest)}: give wider bounds, or solve the case again with a smaller time step"
    )


def _numbers(values: Tensor) -> str:
    return "(" + ", ".join(f"{x:.6g}" for x in values.tolist()) + ")"


def _tensor(name: str, value: Any, dtype: torch.dtype) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must be numbers, got {type(value).__name__} ({error})") from error
    return tensor.detach().to(device="cpu", dtype=dtype).contiguous()


def _whole(name: str, value: Any) -> Tensor:
    exact = _tensor(name, value, torch.float64)
    if not torch.equal(exact, exact.round()):
        raise DataError(f"{name} must be whole numbers, got {exact[exact != exact.round()][0].item()}")
    return exact.long()


def _flags(name: str, value: Any) -> Tensor:
    numbers = _tensor(name, value, torch.float64)
    if not ((numbers == 0) | (numbers == 1)).all():
        raise DataError(f"{name} must be true or false for every particle, got other numbers")
    return numbers.bool()


def _check_shapes(trajectory: ParticleTrajectory) -> None:
    n = trajectory.n_particles
    for name in ("kind", "fixed", "mass", "volume"):
        shape = tuple(getattr(trajectory, name).shape)
        if shape != (n,):
            raise DataError(f"{name} must have one value for each of {n} particles, got the shape {shape}")
    parameters = trajectory.parameters
    if parameters.ndim != 2 or parameters.shape[0] != n:
        raise DataError(f"parameters must have the shape ({n}, number of parameters), got {tuple(parameters.shape)}")
    velocity = trajectory.velocity
    if velocity is not None and velocity.shape != trajectory.position.shape:
        raise DataError(
            f"velocity must have the shape of position {tuple(trajectory.position.shape)}, got {tuple(velocity.shape)}"
        )


def _refuse_non_finite(name: str, values: Tensor) -> None:
    finite = torch.isfinite(values)
    if finite.all():
        return
    where = (~finite).nonzero()[0].tolist()
    place = f"frame {where[0]}, particle {where[1]}" if values.ndim == 3 else f"particle {where[0]}"
    raise DataError(
        f"NaN or infinity in {name!r}: {place}; solve the case again (smaller time step) or leave "
        "the particle or the case out"
    )

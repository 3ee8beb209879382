"""Small made-up particle files: every number is a pure function of the case."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.datasets.particles import ParticleInfo, ParticleTrajectory, ParticleWriter


def make_info(dim: int = 2, **changes: Any) -> ParticleInfo:
    values = dict(
        problem="water",
        dim=dim,
        interval=0.01,
        bounds=((0.0, 1.0), (0.0, 2.0), (-1.0, 1.0))[:dim],
        gravity=(0.0, -9.8, 0.0)[:dim],
        kinds=("water", "wall"),
        parameters={"viscosity": "Pa s", "density": "kg/m^3"},
        case_parameters={"speed": "m/s"},
        solver="made up",
        seed=3,
        extra={"note": "test"},
    )
    return ParticleInfo(**(values | changes))


def make_trajectory(case: int, dim: int = 2, frames: int | None = None, count: int | None = None) -> ParticleTrajectory:
    """Particles on curved paths in the box; the first three are walls. Frames and particles differ by case."""
    rng = np.random.default_rng(case)
    t, n = frames or 17 + case, count or 20 + 3 * case
    start, speed = rng.uniform(0.3, 0.6, (n, dim)), rng.uniform(-5e-3, 5e-3, (n, dim))
    steps = np.arange(t)[:, None, None]
    position = start + speed * steps + 1e-4 * rng.uniform(-1, 1, (n, dim)) * steps**2
    fixed = np.arange(n) < 3
    position[:, fixed] = position[:1, fixed]
    velocity = np.gradient(position, axis=0) / 0.01
    return ParticleTrajectory(
        position=torch.from_numpy(position),
        kind=fixed.astype(np.int64),
        fixed=fixed,
        parameters=rng.uniform(1, 2, (n, 2)),
        mass=rng.uniform(1, 2, n),
        volume=rng.uniform(1e-3, 2e-3, n),
        velocity=velocity,
        subset=("drop", "dam")[case % 2],
        case_parameters={"speed": 0.5 * case},
    )


def write_file(path: Path, cases: int = 3, dim: int = 2, **changes: Any) -> Path:
    """A complete file."""
    with ParticleWriter(path, make_info(dim, **changes), cases) as writer:
        for case in writer.missing():
            writer.write(case, make_trajectory(case, dim))
        return writer.finish()


def assert_equal(a: ParticleTrajectory, b: ParticleTrajectory) -> None:
    """Bit for bit."""
    for name in ("position", "kind", "fixed", "parameters", "mass", "volume"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert getattr(a, name).dtype == getattr(b, name).dtype, name
    assert (a.velocity is None) == (b.velocity is None)
    assert a.velocity is None or torch.equal(a.velocity, b.velocity)
    assert (a.subset, dict(a.case_parameters)) == (b.subset, dict(b.case_parameters))

"""Small made-up data sets: every number is a pure function of seed, case and field."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sciml.datasets import DatasetInfo, DatasetWriter, FaceFieldInfo, FieldInfo

WALLS = {"x_low": "wall", "x_high": "wall", "y_low": "wall", "y_high": "moving_wall"}


def make_info(grid: tuple[int, ...] = (7, 5), n_frames: int = 6, **changes: Any) -> DatasetInfo:
    """A lid-driven cavity with velocity, pressure and face velocities."""
    values = dict(
        problem="cavity",
        fields=(FieldInfo("velocity", 2, "m/s", 1), FieldInfo("pressure", 1, "Pa", 0)),
        parameters={"lid_velocity": "m/s", "viscosity": "Pa s"},
        grid=grid,
        n_frames=n_frames,
        boundaries=WALLS,
        face_fields=(
            FaceFieldInfo("face_velocity_x", "m/s", "x"),
            FaceFieldInfo("face_velocity_y", "m/s", "y"),
        ),
        boundary_parameters={"y_high": "lid_velocity"},
        solver="made up",
        seed=3,
        extra={"note": "test"},
    )
    return DatasetInfo(**(values | changes))


def make_trajectory(info: DatasetInfo, cases: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Normal numbers, float32."""

    def draw(case: int, what: int, shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([seed, case, what]).standard_normal(shape, dtype=np.float32)

    result = {}
    for k, f in enumerate(info.fields):
        result[f.name] = np.stack([draw(c, k, (info.n_frames, f.components, *info.grid)) for c in cases])
    for k, f in enumerate(info.face_fields):
        result[f.name] = np.stack([draw(c, 10 + k, (info.n_frames, *info.face_shape(f.name))) for c in cases])
    result["time"] = np.stack([np.arange(info.n_frames) * 0.1 * (1 + c % 2) for c in cases])
    return result


def make_coordinates(info: DatasetInfo, cases: Sequence[int]) -> dict[str, np.ndarray]:
    """Cell centres of boxes whose size differs by case."""
    return {
        a: np.stack([(np.arange(n) + 0.5) * (1 + c) / n for c in cases])
        for a, n in zip(info.axes, info.grid, strict=True)
    }


def make_parameters(info: DatasetInfo, n_cases: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A lid velocity that varies in time and a viscosity that does not."""
    rng = np.random.default_rng([seed, 99])
    return {
        "lid_velocity": rng.uniform(1, 2, (n_cases, info.n_frames)),
        "viscosity": rng.uniform(1, 2, n_cases),
    }


def write_file(path: Path, n_cases: int = 3, seed: int = 0, info: DatasetInfo | None = None, **options: Any) -> Path:
    """A complete file."""
    info = make_info() if info is None else info
    cases = range(n_cases)
    subsets = [("bc", "geo")[c % 2] for c in cases]
    with DatasetWriter(path, info, n_cases, make_parameters(info, n_cases, seed), subsets, **options) as writer:
        writer.write(cases, make_trajectory(info, cases, seed), make_coordinates(info, cases))
        return writer.finish()

"""Series of point clouds: VTU files and a PVD that says when, for ParaView; PVD, VTU, VTK and PLY back."""

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.datasets.layout import as_numpy
from sciml.datasets.particles.records import ParticleTrajectory
from sciml.datasets.particles.source import ParticleSource, Told, describe
from sciml.errors import DataError

SUFFIXES = (".vtu", ".vtk", ".ply")


def write_vtk_series(
    directory: str | os.PathLike[str],
    name: str,
    positions: Any,
    times: Any,
    point_data: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``NAME_000000.vtu``, ... (binary, by meshio) and ``NAME.pvd``, whose path is returned, into ``directory``.

    ``positions (T, N, d)``, ``times (T,)`` in seconds; ``point_data``: name -> ``(N,)`` or ``(N, c)``, the same in
    every frame, or ``(T, N)`` or ``(T, N, c)``. Points and vectors of fewer than 3 components are filled up with 0.
    Raises `DataError` for shapes that do not fit.
    """
    import meshio

    positions, times = as_numpy(positions), as_numpy(times).astype(np.float64)
    if positions.ndim != 3 or not 1 <= positions.shape[2] <= 3 or times.shape != positions.shape[:1]:
        raise DataError(
            f"positions must be (frames, particles, 1 to 3) and times (frames,), got {positions.shape}, {times.shape}"
        )
    frames, n, dim = positions.shape
    columns = {key: _each_frame(key, as_numpy(value), frames, n, dim) for key, value in (point_data or {}).items()}
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    cells = [("vertex", np.arange(n)[:, None])]
    files = [f"{name}_{frame:06d}.vtu" for frame in range(frames)]
    for frame, file in enumerate(files):
        data = {key: values[frame] for key, values in columns.items()}
        meshio.Mesh(_filled(positions[frame]), cells, point_data=data).write(directory / file)
    root = ElementTree.Element("VTKFile", type="Collection", version="0.1", byte_order="LittleEndian")
    collection = ElementTree.SubElement(root, "Collection")
    for time, file in zip(times.tolist(), files, strict=True):
        ElementTree.SubElement(collection, "DataSet", timestep=repr(time), part="0", file=file)
    ElementTree.indent(root)
    path = directory / f"{name}.pvd"
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    return path


def _each_frame(name: str, values: np.ndarray, frames: int, n: int, dim: int) -> np.ndarray:
    """(T, N) or (T, N, c) view; flags as numbers, vectors with 3 components."""
    if values.dtype == bool:
        values = values.astype(np.uint8)
    if values.ndim in (2, 3) and values.shape[:2] == (frames, n):
        pass
    elif values.ndim in (1, 2) and values.shape[0] == n:
        values = np.broadcast_to(values, (frames, *values.shape))
    else:
        raise DataError(f"point data {name!r} must be ({n},), ({n}, c) or ({frames}, {n}, ...), got {values.shape}")
    return _filled(values) if values.ndim == 3 and values.shape[2] == dim > 1 else values


def _filled(values: np.ndarray) -> np.ndarray:
    missing = 3 - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)]) if missing else np.ascontiguousarray(values)


def write_vtk_case(
    directory: str | os.PathLike[str], name: str, trajectory: ParticleTrajectory, interval: float
) -> Path:
    """A trajectory with all that it says of its particles; the path of the PVD."""
    data: dict[str, Any] = {key: getattr(trajectory, key) for key in ("kind", "fixed", "mass", "volume")}
    if trajectory.velocity is not None:
        data["velocity"] = trajectory.velocity
    times = torch.arange(trajectory.n_frames, dtype=torch.float64) * interval
    return write_vtk_series(directory, name, trajectory.position, times, data)


# ------------------------------------------------------------------------------------------------------------ reading


def series_files(path: Path) -> tuple[list[Path], list[float] | None]:
    """The files of a series in time, and their times where a PVD says them; none where ``path`` is no series.

    ``path``: a PVD, or a directory that has one PVD or files of one suffix with numbers in their names.
    """
    if path.is_dir():
        if len(collections := sorted(path.glob("*.pvd"))) == 1:
            return series_files(collections[0])
        for suffix in SUFFIXES:
            if files := [file for file in path.glob(f"*{suffix}") if re.search(r"\d", file.stem)]:
                return sorted(files, key=lambda file: int(re.findall(r"\d+", file.stem)[-1])), None
        return [], None
    if path.suffix.lower() != ".pvd":
        return [], None
    try:
        entries = [each.attrib for each in ElementTree.parse(path).getroot().iter("DataSet")]
        found = sorted((float(each["timestep"]), path.parent / each["file"]) for each in entries)
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(f"{path} is missing or no PVD collection: {error}") from error
    if not found:
        raise DataError(f"{path} names no files")
    return [file for _, file in found], [time for time, _ in found]


def vtk_source(path: Path, told: Told) -> ParticleSource:
    """One case: every file a frame, every particle the same point of each.

    Taken from the files: positions, and point data of the names kind, fixed, mass, volume, velocity. Positions whose
    third component is 0 throughout are 2-D. Bounds are those of the particles unless told. Raises `DataError` for
    frames with other numbers of points and times that are not equally far apart.
    """
    files, times = series_files(path)
    if not files:
        raise DataError(f"{path} is no series: expected a .pvd, or numbered files {', '.join(SUFFIXES)}")
    interval = _interval(path, times) if times is not None and told.interval is None else None
    trajectory = _read(files)
    kinds = int(trajectory.kind.max()) + 1
    info = describe(
        told,
        path,
        dim=trajectory.dim,
        kinds=["material"] if kinds == 1 else [f"type {k}" for k in range(kinds)],
        interval=interval,
        positions=lambda: (trajectory.position,),
        format_name="VTK series",
    )
    return ParticleSource(info, 1, lambda case: trajectory)


def _interval(path: Path, times: Sequence[float]) -> float | None:
    steps = np.diff(times)
    if not len(steps):
        return None
    if not np.allclose(steps, steps[0], rtol=1e-3) or steps[0] <= 0:
        raise DataError(f"{path}: frames are not equally far apart in time ({steps.min():.6g} to {steps.max():.6g} s)")
    return float((times[-1] - times[0]) / len(steps))


def _read(files: Sequence[Path]) -> ParticleTrajectory:
    frames = [_read_points(file) for file in files]
    count = len(frames[0].points)
    for file, frame in zip(files, frames, strict=True):
        if len(frame.points) != count:
            raise DataError(
                f"{file} has {len(frame.points)} points, the first frame {count}: a trajectory has the same particles "
                "throughout; leave out those that enter or vanish"
            )
    position = np.stack([frame.points for frame in frames]).astype(np.float32)
    flat = position.shape[2] == 3 and not position[..., 2].any()
    dim = 2 if flat else position.shape[2]
    first = frames[0].point_data
    velocity = None
    if all("velocity" in frame.point_data for frame in frames):
        velocity = np.stack([frame.point_data["velocity"] for frame in frames])[..., :dim]
    return ParticleTrajectory(
        position[..., :dim],
        velocity=velocity,
        **{name: first[name] for name in ("kind", "fixed", "mass", "volume") if name in first},
    )


def _read_points(file: Path) -> Any:
    import meshio

    readers = {".vtu": meshio.vtu.read, ".vtk": meshio.vtk.read, ".ply": meshio.ply.read}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: expected one of {', '.join(SUFFIXES)}")
    try:  # not meshio.read, which ends the process for a damaged file
        return reader(file)
    except Exception as error:
        raise DataError(f"{file} is missing or damaged: {type(error).__name__}: {error}") from error

"""The format of the graph network simulators (geoelements/gns): ``train.npz``, ``valid.npz``, ``test.npz`` and
``metadata.json``.

An archive holds one array of objects for each trajectory, or one, ``gns_data``, for all: positions (T, N, d), particle
type ((N,) or one number) and, if there is one, a material property ((N,), (N, P) or one number). Arrays of objects are
pickles. Archives of plain arrays (T, N, d) are read as well, without pickles. Type 3 is kinematic. ``metadata.json``
has bounds, dim and dt, and the statistics in frame differences (no dt in them).
"""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.datasets.particles.archives import npz_names, read_npz
from sciml.datasets.particles.reader import ParticleFile
from sciml.datasets.particles.records import ParticleTrajectory
from sciml.datasets.particles.source import ParticleSource, Told, describe
from sciml.datasets.particles.statistics import particle_statistics
from sciml.errors import DataError

FIXED = 3
TYPE_NAMES = {0: "rigid", FIXED: "fixed", 5: "water", 6: "sand", 7: "goop"}
"""As the data sets of Sanchez-Gonzalez et al. (ICML 2020) number them."""
SPLITS = ("train", "valid", "test")
WHOLE = "gns_data"


class _Archive:
    """The items of one archive; of those with a name each one is in memory at a time."""

    def __init__(self, path: Path, allow_pickle: bool) -> None:
        self.path, self._allow = path, allow_pickle
        self._names = npz_names(path)
        self._whole = read_npz(path, WHOLE, allow_pickle) if WHOLE in self._names else None
        if not len(self):
            raise DataError(f"{path} holds no trajectory")

    def __len__(self) -> int:
        return len(self._names if self._whole is None else self._whole)

    def item(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Positions (T, N, d), types (N,), properties (N, P) or None. Raises `DataError`."""
        if self._whole is None:
            name = self._names[index]
            parts = read_npz(self.path, name, self._allow)
        else:
            name, parts = f"{WHOLE}[{index}]", self._whole[index]
        if isinstance(parts, np.ndarray) and not parts.dtype.hasobject and parts.ndim == 3:
            parts = (parts, 0)
        expected = "positions (frames, particles, dim), type and, if there is one, a material property"
        if not isinstance(parts, (tuple, list, np.ndarray)) or len(parts) not in (2, 3):
            raise DataError(f"{self.path}: {name} is not a trajectory; expected {expected}")
        try:
            position = np.asarray(parts[0], dtype=np.float32)
            n = position.shape[1]
            types = np.broadcast_to(np.asarray(parts[1]), (n,)).astype(np.int64)
            properties = _columns(parts[2], n) if len(parts) == 3 else None
        except (TypeError, ValueError, IndexError) as error:
            raise DataError(f"{self.path}: {name} does not fit together ({error}); expected {expected}") from error
        if position.ndim != 3:
            raise DataError(f"{self.path}: {name} has positions of shape {position.shape}; expected {expected}")
        return position, types, properties


def _columns(values: Any, n: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float32)
    return np.broadcast_to(
        array if array.ndim == 2 else array[..., None], (n, array.shape[1] if array.ndim == 2 else 1)
    )


def gns_source(path: Path, told: Told) -> ParticleSource:
    """An archive, or a directory with ``train.npz``, ``valid.npz``, ``test.npz`` (which become the subsets).

    Bounds, gravity and interval are those of ``metadata.json`` beside it unless told; a missing interval is refused.
    """
    if path.is_dir():
        files = {split: path / f"{split}.npz" for split in SPLITS if (path / f"{split}.npz").is_file()}
    else:
        files = {path.stem: path}
    metadata = _metadata(next(iter(files.values())).parent, list(files))
    archives = {split: _Archive(file, told.allow_pickle) for split, file in files.items()}
    places = [(split, index) for split, archive in archives.items() for index in range(len(archive))]
    types: set[int] = set()
    columns, dims = set(), set()
    for split, index in places:
        position, type_, properties = archives[split].item(index)
        types.update(np.unique(type_).tolist())
        columns.add(0 if properties is None else properties.shape[1])
        dims.add(position.shape[2])
    if len(columns) != 1 or len(dims) != 1:
        raise DataError(f"{path}: trajectories differ in dimension {sorted(dims)} or properties {sorted(columns)}")
    dim, count = dims.pop(), columns.pop()
    numbers = sorted(types)
    names = ["material_property"] if count == 1 else [f"material_property_{k}" for k in range(count)]

    def positions() -> Iterator[Tensor]:
        return (torch.from_numpy(archives[split].item(index)[0]) for split, index in places)

    def load(case: int) -> ParticleTrajectory:
        split, index = places[case]
        position, type_, properties = archives[split].item(index)
        kind = np.searchsorted(numbers, type_)
        return ParticleTrajectory(position, kind, type_ == FIXED, parameters=properties, subset=split)

    info = describe(
        told,
        path,
        dim=dim,
        kinds=[TYPE_NAMES.get(number, f"type {number}") for number in numbers],
        interval=metadata.get("dt"),
        bounds=metadata.get("bounds"),
        positions=positions,
        parameters=names,
        format_name="GNS",
    )
    return ParticleSource(info, len(places), load)


def _metadata(directory: Path, splits: Sequence[str]) -> dict[str, Any]:
    """``metadata.json`` of these splits, {} where there is none; newer ones have a part "train" and one "rollout"."""
    file = directory / "metadata.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        parts = (
            [content["rollout" if split == "test" else "train"] for split in splits]
            if "train" in content
            else [content]
        )
        chosen = [
            {"bounds": [tuple(map(float, pair)) for pair in part["bounds"]], "dt": float(part["dt"])} for part in parts
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged or has no bounds or dt: {error}") from error
    if any(each != chosen[0] for each in chosen):
        raise DataError(
            f"{file} gives other bounds or dt for rollouts than for training: convert the .npz files one by one"
        )
    return chosen[0]


def write_gns(
    directory: str | Path, splits: Mapping[str, Sequence[tuple[ParticleFile, int]]], *, radius: float
) -> Path:
    """Write ``directory/SPLIT.npz`` of the cases of each split and ``metadata.json``, and return the directory.

    ``radius``: the ``default_connectivity_radius`` of the graph. Particles that are fixed get type 3, the others that
    of their kind's name (`TYPE_NAMES`), or a free number. The statistics are those of the split "train", or else of
    all. The archives hold pickles, as their readers expect.

    Raises `DataError` for no cases, or files that differ.
    """
    directory = Path(directory)
    cases = [case for chosen in splits.values() for case in chosen]
    if not cases:
        raise DataError("no cases to write")
    info = cases[0][0].info
    for file, _ in cases:
        if file.info.kinds != info.kinds or file.info.bounds != info.bounds or file.info.interval != info.interval:
            raise DataError(f"{file.path} and {cases[0][0].path} differ in kinds, bounds or interval")
    numbers = np.array(_type_numbers(info.kinds))
    directory.mkdir(parents=True, exist_ok=True)
    for split, chosen in splits.items():
        with zipfile.ZipFile(directory / f"{split}.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for number, (file, case) in enumerate(chosen):
                trajectory = file.trajectory(case)
                item = np.empty(3 if info.parameters else 2, dtype=object)
                item[0] = trajectory.position.numpy()
                item[1] = np.where(trajectory.fixed.numpy(), FIXED, numbers[trajectory.kind.numpy()])
                if info.parameters:
                    # Its loader takes one property as (N,) only; for several the documentation says (N, P).
                    item[2] = trajectory.parameters.numpy().squeeze(1 if len(info.parameters) == 1 else ())
                with archive.open(f"simulation_{number}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, item, allow_pickle=True)
    statistics = particle_statistics(splits.get("train") or cases)
    content = {
        "bounds": [list(pair) for pair in info.bounds],
        "sequence_length": max(file.frames(case) for file, case in cases),
        "default_connectivity_radius": radius,
        "dim": info.dim,
        "dt": info.interval,
        "vel_mean": statistics.velocity_mean,
        "vel_std": statistics.velocity_std,
        "acc_mean": statistics.acceleration_mean,
        "acc_std": statistics.acceleration_std,
        **({"material_feature_len": len(info.parameters)} if info.parameters else {}),
    }
    (directory / "metadata.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return directory


def _type_numbers(kinds: Sequence[str]) -> list[int]:
    known = {name: number for number, name in TYPE_NAMES.items()}
    numbers: list[int | None] = []
    for kind in kinds:
        match = re.fullmatch(r"type (\d+)", kind)
        numbers.append(int(match[1]) if match else known.get(kind))
    free = (number for number in range(len(kinds) + 10) if number != FIXED and number not in numbers)
    return [next(free) if number is None else number for number in numbers]

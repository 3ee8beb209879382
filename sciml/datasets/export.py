"""Directories that other readers expect."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from sciml.datasets.collection import Collection
from sciml.datasets.merge import merge_files
from sciml.datasets.reader import DatasetFile
from sciml.datasets.statistics import field_statistics
from sciml.errors import DataError, did_you_mean


def export_well(
    files: Mapping[str, Sequence[str | os.PathLike[str]]],
    directory: str | os.PathLike[str],
    *,
    copy: bool = False,
) -> Path:
    """Lay files out as The Well's directory of a data set, for ``WellDataset(path=directory,
    well_split_name=...)``.

    ``files``: split ("train", "valid", "test") -> files, which are hard-linked (copied where that is
    impossible, or with ``copy``); a merged file is merged again (with ``copy`` into a file that needs no other).
    Writes ``stats.yaml`` from the train split: mean, std, rms and the same of one-step increments. Returns the
    directory. Raises `DataError` for unknown splits, no train files, or two files of one name.
    """
    directory = Path(directory)
    for split in files:
        if split not in ("train", "valid", "test"):
            raise DataError(f"unknown split {split!r}" + did_you_mean(split, ("train", "valid", "test")))
    if not files.get("train"):
        raise DataError("The Well's statistics come from the train split: give it at least one file")
    Collection([path for paths in files.values() for path in paths])  # refuses files that are not one data set
    for split, paths in files.items():
        target = directory / "data" / split
        target.mkdir(parents=True, exist_ok=True)
        for path in map(Path, paths):
            new = target / f"{path.stem}.hdf5"
            if new.exists():
                raise DataError(f"{new} exists already; export to an empty directory, from files of distinct names")
            if parts := DatasetFile(path).parts:  # its relative paths lead nowhere from a new place
                merge_files(new, parts, copy=copy)
                continue
            try:
                shutil.copy2(path, new) if copy else os.link(path, new)
            except OSError:  # another file system
                shutil.copy2(path, new)
    (directory / "stats.yaml").write_text(yaml.safe_dump(_well_statistics(files["train"])), encoding="utf-8")
    return directory


def _well_statistics(files: Sequence[str | os.PathLike[str]]) -> dict[str, dict[str, float | list[float]]]:
    """mean, std, rms, *_delta -> field -> number (scalar) or list (vector).

    Constant channels have std 0 here. Fields that do not change in time have no ``*_delta``.
    """
    source = Collection(files)
    info, result = (
        source.info,
        {k: {} for k in ("mean", "std", "rms", "mean_delta", "std_delta", "rms_delta")},
    )
    for f in info.fields:
        s = field_statistics(source, [f.name])
        for end, mean, std, constant in (
            ("", s.mean, s.std, s.constant),
            ("_delta", s.increment_mean, s.increment_std, s.constant_increment),
        ):
            std = [0.0 if name in constant else value for name, value in zip(s.channels, std, strict=True)]
            rms = [float(np.hypot(m, d)) for m, d in zip(mean, std, strict=True)]
            for key, numbers in (("mean", list(mean)), ("std", std), ("rms", rms)):
                result[key + end][f.name] = numbers if f.order else numbers[0]
    for f in info.constant_fields:
        values = np.concatenate([file.constant(f.name).numpy().astype(np.float64) for file in source.files])
        mean, std = float(values.mean()), float(values.std())
        for key, number in (("mean", mean), ("std", std), ("rms", float(np.hypot(mean, std)))):
            result[key][f.name] = number
    return result

"""Files that are shards of one sample, and the order of its cases over them."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sciml.errors import DataError
from sciml.version import __version__


class SampleFile(Protocol):
    """A data file of fields or of particles; ``info`` has ``extra`` (with "shard") and ``to_dict``."""

    path: Path
    info: Any

    @property
    def n_cases(self) -> int:
        """How many cases it holds."""
        ...


def check_distinct(out: Path, files: Sequence[SampleFile], overwrite: bool) -> None:
    """Raises `DataError` where a file is given twice, ``out`` is one of them, or exists (without ``overwrite``)."""
    seen: set[Path] = set()
    for file in files:
        place = file.path.resolve()
        if place in seen:
            raise DataError(f"{file.path} is given twice; give every file once")
        seen.add(place)
    if out.resolve() in seen:
        raise DataError(f"{out} is one of the files to merge; choose another name for the merged file")
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists already; choose another name, remove it, or overwrite it (--overwrite)")


def order_of_cases(files: Sequence[SampleFile]) -> tuple[np.ndarray, bool]:
    """The cases of all files (counted through) in the merged order, and whether they are one whole sample.

    Shard i/n holds the cases i - 1, i - 1 + n, ... of its sample. Raises `DataError` where shards are missing, given
    twice or not of one sample.
    """
    samples: dict[str, list[int]] = {}
    for number, file in enumerate(files):
        samples.setdefault(_sample(file.info) or f"file {number}", []).append(number)
    starts = np.cumsum([0, *(file.n_cases for file in files)])
    pieces = []
    for members in samples.values():
        division = _division([files[number] for number in members])
        piece = np.empty(sum(files[number].n_cases for number in members), dtype=np.int64)
        for number, first in zip(members, division, strict=True):
            piece[first :: len(members)] = np.arange(starts[number], starts[number + 1])
        pieces.append(piece)
    whole = len(samples) == 1 and _shard(files[0].info) is not None
    return np.concatenate(pieces), whole


def merged_info(infos: Sequence[Any], whole_sample: bool) -> Any:
    """The first file's, without what the others do not share; a whole sample's as if it had been made in one piece."""
    first = infos[0]
    extra = {key: value for key, value in first.extra.items() if all(i.extra.get(key) == value for i in infos)}
    extra.pop("shard", None)
    return dataclasses.replace(
        first,
        extra={**extra, "shard": "1/1"} if whole_sample else extra,
        seed=first.seed if all(i.seed == first.seed for i in infos) else None,
        solver="; ".join(dict.fromkeys(i.solver for i in infos)),
        version=first.version if all(i.version == first.version for i in infos) else __version__,
    )


def _shard(info: Any) -> tuple[int, int] | None:
    """``(i, n)`` of a generated file, None of any other."""
    match = re.fullmatch(r"(\d+)/(\d+)", str(info.extra.get("shard", "")))
    return (int(match[1]), int(match[2])) if match else None


def _sample(info: Any) -> str | None:
    """What the shards of one sample have in common, None for a file that is no shard."""
    if _shard(info) is None:
        return None
    extra = {key: value for key, value in info.extra.items() if key != "shard"}
    return json.dumps({**info.to_dict(), "extra": extra, "version": None}, sort_keys=True)


def _division(files: Sequence[SampleFile]) -> list[int]:
    """The first case of each file in the sample that they divide: all shards of it, each once."""
    if _shard(files[0].info) is None:
        return [0]
    shards = [_shard(file.info) or (1, 1) for file in files]
    named = [f"{file.path} (shard {i}/{n})" for file, (i, n) in zip(files, shards, strict=True)]
    count = shards[0][1]
    for number, (index, other) in enumerate(shards):
        if other != count:
            raise DataError(
                f"{named[0]} and {named[number]} divide one sample differently and hold some of its cases twice; "
                f"give the shards 1/{count} to {count}/{count} or those of the other division"
            )
        first = shards.index((index, other))
        if first != number:
            raise DataError(
                f"shard {index}/{count} is given twice: {files[first].path} and {files[number].path}; give one of them"
            )
    missing = [f"{i}/{count}" for i in range(1, count + 1) if (i, count) not in shards]
    if missing:
        raise DataError(
            f"shard {', '.join(missing)} of the sample of {named[0]} is missing; generate it with --shard, or use "
            "the files as they are: commands take several (--data a.h5 b.h5)"
        )
    total = sum(file.n_cases for file in files)
    if any(file.n_cases != len(range(i - 1, total, n)) for file, (i, n) in zip(files, shards, strict=True)):
        sizes = ", ".join(f"{name} has {file.n_cases}" for file, name in zip(files, named, strict=True))
        raise DataError(
            f"the shards are not of one sample, they were made with different numbers of cases: {sizes}; generate "
            "them again with the same --cases"
        )
    return [index - 1 for index, _ in shards]

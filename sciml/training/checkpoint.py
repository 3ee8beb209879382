"""Training state on disk: one directory a checkpoint, complete or absent.

A checkpoint is written beside its final name, flushed to disk and renamed; a process killed in the middle leaves a
``.tmp`` directory that the next write removes. Nothing is unpickled: ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from sciml.datasets.disk import sync_directory
from sciml.errors import CheckpointError

_FILE = "state.pt"


def save_checkpoint(directory: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write ``directory/step_<step>`` and remove all but the newest ``keep``.

    Returns its path.
    """
    final = directory / f"step_{step:08d}"
    if final.exists():
        return final  # a step has one state
    aside = final.with_name(final.name + ".tmp")
    for leftover in directory.glob("step_*.tmp"):
        shutil.rmtree(leftover)
    aside.mkdir(parents=True)
    with open(aside / _FILE, "wb") as stream:
        torch.save(state, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(aside, final)
    sync_directory(directory)
    for old in checkpoints(directory)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(directory: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(path for path in directory.glob("step_*") if path.suffix != ".tmp" and (path / _FILE).is_file())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The training state of a checkpoint, on the CPU.

    Raises ``CheckpointError`` if it is missing or damaged.
    """
    file = path / _FILE
    if not file.is_file():
        raise CheckpointError(f"{path} is not a checkpoint: it holds no {_FILE}")
    try:
        if not zipfile.is_zipfile(file):
            raise RuntimeError("not the archive that torch.save writes")
        return torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError) as error:
        raise CheckpointError(
            f"the checkpoint {path} is damaged ({str(error).splitlines()[0]}); remove that directory to go on from the "
            "one before"
        ) from None

"""Simulations of NCLaw (Ma et al., ICML 2023): a folder ``state`` with one file ``NNNN.pt`` for each saved step.

A file is a dictionary of tensors, x (N, 3), v (N, 3), types (N,), and others which are not kept. NNNN is the number of
the step; steps are 5e-4 s apart. The box is the unit cube, gravity 9.8 m/s^2 along -y.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.datasets.particles.archives import read_torch
from sciml.datasets.particles.records import ParticleTrajectory
from sciml.datasets.particles.source import ParticleSource, Told, describe
from sciml.errors import DataError

STEP = 5e-4
BOUNDS = ((0.0, 1.0),) * 3
GRAVITY = (0.0, -9.8, 0.0)


def state_folders(path: Path) -> list[Path]:
    """The folders of states that ``path`` is, has, or whose parents it has (several simulations, sorted by name)."""
    for candidates in ([path], [path / "state"], sorted(path.glob("*/state")), sorted(path.glob("*/*/state"))):
        found = [folder for folder in candidates if folder.is_dir() and _states(folder)]
        if found:
            return found
    return []


def _states(folder: Path) -> list[Path]:
    return sorted((file for file in folder.glob("*.pt") if file.stem.isdigit()), key=lambda file: int(file.stem))


def nclaw_source(path: Path, told: Told) -> ParticleSource:
    """One case for each folder of states. ``interval``, when told, is the time between two of the files.

    Files are read with ``weights_only=True``, so no pickle is needed. Raises `DataError` for steps that are not equally
    far apart and for states without x.
    """
    folders = state_folders(path)
    if not folders:
        raise DataError(f"{path} has no folder 'state' with files NNNN.pt")
    strides = {_stride(folder) for folder in folders}
    if len(strides) != 1:
        raise DataError(f"{path}: the simulations save every {sorted(strides)} steps; convert them one by one")
    kinds = 1 + max(int(_types(_state(_states(folder)[0])).max()) for folder in folders)
    info = describe(
        told,
        path,
        dim=_state(_states(folders[0])[0])["x"].shape[1],
        kinds=["material"] if kinds == 1 else [f"type {k}" for k in range(kinds)],
        interval=STEP * strides.pop(),
        bounds=BOUNDS,
        gravity=GRAVITY,
        positions=lambda: (),
        format_name="NCLaw",
    )
    return ParticleSource(info, len(folders), lambda case: _trajectory(folders[case]))


def _trajectory(folder: Path) -> ParticleTrajectory:
    states = [_state(file) for file in _states(folder)]
    count = states[0]["x"].shape[0]
    for file, state in zip(_states(folder), states, strict=True):
        if state["x"].shape[0] != count:
            raise DataError(f"{file} has {state['x'].shape[0]} particles, the first state has {count}")
    velocity = torch.stack([state["v"] for state in states]) if all("v" in state for state in states) else None
    return ParticleTrajectory(torch.stack([state["x"] for state in states]), _types(states[0]), velocity=velocity)


def _state(file: Path) -> dict[str, Tensor]:
    content: Any = read_torch(file, allow_pickle=False)
    x = content.get("x") if isinstance(content, dict) else None
    if not isinstance(x, Tensor) or x.ndim != 2:
        raise DataError(f"{file} is no state of NCLaw: expected a dictionary with x (particles, dim)")
    kept = {name: content[name].detach() for name in ("x", "v", "types") if isinstance(content.get(name), Tensor)}
    return {name: value.float() if name != "types" else value for name, value in kept.items()}


def _types(state: dict[str, Tensor]) -> Tensor:
    return state["types"].long() if "types" in state else torch.zeros(len(state["x"]), dtype=torch.int64)


def _stride(folder: Path) -> int:
    steps = torch.tensor([int(file.stem) for file in _states(folder)])
    strides = steps.diff().unique()
    if len(strides) != 1:
        raise DataError(f"{folder}: the saved steps are not equally far apart ({steps.tolist()[:5]} ...)")
    return int(strides[0])

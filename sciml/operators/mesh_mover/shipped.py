"""The movers that come with the package, made by ``benchmarks/fit_mesh_movers.py``."""

from __future__ import annotations

from pathlib import Path

import torch

from sciml.errors import ConfigError
from sciml.operators.mesh_mover.mover import MeshMover

WEIGHTS = Path(__file__).parent / "weights"


def pretrained_mover(dim: int = 2, *, device: torch.device | str = "cpu") -> MeshMover:
    """The package's own mover in 2D or 3D, without gradients for its weights.

    It has learned from monitors of random bumps, fronts, rings and plateaus in random boxes. Raises ``ConfigError`` for
    another dimension.
    """
    if dim not in (2, 3):
        raise ConfigError(f"pretrained_mover: dim is {dim!r}; there is one in 2 and one in 3 dimensions")
    return MeshMover.from_pretrained(WEIGHTS / f"{dim}d", device=device).requires_grad_(False).eval()

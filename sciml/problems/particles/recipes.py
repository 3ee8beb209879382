"""The default training runs of particles: minutes on two cores in 2D."""

from __future__ import annotations

from typing import Any

NETWORKS: dict[str, dict[str, Any]] = {
    "giorom": {"hidden_channels": 64, "latent_channels": 64, "n_layers": [2, 2], "n_blocks": 1},
    "gns": {"hidden_channels": 64, "n_layers": 5},
}
FLUIDS = ("goop", "plasticine", "sand", "water")
"""Materials whose neighbours change: points that are brought along look for theirs anew."""


def particle_recipe(problem: str, operator: str | None, dim: int) -> dict[str, Any]:
    """The configuration of ``sciml train --problem NAME`` as a plain dictionary of the training schema."""
    name = operator or "giorom"
    return {
        "problem": problem,
        "operator": {"name": name, **NETWORKS.get(name, {})},
        "data": {"points": 250 if dim == 2 else 1000},
        "task": {"anchor_every": 4 if problem in FLUIDS else None},
        "batch_size": 4,
        "validate_every": 1000,
        "optimizer": {"learning_rate": 2e-3, "ema": 0.999},
        "budget": {"minutes": 9.0},
        "checkpoint": {"every_steps": 1000},
    }

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
    """The configuration of ``sciml train --problem NAME`` as a plain dictionary of the training schema.

    Minutes do not suffice for every layout of bodies: one body in the air, of ever another shape, is learned first.
    """
    name = operator or "giorom"
    own = {} if problem == "particles" else {"subset": "drop"}
    return {
        "problem": problem,
        "operator": {"name": name, **NETWORKS.get(name, {})},
        "data": {"points": 250 if dim == 2 else 1000, "sampling": "farthest", **own},
        "task": {"anchor_every": 4 if problem in FLUIDS else None, "degree": 10.0 if dim == 2 else 16.0},
        "batch_size": 4,
        "validate_every": 2000,
        "optimizer": {"learning_rate": 2e-3, "ema": 0.999},
        "budget": {"minutes": 11.0},
        "checkpoint": {"every_steps": 1000},
    }

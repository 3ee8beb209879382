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
        # Water moves by about the distance of the points that are stepped in 10 ms: half as many steps to a rollout.
        "data": {
            "points": 250 if dim == 2 else 1000,
            **({"interval": 0.01, "frames": 150} if problem == "water" else {}),
        },
        "task": {
            **({"anchor_every": 4, "correct_every": 4} if problem in FLUIDS else {}),
            "lifetime": 25,
            "relaxation": 10.0,
        },
        "batch_size": 4,
        "validate_every": 1000,
        "optimizer": {"method": "soap", "learning_rate": 3e-3, "ema": 0.999},
        "budget": {"minutes": 12.0},
        # A second thread makes steps of 250 points a fifth faster on an idle machine, on a busy one fifty times slower.
        **({"threads": 1} if dim == 2 else {}),
        "checkpoint": {"every_steps": 1000},
    }

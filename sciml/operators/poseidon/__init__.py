"""Poseidon, the multiscale operator transformer: reads the published checkpoints, takes any grid and channels.

from sciml.operators import Poseidon

operator = Poseidon.from_pretrained("path/to/Poseidon-T", channels=["velocity_x", "velocity_y", "smoke"])
y = operator(x, time=time)       # x (B, 3, nx, ny), time (B,)
"""

from sciml.operators.poseidon.config import PoseidonConfig
from sciml.operators.poseidon.model import Poseidon, PoseidonOutput

__all__ = ["Poseidon", "PoseidonConfig", "PoseidonOutput"]

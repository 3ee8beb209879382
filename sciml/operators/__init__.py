"""Neural operators: networks from fields to fields. ``OPERATORS`` is the whole registry.

from sciml.operators import FNO, Operator

operator = FNO(in_channels=2, out_channels=2, n_parameters=3)
y = operator(x, parameters=parameters)       # x (B, 2, nx, ny), parameters (B, 3)
operator.save_pretrained("runs/fno")
operator = Operator.from_pretrained("runs/fno")
"""

from sciml.operators.base import Operator, create_operator
from sciml.operators.deeponet import DeepONet
from sciml.operators.fno import FNO
from sciml.operators.poseidon import Poseidon, PoseidonConfig
from sciml.operators.unet import UNet

OPERATORS: dict[str, type[Operator]] = {"fno": FNO, "unet": UNet, "deeponet": DeepONet, "poseidon": Poseidon}

__all__ = ["FNO", "OPERATORS", "DeepONet", "Operator", "Poseidon", "PoseidonConfig", "UNet", "create_operator"]

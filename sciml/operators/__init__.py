"""Neural operators: networks from fields to fields (``OPERATORS``) and on particles (``PARTICLE_OPERATORS``).

from sciml.operators import FNO, Operator

operator = FNO(in_channels=2, out_channels=2, n_parameters=3)
y = operator(x, parameters=parameters)       # x (B, 2, nx, ny), parameters (B, 3)
operator.save_pretrained("runs/fno")
operator = Operator.from_pretrained("runs/fno")

stepper = GIOROM(2, radius=0.03)
acceleration = stepper(particle_graph(position, velocity, radius=0.03))       # (N, 2), normalised
"""

from sciml.operators.base import Operator, create_operator
from sciml.operators.deeponet import DeepONet
from sciml.operators.dgno import DGNO
from sciml.operators.fno import FNO
from sciml.operators.mmpde import MMPDE
from sciml.operators.moving_mesh import MovingMesh
from sciml.operators.multionet import MultiONet
from sciml.operators.neuralstagger import NeuralStagger
from sciml.operators.particles import GIOROM, GNS, ParticleOperator, particle_graph
from sciml.operators.particles.upsampler import KernelUpsampler
from sciml.operators.poseidon import Poseidon, PoseidonConfig
from sciml.operators.unet import UNet

OPERATORS: dict[str, type[Operator]] = {
    "fno": FNO,
    "unet": UNet,
    "deeponet": DeepONet,
    "poseidon": Poseidon,
    "neuralstagger": NeuralStagger,
    "multionet": MultiONet,
    "moving_mesh": MovingMesh,
    "mmpde": MMPDE,
}
LATENT_OPERATORS: dict[str, type[DGNO]] = {"dgno": DGNO}
PARTICLE_OPERATORS: dict[str, type[ParticleOperator]] = {"giorom": GIOROM, "gns": GNS}

__all__ = [
    "DGNO",
    "FNO",
    "GIOROM",
    "GNS",
    "LATENT_OPERATORS",
    "MMPDE",
    "OPERATORS",
    "PARTICLE_OPERATORS",
    "DeepONet",
    "KernelUpsampler",
    "MovingMesh",
    "MultiONet",
    "NeuralStagger",
    "Operator",
    "ParticleOperator",
    "Poseidon",
    "PoseidonConfig",
    "UNet",
    "create_operator",
    "particle_graph",
]

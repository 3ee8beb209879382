"""Small particle scenes and operators that the tests of the particle operators share."""

import torch
from torch import Tensor

from sciml.operators import PARTICLE_OPERATORS, ParticleOperator
from sciml.operators.particles.graph import particle_graph

RADIUS, HISTORY, N_KINDS, N_PARAMETERS = 0.25, 2, 3, 2
SMALL = {
    "gns": {"hidden_channels": 8, "n_layers": 2},
    "giorom": {"hidden_channels": 8, "n_layers": (1, 1), "latent_channels": 8, "n_blocks": 1, "n_heads": 2},
}
NAMES = sorted(PARTICLE_OPERATORS)


def small(name: str, dim: int, dtype: torch.dtype = torch.float64, **changes) -> ParticleOperator:
    """An operator with an output of order 1, so that what is wrong shows."""
    torch.manual_seed(0)
    options = {"radius": RADIUS, "history": HISTORY, "n_kinds": N_KINDS, "n_parameters": N_PARAMETERS}
    operator = PARTICLE_OPERATORS[name](dim, **(options | SMALL[name] | changes)).to(dtype).eval()
    with torch.no_grad():
        operator.decode[-1].weight.mul_(100)
    return operator


def scene(n: int, dim: int, *, seed: int = 0, low: float = 0.0, high: float = 1.0, **changes) -> dict[str, Tensor]:
    """Arguments of ``particle_graph`` for one scene: particles in the unit box, gravity along the last axis."""
    draw = torch.Generator().manual_seed(seed)
    arguments = {
        "position": torch.rand(n, dim, generator=draw, dtype=torch.float64),
        "velocity": torch.randn(n, HISTORY, dim, generator=draw, dtype=torch.float64),
        "kind": torch.randint(N_KINDS, (n,), generator=draw),
        "parameters": torch.randn(n, N_PARAMETERS, generator=draw, dtype=torch.float64),
        "fixed": torch.rand(n, generator=draw) < 0.1,
        "bounds": torch.tensor([[low, high]] * dim, dtype=torch.float64),
        "gravity": torch.tensor([0.0] * (dim - 1) + [-9.81], dtype=torch.float64),
    }
    return arguments | changes


def graph(arguments: dict[str, Tensor], **changes):
    return particle_graph(radius=RADIUS, **(arguments | changes))


def together(*scenes: dict[str, Tensor]):
    """Several scenes in one graph."""
    joined = {
        name: torch.cat([s[name] for s in scenes]) for name in ("position", "velocity", "kind", "parameters", "fixed")
    }
    counts = torch.tensor([len(s["position"]) for s in scenes])
    joined["batch"] = torch.arange(len(scenes)).repeat_interleave(counts)
    joined |= {name: torch.stack([s[name] for s in scenes]) for name in ("bounds", "gravity")}
    return particle_graph(radius=RADIUS, **joined)

"""Fine-tune a Poseidon checkpoint on other channels: here velocity and smoke, from density, velocity and pressure.

Give the directory of a published checkpoint as the argument; without one a small untrained stand-in is made.
"""

import sys
import tempfile
from pathlib import Path

import torch

from sciml.operators import Poseidon
from sciml.problems import get_problem

CHANNELS = ["velocity_x", "velocity_y", "smoke"]


def main(directory: Path, checkpoint: Path | None = None, steps: int = 20) -> float:
    torch.manual_seed(0)
    if checkpoint is None:
        checkpoint = directory / "published"
        small = {"image_size": 32, "embed_dim": 24, "depths": (2, 2), "num_heads": (3, 6), "skip_connections": (1, 0)}
        Poseidon.tiny(**small, window_size=4).save_pretrained(checkpoint)
    operator = Poseidon.from_pretrained(checkpoint, channels=CHANNELS, resize="pad")

    # A flow in a periodic box from the package's solver; the smoke is made up: it does not change.
    flow = get_problem("periodic_flow", 2)
    velocity = flow.solve(flow.sample(4, seed=0).parameters, 32, [0.0, 1.0, 2.0])["velocity"]
    velocity = velocity / velocity.std()
    smoke = torch.rand(4, 1, 1, 32, 32).expand(-1, 3, -1, -1, -1)
    frames = torch.cat([velocity, smoke], 2)  # (cases, frames, channels, x, y)

    # All pairs of frames, with the published rates: ten times higher for what is new.
    rates = {"embedding_recovery": 5e-3, "time_embedding": 5e-3}
    groups = [
        {"params": group.parameters, "lr": rates.get(group.name, 5e-4), "weight_decay": 1e-6 if group.decay else 0.0}
        for group in operator.parameter_groups()
    ]
    optimizer = torch.optim.AdamW(groups)
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    first = last = 0.0
    for step in range(steps):
        i, j = pairs[step % len(pairs)]
        time = torch.full((4,), (j - i) / 2)
        prediction, loss = operator(frames[:, i], time=time, labels=frames[:, j])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = float(loss.detach())
        first = first or last
    operator.save_pretrained(directory / "tuned")
    print(f"{prediction.shape[1]} channels; loss {first:.2f} -> {last:.2f} after {steps} steps")
    return last / first


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), Path(sys.argv[1]) if len(sys.argv) > 1 else None)

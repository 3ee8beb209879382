"""Make the mesh movers that come with the package.

    python benchmarks/fit_mesh_movers.py [--dim 2 3] [--minutes 12] [--out sciml/operators/mesh_mover/weights]

Trained on the Monge-Ampère equation alone, on monitors of random fields; how good they are: ``mesh_movers.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

HERE = Path(__file__).parents[1] / "sciml" / "operators" / "mesh_mover" / "weights"
SIZES = {2: {"cells": 48, "hidden_channels": 16}, 3: {"cells": 16, "hidden_channels": 12}}


def main() -> None:
    from sciml.cli.progress import RichProgress
    from sciml.operators.mesh_mover import MeshMover, fit_mesh_mover

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, nargs="+", default=[2, 3], choices=[2, 3])
    parser.add_argument("--minutes", type=float, default=12.0, help="of training, each")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for dim in arguments.dim:
        torch.manual_seed(0)
        mover = MeshMover(dim, **SIZES[dim])
        with RichProgress() as progress:
            losses = fit_mesh_mover(mover, minutes=arguments.minutes, progress=progress)
        mover.save_pretrained(arguments.out / f"{dim}d")
        print(f"{dim}D: {len(losses)} steps, loss {sum(losses[-50:]) / len(losses[-50:]):.5f}")


if __name__ == "__main__":
    main()

"""Put the nodes where a front is: classical and learned mesh, what they gain, a picture and a file for ParaView.

python examples/moving_mesh.py [--out meshes]
"""

import argparse
import math
from pathlib import Path

import torch

from sciml.constraints.mesh_mover import Box, centres_of, curvature_monitor, folded, interpolate, monge_ampere
from sciml.operators.mesh_mover import pretrained_mover
from sciml.plotting import moved_mesh, write_mesh


def front(points: torch.Tensor) -> torch.Tensor:
    """A curved front ``(..., 2) -> (...)``."""
    x, y = points.unbind(-1)
    return torch.tanh((x - 0.5 + 0.15 * torch.sin(2 * math.pi * y)) / 0.05)


def main(out: Path) -> dict[str, float]:
    """Interpolation error between 48 x 48 nodes of each mesh."""
    out.mkdir(parents=True, exist_ok=True)
    box, cells = Box((1.0, 1.0)), (47, 47)
    u = front(box.centres((48, 48)))[None, None]  # what is known: cell-centred, (batch, channels, nx, ny)
    monitor = curvature_monitor(u, box)
    meshes = {
        "uniform": box.corners(cells)[None],
        "classical": monge_ampere(monitor, cells, box).corners,
        "learned": pretrained_mover(2)(monitor, box, cells).corners,
    }
    probes = box.centres((300, 300))[None]
    errors = {}
    for name, corners in meshes.items():
        made = interpolate(front(corners)[:, None], corners, probes, box, location="node")[0, 0]
        errors[name] = float((made - front(probes[0])).norm() / front(probes[0]).norm())
        gain = errors["uniform"] / errors[name]
        print(f"{name:10} interpolation error {errors[name]:.5f}, gain {gain:.2f}, folded cells {int(folded(corners))}")
    learned = meshes["learned"]
    before, after = front(box.centres(cells)), front(centres_of(learned)[0])
    moved_mesh(learned[0], lengths=box.lengths, fixed=before, moved=after, name="u", path=out / "front.png")
    write_mesh(out / "front.vtu", learned[0], {"u": front(learned[0])})
    print(f"wrote {out / 'front.png'} and {out / 'front.vtu'}")
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("meshes"))
    main(parser.parse_args().out)

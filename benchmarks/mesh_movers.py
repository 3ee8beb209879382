"""What moving a mesh is worth, and what it costs: gain, spread, folds and time of the mesh movers.

    python benchmarks/mesh_movers.py [--short] [--threads 1]

Fields with known values (bump, curved front, ring; in 3D a spherical shell) on a grid of as many cells as the
mesh, curvature monitor with its defaults. ``gain``: how many times smaller the L2 error of linear interpolation from
the corners of the mesh is than from those of the uniform mesh of as many, on triangles in 2D (400 x 400 probe),
trilinear in 3D (60^3). ``ms`` is CPU time of the mesh from the monitor, the best of several; ``ms in a batch``: for
each of 32.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from harness import Row, report
from matplotlib.tri import LinearTriInterpolator, Triangulation
from torch import Tensor

from sciml.constraints.mesh_mover import (
    Box,
    MovedMesh,
    curvature_monitor,
    equidistribution_spread,
    folded,
    interpolate,
    monge_ampere,
)

Field = Callable[[Tensor], Tensor]
Mover = Callable[[Tensor, tuple[int, ...], Box], MovedMesh]

FIELDS_2D: dict[str, Field] = {
    "bump": lambda p: torch.exp(-((p - 0.5) ** 2).sum(-1) / 0.02),
    "front": lambda p: torch.tanh((p[..., 0] - 0.5 + 0.15 * torch.sin(2 * math.pi * p[..., 1])) / 0.05),
    "ring": lambda p: torch.exp(-((((p - 0.5).norm(dim=-1) - 0.25) / 0.04) ** 2)),
}
FIELDS_3D: dict[str, Field] = {"shell": lambda p: torch.exp(-((((p - 0.5).norm(dim=-1) - 0.25) / 0.05) ** 2))}
MOVERS: dict[str, Mover] = {"Monge-Ampère": monge_ampere}
BATCH = 32


def gain(field: Field, corners: Tensor, box: Box) -> float:
    """Interpolation error of the uniform mesh over that of this one ``(*(n + 1), d)``."""
    uniform = box.corners([n - 1 for n in corners.shape[:-1]], dtype=corners.dtype)
    error = on_triangles if box.dim == 2 else on_hexahedra
    return error(field, uniform, box) / error(field, corners, box)


def on_triangles(field: Field, corners: Tensor, box: Box) -> float:
    """L2 error of piecewise linear interpolation, every cell cut along one diagonal."""
    index = np.arange(corners[..., 0].numel()).reshape(corners.shape[:-1])
    low, right, up, far = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    triangles = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((low, right, far), (low, far, up))])
    nodes = corners.reshape(-1, 2)
    probe = box.centres((400, 400), dtype=corners.dtype)
    mesh = Triangulation(*nodes.numpy().T, triangles)
    values = LinearTriInterpolator(mesh, field(nodes).numpy())(*probe.numpy().transpose(2, 0, 1))
    return float(np.sqrt(np.mean((values - field(probe).numpy()) ** 2)))


def on_hexahedra(field: Field, corners: Tensor, box: Box) -> float:
    """L2 error of isoparametric trilinear interpolation."""
    probe = box.centres((60, 60, 60), dtype=corners.dtype)
    values = interpolate(field(corners)[None, None], corners[None], probe[None], box, location="node")[0, 0]
    return float((values - field(probe)).square().mean().sqrt())


def best_ms(work: Callable[[], object], repeats: int) -> float:
    """CPU time of the fastest of several calls, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def rows(short: bool) -> Iterator[Row]:
    cases = [(Box((1.0, 1.0)), n, FIELDS_2D) for n in ((24, 48) if short else (24, 48, 96))]
    cases.append((Box((1.0, 1.0, 1.0)), 16 if short else 32, FIELDS_3D))
    for box, n, fields in cases:
        cells = (n,) * box.dim
        for name, field in fields.items():
            u = field(box.centres(cells, dtype=torch.float64))[None, None]
            monitor = curvature_monitor(u, box)
            uniform = box.corners(cells, dtype=torch.float64)[None]
            several = monitor.repeat(BATCH, *(1,) * box.dim)
            for mover_name, mover in MOVERS.items():
                mesh = mover(monitor, cells, box)
                row: Row = {"mover": mover_name, "field": name, "cells": " x ".join(map(str, cells))}
                row["gain"] = gain(field, mesh.corners[0], box)
                row["spread, uniform"] = float(equidistribution_spread(uniform, monitor, box))
                row["spread"] = float(equidistribution_spread(mesh.corners, monitor, box))
                row["folded cells"] = int(folded(mesh.corners))
                row["iterations"] = int(mesh.iterations)
                row["ms"] = best_ms(lambda f=mover, a=(monitor, cells, box): f(*a), 3 if short else 7)
                row["ms in a batch"] = (
                    best_ms(lambda f=mover, a=(several, cells, box): f(*a), 1 if short else 3) / BATCH
                )
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few sizes and repeats")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(
        "mesh_movers",
        "What does moving the mesh gain, and what does a mesh cost?",
        list(rows(arguments.short)),
        ["spread: standard deviation over mean of the monitor's integral over the cells"],
    )


if __name__ == "__main__":
    main()

"""How good are the meshes of the learned mover on fields that it never saw, beside the classical solver's?

    python benchmarks/learned_meshes.py [--fields 250] [--sizes 24 48 96] [--polish 0] [--threads 1]

Bumps, fronts and rings of another seed and another family of parameters (exact functions), and states of the 2D Burgers
equation (solved on 192 x 192 cells), each with the curvature monitor at its default share. Nodes are n x n. ``spread``:
standard deviation over mean of the monitor's integral over the cells; ``gain``: relative L2 error of interpolation
between the nodes on the uniform mesh over that on the moved one, 200 x 200 probes; ``folds``: folded cells of the
learned mesh evaluated with four times as many cells along each axis, in all fields; ``ms``: wall time of a mesh in a
batch of 50, the least of all batches.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from harness import Row, report
from torch import Tensor

BOX_SIDE = 1.0
FINE = 192
BATCH = 50


def families(count: int) -> dict[str, list]:
    """Functions ``points (..., 2) -> (...)`` of each family."""
    generator = torch.Generator().manual_seed(20261122)

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def bump():
        parts = [
            (draw(-1, 1), draw(0.15, 0.85), draw(0.15, 0.85), draw(0.06, 0.15), draw(0.06, 0.15), draw(0, math.pi))
            for _ in range(1 + int(draw(0, 3)))
        ]

        def u(p: Tensor) -> Tensor:
            total = torch.zeros(p.shape[:-1], dtype=p.dtype)
            for height, x, y, a, b, turn in parts:
                s, t = p[..., 0] - x, p[..., 1] - y
                along, across = s * math.cos(turn) + t * math.sin(turn), t * math.cos(turn) - s * math.sin(turn)
                total += height * torch.exp(-0.5 * ((along / a) ** 2 + (across / b) ** 2))
            return total

        return u

    def front():
        turn, place, bend, waves, phase, width = (
            draw(0, 2 * math.pi), draw(-0.2, 0.2), draw(0, 0.15), draw(0.5, 2), draw(0, 6.28), draw(0.04, 0.1)
        )  # fmt: skip

        def u(p: Tensor) -> Tensor:
            s, t = p[..., 0] - 0.5, p[..., 1] - 0.5
            along, across = s * math.cos(turn) + t * math.sin(turn), t * math.cos(turn) - s * math.sin(turn)
            return torch.tanh((along - place + bend * torch.sin(2 * math.pi * waves * across + phase)) / width)

        return u

    def ring():
        x, y, radius, width, squeeze = (
            draw(0.35, 0.65),
            draw(0.35, 0.65),
            draw(0.15, 0.3),
            draw(0.04, 0.08),
            draw(0.7, 1.3),
        )

        def u(p: Tensor) -> Tensor:
            return torch.exp(-(((torch.hypot(p[..., 0] - x, squeeze * (p[..., 1] - y)) - radius) / width) ** 2))

        return u

    made = {
        name: [maker() for _ in range(count)] for name, maker in (("bumps", bump), ("fronts", front), ("rings", ring))
    }
    return {**made, "burgers": burgers_states(count)}


def burgers_states(count: int) -> list:
    """First velocity components of solutions, multilinear between the centres of a fine grid; on a walled box."""
    from sciml.constraints.mesh_mover import Box, sample
    from sciml.problems import get_problem

    problem = get_problem("burgers", 2)
    cases = math.ceil(count / 5)
    parameters = problem.sample(cases, "all", seed=987, resolution=FINE).parameters
    states: list = []
    box = Box((BOX_SIDE, BOX_SIDE))
    for case in range(cases):
        mine = {name: value[case : case + 1] for name, value in parameters.items()}
        solved = problem.solve(mine, FINE, torch.linspace(0, 0.4, 6, dtype=torch.float64))["velocity"][0, 1:, 0]
        for state in solved.double():
            scaled = (state / state.std())[None, None]

            def u(p: Tensor, scaled: Tensor = scaled) -> Tensor:
                return sample(scaled, p.reshape(1, -1, 2).double(), box)[0, 0].reshape(p.shape[:-1]).to(p)

            states.append(u)
    return states[:count]


def interpolation_error(u, corners: Tensor, probes: Tensor, box) -> float:
    """Relative L2 error of the interpolant between the nodes, at the probes."""
    from sciml.constraints.mesh_mover import interpolate

    exact = u(probes)
    made = interpolate(u(corners)[None, None], corners[None], probes[None], box, location="node")[0, 0]
    return float((made - exact).norm() / exact.norm())


def judge(name: str, functions: list, n: int, polish: int) -> Row:
    from sciml.constraints.mesh_mover import (
        Box,
        curvature_monitor,
        equidistribution_spread,
        folded,
        monge_ampere,
    )
    from sciml.operators.mesh_mover import pretrained_mover

    box, cells = Box((BOX_SIDE, BOX_SIDE)), (n - 1, n - 1)
    mover = pretrained_mover(2)
    probes = box.centres((200, 200), dtype=torch.float64)
    centres, uniform = box.centres((n, n), dtype=torch.float64), box.corners(cells, dtype=torch.float64)
    found: dict[str, list[float]] = {key: [] for key in ("own", "classical", "flat", "gain", "best", "scale", "ms")}
    folds, edge, over = 0, 0.0, 0
    for start in range(0, len(functions), BATCH):
        mine = functions[start : start + BATCH]
        u = torch.stack([f(centres) for f in mine]).unsqueeze(1)
        monitor = curvature_monitor(u, box, rough="ignore")
        with torch.no_grad():
            mover(monitor.float(), box, cells, polish=polish)
            began = time.perf_counter()
            mesh = mover(monitor.float(), box, cells, polish=polish)
            found["ms"].append((time.perf_counter() - began) / len(mine) * 1e3)
            finer = mover(monitor.float(), box, [4 * k for k in cells], polish=polish)
        folds += int(folded(finer.corners).sum()) + int(folded(mesh.corners).sum())
        corners = mesh.corners.double()
        for axis in (0, 1):
            edge = max(edge, float(corners.select(axis + 1, 0)[..., axis].abs().max()))
            edge = max(edge, float((corners.select(axis + 1, -1)[..., axis] - BOX_SIDE).abs().max()))
        reference = monge_ampere(monitor, cells, box, on_failure="ignore").corners
        own, classical = (equidistribution_spread(c, monitor, box) for c in (corners, reference))
        over += int((own > 1.5 * classical + 0.02).sum())
        found["own"] += own.tolist()
        found["classical"] += classical.tolist()
        found["flat"] += equidistribution_spread(uniform.expand_as(corners), monitor, box).tolist()
        found["scale"] += mesh.scale.tolist()
        for f, moved, best in zip(mine, corners, reference, strict=True):
            flat = interpolation_error(f, uniform, probes, box)
            found["gain"].append(flat / interpolation_error(f, moved, probes, box))
            found["best"].append(flat / interpolation_error(f, best, probes, box))

    def mean(key: str) -> float:
        return sum(found[key]) / len(found[key])

    return {
        "fields": name,
        "n": n,
        "count": len(functions),
        "spread, uniform": mean("flat"),
        "classical": mean("classical"),
        "learned": mean("own"),
        "worst": max(found["own"]),
        "above 1.5 x + 0.02": over,
        "gain, classical": mean("best"),
        "gain, learned": mean("gain"),
        "of it": mean("gain") / mean("best"),
        "folds": folds,
        "scaled back": sum(value < 1 for value in found["scale"]),
        "off the walls": edge,
        "ms": min(found["ms"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=250, help="of each family")
    parser.add_argument("--sizes", type=int, nargs="+", default=[24, 48, 96])
    parser.add_argument("--polish", type=int, default=0, help="iterations of the classical solver after the network")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, functions in families(arguments.fields).items():
        for n in arguments.sizes:
            rows.append(judge(name, functions if n == 48 else functions[: arguments.fields // 5], n, arguments.polish))
            print(rows[-1], flush=True)
    report(
        "learned_meshes" + (f"_polish{arguments.polish}" if arguments.polish else ""),
        "How good are the meshes of the learned mover on unseen fields?",
        rows,
        ["sizes other than 48: a fifth of the fields", "monitors at the centres of n x n cells of the exact field"],
    )


if __name__ == "__main__":
    main()

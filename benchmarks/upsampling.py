"""Cost and error of bringing dense points along with 1,000 sparse particles.

    python benchmarks/upsampling.py [--short] [--threads 1]

A vortex (Taylor and Green's in 2D, its like in 3D) in the unit box carries random points; 1,000 others, chosen by
farthest-point sampling, are known in every frame. Two tables: cost and error of a frame against plain ways, and
the error over many frames by how often the upsampler is anchored.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from harness import Row, report
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree
from torch import Tensor

from sciml.operators import KernelUpsampler
from sciml.operators.particles.upsampler import Anchor, follow
from sciml.points import farthest_points

SPARSE, STEP = 1000, 0.02


def velocity(x: Tensor) -> Tensor:
    """Free of divergence, tangential at the walls of the unit box."""
    s, c = torch.sin(math.pi * x), torch.cos(math.pi * x)
    if x.shape[1] == 2:
        return torch.stack([s[:, 0] * c[:, 1], -c[:, 0] * s[:, 1]], 1)
    parts = [s[:, 0] * c[:, 1] * c[:, 2], c[:, 0] * s[:, 1] * c[:, 2], c[:, 0] * c[:, 1] * s[:, 2]]
    return torch.stack([parts[0], -0.5 * parts[1], -0.5 * parts[2]], 1)


def advance(x: Tensor, field: Callable[[Tensor], Tensor], step: float, parts: int = 2) -> Tensor:
    """By the classical method of Runge and Kutta."""
    h = step / parts
    for _ in range(parts):
        a = field(x)
        b = field(x + h / 2 * a)
        c = field(x + h / 2 * b)
        x = x + h / 6 * (a + 2 * b + 2 * c + field(x + h * c))
    return x


def random_field(dim: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Six random waves without divergence: what the correction is trained on."""
    waves = math.pi * torch.randn(6, dim, generator=generator)
    phases = 2 * math.pi * torch.rand(6, generator=generator)
    sizes = torch.randn(6, dim, generator=generator)
    sizes = (sizes - waves * (sizes * waves).sum(1, keepdim=True) / waves.square().sum(1, keepdim=True)) / 6**0.5
    return lambda x: torch.sin(x @ waves.T + phases) @ sizes


def trained(dim: int, steps: int) -> KernelUpsampler:
    """The upsampler, its correction trained on other flows, over up to 20 frames from the anchor."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    upsampler, plain = KernelUpsampler(dim), KernelUpsampler(dim, correction=False)
    cases = []
    for k in range(40):
        field, x = random_field(dim, generator), torch.rand(3000, dim, generator=generator)
        count = int(torch.randint(300, 1200, (1,), generator=generator))
        sparse = farthest_points(x, count) if k % 2 else torch.randperm(len(x), generator=generator)[:count]
        lag = int(torch.randint(1, 21, (1,), generator=generator))
        moved = advance(x, field, lag * STEP, 2 * lag)
        anchor = upsampler.anchor(x[sparse], x)
        with torch.no_grad():
            unit = (plain(anchor, moved[sparse]) - moved).square().mean()  # cases count alike
        cases.append((anchor, moved[sparse], moved, unit))
    optimiser = torch.optim.Adam(upsampler.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        anchor, sparse, truth, unit = cases[int(torch.randint(len(cases), (1,), generator=generator))]
        loss = ((upsampler(anchor, sparse) - truth).square().mean() / unit).sqrt()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return upsampler.eval()


def searched(x: Tensor, queries: Tensor, now: Tensor) -> Tensor:
    """Plain: neighbours sought in every frame, displacement by inverse squared distance."""
    distance, index = cKDTree(x.numpy()).query(queries.numpy(), 8)
    weights = 1 / (torch.from_numpy(distance).float().square() + 1e-12)
    weights = weights / weights.sum(1, keepdim=True)
    return queries + (weights[..., None] * (now - x)[torch.from_numpy(index)]).sum(1)


def least_squares(x: Tensor, queries: Tensor, now: Tensor) -> Tensor:
    """Plain: neighbours sought and a weighted affine fit solved for every point in every frame."""
    k = 8 if x.shape[1] == 2 else 12
    distance, index = (torch.from_numpy(np.ascontiguousarray(a)) for a in cKDTree(x.numpy()).query(queries.numpy(), k))
    offsets = x[index] - queries[:, None]
    weight = torch.exp(-0.5 * (distance.float() / distance[:, -1:].float() / 0.5).square())[..., None]
    rows = torch.cat([torch.ones_like(offsets[..., :1]), offsets], 2) * weight
    return torch.linalg.lstsq(rows, now[index] * weight).solution[:, 0]


def splines(x: Tensor, queries: Tensor, now: Tensor) -> Tensor:
    """scipy's thin-plate splines of the displacement through the same number of neighbours."""
    k = 8 if x.shape[1] == 2 else 12
    field = RBFInterpolator(x.double().numpy(), (now - x).double().numpy(), neighbors=k, kernel="thin_plate_spline")
    return queries + torch.from_numpy(field(queries.double().numpy())).float()


def cost(work: Callable[[], object], repeats: int) -> float:
    """Least processor seconds of a call (the machine may be busy), after one that is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def relative(found: Tensor, truth: Tensor, start: Tensor) -> float:
    return float((found - truth).square().mean().sqrt() / (truth - start).square().mean().sqrt())


@torch.no_grad()
def frames(networks: dict[int, KernelUpsampler], counts: tuple[int, ...], repeats: int) -> list[Row]:
    return [
        row
        for dim, network in networks.items()
        for count in counts
        for row in methods(network, KernelUpsampler(dim, correction=False), dim, count, repeats)
    ]


def methods(network: KernelUpsampler, plain: KernelUpsampler, dim: int, count: int, repeats: int) -> list[Row]:
    """The table's rows for so many points."""
    generator = torch.Generator().manual_seed(5)
    candidates, queries = (torch.rand(size, dim, generator=generator) for size in (20_000, count))
    x = candidates[farthest_points(candidates, SPARSE)]
    now, truth = (advance(points, velocity, 10 * STEP, 20) for points in (x, queries))
    ways: list[tuple[str, Callable[[], Tensor], float | str]] = []
    for name, model in (("KernelUpsampler, trained", network), ("KernelUpsampler, no correction", plain)):

        def make(model: KernelUpsampler = model) -> Anchor:
            return model.prepared(model.anchor(x, queries))

        ways.append((name, partial(model, make(), now), 1e3 * cost(make, 2)))
    ways.append(("inverse distance, search a frame", partial(searched, x, queries, now), ""))
    ways.append(("affine fit (lstsq), search a frame", partial(least_squares, x, queries, now), ""))
    if count <= 10_000:  # minutes above
        ways.append(("thin-plate splines (scipy)", partial(splines, x, queries, now), ""))
    return [
        {
            "dim": dim,
            "points": count,
            "method": name,
            "ms a frame": 1e3 * cost(work, repeats),
            "ms an anchor": anchoring,
            "error / displacement": relative(work(), truth, queries),
        }
        for name, work, anchoring in ways
    ]


@torch.no_grad()
def anchoring(networks: dict[int, KernelUpsampler], count: int, total: int) -> list[Row]:
    """Relative error after so many frames, by the frames between anchors."""
    rows = []
    marks = [k for k in (10, 25, 50, 100, 150) if k <= total]
    for dim, network in networks.items():
        path = [torch.rand(count, dim, generator=torch.Generator().manual_seed(5))]
        for _ in range(total):
            path.append(advance(path[-1], velocity, STEP))
        sparse = farthest_points(path[0], SPARSE)
        for name, model in (("trained", network), ("no correction", KernelUpsampler(dim, correction=False))):
            for every in (None, 50, 20, 10, 5, 1):
                row: Row = {"dim": dim, "correction": name, "anchored every": every or "never again"}
                start = time.process_time()
                found = {}
                for k, points in enumerate(follow(model, (x[sparse] for x in path), path[0], every)):
                    if k in marks:
                        found[k] = points
                row["ms a frame"] = 1e3 * (time.process_time() - start) / total
                row |= {f"error at {k}": relative(found[k], path[k], path[0]) for k in marks}
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="few points and frames, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    short = arguments.short
    networks = {dim: trained(dim, 20 if short else 2000) for dim in (2, 3)}
    report(
        "upsampling",
        "What does it cost to deliver dense points from 1,000 particles, and how exact are they?",
        frames(networks, (1000,) if short else (1000, 10_000, 100_000), 2 if short else 7),
        [
            "Processor time of one thread. The positions after 10 frames of the vortex, 0.02 s each, from those of the "
            "sparse particles then and of all at the start; the correction was trained on other flows, half of them "
            "with random sparse particles.",
            "A way that needs no search in a frame pays for it once, at the anchor.",
        ],
    )
    report(
        "upsampling_anchors",
        "How often must the upsampler be anchored in a flow that mixes?",
        anchoring(networks, 3000 if short else 20_000, 25 if short else 150),
        ["The same vortex; 150 frames are up to one and a half turns, and neighbours separate on the way."],
    )


if __name__ == "__main__":
    main()

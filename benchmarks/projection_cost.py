"""Cost of making a velocity divergence-free, beside one forward pass of the cavity recipe's U-Net.

    python benchmarks/projection_cost.py [--short] [--threads 1]

Each method on white noise in float32, forward only; ``after`` is the divergence that is left, by the stencil that the
method makes zero (``mac``: the solver's, of the faces), relative to the velocity.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from harness import Row, report
from torch import Tensor

from sciml.constraints.base import Context
from sciml.constraints.divergence_free import DivergenceFree, StreamFunction, project_faces
from sciml.operators import create_operator
from sciml.physics import MovingWall, Periodic, Wall, box, divergence, metrics, sides
from sciml.problems import get_problem

Work = tuple[str, Callable[[], object], float | str]


def unet(x: Tensor) -> Callable[[], object]:
    """The cavity recipe's operator, as built for a velocity and a pressure at this resolution."""
    options = dict(get_problem("cavity").recipe()["operator"])
    torch.manual_seed(0)
    model = create_operator(options.pop("name"), in_channels=3, out_channels=3, **options).eval()
    return lambda: model(x)


def context_of(n: int, batch: int, *, periodic: bool = False, fluid: Tensor | None = None) -> Context:
    grid = box((n, n), torch.linspace(1, 2, batch)[:, None].expand(batch, 2), periodic=periodic)
    walls = {side: Periodic() if periodic else Wall() for side in sides(2)}
    if not periodic:
        walls["y_high"] = MovingWall((1.0, 0.0))
    return Context(grid, {"velocity": slice(0, 2)}, {"velocity": walls}, fluid)


def disk(n: int) -> Tensor:
    """Fluid around a disk of a third of the box."""
    x = (torch.arange(n) + 0.5) / n - 0.5
    return (x[:, None] ** 2 + x**2 > 1 / 36)[None]


def left_at_faces(faces: tuple[Tensor, ...], context: Context) -> float:
    """rms of h D f over the rms of f."""
    exact = metrics(context.grid, dtype=torch.float64)
    rest = divergence(tuple(f.double() for f in faces), exact) / exact[0].inverse_width
    size = sum(f.double().square().mean() for f in faces)
    return float((rest.square().mean() / size).sqrt())


def jobs(n: int, batch: int) -> Iterator[Work]:
    """Name, work and the divergence left of every method."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, n, n, generator=generator)
    yield "U-Net of the cavity, forward", unet(x), ""
    u = x[:, :2].contiguous()
    boxed, periodic, blocked = (
        context_of(n, batch),
        context_of(n, batch, periodic=True),
        context_of(n, batch, fluid=disk(n)),
    )
    mac = DivergenceFree()
    for name, context in (("mac, walls", boxed), ("mac, periodic", periodic), ("mac, walls and a disk", blocked)):
        left = left_at_faces(mac.faces(u, context), context)
        yield name, lambda c=context: mac(u, c), left
    for method in ("spectral", "central"):
        layer = DivergenceFree(method)
        left = float(layer.residual(layer(u, periodic), periodic).max())
        yield method, lambda m=layer: m(u, periodic), left
    stream = StreamFunction()
    psi = x[:, :1].contiguous()
    yield "stream function", lambda: stream(psi, boxed), left_at_faces(stream.faces(psi, boxed), boxed)
    shapes = [(batch, *boxed.grid.face_shape(i)) for i in range(2)]
    faces = tuple(torch.randn(shape, generator=generator) for shape in shapes)
    for name, context in (("face velocities, walls", boxed), ("face velocities, walls and a disk", blocked)):

        def project(c: Context = context) -> tuple[Tensor, ...]:
            return project_faces(faces, c.grid, c.boundaries["velocity"], fluid=c.fluid)

        yield name, project, left_at_faces(project(), context)


@torch.inference_mode()
def rows(short: bool) -> list[Row]:
    table = []
    for n in (64,) if short else (128, 512):
        for batch in (1, 8):
            reference = None
            for name, work, left in jobs(n, batch):
                seconds = median_time(work, 2 if short else 5)
                reference = seconds if reference is None else reference
                table.append(
                    {
                        "method": name,
                        "grid": n,
                        "batch": batch,
                        "ms": 1e3 * seconds,
                        "of a U-Net forward": seconds / reference,
                        "after": left,
                    }
                )
    return table


def median_time(work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="64 x 64 only, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(
        "projection_cost",
        "What does a divergence-free velocity cost beside the network that predicts it?",
        rows(arguments.short),
        [
            "float32 in and out; all projections compute in float64. The matrices of the axes are made at the first "
            "call and kept, which is not counted.",
            "Beside the disk conjugate gradients iterate with the projection without it.",
        ],
    )


if __name__ == "__main__":
    main()

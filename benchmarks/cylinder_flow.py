"""Flow past a cylinder: the benchmarks of Schaefer and Turek, the cost of cases for data, one case against a batch.

python benchmarks/cylinder_flow.py [--short]

One thread; times are CPU seconds of the process, meshes and factorisations counted.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from harness import Row, report
from torch import Tensor

from sciml.solvers.flow_past_cylinder import FlowPastCylinder

DRAG_1, PRESSURE_DROP_1 = 5.57953523384, 0.11752016697
"""2D-1, digits of Nabh (1998)."""

MOST_DRAG_2, LIFT_RANGE_2, STROUHAL_2 = 3.227393, 2.007871, 0.301841
"""2D-2, finest series of FEATFLOW, inside the bounds of Schaefer and Turek (1996)."""

OPENFOAM_SECONDS = 253.7
"""icoFoam of OpenFOAM 1912 on 11936 cells, 15000 steps of 2D-2 on this machine: St -1.9 %, largest drag -0.8 %, range
of the lift -3.7 %."""

FRAME = 0.04


def flow_of(rows: list[tuple], **options: float) -> FlowPastCylinder:
    """Each row: lengths, centre, radius, speed, viscosity."""
    return FlowPastCylinder(
        *(torch.tensor(list(part), dtype=torch.float64) for part in zip(*rows, strict=True)), **options
    )


def benchmark_channel(speed: float, **options: float) -> FlowPastCylinder:
    return flow_of([((2.2, 0.41), (0.2, 0.2), 0.05, speed, 1e-3)], **options)


def data_cases(count: int) -> list[tuple]:
    """Channels of 16 x 8 diameters at Re 100; the disc moves a little from case to case."""
    return [((16.0, 8.0), (4.0, 4.0 + 0.05 * number), 0.5, 1.0, 0.01) for number in range(count)]


def coefficients(flow: FlowPastCylinder, forces: Tensor) -> Tensor:
    return forces / (flow.cases.speed**2 * flow.cases.radius).unsqueeze(1)


def steady(h: float, h_disc: float) -> Row:
    """2D-1 after 40 D / U."""
    cpu = time.process_time()
    flow = benchmark_channel(0.2, h=h, h_disc=h_disc)
    state = flow.initial_state(spin_up=40.0, kick=0.0)
    drag = float(coefficients(flow, flow.forces(state))[0, 0])
    front, back = flow.pressure_at(state, torch.tensor([[0.15, 0.2], [0.25, 0.2]], dtype=torch.float64))[0].tolist()
    return {
        "case": "2D-1, Re 20",
        "h": h,
        "h_disc": h_disc,
        "nodes": len(flow.meshes[0].nodes(2)),
        "drag %": 100 * (drag / DRAG_1 - 1),
        "pressure drop %": 100 * ((front - back) / PRESSURE_DROP_1 - 1),
        "CPU s": time.process_time() - cpu,
    }


def shed(flow: FlowPastCylinder, spin_up: float, duration: float) -> tuple[float, float, float, float]:
    """Largest and mean drag, range of the lift and Strouhal number of the last ``duration`` D / U."""
    state = flow.initial_state(spin_up=spin_up, kick=1.0)
    found = []
    for _ in range(round(duration / FRAME)):
        state = flow.advance(state, FRAME * flow.cases.time_unit)
        found.append(coefficients(flow, flow.forces(state))[0])
    drag, lift = torch.stack(found).numpy().T
    level = lift - lift.mean()
    up = np.flatnonzero((level[:-1] < 0) & (level[1:] >= 0))
    crossings = up - level[up] / (level[up + 1] - level[up])
    strouhal = (len(crossings) - 1) / (crossings[-1] - crossings[0]) / FRAME
    return drag.max(), drag.mean(), np.ptp(lift), strouhal


def shedding(h: float, h_disc: float) -> Row:
    """2D-2: 50 D / U from the start, then four periods."""
    cpu = time.process_time()
    flow = benchmark_channel(1.0, h=h, h_disc=h_disc)
    drag, _, lift, strouhal = shed(flow, 50.0, 14.0)
    cpu = time.process_time() - cpu
    return {
        "case": "2D-2, Re 100",
        "h": h,
        "h_disc": h_disc,
        "nodes": sum(len(mesh.nodes(2)) for mesh in flow.meshes),
        "largest drag %": 100 * (drag / MOST_DRAG_2 - 1),
        "lift range %": 100 * (lift / LIFT_RANGE_2 - 1),
        "Strouhal %": 100 * (strouhal / STROUHAL_2 - 1),
        "CPU s": cpu,
        "OpenFOAM / this": OPENFOAM_SECONDS / cpu,
    }


def data_accuracy(options: dict[str, float]) -> Row:
    flow = flow_of(data_cases(1), **options)
    _, drag, lift, strouhal = shed(flow, 35.0, 16.0)
    return {
        "mesh": ", ".join(f"{name} {value:g}" for name, value in options.items()) or "default",
        "nodes": len(flow.meshes[0].nodes(2)),
        "mean drag": drag,
        "lift range": lift,
        "Strouhal": strouhal,
    }


def data_cost(batch: int, duration: float, rounds: int) -> Row:
    """Frames every 0.5 D / U, sampled on 128 x 64 cells; the best of ``rounds``."""
    best = float("inf")
    for _ in range(rounds):
        cpu = time.process_time()
        flow = flow_of(data_cases(batch))
        state = flow.initial_state(spin_up=0.5)
        for _ in range(round(duration / 0.5) - 1):
            state = flow.advance(state, 0.5 * flow.cases.time_unit)
            flow.sample(state, (128, 64))
            flow.forces(state)
        best = min(best, (time.process_time() - cpu) / batch)
    return {"cases at once": batch, "CPU s per case and 40 D/U": best * 40 / duration}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Flow past a cylinder: accuracy and cost.")
    parser.add_argument("--short", action="store_true", help="coarse meshes and short runs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = [(0.5, 0.15), (0.3, 0.06), (0.2, 0.04)]
    report(
        "cylinder_steady",
        "Flow past a cylinder, steady: how far from the benchmark 2D-1?",
        [steady(*size) for size in (sizes[:2] if options.short else sizes)],
        ["errors in per cent of the reference; h, h_disc in diameters"],
    )
    sizes = [(0.4, 0.1), (0.3, 0.08), (0.25, 0.06), (0.2, 0.05)]
    report(
        "cylinder_shedding",
        "Flow past a cylinder, shedding: how far from the benchmark 2D-2, and how fast against OpenFOAM?",
        [shedding(*size) for size in (sizes[:2] if options.short else sizes)],
        [
            "64 D / U in all, frames of 0.04 D / U",
            f"OpenFOAM 1912 took {OPENFOAM_SECONDS:g} CPU s for a run with errors of -0.8, -3.7 and -1.9 %",
        ],
    )
    meshes: list[dict[str, float]] = [{"h": 0.5, "h_disc": 0.15}, {}, {"h": 0.3, "h_disc": 0.08, "cfl": 0.2}]
    report(
        "cylinder_data_mesh",
        "Flow past a cylinder, 16 D x 8 D at Re 100: is the default mesh good enough for data?",
        [
            data_accuracy(mesh)
            for mesh in (meshes if options.short else [*meshes, {"h": 0.2, "h_disc": 0.05, "cfl": 0.2}])
        ],
        ["coefficients on the mean speed and the diameter"],
    )
    duration, rounds = (5.0, 1) if options.short else (20.0, 2)
    report(
        "cylinder_batch",
        "Flow past a cylinder: what does a case cost, alone and in a batch?",
        [data_cost(batch, duration, rounds) for batch in (1, 8)],
        ["default mesh, a sample of 128 x 64 cells every 0.5 D / U"],
    )


if __name__ == "__main__":
    main()

"""Water and air: how well the two-phase solver does a known flow, and what a dam case costs.

python benchmarks/two_phase.py [--skip-dam]

First Martin and Moyce's collapsing column with both pressures at two resolutions: deviation of the front from the
experiment (T >= 0.8, shifted by the 0.175 that its gate took), water lost, bounds exceeded, CPU seconds of one thread.
Then a dam (1.5 m x 0.5 m, inlet below y = 0.1, barrier 0.1 m x 0.05 m at x = 0.5, 4 s, 1000 : 1.2), alone and eight at
once.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from harness import Row, report

from sciml.solvers.two_phase import Inlet, Open, TwoPhaseSolver, TwoPhaseState

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "solvers"))
from two_phase_helpers import COLUMN_WIDTH, FRONT, RELEASE, column, front

INTERFOAM_SECONDS = 5.9
"""CPU seconds of OpenFOAM's interFoam for the column at 120 x 60 on the machine of the reference measurements."""


class Watch:
    """What a run has done so far: CPU seconds, violations of 0 <= fraction <= 1, water lost, divergence."""

    def __init__(self, solver: TwoPhaseSolver, start: TwoPhaseState) -> None:
        self.solver, self.water = solver, solver.volume(start)
        self.bounds = self.lost = self.divergence = 0.0
        self.seconds, self._since = 0.0, time.process_time()

    def see(self, state: TwoPhaseState) -> None:
        """To be called between two calls of ``advance``; its own time does not count."""
        self.seconds += time.process_time() - self._since
        self.bounds = max(self.bounds, float(-state.fraction.min()), float(state.fraction.max() - 1))
        lost = self.solver.volume(state) - state.entered - self.water
        self.lost = max(self.lost, float((lost / self.solver.volume(state)).abs().max()))
        self.divergence = max(self.divergence, float(self.solver.divergence(state).abs().max()))
        self._since = time.process_time()

    def columns(self) -> Row:
        return {"water lost": self.lost, "bounds exceeded": self.bounds, "divergence 1/s": self.divergence}


@torch.inference_mode()
def collapsing_column(n: int, pressure: str) -> Row:
    solver, state = column(n, pressure=pressure)
    unit, now, deviations = (COLUMN_WIDTH / (2 * 9.81)) ** 0.5, 0.0, []
    watch = Watch(solver, state)
    for instant, position in list(zip(FRONT["T"], FRONT["Z"], strict=True))[1:]:
        state = solver.advance(state, (instant - RELEASE - now) * unit)
        now = instant - RELEASE
        watch.see(state)
        deviations.append(front(state, COLUMN_WIDTH / n) / COLUMN_WIDTH / position - 1)
    return {
        "flow": f"column, {pressure}",
        "cells": f"{6 * n}x{3 * n}",
        "front, mean": f"{100 * sum(deviations) / len(deviations):+.1f} %",
        "front, worst": f"{100 * max(deviations, key=abs):+.1f} %",
        **watch.columns(),
        "CPU s per case": watch.seconds,
        "interFoam / this": INTERFOAM_SECONDS / watch.seconds if n == 20 else "",
    }


@torch.inference_mode()
def dam(batch: int, cells: tuple[int, int], speeds: tuple[float, float] = (0.8, 1.2)) -> Row:
    """``batch`` dams with inlet speeds in this range."""
    speed = torch.linspace(*speeds, batch) if batch > 1 else torch.tensor([sum(speeds) / 2])
    x = (torch.arange(cells[0]) + 0.5) * 1.5 / cells[0]
    y = (torch.arange(cells[1]) + 0.5) * 0.5 / cells[1]
    solid = ((x > 0.5) & (x < 0.55))[:, None] & (y < 0.1)
    solver = TwoPhaseSolver(
        torch.tensor([[1.5, 0.5]], dtype=torch.float64).expand(batch, 2),
        cells,
        densities=(1000.0, 1.2),
        viscosities=(1e-3, 1.8e-5),
        sides={"x_low": Inlet((y < 0.1) * speed[:, None]), "x_high": Open(), "y_high": Open()},
        solid=solid.expand(batch, *cells).clone(),
    )
    state = solver.initial_state(torch.zeros(batch, *cells, dtype=torch.float64))
    watch = Watch(solver, state)
    for _ in range(40):
        state = solver.advance(state, 0.1)
        watch.see(state)
    return {
        "flow": f"dam 4 s, {'alone' if batch == 1 else f'batch of {batch}'}",
        "cells": f"{cells[0]}x{cells[1]}",
        **watch.columns(),
        "CPU s per case": watch.seconds / batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-dam", action="store_true", help="the column only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [collapsing_column(n, pressure) for n in (10, 20) for pressure in ("direct", "split")]
    if not args.skip_dam:
        rows += [dam(batch, cells) for cells in ((96, 32), (144, 48)) for batch in (1, 8)]
    notes = [
        "The front is that of Martin and Moyce (1952), T >= 0.8, shifted by T = 0.175; codes that agree without the "
        "shift are too diffusive.",
        "interFoam (OpenFOAM 1912): 5.9 CPU s at 120x60, measured on another day; front +2.3 % with the shift.",
        "The split pressure takes steps of 40 / density ratio of a cell, the direct one of 0.45.",
    ]
    report("two_phase", "Water and air: known flow, conservation and cost", rows, notes)


if __name__ == "__main__":
    main()

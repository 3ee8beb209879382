"""Water and air in boxes that several tests of the two-phase solver share."""

import torch

from sciml.solvers.two_phase import Inlet, Open, TwoPhaseSolver, TwoPhaseState

WATER_AND_AIR = {"densities": (1000.0, 1.2), "viscosities": (1e-3, 1.8e-5)}
COLUMN_WIDTH = 0.05715

# Martin and Moyce, Phil. Trans. R. Soc. Lond. A 244 (1952) 312, table 2: column of width a = 2.25 in and height 2 a;
# T = t sqrt(2 g / a), Z = front / a
FRONT = {
    "T": (0.41, 0.84, 1.19, 1.43, 1.63, 1.83, 1.98, 2.2, 2.32, 2.51, 2.65, 2.83, 2.98, 3.11, 3.33),
    "Z": (1.11, 1.22, 1.44, 1.67, 1.89, 2.11, 2.33, 2.56, 2.78, 3.0, 3.22, 3.44, 3.67, 3.89, 4.11),
}
RELEASE = 0.175  # the finite time in which the experiment's gate opened, in T


def dam(
    speed, cells=(48, 16), *, fluids=WATER_AND_AIR, barrier=0.125, **options
) -> tuple[TwoPhaseSolver, torch.Tensor]:
    """A channel of 1.5 m x 0.5 m, water entering below y = 0.125 at ``speed`` (one number per case), a barrier of this
    height at 0.5 m < x < 0.625 m, open above and at the end; and the dry channel."""
    speed = torch.as_tensor(speed, dtype=torch.float64)
    lengths = torch.tensor([[1.5, 0.5]], dtype=torch.float64).expand(len(speed), 2)
    x = (torch.arange(cells[0]) + 0.5) * 1.5 / cells[0]
    y = (torch.arange(cells[1]) + 0.5) * 0.5 / cells[1]
    solid = ((x > 0.5) & (x < 0.625))[:, None] & (y < barrier)
    sides = {"x_low": Inlet((y < 0.125) * speed[:, None]), "x_high": Open(), "y_high": Open()}
    solver = TwoPhaseSolver(
        lengths, cells, sides=sides, solid=solid.expand(len(speed), *cells).clone(), **{**fluids, **options}
    )
    return solver, torch.zeros(len(speed), *cells, dtype=torch.float64)


def column(n, **options) -> tuple[TwoPhaseSolver, TwoPhaseState]:
    """Martin and Moyce's column with n cells to its width, in a box of 6 x 3 widths."""
    lengths = torch.tensor([[6.0, 3.0]], dtype=torch.float64) * COLUMN_WIDTH
    solver = TwoPhaseSolver(lengths, (6 * n, 3 * n), **{**WATER_AND_AIR, **options})
    fraction = torch.zeros(1, 6 * n, 3 * n, dtype=torch.float64)
    fraction[:, :n, : 2 * n] = 1.0
    return solver, solver.initial_state(fraction)


def front(state: TwoPhaseState, spacing: float) -> float:
    """Where the water on the floor ends: fraction 1/2 between the centres of the last wet cell and the next."""
    floor = state.fraction[0, :, 0]
    last = int((floor > 0.5).nonzero()[-1])
    here, there = float(floor[last]), float(floor[last + 1])
    return spacing * (last + 0.5 + (here - 0.5) / (here - there))


def front_deviations(n, **options) -> torch.Tensor:
    """Relative deviations of the front from the experiment, T >= 0.8, with the release of its gate."""
    solver, state = column(n, **options)
    unit = (COLUMN_WIDTH / (2 * 9.81)) ** 0.5
    now, deviations = 0.0, []
    for time, position in list(zip(FRONT["T"], FRONT["Z"], strict=True))[1:]:
        state = solver.advance(state, (time - RELEASE - now) * unit)
        now = time - RELEASE
        deviations.append(front(state, COLUMN_WIDTH / n) / COLUMN_WIDTH / position - 1)
    return torch.tensor(deviations)


def largest(*differences: torch.Tensor) -> float:
    return max(float(d.abs().max()) for d in differences)

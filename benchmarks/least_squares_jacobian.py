"""What the structured Jacobian saves, and what a Levenberg-Marquardt iteration costs.

python benchmarks/least_squares_jacobian.py

The residual is -u_xx + 10 u^3 - f with tanh features, pointwise in (u, u_xx), 4096 rows in all, float64, one thread.
The Jacobian by `PointwiseProblem` (one reverse pass of the pointwise function) beside forward-mode columns of the same
residual by vmap of jvp, as in `GenericProblem`. Then a whole iteration: step, trial cost and new linearisation, for K
tiles that are independent or coupled in a line. CPU time of the process, minimum of repeats, so that other work on the
machine hardly matters.

Gate: at least 10 times faster at 4096 rows and 64 basis functions.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from harness import report

from sciml.constraints.least_squares import Options, PointwiseProblem, least_squares
from sciml.constraints.least_squares.problem import columns

GATE = 10.0
POINTS = 4096
D = torch.float64


def terms(tiles: int, functions: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """u and u_xx of tanh features on each tile, ``(1, K, M, N)``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 1, POINTS // tiles, dtype=D)[:, None]
    slope = 1 + 9 * torch.rand(1, tiles, 1, functions, generator=generator, dtype=D)
    centre = torch.rand(1, tiles, 1, functions, generator=generator, dtype=D)
    value = torch.tanh(slope * (x - centre))
    return value, -2 * slope**2 * value * (1 - value**2)


def residual(values: tuple[torch.Tensor, ...], forcing: torch.Tensor) -> torch.Tensor:
    return 10 * values[0] ** 3 - values[1] - forcing


def problem(tiles: int, functions: int, coupled: bool) -> PointwiseProblem:
    """One sample; ``coupled``: value and slope continue across tiles in a line."""
    value, curvature = terms(tiles, functions)
    x = torch.linspace(0, 1, POINTS, dtype=D).reshape(1, tiles, -1)
    forcing = 5 * torch.sin(torch.pi * x)
    rows = None
    if coupled:
        step = 1 / (POINTS // tiles)
        matrix = torch.zeros(1, 2 * (tiles - 1) + 2, tiles, functions, dtype=D)
        for k in range(tiles - 1):
            matrix[:, 2 * k, k], matrix[:, 2 * k, k + 1] = value[:, k, -1], -value[:, k + 1, 0]
            matrix[:, 2 * k + 1, k] = (value[:, k, -1] - value[:, k, -2]) / step
            matrix[:, 2 * k + 1, k + 1] = -(value[:, k + 1, 1] - value[:, k + 1, 0]) / step
        matrix[:, -2, 0], matrix[:, -1, -1] = value[:, 0, 0], value[:, -1, -1]
        rows = matrix.flatten(2), torch.zeros(1, matrix.shape[1], dtype=D)
    return PointwiseProblem((value, curvature), residual, (forcing,), rows, ridge=1e-6)


def cpu_ms(function: Callable[[], Any], repeats: int) -> float:
    """Least CPU time of this process, milliseconds."""
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return 1e3 * best


def jacobian_rows(repeats: int) -> list[dict[str, Any]]:
    """One row a number of basis functions: milliseconds for J alone, and with J'J and gradient."""
    rows = []
    for functions in (16, 64):
        given = problem(1, functions, coupled=False)
        w = given.pack(torch.ones(1, functions, dtype=D))
        data = given.prepare(*given.parameters)

        def by_columns(w: torch.Tensor = w, given: PointwiseProblem = given, data: Any = data) -> torch.Tensor:
            return columns(lambda x: given.rows(x, data), w, POINTS)

        def structured(w: torch.Tensor = w, given: PointwiseProblem = given, data: Any = data) -> torch.Tensor:
            return given.jacobian(w[:, None], data)[1]

        torch.testing.assert_close(structured()[0, 0], by_columns()[0, :POINTS])
        fast, slow = cpu_ms(structured, repeats), cpu_ms(by_columns, max(3, repeats // 5))
        linearised = cpu_ms(lambda w=w, given=given, data=data: given.linearise(w, data), repeats)
        rows.append(
            {
                "what": f"Jacobian, {POINTS} rows x {functions}",
                "structured_ms": fast,
                "forward_columns_ms": slow,
                "ratio": slow / fast,
                "with_gram_ms": linearised,
            }
        )
    return rows


def iteration_rows(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds an iteration for 64 basis functions a tile and 4096 points in all, by the difference of two solves
    of 2 and 8 iterations that are kept from converging."""
    rows = []
    for coupled in (False, True):
        for tiles in (1, 4, 16, 64):
            if coupled and tiles == 1:
                continue
            given = problem(tiles, 64, coupled)
            milliseconds = (solve_ms(given, 8, repeats) - solve_ms(given, 2, repeats)) / 6
            band = given.coupling.bandwidth if given.coupling else 0
            rows.append(
                {
                    "what": f"iteration, {'coupled' if coupled else 'independent'}, K = {tiles}, 64 functions a tile",
                    "matrix": f"{'dense' if band is None else f'band of {band} tiles'}, {given.shape[1:4:2].numel()}"
                    if coupled
                    else f"{tiles} of 64",
                    "ms": milliseconds,
                }
            )
    return rows


def solve_ms(given: PointwiseProblem, iterations: int, repeats: int) -> float:
    """Time of a solve of just so many iterations, milliseconds."""
    tolerance = 1e-300
    options = Options(
        max_iterations=iterations,
        gradient_tolerance=tolerance,
        step_tolerance=tolerance,
        cost_tolerance=tolerance,
        max_damping=1e300,
    )
    start = torch.ones(1, given.shape[1:4:2].numel(), dtype=D)

    def solve() -> None:
        solution = least_squares(given, start, options=options, gradient="none", on_failure="mask")
        assert bool((solution.report.iterations == iterations).all()), solution.report

    return cpu_ms(solve, repeats)


def main() -> int:
    """Print the tables; exit 1 when the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    jacobians = jacobian_rows(arguments.repeats)
    iterations = iteration_rows(arguments.repeats)
    ratio = jacobians[-1]["ratio"]
    verdict = "met" if ratio >= GATE else "MISSED"
    report(
        "least_squares_jacobian",
        "How much faster is the structured Jacobian than forward-mode columns?",
        jacobians,
        [f"gate: at least {GATE:g} times at {POINTS} rows and 64 functions; measured {ratio:.1f} ({verdict})"],
    )
    report(
        "least_squares_iteration",
        f"What does a Levenberg-Marquardt iteration cost, {POINTS} points in all?",
        iterations,
        ["one sample, float64; coupled: value and slope continue across tiles in a line"],
    )
    return 0 if ratio >= GATE else 1


if __name__ == "__main__":
    raise SystemExit(main())

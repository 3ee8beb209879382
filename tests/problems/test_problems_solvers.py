"""Every problem's solver through the same checks: symmetry, rate of convergence, gradient, restart.

(That a batch equals its cases one by one, and float32 agrees with float64, is in ``test_problems_registry.py``.) The
checks go through ``problem.solve`` in float64, so that they hold for what users call. Grids are refined by three: then
every cell centre of the coarse grid is one of the fine grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sciml.problems import PROBLEMS, get_problem

Solution = dict[str, Tensor]


@dataclass(frozen=True)
class Solver:
    """A small case of a problem.

    ``start``: the option of ``solve`` that takes an input field, "" if it starts from rest. ``mirrored(values, field,
    times)`` is an equivalent question and what turns its answer into the answer of the original; ``order``: of the
    scheme in space, None where it is spectral.
    """

    values: dict[str, float]
    times: tuple[float, ...] | None
    n: int
    learned: str
    varied: str
    order: float | None
    mirrored: Callable
    start: str = "initial"
    refined: int = 1


def transposed(values, field, times):
    """x and y change places, with the components of a vector."""
    swap = field.transpose(2, 3)
    return values, swap.flip(1) if field.shape[1] == 2 else swap, times, _swap_back


def _swap_back(answer: Tensor) -> Tensor:
    answer = answer.transpose(3, 4)
    return answer.flip(2) if answer.shape[2] == 2 else answer


def species_transposed(values, field, times):
    """x and y change places; two species are not the components of a vector."""
    return values, field.transpose(2, 3), times, lambda answer: answer.transpose(3, 4)


def cycled(values, field, times):
    """x -> y -> z -> x, with the components of a vector."""
    turn = field.permute(0, 1, 4, 2, 3)
    turn = turn.roll(1, 1) if field.shape[1] == 3 else turn

    def back(answer):
        answer = answer.permute(0, 1, 2, 4, 5, 3)
        return answer.roll(-1, 2) if answer.shape[2] == 3 else answer

    return values, turn, times, back


def vorticity_transposed(values, field, times):
    """Vorticity changes its sign with the orientation."""
    x, y = values["forcing_wavenumber_x"], values["forcing_wavenumber_y"]
    turned = values | {"forcing_wavenumber_x": y, "forcing_wavenumber_y": x}
    turned["forcing_phase"] = values["forcing_phase"] + math.pi
    return turned, -field.transpose(2, 3), times, lambda answer: -answer.transpose(3, 4)


def reversed_axis(values, field, times):
    """x -> -x and u -> -u."""
    return values, -field.flip(2), times, lambda answer: -answer.flip(3)


def upside_down(values, field, times):
    """A channel is its own mirror image."""
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(2, 1, 1)
    return values, None, times, lambda answer: answer.flip(4) * sign


def similar(values, field, times):
    """A box of twice the size with half the speed: the same Reynolds number, four times as slow."""
    larger = values | {"lid_velocity": 0.5 * values["lid_velocity"], "height": 2.0, "width": 2.0}
    return larger, None, tuple(4 * t for t in times), lambda answer: 2 * answer


def more_solute(values, field, times):
    """With a linear isotherm (exponent 1) the equation is linear."""
    return values | {"inlet": 3.0}, 3 * field, times, lambda answer: answer / 3


SOLVERS = {
    ("cavity", 2): Solver(
        {"lid_velocity": 1.0, "density": 1.0, "viscosity": 0.1, "height": 1.0, "width": 1.0},
        *((0.0, 0.1, 0.2), 8, "velocity", "viscosity", 1.5, similar, ""),
    ),
    ("tube", 2): Solver(
        {"inlet_velocity": 1.0, "density": 1.0, "viscosity": 0.1, "height": 1.0, "length": 2.0},
        *((0.0, 0.1, 0.2), 8, "velocity", "viscosity", 1.5, upside_down, ""),
    ),
    ("periodic_flow", 2): Solver(
        {"viscosity": 0.5, "speed": 1.0, "waves": 1.0, "vortex": 0.0, "draw": 3.0},
        *((0.0, 0.2, 0.4), 16, "velocity", "viscosity", 2.0, transposed),
    ),
    ("periodic_flow", 3): Solver(
        {"viscosity": 0.5, "speed": 1.0, "waves": 1.0, "vortex": 0.0, "draw": 3.0},
        *((0.0, 0.1, 0.2), 12, "velocity", "viscosity", 2.0, cycled),
        refined=0,
    ),
    ("vorticity", 2): Solver(
        {"viscosity": 0.02, "forcing": 1.0, "forcing_wavenumber_x": 1.0, "forcing_wavenumber_y": 2.0,
         "forcing_phase": 0.3, "drag": 0.1, "initial_smoothness": 6.0, "draw": 3.0},
        *((0.0, 0.2, 0.4), 24, "vorticity", "viscosity", None, vorticity_transposed),
    ),
    ("burgers", 1): Solver(
        {"viscosity": 0.1, "length": 1.0, "amplitude": 0.5, "draw": 3.0},
        *((0.0, 0.1, 0.2), 48, "velocity", "viscosity", None, reversed_axis),
    ),
    ("burgers", 2): Solver(
        {"viscosity": 0.2, "length": 1.0, "amplitude": 0.3, "draw": 3.0},
        *((0.0, 0.1, 0.2), 32, "velocity", "viscosity", None, transposed),
    ),
    ("gray_scott", 2): Solver(
        {"feed": 0.03, "kill": 0.06, "length": 0.3, "draw": 3.0},
        *((0.0, 20.0, 40.0), 48, "species_b", "feed", None, species_transposed),
    ),
    ("gray_scott", 3): Solver(
        {"feed": 0.03, "kill": 0.06, "length": 0.3, "draw": 3.0},
        *((0.0, 10.0, 20.0), 32, "species_b", "feed", None, cycled),
        refined=0,
    ),
    ("diffusion_sorption", 1): Solver(
        {"initial": 0.1, "exponent": 1.0},
        *((0.0, 40.0, 80.0), 24, "concentration", "diffusivity", 1.8, more_solute),
    ),
    ("darcy", 2): Solver(
        {"low": 1.0, "high": 3.0, "source": 1.0, "piecewise": 0.0, "draw": 3.0},
        *(None, 12, "pressure", "source", 1.8, transposed, "permeability"),
    ),
}  # fmt: skip
KEYS = sorted(SOLVERS)


ELSEWHERE = {("cylinder", 2), ("dam", 2), ("two_phase_tube", 2)}
"""Not differentiable, and of lower order at bodies and interfaces: their own tests, and those of their solvers."""


def test_every_problem_is_in_the_table():
    assert set(SOLVERS) == {(name, dim) for name, problem in PROBLEMS.items() for dim in problem.dims} - ELSEWHERE


def solve(name: str, dim: int, n: int | None = None, field: Tensor | None = None, **changes) -> Solution:
    case = SOLVERS[name, dim]
    times = changes.pop("times", case.times)
    options = {} if field is None else {case.start: field}
    values = case.values | changes
    resolution = (n or case.n) if field is None else None
    if field is None:
        return get_problem(name, dim).solve(values, resolution, times, dtype=torch.float64)
    grid = tuple(field.shape[2:])
    return get_problem(name, dim).solve(values, grid, times, dtype=torch.float64, **options)


def start_of(name: str, dim: int, solution: Solution) -> Tensor:
    """The input field of a solution, all species of it."""
    if name == "darcy":
        return solution["permeability"][:, 0]
    if name == "gray_scott":
        return torch.cat([solution["species_a"], solution["species_b"]], 2)[:, 0]
    return solution[SOLVERS[name, dim].learned][:, 0]


@pytest.mark.parametrize(("name", "dim"), KEYS)
def test_an_equivalent_question_has_an_equivalent_answer(name, dim):
    case = SOLVERS[name, dim]
    straight = solve(name, dim)
    field = start_of(name, dim, straight) if case.start else None
    if field is not None:  # a periodic flow makes its initial velocity divergence-free once more
        straight = solve(name, dim, field=field)
    values, turned, times, back = case.mirrored(case.values, field, case.times)
    answer = solve(name, dim, field=turned, **({"times": times} if times else {}), **values)[case.learned]
    expected = straight[case.learned]
    largest = float(expected.abs().max())
    torch.testing.assert_close(back(answer), expected, rtol=0, atol=1e-9 * largest)
    if name not in ("cavity", "tube", "diffusion_sorption"):
        assert float((answer - expected).abs().max()) > 1e-3 * largest, "the question was not its own mirror image"


@pytest.mark.parametrize(("name", "dim"), [key for key in KEYS if SOLVERS[key].refined])
def test_refinement_converges_at_the_rate_of_the_scheme(name, dim):
    case = SOLVERS[name, dim]
    grids = [case.n, 3 * case.n, 9 * case.n] if case.order else [case.n, 3 * case.n]
    answers = []
    for level, n in enumerate(grids):
        answer = solve(name, dim, n)[case.learned][:, -1]
        for axis in range(2, 2 + dim):  # the cell centres that all grids share
            answer = answer.index_select(axis, torch.arange((3**level - 1) // 2, answer.shape[axis], 3**level))
        answers.append(answer)
    # The edge of the lid and of the inlet are singular: the order is that of the rest.
    inner = answers[0].shape[-1] // 8 if case.start == "" else 0
    window = (..., *[slice(2 * inner, -2 * inner if inner else None)] * dim)
    errors = [float((answer - answers[-1])[window].norm() / answers[-1][window].norm()) for answer in answers[:-1]]
    if case.order is None:
        assert errors[0] < 2e-3, "spectral: the coarse grid has it almost all"
        return
    rate = math.log(errors[0] / errors[1]) / math.log(3)  # the finest grid's own error makes it 0.1 too large
    assert rate > case.order and errors[1] < 0.02, (errors, rate)


@pytest.mark.parametrize(("name", "dim"), KEYS)
def test_gradient_through_the_solver_against_differences(name, dim):
    """Of a weighted sum of the last frame, with respect to a parameter."""
    case = SOLVERS[name, dim]
    times = None if case.times is None else tuple(t * 0.1 for t in case.times[:2])

    def weighted(value: Tensor | float) -> Tensor:
        changes = {case.varied: value} | ({"times": times} if times else {})
        last = solve(name, dim, **changes)[case.learned][:, -1]
        weights = torch.randn(last.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return (last * weights).sum()

    at = case.values.get(case.varied) or next(p.default for p in PROBLEMS[name].parameters if p.name == case.varied)
    value = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(weighted(value), value)
    step = 1e-4 * at
    difference = (weighted(at + step) - weighted(at - step)) / (2 * step)
    assert float(difference.abs()) > 1e-9
    assert math.isclose(float(gradient), float(difference), rel_tol=2e-4), (float(gradient), float(difference))


@pytest.mark.parametrize(("name", "dim"), [key for key in KEYS if SOLVERS[key].times])
def test_frames_do_not_depend_on_what_comes_after(name, dim):
    case = SOLVERS[name, dim]
    longer, shorter = solve(name, dim), solve(name, dim, times=case.times[:2])
    assert torch.equal(longer[case.learned][:, :2], shorter[case.learned])


@pytest.mark.parametrize(
    ("name", "dim"), [key for key in KEYS if SOLVERS[key].start == "initial" and key[0] != "periodic_flow"]
)
def test_restart_from_a_frame_equals_the_straight_run(name, dim):
    """The flows on staggered grids restart from their solver's state: tests/solvers, and their own tests."""
    case = SOLVERS[name, dim]
    straight = solve(name, dim)
    later = {key: value[:, 1:] for key, value in straight.items()}
    times = tuple(t - case.times[1] for t in case.times[1:])
    again = solve(name, dim, field=start_of(name, dim, later), times=times)[case.learned]
    expected = later[case.learned]
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))

"""Equations of the mixture of experts: rows are the residual of the problem, experts find its solution."""

import math
from functools import lru_cache

import pytest
import torch

from sciml.constraints.mixture_of_experts import Equation, MixtureOfExpertsConstraint
from sciml.errors import ConfigError, DataError
from sciml.problems import get_problem

DOUBLE = torch.float64


@lru_cache(maxsize=2)
def sorption() -> tuple[Equation, torch.Tensor, torch.Tensor]:
    """Equation, the solver's solution, and the problem's residual of it in the units of the rows."""
    problem = get_problem("diffusion_sorption")
    parameters = problem.sample(2, "soil", 0).parameters
    times = 500 * torch.linspace(0, 1, 25, dtype=DOUBLE) ** 2
    solution = problem.solve(parameters, 32, times, dtype=DOUBLE)
    equation = problem.equation(parameters, 32, times)
    residual = problem.residual(solution, parameters)["transport"][0]
    scale = 24 * times.diff() / 1.0  # the inlet's concentration is 1
    return equation, solution["concentration"][:, :, 0], residual * scale[None, :, None]


@lru_cache(maxsize=2)
def burgers(subset: str) -> tuple[Equation, torch.Tensor, torch.Tensor]:
    problem = get_problem("burgers", 1)
    parameters = problem.sample(2, subset, 0).parameters
    times = torch.linspace(0, 0.1, 21, dtype=DOUBLE)
    solution = problem.solve(parameters, 128, times, dtype=DOUBLE)
    equation = problem.equation(parameters, 128, times)
    residual = problem.residual(solution, parameters)["momentum"][0]
    return equation, solution["velocity"][:, :, 0], residual * (0.1 / parameters["amplitude"])[:, None, None]


@lru_cache(maxsize=2)
def vorticity() -> tuple[Equation, torch.Tensor, torch.Tensor]:
    problem = get_problem("vorticity")
    parameters = problem.sample(2, "kolmogorov", 0, 32).parameters
    times = torch.linspace(0, 0.5, 9, dtype=DOUBLE)
    solution = problem.solve(parameters, 32, times, dtype=DOUBLE)
    equation = problem.equation(parameters, 32, times)
    residual = problem.residual(solution, parameters)["vorticity"][0]
    unit = problem.scales(parameters)["vorticity"][:, 0]
    return equation, solution["vorticity"][:, :, 0], residual * (0.5 / unit)[:, None, None, None]


@lru_cache(maxsize=2)
def darcy() -> tuple[Equation, torch.Tensor, torch.Tensor]:
    problem = get_problem("darcy")
    parameters = problem.sample(2, "fno", 0).parameters
    solution = problem.solve(parameters, 24, dtype=DOUBLE, tolerance=1e-12)
    residual = problem.residual(solution, parameters)["balance"][0][:, 0]
    return problem.equation(parameters, 24), solution["pressure"][:, 0, 0], residual


@lru_cache(maxsize=2)
def cavity() -> tuple[Equation, torch.Tensor, torch.Tensor]:
    problem = get_problem("cavity")
    parameters = problem.as_parameters(
        {"lid_velocity": [10.0, 5.0], "density": 1.0, "viscosity": 2e-3, "height": [0.01, 0.012], "width": [0.01, 9e-3]}
    )
    solution = problem.solve(parameters, [16, 20], [0.0, 0.05, 0.1], dtype=DOUBLE)
    equation = problem.equation(parameters, [16, 20])
    height = parameters["height"][:, None, None] / 20
    stream = (height * solution["face_velocity_x"][:, -1]).cumsum(2)[:, 1:-1, :-1]
    torch.testing.assert_close(
        equation.trajectory(stream)["face_velocity_y"][:, 0], solution["face_velocity_y"][:, -1], rtol=0, atol=1e-12
    )
    # The curl of the momentum residual between the last two frames, which are steady: the pressure drops out.
    width = parameters["width"][:, None, None] / 16
    momentum = problem.residual(solution, parameters)["momentum"]
    curl = momentum[0][:, -1].diff(dim=2) / height - momentum[1][:, -1].diff(dim=1) / width
    side = torch.minimum(parameters["width"], parameters["height"])
    return equation, stream, curl * ((side / parameters["lid_velocity"]) ** 2)[:, None, None]


CASES = {
    "diffusion_sorption": (sorption, [(1, 4), (2, 2), (3, 5)], 2e-2),
    "burgers": (lambda: burgers("fno"), [(1, 4), (2, 2)], 1e-2),
    "burgers between walls": (lambda: burgers("dgno"), [(1, 4)], 1e-3),
    "vorticity": (vorticity, [(1, 2, 2), (2, 1, 2)], 2e-3),
    "darcy": (darcy, [(2, 2), (4, 1), (5, 5)], 1e-6),
    "cavity": (cavity, [(2, 2), (4, 1)], 1e-7),
}
"""Equation, its tilings, and how far the trapezoidal rule is from the solver's own steps (0 for what is steady)."""


def basis_with(equation: Equation, solution: torch.Tensor, functions: int = 6) -> torch.Tensor:
    """A mixture of smooth fields and the one that gives the solution: no single field of it does."""
    generator = torch.Generator().manual_seed(0)
    fields = [torch.ones_like(solution) for _ in range(functions)]
    for field in fields:
        for axis, n in enumerate(equation.shape):
            wave, phase = 6 * torch.rand(2, generator=generator, dtype=DOUBLE)
            factor = torch.cos(wave * torch.linspace(0, 1, n, dtype=DOUBLE) + phase)
            field *= factor.reshape(-1, *(1,) * (len(equation.shape) - 1 - axis))
    lift = equation.lift(torch.ones(equation.batch, 1, *equation.shape, dtype=DOUBLE))[:, 0]
    if equation.name == "vorticity":  # its lift takes the mean away
        ramp = torch.linspace(0, 1, equation.shape[0], dtype=DOUBLE)[:, None, None]
        lift = equation.scale[:, None, None, None] * ramp
    fields.append(torch.where(lift == 0, 0.0, (solution - equation.offset) / torch.where(lift == 0, 1.0, lift)))
    mix = torch.randn(functions + 1, functions + 1, generator=generator, dtype=DOUBLE)
    return torch.einsum("nb...,nm->bm...", torch.stack(fields), mix)


def relative_error(field: torch.Tensor, truth: torch.Tensor) -> float:
    return float(((field - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize("name", CASES)
def test_rows_are_the_residual_of_the_problem(name: str) -> None:
    equation, solution, residual = CASES[name][0]()
    rows = equation.rows(solution)
    if name in ("vorticity", "burgers", "burgers between walls"):
        # Pointwise products keep modes that the 2/3 rule drops: the same in those that it keeps.
        box = equation.box
        if name == "burgers between walls":
            rows, residual = (torch.cat([field, -field.flip(-1)], -1) for field in (rows, residual))
        assert float((rows - residual).abs().max()) < 0.5 * float(residual.abs().max())
        rows, residual = (box.inverse(box.forward(field) * box.dealias) for field in (rows, residual))
    tolerance = 1e-7 if name in ("darcy", "cavity") else 1e-10 * float(residual.abs().max())
    assert float((rows - residual).abs().max()) < tolerance
    assert float(equation.rows(solution + 0.1 * equation.scale.max()).abs().max()) > 100 * tolerance


@pytest.mark.parametrize("name", CASES)
def test_experts_find_the_solution_that_the_basis_contains(name: str) -> None:
    make, tilings, tolerance = CASES[name]
    equation, solution, _ = make()
    basis = basis_with(equation, solution)
    assert relative_error(equation.offset + equation.lift(basis)[:, 0], solution) > 0.05
    for tiles in [None, *tilings]:
        layer = MixtureOfExpertsConstraint(tiles)
        field = layer(basis, equation)
        assert relative_error(field, solution) < tolerance, (tiles, layer.report.summary())
        own = float(layer.residual(solution, equation).max())
        assert float(layer.report.stitched.max()) < 1.2 * own + 1e-5
        assert not layer.report.failed.any()
    overlapping = MixtureOfExpertsConstraint(tilings[0], tiling="overlap", overlap=1)
    assert relative_error(overlapping(basis, equation), solution) < tolerance


@pytest.mark.parametrize(("name", "least"), [("darcy", 1e-4), ("cavity", 1e-3)])
def test_independent_experts_do_not_find_it(name: str, least: float) -> None:
    """As published: nothing but the boundary conditions, by extrapolation, tells a tile where it is."""
    equation, solution, _ = CASES[name][0]()
    layer = MixtureOfExpertsConstraint((2, 2), tiling="independent", condition_weight=1.0)
    error = relative_error(layer(basis_with(equation, solution), equation), solution)
    assert error > least
    assert float(layer.report.jump.max()) > 0.1 * least


@pytest.mark.parametrize("name", CASES)
def test_terms_are_linear_and_offsets_hold_what_is_prescribed(name: str) -> None:
    equation, solution, _ = CASES[name][0]()
    basis = basis_with(equation, solution, 2)
    weights = torch.tensor([0.3, -1.2, 0.7], dtype=DOUBLE)
    lifted = equation.lift(basis)
    whole = equation.offset + torch.einsum("bn...,n->b...", lifted, weights)
    parts = equation.terms(lifted, homogeneous=True)
    known = equation.terms(equation.offset[:, None], homogeneous=False)
    for term, part, offset in zip(equation.terms(whole[:, None], homogeneous=False), parts, known, strict=True):
        expected = offset[:, 0] + torch.einsum("bn...,n->b...", part, weights)
        scale = float(term.abs().max()) + 1e-30
        assert float((term[:, 0] - expected).abs().max()) < 1e-10 * scale
    trajectory = equation.trajectory(whole)
    assert "time" in trajectory and all(value.shape[0] == 2 for value in trajectory.values())


def test_conditions_vanish_for_the_solution() -> None:
    for name, tolerance in (("darcy", 0.02), ("cavity", 0.35), ("burgers between walls", 0.02)):
        equation, solution, _ = CASES[name][0]()
        rows, places = equation.conditions(solution[:, None], homogeneous=False)
        zero, _ = equation.conditions(0 * solution[:, None], homogeneous=False)
        assert rows.shape[2] == len(places)
        assert float(rows.square().mean().sqrt()) < tolerance
        if name == "cavity":
            assert float(zero.abs().max()) == pytest.approx(1.0)  # the lid moves over a fluid at rest
    equation, solution, _ = sorption()
    rows, _ = equation.conditions(solution[:, None], homogeneous=False)
    assert float(rows[:, 0, 12:24].abs().max()) < 0.05  # the inlet, once the front is resolved


def test_darcy_with_prescribed_pressures_and_closed_sides() -> None:
    """u = 1 and 3 on the x sides, no flow through the others, no source variation: a known parabola."""
    from sciml.constraints.mixture_of_experts import DarcyOnTiles

    n, ones = 16, torch.ones(1, dtype=DOUBLE)
    boundaries = {"x_low": 1.0, "x_high": 3.0 * ones, "y_low": None, "y_high": None}
    equation = DarcyOnTiles(torch.ones(1, n, n, dtype=DOUBLE), ones, ones, torch.ones(1, 2, dtype=DOUBLE), boundaries)
    x = ((torch.arange(n, dtype=DOUBLE) + 0.5) / n)[:, None].expand(n, n)
    basis = torch.stack([torch.ones(n, n, dtype=DOUBLE), x, x**2, torch.cos(3 * x)])[None]
    expected = 1 + 2.5 * x - 0.5 * x**2
    for tiles in (None, (2, 3)):
        field = MixtureOfExpertsConstraint(tiles, ridge=1e-16)(basis, equation)
        # The scheme is exact for a parabola but in the cells at a side, by h^2 / 4 of u_xx.
        assert float((field[0] - expected).abs().max()) < 1.01 / (4 * n**2)


def test_initial_fields_are_met_exactly_and_may_be_given() -> None:
    problem = get_problem("diffusion_sorption")
    parameters = problem.sample(1, "pdebench", 3).parameters
    initial = 0.1 + 0.05 * torch.rand(1, 1, 16, dtype=DOUBLE)
    equation = problem.equation(parameters, 16, [0.0, 10.0, 20.0], initial=initial)
    x = torch.linspace(0, 1, 16)
    basis = torch.stack([torch.exp(-k * x).expand(3, 16) for k in (2, 5, 9)])[None]
    field = MixtureOfExpertsConstraint((1, 2))(basis, equation)
    assert field.dtype == DOUBLE and torch.equal(field[:, 0], initial[:, 0])
    vortices = get_problem("vorticity")
    flow = vortices.sample(1, "decaying", 0, 16).parameters
    with pytest.raises(ConfigError, match="mean"):
        vortices.equation(flow, 16, [0.0, 0.1], initial=torch.ones(1, 1, 16, 16))


def test_equations_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ConfigError, match="one dimension"):
        get_problem("burgers", 2).equation({"viscosity": 0.1, "length": 1.0}, 16, [0.0, 0.1])
    cavity_problem = get_problem("cavity")
    with pytest.raises(ConfigError, match="steady"):
        cavity_problem.equation(
            {"lid_velocity": [[1.0, 2.0]], "density": 1.0, "viscosity": 1e-3, "height": 0.01, "width": 0.01}, 16
        )
    problem = get_problem("diffusion_sorption")
    with pytest.raises(ConfigError, match="two frames"):
        problem.equation({"initial": 0.1}, 16, [0.0])
    with pytest.raises(DataError, match="permeability"):
        get_problem("darcy").equation({"low": 3.0, "high": 12.0, "source": 1.0}, permeability=-torch.ones(1, 1, 16, 16))


def test_uneven_frames_weigh_by_their_length() -> None:
    """The rows of an interval are the error that it makes: halving it halves them for the same rate."""
    problem = get_problem("diffusion_sorption")
    equation = problem.equation({"initial": 0.1}, 16, [0.0, 10.0, 30.0])
    assert torch.allclose(equation.row_scale[0, :, 0], torch.tensor([20.0, 40.0], dtype=DOUBLE))
    assert math.prod(equation.row_shape) == 32

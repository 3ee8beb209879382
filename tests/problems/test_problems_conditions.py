"""What the problems declare about the boundaries of their fields, for the constraint layers."""

import pytest
import torch

from sciml import physics
from sciml.errors import ConfigError, SolverError
from sciml.problems import PROBLEMS, get_problem

EVERY = [
    pytest.param(name, dim, subset, id=f"{name}-{dim}d-{subset}")
    for name, problem in PROBLEMS.items()
    for dim in problem.dims
    for subset in get_problem(name, dim).subsets
]
VELOCITY = (physics.Wall, physics.MovingWall, physics.Inlet, physics.Outlet)
VALUES = {"Dirichlet": ("value",), "Neumann": ("value",), "Robin": ("a", "b", "value"), "Periodic": ()}
DECLARED = {
    "cavity": {"velocity"},
    "tube": {"velocity"},
    "cylinder": set(),
    "dam": set(),
    "two_phase_tube": set(),
    "burgers": {"velocity"},
    "darcy": {"pressure"},
    "diffusion_sorption": {"concentration"},
    "vorticity": {"vorticity"},
    "gray_scott": {"species_a", "species_b"},
    "periodic_flow": {"velocity", "pressure"},
}
CASES = 3


def drawn(name, dim, subset):
    """A problem, parameters of a few cases and a grid that they can be drawn on."""
    problem = get_problem(name, dim)
    for resolution in (24, 32, 64, 128, 256, 512, 1024, 2048):
        try:
            return problem, problem.sample(CASES, subset, 0, resolution).parameters, problem.grid(resolution)
        except SolverError:
            continue
    raise AssertionError(f"no resolution resolves {name} {subset}")


@pytest.mark.parametrize(("name", "dim", "subset"), EVERY)
def test_every_side_of_every_declared_field_has_a_condition_that_fits(name, dim, subset):
    problem, parameters, shape = drawn(name, dim, subset)
    grid = problem.physics_grid(parameters, shape)
    assert grid.shape == shape
    assert torch.equal(grid.lengths, problem.lengths(parameters))
    kinds = problem.boundaries(subset)
    assert problem.side_kinds(parameters) == kinds
    for axis, letter in zip(grid.axes, "xyz", strict=False):
        assert axis.uniform
        assert axis.periodic == (kinds[f"{letter}_low"] == "periodic") == (kinds[f"{letter}_high"] == "periodic")

    declared = problem.conditions_on_sides(parameters, shape)
    assert set(declared) == DECLARED[name]
    components = {info.name: info.components for info in problem.fields}
    for field, conditions in declared.items():
        assert tuple(conditions) == physics.sides(dim)
        if any(isinstance(condition, VELOCITY) for condition in conditions.values()):
            assert components[field] == dim
            physics.boundary_values(grid, conditions, dtype=torch.float64)
            continue
        for side, condition in conditions.items():
            assert isinstance(condition, physics.Periodic) == (kinds[side] == "periodic")
            for value in VALUES[type(condition).__name__]:
                assert torch.as_tensor(getattr(condition, value)).shape in ((), (CASES,))


def test_values_are_those_of_the_cases():
    problem, parameters, shape = drawn("cavity", 2, "bc")
    lid = problem.conditions_on_sides(parameters, shape)["velocity"]["y_high"]
    assert torch.equal(lid.velocity[0], parameters["lid_velocity"])
    assert len(lid.velocity[0].unique()) == CASES
    problem, parameters, shape = drawn("tube", 2, "bc")
    inlet = problem.conditions_on_sides(parameters, shape)["velocity"]["x_low"]
    assert torch.equal(inlet.velocity[0], parameters["inlet_velocity"])
    problem, parameters, shape = drawn("diffusion_sorption", 1, "soil")
    outlet = problem.conditions_on_sides(parameters, shape)["concentration"]["x_high"]
    assert torch.equal(outlet.b, parameters["diffusivity"])
    assert len(outlet.b.unique()) == CASES


def test_the_sorption_solver_obeys_its_declared_outlet():
    """D du/dx + v u = 0 at x = L, with the value at the side from the solver's own flux."""
    problem = get_problem("diffusion_sorption")
    parameters = problem.sample(CASES, "soil", 0, 64).parameters
    u = problem.solve(parameters, 64, [0.0, 200.0], dtype=torch.float64)["concentration"][:, 1, 0]
    outlet = problem.conditions_on_sides(parameters, (64,))["concentration"]["x_high"]
    from sciml.problems.diffusion_sorption import _soil

    soil, length = _soil(parameters, u), parameters["length"]
    leaves = physics.solute_flux(u, soil, length, parameters["inlet"], outlet.a)[:, -1]
    side = u[:, -1] - leaves / parameters["diffusivity"] * length / 64 / 2
    torch.testing.assert_close(outlet.a * side + outlet.b * (side - u[:, -1]) / (length / 128), 0 * side)
    assert (leaves > 0).all()


def test_sides_own_corners_where_values_disagree():
    """Walls against a moving lid and against a uniform inflow; elsewhere the values agree."""
    owners = {name: problem.corners for name, problem in PROBLEMS.items()}
    assert owners == {**dict.fromkeys(PROBLEMS, ""), "cavity": "x", "tube": "x"}


def test_burgers_cases_are_walled_or_periodic_but_not_both():
    problem = get_problem("burgers", 1)
    parameters = {name: value.repeat(2) for name, value in problem.sample(1, "dgno", 0, 256).parameters.items()}
    mixed = {**parameters, "walls": torch.tensor([1.0, 0.0])}
    with pytest.raises(ConfigError, match="some are periodic"):
        problem.physics_grid(mixed, (256,))
    with pytest.raises(ConfigError, match="some are periodic"):
        problem.conditions_on_sides(mixed, (256,))

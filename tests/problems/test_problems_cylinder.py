"""Flow past a cylinder: geometry, forces, similarity, sections, refusals. (The benchmarks: tests/solvers.)"""

import math

import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.problems.cylinder import BLOCKAGE_BAND, REYNOLDS, REYNOLDS_BAND, Cylinder

CYLINDER = Cylinder()
ONE = {
    "inlet_velocity": 1.0,
    "density": 10.0,
    "viscosity": 1e-3,
    "radius": 0.005,
    "upstream": 0.03,
    "downstream": 0.07,
    "below": 0.025,
    "above": 0.028,
}
COARSE = {"h": 0.6, "h_disc": 0.15}
N = 36


def solve(parameters, times, resolution=N, **options):
    with torch.inference_mode():
        return CYLINDER.solve(parameters, resolution, times, dtype=torch.float64, mesh=COARSE, **options)


@pytest.fixture(scope="module")
def shedding():
    """Two periods of a street at Reynolds number 100, and a steady wake at 30."""
    return solve({**ONE, "viscosity": [1e-3, 1e-3 / 0.3]}, torch.linspace(0, 0.075, 31))


@pytest.fixture(scope="module")
def parameters():
    return {**ONE, "viscosity": [1e-3, 1e-3 / 0.3]}


def test_the_cylinder_is_the_cells_whose_centre_lies_in_it():
    values = CYLINDER.as_parameters({**ONE, "radius": [0.005, 0.006]})
    geometry = CYLINDER.geometry(values, (72, 36))
    centres = CYLINDER.coordinates(values, (72, 36))
    for case in range(2):
        x, y = torch.meshgrid(centres["x"][case] - 0.03, centres["y"][case] - 0.025, indexing="ij")
        distance = torch.hypot(x, y) - values["radius"][case]
        torch.testing.assert_close(geometry["signed_distance"][case, 0], distance.float())
        assert torch.equal(geometry["fluid"][case, 0] == 1, distance > 0)
    inputs = CYLINDER.geometry_inputs(values, (72, 36))
    assert inputs.shape == (2, len(CYLINDER.geometry_channels), 72, 36) and inputs.dtype == torch.float32
    nearest = inputs[0, 2:].square().sum(0).flatten().argmin()
    assert int(nearest) == int(geometry["signed_distance"][0, 0].flatten().argmin()), "places are relative to the axis"


def test_a_cylinder_moved_by_a_cell_moves_its_geometry_by_a_cell():
    cell = (ONE["upstream"] + ONE["downstream"]) / 72
    here = CYLINDER.geometry(CYLINDER.as_parameters(ONE), (72, 36))
    moved = {**ONE, "upstream": ONE["upstream"] + cell, "downstream": ONE["downstream"] - cell}
    there = CYLINDER.geometry(CYLINDER.as_parameters(moved), (72, 36))
    for name, field in here.items():
        torch.testing.assert_close(there[name][:, :, 1:], field[:, :, :-1], rtol=0, atol=1e-8)


def test_fields_are_zero_in_the_cylinder_and_nowhere_near_it_elsewhere(shedding):
    solid = (shedding["fluid"] == 0).unsqueeze(1)
    assert 30 < int(solid[0].sum()) < 60
    for name in ("velocity", "pressure"):
        values = shedding[name]
        assert not values.masked_select(solid.expand_as(values)).any()
        assert int((values == 0).all(dim=(1, 2)).sum()) == int(solid.sum())


def test_every_section_carries_the_inflow(shedding, parameters):
    flux = shedding["face_velocity_x"].sum(-1) * (ONE["below"] + ONE["above"]) / N
    torch.testing.assert_close(flux, torch.full_like(flux, ONE["below"] + ONE["above"]), rtol=1e-12, atol=0)
    (divergence,) = CYLINDER.residual(shedding, parameters)["continuity"]
    assert float(divergence.abs().max()) < 1e-9


def test_a_street_sheds_and_a_slow_flow_does_not(shedding, parameters):
    found = CYLINDER.coefficients(shedding, parameters)
    lift = found["lift"].amax(1) - found["lift"].amin(1)
    assert float(lift[0]) > 0.5 and float(lift[1]) < 0.05
    assert 0.2 < float(found["strouhal"][0]) < 0.4
    assert 1.0 < float(found["drag"][0].mean()) < float(found["drag"][1].mean()) < 4.0


def test_forces_can_be_read_off_the_grid(shedding, parameters):
    """A balance of momentum on 8 cells a diameter, against the forces of the finite elements."""
    found = CYLINDER.diagnose(shedding, parameters, shedding["time"])
    drag, lift = shedding["drag"], shedding["lift"]
    assert float((found["drag"] - drag).norm() / drag.norm()) < 0.04
    assert float((found["lift"] - lift)[0].norm() / lift[0].norm()) < 0.08
    with pytest.raises(ConfigError, match="pressure is missing"):
        CYLINDER.diagnose({"velocity": shedding["velocity"]}, parameters, shedding["time"])


def test_the_flow_depends_on_dimensionless_numbers_only():
    """Ten times as large, half as fast, another fluid of the same Reynolds number."""
    large = {name: 10 * value if name in ("radius", *SIDES) else value for name, value in ONE.items()}
    large |= {"inlet_velocity": 0.5, "density": 2.0, "viscosity": 1e-3}
    times = torch.linspace(0, 0.01, 3)
    one, other = solve(ONE, times), solve(large, 20 * times)
    torch.testing.assert_close(other["velocity"] / 0.5, one["velocity"], rtol=0, atol=1e-6)
    torch.testing.assert_close(other["pressure"] / (2 * 0.25), one["pressure"] / 10, rtol=0, atol=1e-6)
    torch.testing.assert_close(other["lift"] / (2 * 0.25 * 0.1), one["lift"] / (10 * 0.01), rtol=0, atol=1e-6)
    conditions = [
        CYLINDER.conditions(CYLINDER.as_parameters(case), torch.tensor([step]))
        for case, step in ((ONE, 0.01), (large, 0.2))
    ]
    torch.testing.assert_close(conditions[0], conditions[1])
    assert float(conditions[0][0, 0]) == pytest.approx(math.log(100))


SIDES = ("upstream", "downstream", "below", "above")


def test_samples_stay_in_the_range_of_laminar_flow_and_out_of_the_bands():
    sample = CYLINDER.sample(60, "all", 0)
    reynolds = CYLINDER.reynolds(sample.parameters)
    assert float(reynolds.min()) >= REYNOLDS[0] - 1e-9 and float(reynolds.max()) <= REYNOLDS[1] + 1e-9
    outside = CYLINDER.sample(60, "outside", 0).parameters
    reynolds = CYLINDER.reynolds(outside)
    assert not ((reynolds > REYNOLDS_BAND[0]) & (reynolds < REYNOLDS_BAND[1])).any()
    band = CYLINDER.sample(8, "blockage_band", 0).parameters
    blockage = 2 * band["radius"] / (band["below"] + band["above"])
    assert ((blockage >= BLOCKAGE_BAND[0]) & (blockage <= BLOCKAGE_BAND[1])).all()
    CYLINDER.check_resolved(CYLINDER.sample(60, "geo", 0, 45).parameters, CYLINDER.grid(45))
    with pytest.raises(SolverError, match="use a resolution of at least 45"):
        CYLINDER.sample(1, "geo", 0, 44)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"below": 0.005}, "touches"),
        ({"below": 0.004}, "crosses"),
        ({"upstream": 0.002}, "crosses"),
        ({"downstream": 0.0049}, "crosses the outlet"),
        ({"above": 0.005}, "touches the wall y = Ly"),  # below + above - below is not above in floating point
        ({"downstream": 0.005}, "touches the outlet"),
        ({"above": 0.0054}, r"comes within 0\.0004 m of the wall y = Ly of its channel of \[0\.1, 0\.0304\] m"),
        ({"radius": 0.002}, r"cells wide on a grid of 72 x 36; at least 4 are needed"),
        ({"viscosity": -1e-3}, "parameter 'viscosity' of case 0 is -0.001; it must be positive"),
        ({"radius": float("nan")}, "parameter 'radius' of case 0 is nan; it must be positive"),
        ({"viscosity": 1e-4}, "Reynolds number"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises((SolverError, ConfigError), match=message):
        solve({**ONE, **changes}, [0.0, 0.001])


@pytest.mark.parametrize(
    ("shape", "needed"), [((16, 8), "64 x 32"), ((64, 8), "64 x 32"), ((32, 64), "64 x 64"), (8, "64 x 32")]
)
def test_a_grid_that_does_not_show_the_cylinder_is_told_the_least_that_does(shape, needed):
    base = CYLINDER.sample(1, "bc", 0).parameters
    with pytest.raises(SolverError, match=f"at least {needed} cells"):
        CYLINDER.check_resolved(base, CYLINDER.grid(shape))
    CYLINDER.check_resolved(base, [int(n) for n in needed.split(" x ")])


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ({"h_disk": 0.1}, "mesh has no option 'h_disk'; did you mean 'h_disc'"),
        ({"cfl": "0.3"}, "mesh option 'cfl' is '0.3'; expected a positive number"),
        ({"cfl": -1.0}, "cfl is -1.0; expected a positive number"),
        ({"h_disc": 5.0}, "h_disc is 5.0 diameters; expected"),
    ],
)
def test_mesh_options_that_the_solver_does_not_take_are_refused(mesh, message):
    with pytest.raises(ConfigError, match=message):
        CYLINDER.solve(ONE, 48, [0.0], mesh=mesh)


def test_coefficients_without_forces_are_refused():
    with pytest.raises(ConfigError, match=r"coefficients need drag, lift and time; drag, lift is missing.*diagnose"):
        CYLINDER.coefficients({"time": torch.zeros(1, 2)}, ONE)


def test_parameters_that_change_in_time_are_refused():
    with pytest.raises(ConfigError, match="inlet_velocity changes in time"):
        solve({**ONE, "inlet_velocity": [[1.0, 2.0]]}, [0.0, 0.001])


@pytest.mark.parametrize("resolution", [7.5, "64", (64,), (64, 4), 0])
def test_resolutions_that_are_no_grid_are_refused(resolution):
    with pytest.raises(ConfigError, match=r"resolution is .*; expected a whole number >= 8, or 2 of them"):
        CYLINDER.grid(resolution)

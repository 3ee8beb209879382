"""Water over a barrier and liquid pushed into a channel of gas: geometry, balances, similarity, refusals."""

import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.problems import get_problem
from sciml.problems.dam import BARRIER_BAND, FROUDE_BAND, RESERVOIR, Dam
from sciml.problems.two_phase_tube import TwoPhaseTube

DAM, TUBE = Dam(), TwoPhaseTube()
ONE = {"inlet_velocity": 1.0, "density": 100.0, "viscosity": 0.1, "barrier_height": 0.12, "barrier_width": 0.05}
FILLING = {"inlet_velocity": 1.0, "density": 100.0, "viscosity": 1.0, "height": 0.1, "length": 0.4}


def solve(problem, parameters, resolution, times, **options):
    with torch.inference_mode():
        return problem.solve(parameters, resolution, times, dtype=torch.float64, **options)


@pytest.fixture(scope="module")
def trajectory():
    return solve(DAM, {**ONE, "barrier_height": [0.12, 0.15]}, 16, torch.linspace(0, 0.5, 6))


def test_the_barrier_is_the_cells_whose_centre_lies_in_it():
    values = DAM.as_parameters({**ONE, "barrier_height": [0.12, 0.15], "barrier_width": [0.05, 0.09]})
    geometry = DAM.geometry(values, (120, 32))
    x, y = (DAM.coordinates(values, (120, 32))[axis] for axis in "xy")
    for case in range(2):
        inside = ((x[case] > 0.5) & (x[case] < 0.5 + values["barrier_width"][case])).unsqueeze(1)
        inside = inside & (y[case] < values["barrier_height"][case])
        assert torch.equal(geometry["fluid"][case, 0] == 0, inside) and inside.any()
    distance = geometry["signed_distance"][0, 0]
    far = int((x[0] - 0.3).abs().argmin())
    assert float(distance[far, 0]) == pytest.approx(0.5 - float(x[0, far]), abs=1e-6), "the floor is no surface"
    top = int((x[0] - 0.525).abs().argmin())
    torch.testing.assert_close(distance[top, 12:], (y[0, 12:] - 0.12).float(), rtol=0, atol=1e-6)


def test_fields_are_zero_in_the_barrier(trajectory):
    solid = (trajectory["fluid"] == 0).unsqueeze(1)
    for field in DAM.fields:
        values = trajectory[field.name]
        assert not values.masked_select(solid.expand_as(values)).any(), field.name
        assert values.masked_select(~solid.expand_as(values)).any(), field.name


def test_what_enters_is_what_is_there(trajectory):
    """Until water leaves: the inlet carries U times its height, through faces that it covers in part too."""
    volume, time = trajectory["liquid_volume"], trajectory["time"]
    entered = 0.1 * time
    start = RESERVOIR * 0.1
    torch.testing.assert_close(volume, start + entered, rtol=0, atol=1e-9)
    assert DAM.diagnose(trajectory, {**ONE, "barrier_height": [0.12, 0.15]}, time)["liquid_volume"].allclose(volume)


def test_fractions_are_bounded_and_faces_divergence_free(trajectory):
    fraction = trajectory["volume_fraction"]
    assert float(fraction.min()) >= -1e-12 and float(fraction.max()) <= 1 + 1e-12
    (divergence,) = DAM.residual(trajectory, {**ONE, "barrier_height": [0.12, 0.15]})["continuity"]
    assert float(divergence.abs().max()) < 1e-6
    torch.testing.assert_close(
        trajectory["superficial_velocity"], fraction * trajectory["velocity"], rtol=0, atol=1e-12
    )


def test_the_liquid_reaches_the_barrier_and_stays_on_its_near_side(trajectory):
    last = trajectory["volume_fraction"][0, -1, 0]
    x = DAM.coordinates(DAM.as_parameters(ONE), last.shape)["x"][0]
    assert float(last[(x > 0.4) & (x < 0.5)].max()) > 0.9
    assert float(last[x > 0.6].sum()) < 0.02 * float(last.sum())


def test_the_flow_depends_on_dimensionless_numbers_only():
    """Twice as long, sqrt(2) as fast: the same Froude number; the same Reynolds number by the viscosity."""
    scale, faster = 2.0, 2.0**0.5
    lengths = ("barrier_height", "barrier_width", "barrier_at", "inlet_height", "length", "height")
    small = {**{p.name: p.default for p in DAM.parameters if p.default is not None}, **ONE}
    small |= {"gas_density": 1.0, "gas_viscosity": 1e-4}
    large = {**small, **{name: scale * small[name] for name in lengths}}
    large["inlet_velocity"] = faster * small["inlet_velocity"]
    for name in ("viscosity", "gas_viscosity"):
        large[name] = scale * faster * small[name]
    values = [DAM.as_parameters(case) for case in (small, large)]
    numbers = [
        DAM.conditions(case, torch.tensor([0.1 * factor]))
        for case, factor in zip(values, (1, scale / faster), strict=True)
    ]
    torch.testing.assert_close(numbers[0], numbers[1])


@pytest.mark.parametrize("problem", [DAM, TUBE], ids=lambda problem: problem.name)
def test_no_condition_is_called_as_a_parameter_whose_range_it_would_hide(problem):
    assert not set(problem.condition_names) & {parameter.name for parameter in problem.parameters}


def test_bands_are_held_out():
    outside = DAM.sample(30, "outside", 0).parameters
    froude = outside["inlet_velocity"] / (9.81 * 0.1) ** 0.5
    changed = outside["inlet_velocity"] != 1.0
    assert not ((froude >= FROUDE_BAND[0]) & (froude <= FROUDE_BAND[1]) & changed).any()
    inside = DAM.sample(6, "barrier_band", 0).parameters["barrier_height"]
    assert ((inside >= BARRIER_BAND[0]) & (inside <= BARRIER_BAND[1])).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"barrier_height": 0.39}, r"the barrier is 0\.39 m high in a channel 0\.4 m high"),
        ({"barrier_height": 0.5}, r"the barrier is 0\.5 m high in a channel 0\.4 m high"),
        ({"inlet_height": 0.13}, r"the inlet reaches up to 0\.13 m, above the barrier's height of 0\.12 m"),
        ({"barrier_at": 0.1}, r"comes within two cells of 0\.025 m of the liquid at the inlet"),
        ({"barrier_at": 1.48}, "or of the outlet at 1.5 m"),
        ({"barrier_width": 0.001}, r"is below a cell of 0\.025 m x 0\.025 m"),
        ({"inlet_height": 0.01}, "below two"),
    ],
)
def test_geometry_that_cannot_be_is_refused(changes, message):
    with pytest.raises(SolverError, match=message):
        solve(DAM, {**ONE, **changes}, 16, [0.0, 0.1])


def test_parameters_that_change_in_time_are_refused():
    with pytest.raises(ConfigError, match="inlet_velocity changes in time"):
        solve(DAM, {**ONE, "inlet_velocity": [[1.0, 2.0]]}, 16, [0.0, 0.1])


@pytest.mark.slow
def test_ten_seconds_at_a_thousand_to_one():
    """CFDBench's hundred frames of a tenth of a second, the fastest inflow, water a thousand times as heavy as gas."""
    fast = {**ONE, "inlet_velocity": 2.0, "density": 1000.0, "viscosity": 1.0, "gas_density": 1.0}
    trajectory = solve(DAM, fast, 32, 0.1 * torch.arange(101))
    fraction = trajectory["volume_fraction"]
    assert float(fraction.min()) >= -1e-12 and float(fraction.max()) <= 1 + 1e-12
    assert float(trajectory["superficial_velocity"].abs().max()) < 15
    assert float(trajectory["velocity"].abs().max()) < 40
    (divergence,) = DAM.residual(trajectory, fast)["continuity"]
    assert float(divergence.abs().max()) < 1e-6
    # In the end as much leaves as enters: the volume no longer grows with the 0.2 m^2/s of the inlet.
    volume = trajectory["liquid_volume"][0]
    assert float((volume[-20:].mean() - volume[-60:-40].mean()).abs()) < 0.1 * 0.2 * 4


# ------------------------------------------------------------------------------------------- the channel that fills


def test_the_channel_fills_at_the_speed_of_the_inflow():
    trajectory = solve(TUBE, {**FILLING, "inlet_velocity": [1.0, 0.5]}, 16, torch.linspace(0, 0.2, 5))
    expected = 0.1 * torch.tensor([[1.0], [0.5]], dtype=torch.float64) * trajectory["time"]
    torch.testing.assert_close(trajectory["liquid_volume"], expected, rtol=0, atol=1e-9)
    flux = trajectory["face_velocity_x"].mean(-1)
    torch.testing.assert_close(flux, torch.tensor([1.0, 0.5]).double().reshape(2, 1, 1).expand_as(flux))


def test_without_gravity_the_front_is_upright_and_with_it_leans():
    gravity = torch.tensor([0.0, 9.81])
    trajectory = solve(TUBE, {**FILLING, "inlet_velocity": 0.5, "gravity": gravity}, 16, [0.0, 0.2])
    last = trajectory["volume_fraction"][:, -1, 0]
    torch.testing.assert_close(last[0], last[0].flip(1), rtol=0, atol=1e-9)
    low, high = last[1, :, :4].sum(), last[1, :, -4:].sum()
    assert float(low) > 1.5 * float(high)


def test_a_filled_channel_is_the_flow_of_tube():
    """Long after the front has left, the liquid alone: the profile of the one-phase problem at the same grid."""
    times = [0.0, 1.2]
    values = {**FILLING, "gravity": 0.0, "length": 0.3}
    filled = solve(TUBE, values, 12, times)
    assert float(filled["volume_fraction"][0, -1].min()) > 0.99
    alone = solve(get_problem("tube"), {k: v for k, v in values.items() if k != "gravity"}, 12, times)
    difference = filled["velocity"][0, -1] - alone["velocity"][0, -1]
    assert float(difference.norm() / alone["velocity"][0, -1].norm()) < 0.05

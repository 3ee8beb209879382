"""The cavity as a problem: sampling, units, refusals, the documented call."""

import math

import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.problems import get_problem
from sciml.problems.cavity import ASPECT_BAND, REYNOLDS_BAND, resolved_reynolds

CAVITY = get_problem("cavity")
ONE = {"lid_velocity": 1.0, "density": 1.0, "viscosity": 0.01, "height": 1.0, "width": 1.0}


def with_(**changes):
    return {**ONE, **changes}


def test_documented_call_returns_trajectories_in_physical_units():
    parameters = with_(lid_velocity=[1.0, 2.0], density=[1.0, 3.0], viscosity=[0.02, 0.06])
    trajectory = CAVITY.solve(parameters, resolution=24, times=torch.linspace(0, 0.5, 4))
    assert trajectory["velocity"].shape == (2, 4, 2, 24, 24)
    assert trajectory["pressure"].shape == (2, 4, 1, 24, 24)
    assert trajectory["face_velocity_x"].shape == (2, 4, 25, 24)
    assert trajectory["face_velocity_y"].shape == (2, 4, 24, 25)
    assert trajectory["time"].shape == (2, 4)
    assert not trajectory["velocity"][:, 0].any(), "the fluid starts at rest"
    top = trajectory["velocity"][:, -1, 0, 12, -1]
    assert (top > 0.3 * torch.tensor([1.0, 2.0])).all(), "the lid drags the fluid below it along"
    centred = 0.5 * (trajectory["face_velocity_x"][:, :, 1:] + trajectory["face_velocity_x"][:, :, :-1])
    torch.testing.assert_close(centred, trajectory["velocity"][:, :, 0])


def test_flow_depends_on_dimensionless_numbers_only():
    """Two cases with equal Re, aspect and dimensionless times have the same flow in units of U and rho U^2."""
    length, speed, density = 0.01, 10.0, 3.0
    small = {
        "lid_velocity": [1.0, speed],
        "density": [1.0, density],
        "viscosity": [0.02, 0.02 * speed * length * density],
        "height": [1.2, 1.2 * length],
        "width": [1.0, length],
    }
    times = torch.linspace(0, 1.0, 4).double() * torch.tensor([[1.0], [length / speed]], dtype=torch.float64)
    trajectory = CAVITY.solve(small, resolution=24, times=times, dtype=torch.float64)
    velocity, pressure = trajectory["velocity"], trajectory["pressure"]
    torch.testing.assert_close(velocity[1] / speed, velocity[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pressure[1] / (density * speed**2), pressure[0], rtol=1e-8, atol=1e-8)
    values = CAVITY.as_parameters(small)
    conditions = CAVITY.conditions(values, times[:, 1] - times[:, 0])
    torch.testing.assert_close(conditions[0], conditions[1])
    assert math.isclose(conditions[0, 0], math.log(50.0)) and math.isclose(conditions[0, 2], math.log(1.2))


def test_times_per_case_agree_with_shared_times():
    shared = CAVITY.solve(ONE, resolution=24, times=[0.0, 0.1, 0.3])
    own = CAVITY.solve(ONE, resolution=24, times=torch.tensor([[0.0, 0.1, 0.3]]))
    assert torch.equal(shared["velocity"], own["velocity"])


def test_lid_speed_that_changes_in_time_equals_constant_until_it_changes():
    times = torch.linspace(0, 0.6, 4)
    constant = CAVITY.solve(ONE, resolution=24, times=times)
    jump = CAVITY.solve(with_(lid_velocity=[[1.0, 1.0, 0.5, 0.5]]), resolution=24, times=times)
    assert torch.equal(constant["velocity"][:, :3], jump["velocity"][:, :3])
    assert (jump["velocity"][0, 3, 0, 12, -1] < constant["velocity"][0, 3, 0, 12, -1]).all()


@pytest.mark.parametrize(
    "subset", ["bc", "prop", "geo", "all", "outside", "reynolds_band", "aspect_band", "lid_change"]
)
@pytest.mark.parametrize("resolution", [24, 64, 128])
def test_samples_are_resolved_reproducible_and_prefix_stable(subset, resolution):
    if subset == "reynolds_band" and resolution < 43:
        with pytest.raises(SolverError, match="needs a resolution of at least 43"):
            CAVITY.sample(40, subset, seed=3, resolution=resolution)
        return
    sample = CAVITY.sample(40, subset, seed=3, resolution=resolution)
    CAVITY.check_resolved(sample.parameters, (resolution, resolution))
    again = CAVITY.sample(40, subset, seed=3, resolution=resolution)
    assert all(torch.equal(sample.parameters[name], again.parameters[name]) for name in ONE)
    other = CAVITY.sample(40, subset, seed=4, resolution=resolution)
    assert any(not torch.equal(sample.parameters[name], other.parameters[name]) for name in ONE)


def test_subsets_vary_what_their_name_says():
    base = CAVITY.sample(1, "geo", 0).parameters
    for subset, varied in {
        "bc": {"lid_velocity"},
        "prop": {"density", "viscosity"},
        "geo": {"height", "width"},
    }.items():
        parameters = CAVITY.sample(20, subset, seed=1).parameters
        for name, values in parameters.items():
            constant = bool((values == values[0]).all())
            assert constant == (name not in varied), (subset, name)
    assert float(base["lid_velocity"]) == 10.0
    mixture = CAVITY.sample(162, "all", 0).subsets
    assert mixture.count("geo") >= 162 / 5 and set(mixture) == {"bc", "prop", "geo"}


def test_bands_are_held_out():
    def numbers(subset):
        p = CAVITY.sample(60, subset, seed=0).parameters
        return p["lid_velocity"] * p["width"] * p["density"] / p["viscosity"], p["height"] / p["width"]

    reynolds, aspect = numbers("outside")
    assert not ((reynolds >= REYNOLDS_BAND[0]) & (reynolds <= REYNOLDS_BAND[1])).any()
    assert not ((aspect >= ASPECT_BAND[0]) & (aspect <= ASPECT_BAND[1])).any()
    reynolds, _ = numbers("reynolds_band")
    assert ((reynolds >= REYNOLDS_BAND[0]) & (reynolds <= REYNOLDS_BAND[1])).all()
    _, aspect = numbers("aspect_band")
    assert ((aspect >= ASPECT_BAND[0]) & (aspect <= ASPECT_BAND[1])).all()
    lid = CAVITY.sample(20, "lid_change", seed=0, frames=21).parameters["lid_velocity"]
    assert lid.shape == (20, 21) and (lid[:, 0] == lid[:, 9]).all() and (lid[:, 9] != lid[:, 10]).all()


def test_reynolds_limit_depends_on_the_grid():
    assert resolved_reynolds(64) == 1000 and resolved_reynolds(128) == 4000 and resolved_reynolds(512) == 5000
    with pytest.raises(SolverError, match=r"case 1 has Reynolds number 1500.*64x64.*up to 1000.*resolution >= 79"):
        CAVITY.solve(with_(lid_velocity=[1.0, 15.0]), resolution=64)
    with pytest.raises(SolverError, match=r"refused above 5000.*unsteady"):
        CAVITY.solve(with_(viscosity=1e-4), resolution=512)
    with pytest.raises(SolverError, match="resolution of at least 21"):
        CAVITY.sample(3, "bc", resolution=16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_problem("cavty"), "did you mean 'cavity'"),
        (lambda: CAVITY.sample(3, "prob"), "did you mean 'prop'"),
        (lambda: CAVITY.sample(0), "at least 1"),
        (
            lambda: CAVITY.solve({"lid_velocty": 1.0}),
            "no parameter 'lid_velocty'; did you mean 'lid_velocity'",
        ),
        (lambda: CAVITY.solve({"lid_velocity": 1.0}), "needs the parameters density"),
        (lambda: CAVITY.solve(with_(viscosity=-1.0)), "viscosity.*case 0.*positive"),
        (lambda: CAVITY.solve(with_(density=[1.0, math.nan])), "density.*case 1"),
        (
            lambda: CAVITY.solve(with_(density=[1.0, 2.0], width=[1.0, 1.0, 1.0])),
            r"shape \(2,\); expected \(3,\)",
        ),
        (lambda: CAVITY.solve(with_(density="heavy")), "expected a number"),
        (lambda: CAVITY.solve(ONE, resolution=4), "resolution is 4"),
        (lambda: CAVITY.solve(ONE, resolution=(32, 32, 32)), "resolution is"),
        (lambda: CAVITY.solve(ONE, resolution=24, times=[0.0, 0.2, 0.1]), "increase"),
        (lambda: CAVITY.solve(ONE, resolution=24, times=[0.1, 0.2]), "start at 0"),
        (
            lambda: CAVITY.solve(with_(lid_velocity=[[1.0, 1.0]]), resolution=24, times=[0.0, 0.1, 0.2, 0.3]),
            "2 times",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_residual_of_a_trajectory_is_differentiable_and_small_for_close_frames():
    times = torch.linspace(0, 0.5, 41)
    trajectory = CAVITY.solve(ONE, resolution=24, times=times, dtype=torch.float64)
    late = {name: values[:, 30:] for name, values in trajectory.items()}
    late["face_velocity_x"] = late["face_velocity_x"].clone().requires_grad_()
    residual = CAVITY.residual(late, ONE)
    convection = 1.0  # U^2 / L
    assert max(float(r.detach().abs().mean()) for r in residual["momentum"]) < 0.02 * convection
    assert float(residual["continuity"][0].detach().abs().max()) < 1e-10
    residual["momentum"][0].square().sum().backward()
    assert torch.isfinite(late["face_velocity_x"].grad).all() and late["face_velocity_x"].grad.any()

"""Periodic flow as a problem: published cases, energy balance, symmetry, restart, refusals."""

import math

import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.problems import get_problem

FLOW = get_problem("vorticity")
ONE = {"viscosity": 2e-3, "initial_amplitude": 3.0, "initial_smoothness": 4.0}
FORCED = {**ONE, "drag": 0.1, "forcing": 2.0, "forcing_wavenumber_x": 1.0, "forcing_wavenumber_y": 2.0}
N = 32


def relative(a, b):
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt())


def test_documented_call_returns_trajectories_with_their_velocity():
    parameters = {**FORCED, "viscosity": [2e-3, 8e-3], "draw": [0, 1], "length": [1.0, 2.0], "initial_scale": 0.2}
    trajectory = FLOW.solve(parameters, resolution=N, times=[0.0, 0.2, 0.5])
    assert trajectory["vorticity"].shape == (2, 3, 1, N, N) and trajectory["vorticity"].dtype == torch.float32
    assert trajectory["time"].shape == (2, 3) and trajectory["time"].dtype == torch.float64
    torch.testing.assert_close(trajectory["vorticity"][:, 0], FLOW.initial(parameters, N))
    assert float(trajectory["vorticity"].mean((3, 4)).abs().max()) < 1e-5
    velocity = FLOW.velocity(trajectory, parameters)
    assert velocity.shape == (2, 3, 2, N, N)
    energy = FLOW.energy_budget(trajectory, parameters)["energy"]
    torch.testing.assert_close(0.5 * velocity.square().sum(2).mean((2, 3)), energy, rtol=1e-4, atol=0)


def test_taylor_green_vortices_through_the_problem():
    """truth/taylor_green_2d.json: w = 2 k cos kx cos ky e^(-2 nu k^2 t) in a box of 2 pi, nu 0.01, k 1, t 10."""
    x = 2 * math.pi * (torch.arange(N) + 0.5) / N
    initial = (2 * torch.cos(x)[:, None] * torch.cos(x)).reshape(1, 1, N, N)
    parameters = {"viscosity": 0.01, "length": 2 * math.pi}
    trajectory = FLOW.solve(parameters, times=[0.0, 10.0], initial=initial)
    assert relative(trajectory["vorticity"][:, 1], 0.8187307530779818 * initial) < 1e-5
    energy = FLOW.energy_budget(trajectory, parameters)["energy"]
    assert float(energy[0, 1]) == pytest.approx(0.16758001150890983, rel=1e-4)


def test_a_finer_grid_changes_little_and_starts_from_the_same_field():
    """Near the default resolution, at the lowest viscosity that is drawn, where the error is largest."""
    parameters = {"viscosity": 2e-4, "draw": 1}
    times = [0.0, 0.5, 2.0]
    coarse = FLOW.solve(parameters, 61, times, dtype=torch.float64)["vorticity"]
    fine = FLOW.solve(parameters, 183, times, dtype=torch.float64)["vorticity"][..., 1::3, 1::3]
    torch.testing.assert_close(coarse[:, 0], fine[:, 0], rtol=0, atol=1e-10)
    assert relative(coarse[:, 2], coarse[:, 0]) > 0.5 and relative(coarse[:, 2], fine[:, 2]) < 0.03


def test_laminar_kolmogorov_flow_starts_from_rest_and_balances():
    parameters = {**FORCED, "viscosity": 2e-2, "forcing_phase": 0.4, "length": 2.0}
    x = (torch.arange(N, dtype=torch.float64) + 0.5) / N
    square = (math.pi**2) * 5.0
    steady = 2.0 * torch.cos(2 * math.pi * (x[:, None] + 2 * x) + 0.4) / (2e-2 * square + 0.1)
    initial = torch.zeros(1, 1, N, N, dtype=torch.float64)
    trajectory = FLOW.solve(parameters, times=[0.0, 15.0, 30.0], initial=initial, dtype=torch.float64)
    torch.testing.assert_close(trajectory["vorticity"][0, 2, 0], steady, rtol=0, atol=1e-9)
    budget = FLOW.energy_budget(trajectory, parameters)
    torch.testing.assert_close(
        budget["injection"][:, 2], (budget["dissipation"] + budget["drag"])[:, 2], rtol=1e-8, atol=0
    )


@pytest.mark.slow
def test_chaotic_kolmogorov_flow_keeps_a_steady_energy_balance():
    """Averaged over time, injection = dissipation + drag within 3 %, in a flow that keeps changing."""
    parameters = {"viscosity": 5e-4, "drag": 0.1, "forcing": 3.0, "forcing_wavenumber_y": 4.0, "draw": [0, 1]}
    times = torch.cat([torch.zeros(1), torch.arange(40.0, 160.0, 0.25)])
    trajectory = FLOW.solve(parameters, 48, times)
    budget = {name: value[:, 1:] for name, value in FLOW.energy_budget(trajectory, parameters).items()}
    loss = budget["dissipation"] + budget["drag"]
    balance = (budget["injection"].mean(1) / loss.mean(1) - 1).abs()
    assert float(balance.max()) < 0.03, balance
    vorticity = trajectory["vorticity"]
    assert relative(vorticity[:, -1], vorticity[:, -21]) > 0.5, "the flow is not steady"
    assert float((budget["injection"].std(1) / budget["injection"].mean(1)).min()) > 0.02
    assert bool((budget["drag"].mean(1) > 0.2 * loss.mean(1)).all()), "the drag takes its part"


def test_energy_of_the_frames_changes_by_what_the_budget_says():
    trajectory = FLOW.solve(FORCED, 48, torch.linspace(0, 0.4, 81), dtype=torch.float64)
    budget = FLOW.energy_budget(trajectory, FORCED)
    power = budget["injection"] - budget["dissipation"] - budget["drag"]
    change = torch.trapezoid(power, trajectory["time"])
    actual = budget["energy"][:, -1] - budget["energy"][:, 0]
    torch.testing.assert_close(change, actual, rtol=1e-4, atol=0)
    assert float((actual / budget["energy"][:, 0]).abs()) > 0.05


def test_residual_of_the_own_trajectory_falls_with_the_square_of_the_interval():
    sizes = []
    for frames in (11, 21, 41):
        trajectory = FLOW.solve(FORCED, N, torch.linspace(0, 0.4, frames), dtype=torch.float64)
        (residual,) = FLOW.residual(trajectory, FORCED)["vorticity"]
        assert residual.shape == (1, frames - 1, N, N)
        sizes.append(float(residual.square().mean().sqrt()))
    assert 3.5 < sizes[0] / sizes[1] < 4.5 and 3.7 < sizes[1] / sizes[2] < 4.3, sizes
    change = trajectory["vorticity"].diff(dim=1).square().mean().sqrt() / 0.01
    assert sizes[-1] < 2e-3 * float(change)
    vorticity = trajectory["vorticity"].clone().requires_grad_()
    (residual,) = FLOW.residual({**trajectory, "vorticity": vorticity}, FORCED)["vorticity"]
    residual.square().sum().backward()
    assert torch.isfinite(vorticity.grad).all() and bool(vorticity.grad.any())


def test_exchanging_the_axes_exchanges_the_solution():
    """A reflection turns the sense of rotation: w -> -w^T solves the equation with the source -f^T."""
    mirrored = {**FORCED, "forcing_wavenumber_x": 2.0, "forcing_wavenumber_y": 1.0, "forcing_phase": math.pi}
    initial = FLOW.initial(FORCED, N, torch.float64)
    times = [0.0, 0.5]
    options = {"dtype": torch.float64, "steps": 40}
    straight = FLOW.solve(FORCED, N, times, initial=initial, **options)["vorticity"]
    exchanged = FLOW.solve(mirrored, N, times, initial=-initial.transpose(2, 3), **options)["vorticity"]
    torch.testing.assert_close(exchanged, -straight.transpose(3, 4), rtol=1e-9, atol=1e-9)


def test_flow_depends_on_dimensionless_numbers_only():
    length, second = 3.0, 0.25  # units of the second case
    other = {
        **FORCED,
        "viscosity": FORCED["viscosity"] * length**2 / second,
        "drag": FORCED["drag"] / second,
        "forcing": FORCED["forcing"] / second**2,
        "initial_amplitude": FORCED["initial_amplitude"] / second,
        "initial_scale": length / 7,
        "length": length,
    }
    a = FLOW.solve(FORCED, N, [0.0, 0.5], dtype=torch.float64)["vorticity"]
    b = FLOW.solve(other, N, [0.0, 0.5 * second], dtype=torch.float64)["vorticity"]
    torch.testing.assert_close(b * second, a, rtol=1e-9, atol=1e-9)
    values = [FLOW.as_parameters(case) for case in (FORCED, other)]
    numbers = [FLOW.conditions(v, torch.tensor([dt])) for v, dt in zip(values, (0.5, 0.5 * second), strict=True)]
    torch.testing.assert_close(numbers[0], numbers[1])


def test_batch_equals_single_cases_and_float32_equals_float64():
    parameters = {**FORCED, "viscosity": [2e-3, 4e-3], "forcing": [2.0, 0.0], "draw": [3, 4]}
    times = [0.0, 0.3, 0.6]
    both = FLOW.solve(parameters, N, times, steps=30, dtype=torch.float64)["vorticity"]
    for case in range(2):
        single = {name: value[case] if isinstance(value, list) else value for name, value in parameters.items()}
        alone = FLOW.solve(single, N, times, steps=30, dtype=torch.float64)["vorticity"]
        torch.testing.assert_close(both[case : case + 1], alone, rtol=1e-10, atol=1e-10)
    assert relative(FLOW.solve(parameters, N, times)["vorticity"].double(), both) < 1e-4


def test_restart_equals_straight_run():
    times = [0.0, 0.3, 0.6]
    straight = FLOW.solve(FORCED, N, times, steps=30, dtype=torch.float64)["vorticity"]
    again = FLOW.solve(FORCED, times=[0.0, 0.3], initial=straight[:, 1], steps=30, dtype=torch.float64)["vorticity"]
    torch.testing.assert_close(again[:, 1], straight[:, 2], rtol=1e-10, atol=1e-10)


def test_gradient_of_the_solution_with_respect_to_the_initial_field():
    initial = FLOW.initial(FORCED, 24, torch.float64).requires_grad_()
    weight = torch.randn(1, 1, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def final(field):
        field = field - field.mean()
        return (
            FLOW.solve({**FORCED, "viscosity": 0.02}, times=[0.0, 0.05], initial=field, dtype=torch.float64, steps=2)[
                "vorticity"
            ][:, 1]
            * weight
        ).sum()

    assert torch.autograd.gradcheck(final, (initial,), fast_mode=True)


def test_published_cases():
    """Li et al. 2021: viscosity 1e-3, source 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y)); PI-HC-MoE: 1e-4, none."""
    from sciml.problems.vorticity import _source

    fno = FLOW.sample(3, "fno", 0).parameters
    x = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    angle = 2 * math.pi * (x[:, None] + x)
    exact = 0.1 * (angle.sin() + angle.cos())
    torch.testing.assert_close(_source(FLOW.as_parameters(fno), (16, 16))[0, 0], exact, rtol=0, atol=1e-12)
    assert set(fno["viscosity"].tolist()) == {1e-3} and fno["initial_scale"][0] == pytest.approx(1 / 7)
    square = torch.tensor(
        [a * a + b * b for a in range(-20, 21) for b in range(-20, 21) if a or b], dtype=torch.float64
    )
    variance = 7.0**3 * (4 * math.pi**2 * square + 49) ** -2.5
    assert float(fno["initial_amplitude"][0]) == pytest.approx(float(variance.sum().sqrt()))
    moe = FLOW.sample(2, "hcmoe", 0).parameters
    assert set(moe["viscosity"].tolist()) == {1e-4} and not moe["forcing"].any() and not moe["drag"].any()
    assert len(set(fno["draw"].tolist())) == 3, "every case has its own initial field"
    trajectory = FLOW.solve({name: value[:1] for name, value in fno.items()}, 64, [0.0, 10.0, 50.0])
    rms = trajectory["vorticity"].square().mean((2, 3, 4)).sqrt()[0].tolist()
    assert 0.1 < rms[0] < 0.3 and 0.4 < rms[1] < 1.0 and 0.6 < rms[2] < 1.5, "the source takes over"


@pytest.mark.parametrize("subset", ["decaying", "kolmogorov", "controlled", "fno", "hcmoe", "all"])
@pytest.mark.parametrize("resolution", [24, 48, 64, 128])
def test_samples_are_resolved_and_reproducible(subset, resolution):
    if subset in ("fno", "hcmoe") and resolution < 48:
        with pytest.raises(SolverError, match="use a resolution of at least 48"):
            FLOW.sample(3, subset, resolution=resolution)
        return
    sample = FLOW.sample(20, subset, seed=3, resolution=resolution)
    FLOW.check_resolved(sample.parameters, (resolution, resolution))
    again = FLOW.sample(20, subset, seed=3, resolution=resolution)
    assert all(torch.equal(sample.parameters[name], again.parameters[name]) for name in FLOW.parameter_names)
    conditions = FLOW.conditions(sample.parameters, torch.full((20,), 0.5))
    assert torch.isfinite(conditions).all() and conditions.shape == (20, len(FLOW.condition_names))
    if subset == "all":
        assert set(sample.subsets) == {"decaying", "kolmogorov"}
        varying = [name for name, std in zip(FLOW.condition_names, conditions.std(0), strict=True) if std > 0]
        assert set(FLOW.condition_names) - set(varying) == {"source_sine"}, "the phase of the sources is 0"


def test_controlled_cases_have_sources_of_any_strength_and_phase_along_the_longest_waves():
    case = FLOW.sample(200, "controlled", seed=0, resolution=32).parameters
    waves = torch.stack([case["forcing_wavenumber_x"], case["forcing_wavenumber_y"]], 1)
    assert {tuple(wave) for wave in waves.tolist()} == {(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, -1.0)}
    assert case["forcing"].min() < 0.2 and 5.8 < case["forcing"].max() <= 6 and not case["drag"].any()
    angle = case["forcing_phase"]
    assert angle.cos().mean().abs() < 0.15 and angle.sin().mean().abs() < 0.15, "no direction is preferred"
    assert angle.min() < -math.pi and angle.max() > math.pi, "what atan2 gives is inside the range of training"


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_controlled_cases_stay_resolved_while_the_source_acts(resolution):
    """A long wave that nothing opposes drives the flow beyond the unit of scales, which the viscosity goes by."""
    sample = FLOW.sample(12, "controlled", seed=2, resolution=resolution)
    with torch.inference_mode():
        vorticity = FLOW.solve(sample.parameters, resolution, [0.0, 1.2, 2.4])["vorticity"]
    size = vorticity.square().mean((2, 3, 4)).sqrt() / FLOW.scales(sample.parameters)["vorticity"]
    assert 1 < float(size.max()) < 3, "the strongest grow, and remain within what training keeps"


def test_scales_can_be_differentiated_where_there_is_no_source():
    values = FLOW.as_parameters({**FORCED, "forcing": 0.0})
    values["forcing"] = values["forcing"].clone().requires_grad_()
    FLOW.scales(values)["vorticity"].sum().backward()
    assert float(values["forcing"].grad) == 0.0


@pytest.mark.parametrize("resolution", [24, 64])
def test_drawn_cases_solve_with_fields_of_order_one_that_change_from_frame_to_frame(resolution):
    sample = FLOW.sample(6, "all", seed=1, resolution=resolution)
    with torch.inference_mode():
        vorticity = FLOW.solve(sample.parameters, resolution, 0.5 * torch.arange(9))["vorticity"]
    size = vorticity.square().mean((2, 3, 4)).sqrt() / FLOW.scales(sample.parameters)["vorticity"]
    assert float(size.min()) > 0.1 and float(size.max()) < 2
    if resolution == FLOW.resolution:
        flat = vorticity.flatten(2)
        correlation = torch.nn.functional.cosine_similarity(flat[:, 1:], flat[:, :-1], dim=2).mean()
        assert 0.8 < float(correlation) < 0.97


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_problem("vorticity", 3), "does not exist in 3D; it exists in 2D"),
        (lambda: get_problem("vorticity", 1), "does not exist in 1D"),
        (lambda: FLOW.solve({**ONE, "viscosity": -1e-3}), "viscosity.*case 0.*positive"),
        (lambda: FLOW.solve({**ONE, "drag": -0.1}), "drag.*at least 0"),
        (lambda: FLOW.solve({**ONE, "forcing": -0.1}), "forcing.*at least 0"),
        (lambda: FLOW.solve({**ONE, "draw": 0.5}), "draw.*whole number"),
        (lambda: FLOW.solve({"drag": 1.0}), "needs the parameters viscosity"),
        (lambda: FLOW.solve({**FORCED, "forcing_wavenumber_x": 1.5}, N), "wavenumber_x of case 0 is 1.5.*whole"),
        (lambda: FLOW.solve({**FORCED, "forcing_wavenumber_x": 0, "forcing_wavenumber_y": 0}, N), "case 0 is uniform"),
        (lambda: FLOW.solve({**FORCED, "drag": [[0.1, 0.2]]}, N), "drag changes in time"),
        (lambda: FLOW.solve(ONE, N, times=[0.0, 0.2, 0.1]), "increase"),
        (lambda: FLOW.solve(ONE, initial=torch.zeros(1, 2, N, N)), r"initial has shape \(1, 2, 32, 32\); expected"),
        (lambda: FLOW.solve(ONE, initial=torch.zeros(N, N)), "initial has shape"),
        (lambda: FLOW.solve(ONE, 24, initial=torch.zeros(1, 1, N, N)), r"expected \(1, 1, 24, 24\)"),
        (lambda: FLOW.solve(ONE, initial=torch.full((1, 1, N, N), math.nan)), "case 0 is not finite"),
        (lambda: FLOW.solve(ONE, initial=torch.ones(1, 1, N, N)), "mean 1 in case 0.*zero mean"),
        (lambda: FLOW.solve(ONE, N, [0.0, 1.0], steps=0), "steps is 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_what_the_grid_or_the_scheme_cannot_do_is_refused():
    with pytest.raises(SolverError, match=r"case 1: the smallest eddies.*32x32.*resolution >= \d+"):
        FLOW.solve({**ONE, "viscosity": [2e-3, 1e-4]}, N)
    with pytest.raises(SolverError, match=r"32 cells hold sources of up to 10 waves along y.*at least 34"):
        FLOW.solve({**FORCED, "forcing_wavenumber_y": 11.0}, N)
    with pytest.raises(SolverError, match=r"steps of 0.5 s.*limit of stability.*at least \d+ steps"):
        FLOW.solve(ONE, N, [0.0, 0.5], steps=1)
    noise = torch.randn(1, 1, N, N, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SolverError, match="resolution too coarse for case 0"):
        FLOW.solve(ONE, [N, N], [0.0, 0.5], initial=noise - noise.mean())
    inviscid = {**ONE, "viscosity": 1e-7}
    with pytest.raises(SolverError, match="resolution too coarse for case 0"):
        FLOW.solve(inviscid, times=[0.0, 10.0], initial=FLOW.initial(ONE, N))


def test_the_resolution_that_the_refusal_names_is_enough():
    parameters = {**ONE, "viscosity": 5e-4}
    with pytest.raises(SolverError) as refused:
        FLOW.check_resolved(parameters, (N, N))
    needed = int(str(refused.value).split("resolution >= ")[1].split(",")[0])
    FLOW.check_resolved(parameters, (needed, needed))
    with pytest.raises(SolverError):
        FLOW.check_resolved(parameters, (needed - 1, needed - 1))

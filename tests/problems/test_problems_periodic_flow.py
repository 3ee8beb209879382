"""Decaying periodic flow: exact decay, an independent pseudo-spectral solution, balances, symmetry, refusals."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.physics import Periodic, box, continuity_residual, laplacian, metrics
from sciml.physics.boundary import boundary_values
from sciml.problems import get_problem
from sciml.problems.periodic_flow import PeriodicFlow, initial_faces, resolved_reynolds
from sciml.solvers import IncompressibleSolver

FLOWS = {dim: PeriodicFlow(dim) for dim in (2, 3)}
VORTEX = {"viscosity": 0.05, "speed": 1.0, "waves": 1.0, "vortex": 1.0}
EDDIES = {"viscosity": 0.1, "speed": 1.0, "waves": 1.5, "draw": 7.0}


def solve(dim, parameters, resolution, times, **options):
    with torch.inference_mode():
        return FLOWS[dim].solve(parameters, resolution, times, **{"dtype": torch.float64, **options})


def faces_of(trajectory, frame):
    return tuple(trajectory[name][:, frame] for name in sorted(trajectory) if name.startswith("face_"))


def energy(faces):
    """Mean of u^2 / 2 over the faces."""
    return 0.5 * sum(u.square().flatten(1).mean(1) for u in faces)


# ------------------------------------------------------------------------------------------------------ initial flow


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("parameters", [VORTEX, EDDIES])
def test_initial_flow_has_no_divergence_and_the_given_speed(dim, parameters):
    values = FLOWS[dim].as_parameters({**parameters, "speed": [1.0, 3.0], "length": [1.0, 5.0]})
    means = []
    for n in (16, 32):
        grid = box((n,) * dim, FLOWS[dim].lengths(values), periodic=True)
        faces = initial_faces(grid, values)
        assert continuity_residual(faces, grid=grid).abs().max() < 1e-11
        assert all(u.flatten(1).mean(1).abs().max() < 1e-13 for u in faces)
        means.append((2 * energy(faces)).sqrt() / values["speed"] - 1)
    assert means[1].abs().max() < 0.02 and (means[0] / means[1]).min() > 3.5, "the speed is met at second order"


@pytest.mark.parametrize("parameters", [VORTEX, EDDIES])
def test_initial_flow_is_the_same_at_every_resolution(parameters):
    """In 2D face values are exact fluxes: coarse faces are means of fine ones; in 3D to second order."""
    for dim in (2, 3):
        values = FLOWS[dim].as_parameters(parameters)
        fields = [
            initial_faces(box((n,) * dim, FLOWS[dim].lengths(values), periodic=True), values)[0] for n in (12, 24, 48)
        ]
        differences = []
        for coarse, fine in pairwise(fields):
            fine = fine[:, ::2]
            for axis in range(2, dim + 1):
                fine = fine.unflatten(axis, (-1, 2)).mean(axis + 1)
            differences.append(float((coarse - fine).abs().max()))
        if dim == 2:
            assert max(differences) < 1e-13
        else:
            assert differences[1] < 0.02 and differences[0] / differences[1] > 3.5


def test_spectrum_peaks_at_the_given_wave():
    """E(k) = k^4 exp(-2 (k / 3)^2) peaks at k = 3; averaged over draws and read off in shells."""
    for dim, cases in ((2, 40), (3, 6)):
        parameters = {**EDDIES, "waves": 3.0, "draw": list(range(cases))}
        velocity = FLOWS[dim].initial(parameters, 24, torch.float64).numpy()
        power = np.abs(np.fft.fftn(velocity, axes=range(2, dim + 2))).__pow__(2).sum((0, 1))
        k = np.fft.fftfreq(24, 1 / 24)
        shell = np.rint(np.sqrt(sum(np.square(np.meshgrid(*[k] * dim, indexing="ij"))))).astype(int)
        spectrum = np.bincount(shell.ravel(), power.ravel())
        assert spectrum.argmax() == 3
        expected = np.arange(1, 6) ** 4 * np.exp(-2 * (np.arange(1, 6) / 3) ** 2)
        assert np.abs(spectrum[1:6] / spectrum[1:6].sum() - expected / expected.sum()).max() < 0.12


def test_draws_differ_and_repeat():
    velocity = FLOWS[3].initial({**EDDIES, "draw": [1.0, 1.0, 2.0]}, 16)
    assert torch.equal(velocity[0], velocity[1]) and (velocity[0] - velocity[2]).abs().max() > 0.5
    moved = FLOWS[3].initial({**VORTEX, "draw": [1.0, 2.0]}, 16)
    assert (moved[0] - moved[1]).abs().max() > 0.5


# --------------------------------------------------------------------------------------------------------- solutions


def test_plane_taylor_green_decays_exactly_at_second_order():
    """u = u_0 exp(-2 nu k^2 t) whatever the amplitude, place and box; p decays with twice the rate."""
    parameters = {**VORTEX, "viscosity": [0.04, 0.3], "speed": [1.0, 2.0], "length": [2 * math.pi, 3.0], "draw": 3.0}
    rate = 2 * torch.tensor([0.04, 0.3 * (2 * math.pi / 3) ** 2], dtype=torch.float64)
    times = torch.linspace(0, 0.5, 3)
    errors, pressures, speed = [], [], torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
    for n in (16, 32, 64):
        trajectory = solve(2, parameters, n, times)
        start, end = faces_of(trajectory, 0), faces_of(trajectory, 2)
        decay = torch.exp(-rate * 0.5).reshape(2, 1, 1)
        errors.append(
            max(float(((v - u * decay) / speed[..., 0]).abs().max()) for u, v in zip(start, end, strict=True))
        )
        p = trajectory["pressure"][:, :, 0]
        pressures.append(float(((p[:, 2] - p[:, 0] * decay**2) / speed[..., 0] ** 2).abs().max()))
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 1.9, errors
    assert min(math.log2(a / b) for a, b in pairwise(pressures)) > 1.7, pressures
    assert errors[-1] < 1e-3


def spectral_solution(velocity, viscosity, duration, steps):
    """Independent: pseudo-spectral, rotational form, 2/3 rule, classical Runge-Kutta, box of side 2 pi; numpy."""
    dim, n = len(velocity), velocity.shape[1]
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * dim, indexing="ij"))
    square = (k**2).sum(0)
    kept = (np.abs(k) < n / 3).all(0)
    inverse = 1 / np.where(square == 0, 1, square)
    axes = tuple(range(1, dim + 1))

    def rate(u):
        gradient = [[np.fft.ifftn(1j * k[j] * u[i]).real for j in range(dim)] for i in range(dim)]
        point = np.fft.ifftn(u, axes=axes).real
        force = np.stack([-sum(point[j] * gradient[i][j] for j in range(dim)) for i in range(dim)])
        force = np.fft.fftn(force, axes=axes) * kept
        return force - k * (k * force).sum(0) * inverse - viscosity * square * u

    u, dt = np.fft.fftn(velocity, axes=axes) * kept, duration / steps
    for _ in range(steps):
        a = rate(u)
        b = rate(u + 0.5 * dt * a)
        c = rate(u + 0.5 * dt * b)
        u = u + dt / 6 * (a + 2 * b + 2 * c + rate(u + dt * c))
    return u, k


def point_values(flow, parameters, n):
    """Exact velocity at the cell centres of an n-grid."""
    if parameters.get("vortex"):
        # one wave: the discrete curl and the mean of two faces together shrink it by sin(k h) / (k h)
        step = 2 * math.pi / n
        return flow.initial(parameters, n, torch.float64)[0].numpy() * step / math.sin(step)
    fine = flow.initial(parameters, 9 * n, torch.float64)[0]  # its centre 9 i + 4 is centre i of the n-grid
    return fine[(slice(None), *(slice(4, None, 9),) * flow.dim)].numpy()


@pytest.mark.parametrize(
    ("dim", "parameters"), [(2, {**EDDIES, "viscosity": 0.05}), (3, {**VORTEX, "viscosity": 0.05})]
)
def test_flow_against_a_pseudo_spectral_solution(dim, parameters):
    """Cell-centred velocity after half a turn-over: the error falls at second order."""
    flow, duration, errors = FLOWS[dim], 0.5, []
    exact, _ = spectral_solution(point_values(flow, parameters, 24), parameters["viscosity"], duration, 25)
    size = exact.shape[1] ** dim
    for n in (16, 24, 36) if dim == 3 else (24, 36, 54):
        velocity = solve(dim, parameters, n, [0.0, duration])["velocity"][0, 1].numpy()
        # the spectral solution at these cell centres, which lie (h - h_spectral) / 2 from its own
        low = 0.5 * (2 * math.pi / n - 2 * math.pi / exact.shape[1])
        position = 2 * math.pi * np.arange(n) / n + low
        value = exact
        for _ in range(dim):
            waves = np.exp(1j * np.outer(np.fft.fftfreq(exact.shape[1], 1 / exact.shape[1]), position))
            value = np.moveaxis(np.tensordot(value, waves, axes=([1], [0])), -1, dim)
        errors.append(np.sqrt(np.mean((velocity - value.real / size) ** 2)))
    orders = [math.log(a / b) / math.log(1.5) for a, b in pairwise(errors)]
    assert min(orders) > 1.7 and errors[-1] < 0.02, (errors, orders)


@pytest.mark.slow
def test_taylor_green_dissipation_against_a_pseudo_spectral_solution():
    """Re = V / (k nu) = 100: the energy follows the spectral one within 1 % through the peak of dissipation."""
    parameters = {**VORTEX, "speed": 0.5, "viscosity": 0.01}  # V = 2 rms speeds in three dimensions
    times = torch.linspace(0, 8, 9)
    trajectory = solve(3, parameters, 48, times, dtype=torch.float32)
    ours = torch.stack([energy(faces_of(trajectory, t))[0] for t in range(9)]).double()
    state, spectral = point_values(FLOWS[3], parameters, 32), []
    for t in range(9):
        if t > 0:
            hat, _ = spectral_solution(state, 0.01, 1.0, 20)
            state = np.fft.ifftn(hat, axes=(1, 2, 3)).real
        spectral.append(0.5 * float((state**2).sum(0).mean()))
    spectral = torch.tensor(spectral)
    assert (ours / ours[0] - spectral / spectral[0]).abs().max() < 0.01
    assert spectral[-1] / spectral[0] < 0.75, "and most of the difference to 1 is large"


@pytest.mark.parametrize("dim", [2, 3])
def test_energy_decays_as_the_discrete_dissipation_says(dim):
    """dE/dt = nu <u . lap u>: central advection and the pressure do no work on a uniform grid."""
    viscosity = torch.tensor([0.1], dtype=torch.float64)
    trajectory = solve(dim, EDDIES, 20, torch.linspace(0, 0.4, 41))
    grid = box((20,) * dim, torch.full((1, dim), 2 * math.pi, dtype=torch.float64), periodic=True)
    sides = {f"{axis}_{end}": Periodic() for axis in "xyz"[:dim] for end in ("low", "high")}
    metric, values = metrics(grid, dtype=torch.float64), boundary_values(grid, sides, dtype=torch.float64)
    energies, dissipation = [], []
    for t in range(41):
        faces = faces_of(trajectory, t)
        energies.append(energy(faces))
        lap = laplacian(faces, metric, values)
        dissipation.append(viscosity * sum((u * f).flatten(1).mean(1) for u, f in zip(faces, lap, strict=True)))
    energies, dissipation = torch.stack(energies), torch.stack(dissipation)
    assert (energies.diff(dim=0) < 0).all(), "the energy never grows"
    loss = torch.trapezoid(dissipation[:, 0], dx=0.01)
    assert float((energies[-1] - energies[0] - loss).abs() / loss.abs()) < 2e-3


# ------------------------------------------------------------------------------------------- symmetry and consistency


def test_permuted_axes_give_the_permuted_flow():
    """A cyclic permutation x -> y -> z and a mirror x -> -x of a 3D flow; a transposition in 2D."""
    start = FLOWS[3].initial(EDDIES, 12, torch.float64)
    straight = solve(3, EDDIES, 12, [0.0, 0.5], initial=start)["velocity"]
    turned = start.permute(0, 1, 4, 2, 3)[:, [2, 0, 1]]
    other = solve(3, EDDIES, 12, [0.0, 0.5], initial=turned)["velocity"]
    torch.testing.assert_close(other, straight.permute(0, 1, 2, 5, 3, 4)[:, :, [2, 0, 1]], rtol=0, atol=1e-12)
    sign = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    mirrored = solve(3, EDDIES, 12, [0.0, 0.5], initial=start.flip(2) * sign)["velocity"]
    torch.testing.assert_close(mirrored, straight.flip(3) * sign, rtol=0, atol=1e-12)
    plane = FLOWS[2].initial(EDDIES, 16, torch.float64)
    a = solve(2, EDDIES, 16, [0.0, 0.5], initial=plane)["velocity"]
    b = solve(2, EDDIES, 16, [0.0, 0.5], initial=plane.mT.flip(1))["velocity"]
    torch.testing.assert_close(b, a.mT.flip(2), rtol=0, atol=1e-12)
    assert (straight[:, 1] - straight[:, 0]).abs().max() > 0.1


def test_flow_that_does_not_depend_on_z_is_the_plane_one():
    plane = FLOWS[2].initial(EDDIES, 12, torch.float64)
    deep = torch.cat([plane, torch.zeros_like(plane[:, :1])], 1)[..., None].expand(1, 3, 12, 12, 12)
    a = solve(2, EDDIES, 12, [0.0, 0.3], initial=plane)["velocity"]
    b = solve(3, EDDIES, 12, [0.0, 0.3], initial=deep)["velocity"]
    torch.testing.assert_close(b[:, :, :2, ..., 5], a, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
def test_flow_depends_on_dimensionless_numbers_only(dim):
    length, speed = 0.02, 4.0
    parameters = {
        **EDDIES,
        "viscosity": [0.1, 0.1 * speed * length / (2 * math.pi)],
        "speed": [1.0, speed],
        "length": [2 * math.pi, length],
    }
    unit = torch.tensor([[1.0], [length / (2 * math.pi * speed)]], dtype=torch.float64)
    times = torch.tensor([0.0, 0.2, 0.5], dtype=torch.float64) * unit
    trajectory = solve(dim, parameters, 14, times)
    for name, scale in FLOWS[dim].scales(FLOWS[dim].as_parameters(parameters)).items():
        scaled = trajectory[name] / scale.reshape(2, 1, -1, *(1,) * dim)
        torch.testing.assert_close(scaled[1], scaled[0], rtol=1e-8, atol=1e-8)
    conditions = FLOWS[dim].conditions(FLOWS[dim].as_parameters(parameters), times[:, 1])
    torch.testing.assert_close(conditions[0], conditions[1])


@pytest.mark.parametrize("dim", [2, 3])
def test_batch_single_and_precision(dim):
    flow = FLOWS[dim]
    sample = flow.sample(4, "all", 0, 20)
    times = flow.frame_times(sample.parameters, 3)
    whole = solve(dim, sample.parameters, 20, times)
    single = solve(dim, sample.select([2]).parameters, 20, times[[2]])
    scale = float(sample.parameters["speed"][2])
    assert (whole["velocity"][2] - single["velocity"][0]).abs().max() < 0.01 * scale, "they differ in steps only"
    low = solve(dim, sample.parameters, 20, times, dtype=torch.float32)
    assert low["velocity"].dtype == torch.float32
    assert (low["velocity"] - whole["velocity"]).abs().max() < 1e-3
    residual = flow.residual(low, sample.parameters)["continuity"][0]
    assert residual.abs().max() < 2e-4 and flow.residual(whole, sample.parameters)["continuity"][0].abs().max() < 1e-12


@pytest.mark.parametrize("dim", [2, 3])
def test_restart_from_the_solver_state_equals_the_straight_run(dim):
    """The state of the first frame, carried to a new solver, gives the problem's second frame bit for bit."""
    times = torch.tensor([0.0, 0.1, 0.3], dtype=torch.float64)
    straight = solve(dim, EDDIES, 12, times)
    values = FLOWS[dim].as_parameters(EDDIES)
    grid = box((12,) * dim, FLOWS[dim].lengths(values), periodic=True)
    sides = {f"{axis}_{end}": Periodic() for axis in "xyz"[:dim] for end in ("low", "high")}

    def fresh():
        return IncompressibleSolver(grid, sides, values["viscosity"], dtype=torch.float64)

    with torch.inference_mode():
        state = fresh().state_from_velocity(initial_faces(grid, values))
        state = fresh().advance(state, times[1:2])
        state = fresh().advance(state, times[2:] - times[1:2])
    assert all(torch.equal(u, v) for u, v in zip(state.velocity, faces_of(straight, 2), strict=True))


@pytest.mark.parametrize("dim", [2, 3])
def test_residual_falls_at_second_order_of_the_frame_interval(dim):
    trajectory, found = solve(dim, EDDIES, 14, torch.linspace(0, 0.8, 81)), []
    for stride in (40, 20, 10):
        frames = {name: values[:, ::stride] for name, values in trajectory.items()}
        found.append(max(float(r[:, 0].abs().mean()) for r in FLOWS[dim].residual(frames, EDDIES)["momentum"]))
    assert found[-1] < 2e-3 and min(math.log2(a / b) for a, b in pairwise(found)) > 1.7, found


def test_residual_of_the_exact_vortex_falls_at_second_order_of_the_cells():
    """Plane Taylor-Green flow sampled at points, with its pressure, between two close times."""
    found, viscosity, interval = [], 0.05, 1e-3
    for n in (16, 32):
        centres = 2 * math.pi * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        low = centres - math.pi / n
        decay = torch.exp(torch.tensor([0.0, -2 * viscosity * interval], dtype=torch.float64)).reshape(1, 2, 1, 1)
        u = decay * torch.sin(low)[:, None] * torch.cos(centres)
        v = -decay * torch.cos(centres)[:, None] * torch.sin(low)
        p = 0.25 * decay**2 * (torch.cos(2 * centres)[:, None] + torch.cos(2 * centres))
        trajectory = {
            "face_velocity_x": u,
            "face_velocity_y": v,
            "pressure": p.unsqueeze(2),
            "time": torch.tensor([[0.0, interval]], dtype=torch.float64),
        }
        residual = FLOWS[2].residual(trajectory, {**VORTEX, "viscosity": viscosity})
        assert residual["continuity"][0].abs().max() < 1e-12
        found.append(max(float(r.abs().max()) for r in residual["momentum"]))
    assert math.log2(found[0] / found[1]) > 1.9, found


def test_gradient_through_steps_against_finite_differences():
    """Energy after two steps in 3D, by the initial velocity, the viscosity and the side."""
    sides = {f"{axis}_{end}": Periodic() for axis in "xyz" for end in ("low", "high")}
    generator = torch.Generator().manual_seed(0)

    def final(velocity, viscosity, length):
        grid = box((4, 4, 4), torch.stack([length] * 3, 1), periodic=True)
        solver = IncompressibleSolver(grid, sides, viscosity, dtype=torch.float64)
        state = solver.state_from_velocity(tuple(velocity.unbind(1)))
        for _ in range(2):
            state = solver.step(state, torch.full((1,), 0.05, dtype=torch.float64))
        return energy(state.velocity)

    velocity = torch.randn(1, 3, 4, 4, 4, generator=generator, dtype=torch.float64)
    inputs = (velocity, torch.tensor([0.1], dtype=torch.float64), torch.tensor([3.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(final, tuple(x.requires_grad_() for x in inputs), fast_mode=True)


@pytest.mark.parametrize("dim", [2, 3])
def test_initial_velocity_of_the_user_is_made_divergence_free(dim):
    generator = torch.Generator().manual_seed(1)
    rough = torch.randn(1, dim, *(12,) * dim, generator=generator, dtype=torch.float64)
    trajectory = solve(dim, EDDIES, 12, [0.0, 0.01], initial=rough)
    assert FLOWS[dim].residual(trajectory, EDDIES)["continuity"][0].abs().max() < 1e-11


# ----------------------------------------------------------------------------------------------- sampling and refusals


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("subset", ["random", "taylor_green", "all"])
@pytest.mark.parametrize("resolution", [24, 48])
def test_samples_are_resolved_reproducible_and_prefix_stable(dim, subset, resolution):
    flow = FLOWS[dim]
    sample = flow.sample(20, subset, 3, resolution)
    flow.check_resolved(sample.parameters, flow.grid(resolution))
    shorter, other = flow.sample(7, subset, 3, resolution), flow.sample(20, subset, 4, resolution)
    assert all(torch.equal(values[:7], shorter.parameters[name]) for name, values in sample.parameters.items())
    assert not torch.equal(sample.parameters["viscosity"], other.parameters["viscosity"])
    assert len(set(sample.parameters["draw"].tolist())) == 20
    vortex = sample.parameters["vortex"] == 1
    assert vortex.all() if subset == "taylor_green" else vortex.any() == (subset == "all")


NAN = torch.full((1, 3, 16, 16, 16), math.nan)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FLOWS[3].solve({**EDDIES, "viscosity": 1e-3}, 32), SolverError, "case 0.*32x32x32.*resolution >="),
        (lambda: FLOWS[2].solve({**EDDIES, "viscosity": [1.0, 1e-4]}, 32), SolverError, "case 1.*32x32 grid"),
        (lambda: FLOWS[3].sample(3, "random", resolution=8), SolverError, "use a resolution of at least"),
        (lambda: FLOWS[3].solve({**EDDIES, "viscosity": -1.0}), ConfigError, "viscosity.*case 0.*positive"),
        (lambda: FLOWS[3].solve({**EDDIES, "waves": 4.0}), ConfigError, "waves.*at most 3"),
        (lambda: FLOWS[3].solve({**VORTEX, "waves": 1.5}), ConfigError, "waves.*whole number"),
        (lambda: FLOWS[3].solve({**VORTEX, "vortex": 2.0}), ConfigError, "vortex.*0 or 1"),
        (lambda: FLOWS[3].solve({**EDDIES, "draw": 1.5}), ConfigError, "draw.*whole number"),
        (lambda: FLOWS[3].solve(EDDIES, 16, initial=torch.zeros(1, 2, 16, 16)), ConfigError, "initial has shape"),
        (lambda: FLOWS[3].solve(EDDIES, 16, initial=NAN), ConfigError, "initial of case 0 is not finite"),
        (lambda: get_problem("periodic_flow", 1), ConfigError, "does not exist in 1D; it exists in 3D and 2D"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_needed_resolution_is_the_smallest_that_resolves():
    for dim in (2, 3):
        with pytest.raises(SolverError, match="resolution >= ") as caught:
            FLOWS[dim].solve({**EDDIES, "viscosity": 0.01}, 12)
        needed = int(str(caught.value).split("resolution >= ")[1].split(" ")[0])
        reynolds = float(FLOWS[dim].reynolds({**EDDIES, "viscosity": 0.01}))
        assert resolved_reynolds(needed, 1.5, dim) >= reynolds > resolved_reynolds(needed - 1, 1.5, dim)

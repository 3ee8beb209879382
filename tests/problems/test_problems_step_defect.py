"""What the equation leaves over of a step, of every problem that says so: zero for the step, small for the solver, and
about the error near them."""

import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics import faces_to_centres, metrics
from sciml.problems import PROBLEMS, get_problem
from sciml.problems.periodic_flow import initial_faces
from sciml.solvers import IncompressibleSolver

DOUBLE = torch.float64
TOGETHER = [(name, dim) for name, kind in PROBLEMS.items() if kind.steps_by_equation for dim in kind.dims]


def row(*values):
    return torch.tensor(values, dtype=DOUBLE)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def rms(x):
    return float(x.double().square().mean().sqrt())


def of_cases(x):
    return x.flatten(1).square().mean(1).sqrt()


# Two cases of each problem that differ in everything that enters the equation, and a grid that a dense Newton stands.
CASES = {
    "vorticity": (
        {"viscosity": row(0.02, 0.005), "drag": row(0.3, 0.0), "forcing": row(2.0, 0.0), "length": row(1.0, 2.0),
         "forcing_wavenumber_y": row(2.0, 1.0), "forcing_phase": row(0.4, 0.0), "draw": row(3, 4)}, (8, 10)
    ),
    "burgers-1": ({"viscosity": row(0.05, 0.1), "length": row(1.0, 2.0), "amplitude": row(1.0, 0.5)}, (12,)),
    "burgers-walls": ({"viscosity": row(0.05, 0.1), "length": row(1.0, 2.0), "walls": row(1.0, 1.0)}, (12,)),
    "burgers-2": ({"viscosity": row(0.05, 0.1), "length": row(1.0, 2.0), "amplitude": row(1.0, 0.5)}, (6, 8)),
    "gray_scott-2": ({"feed": row(0.03, 0.05), "kill": row(0.06, 0.05), "length": row(0.2, 0.1)}, (6, 8)),
    "periodic_flow-2": (
        {"viscosity": row(0.1, 0.3), "speed": row(1.0, 2.0), "waves": row(1.0, 1.5),
         "length": row(6.0, 5.0)}, (6, 8)
    ),
    "periodic_flow-3": (
        {"viscosity": row(0.1, 0.3), "speed": row(1.0, 2.0), "waves": row(1.0, 1.5),
         "length": row(6.0, 5.0)}, (3, 5, 4)
    ),
    "cavity": (
        {"lid_velocity": row(1.0, 3.0), "density": row(1.0, 2.0), "viscosity": row(0.02, 0.1),
         "height": row(1.0, 1.3), "width": row(1.0, 0.8)}, (7, 8)
    ),
}  # fmt: skip


def case(key):
    name, _, dim = key.partition("-")
    problem = get_problem(name, int(dim)) if dim.isdigit() else get_problem(name)
    return problem, *CASES[key]


def newton(function, start):
    """A root of ``function`` of the rows ``(B, n)``, case by case, with dense Jacobians."""
    rows = []
    for number, x in enumerate(start.unbind(0)):
        for _ in range(8):
            value = function(x, number)
            if float(value.norm()) < 1e-11 * float(start.norm()):
                break
            slope = torch.autograd.functional.jacobian(lambda y, number=number: function(y, number), x, vectorize=True)
            x = x - torch.linalg.lstsq(slope, value, driver="gelsd").solution  # pressures: up to a constant
        assert float(function(x, number).norm()) < 1e-8 * float(start.norm()) + 1e-9
        rows.append(x)
    return torch.stack(rows)


def one(parameters, number):
    return {name: value[number : number + 1] for name, value in parameters.items()}


def spectral_step(problem, parameters, before, interval):
    """The step of the trapezoidal rule, from ``problem.residual``, which does not know of the defect."""
    widths = [info.components for info in problem.fields]

    def residual(x, number):
        frames = torch.stack([before[number], x.reshape(before.shape[1:])])[None]
        fields = dict(zip([info.name for info in problem.fields], frames.split(widths, 2), strict=True))
        time = torch.stack([torch.zeros(1, dtype=DOUBLE), interval[number : number + 1]], 1)
        parts = problem.residual({**fields, "time": time}, one(parameters, number))
        return interval[number] * torch.cat([part.flatten() for each in parts.values() for part in each])

    return newton(residual, before.flatten(1)).reshape(before.shape)


def mac_faces(problem, parameters, shape, seed):
    """Stored faces without divergence and without flow through the sides: a discrete curl of random numbers."""
    grid = problem.physics_grid(parameters, shape)
    if problem.name == "periodic_flow":
        return initial_faces(grid, {**problem.as_parameters({**parameters, "draw": row(seed, seed + 1)})}), grid
    nodes = torch.nn.functional.pad(0.05 * noise(2, *(n - 1 for n in shape), seed=seed), (1, 1, 1, 1))
    width = (grid.lengths / torch.tensor(shape)).reshape(2, 2, 1, 1)
    return (nodes.diff(dim=2) / width[:, 1], -nodes.diff(dim=1) / width[:, 0]), grid


def mac_step(problem, parameters, before, grid, interval):
    """Faces and pressure of the step, from ``problem.residual`` (momentum with a pressure, continuity)."""
    inside = [
        tuple(n - (i == j and not axis.periodic) for j, (n, axis) in enumerate(zip(grid.shape, grid.axes, strict=True)))
        for i in range(grid.dim)
    ]
    sizes = [math.prod(shape) for shape in (*inside, grid.shape)]

    def faces_of(x, number):
        *parts, pressure = x.split(sizes)
        faces = []
        for i, (part, shape) in enumerate(zip(parts, inside, strict=True)):
            f = part.reshape(1, *shape)
            if not grid.axes[i].periodic:
                end = torch.zeros_like(f.narrow(i + 1, 0, 1))
                f = torch.cat([end, f, end], i + 1)
            faces.append(f)
        return faces, pressure.reshape(1, *grid.shape)

    def residual(x, number):
        faces, pressure = faces_of(x, number)
        trajectory = {
            f"face_velocity_{axis}": torch.stack([b[number : number + 1], f], 1)
            for axis, b, f in zip("xyz", before, faces, strict=False)
        }
        trajectory["pressure"] = torch.stack([pressure, pressure], 1).unsqueeze(2)
        trajectory["time"] = torch.stack([torch.zeros(1, dtype=DOUBLE), interval[number : number + 1]], 1)
        parts = problem.residual(trajectory, one(parameters, number))
        momentum = torch.cat([part.flatten() for part in parts["momentum"]])
        return torch.cat([interval[number] * momentum, parts["continuity"][0][:, 1].flatten()])

    start = [
        b if axis.periodic else b.narrow(i + 1, 1, axis.n - 1)
        for i, (b, axis) in enumerate(zip(before, grid.axes, strict=True))
    ]
    start = torch.cat([*(b.flatten(1) for b in start), torch.zeros(2, sizes[-1], dtype=DOUBLE)], 1)
    x = newton(residual, start)
    pairs = [faces_of(x[number], number) for number in range(2)]
    return tuple(torch.cat(parts) for parts in zip(*(faces for faces, _ in pairs), strict=True)), torch.cat(
        [p for _, p in pairs]
    )


def exact_step(key):
    """Problem, parameters, a state, the Crank-Nicolson step from it, and its interval."""
    problem, parameters, shape = case(key)
    interval = row(0.05, 0.03)
    if problem.divergence_free:
        faces, grid = mac_faces(problem, parameters, shape, seed=1)
        after, pressure = mac_step(problem, parameters, faces, grid, interval)
        assert rms(pressure) > 1e-2, "the pressure has something to do"
        metric = metrics(grid, dtype=DOUBLE)
        return problem, parameters, faces_to_centres(faces, metric), faces_to_centres(after, metric), interval
    before = noise(2, sum(info.components for info in problem.fields), *shape, seed=1)
    if problem.name == "gray_scott":
        interval = row(0.5, 0.8)
    return problem, parameters, before, spectral_step(problem, parameters, before, interval), interval


@pytest.mark.parametrize("key", CASES)
def test_defect_vanishes_exactly_where_the_state_after_is_the_crank_nicolson_step(key):
    problem, parameters, before, after, interval = exact_step(key)
    assert rms(after - before) > 1e-2 * rms(before), "the step goes somewhere"
    assert rms(problem.step_defect(before, after, parameters, interval)) < 1e-10 * rms(after)
    assert rms(problem.step_defect(before, before, parameters, interval)) > 1e-3 * rms(before)


# ---------------------------------------------------------------------------------------------- the solver's own frames


def vorticity_frames(interval):
    problem = get_problem("vorticity")
    parameters = problem.sample(2, "kolmogorov", seed=1, resolution=32).parameters
    developed = problem.solve(parameters, 32, [0, 0.5], dtype=DOUBLE)["vorticity"][:, -1]
    solved = problem.solve(parameters, 32, [0, interval], initial=developed, steps=8, dtype=DOUBLE)
    return problem, parameters, solved["vorticity"]


def flow_frames(name, dim, resolution, interval):
    """Two frames from 64 steps of the solver, after as many of the same size: it forgets its last step slowly."""
    problem = get_problem(name, dim)
    parameters = CASES[name if name == "cavity" else f"{name}-{dim}"][0]
    grid = problem.physics_grid(parameters, (resolution,) * dim)
    sides = problem.conditions_on_sides(parameters, grid.shape)["velocity"]
    viscosity = parameters["viscosity"] / parameters.get("density", 1.0)
    solver = IncompressibleSolver(grid, sides, viscosity, dtype=DOUBLE)
    if name == "cavity":
        state = solver.advance(solver.initial_state(), row(0.6, 0.3))
    else:
        state = solver.state_from_velocity(initial_faces(grid, problem.as_parameters(parameters)))
    h = torch.full((2,), interval, dtype=DOUBLE)
    state = solver.advance(state, h, 64)
    frames = [solver.centred_velocity(state), solver.centred_velocity(solver.advance(state, h, 64))]
    return problem, parameters, torch.stack(frames, 1)


SOLVED = {
    "vorticity": (vorticity_frames, 0.04),
    "cavity": (lambda interval: flow_frames("cavity", 2, 20, interval), 0.02),
    "periodic_flow-2": (lambda interval: flow_frames("periodic_flow", 2, 20, interval), 0.04),
    "periodic_flow-3": (lambda interval: flow_frames("periodic_flow", 3, 8, interval), 0.04),
}


@pytest.mark.parametrize("key", SOLVED)
def test_defect_of_the_solvers_own_frames_falls_with_the_square_of_the_interval(key):
    """Relative to the change from frame to frame; the defect itself is O(interval^3)."""
    frames_of, longest = SOLVED[key]
    shares = []
    for interval in (longest, longest / 2, longest / 4):
        problem, parameters, frames = frames_of(interval)
        h = torch.full((2,), interval, dtype=DOUBLE)
        defect = problem.trajectory_defect(frames, parameters, h)
        shares.append(of_cases(defect) / of_cases(frames.diff(dim=1)))
        single = problem.trajectory_defect(frames.float(), parameters, h)
        assert single.dtype == torch.float32
        assert rms(single - defect) < 1e-6 * rms(frames), "in single precision only its round-off is added"
    shares = torch.stack(shares)
    assert float(shares[0].max()) < 0.03
    orders = (shares[:-1] / shares[1:]).log2()
    assert float(orders.min()) > 1.75 and float(orders.max()) < 2.25, orders


# --------------------------------------------------------------------------------------------------- errors of a state


def smooth_error(problem, shape):
    """A state of r.m.s. 1 that a learned one could be wrong by: smooth, without divergence, at rest on walls."""
    if problem.name == "vorticity":
        x, y = (2 * math.pi * (torch.arange(n, dtype=DOUBLE) + 0.5) / n for n in shape)
        e = (torch.cos(2 * x)[:, None] * torch.sin(y + 1))[None]
    else:
        x, y = (torch.arange(n + 1, dtype=DOUBLE) / n for n in shape)
        psi = (torch.sin(math.pi * x) ** 2)[:, None] * torch.sin(math.pi * y) ** 2 * torch.sin(3 * math.pi * x)[:, None]
        f, g = psi.diff(dim=1) * shape[1], -psi.diff(dim=0) * shape[0]
        e = torch.stack([0.5 * (f[1:] + f[:-1]), 0.5 * (g[:, 1:] + g[:, :-1])])
    return (e / rms(e)).unsqueeze(0)


@pytest.mark.parametrize("key", ["vorticity", "cavity", "periodic_flow-2"])
def test_near_the_step_the_defect_is_the_error(key):
    """Also where diffusion across a cell is much faster than the step: that is what the preconditioner is for."""
    frames_of, interval = SOLVED[key]
    problem, parameters, frames = frames_of(interval)
    parameters = parameters | ({"height": parameters["width"]} if key == "cavity" else {})
    h = torch.full((2,), interval, dtype=DOUBLE)
    if key != "cavity":
        error = 1e-2 * rms(frames) * smooth_error(problem, frames.shape[3:])
        if key == "periodic_flow-2":
            error = error.flip(1).transpose(2, 3)  # as good, and along the other axis
        exact = problem.step_defect(frames[:, 0], frames[:, 1], parameters, h)
        found = problem.step_defect(frames[:, 0], frames[:, 1] + error, parameters, h) - exact
        assert rms(found - error) < 0.15 * rms(error)
        return
    still = torch.zeros(2, 2, 20, 20, dtype=DOUBLE)
    slow = parameters | {"lid_velocity": row(1e-9, 1e-9), "viscosity": row(10.0, 20.0)}  # 40 and 80 cells squared
    error = 1e-2 * smooth_error(problem, (20, 20))
    for who, base in ((parameters, frames[:, 1]), (slow, still)):
        exact = problem.step_defect(still, base, who, h)
        found = problem.step_defect(still, base + error, who, h) - exact
        assert rms(found - error) < 0.3 * rms(error)
        alike = (found * error).flatten(1).sum(1) / found.flatten(1).norm(dim=1) / error.norm()
        assert float(alike.min()) > 0.95


def test_a_wrong_lid_a_leak_and_a_gradient_show():
    problem, parameters, frames = SOLVED["cavity"][0](0.02)
    h = row(0.02, 0.02)
    before, after = frames.unbind(1)

    def defect(state, **changes):
        return problem.step_defect(before, state, parameters | changes, h)

    right = rms(defect(after))
    faster = defect(after, lid_velocity=1.1 * parameters["lid_velocity"])
    assert rms(faster) > 100 * right
    assert rms(faster[..., -3:]) > 2 * rms(faster), "at the lid"
    leaking = after.clone()
    leaking[:, 1] += 1e-3  # up through floor and lid
    assert rms(defect(leaking)[:, 1]) > 0.9e-3
    angle = math.pi * (torch.arange(20, dtype=DOUBLE) + 0.5) / 20
    slope = 1e-3 * torch.sin(angle)[:, None] * torch.cos(angle)
    gradient = torch.stack([slope, slope.T]) / problem.lengths(parameters)[:, :, None, None]  # of cos cos
    pushed = defect(after + gradient) - defect(after)
    assert rms(pushed - gradient) < 0.02 * rms(gradient), "a gradient is an error of its whole size"
    outside = problem.step_defect(before + gradient, after, parameters, h)
    assert rms(outside - defect(after)) < 0.02 * rms(gradient), "before: projected away"


# --------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("key", ["vorticity", "burgers-walls", "gray_scott-2", "periodic_flow-3", "cavity"])
def test_gradients_are_those_of_finite_differences(key):
    problem, parameters, shape = case(key)
    small = tuple(min(n, 5) for n in shape)
    if key == "vorticity":
        small = (7, 8)
    frames = noise(2, 3, sum(i.components for i in problem.fields if i.name in problem.learned), *small)
    h = row(0.05, 0.03)
    assert torch.autograd.gradcheck(
        lambda x: problem.trajectory_defect(x, parameters, h), frames.requires_grad_(), fast_mode=True
    )


# ---------------------------------------------------------------------------------------------- batches, frames, starts


@pytest.mark.parametrize("key", CASES)
def test_cases_do_not_see_one_another_and_frames_are_steps_one_by_one(key):
    problem, parameters, shape = case(key)
    channels = sum(info.components for info in problem.fields if info.name in problem.learned)
    frames, h = noise(2, 4, channels, *shape), row(0.05, 0.03)
    together = problem.trajectory_defect(frames, parameters, h)
    assert together.shape == (2, 3, channels, *shape)
    for number in range(2):
        alone = problem.trajectory_defect(frames[number : number + 1], one(parameters, number), h[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=1e-9, atol=1e-9)
    for k in range(3):
        step = problem.step_defect(frames[:, k], frames[:, k + 1], parameters, h)
        torch.testing.assert_close(together[:, k], step, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("key", ["vorticity", "burgers-2", "periodic_flow-2", "cavity"])
def test_mixed_precision_around_it_changes_nothing(key):
    problem, parameters, shape = case(key)
    frames = noise(2, 3, sum(i.components for i in problem.fields if i.name in problem.learned), *shape).float()
    h = row(0.05, 0.03)
    with torch.autocast("cpu", torch.bfloat16):
        inside = problem.trajectory_defect(frames, parameters, h)
    assert torch.equal(inside, problem.trajectory_defect(frames, parameters, h))
    with pytest.raises(DataError, match=r"torch.bfloat16; .* float32 or float64"):
        problem.trajectory_defect(frames.bfloat16(), parameters, h)


@pytest.mark.parametrize(("name", "dim"), TOGETHER)
def test_start_is_the_first_frame_that_the_solver_gives(name, dim):
    problem = get_problem(name, dim)
    resolution = {"vorticity": 48, "burgers": 256 if dim == 1 else 64, "gray_scott": 64 if dim == 2 else 32}.get(
        name, 24
    )
    parameters = problem.sample(2, seed=3, resolution=resolution).parameters
    solved = problem.solve(parameters, resolution, [0.0, problem.frame_interval / 1000], dtype=DOUBLE)
    first = torch.cat([solved[field][:, 0] for field in problem.learned], 1)
    start = problem.start(parameters, resolution, DOUBLE)
    torch.testing.assert_close(start, first, rtol=1e-10, atol=1e-10)
    assert problem.start(parameters, resolution).dtype == torch.float32


# ------------------------------------------------------------------------------------------------------------- refusals


def test_problems_without_it_name_those_with_it():
    for name in ("tube", "darcy", "diffusion_sorption"):
        problem = get_problem(name)
        assert not problem.steps_by_equation
        with pytest.raises(ConfigError, match=r"burgers, cavity, gray_scott, periodic_flow, vorticity"):
            problem.step_defect(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8), {}, torch.ones(1))
        with pytest.raises(ConfigError, match="equation alone"):
            problem.start({})


def test_frames_parameters_and_intervals_that_do_not_fit_are_refused():
    problem, parameters, shape = case("cavity")
    frames, h = torch.zeros(2, 3, 2, *shape), row(0.1, 0.1)
    with pytest.raises(DataError, match=r"shape \(2, 3, 3, 7, 8\); expected .* 2 components of velocity"):
        problem.trajectory_defect(torch.zeros(2, 3, 3, *shape), parameters, h)
    with pytest.raises(DataError, match="2 or more frames"):
        problem.trajectory_defect(frames[:, :1], parameters, h)
    with pytest.raises(DataError, match="must agree"):
        problem.step_defect(frames[:, 0], frames[:1, 0], parameters, h)
    for interval in (row(0.1), row(0.1, 0.0), row(0.1, math.nan)):
        with pytest.raises(ConfigError, match="expected the positive seconds of a step of each of 2 cases"):
            problem.trajectory_defect(frames, parameters, interval)
    with pytest.raises(ConfigError, match="lid_velocity changes in time"):
        problem.trajectory_defect(frames, parameters | {"lid_velocity": torch.ones(2, 3)}, h)
    with pytest.raises(ConfigError, match="viscosity"):
        problem.trajectory_defect(frames, parameters | {"viscosity": row(0.1, -1.0)}, h)
    with pytest.raises(ConfigError, match="nu"):
        problem.trajectory_defect(frames, parameters | {"nu": row(0.1, 1.0)}, h)

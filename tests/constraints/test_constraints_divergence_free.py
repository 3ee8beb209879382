"""DivergenceFree on cell-centred velocities without obstacles: by the solver's stencil, and on periodic boxes."""

import pytest
import torch

from sciml.constraints.base import Context
from sciml.constraints.divergence_free import DivergenceFree
from sciml.errors import ConfigError
from sciml.metrics import relative_divergence
from sciml.physics import (
    Grid,
    Inlet,
    MovingWall,
    Outlet,
    Periodic,
    PeriodicBox,
    Wall,
    box,
    divergence,
    faces_to_centres,
    metrics,
    sides,
    stretched_axis,
    uniform_axis,
)
from sciml.problems import get_problem

WALL = Wall()
LIMITS = {torch.float32: 1e-6, torch.float64: 1e-13}


def lengths(batch, dim):
    generator = torch.Generator().manual_seed(dim)
    return 0.5 + torch.rand(batch, dim, generator=generator, dtype=torch.float64)


def cavity(shape=(12, 9), batch=2):
    lid = torch.linspace(1, 2, batch)
    ends = {"x_low": WALL, "x_high": WALL, "y_low": WALL, "y_high": MovingWall((lid, 0.0))}
    return box(shape, lengths(batch, 2)), ends


def channel(shape=(12, 10), batch=2):
    y = (torch.arange(shape[1], dtype=torch.float64) + 0.5) / shape[1]
    profile = torch.linspace(1, 2, batch, dtype=torch.float64)[:, None] * y * (1 - y)
    ends = {"x_low": Inlet((profile, 0.0)), "x_high": Outlet(), "y_low": WALL, "y_high": WALL}
    return box(shape, lengths(batch, 2)), ends


def backwards(shape=(9, 8), batch=2):
    """The inlet on the high side, and what flows in through the other axis."""
    inflow = torch.linspace(1, 2, batch)
    ends = {"x_low": Outlet(), "x_high": Inlet((-inflow, 0.0)), "y_low": Inlet((0.0, inflow)), "y_high": WALL}
    return box(shape, lengths(batch, 2)), ends


def two_outlets(shape=(8, 9), batch=2):
    ends = {"x_low": Outlet(), "x_high": Outlet(), "y_low": Inlet((0.0, torch.ones(batch))), "y_high": WALL}
    return box(shape, lengths(batch, 2)), ends


def through_flow(shape=(8, 8), batch=2):
    """In and out prescribed, in balance."""
    speed = torch.linspace(1, 2, batch)
    ends = {"x_low": Inlet((speed, 0.0)), "x_high": Inlet((speed, 0.0)), "y_low": WALL, "y_high": WALL}
    return box(shape, lengths(batch, 2)), ends


def half_periodic(shape=(8, 9), batch=2):
    ends = {"x_low": Periodic(), "x_high": Periodic(), "y_low": WALL, "y_high": MovingWall((1.0, 0.0))}
    return box(shape, lengths(batch, 2), periodic=(True, False)), ends


def periodic(shape=(8, 7), batch=2):
    dim = len(shape)
    return box(shape, lengths(batch, dim), periodic=True), {side: Periodic() for side in sides(dim)}


def periodic_cube():
    return periodic((6, 4, 5))


def duct(shape=(6, 5, 4), batch=2):
    ends = {side: WALL for side in sides(3)}
    ends |= {"x_low": Inlet((torch.linspace(1, 2, batch), 0.0, 0.0)), "x_high": Outlet()}
    ends |= {"z_low": Periodic(), "z_high": Periodic()}
    return box(shape, lengths(batch, 3), periodic=(False, False, True)), ends


def closed_cube():
    return box((5, 4, 6), lengths(2, 3)), {side: WALL for side in sides(3)}


def stretched(batch=2):
    grid = Grid((stretched_axis(12, 1.5), stretched_axis(9, 2.0, ends="low")), lengths(batch, 2))
    return grid, channel((12, 9), batch)[1]


def segment(batch=2):
    """One dimension: what flows in at one end is everywhere."""
    ends = {"x_low": Inlet((torch.ones(batch),)), "x_high": Outlet()}
    return box((6,), lengths(batch, 1)), ends


CASES = [cavity, channel, backwards, two_outlets, through_flow, half_periodic, periodic]
CASES += [periodic_cube, duct, closed_cube, stretched, segment]


def context_of(case, fluid=None):
    grid, ends = case() if callable(case) else case
    return Context(grid, {"velocity": slice(0, grid.dim)}, {"velocity": ends}, fluid)


def noise(context, dtype=torch.float64, seed=0):
    grid = context.grid
    return torch.randn(grid.batch, grid.dim, *grid.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rms(x):
    return float(x.double().square().mean().sqrt())


def solver_divergence(faces, grid, size):
    """rms of h D f over the rms of the velocity, by the solver's stencil in float64."""
    exact = metrics(grid, dtype=torch.float64)
    h = min(float((1 / m.inverse_width).min()) for m in exact)
    return rms(divergence(tuple(f.double() for f in faces), exact) * h) / size


def volumes(grid):
    value = torch.ones((), dtype=torch.float64)
    for metric in metrics(grid, dtype=torch.float64):
        value = value / metric.inverse_width
    return value.unsqueeze(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_faces_of_the_output_are_divergence_free(case, dtype):
    context, layer = context_of(case), DivergenceFree()
    u = noise(context, dtype)
    v = layer(u, context)
    faces = layer.faces(v, context)
    assert v.dtype == dtype and all(f.dtype == dtype for f in faces)
    assert solver_divergence(faces, context.grid, rms(v)) < LIMITS[dtype]
    assert solver_divergence(layer.faces(u, context), context.grid, rms(v)) < LIMITS[dtype]
    exact = metrics(context.grid, dtype=torch.float64)
    means = faces_to_centres(tuple(f.double() for f in faces), exact)
    assert rms(means - v) < LIMITS[dtype] * rms(v)
    assert layer.residual(u, context).min() > 0.1
    assert layer.residual(v, context).max() < LIMITS[dtype]


@pytest.mark.parametrize("n", [128, 512])
def test_on_large_grids(n):
    context, layer = context_of(cavity((n, n), 1)), DivergenceFree()
    for dtype, limit in LIMITS.items():
        u = noise(context, dtype)
        v = layer(u, context)
        assert solver_divergence(layer.faces(v, context), context.grid, rms(v)) < limit
        assert layer.residual(v, context).max() < (limit if n == 128 else 3 * limit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_walls_and_inlets_have_their_bits(dtype):
    for case, side, expected in ((cavity, (1, 0), 0.0), (cavity, (2, 0), 0.0), (channel, (1, 0), None)):
        context = context_of(case)
        faces = DivergenceFree().faces(noise(context, dtype), context)
        axis, position = side
        wall = faces[axis - 1].select(axis, position)
        if expected is None:
            expected = context.boundaries["velocity"]["x_low"].velocity[0].to(dtype)
        assert torch.equal(wall, torch.as_tensor(expected, dtype=dtype).expand_as(wall))


@pytest.mark.parametrize("case", CASES)
def test_orthogonal_projection(case):
    context, layer = context_of(case), DivergenceFree()
    u, other, weight = noise(context), noise(context, seed=1), volumes(context.grid)
    zero = layer(torch.zeros_like(u), context)
    v = layer(u, context)
    torch.testing.assert_close(layer(v, context), v, rtol=0, atol=1e-13)
    left = (weight * (v - zero) * other).sum()
    right = (weight * u * (layer(other, context) - zero)).sum()
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-12)
    # what is taken away is orthogonal to what is allowed, so the error never grows (Pythagoras)
    allowed = layer(other, context)
    before, moved, after = ((weight * x.square()).sum() for x in (u - allowed, u - v, v - allowed))
    torch.testing.assert_close(before, moved + after, rtol=1e-11, atol=0)


def test_agrees_with_a_dense_projection():
    """Against the pseudo-inverse of the very definition, {M f : D f = 0, f = g at the boundary}."""
    context = context_of(channel((5, 4), 1))
    grid = context.grid
    exact = metrics(grid, dtype=torch.float64)
    shapes = [grid.face_shape(i) for i in range(2)]
    free = torch.ones(shapes[0], dtype=torch.bool), torch.ones(shapes[1], dtype=torch.bool)
    free[0][0], free[1][:, 0], free[1][:, -1] = False, False, False
    open_faces = torch.cat([f.flatten() for f in free]).nonzero().flatten()
    columns = torch.eye(sum(f.numel() for f in free), dtype=torch.float64)[open_faces]
    parts = columns.split([f.numel() for f in free], 1)
    faces = tuple(p.reshape(-1, *s) for p, s in zip(parts, shapes, strict=True))
    mean = faces_to_centres(faces, exact).flatten(1).T
    slope = divergence(faces, exact).flatten(1).T
    lift = (torch.zeros(1, *shapes[0], dtype=torch.float64), torch.zeros(1, *shapes[1], dtype=torch.float64))
    lift[0][:, 0] = context.boundaries["velocity"]["x_low"].velocity[0]
    source = -divergence(lift, exact).flatten()
    start = torch.linalg.pinv(slope) @ source
    null = torch.linalg.svd(slope)[2][torch.linalg.matrix_rank(slope) :].T
    basis = mean @ null
    u = noise(context)
    offset = faces_to_centres(lift, exact).flatten() + mean @ start
    expected = offset + basis @ torch.linalg.lstsq(basis, u.flatten() - offset).solution
    torch.testing.assert_close(DivergenceFree()(u, context).flatten(), expected, rtol=0, atol=1e-12)


CASES_OF_THE_SOLVER = [("cavity", None), ("tube", None), ("periodic_flow", 2), ("periodic_flow", 3)]


@pytest.mark.parametrize(("name", "dim"), CASES_OF_THE_SOLVER)
def test_trajectories_of_the_solver_stay_as_they_are(name, dim):
    problem = get_problem(name) if dim is None else get_problem(name, dim=dim)
    resolution = 9 if dim == 3 else 16  # with two even periodic axes some faces do not show at the cells
    parameters = {
        "cavity": {"lid_velocity": [1.0, 2.0], "density": 1.0, "viscosity": 0.02, "height": 0.5, "width": [0.4, 0.5]},
        "tube": {"inlet_velocity": [0.5, 1.0], "density": 1.0, "viscosity": 0.01, "height": 0.1, "length": 0.3},
        "periodic_flow": {"viscosity": 0.2, "speed": [0.7, 1.0], "waves": 1.0, "draw": [1.0, 4.0]},
    }[name]
    parameters = {key: torch.as_tensor(value).expand(2) for key, value in parameters.items()}
    times = torch.tensor([0.0, 0.02, 0.05])
    frames = problem.solve(parameters, resolution, times, dtype=torch.float64)
    truth = frames["velocity"][:, -1]
    values = problem.as_parameters(parameters)
    periodic_box = name == "periodic_flow"
    grid = box(tuple(truth.shape[2:]), problem.lengths(values), periodic=periodic_box)
    ends = {side: WALL for side in sides(grid.dim)}
    if name == "tube":
        ends |= {"x_low": Inlet((values["inlet_velocity"], 0.0)), "x_high": Outlet()}
    elif periodic_box:
        ends = {side: Periodic() for side in ends}
    context, layer = context_of((grid, ends)), DivergenceFree()
    assert rms(layer(truth, context) - truth) < 1e-12 * rms(truth)
    assert layer.residual(truth, context).max() < 1e-11
    for found, axis in zip(layer.faces(truth, context), "xyz", strict=False):
        assert rms(found - frames[f"face_velocity_{axis}"][:, -1]) < 1e-11 * rms(truth)
    wrong = truth + 0.1 * rms(truth) * noise(context)
    assert (layer(wrong, context) - truth).norm() < 0.9 * (wrong - truth).norm()


@pytest.mark.parametrize("case", [channel, half_periodic, cavity, two_outlets])
def test_transposition(case):
    context, layer = context_of(case), DivergenceFree()
    grid, ends = context.grid, context.boundaries["velocity"]
    turned = {}
    for side, condition in ends.items():
        name = {"x": "y", "y": "x"}[side[0]] + side[1:]
        if isinstance(condition, (Inlet, MovingWall)):
            condition = type(condition)(tuple(reversed(condition.velocity)))
        turned[name] = condition
    other = context_of((Grid(tuple(reversed(grid.axes)), grid.lengths.flip(1)), turned))
    u = noise(context)
    swapped = u.flip(1).transpose(2, 3)
    expected = layer(u, context).flip(1).transpose(2, 3)
    torch.testing.assert_close(layer(swapped, other), expected, rtol=0, atol=1e-13)
    for found, face in zip(layer.faces(swapped, other), reversed(layer.faces(u, context)), strict=True):
        torch.testing.assert_close(found, face.transpose(1, 2), rtol=0, atol=1e-12)


def test_cases_of_a_batch_are_independent():
    context, layer = context_of(backwards), DivergenceFree()
    grid, ends = context.grid, context.boundaries["velocity"]
    u = noise(context)
    together = layer(u, context)
    for case in range(grid.batch):
        alone = {
            side: Inlet(tuple(v[case : case + 1] if torch.is_tensor(v) else v for v in c.velocity))
            if isinstance(c, Inlet)
            else c
            for side, c in ends.items()
        }
        single = context_of((Grid(grid.axes, grid.lengths[case : case + 1]), alone))
        torch.testing.assert_close(layer(u[case : case + 1], single)[0], together[case], rtol=0, atol=1e-14)


@pytest.mark.parametrize("method", ["mac", "spectral", "central"])
def test_gradients(method):
    context, layer = context_of(periodic((4, 5), 1)), DivergenceFree(method)
    u = noise(context).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: layer(u, context), u)
    assert torch.autograd.gradgradcheck(lambda u: layer(u, context).square(), u)


def test_gradients_with_boundary_values_and_lengths():
    layer = DivergenceFree()
    u = noise(context_of(channel((4, 3), 2))).requires_grad_()
    speed = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    size = lengths(2, 2).requires_grad_()

    def outputs(u, speed, size):
        ends = {"x_low": Inlet((speed, 0.0)), "x_high": Outlet(), "y_low": WALL, "y_high": WALL}
        context = context_of((box((4, 3), size), ends))
        return layer(u, context).square(), *layer.faces(u, context)

    assert torch.autograd.gradcheck(outputs, (u, speed, size))
    assert torch.autograd.gradgradcheck(outputs, (u, speed, size), fast_mode=True)


def test_inference_mode_leaves_no_trace():
    context, layer = context_of(cavity((11, 7), 1)), DivergenceFree()
    with torch.inference_mode():
        layer.faces(noise(context), context)
    u = noise(context).requires_grad_()
    layer(u, context).square().sum().backward()
    assert u.grad is not None and u.grad.abs().max() > 0


def test_other_channels_are_left_alone():
    grid, ends = cavity()
    context = Context(grid, {"pressure": slice(0, 1), "velocity": slice(1, 3), "heat": slice(3, 4)}, {"velocity": ends})
    u = torch.randn(2, 4, *grid.shape)
    v = DivergenceFree()(u, context)
    assert torch.equal(v[:, [0, 3]], u[:, [0, 3]]) and not torch.equal(v[:, 1:3], u[:, 1:3])
    assert DivergenceFree().applies(context.channels) and not DivergenceFree().applies({"heat": slice(0, 1)})


@pytest.mark.parametrize("shape", [(8, 7), (6, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectral_and_central(shape, dtype):
    context = context_of(periodic(shape))
    grid, u = context.grid, noise(context_of(periodic(shape)), dtype)
    for method in ("spectral", "central"):
        layer = DivergenceFree(method)
        v = layer(u, context)
        h = (grid.lengths / torch.tensor(shape)).double()
        if method == "spectral":
            waves = PeriodicBox(shape, grid.lengths, dtype=torch.float64)
            spectrum = waves.forward(v.double())
            total = waves.inverse(sum(waves.derivative(spectrum[:, k : k + 1], k) for k in range(grid.dim)))
        else:
            total = sum(
                (v[:, k].double().roll(-1, k + 1) - v[:, k].double().roll(1, k + 1))
                / (2 * h[:, k].reshape(-1, *(1,) * grid.dim))
                for k in range(grid.dim)
            )
        assert rms(total * h.min()) / rms(v) < LIMITS[dtype]
        assert layer.residual(v, context).max() < LIMITS[dtype] and layer.residual(u, context).min() > 0.1
        assert rms(layer(v, context) - v) < LIMITS[dtype] * rms(v)
        torch.testing.assert_close(v.flatten(2).mean(2), u.flatten(2).mean(2), rtol=0, atol=1e-7)


def test_central_is_what_the_metric_takes():
    context = context_of(periodic((12, 12), 1))
    u = noise(context)
    spacing = (context.grid.lengths / 12).double()
    before = relative_divergence(u[:, None], spacing)
    after = relative_divergence(DivergenceFree("central")(u, context)[:, None], spacing)
    assert before.max() > 0.1 and after.max() < 1e-13


def test_methods_differ():
    """A field without divergence in one sense has some in the others: what the page says."""
    context = context_of(periodic((8, 8), 1))
    u = noise(context)
    for method in ("mac", "spectral", "central"):
        for other in {"mac", "spectral", "central"} - {method}:
            assert DivergenceFree(other).residual(DivergenceFree(method)(u, context), context).min() > 1e-2


def test_bad_input():
    grid, ends = cavity()
    u = noise(context_of((grid, ends)))
    with pytest.raises(ConfigError, match="did you mean 'spectral'"):
        DivergenceFree("spectrl")
    with pytest.raises(ConfigError, match="x axis is not periodic"):
        DivergenceFree("spectral")(u, context_of((grid, ends)))
    with pytest.raises(ConfigError, match="no face velocities"):
        DivergenceFree("central").faces(u, context_of((grid, ends)))
    with pytest.raises(ConfigError, match=r"shape \(2, 1, 12, 9\)"):
        DivergenceFree()(u, Context(grid, {"velocity": slice(0, 1)}, {"velocity": ends}))
    leaking = ends | {"x_low": Inlet((torch.tensor([0.0, 3.0]), 0.0))}
    flux = 3 * float(grid.lengths[1, 1])
    with pytest.raises(ConfigError, match=f"case 1 bring in a net volume flux of {flux:g}"):
        DivergenceFree()(u, context_of((grid, leaking)))
    with pytest.raises(ConfigError, match="lack the side"):
        DivergenceFree()(u, context_of((grid, {"x_low": WALL})))
    with pytest.raises(ConfigError, match="no boundary conditions of the field 'velocity'"):
        DivergenceFree()(u, Context(grid, {"velocity": slice(0, 2)}))
    stretched_periodic = Grid((stretched_axis(12, 1.0), uniform_axis(9, periodic=True)), grid.lengths)
    with pytest.raises(ConfigError, match="x axis is not periodic"):
        DivergenceFree("central")(u, context_of((stretched_periodic, ends)))

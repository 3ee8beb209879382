"""Face velocities projected, with and without obstacles; cell-centred ones beside obstacles."""

import pytest
import torch

from sciml.constraints.base import Context
from sciml.constraints.divergence_free import DivergenceFree, project_faces
from sciml.errors import ConfigError, SolverError
from sciml.physics import (
    Grid,
    Inlet,
    Outlet,
    Periodic,
    Wall,
    box,
    divergence,
    faces_to_centres,
    metrics,
    sides,
    stretched_axis,
    uniform_axis,
)
from sciml.solvers import IncompressibleSolver

WALL = Wall()
LIMITS = {torch.float32: 1e-6, torch.float64: 1e-13}


def sizes(batch, dim):
    return 0.5 + torch.rand(batch, dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64)


def disk(shape, centre=(0.4, 0.45), radius=0.17):
    """Fluid around a disk (in 3D a cylinder along z)."""
    x, y = ((torch.arange(n) + 0.5) / n for n in shape[:2])
    fluid = (x[:, None] - centre[0]) ** 2 + (y - centre[1]) ** 2 > radius**2
    return fluid.reshape(1, *shape[:2], *(1,) * (len(shape) - 2)).expand(1, *shape)


def scattered(shape, batch=2):
    """A third of the cells solid at random: pockets, single cells, solids that touch at a corner."""
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1)) > 0.33


def walls(dim=2):
    return {side: WALL for side in sides(dim)}


def channel(dim=2):
    speed = torch.tensor([1.0, 2.0])
    return walls(dim) | {"x_low": Inlet((speed, *(0.0,) * (dim - 1))), "x_high": Outlet()}


def spanwise():
    return channel(3) | {"z_low": Periodic(), "z_high": Periodic()}


def reversed_channel():
    return walls() | {"x_low": Outlet(), "x_high": Inlet((torch.tensor([-1.0, -2.0]), 0.0))}


def stretched_grid():
    return Grid((stretched_axis(14, 1.5), stretched_axis(12, 2.0, ends="low")), sizes(2, 2))


FLAT, DEEP = (16, 14), (10, 8, 4)
CASES = {
    "closed box": (box(FLAT, sizes(2, 2)), walls(), disk(FLAT)),
    "channel": (box(FLAT, sizes(2, 2)), channel(), disk(FLAT)),
    "reversed": (box(FLAT, sizes(2, 2)), reversed_channel(), disk(FLAT)),
    "disk on the wall": (box(FLAT, sizes(2, 2)), channel(), disk(FLAT, (0.5, 0.0))),
    "disk in the outlet": (box(FLAT, sizes(2, 2)), channel(), disk(FLAT, (1.0, 0.4))),
    "scattered": (box(FLAT, sizes(2, 2)), walls(), scattered(FLAT)),
    "stretched": (stretched_grid(), channel(), disk((14, 12))),
    "spanwise periodic": (box(DEEP, sizes(2, 3), periodic=(False, False, True)), spanwise(), disk(DEEP)),
    "cube": (box(DEEP, sizes(2, 3)), walls(3), scattered(DEEP)),
}
PERIODIC = {
    "periodic": (
        box(FLAT, sizes(2, 2), periodic=True),
        {side: Periodic() for side in sides(2)},
        disk(FLAT),
    ),
}


def context_of(case):
    grid, ends, fluid = case
    return Context(grid, {"velocity": slice(0, grid.dim)}, {"velocity": ends}, fluid)


def noise(grid, dtype=torch.float64, seed=0):
    return torch.randn(grid.batch, grid.dim, *grid.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def face_noise(grid, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(grid.batch, *grid.face_shape(i)) for i in range(grid.dim)]
    return tuple(torch.randn(shape, generator=generator).to(dtype) for shape in shapes)


def rms(x):
    return float(x.double().square().mean().sqrt())


def solver_divergence(faces, grid):
    exact = metrics(grid, dtype=torch.float64)
    h = min(float((1 / m.inverse_width).min()) for m in exact)
    size = sum(rms(f) ** 2 for f in faces) ** 0.5
    return rms(divergence(tuple(f.double() for f in faces), exact) * h) / size


def beside(fluid, axis, periodic):
    """Stored faces that touch a solid cell, one by one."""
    solid = ~fluid.movedim(axis + 1, -1)
    low = torch.cat([solid[..., -1:] if periodic else torch.zeros_like(solid[..., :1]), solid], -1)
    high = torch.cat([solid, solid[..., :1] if periodic else torch.zeros_like(solid[..., :1])], -1)
    touching = low | high
    return (touching[..., :-1] if periodic else touching).movedim(-1, axis + 1)


def assert_at_rest(faces, case):
    grid, _, fluid = case
    for axis, f in enumerate(faces):
        touching = beside(fluid, axis, grid.axes[axis].periodic).expand_as(f)
        assert touching.any() and f[touching].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*CASES, *PERIODIC])
def test_faces_beside_obstacles(name, dtype):
    case = (CASES | PERIODIC)[name]
    grid, ends, fluid = case
    found = project_faces(face_noise(grid, dtype), grid, ends, fluid=fluid)
    assert all(f.dtype == dtype for f in found)
    assert solver_divergence(found, grid) < LIMITS[dtype]
    assert_at_rest(found, case)
    again = project_faces(found, grid, ends, fluid=fluid)
    assert all(rms(a - f) < LIMITS[dtype] * rms(f) for a, f in zip(again, found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_cells_beside_obstacles(name, dtype):
    context, layer = context_of(CASES[name]), DivergenceFree()
    grid, fluid = context.grid, context.fluid
    u = noise(grid, dtype)
    v = layer(u, context)
    faces = layer.faces(v, context)
    assert v.dtype == dtype and rms(v) > 0.1
    assert solver_divergence(faces, grid) < LIMITS[dtype]
    assert_at_rest(faces, CASES[name])
    assert v.masked_select(~fluid[:, None].expand_as(v)).abs().max() == 0
    means = faces_to_centres(tuple(f.double() for f in faces), metrics(grid, dtype=torch.float64))
    assert rms(means - v) < LIMITS[dtype] * rms(v)
    assert rms(layer(v, context) - v) < LIMITS[dtype] * rms(v)
    assert layer.residual(u, context).min() > 0.1
    assert layer.residual(v, context).max() < 2 * LIMITS[dtype]


@pytest.mark.parametrize("name", CASES)
def test_cell_projection_is_orthogonal(name):
    context, layer = context_of(CASES[name]), DivergenceFree()
    weight = torch.ones((), dtype=torch.float64)
    for metric in metrics(context.grid, dtype=torch.float64):
        weight = (
            (weight / metric.inverse_width.unsqueeze(1)) if weight.ndim == 0 else weight / metric.inverse_width[:, None]
        )
    u, allowed = noise(context.grid), layer(noise(context.grid, seed=1), context)
    v = layer(u, context)
    before, moved, after = ((weight * x.square()).sum() for x in (u - allowed, u - v, v - allowed))
    torch.testing.assert_close(before, moved + after, rtol=1e-11, atol=0)


def test_faces_that_flow_around_an_obstacle_make_allowed_cells():
    """The means of any faces without divergence are a fixed point, so truth beside an obstacle stays."""
    for name, case in CASES.items():
        grid, ends, fluid = case
        faces = project_faces(face_noise(grid), grid, ends, fluid=fluid)
        truth = faces_to_centres(faces, metrics(grid, dtype=torch.float64))
        assert rms(DivergenceFree()(truth, context_of(case)) - truth) < 1e-12 * rms(truth), name


def test_without_obstacles_it_is_the_projection_of_the_solver():
    for grid, ends in (
        (box(FLAT, sizes(2, 2)), channel()),
        (stretched_grid(), channel()),
        (box(FLAT, sizes(2, 2)), walls()),
    ):
        faces = face_noise(grid)
        faces = (torch.cat([faces[0][:, :-1], faces[0][:, -2:-1]], 1), faces[1])  # the solver starts from zero gradient
        solver = IncompressibleSolver(grid, ends, torch.ones(2), dtype=torch.float64)
        expected = solver.state_from_velocity(faces).velocity
        for found, wanted in zip(project_faces(faces, grid, ends), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_everything_fluid_is_no_obstacle():
    grid, ends, fluid = CASES["channel"]
    u, everywhere = noise(grid), torch.ones_like(fluid)
    layer = DivergenceFree()
    without = context_of((grid, ends, None))
    torch.testing.assert_close(layer(u, context_of((grid, ends, everywhere))), layer(u, without), rtol=0, atol=1e-13)


@pytest.mark.parametrize("periodic", [False, True])
def test_gradients_of_faces(periodic):
    grid = box((4, 4), sizes(1, 2), periodic=periodic)
    ends = {side: Periodic() if periodic else WALL for side in sides(2)}
    fluid = torch.ones(1, 4, 4, dtype=torch.bool)
    fluid[0, 1, 2] = False
    faces = tuple(f.requires_grad_() for f in face_noise(grid))
    for mask in (None, fluid):
        assert torch.autograd.gradcheck(lambda *f, m=mask: project_faces(f, grid, ends, fluid=m), faces)
        assert torch.autograd.gradgradcheck(
            lambda *f, m=mask: tuple(g.square() for g in project_faces(f, grid, ends, fluid=m)), faces
        )


@pytest.mark.parametrize("stretched", [False, True])
def test_gradients_beside_obstacles(stretched):
    axes = (stretched_axis(4, 1.0), stretched_axis(3, 1.5)) if stretched else (uniform_axis(4), uniform_axis(3))
    grid = Grid(axes, sizes(2, 2))
    fluid = torch.ones(1, 4, 3, dtype=torch.bool)
    fluid[0, 2, 1] = False
    u = noise(grid).requires_grad_()
    speed = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)

    def outputs(u, speed):
        ends = walls() | {"x_low": Inlet((speed, 0.0)), "x_high": Outlet()}
        context = context_of((grid, ends, fluid))
        return DivergenceFree()(u, context).square(), *DivergenceFree().faces(u, context)

    assert torch.autograd.gradcheck(outputs, (u, speed))
    assert torch.autograd.gradgradcheck(outputs, (u, speed), fast_mode=True)


def test_transposition():
    grid, ends, fluid = CASES["channel"]
    context = context_of(CASES["channel"])
    turned = {("y" if side[0] == "x" else "x") + side[1:]: condition for side, condition in ends.items()}
    turned["y_low"] = Inlet(tuple(reversed(ends["x_low"].velocity)))
    other = (Grid(tuple(reversed(grid.axes)), grid.lengths.flip(1)), turned, fluid.transpose(1, 2))
    u, layer = noise(grid), DivergenceFree()
    expected = layer(u, context).flip(1).transpose(2, 3)
    torch.testing.assert_close(layer(u.flip(1).transpose(2, 3), context_of(other)), expected, rtol=0, atol=1e-12)
    faces = face_noise(grid)
    swapped = tuple(f.transpose(1, 2) for f in reversed(faces))
    for found, wanted in zip(
        project_faces(swapped, *other[:2], fluid=other[2]),
        reversed(project_faces(faces, grid, ends, fluid=fluid)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=0, atol=1e-12)


def test_a_closed_pocket_with_an_inlet_is_refused():
    grid, ends, _ = CASES["channel"]
    fluid = torch.ones(1, *FLAT, dtype=torch.bool)
    fluid[:, 5] = False  # a wall across the channel
    with pytest.raises(SolverError, match="leave it"):
        project_faces(face_noise(grid), grid, ends, fluid=fluid)
    with pytest.raises(SolverError, match="leave it"):
        DivergenceFree()(noise(grid), context_of((grid, ends, fluid)))


def test_a_velocity_that_is_not_finite():
    grid, ends, fluid = CASES["closed box"]
    u = noise(grid)
    u[1, 0, 3, 3] = torch.nan
    with pytest.raises(SolverError, match="case 1"):
        DivergenceFree()(u, context_of((grid, ends, fluid)))


def test_masks_and_shapes_that_do_not_fit():
    grid, ends, fluid = CASES["channel"]
    u = noise(grid)
    with pytest.raises(ConfigError, match=r"shape \(1, 14, 16\)"):
        DivergenceFree()(u, context_of((grid, ends, fluid.transpose(1, 2))))
    with pytest.raises(ConfigError, match="no fluid in case 0"):
        DivergenceFree()(u, context_of((grid, ends, torch.zeros_like(fluid))))
    outlet_closed = fluid.clone()
    outlet_closed[:, -1] = False
    with pytest.raises(ConfigError, match="close every outlet"):
        project_faces(face_noise(grid), grid, ends, fluid=outlet_closed)
    with pytest.raises(ConfigError, match="along the x axis, which is periodic"):
        DivergenceFree()(u, context_of(PERIODIC["periodic"]))
    with pytest.raises(ConfigError, match="knows no obstacles"):
        DivergenceFree("spectral")(u, context_of(PERIODIC["periodic"]))
    with pytest.raises(ConfigError, match="the grid expects"):
        project_faces(tuple(reversed(face_noise(grid))), grid, ends)
    with pytest.raises(ConfigError, match="net volume flux"):
        project_faces(face_noise(grid), grid, walls() | {"x_low": Inlet((1.0, 0.0))})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("name", ["closed box", "spanwise periodic"])
def test_on_a_gpu(name):
    grid, ends, fluid = CASES[name]
    there = Grid(grid.axes, grid.lengths.cuda())
    layer = DivergenceFree()
    for mask in (None, fluid):
        here, moved = context_of((grid, ends, mask)), context_of((there, ends, None if mask is None else mask.cuda()))
        u = noise(grid)
        torch.testing.assert_close(layer(u.cuda(), moved).cpu(), layer(u, here), rtol=0, atol=1e-11)
        torch.testing.assert_close(layer.residual(u.cuda(), moved).cpu(), layer.residual(u, here), rtol=1e-9, atol=0)
        for found, wanted in zip(layer.faces(u.cuda(), moved), layer.faces(u, here), strict=True):
            torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=1e-11)

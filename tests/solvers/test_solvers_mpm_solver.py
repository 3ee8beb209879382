"""What one step of the material point method keeps: momenta, symmetries, scenes, gradients; and bad input."""

import dataclasses
import math

import pytest
import torch
from mpm_helpers import MATERIALS, box, fill, lattice, steps
from torch.autograd import gradcheck

from sciml.errors import ConfigError, DataError, SolverError
from sciml.solvers import MPMSolver
from sciml.solvers.mpm import (
    Box,
    Coulomb,
    Disk,
    Fluid,
    NeoHookean,
    Obstacle,
    angular_momentum,
    linear_momentum,
)
from sciml.solvers.mpm.transfer import add_to_grid, interpolate, stencil, to_particles

DIMS = pytest.mark.parametrize("d", [2, 3])


def spinning(d, cell, dtype=torch.float64):
    """A spinning and drifting ball in the middle of the box."""
    x = lattice((0.3,) * d, (0.7,) * d, cell / 2)
    x = x[((x - 0.5) ** 2).sum(1) < 0.2**2]
    v = torch.full_like(x, 0.2)
    v[:, 0] -= 3 * (x[:, 1] - 0.5)
    v[:, 1] += 3 * (x[:, 0] - 0.5)
    return x.to(dtype), v.to(dtype)


@DIMS
@pytest.mark.parametrize("name", ["jelly", "honey", "sand", "goop"])
def test_linear_and_angular_momentum_to_round_off(d, name):
    solver = box(d, 1 / 16, gravity=0)
    x, v = spinning(d, solver.cell)
    state = solver.step(fill(solver, x, MATERIALS[name], velocity=v), 5e-4)
    p, spin = linear_momentum(state), angular_momentum(state, solver.cell)
    after = steps(solver, state, 5e-4, 200 if d == 2 else 30)
    size = (state.mass[:, None] * state.velocity.abs()).sum()
    assert (linear_momentum(after) - p).abs().max() < 1e-13 * size
    assert (angular_momentum(after, solver.cell) - spin).abs().max() < 1e-13 * size
    # The affine part matters: without it the spin is off by far more.
    bare = dataclasses.replace(after, affine=torch.zeros_like(after.affine))
    assert (angular_momentum(bare, solver.cell) - spin).abs().max() > 1e-5 * size


@DIMS
def test_momentum_from_the_start_counts_the_affine_part(d):
    """The very first transfer already keeps both momenta (C = 0 at the start)."""
    solver = box(d, 1 / 16, gravity=0)
    x, v = spinning(d, solver.cell)
    start = fill(solver, x, MATERIALS["rubber"], velocity=v)
    after = solver.step(start, 1e-3)
    assert torch.allclose(linear_momentum(after), linear_momentum(start), rtol=1e-13)
    assert torch.allclose(angular_momentum(after, solver.cell), angular_momentum(start, solver.cell), rtol=1e-12)


@DIMS
def test_transfers_reproduce_affine_fields(d):
    solver = box(d, 1 / 8)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(d, 40, dtype=torch.float64, generator=generator)
    at = stencil(x, solver.grid, None, solver.grid.size)
    slope, offset = torch.randn(d, d, dtype=x.dtype, generator=generator), torch.randn(d, 1, dtype=x.dtype)
    field = slope @ solver.grid.node_positions().T + offset
    value, gradient = to_particles(at, field)
    assert torch.allclose(value, slope @ x + offset) and torch.allclose(gradient, slope[..., None].expand_as(gradient))
    # The transpose: sum_i f_i g_i of a scattered q, A equals the particles' sum of q f + (cell^2 / 4) A : grad f.
    q, a = torch.randn(d, 40, dtype=x.dtype), torch.randn(d, d, 40, dtype=x.dtype)
    nodes = torch.zeros(d, solver.grid.size, dtype=x.dtype)
    add_to_grid(at, q, a, nodes)
    expected = (q * value).sum() + solver.cell**2 / 4 * (a * gradient).sum()
    assert (nodes * field).sum().item() == pytest.approx(expected.item(), rel=1e-12)


@DIMS
@pytest.mark.parametrize("name", MATERIALS)
def test_free_fall_is_exact(d, name):
    """Symplectic Euler: y = y0 + v0 t - g t (t + dt) / 2 for every particle."""
    solver, dt, count = box(d), 2e-3, 40
    x = lattice((0.4,) * d, (0.6,) * d, 1 / 32) + 0.2 * torch.eye(d, dtype=torch.float64)[-1]
    v = torch.full_like(x, 0.3)
    after = steps(solver, fill(solver, x, MATERIALS[name], velocity=v), dt, count)
    t = dt * count
    expected = x + v * t + solver.gravity * t * (t + dt) / 2
    assert (after.position - expected).abs().max() < 1e-13
    assert (after.velocity - v - solver.gravity * t).abs().max() < 1e-12
    assert after.time == pytest.approx(t)


@pytest.mark.parametrize("name", ["jelly", "honey", "sand", "goop"])
@pytest.mark.parametrize("walls", ["slip", "stick", Coulomb(0.3)])
def test_transposition_and_reflection(name, walls):
    """The mirrored or transposed scene moves as the mirror image or transpose, walls included."""
    x = lattice((0.02, 0.01), (0.42, 0.33), 1 / 32)
    v = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    plain = MPMSolver((0, 0), (1, 1), 1 / 16, gravity=(0, -9.81), walls=walls, dtype=torch.float64)
    across = MPMSolver((0, 0), (1, 1), 1 / 16, gravity=(-9.81, 0), walls=walls, dtype=torch.float64)
    flip = torch.tensor([-1.0, 1.0], dtype=x.dtype)
    one = steps(plain, fill(plain, x, MATERIALS[name], velocity=v), 1e-3, 60)
    mirrored = steps(
        plain, fill(plain, torch.stack([1 - x[:, 0], x[:, 1]], 1), MATERIALS[name], velocity=v * flip), 1e-3, 60
    )
    turned = steps(across, fill(across, x.flip(1), MATERIALS[name], velocity=v.flip(1)), 1e-3, 60)
    assert (mirrored.velocity * flip - one.velocity).abs().max() < 1e-9
    assert (1 - mirrored.position[:, 0] - one.position[:, 0]).abs().max() < 1e-11
    assert (turned.position.flip(1) - one.position).abs().max() < 1e-11
    assert (turned.stress.flip(1, 2) - one.stress).abs().max() < 1e-8 * one.stress.abs().max()


@DIMS
def test_batch_equals_single_scenes(d):
    """Three scenes of different size and of several materials, together and one by one."""
    solver = box(d, 1 / 8, walls=Coulomb(0.2))
    names = list(MATERIALS)
    scenes = []
    for k, size in enumerate((0.25, 0.4, 0.3)):
        x = lattice((0.05,) * d, (size,) * d, 1 / 16)
        kind = torch.arange(len(x)) % len(names)
        if k == 1:
            kind = torch.zeros_like(kind)
        scenes.append((x, 0.5 * torch.sin(9 * x + k), kind))
    x, v, kind = (torch.cat(parts) for parts in zip(*scenes, strict=True))
    batch = torch.arange(3).repeat_interleave(torch.tensor([len(s[0]) for s in scenes]))

    def run(x, v, kind, batch=None):
        materials = [(MATERIALS[name], (kind == k).nonzero()[:, 0]) for k, name in enumerate(names)]
        return steps(solver, fill(solver, x, materials, velocity=v, batch=batch), 1e-3, 25)

    together = run(x, v, kind, batch)
    assert together.scenes == 3
    for k, scene in enumerate(scenes):
        alone, mine = run(*scene), batch == k
        for name in ("position", "velocity", "affine", "deformation", "stress", "swelling"):
            assert (getattr(together, name)[mine] - getattr(alone, name)).abs().max() < 1e-9, name


@pytest.mark.parametrize("name", MATERIALS)
def test_float32_follows_float64(name):
    x = lattice((0.2, 0.02), (0.5, 0.3), 1 / 32)
    ends = []
    for dtype in (torch.float64, torch.float32):
        solver = box(dtype=dtype)
        ends.append(steps(solver, fill(solver, x.to(dtype), MATERIALS[name]), 1e-3, 100).position)
    assert ends[1].dtype == torch.float32
    assert (ends[0] - ends[1]).abs().max() < 2e-5


def test_a_transfer_in_chunks_is_the_same(monkeypatch):
    solver = box(3, 1 / 8)
    x = lattice((0.1,) * 3, (0.6,) * 3, 1 / 16)
    state = fill(solver, x, MATERIALS["jelly"], velocity=torch.sin(9 * x))
    whole = steps(solver, state, 1e-3, 5)
    monkeypatch.setattr("sciml.solvers.mpm.transfer.CHUNK", 27 * 100)
    parts = steps(solver, state, 1e-3, 5)
    assert (whole.position - parts.position).abs().max() < 1e-14
    assert (whole.stress - parts.stress).abs().max() < 1e-9


@DIMS
@pytest.mark.parametrize("name", MATERIALS)
def test_gradients_through_steps(d, name):
    """gradcheck from the undeformed state (equal singular values) through four steps with friction and yield."""
    solver = box(d, 1 / 8, walls=Coulomb(0.3), obstacles=[Obstacle(Disk((0.05,) * d, 0.04))])
    generator = torch.Generator().manual_seed(0)
    x = 0.1 + 0.15 * torch.rand(4, d, dtype=torch.float64, generator=generator)
    v = torch.randn(4, d, dtype=torch.float64, generator=generator)

    def run(x, v):
        state = solver.start(x, v, torch.full((4,), 0.01), 1e3, MATERIALS[name])
        state = steps(solver, state, 2e-3, 4)
        return state.position, state.velocity, state.stress / 1e3

    inputs = (x.requires_grad_(), v.requires_grad_())
    assert gradcheck(run, inputs, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_gradient_of_a_material_constant():
    solver = box(cell=1 / 8)
    x = lattice((0.3, 0.0), (0.5, 0.2), 1 / 16)

    def height(young):
        state = fill(solver, x, NeoHookean(young.expand(len(x)), 0.3))
        return steps(solver, state, 2e-3, 40).position[:, 1].mean()

    assert gradcheck(height, torch.tensor(3e4, dtype=torch.float64, requires_grad=True), eps=1.0, atol=1e-12, rtol=1e-4)


@DIMS
@pytest.mark.parametrize("walls", ["slip", "stick", Coulomb(0.5)])
def test_particles_stay_in_the_box(d, walls):
    """A drop thrown into a corner at 5 m/s."""
    solver = box(d, 1 / 8, walls=walls, dtype=torch.float32)
    x = lattice((0.05,) * d, (0.45,) * d, 1 / 16, dtype=torch.float32)
    state = fill(solver, x, Fluid(40.0), velocity=torch.full_like(x, -5.0))
    frames = solver.run(state, torch.linspace(0, 0.3, 7))
    assert frames["position"].shape == (7, len(x), d) and frames["velocity"].shape == (7, len(x), d)
    assert frames["position"].min() >= 0 and frames["position"].max() <= 1
    assert torch.equal(frames["position"][0], x)


@DIMS
def test_a_full_box_is_full(d):
    """Filling 1 at every particle of a box filled from wall to wall, with and without an obstacle in it."""
    for obstacles in ((), (Obstacle(Box((0.25,) * d, (0.5,) * d)),)):
        solver = box(d, 1 / 8, obstacles=obstacles)
        x = lattice((0,) * d, (1,) * d, 1 / 16)
        if obstacles:
            x = x[obstacles[0].depth(x, 0.0) > 0]
        state = fill(solver, x, Fluid(10.0))
        at = stencil(x.T, solver.grid, None, solver.grid.size)
        nodes = torch.zeros(1, solver.grid.size, dtype=x.dtype)
        add_to_grid(at, state.volume[None], torch.zeros(1, d, len(x), dtype=x.dtype), nodes)
        contacts = [o.at(0.0, 1.0) for o in solver._obstacle_nodes]
        full = interpolate(at, solver._grid_filling(nodes[0], contacts, 1))
        assert (full - 1).abs().max() < (0.05 if not obstacles else 0.2)


def test_water_keeps_its_volume():
    """A drop thrown into a box: half a second later, splashes included, the water is neither foam nor paste."""
    solver = box(cell=1 / 32, dtype=torch.float32)
    x = lattice((0.2, 0.35), (0.6, 0.7), 1 / 64, torch.float32)
    state = fill(solver, x, Fluid(25.0), velocity=torch.tensor([3.0, -2.0]).expand_as(x))
    level = []
    for _ in range(16):
        state, _ = solver.advance(state, state.time + 0.25)
        level.append(2 * state.position[:, 1].mean().item() / state.volume.sum().item())
    assert sum(level[8:]) / 8 == pytest.approx(1, abs=0.1)


def test_walls_by_face():
    """A sheet on a sticking floor stays, the same sheet slides on a slipping one and slows down with friction."""
    x = lattice((0.2, 0.0), (0.6, 0.125), 1 / 32)
    v = torch.zeros_like(x)
    v[:, 0] = 0.5
    speed = {}
    for kind in ("slip", Coulomb(0.2), "stick"):
        solver = box(walls=(("slip", "slip"), (kind, "slip")))
        state = fill(solver, x, NeoHookean(1e5, 0.3), velocity=v)
        speed[kind], _ = solver.advance(state, 0.1)
    mean = {kind: state.velocity[:, 0].mean().item() for kind, state in speed.items()}
    assert mean["slip"] == pytest.approx(0.5, rel=1e-9)
    assert mean[Coulomb(0.2)] == pytest.approx(0.5 - 0.2 * 9.81 * 0.1, abs=0.04)
    assert abs(mean["stick"]) < 0.2


@pytest.mark.parametrize("contact", ["slip", "stick", Coulomb(0.3)])
@pytest.mark.parametrize("shape", [Disk((0.5, 0.3), 0.15), Box((0.35, 0.15), (0.65, 0.45))])
def test_obstacle_keeps_water_out(contact, shape):
    solver = box(cell=1 / 32, obstacles=[Obstacle(shape, contact)])
    x = lattice((0.4, 0.55), (0.6, 0.75), 1 / 64)
    state, _ = solver.advance(fill(solver, x, Fluid(20.0)), 0.35)
    assert shape(state.position).min() > -solver.cell / 2
    if contact != "stick":
        assert (state.position[:, 1] < 0.3).any()


def test_moving_obstacle_pushes():
    """A piston that moves at 0.5 m/s drives a block of jelly before it at the same speed."""
    piston = Obstacle(Box((0.0, 0.0), (0.2, 1.0)), displacement=lambda t: (0.5 * t, 0.0))
    solver = box(cell=1 / 16, gravity=0, obstacles=[piston])
    x = lattice((0.25, 0.3), (0.45, 0.6), 1 / 32)
    state, _ = solver.advance(fill(solver, x, MATERIALS["jelly"]), 0.5)
    assert state.position[:, 0].min() > 0.2 + 0.25 - solver.cell / 2
    # It left the piston bouncing, at up to twice its speed.
    assert 0.4 < state.velocity[:, 0].mean() < 1.05


def test_time_step_limits():
    solver = box(cell=1 / 16)
    x = lattice((0.2, 0.2), (0.5, 0.5), 1 / 32)
    at_rest, flying = fill(solver, x, Fluid(20.0)), fill(solver, x, Fluid(20.0), velocity=torch.full_like(x, 3.0))
    assert solver.time_step(at_rest) == pytest.approx(0.4 / 16 / 20)
    assert solver.time_step(flying, 0.2) == pytest.approx(0.2 / 16 / (20 + 3 * math.sqrt(2)))
    viscous = fill(solver, x, Fluid(20.0, viscosity=2000.0))
    assert solver.time_step(viscous) == pytest.approx(0.5 * (1 / 16) ** 2 / (4 * 2.0))
    rubber = fill(solver, x, NeoHookean(torch.linspace(1e4, 1e5, len(x)), 0.0))
    assert solver.time_step(rubber) == pytest.approx(0.4 / 16 / 10, rel=1e-6)
    with pytest.raises(ConfigError, match=r"courant must lie in \(0, 1\], got 2"):
        solver.time_step(at_rest, 2)


@pytest.mark.parametrize("viscosity", [200.0, 2000.0])
def test_viscous_flow_is_stable_at_its_time_step(viscosity):
    solver = box(cell=1 / 16)
    x = lattice((0.2, 0.1), (0.5, 0.4), 1 / 32)
    state, _ = solver.advance(fill(solver, x, Fluid(20.0, viscosity), velocity=torch.sin(20 * x)), 0.1)
    assert state.velocity.norm(dim=1).max() < 2


def test_frames_are_reached_exactly():
    solver = box()
    state = fill(solver, lattice((0.3, 0.5), (0.5, 0.7), 1 / 32), MATERIALS["jelly"])
    end, count = solver.advance(state, 0.123)
    assert end.time == 0.123 and count >= 0.123 / solver.time_step(state) - 1
    frames = solver.run(end, [0.123, 0.2])
    assert torch.equal(frames["position"][0], end.position) and len(frames["position"]) == 2


def scene(**changes):
    values = {
        "position": torch.full((3, 2), 0.5),
        "velocity": torch.zeros(3, 2),
        "volume": torch.full((3,), 1e-3),
        "density": 1e3,
        "materials": MATERIALS["jelly"],
    }
    return {**values, **changes}


def nan_at(value, *place):
    value = value.clone()
    value[place] = float("nan")
    return value


HALF = torch.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"position": torch.zeros(0, 2)}, DataError, r"there are no particles"),
        ({"position": torch.zeros(3, 3)}, DataError, r"position has shape \(3, 3\), expected \(3, 2\)"),
        ({"velocity": torch.zeros(2, 2)}, DataError, r"velocity has shape \(2, 2\), expected \(3, 2\)"),
        ({"density": torch.ones(2)}, DataError, r"density has shape \(2,\), expected \(3,\)"),
        ({"position": nan_at(HALF, 1, 0)}, DataError, r"position is not finite: the first such particle is number 1"),
        ({"volume": torch.zeros(3)}, DataError, r"volume must be positive, got 0"),
        ({"density": -1.0}, DataError, r"density must be positive, got -1"),
        ({"position": HALF + torch.tensor([[0.0], [0.0], [0.6]])}, DataError, r"1 of 3 particles lie outside the box"),
        (
            {"position": HALF * torch.tensor([[1.0], [1.0], [0.2]])},
            DataError,
            r"1 of 3 particles lie inside obstacle 0",
        ),
        ({"batch": torch.tensor([0, 1, 0])}, DataError, r"batch must be ascending"),
        ({"batch": torch.tensor([0, 0, 2])}, DataError, r"scene 1 of 3 has no particles"),
        ({"batch": torch.zeros(3)}, DataError, r"batch must be \(3,\) int64 scene numbers, got \(3,\) float32"),
        ({"materials": [(MATERIALS["jelly"], [0, 1])]}, DataError, r"exactly one material: particle 2 has 0"),
        ({"materials": [(MATERIALS["jelly"], [0, 1, 2, 1])]}, DataError, r"exactly one material: particle 1 has 2"),
        ({"materials": [(MATERIALS["jelly"], [0, 1, 3])]}, DataError, r"name particle 3, but there are 3"),
        ({"materials": NeoHookean(torch.ones(2), 0.3)}, ConfigError, r"young has shape \(2,\), expected .* \(3,\)"),
        ({"deformation": torch.zeros(2, 2)}, DataError, r"deformation has shape \(2, 2\), expected \(3, 2, 2\)"),
    ],
)
def test_bad_particles(changes, error, message):
    solver = box(dtype=torch.float32, obstacles=[Obstacle(Disk((0.1, 0.1), 0.05))])
    with pytest.raises(error, match=message):
        solver.start(**scene(**changes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": 0.3}, r"axis 0 of the box is 1 m long, which is 3.33333 cells of 0.3 m"),
        ({"cell": 0.5}, r"a whole number of cells, at least 4"),
        ({"cell": -0.1}, r"cell must be positive"),
        ({"upper": (1, 0)}, r"lower below upper"),
        ({"gravity": (0, 0, -9.81)}, r"2 or 3 components each, got 2, 2 and 3"),
        ({"gravity": (0, float("nan"))}, r"gravity must be finite"),
        ({"walls": "slick"}, r"unknown contact 'slick'; did you mean"),
        ({"walls": (("slip", "slip"),)}, r"walls must be one contact or a \(low, high\) pair for each of the 2 axes"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        MPMSolver(**{"lower": (0, 0), "upper": (1, 1), "cell": 0.125, "gravity": (0, -9.81), **options})


def test_bad_contacts_and_shapes():
    for make, message in (
        (lambda: Coulomb(-0.1), r"friction must be a number >= 0, got -0.1"),
        (lambda: Obstacle(Disk((0.5, 0.5), 0.1), "glue"), r"unknown contact 'glue'"),
        (lambda: Disk((0.5, 0.5), 0.0), r"radius must be positive"),
        (lambda: Box((0.5, 0.5), (0.6, 0.4)), r"must lie below upper"),
        (lambda: box(obstacles=[Obstacle(lambda x: x)]), r"finite number for each of 400 points, got shape \(400, 2\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


def two_scenes(velocity):
    solver = box(dtype=torch.float32)
    x = lattice((0.3, 0.3), (0.5, 0.5), 1 / 32, dtype=torch.float32)
    v = torch.zeros(2, len(x), 2)
    v[1] = velocity
    batch = torch.arange(2).repeat_interleave(len(x))
    return solver, fill(solver, x.repeat(2, 1), MATERIALS["jelly"], velocity=v.reshape(-1, 2), batch=batch)


def test_unstable_runs_name_the_scene():
    solver, state = two_scenes(0.0)
    broken = dataclasses.replace(state, velocity=torch.where(state.batch[:, None] == 1, float("nan"), state.velocity))
    with pytest.raises(SolverError, match=r"scene 1: 36 particles became NaN"):
        solver.check(steps(solver, broken, 1e-3, 1))
    solver, state = two_scenes(1e3)
    with pytest.raises(SolverError, match=r"scene 1: 36 particles left the box .* smaller courant"):
        solver.check(steps(solver, state, 1e-2, 1))


def test_too_many_steps_and_bad_times():
    solver, state = two_scenes(0.0)
    with pytest.raises(SolverError, match=r"only 3 are left of max_steps"):
        solver.run(state, [0.0, 0.5], max_steps=3)
    for times in ([], [0.1, 0.2], [0.0, 0.0]):
        with pytest.raises(ConfigError, match=r"times must ascend from the time of the state, 0 s"):
            solver.run(state, times)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_follows_cpu():
    ends = []
    for device in ("cpu", "cuda"):
        solver = box(3, 1 / 8, device=device, obstacles=[Obstacle(Disk((0.5,) * 3, 0.1))])
        x = lattice((0.1,) * 3, (0.4,) * 3, 1 / 16).to(device)
        names = list(MATERIALS)
        materials = [(MATERIALS[n], torch.arange(k, len(x), len(names))) for k, n in enumerate(names)]
        ends.append(steps(solver, fill(solver, x, materials), 1e-3, 50).position.cpu())
    assert (ends[0] - ends[1]).abs().max() < 1e-8

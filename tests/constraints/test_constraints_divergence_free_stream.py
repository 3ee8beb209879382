"""Velocities that are divergence-free because they are curls."""

import pytest
import torch

from sciml.constraints.base import Context
from sciml.constraints.divergence_free import DivergenceFree, StreamFunction
from sciml.errors import ConfigError
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
)

WALL, GLUED = Wall(), Periodic()
LIMITS = {torch.float32: 1e-6, torch.float64: 1e-13}


def sizes(dim, batch=2):
    return 0.5 + torch.rand(batch, dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64)


def through(dim):
    ends = {side: WALL for side in sides(dim)}
    return ends | {"x_low": Inlet((torch.tensor([1.0, 2.0]), *(0.0,) * (dim - 1))), "x_high": Outlet()}


PERIODIC_X = {"x_low": GLUED, "x_high": GLUED, "y_low": WALL, "y_high": WALL}
CASES = {
    "box": (box((9, 8), sizes(2)), {side: WALL for side in sides(2)}),
    "channel": (box((9, 8), sizes(2)), through(2)),
    "stretched": (Grid((stretched_axis(9, 1.5), stretched_axis(8, 1.0, ends="low")), sizes(2)), through(2)),
    "periodic x": (box((9, 8), sizes(2), periodic=(True, False)), PERIODIC_X),
    "periodic": (box((9, 8), sizes(2), periodic=True), {side: GLUED for side in sides(2)}),
    "cube": (box((5, 6, 4), sizes(3)), {side: WALL for side in sides(3)}),
    "duct": (box((5, 6, 4), sizes(3)), through(3)),
    "periodic cube": (box((5, 6, 4), sizes(3), periodic=True), {side: GLUED for side in sides(3)}),
}


def context_of(name):
    grid, ends = CASES[name]
    return Context(grid, {"velocity": slice(0, grid.dim)}, {"velocity": ends})


def potential(context, layer, dtype=torch.float64):
    grid = context.grid
    shape = (grid.batch, layer.channels(grid.dim), *grid.shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def rms(x):
    return float(x.double().square().mean().sqrt())


@pytest.mark.parametrize("mean_flow", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_no_divergence_and_exact_walls(name, dtype, mean_flow):
    context, layer = context_of(name), StreamFunction(mean_flow)
    grid, psi = context.grid, potential(context, layer, dtype)
    v, faces = layer(psi, context), layer.faces(psi, context)
    exact = metrics(grid, dtype=torch.float64)
    h = min(float((1 / m.inverse_width).min()) for m in exact)
    wide = tuple(f.double() for f in faces)
    assert v.dtype == dtype and v.shape == (grid.batch, grid.dim, *grid.shape) and rms(v) > 0.1
    assert rms(divergence(wide, exact) * h) < LIMITS[dtype] * rms(v)
    assert rms(faces_to_centres(wide, exact) - v) < LIMITS[dtype] * rms(v)
    assert DivergenceFree().residual(v, context).max() < LIMITS[dtype]
    for i, (f, axis) in enumerate(zip(faces, grid.axes, strict=True)):
        if not axis.periodic:
            low = context.boundaries["velocity"][f"{'xyz'[i]}_low"]
            wanted = low.velocity[i].to(dtype) if isinstance(low, Inlet) else torch.zeros(2, dtype=dtype)
            assert torch.equal(
                f.select(i + 1, 0), wanted.reshape(-1, *(1,) * (grid.dim - 1)).expand_as(f.select(i + 1, 0))
            )
    means = v.flatten(2).mean(2)
    for i, axis in enumerate(grid.axes):
        if axis.periodic:
            wanted = psi[:, -grid.dim + i].flatten(1).mean(1) if mean_flow else torch.zeros(2, dtype=dtype)
            torch.testing.assert_close(means[:, i], wanted, rtol=0, atol=1e-6)


def test_it_is_the_curl():
    """psi = sin(pi x) sin(pi y): (pi sin(pi x) cos(pi y), -pi cos(pi x) sin(pi y)), to second order."""
    errors = []
    for n in (16, 32):
        grid = box((n, n), torch.ones(1, 2, dtype=torch.float64))
        x, y = grid.centres(0)[:, :, None], grid.centres(1)[:, None, :]
        psi = (torch.pi * x).sin() * (torch.pi * y).sin()
        u = torch.pi * (torch.pi * x).sin() * (torch.pi * y).cos()
        v = -torch.pi * (torch.pi * x).cos() * (torch.pi * y).sin()
        context = Context(grid, {}, {"velocity": {side: WALL for side in sides(2)}})
        found = StreamFunction()(psi[:, None], context)
        errors.append((found - torch.stack([u, v], 1)).abs().max())
    assert errors[1] < 0.3 * errors[0] and errors[1] < 0.02


def test_it_is_the_curl_in_three_dimensions():
    """A = (0, 0, psi(x, y)) away from the walls across z gives the plane flow of psi."""
    grid = box((8, 9, 4), torch.ones(1, 3), periodic=(False, False, True))
    ends = {side: WALL for side in sides(3)} | {"z_low": GLUED, "z_high": GLUED}
    psi = torch.randn(1, 1, 8, 9, dtype=torch.float64)
    flat = StreamFunction()(psi, Context(box((8, 9), torch.ones(1, 2)), {}, {"velocity": CASES["box"][1]}))
    a = torch.cat([torch.zeros(1, 2, 8, 9, 4, dtype=torch.float64), psi[..., None].expand(-1, -1, -1, -1, 4)], 1)
    deep = StreamFunction()(a, Context(grid, {}, {"velocity": ends}))
    torch.testing.assert_close(deep[:, :2], flat[..., None].expand(-1, -1, -1, -1, 4), rtol=0, atol=1e-13)
    assert deep[:, 2].abs().max() < 1e-14
    turned = Grid((grid.axes[2], grid.axes[0], grid.axes[1]), grid.lengths.roll(1, 1))
    order = {"x": "y", "y": "z", "z": "x"}
    moved = StreamFunction()(
        a.roll(1, 1).permute(0, 1, 4, 2, 3),
        Context(turned, {}, {"velocity": {order[side[0]] + side[1:]: end for side, end in ends.items()}}),
    )
    torch.testing.assert_close(moved, deep.roll(1, 1).permute(0, 1, 4, 2, 3), rtol=0, atol=1e-13)


def test_transposition():
    context, layer = context_of("channel"), StreamFunction()
    grid, psi = context.grid, potential(context, layer)
    ends = {("y" if side[0] == "x" else "x") + side[1:]: end for side, end in context.boundaries["velocity"].items()}
    ends["y_low"] = Inlet((0.0, torch.tensor([1.0, 2.0])))
    other = Context(Grid(tuple(reversed(grid.axes)), grid.lengths.flip(1)), {}, {"velocity": ends})
    expected = layer(psi, context).flip(1).transpose(2, 3)
    torch.testing.assert_close(layer(-psi.transpose(2, 3), other), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["channel", "periodic cube"])
def test_gradients(name):
    grid, ends = CASES[name]
    layer = StreamFunction(mean_flow=True)
    shape = (3, 4) if grid.dim == 2 else (2, 3, 2)
    small = box(shape, sizes(grid.dim), periodic=tuple(axis.periodic for axis in grid.axes))
    context = Context(small, {}, {"velocity": ends})
    psi = potential(context, layer).requires_grad_()
    assert torch.autograd.gradcheck(lambda psi: layer(psi, context), psi)
    assert torch.autograd.gradgradcheck(lambda psi: layer(psi, context).square(), psi)


def test_bad_input():
    layer, context = StreamFunction(), context_of("box")
    with pytest.raises(ConfigError, match=r"expected \(2, 1, 9, 8\)"):
        layer(torch.zeros(2, 2, 9, 8), context)
    with pytest.raises(ConfigError, match="2 or 3 axes"):
        layer.channels(1)
    grid, ends = CASES["channel"]
    psi = torch.zeros(2, 1, 9, 8)
    with pytest.raises(ConfigError, match="2 sides are outlets"):
        layer(psi, Context(grid, {}, {"velocity": ends | {"y_high": Outlet()}}))
    with pytest.raises(ConfigError, match="net volume flux"):
        layer(psi, Context(grid, {}, {"velocity": ends | {"x_high": WALL}}))
    with pytest.raises(ConfigError, match="no obstacles"):
        layer(psi, Context(grid, {}, {"velocity": ends}, torch.ones(1, 9, 8, dtype=torch.bool)))

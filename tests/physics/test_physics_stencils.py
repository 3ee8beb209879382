"""Orders of the MAC stencils on smooth fields, and what they conserve."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.physics import (
    FastDiagonalisation,
    Grid,
    Inlet,
    Periodic,
    Wall,
    advection,
    boundary_values,
    box,
    centres_to_faces,
    divergence,
    eigenbasis,
    faces_to_centres,
    gradient,
    laplacian,
    metrics,
    stretched_axis,
    uniform_axis,
)
from sciml.physics.stencils import subtract_gradient, unknown_of_stored

LENGTHS = torch.tensor([[1.0, 1.0], [2.0, 1.5]], dtype=torch.float64)


def velocity_of(x, y):
    """A smooth field of period 2 pi in both directions, not divergence-free."""
    return torch.sin(x) * torch.cos(2 * y) + 0.3, torch.cos(x) * torch.sin(y) - 0.2


def exact(x, y):
    """div(u u_i) and lap u_i of ``velocity_of``, by automatic differentiation."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    d = lambda f, z: torch.autograd.grad(f.sum(), z, create_graph=True)[0]  # noqa: E731
    u = velocity_of(x, y)
    transport = [d(u[0] * f, x) + d(u[1] * f, y) for f in u]
    diffusion = [d(d(f, x), x) + d(d(f, y), y) for f in u]
    return (
        [t.detach() for t in transport],
        [t.detach() for t in diffusion],
        (d(u[0], x) + d(u[1], y)).detach(),
    )


def points(grid, component):
    """Coordinates (B, ..., ...) of the stored faces of a component; None = the cell centres."""
    x = grid.faces(0) if component == 0 else grid.centres(0)
    y = grid.faces(1) if component == 1 else grid.centres(1)
    return torch.broadcast_tensors(x[:, :, None], y[:, None, :])


def make(n, kind):
    """Grid, boundaries that carry the exact values, and the velocity on the faces."""
    if kind == "periodic":
        grid = box((n, n), LENGTHS * 0 + 2 * math.pi, periodic=True)
        boundaries = dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), Periodic())
    else:
        axis = uniform_axis(n) if kind == "uniform" else stretched_axis(n, 1.2)
        grid = Grid((axis, axis), LENGTHS)
        boundaries = {}
        for j, name in enumerate("xy"):
            for end, side in enumerate(("low", "high")):
                profiles = []
                for i in range(2):
                    along = grid.faces(1 - j) if i != j else grid.centres(1 - j)
                    here = (LENGTHS[:, j] * end)[:, None].expand_as(along)
                    profiles.append(velocity_of(*((here, along) if j == 0 else (along, here)))[i])
                boundaries[f"{name}_{side}"] = Inlet(tuple(profiles))
    velocity = tuple(velocity_of(*points(grid, i))[i] for i in range(2))
    return grid, boundaries, velocity


def errors(n, kind):
    """Root-mean-square errors of the stencils, two cells away from the walls."""
    grid, boundaries, velocity = make(n, kind)
    metric = metrics(grid, dtype=torch.float64)
    values = boundary_values(grid, boundaries, dtype=torch.float64)
    inside = (slice(None), slice(2, -2), slice(2, -2)) if kind != "periodic" else (slice(None),)
    rms = lambda e: e[inside].square().mean().sqrt().item()  # noqa: E731
    found = {"advection": 0.0, "laplacian": 0.0, "gradient": 0.0}
    pressure = velocity_of(*points(grid, None))[0]
    for i in range(2):
        where = [unknown_of_stored(z, metric[i]) for z in points(grid, i)]
        transport, diffusion, _ = exact(*where)
        found["advection"] += rms(advection(velocity, metric, values)[i] - transport[i])
        found["laplacian"] += rms(laplacian(velocity, metric, values)[i] - diffusion[i])
        x, y = where[0].clone().requires_grad_(), where[1].clone().requires_grad_()
        slope = torch.autograd.grad(velocity_of(x, y)[0].sum(), (x, y))[i]
        found["gradient"] += rms(gradient(pressure, metric[i]) - slope)
    cells = points(grid, None)
    found["divergence"] = rms(divergence(velocity, metric) - exact(*cells)[2])
    centred = torch.stack(velocity_of(*cells), 1)
    found["to centres"] = rms((faces_to_centres(velocity, metric) - centred).transpose(1, 3))
    back = centres_to_faces(centred, metric, values)
    found["to faces"] = sum(rms(b - v) for b, v in zip(back, velocity, strict=True))
    return found


@pytest.mark.parametrize("kind", ["periodic", "uniform", "stretched"])
def test_stencils_are_second_order(kind):
    coarse, fine = errors(24, kind), errors(48, kind)
    for name in coarse:
        order = math.log2(coarse[name] / fine[name])
        assert order > 1.8, f"{name}: order {order:.2f} ({coarse[name]:.2e} -> {fine[name]:.2e})"


def test_boundary_faces_carry_the_boundary_values():
    grid, boundaries, velocity = make(8, "uniform")
    metric, values = (
        metrics(grid, dtype=torch.float64),
        boundary_values(grid, boundaries, dtype=torch.float64),
    )
    back = centres_to_faces(torch.stack(velocity_of(*points(grid, None)), 1), metric, values)
    torch.testing.assert_close(back[0][:, 0], velocity[0][:, 0])
    torch.testing.assert_close(back[1][:, :, -1], velocity[1][:, :, -1])


@pytest.mark.parametrize(
    ("shape", "periodic"),
    [((6, 7), True), ((6, 7), False), ((5, 6), (True, False)), ((4, 5, 6), True), ((4, 5, 6), False)],
)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_advection_conserves_energy_and_momentum(shape, periodic, seed):
    """sum u . div(uu) = 0 for any divergence-free field on a uniform grid; periodic: sum div(uu) = 0 too."""
    generator = torch.Generator().manual_seed(seed)
    dim = len(shape)
    flags = (periodic,) * dim if isinstance(periodic, bool) else periodic
    lengths = 0.5 + torch.rand(2, dim, generator=generator, dtype=torch.float64)
    grid = box(shape, lengths, periodic=flags)
    boundaries = {
        f"{name}_{end}": Periodic() if flag else Wall()
        for name, flag in zip("xyz", flags, strict=False)
        for end in ("low", "high")
    }
    metric = metrics(grid, dtype=torch.float64)
    values = boundary_values(grid, boundaries, dtype=torch.float64)
    velocity = []
    for i in range(dim):
        u = torch.randn(2, *grid.face_shape(i), generator=generator, dtype=torch.float64)
        if not flags[i]:
            u.index_fill_(i + 1, torch.tensor([0, shape[i]]), 0.0)
        velocity.append(u)
    ends = ["periodic" if flag else "neumann" for flag in flags]
    bases = tuple(eigenbasis(a, "cell", e, e) for a, e in zip(grid.axes, ends, strict=True))
    poisson = FastDiagonalisation(bases, lengths, dtype=torch.float64)
    phi = poisson.solve_poisson(divergence(tuple(velocity), metric))
    solenoidal = subtract_gradient(tuple(velocity), phi, metric)
    assert divergence(solenoidal, metric).abs().max() < 1e-11
    transport = advection(solenoidal, metric, values)
    inner = [unknown_of_stored(u, m) for u, m in zip(solenoidal, metric, strict=True)]
    products = [(u * t).flatten(1) for u, t in zip(inner, transport, strict=True)]
    work, scale = sum(p.sum(1) for p in products), sum(p.abs().sum(1) for p in products)
    assert (work.abs() < 1e-12 * scale).all()
    for i, t in enumerate(transport):
        if all(flags):
            assert (t.flatten(1).sum(1).abs() < 1e-12 * t.abs().flatten(1).sum(1)).all(), i


def test_laplacian_is_negative_and_symmetric_on_a_stretched_box():
    axis = stretched_axis(6, 1.5)
    grid = Grid((axis, uniform_axis(5)), LENGTHS[1:])
    boundaries = dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), Wall())
    metric, values = (
        metrics(grid, dtype=torch.float64),
        boundary_values(grid, boundaries, dtype=torch.float64),
    )
    n = 5 * 5
    unit = torch.nn.functional.pad(torch.eye(n, dtype=torch.float64).reshape(n, 5, 5), (0, 0, 1, 1))
    columns = [laplacian((u[None], torch.zeros(1, 6, 6).double()), metric, values)[0].flatten() for u in unit]
    volumes = (axis.centre_distances[1:-1, None] * torch.ones(5).double()).flatten()
    operator = torch.stack(columns, 1) * volumes[:, None]
    torch.testing.assert_close(operator, operator.T)
    assert torch.linalg.eigvalsh(operator).max() < 0

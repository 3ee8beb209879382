"""What an equation leaves over of a step: closed forms in Fourier space, and the preconditioner on the MAC grid."""

import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics import (
    Grid,
    MovingWall,
    Outlet,
    Periodic,
    PeriodicBox,
    StepPreconditioner,
    VorticityEquation,
    Wall,
    acceleration,
    box,
    divergence,
    gradient,
    metrics,
    momentum_residual,
    of_each_frame,
    spectral_defects,
    stretched_axis,
    uniform_axis,
)

DOUBLE = torch.float64


def row(*values):
    return torch.tensor(values, dtype=DOUBLE)


def random_fields(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# ----------------------------------------------------------------------------------------------------- in Fourier space


def test_defect_of_waves_that_decay_and_grow_in_closed_form():
    """u' = nu u_xx + c u with the last term explicit: one wave stays one wave, and is multiplied by a number."""
    n, nu, c, h, k = 16, row(0.3, 0.01), 0.7, row(0.2, 0.5), 3
    waves = PeriodicBox((n,), torch.full((2, 1), 2 * math.pi, dtype=DOUBLE), dtype=DOUBLE)
    x = 2 * math.pi * (torch.arange(n, dtype=DOUBLE) + 0.5) / n
    first, second = 1.5, row(0.4, -0.6)
    frames = torch.stack([torch.full((2,), first, dtype=DOUBLE), second], 1)[:, :, None, None] * torch.cos(k * x)
    linear = nu.reshape(-1, 1, 1) * waves.laplacian
    defect = spectral_defects(frames, h, box=waves, linear=linear, nonlinear=lambda spectra: c * spectra)
    z = h * nu * k**2 / 2
    expected = second - ((1 - z) * first + h / 2 * c * (first + second)) / (1 + z)
    torch.testing.assert_close(defect, expected.reshape(2, 1, 1, 1) * torch.cos(k * x).expand(2, 1, 1, n))


def test_frames_of_vorticity_have_the_nonlinear_term_that_each_has_alone():
    square = PeriodicBox((12, 16), torch.full((2, 2), 1.0, dtype=DOUBLE), dtype=DOUBLE)
    source = random_fields(2, 1, 12, 16, seed=1)
    equation = VorticityEquation(square, row(0.01, 0.02), row(0.1, 0.0), source)
    spectra = square.forward(random_fields(2, 3, 1, 12, 16))
    together = equation.nonlinear(spectra)
    assert together.shape == (2, 3, 1, 12, 9)
    torch.testing.assert_close(together, of_each_frame(equation.nonlinear)(spectra), rtol=1e-12, atol=1e-12)


def test_frames_of_another_grid_are_refused():
    square = PeriodicBox((8, 8), torch.ones(1, 2), dtype=DOUBLE)
    with pytest.raises(DataError, match=r"expected \(cases, components, \*\(8, 8\)\)"):
        spectral_defects(
            torch.zeros(1, 2, 1, 8, 10), row(0.1), box=square, linear=square.laplacian, nonlinear=lambda s: s
        )


# ------------------------------------------------------------------------------------------------------ on the MAC grid


def walled(batch=2):
    """A box with a lid, wider cells in the middle."""
    grid = Grid((stretched_axis(9, 1.5), uniform_axis(7)), torch.tensor([[1.0, 2.0], [0.5, 0.7]], dtype=DOUBLE)[:batch])
    lid = MovingWall((row(1.0, -2.0)[:batch], 0.0))
    return grid, {"x_low": Wall(), "x_high": Wall(), "y_low": Wall(), "y_high": lid}


def duct():
    """Three dimensions: periodic along x and z, walls across y."""
    grid = box((6, 5, 7), torch.tensor([[1.0, 2.0, 0.8], [0.5, 0.7, 0.9]], dtype=DOUBLE), periodic=(True, False, True))
    periodic = {f"{axis}_{end}": Periodic() for axis in "xz" for end in ("low", "high")}
    return grid, {**periodic, "y_low": Wall(), "y_high": Wall()}


SETTINGS = {"walled": walled, "duct": duct}


def preconditioner(setting, nu=(0.05, 0.2), h=(0.1, 0.3)):
    grid, sides = setting()
    return grid, StepPreconditioner(grid, sides, row(*nu), row(*h), dtype=DOUBLE)


def unknowns(grid, seed=0):
    """Random values at the unknown faces of every component."""
    shapes = [
        tuple(axis.n - (i == j and not axis.periodic) for j, axis in enumerate(grid.axes)) for i in range(grid.dim)
    ]
    return tuple(random_fields(grid.batch, *shape, seed=seed + i) for i, shape in enumerate(shapes))


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_pressure_gradients_drop_out_and_the_defect_has_no_divergence(setting):
    grid, precondition = preconditioner(setting)
    metric, residual = metrics(grid, dtype=DOUBLE), unknowns(grid)
    defect = precondition(residual)
    size = max(float(f.abs().max()) for f in defect)
    assert size > 1e-3
    assert float(divergence(defect, metric).abs().max()) < 1e-11
    for f, m in zip(defect, metric, strict=True):
        if not m.periodic:
            assert not f.narrow(m.dim, 0, 1).any() and not f.narrow(m.dim, m.n, 1).any(), "nothing through the sides"
    pressure = 1e3 * random_fields(grid.batch, *grid.shape, seed=9)
    pushed = tuple(r + gradient(pressure, m) for r, m in zip(residual, metric, strict=True))
    for f, g in zip(defect, precondition(pushed), strict=True):
        torch.testing.assert_close(f, g, rtol=0, atol=1e-10)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_nothing_but_gradients_drops_out(setting):
    """The kernel of P H P is that of P: on faces the rank is their number less that of the pressures (one is free)."""
    grid, precondition = preconditioner(setting)
    shapes = [u.shape[1:] for u in unknowns(grid)]
    count = sum(shape.numel() for shape in shapes)
    basis = torch.eye(count, dtype=DOUBLE)
    single = Grid(grid.axes, grid.lengths[:1].expand(count, -1))
    sides = setting()[1] if setting is duct else dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), Wall())
    precondition = StepPreconditioner(single, sides, row(0.05).expand(count), row(0.1).expand(count), dtype=DOUBLE)
    parts = basis.split([shape.numel() for shape in shapes], 1)
    defects = precondition(tuple(part.reshape(count, *shape) for part, shape in zip(parts, shapes, strict=True)))
    matrix = torch.cat([f.flatten(1) for f in defects], 1)
    assert int(torch.linalg.matrix_rank(matrix)) == count - (math.prod(grid.shape) - 1)


@pytest.mark.parametrize(("end", "waves"), [(Periodic(), 2.0), (Wall(), 1.5)], ids=["periodic", "walls"])
def test_a_shear_wave_is_divided_by_its_implicit_part(end, waves):
    """Along x, of y; it is 0 on both walls, so one of their own waves."""
    n, nu, h = 12, 0.3, 0.4
    walled = isinstance(end, Wall)
    grid = box((n, n), torch.full((1, 2), 2 * math.pi, dtype=DOUBLE), periodic=(True, not walled))
    sides = {"x_low": Periodic(), "x_high": Periodic(), "y_low": end, "y_high": end}
    precondition = StepPreconditioner(grid, sides, row(nu), row(h), dtype=DOUBLE)
    width = 2 * math.pi / n
    shear = torch.sin(waves * width * (torch.arange(n, dtype=DOUBLE) + 0.5)).expand(1, n, n)
    still = torch.zeros(1, n, n - walled, dtype=DOUBLE)
    eigenvalue = -((2 * math.sin(waves * width / 2) / width) ** 2)
    defect = precondition((shear, still))
    torch.testing.assert_close(defect[0], shear / (1 - 0.5 * nu * h * eigenvalue))
    assert float(defect[1].abs().max()) < 1e-14


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_accelerations_make_up_the_residual_of_momentum(setting):
    grid, sides = setting()
    stored = [tuple(random_fields(2, *grid.face_shape(i), seed=s + i) for i in range(grid.dim)) for s in (0, 5)]
    nu, h = row(0.05, 0.2), row(0.1, 0.3)
    none = torch.zeros(2, *grid.shape, dtype=DOUBLE)
    residual = momentum_residual(*stored, none, h, grid=grid, boundaries=sides, viscosity=nu)
    rates = [acceleration(u, grid=grid, boundaries=sides, viscosity=nu) for u in stored]
    column = h.reshape(-1, *(1,) * grid.dim)
    for i, m in enumerate(metrics(grid, dtype=DOUBLE)):
        change = stored[1][i] - stored[0][i]
        change = change if m.periodic else change.narrow(m.dim, 1, m.n - 1)
        torch.testing.assert_close(residual[i], change / column - 0.5 * (rates[0][i] + rates[1][i]))


def test_outlets_are_refused():
    grid, sides = walled()
    with pytest.raises(ConfigError, match="side 'x_high' is an outlet"):
        StepPreconditioner(grid, {**sides, "x_high": Outlet()}, row(0.1, 0.1), row(0.1, 0.1), dtype=DOUBLE)

"""Changes by face fluxes: the total changes by what crosses the boundary, on boxes and unstructured cells."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml.constraints import Context
from sciml.constraints.conservation import FluxForm, cell_volumes, face_fluxes, flux_form, flux_update
from sciml.errors import ConfigError, DataError
from sciml.physics import Grid, box, stretched_axis, uniform_axis

SHAPE = (7, 6)


def grid(dtype=torch.float64, periodic: bool = False) -> Grid:
    axes = stretched_axis(SHAPE[0], 1.5), uniform_axis(SHAPE[1], periodic=periodic)
    return Grid(axes, torch.tensor([[1.0, 2.0], [0.5, 3.0]], dtype=dtype))


def random(*shape: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def obstacle() -> Tensor:
    fluid = torch.ones(1, *SHAPE, dtype=torch.bool)
    fluid[0, 2:4, 1:3] = False
    fluid[0, 6, 5] = False  # touches two sides
    return fluid


def total(u: Tensor, volumes: Tensor) -> Tensor:
    return (volumes[:, None] * u.double()).flatten(2).sum(2)


@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 3e-7), (torch.float64, 1e-15)])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("fluid", [None, obstacle()])
def test_flux_form_closed_box_keeps_the_total_for_100_steps(dtype, allowed, periodic, fluid):
    where = grid(dtype, periodic)
    channels = {"density": slice(0, 1), "momentum": slice(1, 3)}
    u = random(2, 3, *SHAPE, dtype=dtype)
    u[:, 0] += 5
    volumes = cell_volumes(where, fluid)
    start, size = total(u, volumes), total(u.abs(), volumes)
    layer = FluxForm(("density", "momentum"))
    first = u
    for step in range(100):
        context = Context(where, channels, before=u, interval=torch.tensor([0.01, 0.02], dtype=dtype), fluid=fluid)
        u = layer(random(2, 6, *SHAPE, seed=step, dtype=dtype), context)
        assert float(layer.residual(u, context).max()) < allowed
    assert u.dtype == dtype and float((u - first).abs().max()) > 0.1  # it did move
    drift = (total(u, volumes) - start).abs() / size
    assert float(drift.max()) < allowed * 10  # sqrt(100) roundings
    if fluid is not None:
        assert torch.equal(u[..., ~fluid[0]], first[..., ~fluid[0]])


@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 3e-7), (torch.float64, 1e-15)])
def test_flux_form_total_changes_by_what_crosses_the_sides(dtype, allowed):
    where = grid(dtype)
    inflow = torch.tensor([0.3, 0.7], dtype=dtype)
    profile = random(2, SHAPE[0], seed=3, dtype=dtype)  # along x, on the upper side of y
    layer = FluxForm("salt", outward={"salt": {"x_low": "wind", "y_high": profile, "x_high": 0.2}})
    interval = torch.tensor([0.01, 0.03], dtype=dtype)
    u = random(2, 1, *SHAPE, dtype=dtype) + 4
    volumes = cell_volumes(where)
    start, size = total(u, volumes)[:, 0], total(u.abs(), volumes)[:, 0]
    lengths, widths = where.lengths.double(), where.axes[0].widths
    out_per_second = lengths[:, 1] * (-inflow.double() + 0.2) + (profile.double() * lengths[:, :1] * widths).sum(1)
    for step in range(100):
        context = Context(
            where, {"salt": slice(0, 1)}, before=u, interval=interval, parameters={"wind": -inflow}
        )  # a negative outward flux comes in
        u = layer(random(2, 2, *SHAPE, seed=step, dtype=dtype), context)
        assert float(layer.residual(u, context).max()) < allowed
        assert float(layer.residual(u + 0.01, context).min()) > 1e-4
    expected = start - 100 * interval.double() * out_per_second
    assert float(((total(u, volumes)[:, 0] - expected) / size).abs().max()) < 20 * allowed


def test_flux_form_any_set_of_cells_changes_by_its_hull():
    """Not the whole alone: a block of cells, against the fluxes on its four sides."""
    where = box(SHAPE, torch.tensor([[1.4, 1.2]], dtype=torch.float64))  # cells of 0.2 x 0.2
    u, cells = random(1, 1, *SHAPE), random(1, 1, 2, *SHAPE, seed=1)
    fluxes = face_fluxes(cells, where, {}, None)
    change = flux_update(u, fluxes, where, 0.5) - u
    block = change[0, 0, 1:4, 2:5].sum() * 0.04
    fx, fy = fluxes[0][0, 0], fluxes[1][0, 0]
    hull = 0.2 * (fx[4, 2:5].sum() - fx[1, 2:5].sum() + fy[1:4, 5].sum() - fy[1:4, 2].sum())
    assert float((block + 0.5 * hull).abs()) < 1e-15


def test_flux_form_is_consistent_with_the_divergence_of_smooth_fluxes():
    errors = []
    for n in (20, 40):
        where = box((n, n), torch.tensor([[1.0, 1.0]], dtype=torch.float64), periodic=True)
        x, y = torch.meshgrid(where.centres(0)[0], where.centres(1)[0], indexing="ij")
        wave = 2 * torch.pi
        cells = torch.stack([torch.sin(wave * x) * torch.cos(wave * y), torch.cos(wave * x)])[None, None]
        context = Context(
            where, {"u": slice(0, 1)}, before=torch.zeros(1, 1, n, n).double(), interval=torch.ones(1).double()
        )
        out = FluxForm("u")(cells[0], context)
        exact = -wave * torch.cos(wave * x) * torch.cos(wave * y)
        errors.append(float((out[0, 0] - exact).abs().max()))
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_flux_form_box_units_do_not_depend_on_the_size_of_the_box():
    outputs = []
    for size, interval in ((1.0, 0.1), (50.0, 7.0)):
        where = box(SHAPE, torch.tensor([[size, 2 * size]], dtype=torch.float64), periodic=True)
        context = Context(
            where, {"u": slice(0, 1)}, before=random(1, 1, *SHAPE), interval=torch.tensor([interval]).double()
        )
        outputs.append(FluxForm("u", units="box")(random(1, 2, *SHAPE, seed=1), context))
    assert float((outputs[0] - outputs[1]).abs().max()) < 1e-12


def test_flux_form_passes_other_fields_on():
    where = grid()
    channels = {"pressure": slice(0, 1), "salt": slice(1, 3), "heat": slice(3, 4)}
    layer = FluxForm("salt")
    assert layer.input_channels(channels, 2) == 6 and layer.applies(channels) and not layer.applies({"a": slice(0, 1)})
    output, before = random(2, 6, *SHAPE), random(2, 4, *SHAPE, seed=1)
    context = Context(where, channels, before=before, interval=torch.tensor([0.1, 0.1]))
    u = layer(output, context)
    assert u.shape == before.shape
    assert torch.equal(u[:, 0], output[:, 0]) and torch.equal(u[:, 3], output[:, 5])
    alone = Context(where, {"salt": slice(0, 2)}, before=before[:, 1:3], interval=context.interval)
    assert torch.equal(u[:, 1:3], layer(output[:, 1:5], alone))


def test_flux_form_transposed():
    where, fluid = grid(), obstacle()
    output, before, profile = random(2, 4, *SHAPE), random(2, 2, *SHAPE, seed=1), random(2, SHAPE[0], seed=2)
    interval = torch.tensor([0.1, 0.3]).double()

    def run(grid, output, before, fluid, outward):
        context = Context(grid, {"u": slice(0, 2)}, before=before, interval=interval, fluid=fluid)
        return FluxForm("u", outward={"u": outward})(output, context)

    sides = {"x_low": (0.3, -0.2), "y_high": profile}
    u = run(where, output, before, fluid, sides)
    turned = Grid(where.axes[::-1], where.lengths.flip(1))
    swapped = output.reshape(2, 2, 2, *SHAPE).flip(2).reshape(2, 4, *SHAPE).mT
    v = run(turned, swapped, before.mT, fluid.mT, {"y_low": (0.3, -0.2), "x_high": profile})
    assert float((v.mT - u).abs().max()) < 1e-13


@pytest.mark.parametrize("shape", [(5,), (3, 4, 3)])
def test_flux_form_in_one_and_three_dimensions(shape):
    dim = len(shape)
    where = box(shape, torch.ones(2, dim, dtype=torch.float64))
    before = random(2, 1, *shape)
    context = Context(where, {"u": slice(0, 1)}, before=before, interval=torch.tensor([0.1, 0.2]).double())
    u = FluxForm("u")(random(2, dim, *shape, seed=1), context)
    volumes = cell_volumes(where)
    assert float((total(u, volumes) - total(before, volumes)).abs().max()) < 1e-15
    assert float((u - before).abs().max()) > 0.1


@pytest.mark.parametrize("periodic", [False, True])
def test_flux_form_gradients(periodic):
    where = Grid((stretched_axis(3, 1.0), uniform_axis(3, periodic=periodic)), torch.tensor([[1.0, 2.0]]).double())
    fluid = torch.ones(1, 3, 3, dtype=torch.bool)
    fluid[0, 0, 1] = False

    def function(output, before, interval, flux):
        layer = FluxForm("u", outward={"u": {"x_high": flux}})
        context = Context(where, {"u": slice(0, 1)}, before=before, interval=interval, fluid=fluid)
        return layer(output, context).square()

    inputs = random(1, 2, 3, 3), random(1, 1, 3, 3, seed=1), torch.tensor([0.4]).double(), random(1, 3, seed=2)
    inputs = tuple(t.requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


# ---------------------------------------------------------------- unstructured


def mesh(seed: int = 0, cells: int = 40, faces: int = 90) -> tuple[Tensor, ...]:
    """A random graph of cells: conservation needs no geometry."""
    generator = torch.Generator().manual_seed(seed)
    owners = torch.randint(cells, (faces,), generator=generator)
    neighbours = (owners + torch.randint(1, cells, (faces,), generator=generator)) % cells
    neighbours[-12:] = -1
    areas, volumes = (0.5 + torch.rand(n, generator=generator).double() for n in (faces, cells))
    return owners, neighbours, areas, volumes


@pytest.mark.parametrize("dtype, allowed", [(torch.float32, 3e-7), (torch.float64, 1e-15)])
def test_unstructured_flux_form_changes_by_the_boundary_alone(dtype, allowed):
    owners, neighbours, areas, volumes = mesh()
    u = random(2, 3, 40, dtype=dtype) + 5
    interval = torch.tensor([0.01, 0.02], dtype=dtype)
    start = (u.double() * volumes).sum(2)
    crossed = torch.zeros(2, 3).double()
    for step in range(100):
        fluxes = random(2, 3, 90, seed=step, dtype=dtype)
        u = flux_form(u, fluxes, owners, neighbours, areas, volumes, interval)
        crossed += interval.double()[:, None] * (fluxes.double() * areas)[:, :, -12:].sum(2)
    error = ((u.double() * volumes).sum(2) - start + crossed).abs() / (u.double().abs() * volumes).sum(2)
    assert u.dtype == dtype and float(error.max()) < 10 * allowed and float(crossed.abs().min()) > 1e-3


def test_unstructured_and_structured_agree():
    where = Grid((stretched_axis(4, 1.0), uniform_axis(3)), torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    u = random(1, 2, 4, 3)
    fluxes = random(1, 2, 5, 3, seed=1), random(1, 2, 4, 4, seed=2)
    expected = flux_update(u, fluxes, where, 0.1)
    cell = torch.arange(12).reshape(4, 3)
    widths = [where.lengths[0, k] * where.axes[k].widths for k in (0, 1)]
    owners, neighbours, areas, values = [], [], [], []
    for axis in (0, 1):
        n = (4, 3)[axis]
        for k in range(n + 1):
            for j in range((3, 4)[axis]):
                low = None if k == 0 else int(cell.select(axis, k - 1)[j])
                high = None if k == n else int(cell.select(axis, k)[j])
                sign = -1.0 if low is None else 1.0  # a boundary face points outward
                owners.append(high if low is None else low)
                neighbours.append(-1 if low is None or high is None else high)
                areas.append(widths[1 - axis][j])
                values.append(sign * fluxes[axis].select(axis + 2, k)[..., j])
    volumes = cell_volumes(where)[0].flatten()
    got = flux_form(
        u.flatten(2), torch.stack(values, 2), torch.tensor(owners), torch.tensor(neighbours), torch.stack(areas),
        volumes, 0.1,
    )  # fmt: skip
    assert float((got.reshape(u.shape) - expected).abs().max()) < 1e-14


def test_unstructured_gradients():
    owners, neighbours, areas, volumes = mesh(cells=4, faces=16)

    def function(u, fluxes, areas, volumes, interval):
        return flux_form(u, fluxes, owners, neighbours, areas, volumes, interval)

    inputs = (random(1, 2, 4), random(1, 2, 16, seed=1), areas, volumes, torch.tensor([0.3]).double())
    inputs = tuple(t.requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


# ---------------------------------------------------------------- bad input


def test_unstructured_bad_input():
    owners, neighbours, areas, volumes = mesh()
    u, fluxes = random(2, 3, 40), random(2, 3, 90)
    with pytest.raises(ConfigError, match="fluxes"):
        flux_form(u, fluxes[:1], owners, neighbours, areas, volumes, 0.1)
    with pytest.raises(ConfigError, match=r"owners\[5\] is 40; there are 40 cells"):
        wrong = owners.index_fill(0, torch.tensor(5), 40)
        flux_form(u, fluxes, wrong, neighbours, areas, volumes, 0.1)
    with pytest.raises(ConfigError, match="Face 0 has the cell"):
        flux_form(u, fluxes, owners, owners, areas, volumes, 0.1)
    with pytest.raises(ConfigError, match="areas and volumes"):
        flux_form(u, fluxes, owners, neighbours, areas[:-1], volumes, 0.1)
    with pytest.raises(DataError, match="volumes must be positive"):
        flux_form(u, fluxes, owners, neighbours, areas, volumes - 5, 0.1)
    with pytest.raises(DataError, match="interval"):
        flux_form(u, fluxes, owners, neighbours, areas, volumes, torch.nan)


def test_flux_form_bad_input():
    where = grid()
    channels, before, interval = {"u": slice(0, 1)}, random(2, 1, *SHAPE), torch.tensor([0.1, 0.1])
    good = Context(where, channels, before=before, interval=interval)
    with pytest.raises(ConfigError, match=r"output of shape \(2, 1, 7, 6\)"):
        FluxForm("u")(before, good)
    with pytest.raises(ConfigError, match="no field 'v'"):
        FluxForm("v")(before, good)
    with pytest.raises(ConfigError, match="one step earlier"):
        FluxForm("u")(random(2, 2, *SHAPE), Context(where, channels, interval=interval))
    with pytest.raises(ConfigError, match="length of the step"):
        FluxForm("u")(random(2, 2, *SHAPE), Context(where, channels, before=before))
    with pytest.raises(ConfigError, match=r"'x_lo'.*did you mean 'x_low'"):
        FluxForm("u", outward={"u": {"x_lo": 0.0}})(random(2, 2, *SHAPE), good)
    with pytest.raises(ConfigError, match=r"side 'x_low' has the shape \(5,\)"):
        FluxForm("u", outward={"u": {"x_low": torch.zeros(5)}})(random(2, 2, *SHAPE), good)
    with pytest.raises(DataError, match="not finite"):
        FluxForm("u", outward={"u": {"x_low": torch.nan}})(random(2, 2, *SHAPE), good)
    with pytest.raises(ConfigError, match="fluxes of 2 components"):
        FluxForm("u", outward={"u": {"x_low": (1.0, 2.0)}})(random(2, 2, *SHAPE), good)
    with pytest.raises(ConfigError, match="boundary flux 'wind' is not a parameter"):
        FluxForm("u", outward={"u": {"x_low": "wind"}})(random(2, 2, *SHAPE), good)
    with pytest.raises(ConfigError, match="is periodic"):
        periodic = Context(grid(periodic=True), channels, before=before, interval=interval)
        FluxForm("u", outward={"u": {"y_low": 1.0}})(random(2, 2, *SHAPE), periodic)
    with pytest.raises(ConfigError, match="each once"):
        FluxForm(("u", "u"))
    with pytest.raises(ConfigError, match="units 'boxes'"):
        FluxForm("u", units="boxes")
    with pytest.raises(ConfigError, match="Boundary fluxes of 'v'"):
        FluxForm("u", outward={"v": {}})
    with pytest.raises(ConfigError, match="fluid mask"):
        masked = Context(where, channels, before=before, interval=interval, fluid=torch.ones(1, 6, 7, dtype=torch.bool))
        FluxForm("u")(random(2, 2, *SHAPE), masked)
    with pytest.raises(ConfigError, match="not of the fluxes"):
        FluxForm("u").residual(random(2, 2, *SHAPE), good)
    with pytest.raises(ConfigError, match="interval has 3 entries"):
        flux_update(before, face_fluxes(random(2, 1, 2, *SHAPE), where, {}, None), where, torch.ones(3))
    with pytest.raises(ConfigError, match="along x should be"):
        flux_update(before, (before, before), where, 1.0)

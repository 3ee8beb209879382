"""What the advection of the fraction keeps: volume, bounds, symmetries; what crosses sides and solids; what it
refuses."""

import math

import pytest
import torch

from sciml.errors import ConfigError, SolverError
from sciml.physics.vof import LARGEST_COURANT_NUMBER, advect, courant_number, disc

NX, NY = 14, 11
SPACING = torch.tensor([[0.1, 0.1], [0.3, 0.05], [2.0, 7.0]], dtype=torch.float64)


def faces_of(stream, spacing):
    """Face velocities of a stream function ``(B, nx + 1, ny + 1)`` at the corners: without divergence."""
    h = spacing[:, :, None, None]
    return stream.diff(dim=2) / h[:, 1], -stream.diff(dim=1) / h[:, 0]


def random_stream(generator, batch=3, nx=NX, ny=NY, *, closed=True):
    """Noise at the corners, all sides closed (constant on the boundary) or open."""
    stream = torch.randn(batch, nx + 1, ny + 1, dtype=torch.float64, generator=generator)
    if closed:
        stream[:, [0, -1]] = 0
        stream[:, :, [0, -1]] = 0
    return stream


def largest_step(faces, spacing, share=1.0):
    """The step at the bound (or a share of it)."""
    one = torch.ones(len(spacing), dtype=spacing.dtype)
    return share * LARGEST_COURANT_NUMBER / courant_number(faces, one, spacing)


def random_fraction(generator, batch=3, nx=NX, ny=NY):
    """Mixed, full and empty cells next to each other."""
    return (2 * torch.rand(batch, nx, ny, dtype=torch.float64, generator=generator) - 0.5).clamp(0, 1)


def test_volume_and_bounds_hold_at_the_largest_step_in_any_flow():
    generator = torch.Generator().manual_seed(0)
    start = fraction = random_fraction(generator)
    for k in range(200):
        faces = faces_of(random_stream(generator), SPACING)
        fraction, _ = advect(fraction, faces, largest_step(faces, SPACING), SPACING, first=k % 2)
        assert float(fraction.min()) >= -1e-12
        assert float(fraction.max()) <= 1 + 1e-12
    torch.testing.assert_close(fraction.sum((1, 2)), start.sum((1, 2)), rtol=0, atol=1e-12)
    assert float((fraction - start).abs().max()) > 0.3  # it did move


def test_the_change_of_every_cell_is_what_crossed_its_faces():
    generator = torch.Generator().manual_seed(1)
    fraction = random_fraction(generator)
    faces = faces_of(random_stream(generator, closed=False), SPACING)
    inflow = {"x_low": 1.0, "y_high": torch.rand(3, NX, dtype=torch.float64, generator=generator)}
    new, (x, y) = advect(fraction, faces, largest_step(faces, SPACING), SPACING, first=1, inflow=inflow)
    volume = SPACING.prod(1)[:, None, None]
    torch.testing.assert_close((new - fraction) * volume, -(x.diff(dim=1) + y.diff(dim=2)), rtol=0, atol=1e-13)


def test_what_enters_and_leaves_through_the_sides():
    generator = torch.Generator().manual_seed(2)
    fraction = random_fraction(generator)
    faces = faces_of(random_stream(generator, closed=False), SPACING)
    share = torch.rand(3, NY, dtype=torch.float64, generator=generator)
    dt = largest_step(faces, SPACING)
    _, (x, y) = advect(fraction, faces, dt, SPACING, first=0, inflow={"x_high": share})
    swept = faces[0] * dt[:, None, None] * SPACING[:, 1, None, None]
    entering = swept[:, -1] < 0
    torch.testing.assert_close(x[:, -1][entering], (swept[:, -1] * share)[entering], rtol=1e-14, atol=0)
    assert float(x[:, 0][swept[:, 0] > 0].abs().max()) == 0  # nothing was said of this side: air
    assert float(y[:, :, 0][faces[1][:, :, 0] > 0].abs().max()) == 0
    assert float(x[:, -1][~entering].min()) >= 0
    assert float(x[:, -1][~entering].max()) > 0


def test_fluxes_lie_between_nothing_and_all_that_is_swept():
    generator = torch.Generator().manual_seed(3)
    faces = faces_of(random_stream(generator), SPACING)
    dt = largest_step(faces, SPACING)
    _, fluxes = advect(random_fraction(generator), faces, dt, SPACING, first=0)
    for axis in (0, 1):
        swept = faces[axis] * (dt * SPACING[:, 1 - axis])[:, None, None]
        assert bool((fluxes[axis] * swept >= 0).all())
        assert bool((fluxes[axis].abs() <= swept.abs() * (1 + 1e-12)).all())


def test_water_alone_and_air_alone_stay_what_they_are():
    faces = faces_of(random_stream(torch.Generator().manual_seed(4), closed=False), SPACING)
    dt = largest_step(faces, SPACING)
    everywhere = dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), 1.0)
    full = torch.ones(3, NX, NY, dtype=torch.float64)
    assert torch.equal(advect(full, faces, dt, SPACING, first=0, inflow=everywhere)[0], full)
    assert torch.equal(advect(0 * full, faces, dt, SPACING, first=0)[0], 0 * full)


def test_transposing_and_mirroring_commute_with_the_step():
    generator = torch.Generator().manual_seed(5)
    fraction = random_fraction(generator)
    u, v = faces_of(random_stream(generator, closed=False), SPACING)
    dt = largest_step((u, v), SPACING)
    share = torch.rand(3, NY, dtype=torch.float64, generator=generator)
    new, (x, y) = advect(fraction, (u, v), dt, SPACING, first=0, inflow={"x_low": share})
    turned, (y_t, x_t) = advect(
        fraction.transpose(1, 2),
        (v.transpose(1, 2), u.transpose(1, 2)),
        dt,
        SPACING.flip(1),
        first=1,
        inflow={"y_low": share},
    )
    for a, b in ((turned, new), (x_t, x), (y_t, y)):
        torch.testing.assert_close(a.transpose(1, 2), b, rtol=1e-13, atol=1e-13)
    mirrored, (x_m, _) = advect(
        fraction.flip(1), (-u.flip(1), v.flip(1)), dt, SPACING, first=0, inflow={"x_high": share}
    )
    torch.testing.assert_close(mirrored.flip(1), new, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(-x_m.flip(1), x, rtol=1e-13, atol=1e-13)


def test_water_and_air_are_alike():
    """What moves the water moves the air as 1 - f: no fluid is preferred."""
    generator = torch.Generator().manual_seed(6)
    fraction = random_fraction(generator)
    faces = faces_of(random_stream(generator), SPACING)
    dt = largest_step(faces, SPACING)
    water, _ = advect(fraction, faces, dt, SPACING, first=0)
    air, _ = advect(1 - fraction, faces, dt, SPACING, first=0)
    torch.testing.assert_close(1 - air, water, rtol=0, atol=1e-13)


def test_a_batch_gives_what_its_cases_give():
    generator = torch.Generator().manual_seed(7)
    fraction, fluid = random_fraction(generator), torch.ones(3, NX, NY, dtype=torch.bool)
    stream = random_stream(generator, closed=False)
    fluid[1, 3:5, :4] = False
    stream[1, 3:6, :5] = 0.7  # constant on the corners of the block: closed
    fraction = fraction * fluid
    faces = faces_of(stream, SPACING)
    dt = largest_step(faces, SPACING)
    inflow = torch.rand(3, NY, dtype=torch.float64, generator=generator)
    new, (x, y) = advect(fraction, faces, dt, SPACING, first=1, inflow={"x_low": inflow}, fluid=fluid)
    for b in range(3):
        one = slice(b, b + 1)
        single, (x_b, y_b) = advect(
            fraction[one],
            (faces[0][one], faces[1][one]),
            dt[one],
            SPACING[one],
            first=1,
            inflow={"x_low": inflow[one]},
            fluid=fluid[one],
        )
        for a, expected in ((single, new), (x_b, x), (y_b, y)):
            torch.testing.assert_close(a, expected[one], rtol=1e-14, atol=1e-14)


def test_solids_bound_the_flow_as_the_sides_of_the_box_do():
    generator = torch.Generator().manual_seed(8)
    stream = random_stream(generator, nx=8, ny=NY - 2)
    fraction = random_fraction(generator, nx=8, ny=NY - 2)
    fluid = torch.zeros(3, NX, NY, dtype=torch.bool)
    fluid[:, 3:11, 2:] = True
    embedded, around = torch.zeros(3, NX, NY, dtype=torch.float64), torch.zeros(3, NX + 1, NY + 1, dtype=torch.float64)
    embedded[fluid], around[:, 3:12, 2:] = fraction.flatten(), stream
    for k in range(20):
        dt = largest_step(faces_of(stream, SPACING), SPACING)
        fraction, _ = advect(fraction, faces_of(stream, SPACING), dt, SPACING, first=k % 2)
        embedded, _ = advect(embedded, faces_of(around, SPACING), dt, SPACING, first=k % 2, fluid=fluid)
    torch.testing.assert_close(embedded[:, 3:11, 2:], fraction, rtol=0, atol=1e-12)
    assert float(embedded[~fluid].abs().max()) == 0


def test_steps_beyond_the_bound_are_refused():
    faces = faces_of(random_stream(torch.Generator().manual_seed(9)), SPACING)
    dt = largest_step(faces, SPACING)
    fraction = torch.zeros(3, NX, NY, dtype=torch.float64)
    advect(fraction, faces, dt, SPACING, first=0)
    dt[1] *= 1.001
    with pytest.raises(SolverError, match=r"In case 1 0\.5.* of a cell's volume .* Take smaller steps"):
        advect(fraction, faces, dt, SPACING, first=0)
    faces[0][2, 3, 3] = math.nan
    with pytest.raises(SolverError, match=r"In case 2 nan"):
        advect(fraction, faces, 0.1 * dt, SPACING, first=0)


def test_the_courant_number_is_what_enters_the_busiest_cell():
    u, v = torch.zeros(1, 3, 2, dtype=torch.float64), torch.zeros(1, 2, 3, dtype=torch.float64)
    u[0, 0, 0], u[0, 1, 0], v[0, 0, 1] = 3.0, 1.0, 2.0 * 0.25  # cell (0, 0): in 3 / h_x, out 1 / h_x + 0.5 / h_y
    number = courant_number(
        (u, v), torch.tensor([0.01], dtype=torch.float64), torch.tensor([[0.2, 0.05]], dtype=torch.float64)
    )
    assert float(number) == pytest.approx(0.15)


def call(**changes):
    generator = torch.Generator().manual_seed(10)
    arguments = {
        "fraction": random_fraction(generator),
        "faces": faces_of(random_stream(generator), SPACING),
        "dt": torch.full((3,), 1e-4, dtype=torch.float64),
        "spacing": SPACING,
        "first": 0,
    }
    arguments.update(changes)
    positional = [arguments.pop(name) for name in ("fraction", "faces", "dt", "spacing")]
    return advect(*positional, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first": 2}, r"first must be 0 .* got 2"),
        ({"dt": torch.ones(1)}, r"dt must be \(3,\)"),
        ({"spacing": torch.ones(2)}, r"spacing must be \(3, 2\)"),
        ({"fluid": torch.ones(3, 4, 4, dtype=torch.bool)}, r"fluid must be \(3, 14, 11\)"),
        ({"fluid": torch.ones(3, NX, NY)}, r"fluid must be a bool tensor"),
        ({"fluid": torch.zeros(3, NX, NY, dtype=torch.bool)}, r"Solid cell \(0, 0\) of case 0 has a face with a veloc"),
        ({"inflow": {"left": 1.0}}, r"Unknown side 'left' in inflow"),
        ({"inflow": {"x_low": 1.5}}, r"fractions of water between 0 and 1; got values from 1\.5"),
        ({"inflow": {"y_low": torch.ones(3, NY)}}, r"inflow of side 'y_low' must be a number or \(3, 14\)"),
        ({"faces": (torch.ones(3, NX, NY), torch.ones(3, NX, NY + 1))}, r"faces\[0\] must be \(3, 15, 11\)"),
        ({"faces": (torch.ones(3, NX + 1, NY), torch.ones(3, NX, NY + 1))}, r"data type of the fraction"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        call(**changes)


def test_single_precision_keeps_its_own_bounds():
    n = 32
    start = disc(torch.ones(1, 2), (n, n), torch.tensor([[0.5, 0.7]]), 0.2).float()
    x = torch.linspace(0, 1, n + 1)
    stream = (torch.sin(math.pi * x)[:, None] * torch.sin(math.pi * x))[None]
    spacing = torch.full((1, 2), 1 / n)
    fraction, faces = start, faces_of(stream, spacing)
    for k in range(100):
        fraction, _ = advect(fraction, faces, largest_step(faces, spacing), spacing, first=k % 2)
    assert fraction.dtype == torch.float32
    assert float(fraction.min()) > -1e-5
    assert float(fraction.max()) < 1 + 1e-5
    assert float(fraction.double().mean()) == pytest.approx(float(start.double().mean()), abs=1e-6)

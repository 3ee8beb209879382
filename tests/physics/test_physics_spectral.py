"""Fourier series on periodic boxes: against derivatives and velocities known in closed form."""

import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics import PeriodicBox

LENGTHS = torch.tensor([[1.0, 2.0, 0.5], [3.0, 1.0, 4.0]], dtype=torch.float64)
SHAPE = (12, 15, 18)


def centres(box, axis):
    """Coordinates of the cell centres along an axis, broadcastable to (B, 1, *grid)."""
    view = [1] * box.dim
    view[axis] = -1
    x = (torch.arange(box.shape[axis], dtype=torch.float64) + 0.5) / box.shape[axis]
    return box.lengths[:, axis].reshape(-1, 1, *(1,) * box.dim) * x.reshape(view)


def unit(box, axis):
    return 2 * math.pi / box.lengths[:, axis].reshape(-1, 1, *(1,) * box.dim)


def box_of(dim):
    return PeriodicBox(SHAPE[:dim], LENGTHS[:, :dim], dtype=torch.float64)


def wave(box, phase):
    """The angle of a wave with 2 periods along x, -1 along y, 3 along z."""
    return phase + sum(m * unit(box, i) * centres(box, i) for i, m in zip(range(box.dim), (2, -1, 3), strict=False))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_derivatives_of_a_wave_are_exact_in_boxes_of_any_size(dim):
    box = box_of(dim)
    angle = wave(box, 0.3)
    spectrum = box.forward(angle.sin())
    total = torch.zeros_like(angle)
    for axis, m in zip(range(dim), (2, -1, 3), strict=False):
        exact = m * unit(box, axis) * angle.cos()
        torch.testing.assert_close(box.inverse(box.derivative(spectrum, axis)), exact, rtol=1e-11, atol=1e-10)
        torch.testing.assert_close(box.inverse(box.gradient(spectrum))[:, axis : axis + 1], exact)
        total = total - (m * unit(box, axis)) ** 2 * angle.sin()
    torch.testing.assert_close(box.inverse(box.laplacian * spectrum), total, rtol=1e-11, atol=1e-9)
    back = box.inverse(box.inverse_laplacian(box.laplacian * spectrum))
    torch.testing.assert_close(back, angle.sin(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_shortest_wave_has_no_slope_but_a_curvature(dim):
    """(-1)^i on an even axis: the cosine of the Nyquist frequency, whose odd derivatives vanish at all its extrema."""
    box = PeriodicBox((8,) * dim, LENGTHS[:, :dim], dtype=torch.float64)
    for axis in range(dim):
        view = [1] * dim
        view[axis] = -1
        field = ((-1.0) ** torch.arange(8, dtype=torch.float64)).reshape(view).expand(2, 1, *box.shape)
        spectrum = box.forward(field)
        assert float(box.inverse(box.derivative(spectrum, axis)).abs().max()) < 1e-12
        exact = -((4 * unit(box, axis)) ** 2) * field
        torch.testing.assert_close(box.inverse(box.laplacian * spectrum), exact, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("n", [12, 15, 16, 17, 18])
def test_products_of_kept_modes_are_free_of_aliasing(n):
    """Every product of two kept waves equals the one formed on a grid twice as fine, in all modes that are kept."""
    cut = (n - 1) // 3
    length = torch.tensor([[1.0]], dtype=torch.float64)
    fine, coarse = PeriodicBox((2 * n,), length, dtype=torch.float64), PeriodicBox((n,), length, dtype=torch.float64)
    assert int(coarse.dealias.sum()) == cut + 1
    assert float(coarse.largest[0, 0]) == pytest.approx(2 * math.pi * cut)

    def product(box):
        x = 2 * math.pi * centres(box, 0)
        u = sum(torch.cos(m * x + m) for m in range(cut + 1))
        spectrum = box.forward(u * u)[..., : cut + 1] / box.shape[0]
        shift = torch.exp(-1j * math.pi * torch.arange(cut + 1, dtype=torch.float64) / box.shape[0])
        return spectrum * shift

    torch.testing.assert_close(product(coarse), product(fine), rtol=1e-10, atol=1e-10)


def test_velocity_of_a_vortex_array_has_its_vorticity_and_no_divergence():
    box = box_of(2)
    x, y = (unit(box, i) * centres(box, i) for i in range(2))
    stream = torch.cos(2 * x + 0.2) * torch.sin(y) + torch.cos(3 * y - x)
    vorticity = -box.inverse(box.laplacian * box.forward(stream))
    velocity = box.velocity_from_vorticity(box.forward(vorticity))
    exact_u = unit(box, 1) * (torch.cos(2 * x + 0.2) * torch.cos(y) - 3 * torch.sin(3 * y - x))
    exact_v = -unit(box, 0) * (-2 * torch.sin(2 * x + 0.2) * torch.sin(y) + torch.sin(3 * y - x))
    torch.testing.assert_close(box.inverse(velocity), torch.cat([exact_u, exact_v], 1), rtol=1e-10, atol=1e-9)
    divergence = box.derivative(velocity[:, :1], 0) + box.derivative(velocity[:, 1:], 1)
    assert float(box.inverse(divergence).abs().max()) < 1e-9
    curl = box.derivative(velocity[:, 1:], 0) - box.derivative(velocity[:, :1], 1)
    torch.testing.assert_close(box.inverse(curl), vorticity, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_mean_square_is_that_of_the_grid(dim):
    box = box_of(dim)
    field = torch.randn(2, 3, *box.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(box.mean_square(box.forward(field)), field.square().flatten(2).mean(2))


def test_tail_share_counts_the_modes_near_the_cut_off():
    box = PeriodicBox((32, 32), torch.ones(3, 2, dtype=torch.float64), dtype=torch.float64)
    x, y = (2 * math.pi * centres(box, i) for i in range(2))
    low, high = torch.cos(3 * x + y), torch.cos(2 * x + 9 * y)  # the cut-off is at 10, its two thirds at 6.7
    share = box.tail_share(box.forward(5.0 + torch.cat([low[:1], low[:1] + high[:1], 2 * low[:1] + high[:1]])))
    torch.testing.assert_close(share, torch.tensor([0.0, 0.5, 0.2], dtype=torch.float64), atol=1e-12, rtol=1e-12)
    assert not box.tail_share(box.forward(torch.zeros_like(low))).any(), "no energy: nothing in the tail"
    single = PeriodicBox((32, 32), torch.ones(1, 2))
    almost_uniform = 1000.0 + 1e-5 * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert float(single.tail_share(single.forward(almost_uniform))) < 1e-4, "round-off of a mean is not a tail"


def test_bad_boxes_and_fields_are_refused():
    with pytest.raises(ConfigError, match=r"lengths have shape \(2, 3\); expected \(cases, 2\)"):
        PeriodicBox((8, 8), LENGTHS)
    with pytest.raises(ConfigError, match="lengths"):
        PeriodicBox((8, 8), torch.tensor([[1.0, -1.0]]))
    with pytest.raises(DataError, match="field has shape"):
        box_of(2).forward(torch.zeros(2, 1, 12, 12))

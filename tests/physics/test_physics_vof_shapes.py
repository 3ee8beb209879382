"""Fractions of half planes, rectangles and discs."""

import math

import pytest
import torch

from sciml.errors import ConfigError
from sciml.physics.vof import disc, half_plane, rectangle

LENGTHS = torch.tensor([[1.0, 1.0], [3.0, 1.5]], dtype=torch.float64)


def sampled(inside, lengths, shape, points=64):
    """Fractions by counting points in each cell."""
    x, y = (
        (torch.arange(n * points, dtype=torch.float64) + 0.5) / (n * points) * float(length)
        for n, length in zip(shape, lengths, strict=True)
    )
    hits = inside(x[:, None], y[None]).double()
    return hits.view(shape[0], points, shape[1], points).mean((1, 3))


def area(fraction, lengths):
    return fraction.mean((1, 2)) * lengths.prod(1)


def test_a_disc_has_its_area_and_its_cells_their_share():
    centre = torch.tensor([[0.5, 0.45], [1.3, 0.7]], dtype=torch.float64)
    radius = torch.tensor([0.3, 0.55], dtype=torch.float64)
    fraction = disc(LENGTHS, (20, 13), centre, radius)
    torch.testing.assert_close(area(fraction, LENGTHS), math.pi * radius**2, rtol=0, atol=1e-14)
    for b in range(2):
        c, r = centre[b], radius[b]
        counted = sampled(lambda x, y, c=c, r=r: (x - c[0]) ** 2 + (y - c[1]) ** 2 < r * r, LENGTHS[b], (20, 13))
        assert float((fraction[b] - counted).abs().max()) < 2e-3


def test_a_disc_may_reach_beyond_the_box():
    fraction = disc(LENGTHS[:1], (16, 16), torch.tensor([[1.0, 0.0]]), 0.5)
    assert float(area(fraction, LENGTHS[:1])) == pytest.approx(math.pi / 16, abs=1e-14)


def test_cells_that_the_circle_does_not_cross_are_exactly_full_or_empty():
    fraction = disc(LENGTHS[:1], (200, 200), torch.tensor([[0.5, 0.5]]), 61.3 / 200)
    mixed = int(((fraction > 0) & (fraction < 1)).sum())
    assert mixed == 4 * (61 + 61 + 1)  # a quarter of the circle crosses 61 + 61 lattice lines
    assert bool(((fraction >= 0) & (fraction <= 1)).all())


def test_a_rectangle_is_the_product_of_its_sides():
    low = torch.tensor([[0.1, -1.0], [0.9, 0.2]], dtype=torch.float64)
    high = torch.tensor([[0.73, 0.4], [9.0, 0.8]], dtype=torch.float64)
    fraction = rectangle(LENGTHS, (10, 7), low, high)
    expected = torch.tensor([0.63 * 0.4, 2.1 * 0.6], dtype=torch.float64)
    torch.testing.assert_close(area(fraction, LENGTHS), expected, rtol=0, atol=1e-14)
    assert float(fraction[0, 0, 0]) == 0
    assert float(fraction[0, 2, 1]) == 1
    assert torch.equal(rectangle(LENGTHS[1:], (10, 7), low[1], high[1])[0], fraction[1])


def test_half_planes_agree_with_rectangles_and_with_counting():
    wet = half_plane(LENGTHS, (10, 7), torch.tensor([0.0, 2.0]), 0.75)
    same = rectangle(LENGTHS, (10, 7), torch.tensor([-1.0, -1.0]), torch.tensor([9.0, 0.375]))
    torch.testing.assert_close(wet, same, rtol=0, atol=1e-14)
    normal, offset = torch.tensor([[0.6, -0.8], [-1.0, -1.5]], dtype=torch.float64), torch.tensor([0.125, -2.0])
    slanted = half_plane(LENGTHS, (10, 7), normal, offset)
    for b in range(2):
        n, d = normal[b], float(offset[b])
        counted = sampled(lambda x, y, n=n, d=d: n[0] * x + n[1] * y < d, LENGTHS[b], (10, 7))
        assert float((slanted[b] - counted).abs().max()) < 1e-2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: disc(LENGTHS, (4, 4), torch.zeros(2, 2), -0.1), r"radius must be positive"),
        (lambda: disc(LENGTHS, (4, 4), torch.zeros(3, 2), 0.1), r"centre must be \(2, 2\), got \(3, 2\)"),
        (lambda: half_plane(LENGTHS, (4, 4), torch.zeros(2, 2), 0.1), r"normal must not be zero"),
        (lambda: rectangle(LENGTHS, (4, 4), torch.ones(2), torch.zeros(2)), r"high must not be below low"),
        (lambda: disc(-LENGTHS, (4, 4), torch.zeros(2, 2), 0.1), r"lengths must be \(B, 2\) and positive"),
    ],
)
def test_bad_shapes_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()

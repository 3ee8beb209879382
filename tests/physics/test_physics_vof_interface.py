"""Normals of the reconstructed surface: how true on lines and circles, at walls and solids, under symmetries."""

import math

import pytest
import torch

from sciml.errors import ConfigError
from sciml.physics.vof import disc, half_plane, interface_normals


def angles(found, expected):
    """Angles between unit vectors ``(2, M)``."""
    sine = found[0] * expected[1] - found[1] * expected[0]
    return torch.atan2(sine, (found * expected).sum(0)).abs()


def lines(count, shape, lengths):
    """Half planes through the middle of the box at random angles, their normals and the inner mixed cells."""
    generator = torch.Generator().manual_seed(0)
    theta = 2 * math.pi * torch.rand(count, dtype=torch.float64, generator=generator)
    normal = torch.stack([theta.cos(), theta.sin()], 1)
    shift = 0.1 * (torch.rand(count, dtype=torch.float64, generator=generator) - 0.5)
    fraction = half_plane(lengths.expand(count, 2), shape, normal, (normal * lengths / 2).sum(1) + shift)
    inner = torch.zeros(fraction.shape, dtype=torch.bool)
    inner[:, 1:-1, 1:-1] = True
    return fraction, normal, (fraction > 1e-9) & (fraction < 1 - 1e-9) & inner


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (2.0, 0.5)])
def test_lines_are_found_within_a_degree_and_mostly_exactly(lengths):
    lengths = torch.tensor(lengths, dtype=torch.float64)
    fraction, normal, mixed = lines(300, (12, 10), lengths)
    spacing = (lengths / torch.tensor([12, 10])).expand(300, 2)
    found = interface_normals(fraction, spacing).transpose(0, 1)[:, mixed]
    error = angles(found, normal.T[..., None, None].expand(2, *fraction.shape)[:, mixed])
    assert float(error.max()) < math.radians(3.0 if lengths[0] != lengths[1] else 1.0)
    assert float((error < 1e-7).double().mean()) > 0.7


def circle_error(n):
    """Mean angle between the found normal and the direction from the centre, over discs at 20 places."""
    generator = torch.Generator().manual_seed(0)
    centre = 0.5 + 0.1 * torch.rand(20, 2, dtype=torch.float64, generator=generator)
    fraction = disc(torch.ones(20, 2), (n, n), centre, 0.25)
    mixed = (fraction > 1e-9) & (fraction < 1 - 1e-9)
    found = interface_normals(fraction, torch.full((20, 2), 1 / n)).transpose(0, 1)[:, mixed]
    case, i, j = mixed.nonzero().T
    away = torch.stack([(i + 0.5) / n, (j + 0.5) / n]) - centre[case].T
    return float(angles(found, away / away.norm(dim=0)).mean())


def test_normals_of_a_circle_converge():
    errors = [circle_error(n) for n in (20, 40, 80)]
    assert errors[0] < 0.025
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_no_normal_without_a_surface():
    fraction = disc(torch.ones(1, 2), (24, 24), torch.tensor([[0.5, 0.5]]), 0.3)
    normal = interface_normals(fraction, torch.full((1, 2), 1 / 24))
    mixed = (fraction > 0) & (fraction < 1)
    assert bool((normal.abs().amax(1) > 0)[mixed].all())
    assert float(normal.abs().amax(1)[~mixed].max()) == 0
    torch.testing.assert_close(normal.norm(dim=1)[mixed], torch.ones(int(mixed.sum()), dtype=torch.float64))


@pytest.mark.parametrize("levels", [2**40, 4])
def test_symmetries_hold_to_the_last_bit(levels):
    """Noise around a block, with few levels also many ties between the axes."""
    generator = torch.Generator().manual_seed(2)
    fraction = torch.rand(3, 9, 9, dtype=torch.float64, generator=generator).mul(levels).round() / levels
    fluid = torch.ones(3, 9, 9, dtype=torch.bool)
    fluid[:, 2:6, 3:5] = False
    fraction = fraction * fluid
    spacing = torch.tensor([[0.25, 0.25], [0.5, 0.2], [3.0, 7.0]], dtype=torch.float64)
    normal = interface_normals(fraction, spacing, fluid)
    transposed = interface_normals(fraction.transpose(1, 2), spacing.flip(1), fluid.transpose(1, 2))
    assert torch.equal(transposed, normal.flip(1).transpose(2, 3))
    mirrored = interface_normals(fraction.flip(1), spacing, fluid.flip(1)).flip(2)
    assert torch.equal(mirrored, normal * torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None, None])
    for b in range(3):
        one = slice(b, b + 1)
        torch.testing.assert_close(
            interface_normals(fraction[one], spacing[one], fluid[one]), normal[one], rtol=0, atol=1e-14
        )


def test_a_solid_continues_the_fraction_as_a_side_of_the_box_does():
    fraction = disc(torch.ones(1, 2), (20, 20), torch.tensor([[0.5, 0.1]]), 0.35)
    spacing = torch.full((1, 2), 1 / 20)
    expected = interface_normals(fraction[:, :10, 3:], spacing)
    fluid = torch.zeros(1, 20, 20, dtype=torch.bool)
    fluid[:, :10, 3:] = True
    found = interface_normals(fraction * fluid, spacing, fluid)[:, :, :10, 3:]
    assert torch.equal(found, expected)
    assert not torch.equal(interface_normals(fraction * fluid, spacing)[:, :, :10, 3:], expected)


def test_spacing_must_fit():
    with pytest.raises(ConfigError, match=r"spacing must be \(2, 2\)"):
        interface_normals(torch.zeros(2, 4, 4), torch.ones(2))

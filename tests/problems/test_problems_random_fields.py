"""Random fields: their variance, their mean, and that they are functions of position, not of the grid."""

import math

import pytest
import torch

from sciml.errors import ConfigError
from sciml.problems.random_fields import periodic_field, periodic_variance

SPECTRUM = {"alpha": 2.5, "tau": 7.0, "sigma": 3.0, "modes": 4}
SHAPES = {1: (45,), 2: (15, 25), 3: (9, 15, 9)}


def fields(dim, draws, **options):
    return periodic_field(torch.arange(draws), SHAPES[dim], dtype=torch.float64, **{**SPECTRUM, **options})


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_variance_is_the_analytic_sum_and_the_mean_is_zero(dim):
    grid = torch.meshgrid(*[torch.arange(-4, 5, dtype=torch.float64)] * dim, indexing="ij")
    square = sum(m**2 for m in grid).flatten()
    variance = 9.0 * (4 * math.pi**2 * square[square > 0] + 49.0) ** -2.5
    assert float(periodic_variance(dim, **SPECTRUM)) == pytest.approx(float(variance.sum()), rel=1e-12)
    sample = fields(dim, 800).flatten(1)
    assert float(sample.square().mean()) == pytest.approx(float(variance.sum()), rel=0.08)
    assert float(sample.mean(1).abs().max()) < 1e-15
    per_point = sample.square().mean(0)
    assert float(per_point.std() / per_point.mean()) < 0.1, "the same variance everywhere"


def test_single_modes_have_their_variance():
    sample = torch.fft.fft2(fields(2, 2000)[:, 0]) / (15 * 25)
    for mode in ((1, 0), (0, 1), (2, -3), (-4, 4)):
        exact = 9.0 * (4 * math.pi**2 * (mode[0] ** 2 + mode[1] ** 2) + 49.0) ** -2.5
        assert float(sample[:, mode[0], mode[1]].abs().square().mean()) == pytest.approx(exact, rel=0.1), mode
    assert float(sample[:, 5:-5].abs().max()) < 1e-12, "no modes beyond the fixed set"


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_same_function_at_every_resolution(dim):
    coarse = fields(dim, 2, components=2)
    fine = periodic_field(torch.arange(2), [3 * n for n in SHAPES[dim]], dtype=torch.float64, components=2, **SPECTRUM)
    shared = (..., *(slice(1, None, 3),) * dim)  # the centre of every third fine cell is one of the coarse grid
    torch.testing.assert_close(fine[shared], coarse, rtol=1e-10, atol=1e-14)
    single = periodic_field(torch.tensor([1]), SHAPES[dim], components=2, **SPECTRUM)
    torch.testing.assert_close(single[0].double(), coarse[1], rtol=1e-5, atol=1e-6 * float(coarse.abs().max()))
    assert not torch.allclose(coarse[0], coarse[1]) and not torch.allclose(coarse[:, 0], coarse[:, 1])


def test_a_grid_that_is_too_coarse_shows_the_modes_that_it_holds():
    full = torch.fft.fft(fields(1, 1)[0, 0]) / 45
    coarse = periodic_field(torch.tensor([0]), (6,), dtype=torch.float64, **SPECTRUM)
    held = torch.fft.fft(coarse[0, 0]) / 6
    shift = [torch.exp(torch.tensor(1j * math.pi * m / n)) for m in (1, 2) for n in (6, 45)]
    torch.testing.assert_close(held[1] / shift[0], full[1] / shift[1])
    torch.testing.assert_close(held[2] / shift[2], full[2] / shift[3])
    assert float(held[3].abs()) < 1e-15


def test_each_case_has_its_own_spectrum():
    alpha, tau, sigma = torch.tensor([2.0, 3.0]), torch.tensor([3.0, 9.0]), torch.tensor([1.0, 20.0])
    both = periodic_field(torch.tensor([5, 6]), (16, 16), alpha=alpha, tau=tau, sigma=sigma, dtype=torch.float64)
    one = periodic_field(torch.tensor([6]), (16, 16), alpha=3.0, tau=9.0, sigma=20.0, dtype=torch.float64)
    torch.testing.assert_close(both[1:], one)
    variances = periodic_variance(2, alpha=alpha, tau=tau, sigma=sigma)
    assert float(variances[1]) == pytest.approx(float(periodic_variance(2, alpha=3.0, tau=9.0, sigma=20.0)))


def test_no_modes_or_components_are_refused():
    with pytest.raises(ConfigError, match="modes is 0"):
        periodic_field(torch.tensor([0]), (8,), alpha=2.0, tau=1.0, modes=0)
    with pytest.raises(ConfigError, match="components 0"):
        periodic_field(torch.tensor([0]), (8,), alpha=2.0, tau=1.0, components=0)

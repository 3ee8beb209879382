"""Measures over the fluid alone, and the frequency of a series."""

import math

import pytest
import torch

from sciml import metrics
from sciml.errors import DataError


def fields(grid=(6, 5), seed=0, channels=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 4, channels, *grid)
    return (torch.randn(shape, generator=generator) for _ in range(2))


def mask(grid=(6, 5), seed=1):
    fluid = torch.rand((3, *grid), generator=torch.Generator().manual_seed(seed)) > 0.3
    assert not bool(fluid.flatten(1).all(1).any())
    return fluid


@pytest.mark.parametrize("name", list(metrics.METRICS))
@pytest.mark.parametrize("grid", [(30,), (6, 5), (3, 4, 4)])
def test_the_value_is_that_of_the_fluid_cells_in_a_row(name, grid):
    """Every measure is a sum over cells, so case by case it is that of a line of the fluid cells; what the solid cells
    hold, NaN included, plays no part.
    """
    prediction, target = fields(grid)
    fluid = mask(grid)
    measure = metrics.METRICS[name]
    solid = ~fluid[:, None, None].expand_as(prediction)
    found = measure(prediction.masked_fill(solid, math.nan), target.masked_fill(solid, math.inf), fluid)
    for case in range(3):
        one = [values[case : case + 1, :, :, fluid[case]] for values in (prediction, target)]
        torch.testing.assert_close(found[case : case + 1], measure(*one), rtol=1e-12, atol=0)
    everywhere = measure(prediction, target, torch.ones_like(fluid))
    torch.testing.assert_close(everywhere, measure(prediction, target), rtol=1e-14, atol=0)
    whole = measure(prediction, target)
    assert name == "max_error" or not torch.allclose(found, whole), "the mask changes it"


def test_all_measures_take_the_mask():
    prediction, target = fields()
    fluid = mask()
    found = metrics.all_metrics(prediction, target, fluid)
    assert all(
        torch.equal(found[name], measure(prediction, target, fluid)) for name, measure in metrics.METRICS.items()
    )


def test_masks_that_do_not_fit():
    prediction, target = fields()
    for wrong in (mask()[:2], mask().float(), mask()[:, :5], mask()[:, None]):
        with pytest.raises(DataError, match=r"expected bool \(3, 6, 5\)"):
            metrics.nmse(prediction, target, wrong)
    fluid = mask()
    fluid[1] = False
    with pytest.raises(DataError, match=r"case 1 has no fluid cell"):
        metrics.mse(prediction, target, fluid)


def test_divergence_of_whole_stencils():
    """A flow without divergence that is blanked in a block has none where no neighbour is solid."""
    x, y = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
    velocity = torch.stack([2 * x - y, x - 2 * y])[None, None].double()
    fluid = torch.ones(1, 9, 8, dtype=torch.bool)
    fluid[0, 3:5, 4:6] = False
    blanked = velocity.masked_fill(~fluid[:, None, None], 0.0)
    spacing = torch.ones(1, 2)
    assert float(metrics.relative_divergence(blanked, spacing)) > 0.1
    assert float(metrics.relative_divergence(blanked, spacing, fluid)) < 1e-15
    everywhere = metrics.relative_divergence(blanked, spacing, torch.ones_like(fluid))
    assert torch.equal(everywhere, metrics.relative_divergence(blanked, spacing))
    # One cell whose stencil is whole: the value is that of its four differences alone.
    fluid = torch.zeros(1, 9, 8, dtype=torch.bool)
    for i, j in ((4, 4), (3, 4), (5, 4), (4, 3), (4, 5)):
        fluid[0, i, j] = True
    random = torch.randn(1, 1, 2, 9, 8, generator=torch.Generator().manual_seed(0)).double()
    ux, vy = random[0, 0, 0, 5, 4] - random[0, 0, 0, 3, 4], random[0, 0, 1, 4, 5] - random[0, 0, 1, 4, 3]
    expected = (ux + vy).abs() / (ux.square() + vy.square()).sqrt()
    torch.testing.assert_close(metrics.relative_divergence(random, spacing, fluid)[0, 0], expected)


# ------------------------------------------------------------------------------------------------------------ frequency


@pytest.mark.parametrize("periods", [1.6, 2.37, 3.0, 7.8])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_sinusoid_is_found_exactly(periods, offset):
    """However few periods, whatever the phase and the mean; the steps need not be equal."""
    time = torch.linspace(0, 1, 41, dtype=torch.float64) ** 1.1 * 0.2
    phases = torch.linspace(0, 6, 7, dtype=torch.float64)
    series = offset + torch.sin(2 * math.pi * periods * time[None] / 0.2 + phases[:, None])
    found = metrics.dominant_frequency(series, time.expand(7, -1))
    torch.testing.assert_close(found, torch.full((7,), periods / 0.2).double(), rtol=1e-6, atol=0)


def test_each_case_by_itself():
    time = torch.stack([torch.arange(50.0) * 0.1, torch.arange(50.0) * 0.2]).double()
    series = torch.stack([torch.sin(2 * math.pi * 1.3 * time[0]), torch.cos(2 * math.pi * 0.7 * time[1])])
    both = metrics.dominant_frequency(series, time)
    torch.testing.assert_close(both, torch.tensor([1.3, 0.7]).double(), rtol=1e-6, atol=0)
    assert torch.equal(both[1:], metrics.dominant_frequency(series[1:], time[1:]))


def test_a_harmonic_and_noise_do_not_mislead():
    time = torch.linspace(0, 10, 101).double()[None]
    noise = torch.randn(1, 101, generator=torch.Generator().manual_seed(0)).double()
    series = torch.sin(2 * math.pi * 0.45 * time) + 0.4 * torch.sin(2 * math.pi * 0.9 * time) + 0.1 * noise
    assert float(metrics.dominant_frequency(series, time)) == pytest.approx(0.45, rel=0.01)


def test_what_has_no_frequency():
    time = torch.linspace(0, 1, 41).double().expand(7, -1)
    at = time[0]
    noise = torch.randn(41, generator=torch.Generator().manual_seed(0)).double()
    rows = [torch.full((41,), 3.0).double(), at, (-5 * at).exp(), torch.sin(2 * math.pi * 1.4 * at), noise]
    rows += [torch.full((41,), math.nan).double(), 5 + 1e-14 * noise]
    assert metrics.dominant_frequency(torch.stack(rows), time).isnan().all()
    assert metrics.dominant_frequency(torch.sin(20 * time[:, :4]), time[:, :4]).isnan().all()


def test_series_that_do_not_fit():
    time = torch.linspace(0, 1, 9)[None]
    with pytest.raises(DataError, match=r"expected \(batch, samples\) of both"):
        metrics.dominant_frequency(time[:, 1:], time)
    with pytest.raises(DataError, match="time must increase"):
        metrics.dominant_frequency(time, time.flip(1))

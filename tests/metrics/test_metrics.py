"""Error measures against slow formulas written out in numpy, and against the properties that define them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.errors import DataError
from sciml.metrics import (
    METRICS,
    PER_CHANNEL,
    all_metrics,
    max_error,
    mse,
    nmse,
    nrmse,
    relative_divergence,
    relative_l2,
    vrmse,
)

GRIDS = [(7,), (5, 4), (3, 4, 2)]


def pair(grid=(5, 4), seed=0, dtype=torch.float32, batch=2, time=3, channels=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, time, channels, *grid)
    return (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))


def slow_sample(name, p, y):
    """One case and frame, ``(channels, *grid)``, the formula of the paper in plain numpy."""
    if name == "mse":
        return np.mean((p - y) ** 2)
    if name == "mae":
        return np.mean(np.abs(p - y))
    if name == "nmse":
        return np.sum((p - y) ** 2) / np.sum(y**2)
    if name == "relative_l2":
        return np.linalg.norm((p - y).ravel()) / np.linalg.norm(y.ravel())
    if name == "relative_l1":
        return np.sum(np.abs(p - y)) / np.sum(np.abs(y))
    rows = []
    for a, b in zip(p, y, strict=True):
        if name == "vrmse":
            rows.append(math.sqrt(np.mean((a - b) ** 2) / (np.var(b, ddof=1) + 1e-7)))
        elif name == "nrmse":
            rows.append(math.sqrt(np.mean((a - b) ** 2)) / math.sqrt(np.mean(b**2)))
        elif name == "max_error":
            rows.append(np.max(np.abs(a - b)))
        else:
            raise AssertionError(name)
    return np.array(rows)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", METRICS)
def test_formula(name, grid):
    p, y = pair(grid)
    result = METRICS[name](p, y)
    p64, y64 = p.numpy().astype(np.float64), y.numpy().astype(np.float64)
    expected = np.array([[slow_sample(name, p64[b, t], y64[b, t]) for t in range(3)] for b in range(2)])
    assert result.shape == expected.shape == ((2, 3, 2) if name in PER_CHANNEL else (2, 3))
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_exact_prediction_is_zero(name):
    _, y = pair()
    assert torch.all(METRICS[name](y, y) == 0)


@pytest.mark.parametrize("name", METRICS)
def test_transposed_fields_score_the_same(name):
    p, y = pair()
    torch.testing.assert_close(METRICS[name](p, y), METRICS[name](p.mT, y.mT), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", METRICS)
def test_cases_and_frames_do_not_mix(name):
    p, y = pair()
    whole = METRICS[name](p, y)
    assert torch.equal(whole[1:, 2:], METRICS[name](p[1:, 2:], y[1:, 2:]))


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_ratios_do_not_depend_on_units(scale, seed):
    p, y = pair(seed=seed, dtype=torch.float64)
    for metric in (nmse, nrmse, relative_l2):
        torch.testing.assert_close(metric(p * scale, y * scale), metric(p, y), rtol=1e-9, atol=0)
    torch.testing.assert_close(vrmse(p * scale, y * scale, eps=0.0), vrmse(p, y, eps=0.0), rtol=1e-9, atol=0)


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_error_scales_as_it_should(scale, seed):
    p, y = pair(seed=seed, dtype=torch.float64)
    farther = y + scale * (p - y)
    torch.testing.assert_close(mse(farther, y), scale**2 * mse(p, y), rtol=1e-9, atol=0)
    torch.testing.assert_close(relative_l2(farther, y), scale * relative_l2(p, y), rtol=1e-9, atol=0)
    torch.testing.assert_close(max_error(farther, y), scale * max_error(p, y), rtol=1e-9, atol=0)


def test_trivial_predictions_score_one():
    _, y = pair(dtype=torch.float64)
    one = torch.ones(2, 3, dtype=torch.float64)
    torch.testing.assert_close(nmse(torch.zeros_like(y), y), one)
    n = y[0, 0, 0].numel()
    mean = y.mean((-2, -1), keepdim=True).expand_as(y)
    # The mean square about the mean is the biased variance, the denominator the unbiased one.
    expected = torch.full((2, 3, 2), math.sqrt((n - 1) / n), dtype=torch.float64)
    torch.testing.assert_close(vrmse(mean, y, eps=0.0), expected)


@pytest.mark.parametrize("metric", [nmse, relative_l2, nrmse])
def test_zero_target(metric):
    zero, one = torch.zeros(1, 1, 2, 4, 4), torch.ones(1, 1, 2, 4, 4)
    assert torch.all(metric(zero, zero) == 0)
    assert torch.all(metric(one, zero) == math.inf)
    assert torch.all(vrmse(zero, zero) == 0)
    assert torch.all(torch.isfinite(vrmse(one, zero)))


@pytest.mark.parametrize("name", METRICS)
def test_nan_is_not_hidden(name):
    p, y = pair()
    p[1, 2, 0, 3, 3] = math.nan
    result = METRICS[name](p, y)
    assert torch.isnan(result[1, 2]).any()
    assert torch.isfinite(result[0]).all()


def test_float32_input_is_summed_in_float64():
    # A float32 sum over this grid would lose the small offset in the rounding of the large mean.
    y = torch.full((1, 1, 1, 512, 512), 1000.0)
    p = y + 2.0**-13
    assert mse(p, y).item() == 2.0**-26


@pytest.mark.parametrize("name", METRICS)
def test_shapes_are_checked(name):
    p, y = pair()
    with pytest.raises(DataError, match="one shape"):
        METRICS[name](p[:, :1], y)
    with pytest.raises(DataError, match="at least one grid axis"):
        METRICS[name](p[0, 0], y[0, 0])


def test_all_metrics():
    p, y = pair()
    result = all_metrics(p, y)
    assert result.keys() == METRICS.keys()
    assert torch.equal(result["nmse"], nmse(p, y))


class TestRelativeDivergence:
    @staticmethod
    def field(function, width=2.0, height=1.0, nx=16, ny=12):
        x = (torch.arange(nx, dtype=torch.float64) + 0.5) / nx * width
        y = (torch.arange(ny, dtype=torch.float64) + 0.5) / ny * height
        velocity = torch.stack(function(*torch.meshgrid(x, y, indexing="ij")))
        return velocity[None, None], torch.tensor([[width / nx, height / ny]], dtype=torch.float64)

    def test_linear_flows(self):
        # Central differences of linear fields are exact: strain is divergence-free, expansion is not.
        strain = relative_divergence(*self.field(lambda x, y: (x + 3 * y, 2 * x - y)))
        expansion = relative_divergence(*self.field(lambda x, y: (x, y)))
        assert strain.shape == (1, 1)
        assert strain.item() < 1e-12
        assert expansion.item() == pytest.approx(math.sqrt(2))

    def test_rest_units_and_transposition(self):
        velocity, spacing = self.field(lambda x, y: (torch.sin(x * y), torch.cos(2 * x) + y))
        value = relative_divergence(velocity, spacing)
        assert relative_divergence(0 * velocity, spacing).item() == 0
        torch.testing.assert_close(relative_divergence(100 * velocity, 1e-3 * spacing), value)
        turned = relative_divergence(velocity.flip(2).mT, spacing.flip(1))
        torch.testing.assert_close(turned, value)

    def test_shapes_are_checked(self):
        with pytest.raises(DataError, match="do not fit"):
            relative_divergence(torch.zeros(1, 1, 2, 4, 4), torch.ones(1, 3))

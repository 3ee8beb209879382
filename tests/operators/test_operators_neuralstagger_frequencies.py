"""What a coarse grid can know: advection-diffusion of fields below and above its Nyquist frequency.

u_t + c u_x = nu u_xx on a periodic line multiplies the coefficient of frequency k by g_k = exp(-(nu k^2 + i c k) dt). A
phase (every s-th cell) knows k modulo n = N / s only. Below the coarse Nyquist frequency n / 2 that is all of k: an
exact propagator on the phase exists. Above it, with independent coefficients of variance v_k, the best linear map of a
phase multiplies all k of one residue by the same w = sum v_k g_k / sum v_k, and is left with the relative error
sqrt(sum v_k |g_k - w|^2 / sum v_k |g_k|^2): the floor of modes shared and independent. Mode stacked knows all phases.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from sciml.operators import NeuralStagger
from sciml.operators.layers.spectral import SpectralConv

CELLS, FACTOR = 64, 4
COARSE = CELLS // FACTOR
ADVECTION, DIFFUSION, STEP = 1.0, 2e-3, 0.03


def propagator() -> Tensor:
    """g_k for the frequencies of a real transform."""
    k = torch.arange(CELLS // 2 + 1, dtype=torch.float64)
    return torch.exp(-(DIFFUSION * k**2 + 1j * ADVECTION * k) * STEP)


def fields(count: int, highest: int, seed: int) -> tuple[Tensor, Tensor]:
    """White random fields of the frequencies 1 to ``highest``, none at multiples of n / 2, and what becomes of them."""
    generator = torch.Generator().manual_seed(seed)
    real, imaginary = torch.randn(2, count, 1, CELLS // 2 + 1, generator=generator, dtype=torch.float64)
    kept = variances(highest) > 0
    spectrum = torch.complex(real, imaginary) * kept
    return tuple(torch.fft.irfft(s, n=CELLS, norm="forward") for s in (spectrum, spectrum * propagator()))


def variances(highest: int) -> Tensor:
    k = torch.arange(CELLS // 2 + 1)
    return ((k >= 1) & (k <= highest) & (k % (COARSE // 2) != 0)).double()


def floor(highest: int) -> float:
    """The relative error of the best linear map of one phase."""
    v, g = variances(highest)[1 : CELLS // 2], propagator()[1 : CELLS // 2]
    k = torch.arange(1, CELLS // 2)
    k, v, g = torch.cat([k, -k]) % COARSE, v.repeat(2), torch.cat([g, g.conj()])  # of a real field
    left = 0.0
    for residue in range(COARSE):
        same = k == residue
        if v[same].sum() > 0:
            best = (v * g)[same].sum() / v[same].sum()
            left += float((v * (g - best).abs() ** 2)[same].sum())
    return math.sqrt(left / float((v * g.abs() ** 2).sum()))


def linear(takes: int, gives: int) -> nn.Module:
    """All linear maps of periodic fields that commute with shifts by a coarse cell."""
    return SpectralConv(takes, gives, (COARSE,)).double()


def trained_error(mode: str, highest: int) -> float:
    """Relative error on new fields after least squares on 512 others."""
    torch.manual_seed(0)
    operator = NeuralStagger(linear, 1, 1, spatial=FACTOR, mode=mode, dim=1, periodic=True).double()
    x, y = fields(512, highest, seed=1)
    optimiser = torch.optim.LBFGS(
        operator.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = (operator(x) - y).square().mean() / y.square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    x, y = fields(2048, highest, seed=2)
    with torch.no_grad():
        return float((operator(x) - y).norm() / y.norm())


@pytest.mark.parametrize("mode", ["independent", "shared", "stacked"])
def test_below_the_coarse_nyquist_frequency_phases_suffice(mode):
    assert floor(COARSE // 2 - 1) < 1e-12
    assert trained_error(mode, COARSE // 2 - 1) < 1e-3


@pytest.mark.parametrize("mode", ["independent", "shared"])
@pytest.mark.parametrize("highest", [11, 30])
def test_above_it_a_floor_is_left_to_phases_alone(mode, highest):
    expected = floor(highest)
    assert expected > 0.15
    assert trained_error(mode, highest) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("highest", [11, 30])
def test_above_it_all_phases_together_leave_no_floor(highest):
    assert trained_error("stacked", highest) < 1e-3

"""The radial spectrum: single waves land in their shell, Parseval holds, a known power law is recovered."""

import math

import pytest
import torch

from sciml.errors import DataError
from sciml.metrics import radial_spectrum


def centres(n, length=1.0):
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n * length


class TestRadialSpectrum:
    @pytest.mark.parametrize(
        ("grid", "lengths"), [((16,), (3.0,)), ((12, 10), (1.0, 2.0)), ((6, 8, 10), (1.0, 2.0, 0.5))]
    )
    def test_parseval(self, grid, lengths):
        field = torch.randn(2, 3, 2, *grid, generator=torch.Generator().manual_seed(0))
        k, density = radial_spectrum(field, lengths)
        assert density.shape == (2, 3, 2, len(k)) and density.dtype == torch.float64
        torch.testing.assert_close(k[1], torch.tensor(2 * math.pi / max(lengths), dtype=torch.float64))
        half = 0.5 * field.double().square().flatten(3).mean(-1)
        torch.testing.assert_close((density * k[1]).sum(-1), half)

    @pytest.mark.parametrize(("wave", "shell"), [((3, 0), 3), ((3, 4), 5), ((0, 2), 2), ((1, 1), 1), ((2, 2), 3)])
    def test_a_wave_is_in_its_shell(self, wave, shell):
        x, y = torch.meshgrid(centres(16), centres(16), indexing="ij")
        field = torch.cos(2 * math.pi * (wave[0] * x + wave[1] * y))
        k, density = radial_spectrum(field[None, None, None], (1.0, 1.0))
        energy = density[0, 0, 0] * k[1]
        assert energy[shell] == pytest.approx(0.25) and energy.sum() == pytest.approx(0.25)

    def test_power_law(self):
        """Modes of amplitude |k|^-2 in the plane have a density of slope 1 - 4 = -3."""
        n = 256
        waves = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
        size = torch.hypot(*torch.meshgrid(waves, waves, indexing="ij"))
        phase = torch.randn(n, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        noise = torch.fft.fft2(phase)
        field = torch.fft.ifft2(noise / noise.abs() * torch.where(size > 0, size, torch.inf) ** -2).real
        k, density = radial_spectrum(field[None, None, None], (1.0, 1.0))
        slope = (density[0, 0, 0, 80] / density[0, 0, 0, 20]).log() / (k[80] / k[20]).log()
        assert slope == pytest.approx(-3.0, abs=0.1)

    def test_units_of_length(self):
        field = torch.randn(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        (k, e), (wide_k, wide_e) = radial_spectrum(field, (1.0, 1.0)), radial_spectrum(field, (10.0, 10.0))
        torch.testing.assert_close(wide_k, k / 10)
        torch.testing.assert_close(wide_e, 10 * e)

    @pytest.mark.parametrize(
        ("shape", "lengths"), [((1, 1, 4), ()), ((1, 1, 1, 4), (1.0, 1.0)), ((1, 1, 1, 4), (-1.0,))]
    )
    def test_bad_input(self, shape, lengths):
        with pytest.raises(DataError, match="do not fit"):
            radial_spectrum(torch.zeros(shape), lengths)

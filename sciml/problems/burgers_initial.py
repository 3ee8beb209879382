"""Random initial fields of the Burgers equation: functions of x that do not depend on the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.problems.random_fields import periodic_field, periodic_variance

TAU = 5.0
"""Inverse correlation length of the Gaussian fields, in units of the box, as in Li et al. (2021)."""

ALPHA = {1: 2.0, 2: 3.0}
MODES = {1: 64, 2: 12}
"""Exponent of the covariance (-lap + TAU^2)^-ALPHA and the number of modes, by dimension."""

WAVES = 4
"""Waves that PDEBench superposes: each is sin(2 pi n s x + phase) with an amplitude from U(0, 1), n = 1..4, s the
number of times that two draws with replacement picked it (0: a constant)."""

FINE = 1024
ROUNDING_MODE = 32
"""Kinks (|u|) and window edges have Fourier series without end: they are rounded by the filter exp(-(m / 32)^2), that
is over 0.7 % of the box, and cut off at three times that mode."""


def gaussian_deviation(dim: int, sigma: float) -> float:
    """Standard deviation at a point of the periodic Gaussian field N(0, sigma^2 (-lap + TAU^2)^-ALPHA)."""
    return float(periodic_variance(dim, alpha=ALPHA[dim], tau=TAU, sigma=sigma, modes=MODES[dim])) ** 0.5


def initial_velocity(kind: Tensor, amplitude: Tensor, draw: Tensor, shape: Sequence[int], walls: bool) -> Tensor:
    """Velocity ``(B, dim, *shape)`` float64; kind, amplitude and draw are ``(B,)``, ``walls`` holds for all."""
    dim = len(shape)
    velocity = torch.zeros(len(kind), dim, *shape, dtype=torch.float64)
    gaussian, waves = (kind == 0).nonzero()[:, 0], (kind == 1).nonzero()[:, 0]
    if len(gaussian):
        field = _sines(draw[gaussian], shape[0]) if walls else _periodic(draw[gaussian], shape)
        velocity = velocity.index_copy(0, gaussian, field)
    if len(waves):
        velocity = velocity.index_copy(0, waves, _waves(draw[waves], shape[0]))
    return amplitude.reshape(-1, *(1,) * (dim + 1)) * velocity


def _periodic(draw: Tensor, shape: Sequence[int]) -> Tensor:
    """Independent Gaussian components with unit variance."""
    dim = len(shape)
    return periodic_field(
        draw,
        shape,
        alpha=ALPHA[dim],
        tau=TAU,
        sigma=1 / gaussian_deviation(dim, 1.0),
        modes=MODES[dim],
        components=dim,
        dtype=torch.float64,
    )


def _sines(draw: Tensor, cells: int) -> Tensor:
    """Gaussian field of sines that vanishes at both walls, ``(B, 1, cells)``: the covariance of ``_periodic`` with the
    Laplacian of a walled box, and mean square 1."""
    modes = torch.arange(1, MODES[1] + 1, dtype=torch.float64)
    deviation = (math.pi**2 * modes**2 + TAU**2) ** (-ALPHA[1] / 2)
    deviation = deviation * (2 / deviation.square().sum()).sqrt()
    x = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    noise = torch.stack([torch.randn(len(modes), generator=_generator(d), dtype=torch.float64) for d in draw.tolist()])
    return (noise * deviation @ torch.sin(math.pi * modes[:, None] * x)).unsqueeze(1)


def _waves(draw: Tensor, cells: int) -> Tensor:
    """PDEBench's superposed waves on the unit interval, ``(B, 1, cells)``.

    In one case of ten the absolute value is taken; the sign is random; in one of ten a window with tanh edges between
    x in 0.1..0.45 and 0.55..0.9 is applied. Read in its ``init_multi`` (k_tot = 4, two choices).
    """
    x = (torch.arange(FINE, dtype=torch.float64) + 0.5) / FINE
    fields = torch.stack([_one_wave(_generator(number), x) for number in draw.tolist()])
    modes = torch.arange(3 * ROUNDING_MODE, dtype=torch.float64)
    shift = torch.exp(-1j * math.pi * modes / FINE)
    coefficients = torch.fft.rfft(fields, norm="forward")[:, : len(modes)] * shift
    coefficients = coefficients * torch.where(modes == 0, 1.0, 2.0) * torch.exp(-((modes / ROUNDING_MODE) ** 2))
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    basis = torch.exp(2j * math.pi * modes[:, None] * centres)
    return (coefficients @ basis).real.unsqueeze(1)


def _one_wave(generator: torch.Generator, x: Tensor) -> Tensor:
    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    picked = torch.randint(WAVES, (2,), generator=generator)
    times = torch.nn.functional.one_hot(picked, WAVES).sum(0)
    number = times * torch.arange(1, WAVES + 1)
    amplitude, phase = random(WAVES), 2 * math.pi * random(WAVES)
    u = (amplitude[:, None] * torch.sin(2 * math.pi * number[:, None] * x + phase[:, None])).sum(0)
    absolute, negative, windowed, low, high = random(5).tolist()
    u = u.abs() if absolute < 0.1 else u
    u = -u if negative < 0.5 else u
    if windowed < 0.1:
        low, high = 0.1 + 0.35 * low, 0.55 + 0.35 * high
        u = u * 0.5 * (torch.tanh((x - low) / 0.01) - torch.tanh((x - high) / 0.01))
    return u


def _generator(number: float) -> torch.Generator:
    return torch.Generator().manual_seed(int(number))

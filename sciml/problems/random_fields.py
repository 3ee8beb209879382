"""Gaussian random fields that a whole number selects and that are the same functions at every resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.errors import ConfigError


def periodic_field(
    draw: Tensor,
    shape: Sequence[int],
    *,
    alpha: Tensor | float,
    tau: Tensor | float,
    sigma: Tensor | float = 1.0,
    modes: int = 20,
    components: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Fields ``(B, components, *shape)`` with covariance sigma^2 (-Laplacian + tau^2)^-alpha on the periodic box.

    The box is the unit box of ``len(shape)`` dimensions, as in Li et al., arXiv:2010.08895: mode m has the variance
    ``sigma^2 (4 pi^2 |m|^2 + tau^2)^-alpha``, the mean is zero. A field on a box with other sides is this one
    stretched. Values are at cell centres (i + 1/2) / n.

    ``draw (B,)``: whole numbers, one a case, that seed the modes from -``modes`` to ``modes`` on every axis: a fixed
    set, so that the field is the same function at every resolution. A grid with n <= 2 ``modes`` cells along an axis
    shows those of its modes that it can hold. ``alpha``, ``tau`` and ``sigma``: numbers or ``(B,)``;
    ``components`` independent fields a case.

    Raises ``ConfigError`` for fewer than one mode or component.
    """
    dim, batch = len(shape), draw.shape[0]
    if modes < 1 or components < 1:
        raise ConfigError(f"modes is {modes} and components {components}; both must be at least 1")
    variance = _mode_variance(dim, *(_per_case(value, batch) for value in (alpha, tau, sigma)), modes)
    noise = torch.stack([_noise(int(number), components, dim, modes) for number in draw.tolist()])
    coefficients = noise * variance.sqrt().unsqueeze(1)

    numbers = _mode_numbers(dim, modes)
    spectrum_shape = (*shape[:-1], shape[-1] // 2 + 1)
    spectrum = torch.zeros(batch, components, *spectrum_shape, dtype=torch.complex128)
    for axis, (m, n) in enumerate(zip(numbers, shape, strict=True)):
        shift = torch.exp(1j * math.pi * m / n)  # the centres of the cells lie half a cell from the origin
        view = (-1, *(1,) * (dim - 1 - axis))
        coefficients = coefficients * shift.reshape(view)
        coefficients = coefficients.index_select(axis + 2, (2 * m.abs() < n).nonzero()[:, 0])
    held = [m[2 * m.abs() < n].long() % n for m, n in zip(numbers, shape, strict=True)]
    spectrum[(slice(None), slice(None), *torch.meshgrid(*held, indexing="ij"))] = coefficients
    axes = tuple(range(-dim, 0))
    field = torch.fft.irfftn(spectrum, s=tuple(shape), dim=axes, norm="forward")
    return field.to(device=device, dtype=dtype)


def periodic_variance(
    dim: int, *, alpha: Tensor | float, tau: Tensor | float, sigma: Tensor | float = 1.0, modes: int = 20
) -> Tensor:
    """Variance of ``periodic_field`` at a point, the sum of the variances of its modes: ``(B,)`` float64."""
    batch = max(torch.as_tensor(value).numel() for value in (alpha, tau, sigma))
    variance = _mode_variance(dim, *(_per_case(value, batch) for value in (alpha, tau, sigma)), modes)
    return variance[..., :1].flatten(1).sum(1) + 2 * variance[..., 1:].flatten(1).sum(1)


def cosine_field(
    draw: Tensor,
    shape: Sequence[int],
    *,
    alpha: Tensor | float,
    tau: float,
    modes: int = 48,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Fields ``(B, 1, *shape)`` with covariance proportional to (-Laplacian + tau^2)^-alpha, no slope on the sides.

    On the unit box of ``len(shape)`` dimensions with Neumann conditions, as the published Darcy data of Li et al.,
    arXiv:2010.08895 (alpha 2, tau 3): mode m, a product of cos(pi m_i x_i), has a variance proportional to
    ``(pi^2 |m|^2 + tau^2)^-alpha``, and the mean is left out. Scaled to variance 1, averaged over the box. Values are
    at cell centres (i + 1/2) / n.

    ``draw (B,)``: whole numbers, one a case, that seed the ``modes`` cosines of each axis: a fixed set, so that the
    field is the same function at every resolution.

    Raises ``ConfigError`` for fewer than two modes.
    """
    if modes < 2:
        raise ConfigError(f"modes is {modes}; at least 2 are needed: mode 0 alone is the mean, which is left out")
    dim = len(shape)
    number = torch.arange(modes, dtype=torch.float64)
    deviation = cosine_deviations(dim, alpha=alpha, tau=tau, modes=modes)
    noise = [
        torch.randn((modes,) * dim, generator=torch.Generator().manual_seed(int(seed)), dtype=torch.float64)
        for seed in draw.tolist()
    ]
    field = torch.stack(noise) * deviation
    amplitude = torch.where(number == 0, 1.0, math.sqrt(2.0)).unsqueeze(1)  # each cosine has mean square 1
    for n in shape:
        # the next mode axis is always the first; its grid axis goes last, so that the order is kept
        centres = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        field = torch.tensordot(field, amplitude * torch.cos(math.pi * number.unsqueeze(1) * centres), dims=([1], [0]))
    return field.unsqueeze(1).to(device=device, dtype=dtype)


def cosine_deviations(dim: int, *, alpha: Tensor | float, tau: float, modes: int = 48) -> Tensor:
    """Standard deviations of the coefficients of ``cosine_field`` ``(modes, ...)``, zero for the mean; each cosine has
    mean square 1.
    """
    number = torch.arange(modes, dtype=torch.float64)
    square = sum(m**2 for m in torch.meshgrid(*[number] * dim, indexing="ij"))
    variance = (math.pi**2 * square + tau**2) ** -alpha
    variance[(0,) * dim] = 0.0
    return (variance / variance.sum()).sqrt()


def _mode_numbers(dim: int, modes: int) -> list[Tensor]:
    """-modes..modes on every axis, 0..modes on the last: a real field's other half follows."""
    both = torch.arange(-modes, modes + 1, dtype=torch.float64)
    return [*[both] * (dim - 1), both[modes:]]


def _mode_variance(dim: int, alpha: Tensor, tau: Tensor, sigma: Tensor, modes: int) -> Tensor:
    """``(B, 2 modes + 1, ..., modes + 1)``, zero for the mean."""
    square = sum(m**2 for m in torch.meshgrid(*_mode_numbers(dim, modes), indexing="ij"))
    column = (-1, *(1,) * dim)
    rate = 4 * math.pi**2 * square + tau.reshape(column) ** 2
    variance = torch.where(square == 0, 1.0, rate) ** -alpha.reshape(column) * sigma.reshape(column) ** 2
    return torch.where(square == 0, 0.0, variance)


def _noise(seed: int, components: int, dim: int, modes: int) -> Tensor:
    """Complex standard normal coefficients of a real field: those of m and -m are conjugate."""
    generator = torch.Generator().manual_seed(seed)
    shape = (components, *(2 * modes + 1,) * (dim - 1), modes + 1)
    noise = torch.randn(shape, generator=generator, dtype=torch.complex128)
    plane = noise[..., 0]
    mirrored = plane.flip(tuple(range(1, dim))) if dim > 1 else plane
    noise[..., 0] = (plane + mirrored.conj()) / math.sqrt(2)
    return noise


def _per_case(value: Tensor | float, batch: int) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).cpu().reshape(-1).expand(batch)

"""Error measures of predicted fields, in the definitions of the benchmarks that people compare with.

Every function takes ``(prediction, target)``, prediction first, both ``(batch, time, channels, *grid)`` with
at least one grid axis, and returns one number per (case, frame) ``(batch, time)`` or per (case, frame,
channel) ``(batch, time, channels)``. Nothing is averaged over cases or frames: what is averaged, and how,
decides what a score means, so the caller says it (``nmse(p, y).mean()`` is CFDBench's figure with a test
batch of one).

With ``fluid (batch, *grid)`` bool only the cells where it is true count, whatever the others hold: means, sums and
variances are over the fluid, not over an obstacle in it. Where all cells are fluid the value is that without the mask.

Differences and sums are taken in float64 whatever the input, and no measure adds a constant to its
denominator unless its paper does. A ratio whose target is zero everywhere (a flow at rest) is 0 where the
prediction is exactly zero too and infinite otherwise; NaN and Inf in the input come out as NaN or Inf. These
are measures, not losses: the square roots have no finite gradient at zero error.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from sciml.errors import DataError

Metric = Callable[..., Tensor]
"""``(prediction, target, fluid=None)``."""


def _double(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Both in float64 and 0 outside the fluid, after checking that they are trajectories of one shape."""
    if prediction.shape != target.shape:
        # Without the check (B, 1, C, ...) would broadcast against (B, T, C, ...) and score silently.
        raise DataError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must have one shape, "
            "(batch, time, channels, *grid)"
        )
    if prediction.dim() < 4:
        raise DataError(
            "expected (batch, time, channels, *grid) with at least one grid axis, got "
            f"{tuple(prediction.shape)}; insert the missing axes with unsqueeze"
        )
    if fluid is None:
        return prediction.double(), target.double()
    solid = ~_checked(fluid, prediction)[:, None, None]
    return prediction.double().masked_fill(solid, 0.0), target.double().masked_fill(solid, 0.0)


def _checked(fluid: Tensor, values: Tensor) -> Tensor:
    """The mask, on the device of ``values (batch, time, channels, *grid)``."""
    wanted = (values.shape[0], *values.shape[3:])
    if fluid.dtype != torch.bool or tuple(fluid.shape) != wanted:
        raise DataError(
            f"fluid is {fluid.dtype} of shape {tuple(fluid.shape)}; expected bool {wanted}, (batch, *grid) of the "
            "fields"
        )
    empty = ~fluid.flatten(1).any(1)
    if empty.any():
        raise DataError(f"case {int(empty.nonzero()[0, 0])} has no fluid cell; nothing can be measured in it")
    return fluid.to(values.device)


def _mean(values: Tensor, axis: int, fluid: Tensor | None) -> Tensor:
    """Mean over the grid, and over the channels where ``axis`` is 2, of values that are 0 outside the fluid."""
    if fluid is None:
        return values.flatten(axis).mean(-1)
    count = fluid.to(values.device).flatten(1).sum(1).double()
    count = count.reshape(-1, *(1,) * (axis - 1))
    return values.flatten(axis).sum(-1) / (count * values.shape[2] if axis == 2 else count)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator`` with 0 / 0 = 0: an exact prediction of a zero field has no error."""
    ratio = numerator / denominator
    return ratio.masked_fill((numerator == 0) & (denominator == 0), 0.0)


def mse(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""CFDBench's MSE, :math:`\langle (p - y)^2 \rangle` over channels and grid: ``(batch, time)``.

    In squared units of the fields, so it mixes channels of different units. Luo et al., CFDBench: A
    Large-Scale Benchmark for Machine Learning Methods in Fluid Dynamics, arXiv:2310.05963.
    """
    p, y = _double(prediction, target, fluid)
    return _mean((p - y).square(), 2, fluid)


def mae(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""CFDBench's MAE, :math:`\langle |p - y| \rangle` over channels and grid: ``(batch, time)``.
    arXiv:2310.05963.
    """
    p, y = _double(prediction, target, fluid)
    return _mean((p - y).abs(), 2, fluid)


def nmse(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""CFDBench's NMSE of one sample, :math:`\sum (p - y)^2 / \sum y^2` over channels and grid: ``(batch,
    time)``.

    1 is the score of predicting zero. CFDBench tests with a batch of one, so its table is the mean of these
    numbers over cases and frames. arXiv:2310.05963.
    """
    p, y = _double(prediction, target, fluid)
    return _ratio((p - y).square().flatten(2).sum(-1), y.square().flatten(2).sum(-1))


def relative_l2(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""Relative L2 error :math:`\|p - y\|_2 / \|y\|_2` over channels and grid at each frame: ``(batch,
    time)``.

    On a rollout this is the error curve against the step; it is the square root of ``nmse``.
    Li et al., Fourier Neural Operator for Parametric Partial Differential Equations, arXiv:2010.08895.
    """
    return nmse(prediction, target, fluid).sqrt()


def relative_l1(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""Relative L1 error :math:`\sum |p - y| / \sum |y|` over channels and grid at each frame: ``(batch, time)``.

    Poseidon's measure, there of each field in standardised units and then the median over cases, the mean over fields.
    Herde et al., Poseidon: Efficient Foundation Models for PDEs, arXiv:2405.19101.
    """
    p, y = _double(prediction, target, fluid)
    return _ratio((p - y).abs().flatten(2).sum(-1), y.abs().flatten(2).sum(-1))


def vrmse(prediction: Tensor, target: Tensor, fluid: Tensor | None = None, *, eps: float = 1e-7) -> Tensor:
    r"""The Well's VRMSE, :math:`\sqrt{\langle (p - y)^2 \rangle / (\mathrm{var}(y) + \epsilon)}`: ``(batch,
    time, channels)``.

    Mean and (unbiased) variance over the grid, each channel by itself; 1 is the score of predicting the
    spatial mean. ``eps`` is The Well's: for fields much smaller than its square root (3e-4) it rules the
    denominator and the score flatters, so give fields in units in which they are of order one. A uniform
    target is divided by ``eps`` alone. Ohana et al., The Well: a Large-Scale Collection of Diverse Physics
    Simulations for Machine Learning, arXiv:2412.00568.
    """
    p, y = _double(prediction, target, fluid)
    return (_mean((p - y).square(), 3, fluid) / (_variance(y, fluid) + eps)).sqrt()


def _variance(y: Tensor, fluid: Tensor | None) -> Tensor:
    """Unbiased variance over the grid of values that are 0 outside the fluid, ``(batch, time, channels)``."""
    if fluid is None:
        return y.flatten(3).var(-1, correction=1)
    inside = fluid.to(y.device).flatten(1)
    rest = (y.flatten(3) - _mean(y, 3, fluid).unsqueeze(-1)).masked_fill(~inside[:, None, None], 0.0)
    return rest.square().sum(-1) / (inside.sum(1).double() - 1)[:, None, None]


def nrmse(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""PDEBench's nRMSE, :math:`\sqrt{\langle (p - y)^2 \rangle / \langle y^2 \rangle}` of each channel:
    ``(batch, time, channels)``.

    PDEBench then averages over cases, frames and channels. Where the target is zero PDEBench gives NaN; here
    0 or infinity, as the module says. Takamoto et al., PDEBench: An Extensive Benchmark for Scientific
    Machine Learning, arXiv:2210.07182.
    """
    p, y = _double(prediction, target, fluid)
    return _ratio((p - y).square().flatten(3).sum(-1), y.square().flatten(3).sum(-1)).sqrt()


def max_error(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""PDEBench's maximum error, :math:`\max |p - y|` over the grid, of each channel: ``(batch, time,
    channels)``.

    PDEBench takes the largest over cases as well: ``max_error(p, y).amax(0)``. arXiv:2210.07182.
    """
    p, y = _double(prediction, target, fluid)
    return (p - y).abs().flatten(3).amax(-1)


def relative_divergence(velocity: Tensor, spacing: Tensor, fluid: Tensor | None = None) -> Tensor:
    r"""How far a centred velocity is from divergence-free: ``(batch, time)``.

    :math:`\|\sum_i d_i u_i\| / \sqrt{\sum_i \|d_i u_i\|^2}`

    ``velocity (B, T, D, *grid)`` with one component per grid axis, ``spacing (B, D)`` the cell size along
    each axis. d_i is the central difference over the interior cells, with ``fluid (B, *grid)`` over those of them that
    are in the fluid with all their neighbours. 0 is divergence-free; uncorrelated
    derivatives score 1. The value does not depend on units. A flow that is divergence-free on the faces of a
    MAC grid does not score exactly 0, because averaging to the centres is a smoothing: compare with the score
    of the reference solution. A field at rest scores 0.
    """
    dim = velocity.shape[2]
    if velocity.dim() != dim + 3 or spacing.shape != (velocity.shape[0], dim):
        raise DataError(
            f"velocity {tuple(velocity.shape)} and spacing {tuple(spacing.shape)} do not fit; "
            "expected (batch, time, D, *grid) with D grid axes, and (batch, D)"
        )
    u, total, squares = velocity.double(), 0.0, 0.0
    solid = None if fluid is None else ~_whole_stencils(_checked(fluid, velocity))[:, None]
    for axis in range(dim):
        component = u[:, :, axis]
        for other in range(dim):
            if other != axis:
                component = component.narrow(2 + other, 1, component.shape[2 + other] - 2)
        width = component.shape[2 + axis]
        rise = component.narrow(2 + axis, 2, width - 2) - component.narrow(2 + axis, 0, width - 2)
        derivative = rise / (2 * spacing[:, axis].double().reshape(-1, 1, *(1,) * dim))
        if solid is not None:
            derivative = derivative.masked_fill(solid, 0.0)
        total = total + derivative
        squares = squares + derivative.square()
    return _ratio(total.square().flatten(2).sum(-1), squares.flatten(2).sum(-1)).sqrt()


def _whole_stencils(fluid: Tensor) -> Tensor:
    """The interior cells ``(B, *(n - 2))`` that are in the fluid with both neighbours along every axis."""
    dim = fluid.dim() - 1
    centre = fluid
    for axis in range(dim):
        centre = centre.narrow(1 + axis, 1, fluid.shape[1 + axis] - 2)
    for axis in range(dim):
        beside = fluid
        for other in range(dim):
            if other != axis:
                beside = beside.narrow(1 + other, 1, fluid.shape[1 + other] - 2)
        width = fluid.shape[1 + axis] - 2
        centre = centre & beside.narrow(1 + axis, 0, width) & beside.narrow(1 + axis, 2, width)
    return centre


def radial_spectrum(field: Tensor, lengths: Sequence[float]) -> tuple[Tensor, Tensor]:
    r"""Spectrum of half the square of a periodic field: wave numbers ``(K,)``, densities ``(batch, time, channels,
    K)``.

    :math:`E(k_j) = \frac{1}{2 \Delta k} \sum_{|k| \in [k_j - \Delta k / 2, k_j + \Delta k / 2)} |\hat f_k|^2`,
    with :math:`\hat f` normalised by the number of cells, :math:`k_j = j \Delta k` and :math:`\Delta k = 2 \pi / L`
    of the longest side, in radians per length. Parseval holds: ``(E * dk).sum(-1)`` is half the mean square. Summed
    over the components of a velocity it is the energy spectrum; of a vorticity, the enstrophy spectrum. Shells beyond
    :math:`\pi / h` of the coarsest axis are cut by the corners of the grid.

    ``field (batch, time, channels, *grid)`` on cells of a box of sides ``lengths``.
    """
    dim = field.dim() - 3
    if dim < 1 or len(lengths) != dim or min(lengths) <= 0:
        raise DataError(
            f"field {tuple(field.shape)} and lengths {tuple(lengths)} do not fit; expected (batch, time, channels, "
            "*grid) and one positive length for each grid axis"
        )
    grid = field.shape[3:]
    waves = [
        2 * torch.pi * torch.fft.fftfreq(n, side / n, dtype=torch.float64, device=field.device)
        for n, side in zip(grid, lengths, strict=True)
    ]
    squares = [wave.square() for wave in torch.meshgrid(*waves, indexing="ij")]
    width = 2 * torch.pi / max(lengths)
    shell = (torch.stack(squares).sum(0).sqrt() / width + 0.5).floor().long().flatten()
    coefficients = torch.fft.fftn(field.double(), dim=tuple(range(3, 3 + dim)), norm="forward")
    power = 0.5 * coefficients.abs().square().flatten(3)
    density = power.new_zeros(*power.shape[:3], int(shell.max()) + 1).index_add(3, shell, power) / width
    return width * torch.arange(density.shape[3], dtype=torch.float64, device=field.device), density


def dominant_frequency(series: Tensor, time: Tensor) -> Tensor:
    r"""Frequency of the sinusoid that explains most of the variance of a series: ``(batch,)`` float64, in 1 / unit of
    ``time``.

    The peak of the generalised Lomb-Scargle periodogram: least squares of :math:`a + b \cos \omega t + c \sin \omega
    t` for every frequency from a quarter of a period in the record to half a sample a period, the peak refined until it
    stands still. With its own constant and no need for whole periods or equal steps it is exact for a sampled sinusoid,
    however short. Zechmeister & Kürster, Astron. Astrophys. 496 (2009) 577, arXiv:0901.2573.

    ``series``, ``time (batch, samples)``, the time increasing. NaN where the record holds fewer than 1.5 periods of it
    or fewer than 5 samples, where the sinusoid explains less than half of the variance, and where the series is
    constant to round-off or not finite.
    """
    if series.dim() != 2 or series.shape != time.shape:
        raise DataError(
            f"series {tuple(series.shape)} and time {tuple(time.shape)} do not fit; expected (batch, samples) of both"
        )
    if bool((time.diff(dim=1) <= 0).any()):
        raise DataError("time must increase from sample to sample")
    found = torch.full((len(series),), torch.nan, dtype=torch.float64, device=series.device)
    if series.shape[1] < SAMPLES_AT_LEAST:
        return found
    for case, (values, at) in enumerate(zip(series.double(), time.double(), strict=True)):
        found[case] = _peak_frequency(values, at)
    return found


SAMPLES_AT_LEAST, PERIODS_AT_LEAST, EXPLAINED_AT_LEAST = 5, 1.5, 0.5
"""What ``dominant_frequency`` asks of a record before it calls a peak a frequency."""


def _peak_frequency(values: Tensor, time: Tensor) -> Tensor:
    """``dominant_frequency`` of one record ``(samples,)``."""
    nothing = torch.full((), torch.nan, dtype=torch.float64, device=values.device)
    rest = values - values.mean()
    if not bool(torch.isfinite(values).all()) or bool(rest.abs().max() <= 1e-12 * values.abs().max()):
        return nothing
    length = time[-1] - time[0]
    # In units of a period in the record; between neighbours of the grid the power changes little (16 a peak).
    highest = 0.5 * length / time.diff().median()
    grid = torch.arange(0.25, float(highest), 1 / 16, dtype=torch.float64, device=values.device)
    if not len(grid):
        return nothing
    phase = 2 * torch.pi * ((time - time[0]) / length - 0.5)
    width = 1 / 16
    best = grid[_explained(rest, phase, grid).argmax()]
    for _ in range(6):  # each time a grid 16 times finer around the peak: in the end 1e-9 of a period
        near = best + width * torch.linspace(-1, 1, 33, dtype=torch.float64, device=values.device)
        near = near.clamp(0.25, float(highest))
        power = _explained(rest, phase, near)
        best, width = near[power.argmax()], width / 16
    if best < PERIODS_AT_LEAST or power.max() < EXPLAINED_AT_LEAST:
        return nothing
    return best / length


def _explained(rest: Tensor, phase: Tensor, periods: Tensor) -> Tensor:
    """Share of the variance of ``rest (samples,)``, of mean zero, that a sinusoid with a constant explains, for each
    number of periods ``(F,)``.
    """
    angle = periods.unsqueeze(1) * phase
    cosine, sine = angle.cos(), angle.sin()
    cosine, sine = cosine - cosine.mean(1, keepdim=True), sine - sine.mean(1, keepdim=True)
    cc, ss, cs = cosine.square().sum(1), sine.square().sum(1), (cosine * sine).sum(1)
    yc, ys = cosine @ rest, sine @ rest
    determinant = cc * ss - cs.square()
    power = (ss * yc.square() + cc * ys.square() - 2 * cs * yc * ys) / determinant / rest.square().sum()
    # Where cosine and sine are one function of the samples nothing tells their amplitudes apart.
    return torch.where(determinant > 1e-9 * len(rest) ** 2, power, 0.0)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "mse": mse,
        "nmse": nmse,
        "mae": mae,
        "relative_l2": relative_l2,
        "relative_l1": relative_l1,
        "vrmse": vrmse,
        "nrmse": nrmse,
        "max_error": max_error,
    }
)
"""Every measure by name. Those of ``PER_CHANNEL`` have a channel axis, the others are pooled over channels.
"""

PER_CHANNEL: frozenset[str] = frozenset({"vrmse", "nrmse", "max_error"})


def all_metrics(prediction: Tensor, target: Tensor, fluid: Tensor | None = None) -> dict[str, Tensor]:
    """Every measure of ``METRICS``: name -> ``(batch, time)`` or, for ``PER_CHANNEL``, ``(batch, time,
    channels)``.
    """
    return {name: metric(prediction, target, fluid) for name, metric in METRICS.items()}

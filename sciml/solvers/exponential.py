"""Exponential time differencing of fourth order for stiff diagonal systems, such as a Fourier spectrum.

    d v / dt = L v + N(v),   L diagonal and real

The scheme is ETDRK4 of Cox and Matthews, J. Comput. Phys. 176 (2002) 430; its coefficients are contour integrals
evaluated by the trapezoidal rule, as by Kassam and Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214, so that they keep
all digits where L dt is small. The linear part is exact for any step: only the explicit part limits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.solvers.checks import per_case

STABILITY_LIMIT = 2.8
"""Largest rate * dt of RK4 on the imaginary axis (2 sqrt 2), which ETDRK4 becomes where L = 0."""

LARGEST_COURANT = 2.0

_RECHECK = 25  # steps between two looks at the state (rate, finiteness, resolution)
_CONTOUR_POINTS = 16  # on the upper half of the unit circle; conjugates give the lower half, as L is real


@dataclass(frozen=True, eq=False)
class _Coefficients:
    """What depends on the step size only, each broadcastable to ``(B, C, *k)``."""

    whole: Tensor  # e^{L dt}
    half: Tensor  # e^{L dt / 2}
    stage: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor


class ExponentialSolver:
    """Batched ETDRK4 of spectra ``(B, C, *k)``.

    Args:
        linear: the symbol of L in 1/s, real, not above about 0, broadcastable to ``(B, C, *k)``, with its own B.
        nonlinear: spectrum -> N of the same shape; aliasing errors are its business.
        rate: spectrum -> ``(B,)``: the largest rate of the explicit part in 1/s (for advection
            max sum_i |u_i| k_i with the largest k_i that is kept).
        courant: rate * dt of the steps that ``advance`` chooses, at most 2.
        max_steps: most steps of one ``advance``.
        tail: spectrum -> ``(B,)``: the share of the energy in the highest resolved modes; without it the resolution
            is not checked.
        largest_tail: the share above which the resolution is refused as too coarse.

    Raises ``ConfigError`` for limits that are not positive, or a larger ``courant``.
    """

    def __init__(
        self,
        linear: Tensor,
        nonlinear: Callable[[Tensor], Tensor],
        rate: Callable[[Tensor], Tensor],
        *,
        courant: float = 1.0,
        max_steps: int = 1_000_000,
        tail: Callable[[Tensor], Tensor] | None = None,
        largest_tail: float = 1e-2,
    ) -> None:
        for name, limit in (("courant", courant), ("max_steps", max_steps), ("largest_tail", largest_tail)):
            if not limit > 0:
                raise ConfigError(f"{name} must be positive, got {limit}")
        if courant > LARGEST_COURANT:
            raise ConfigError(
                f"courant is {courant}; at most {LARGEST_COURANT:g} leaves room to the limit of stability"
            )
        self.linear, self.nonlinear, self.rate = linear, nonlinear, rate
        self.courant, self.max_steps = courant, max_steps
        self.tail, self.largest_tail = tail, largest_tail
        self._cached: tuple[Tensor, _Coefficients] | None = None

    def step(self, spectrum: Tensor, dt: Tensor) -> Tensor:
        """One step of ``dt (B,)``; pure, differentiable in the spectrum (and in L and dt)."""
        return self._step(spectrum, self._coefficients(self._per_case("dt", dt, spectrum)))

    def advance(self, spectrum: Tensor, duration: Tensor, steps: int | None = None) -> Tensor:
        """Advance every case by its ``duration (B,)`` in one number of steps for the batch, equal for each case.

        The number follows from the neediest case and is looked at again every 25 steps, which are taken again, smaller,
        where the rate has doubled meanwhile; ``steps`` fixes it.

        Raises ``SolverError`` naming the case: a state that is not finite, a spectrum that the grid does not resolve,
        more than ``max_steps`` steps, or ``steps`` that are too few for stability.
        """
        if steps is not None and steps < 1:
            raise ConfigError(f"steps is {steps}; at least 1 is needed")
        remaining = total = self._per_case("duration", duration, spectrum)
        left, dt, before = 0, None, (spectrum, remaining)
        largest = STABILITY_LIMIT if steps is not None else min(2 * self.courant, STABILITY_LIMIT)
        while True:
            self._check_state(spectrum)
            with torch.no_grad():
                rate = self.rate(spectrum)
            if dt is not None and bool((dt.detach() * rate > largest).any()):
                self._check_fixed_steps(steps, rate, dt, total)
                (spectrum, remaining), dt = before, None  # it sped up: take these steps again, smaller
            elif dt is not None and left == 0:
                return spectrum
            if steps is None:
                needed = self._steps_needed(rate, remaining)
                if dt is None or needed > left or needed < 0.7 * left:
                    left, dt = needed, remaining / needed
            elif dt is None:
                left, dt = steps, remaining / steps
                self._check_fixed_steps(steps, rate, dt, total)
            before = (spectrum, remaining)
            coefficients = self._coefficients(dt)
            burst = min(left, _RECHECK)
            for _ in range(burst):
                spectrum = self._step(spectrum, coefficients)
            left -= burst
            remaining = remaining - burst * dt

    # -------------------------------------------------------------------------------------------------- the scheme

    def _step(self, v: Tensor, c: _Coefficients) -> Tensor:
        n_v = self.nonlinear(v)
        half = c.half * v
        a = half + c.stage * n_v
        n_a = self.nonlinear(a)
        n_b = self.nonlinear(half + c.stage * n_a)
        n_c = self.nonlinear(c.half * a + c.stage * (2 * n_b - n_v))
        return c.whole * v + c.first * n_v + c.middle * (n_a + n_b) + c.last * n_c

    def _coefficients(self, dt: Tensor) -> _Coefficients:
        """Those of the last step size are kept (unless a gradient flows through them)."""
        differentiated = torch.is_grad_enabled() and (dt.requires_grad or self.linear.requires_grad)
        if differentiated:
            return _coefficients(self.linear, dt)
        if self._cached is None or not torch.equal(self._cached[0], dt):
            self._cached = (dt, _coefficients(self.linear, dt))
        return self._cached[1]

    # -------------------------------------------------------------------------------------------------- the checks

    def _steps_needed(self, rate: Tensor, remaining: Tensor) -> int:
        most, case = (value.item() for value in (remaining.detach() * rate / self.courant).double().max(0))
        if most > self.max_steps:
            raise SolverError(
                f"case {case} needs {most:.3g} steps, more than max_steps = {self.max_steps}: its speed or rate is too "
                "large for the grid and the duration, or the solution has become unstable; use a coarser grid, "
                "shorter intervals or a lower courant"
            )
        return max(1, math.ceil(most * (1 - 1e-6)))

    def _check_fixed_steps(self, steps: int | None, rate: Tensor, dt: Tensor, total: Tensor) -> None:
        worst, case = (value.item() for value in (dt.detach() * rate).max(0))
        if steps is not None and worst > STABILITY_LIMIT:
            raise SolverError(
                f"case {case}: steps of {float(dt[case]):.3g} s give rate * dt = {worst:.3g}, above the scheme's limit "
                f"of stability {STABILITY_LIMIT}; take at least {math.ceil(steps * worst / STABILITY_LIMIT)} steps for "
                f"these {float(total[case]):.3g} s, not {steps}"
            )

    def _check_state(self, spectrum: Tensor) -> None:
        with torch.no_grad():
            finite = torch.isfinite(torch.view_as_real(spectrum)).flatten(1).all(1)
            if not bool(finite.all()):
                case = int((~finite).nonzero()[0])
                raise SolverError(
                    f"the solution of case {case} is not finite; check the input, lower courant or refine the grid"
                )
            if self.tail is None:
                return
            share, case = (value.item() for value in self.tail(spectrum).max(0))
        if share > self.largest_tail:
            raise SolverError(
                f"resolution too coarse for case {case}: its highest modes hold {share:.2g} of the energy, "
                f"{self.largest_tail:g} is allowed; use a finer grid, more diffusion or a smoother, weaker initial "
                "field or source"
            )

    def _per_case(self, name: str, values: Tensor, spectrum: Tensor) -> Tensor:
        return per_case(name, values, spectrum.shape[0], dtype=spectrum.real.dtype, device=spectrum.device)


def _coefficients(linear: Tensor, dt: Tensor) -> _Coefficients:
    """The six coefficients, in float64 whatever the precision of the state."""
    step = dt.double().reshape(-1, *(1,) * (linear.ndim - 1))
    exponent = step * linear.double()
    stage, first, middle, last = (torch.zeros_like(exponent) for _ in range(4))
    for point in range(_CONTOUR_POINTS):
        angle = math.pi * (point + 0.5) / _CONTOUR_POINTS
        z = torch.complex(exponent + math.cos(angle), torch.full_like(exponent, math.sin(angle)))
        exp, half, cubed = torch.exp(z), torch.exp(z / 2), z**3
        stage = stage + ((half - 1) / z).real
        first = first + ((-4 - z + exp * (4 - 3 * z + z**2)) / cubed).real
        middle = middle + (2 * (2 + z + exp * (z - 2)) / cubed).real
        last = last + ((-4 - 3 * z - z**2 + exp * (4 - z)) / cubed).real
    scale = step / _CONTOUR_POINTS
    whole, half_step = torch.exp(exponent), torch.exp(exponent / 2)
    values = (whole, half_step, scale * stage, scale * first, scale * middle, scale * last)
    return _Coefficients(*(value.to(dt.dtype) for value in values))

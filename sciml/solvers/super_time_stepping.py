"""Explicit time stepping for diffusion whose stages, not steps, follow the grid: the second-order Runge-Kutta-Legendre
method (Meyer, Balsara and Aslam, J. Comput. Phys. 257 (2014) 594).

s stages take a step of up to (s^2 + s - 2) / 4 explicit steps 2 / rho, rho the largest decay rate, so that a step costs
its square root. For u_t = F(u) with real negative eigenvalues; each case of a batch has its own step and stages, so
that its result does not depend on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.solvers.checks import per_case

Rate = Callable[[Tensor], Tensor]
FEWEST_STAGES = 3
SHORTEST_STEP = 0.5
"""In units of 1 / rho: a quarter of what an explicit Euler step can take, so that a jump does not stop the clock."""


class RungeKuttaLegendre:
    """Solver of u_t = rate(u) for u ``(B, ...)``.

    ``spectral_radius(u) -> (B,)``: a bound on the decay rates over the coming step. ``stages``: of every step, a fixed
    odd number; by default as many as the step needs, up to ``max_stages``. ``scale (B,)``: a typical size of u;
    ``advance`` chooses steps that change no value by more than about ``largest_change`` of it, but none
    shorter than ``SHORTEST_STEP / rho``.

    Raises ``ConfigError`` for a number of stages that is not odd or below 3, or limits that are not positive.
    """

    def __init__(
        self,
        rate: Rate,
        spectral_radius: Rate,
        scale: Tensor | float = 1.0,
        *,
        stages: int | None = None,
        max_stages: int = 41,
        largest_change: float = 0.02,
        max_steps: int = 100_000,
    ) -> None:
        for name, number in (("stages", stages), ("max_stages", max_stages)):
            if number is not None and (number < FEWEST_STAGES or number % 2 == 0):
                raise ConfigError(
                    f"{name} is {number}; expected an odd number from {FEWEST_STAGES} up (an even one does not damp "
                    "the fastest mode)."
                )
        if not largest_change > 0 or max_steps < 1:
            raise ConfigError(f"largest_change is {largest_change}, max_steps {max_steps}; both must be positive.")
        self.rate, self.spectral_radius, self.scale = rate, spectral_radius, scale
        self.stages, self.max_stages = stages, max_stages
        self.largest_change, self.max_steps = largest_change, max_steps

    def step(self, u: Tensor, dt: Tensor | float) -> Tensor:
        """One step of ``dt (B,)``, differentiable in u, dt and what the rate depends on.

        Raises ``SolverError`` naming the case whose step needs more stages than there are.
        """
        dt = _per_case("dt", dt, u)
        return self._step(u, dt, self.rate(u))

    def advance(self, u: Tensor, duration: Tensor | float, steps: int | None = None) -> Tensor:
        """Advance every case by its ``duration (B,)``: in ``steps`` equal steps, or in as many as it needs.

        The sizes of chosen steps are not differentiated through. Raises ``SolverError`` naming the case whose values
        become non-finite, that needs more than ``max_steps`` steps, or whose given steps need too many stages.
        """
        remaining = _per_case("duration", duration, u)
        if steps is not None:
            if steps < 1:
                raise ConfigError(f"steps is {steps}; at least 1 is needed.")
            for _ in range(steps):
                u = self._step(u, remaining / steps, self.rate(u))
            _check_finite(u)
            return u
        for _ in range(self.max_steps):
            rate = self.rate(u)
            dt = self._choose(u, rate, remaining)
            u = self._step(u, dt, rate)
            remaining = remaining - dt
            if not bool((remaining > 0).any()):
                _check_finite(u)
                return u
        case = int(remaining.argmax())
        raise SolverError(
            f"Case {case} has {float(remaining[case]):.3g} s to go after {self.max_steps} steps (max_steps); shorten "
            "the interval, coarsen the grid, or raise max_stages or largest_change."
        )

    def stages_needed(self, u: Tensor, dt: Tensor) -> Tensor:
        """Smallest odd number of stages, at least 3, that is stable for ``dt (B,)``."""
        with torch.no_grad():
            # s^2 + s - 2 >= 2 rho dt; slightly more, for round-off
            needed = 0.5 * (torch.sqrt(9 + 8 * (1 + 1e-5) * self.spectral_radius(u) * dt) - 1)
            odd = 2 * torch.ceil((needed.clamp(min=FEWEST_STAGES) - 1) / 2) + 1
        return odd

    def _choose(self, u: Tensor, rate: Tensor, remaining: Tensor) -> Tensor:
        """The next step ``(B,)``, 0 for a case that is there: limited by stages and by the change of u."""
        with torch.no_grad():
            radius = self.spectral_radius(u)
            stages = self.max_stages if self.stages is None else self.stages
            largest = (stages**2 + stages - 2) / (2 * (1 + 2e-5) * radius)
            speed = rate.flatten(1).abs().amax(1)
            change = self.largest_change * self.scale / speed  # infinite where nothing changes
            wanted = torch.minimum(largest, torch.maximum(change, SHORTEST_STEP / radius))
            wanted = torch.where(torch.isfinite(wanted), wanted, remaining)  # a NaN is found at the end
            # equal steps to the end rather than a short last one
            return remaining / torch.ceil((remaining / wanted) * (1 - 1e-6)).clamp(min=1.0)

    def _step(self, u: Tensor, dt: Tensor, rate: Tensor) -> Tensor:
        needed = self.stages_needed(u, dt)
        most = self._stages_to_take(needed, u)
        stages = needed if self.stages is None else torch.full_like(needed, self.stages)
        w = 4 / (stages**2 + stages - 2)
        first, column = u, (-1, *(1,) * (u.ndim - 1))
        tau = (w * dt).reshape(column)
        older, y = first, first + _weight(1) * tau * rate
        result = y
        for j in range(2, most + 1):
            mu, nu = (2 * j - 1) / j * _weight(j) / _weight(j - 1), -(j - 1) / j * _weight(j) / _weight(j - 2)
            new = mu * y + nu * older + (1 - mu - nu) * first
            new = new + mu * tau * (self.rate(y) - (1 - _weight(j - 1)) * rate)
            older, y = y, new
            result = torch.where((stages == j).reshape(column), y, result)
        return result

    def _stages_to_take(self, needed: Tensor, u: Tensor) -> int:
        available = self.max_stages if self.stages is None else self.stages
        most = float(needed.amax())
        if not math.isfinite(most):
            _check_finite(u)
            raise SolverError(f"The spectral radius of case {int(needed.argmax())} is not finite.")
        if most > available:
            case = int(needed.argmax())
            raise SolverError(
                f"The step of case {case} needs {int(most)} stages and {available} are allowed; take shorter steps or "
                f"raise {'max_stages' if self.stages is None else 'stages'}."
            )
        return int(most) if self.stages is None else self.stages


def _per_case(name: str, values: Tensor | float, u: Tensor) -> Tensor:
    # a number is not rounded to float32 on its way to float64
    values = torch.as_tensor(values, dtype=None if isinstance(values, Tensor) else u.dtype)
    return per_case(name, values, u.shape[0], dtype=u.dtype, device=u.device)


def _weight(j: int) -> float:
    """b_j of the method."""
    return 1 / 3 if j < 2 else (j * j + j - 2) / (2 * j * (j + 1))


def _check_finite(u: Tensor) -> None:
    bad = ~torch.isfinite(u.detach().flatten(1).abs().amax(1))
    if bool(bad.any()):
        raise SolverError(
            f"The solution of case {int(bad.nonzero()[0])} is not finite; check the input, or lower largest_change."
        )

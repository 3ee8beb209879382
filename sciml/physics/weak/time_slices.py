"""Test functions in space at a set of times: weak forms of equations that go on in time.

The square of the dual norm is a mean over the times, a quadrature of int |r(t)|^2 dt / T in the H^-1 norm of each time:
the norm of L2(0, T; H^-1), in which the residual of a parabolic equation measures the error (Evans, Partial
Differential Equations, section 7.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.space import FunctionSpace


class TimeSlices:
    """The test functions of ``space`` at each of ``times (T,)``: J = T n_tests, times first.

    ``points (T Q, d + 1)``: time is the last coordinate; ``dim`` stays d, the components of a flux in space.
    ``share (T,)``: positive shares of the times, which sum to 1 (quadrature weights over the duration), equal by
    default; ``weights (T Q,)`` carry them too. Cheap to make, so that times can be drawn anew for every step. Raises
    ``ConfigError`` for times or shares that are none.
    """

    def __init__(self, space: FunctionSpace, times: Tensor, share: Tensor | None = None) -> None:
        weights = space.weights
        times = torch.as_tensor(times, dtype=weights.dtype, device=weights.device)
        if times.ndim != 1 or len(times) == 0 or not bool(times.isfinite().all()):
            raise ConfigError(f"times have shape {tuple(times.shape)}; expected (T,) finite numbers, one at least")
        share = torch.full_like(times, 1 / len(times)) if share is None else torch.as_tensor(share).to(times)
        if share.shape != times.shape or not bool((share > 0).all()) or abs(float(share.sum()) - 1) > 1e-4:
            raise ConfigError(f"share is {share.tolist()}; expected {len(times)} positive numbers that sum to 1")
        self.space, self.times, self.share, self.dim = space, times, share, space.dim
        column = times.repeat_interleave(len(weights)).unsqueeze(1)
        self.points = torch.cat([space.points.repeat(len(times), 1), column], 1)
        self.weights = (share[:, None] * weights).reshape(-1)
        self.n_tests = len(times) * space.n_tests

    def test(self, flux: Tensor | None, source: Tensor | None) -> Tensor:
        """Residuals ``(B, T n_tests)`` on ``space`` at each time, of ``flux (B, T Q, d)`` and ``source (B, T Q)``."""
        parts = [None if part is None else self._by_time(part, len(self.weights)) for part in (flux, source)]
        return self.space.test(*parts).reshape(-1, self.n_tests)

    def dual_square(self, r: Tensor) -> Tensor:
        """Mean over the times of the squared dual norms ``(B,)`` of ``r (B, T n_tests)``."""
        return self.space.dual_square(self._by_time(r, self.n_tests)).reshape(-1, len(self.times)) @ self.share

    def dual(self, r: Tensor) -> Tensor:
        """Half the gradient of ``dual_square``: K^-1 r of each time by its share, ``(B, T n_tests)``."""
        solved = self.space.dual(self._by_time(r, self.n_tests)).reshape(len(r), len(self.times), -1)
        return (solved * self.share[:, None]).flatten(1)

    def _by_time(self, value: Tensor, n: int) -> Tensor:
        """``(B, T n, ...)`` as ``(B T, n, ...)``."""
        if value.ndim < 2 or value.shape[1] != n:
            raise DataError(f"a tensor of shape {tuple(value.shape)} does not fit; expected (B, {n}, ...)")
        return value.reshape(-1, n // len(self.times), *value.shape[2:])

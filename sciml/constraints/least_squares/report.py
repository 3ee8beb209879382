"""What a least-squares solve is told and what it says about itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from sciml.errors import ConfigError


class LeastSquaresWarning(UserWarning):
    """Some problems of a batch were not solved, or their gradient is not to be had."""


class GaussNewtonWarning(UserWarning):
    """The Gauss-Newton gradient was asked for where the curvature of the residual is not negligible."""


class Status(IntEnum):
    """How the iteration of one problem ended."""

    GRADIENT = 0
    """Converged: the gradient is zero beside Jacobian times residual."""
    STEP = 1
    """Converged: the step is negligible beside the weights."""
    COST = 2
    """Converged: the cost no longer falls."""
    MAX_ITERATIONS = 3
    STALLED = 4
    """No step lowers the cost although the damping is at its limit."""
    NONFINITE = 5
    """The residual or its Jacobian is not finite at the last accepted weights."""

    @property
    def converged(self) -> bool:
        return self <= Status.COST

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS = {
    Status.GRADIENT: "converged (gradient)",
    Status.STEP: "converged (step)",
    Status.COST: "converged (cost)",
    Status.MAX_ITERATIONS: "not converged in the iterations allowed",
    Status.STALLED: "stalled: no step lowers the cost",
    Status.NONFINITE: "residual or Jacobian not finite",
}


@dataclass(frozen=True)
class Options:
    """How long and how exactly to iterate; all tolerances are relative and dimensionless.

    Attributes:
        max_iterations: of Levenberg-Marquardt.
        gradient_tolerance: stop when max_i |g_i| / sqrt(D_i) falls below this fraction of |r|.
        step_tolerance: stop when the step is this fraction of the weights, both in the norm sqrt(w' D w).
        cost_tolerance: stop when the cost falls, in fact and as predicted, by less than this fraction.
        damping: lambda of the first step, as a fraction of D, the diagonal of J'J.
        max_damping: where an item counts as stalled.
        polish: Newton steps with the full Hessian after the iteration, where a gradient is wanted.
        stationarity: a Newton step that stays longer than this fraction of the weights after polishing means that the
            weights are no stationary point: the item gets no gradient.
        check_every: steps between two looks at how many items are still active; None: 1 on the CPU, 4 elsewhere,
            where each look waits for the device.
    """

    max_iterations: int = 100
    gradient_tolerance: float = 1e-10
    step_tolerance: float = 1e-10
    cost_tolerance: float = 1e-12
    damping: float = 1e-3
    max_damping: float = 1e16
    polish: int = 3
    stationarity: float = 1e-6
    check_every: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "gradient_tolerance",
            "step_tolerance",
            "cost_tolerance",
            "damping",
            "max_damping",
            "stationarity",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be positive and finite.")
        for name, least in (("max_iterations", 1), ("polish", 0), ("check_every", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < least):
                raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}.")


@dataclass(frozen=True, eq=False)
class Report:
    """What became of each problem. All tensors are ``(P,)``, or ``(P, K)`` where the K tiles were solved one by one.

    Attributes:
        status: codes of ``Status``.
        iterations: Levenberg-Marquardt steps tried.
        cost: half the sum of the squares of all rows, the ridge included.
        residual_norm: Euclidean norm of all rows but the ridge.
        gradient_norm: |J'r|, the distance from stationarity, after polishing.
        newton_step: length of the Newton step that remains, as a fraction of the weights: about the relative error of
            the weights, and of the gradient through them. NaN where it was not asked for (gradient "none").
        condition: estimated condition number of the column-scaled Jacobian, ridge included; inf: singular to working
            precision.
        deficient: the weakest direction of the weights is determined by the ridge and not by the rows: the basis is
            rank-deficient on these rows. The residual is not affected, single weights mean nothing.
        zero_gradient: the backward pass sends zero for this item, because it is not a stationary point or its Hessian
            is singular. All False where no gradient was wanted.
    """

    status: Tensor
    iterations: Tensor
    cost: Tensor
    residual_norm: Tensor
    gradient_norm: Tensor
    newton_step: Tensor
    condition: Tensor
    deficient: Tensor
    zero_gradient: Tensor

    @property
    def failed(self) -> Tensor:
        """Which items did not converge, bool."""
        return self.status > int(Status.COST)

    @property
    def n_failed(self) -> int:
        """How many items did not converge."""
        return int(self.failed.sum())

    @property
    def n_zero_gradient(self) -> int:
        """How many items get a zero gradient."""
        return int(self.zero_gradient.sum())

    @property
    def n_deficient(self) -> int:
        """How many items have a rank-deficient basis."""
        return int(self.deficient.sum())

    def name(self, item: int) -> str:
        """Item of the flattened batch in words: "problem 3" or "problem 3, tile 1"."""
        if self.status.ndim == 1:
            return f"problem {item}"
        return "problem {}, tile {}".format(*divmod(item, self.status.shape[1]))

    def trouble(self) -> str:
        """What went wrong, with counts and the first item of each kind; empty if nothing did."""
        parts = []
        codes = self.status.flatten().tolist()
        for code, count in sorted(Counter(codes).items()):
            status = Status(code)
            if not status.converged:
                parts.append(f"{count} {status.words} (first: {self.name(codes.index(code))})")
        stuck = (self.zero_gradient & ~self.failed).flatten()
        if bool(stuck.any()):
            first = int(torch.nonzero(stuck)[0])
            parts.append(
                f"{int(stuck.sum())} converged to where the Hessian is singular or the gradient not zero "
                f"(first: {self.name(first)}, Newton step {float(self.newton_step.flatten()[first]):.1e})"
            )
        if not parts:
            return ""
        text = f"of {self.status.numel()} least-squares problems: " + "; ".join(parts)
        return text + (f"; {self.n_zero_gradient} get a zero gradient" if self.n_zero_gradient else "")

"""What the iteration asks of a least-squares problem, and the problem of any function.

A problem is a batch of I independent ones of n unknowns: minimise f(w) = |rows(w)|^2 / 2 for each. Its ``parameters``
are the tensors that gradients flow to, in the user's shapes and types; ``prepare`` turns them, differentiably, into
float64 data whose first dimension is the item, and every other method is a function of ``w (I, n)`` and such data, so
that converged items can be left out and the backward pass can run on copies.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.constraints.least_squares.linear import BlockBanded
from sciml.errors import ConfigError, DataError

COLUMN_ENTRIES = 2**24
"""Forward-mode columns are made in chunks of at most this many numbers (128 MB in float64)."""


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The rows and their derivatives at one w.

    ``cost (I,)``: f; ``gradient (I, n)``: J'r; ``matrix``: J'J; ``jacobian(index)``: J ``(I', R, n)`` and r ``(I', R)``
    of some items as dense matrices.
    """

    cost: Tensor
    gradient: Tensor
    matrix: BlockBanded
    jacobian: Callable[[Tensor], tuple[Tensor, Tensor]]


class Problem(ABC):
    """A batch of independent least-squares problems."""

    parameters: tuple[Tensor, ...]
    ridge: float
    dtype: torch.dtype | None = None
    """Of the weights that are returned; None: that of the start."""

    @abstractmethod
    def pack(self, start: Tensor) -> Tensor:
        """Weights of the user's shape as ``(I, n)``. Raises ``DataError`` for a wrong shape."""

    @abstractmethod
    def unpack(self, w: Tensor) -> Tensor:
        """``(I, n)`` in the user's shape."""

    @abstractmethod
    def item_shape(self, items: int) -> tuple[int, ...]:
        """The shape of what is reported for each item."""

    @abstractmethod
    def prepare(self, *parameters: Tensor) -> Any:
        """float64 data, first dimension the item, differentiable in ``parameters``."""

    def prepare_solve(self, data: Any) -> Any:
        """The same with whatever saves time in the iteration."""
        return data

    @abstractmethod
    def select(self, data: Any, index: Tensor) -> Any:
        """The data of these items."""

    @abstractmethod
    def rows(self, w: Tensor, data: Any) -> Tensor:
        """All rows ``(I, R)``, the ridge's last, differentiable in w and data."""

    @abstractmethod
    def linearise(self, w: Tensor, data: Any) -> Linearisation:
        """Rows, gradient and J'J at w; no graph."""

    @abstractmethod
    def curvature(self, w: Tensor, data: Any) -> BlockBanded:
        """sum_i r_i Hess(r_i), what the Gauss-Newton matrix lacks; no graph."""

    def cost(self, w: Tensor, data: Any) -> Tensor:
        """f, ``(I,)``."""
        return 0.5 * self.rows(w, data).square().sum(1)


class GenericProblem(Problem):
    """Rows that are any function of the weights: ``function(w (P, size), *theta) -> (P, M)``, problem by problem.

    Row p may depend on ``w[p]`` only. Every tensor in ``theta`` has first dimension P, or 1 where all problems share
    it, and gradients flow to it; ``function`` is called with fewer problems once some have converged, so it must not
    use other tensors of first dimension P, nor trainable ones that are not in ``theta``.

    The Jacobian is made by forward-mode columns: one column of all P problems at once, since they are independent,
    columns in chunks by ``vmap``. Reverse mode would need one pass a row.

    Args:
        function: as above, of torch operations that ``torch.func.jvp`` and ``vmap`` know.
        theta: tensors.
        size: number of weights of each problem.
        ridge: contributes the rows sqrt(ridge) w.

    Raises ``ConfigError`` for a size below 1 or a negative ridge, ``DataError`` for wrong shapes.
    """

    def __init__(
        self, function: Callable[..., Tensor], theta: tuple[Tensor, ...], size: int, *, ridge: float = 0.0
    ) -> None:
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"size is {size!r}; a problem has a whole number of weights, at least 1.")
        self.function, self.size = function, size
        self.ridge = check_ridge(ridge)
        self.parameters = tuple(theta)
        self._items: int | None = None

    def pack(self, start: Tensor) -> Tensor:
        if start.ndim != 2 or start.shape[1] != self.size:
            raise DataError(f"start has the shape {tuple(start.shape)}; expected (P, {self.size}).")
        for position, tensor in enumerate(self.parameters):
            if tensor.ndim and tensor.shape[0] not in (1, start.shape[0]):
                raise DataError(
                    f"theta[{position}] has the shape {tuple(tensor.shape)}; its first dimension must be that of "
                    f"start, {start.shape[0]}, or 1 where all problems share it (write theta[None])."
                )
        return start

    def unpack(self, w: Tensor) -> Tensor:
        return w

    def item_shape(self, items: int) -> tuple[int, ...]:
        return (items,)

    def prepare(self, *parameters: Tensor) -> tuple[Tensor, ...]:
        return tuple(in_float64(tensor) for tensor in parameters)

    def select(self, data: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, ...]:
        return tuple(take(tensor, index) for tensor in data)

    def rows(self, w: Tensor, data: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([self._residual(w, data), self.ridge**0.5 * w], 1) if self.ridge else self._residual(w, data)

    def linearise(self, w: Tensor, data: tuple[Tensor, ...]) -> Linearisation:
        r = self.rows(w, data)
        jacobian = columns(lambda x: self.rows(x, data), w, r.shape[1])
        return Linearisation(
            0.5 * r.square().sum(1),
            (r[:, None] @ jacobian)[:, 0],
            BlockBanded((jacobian.mT @ jacobian)[:, None, None]),
            lambda index: (jacobian[index], r[index]),
        )

    def curvature(self, w: Tensor, data: tuple[Tensor, ...]) -> BlockBanded:
        r = self._residual(w, data)
        slope = torch.func.grad(lambda x: (r * self._residual(x, data)).sum())
        second = columns(slope, w, self.size)
        return BlockBanded((0.5 * (second + second.mT))[:, None, None])

    def _residual(self, w: Tensor, data: tuple[Tensor, ...]) -> Tensor:
        r = self.function(w, *data)
        if r.ndim != 2 or r.shape[0] != w.shape[0]:
            raise DataError(
                f"function returned the shape {tuple(r.shape)} for {w.shape[0]} problems; expected (P, M). It is "
                "called with fewer problems once some have converged: what belongs to single problems goes into theta."
            )
        return r


def columns(function: Callable[[Tensor], Tensor], w: Tensor, n_rows: int) -> Tensor:
    """The Jacobian ``(I, R, n)`` of independent problems ``function: (I, n) -> (I, R)`` by forward-mode columns."""
    items, size = w.shape
    seeds = torch.eye(size, dtype=w.dtype, device=w.device)
    chunk = max(1, min(size, COLUMN_ENTRIES // max(1, items * n_rows)))

    def column(seed: Tensor) -> Tensor:
        return torch.func.jvp(function, (w,), (seed.expand(items, size),))[1]

    with warnings.catch_warnings():
        # torch loads its forward-mode formulas at the first use, and warns of its own use of torch.jit.script.
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        parts = [torch.func.vmap(column)(part) for part in seeds.split(chunk)]
    return torch.cat(parts).movedim(0, 2)


def take(tensor: Tensor, index: Tensor) -> Tensor:
    """Some items of a tensor whose first dimension is the item, or 1 where all share it."""
    return tensor if tensor.ndim == 0 or tensor.shape[0] == 1 else tensor[index]


def in_float64(tensor: Tensor) -> Tensor:
    """Floating-point tensors in float64, others (masks, indices) as they are."""
    return tensor.double() if tensor.is_floating_point() else tensor


def check_ridge(ridge: float) -> float:
    """The ridge as a number. Raises ``ConfigError`` unless finite and not negative."""
    if not 0 <= float(ridge) < float("inf"):
        raise ConfigError(f"ridge is {ridge}; expected a finite number that is not negative, e.g. 1e-8.")
    return float(ridge)

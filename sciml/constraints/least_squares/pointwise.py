"""Residuals that are pointwise in linear terms of the weights, on tiles.

r = g(T_1, ..., T_J) with T_j = A_j w at M points of each tile, A_j the values of a linear term (u, u_t, u_xx ...) of
the N basis functions. g acts point by point, so one reverse pass of g gives all dg/dT_j and the Jacobian is sum_j
diag(dg/dT_j) A_j: no tangent of the basis is ever propagated. The second derivatives, one pass for each T_j, give
sum_jk A_j' diag(r d2g/dT_j dT_k) A_k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciml.collectives import (
    Group,
    combined,
    gather,
    own_share,
    rank_of,
    share_sizes,
    shared,
    size_of,
    spread,
    summed,
)
from sciml.constraints.least_squares.linear import BlockBanded
from sciml.constraints.least_squares.problem import Linearisation, Problem, check_ridge, in_float64, take
from sciml.constraints.least_squares.rows import LinearRows, coupling
from sciml.errors import ConfigError, DataError

Pointwise = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class _Data:
    """``terms``: J of ``(I, K, M, N)``; ``coefficients``: broadcastable to ``(I, K, M)``; ``linear``: further rows."""

    terms: tuple[Tensor, ...]
    coefficients: tuple[Tensor, ...]
    linear: LinearRows | None


class PointwiseProblem(Problem):
    """P problems of K tiles with N weights each: rows pointwise in linear terms, linear rows, and a ridge.

    Minimises |function(A_1 w, ..., A_J w)|^2 + |C w - d|^2 + ridge |w|^2 over w ``(P, K N)`` (tile by tile). Without
    ``rows`` the tiles have nothing to do with one another: they are solved as P K problems, each with its own damping
    and stop, and what is reported is ``(P, K)``. With ``rows`` the K tiles are one problem, reported as ``(P,)``. (Rows
    for each tile alone: give the tiles as problems, ``(P K, 1, M, N)``.) The coupled matrix is block-banded if the
    rows couple neighbours in some order of the tiles, else dense.

    Args:
        terms: J tensors ``(P, K, M, N)`` of one shape: linear term j of basis function n at point m of tile k.
        function: ``function(values, *coefficients) -> (P, K, M)`` with ``values`` J tensors ``(P, K, M)``; row m may
            depend on values at m only. It sees fewer problems once some have converged and, without ``rows``, shapes
            ``(P K, 1, M)``: what differs from point to point must come in as a coefficient, and so must whatever
            gradients are wanted of.
        coefficients: tensors broadcastable to ``(P, K, M)`` which gradients flow to.
        rows: C ``(P, L, K N)`` and d ``(P, L)``, or None.
        ridge: of the weights; 0 is allowed where there are at least as many rows as weights.
        common: one set of weights for all K tiles, ``(P, N)``, and ``rows`` of those: the tiles only divide the points.
        group, tiles: ranks that share the K = ``tiles`` tiles, coupled or with common weights, of every problem. A rank
            gives the terms of its own tiles (``own_share``) and coefficients that broadcast to those; rows, start and
            weights are those of all, on every rank. The blocks of J'J are gathered and every rank takes the same step.
            Gradients of terms and coefficients are those of the own tiles: of what the ranks have in common (a
            coefficient of the whole equation, a basis that every rank has) pass ``collectives.shared``.

    Raises ``DataError`` for wrong shapes, ``ConfigError`` for a negative ridge or one that is missing where the rows
    cannot determine the weights.
    """

    def __init__(
        self,
        terms: Sequence[Tensor],
        function: Pointwise,
        coefficients: Sequence[Tensor | float] = (),
        rows: tuple[Tensor, Tensor] | None = None,
        ridge: float = 1e-8,
        common: bool = False,
        group: Group = None,
        tiles: int | None = None,
    ) -> None:
        terms = tuple(terms)
        _check_terms(terms)
        self.group, self.common = None if size_of(group) == 1 else group, common
        self.function = function
        self.ridge = check_ridge(ridge)
        p, self.count, m, n = _whole_shape(terms[0].shape, common or rows is not None, self.group, tiles)
        self.shape = torch.Size((p, 1, self.count * m, n) if common else (p, self.count, m, n))
        self.dtype = terms[0].dtype
        device = terms[0].device
        coefficients = tuple(torch.as_tensor(c, device=device) for c in coefficients)
        for position, coefficient in enumerate(coefficients):
            _check_coefficient(position, coefficient, terms[0].shape)
        if rows is not None:
            _check_rows(rows, self.shape)
        p, k, m, n = self.shape
        n_rows, n_weights = (m, n) if rows is None else (k * m + rows[1].shape[1], k * n)
        if self.ridge == 0 and n_rows < n_weights:
            raise ConfigError(
                f"{n_rows} rows cannot determine {n_weights} weights and ridge is 0; give more points or a ridge > 0."
            )
        self.n_terms, self.n_coefficients = len(terms), len(coefficients)
        self.parameters = (*terms, *coefficients, *(() if rows is None else rows))
        self.coupling = None if rows is None else coupling(rows[0].reshape(p, -1, k, n))

    def pack(self, start: Tensor) -> Tensor:
        p, k, _, n = self.shape
        if start.shape != (p, k * n):
            raise DataError(f"start has the shape {tuple(start.shape)}; expected {(p, k * n)}: (P, K N).")
        if self.coupling is None:
            return start.reshape(p * k, n)
        return self._ordered(start.reshape(p, k, n), 1).flatten(1)

    def unpack(self, w: Tensor) -> Tensor:
        p, k, _, n = self.shape
        return self._natural(w.reshape(p, k, n)).flatten(1)

    def item_shape(self, items: int) -> tuple[int, ...]:
        apart = self.coupling is None and not self.common
        return tuple(self.shape[:2]) if apart else (self.shape[0],)

    def prepare(self, *parameters: Tensor) -> _Data:
        p, k, m, n = self.shape
        parameters = tuple(in_float64(tensor) for tensor in parameters)
        end = self.n_terms + self.n_coefficients
        terms, coefficients = parameters[: self.n_terms], parameters[self.n_terms : end]
        coefficients = tuple(c.reshape(*(1,) * (3 - c.ndim), *c.shape) for c in coefficients)
        if self.coupling is None and not self.common:
            terms = tuple(term.reshape(p * k, 1, m, n) for term in terms)
            return _Data(terms, tuple(_by_tile(c, p, k) for c in coefficients), None)
        linear = None
        if self.coupling is not None:
            matrix, target = parameters[end:]
            linear = LinearRows(self._ordered(matrix.reshape(p, -1, k, n), 2), target)
        return _Data(
            tuple(self._placed(term) for term in terms),
            tuple(c if c.shape[1] == 1 else self._placed(c) for c in coefficients),
            linear,
        )

    def prepare_solve(self, data: _Data) -> _Data:
        if data.linear is None or self.coupling is None:
            return data
        return replace(data, linear=data.linear.prepared(self.coupling))

    def select(self, data: _Data, index: Tensor) -> _Data:
        return _Data(
            tuple(term[index] for term in data.terms),
            tuple(take(c, index) for c in data.coefficients),
            None if data.linear is None else data.linear.select(index),
        )

    def rows(self, w: Tensor, data: _Data) -> Tensor:
        tiles = self._tiles(w)
        parts = [self._every(self._residual(_values(self._own(tiles, data), data), data)).flatten(1)]
        if data.linear is not None:
            parts.append(data.linear.residual(tiles))
        if self.ridge:
            parts.append(self.ridge**0.5 * w)
        return torch.cat(parts, 1)

    def cost(self, w: Tensor, data: _Data) -> Tensor:
        tiles = self._tiles(w)
        own = self._own(tiles, data)
        (squares,) = self._assembled(lambda: (self._residual(_values(own, data), data).square().sum(2),), w, ())
        total = squares.sum(1) + self.ridge * w.square().sum(1)
        return 0.5 * (total if data.linear is None else total + data.linear.residual(tiles).square().sum(1))

    def linearise(self, w: Tensor, data: _Data) -> Linearisation:
        tiles = self._tiles(w)
        own = self._own(tiles, data)
        local: list[Tensor] = []

        def normal_equations() -> tuple[Tensor, ...]:
            r, jacobian = self.jacobian(own, data)
            local.extend((jacobian, r))
            return r.square().sum(2), (r[:, :, None] @ jacobian)[:, :, 0], jacobian.mT @ jacobian

        n = tiles.shape[2]
        squares, gradient, gram = self._assembled(normal_equations, w, (), (n,), (n, n))
        gradient = gradient + self.ridge * tiles
        cost = squares.sum(1) + self.ridge * w.square().sum(1)
        extra = None
        if data.linear is not None:
            extra = data.linear.residual(tiles)
            gradient = gradient + data.linear.transpose(extra, tiles.shape[1])
            cost = cost + extra.square().sum(1)
        blocks = self._blocks(gram, None if data.linear is None else data.linear.gram)
        blocks[:, :, 0].diagonal(dim1=-2, dim2=-1).add_(self.ridge)

        def dense(index: Tensor) -> tuple[Tensor, Tensor]:
            every = [self._every(part[index]) for part in local]
            if self.common:
                every = [part.flatten(1, 2).unsqueeze(1) for part in every]
            return self._dense_jacobian(index, *every, data.linear, extra, w)

        return Linearisation(0.5 * cost, gradient.flatten(1), BlockBanded(blocks), dense)

    def curvature(self, w: Tensor, data: _Data) -> BlockBanded:
        own, n = self._own(self._tiles(w), data), self.shape[3]
        (gram,) = self._assembled(lambda: (self._second_order(own, data),), w, (n, n))
        return BlockBanded(self._blocks(gram, None))

    def jacobian(self, tiles: Tensor, data: _Data) -> tuple[Tensor, Tensor]:
        """r ``(I, K, M)`` and J ``(I, K, M, N)`` of tiles ``(I, K, N)``."""
        values = _values(tiles, data)
        with torch.enable_grad():
            values = tuple(value.requires_grad_() for value in values)
            r = self._residual(values, data)
            slopes = _derivatives(r, values, create_graph=False)
        jacobian = slopes[0][..., None] * data.terms[0]
        for slope, term in zip(slopes[1:], data.terms[1:], strict=True):
            jacobian.addcmul_(slope[..., None], term)
        return r.detach(), jacobian

    def _second_order(self, tiles: Tensor, data: _Data) -> Tensor:
        """sum_m r_m Hess(r_m) ``(I, K, N, N)`` of tiles ``(I, K, N)``."""
        values = _values(tiles, data)
        with torch.enable_grad():
            values = tuple(value.requires_grad_() for value in values)
            r = self._residual(values, data)
            weighted = _derivatives(r, values, weight=r.detach(), create_graph=True)
            seconds = [_derivatives(slope, values, create_graph=False) for slope in weighted]
        gram = None
        for term, second in zip(data.terms, seconds, strict=True):
            mixed = sum(h[..., None] * other for h, other in zip(second, data.terms, strict=True))
            part = term.mT @ mixed
            gram = part if gram is None else gram + part
        return 0.5 * (gram + gram.mT)

    def _residual(self, values: tuple[Tensor, ...], data: _Data) -> Tensor:
        r = self.function(values, *data.coefficients)
        if r.shape != values[0].shape:
            raise DataError(
                f"function returned the shape {tuple(r.shape)} for values of shape {tuple(values[0].shape)}; expected "
                "one row a point. Tensors that differ between points or problems must be given as coefficients."
            )
        return r

    def _blocks(self, gram: Tensor, linear: Tensor | None) -> Tensor:
        """``gram (I, K, N, N)`` on the diagonal of the matrix's blocks, C'C added."""
        if self.coupling is None:
            return gram[:, :, None]
        items, k, n, _ = gram.shape
        if self.coupling.bandwidth is None:
            blocks = gram.new_zeros(items, 1, 1, k * n, k * n) if linear is None else linear.clone()
            blocks.view(items, k, n, k, n).diagonal(dim1=1, dim2=3).add_(gram.permute(0, 2, 3, 1))
            return blocks
        if linear is None:
            return torch.nn.functional.pad(gram[:, :, None], (0, 0, 0, 0, 0, self.coupling.bandwidth))
        blocks = linear.clone()
        blocks[:, :, 0] += gram
        return blocks

    def _dense_jacobian(
        self, index: Tensor, jacobian: Tensor, r: Tensor, linear: LinearRows | None, extra: Tensor | None, w: Tensor
    ) -> tuple[Tensor, Tensor]:
        w = w[index]
        items, k, m, n = jacobian.shape
        full = jacobian.new_zeros(items, k, m, k, n)
        full.diagonal(dim1=1, dim2=3).copy_(jacobian.permute(0, 2, 3, 1))
        matrices, rows = [full.reshape(items, k * m, k * n)], [r.flatten(1)]
        if linear is not None and extra is not None:
            matrices.append(linear.select(index).dense(k))
            rows.append(extra[index])
        if self.ridge:
            identity = torch.eye(k * n, dtype=w.dtype, device=w.device)
            matrices.append((self.ridge**0.5 * identity).expand(items, -1, -1))
            rows.append(self.ridge**0.5 * w)
        return torch.cat(matrices, 1), torch.cat(rows, 1)

    def _tiles(self, w: Tensor) -> Tensor:
        """w ``(I, n)`` tile by tile, ``(I, K, N)``."""
        return w.unflatten(1, (1 if self.coupling is None else self.shape[1], self.shape[3]))

    def _own(self, tiles: Tensor, data: _Data) -> Tensor:
        """The weights of the tiles that this rank works on, in their natural order, of all in the matrix's."""
        if self.common:
            return shared(tiles, self.group).expand(-1, data.terms[0].shape[1], -1)
        return tiles if self.group is None else spread(self._natural(tiles), 1, self.group)

    def _every(self, tiles: Tensor) -> Tensor:
        """All tiles, in the matrix's order, of what every rank has computed for its own."""
        return tiles if self.group is None else self._ordered(gather(tiles, 1, self.count, self.group), 1)

    def _assembled(
        self, function: Callable[[], tuple[Tensor, ...]], w: Tensor, *shapes: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        """What ``function()`` computes for this rank's tiles, ``(I, K_own, *shape)`` for each shape, of all tiles:
        ``(I, K, *shape)`` or, where weights are common, the sum over the tiles ``(I, 1, *shape)``; in one message."""

        def own() -> tuple[Tensor, ...]:
            return tuple(part.sum(1, keepdim=True) for part in function()) if self.common else function()

        if self.group is None:
            return own()
        tiles = 1 if self.common else share_sizes(self.count, self.group)[rank_of(self.group)]
        sizes = [math.prod(shape) for shape in shapes]
        every = combined(
            lambda: torch.cat([part.reshape(len(w), tiles, -1) for part in own()], 2),
            (lambda x: summed(x, self.group)) if self.common else self._every,
            w.new_zeros(len(w), tiles, sum(sizes)),
            self.group,
        )
        parts = zip(every.split(sizes, 2), shapes, strict=True)
        return tuple(part.reshape(*part.shape[:2], *shape) for part, shape in parts)

    def _placed(self, tensor: Tensor) -> Tensor:
        """Tiles in the matrix's order, or this rank's own as they are."""
        return tensor if self.group is not None else self._ordered(tensor, 1)

    def _natural(self, tiles: Tensor) -> Tensor:
        if self.coupling is None or self.coupling.natural:
            return tiles
        return tiles[:, torch.argsort(torch.tensor(self.coupling.order, device=tiles.device))]

    def _ordered(self, tensor: Tensor, dim: int) -> Tensor:
        if self.coupling is None or self.coupling.natural:
            return tensor
        return tensor.index_select(dim, torch.tensor(self.coupling.order, device=tensor.device))


def _values(tiles: Tensor, data: _Data) -> tuple[Tensor, ...]:
    """A_j w, ``(I, K, M)`` each."""
    return tuple((term @ tiles[..., None])[..., 0] for term in data.terms)


def _derivatives(
    result: Tensor, values: tuple[Tensor, ...], weight: Tensor | None = None, *, create_graph: bool
) -> tuple[Tensor, ...]:
    """d result / d value at every point, times weight; zero where there is no dependence."""
    if not result.requires_grad:
        return tuple(torch.zeros_like(value) for value in values)
    weight = torch.ones_like(result) if weight is None else weight
    return torch.autograd.grad(
        result, values, weight, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )


def _whole_shape(shape: torch.Size, together: bool, group: Group, tiles: int | None) -> torch.Size:
    """(P, K, M, N) of all ranks' tiles together, from that of this rank's."""
    if group is None:
        return shape
    if not together or tiles is None:
        raise ConfigError(
            "a group shares tiles that rows couple, or with common weights, and has to be told how many there are; "
            "tiles that have nothing to do with one another are solved on each rank alone (least_squares_of_shares)"
        )
    own = own_share(tiles, group)
    if shape[1] != own.stop - own.start:
        raise DataError(
            f"terms are those of {shape[1]} tiles; this rank's are {own.start} to {own.stop - 1} of {tiles}."
        )
    return torch.Size((shape[0], tiles, *shape[2:]))


def _by_tile(coefficient: Tensor, p: int, k: int) -> Tensor:
    """``(P or 1, K or 1, M or 1)`` as ``(P K or 1, 1, M or 1)``."""
    if coefficient.shape[:2] == (1, 1):
        return coefficient
    return coefficient.expand(p, k, -1).reshape(p * k, 1, -1)


def _check_terms(terms: tuple[Tensor, ...]) -> None:
    if not terms:
        raise DataError("terms is empty; expected at least one tensor (P, K, M, N).")
    for position, term in enumerate(terms):
        if term.ndim != 4 or term.shape != terms[0].shape or not term.is_floating_point() or not term.numel():
            raise DataError(
                f"terms[{position}] has the shape {tuple(term.shape)} ({term.dtype}); expected a floating-point tensor "
                f"(P, K, M, N) like terms[0], {tuple(terms[0].shape)}."
            )


def _check_coefficient(position: int, coefficient: Tensor, shape: torch.Size) -> None:
    try:
        fits = torch.broadcast_shapes(coefficient.shape, shape[:3]) == shape[:3]
    except RuntimeError:
        fits = False
    if not fits:
        raise DataError(
            f"coefficients[{position}] has the shape {tuple(coefficient.shape)}; expected one that broadcasts to "
            f"(P, K, M) = {tuple(shape[:3])}."
        )


def _check_rows(rows: tuple[Tensor, Tensor], shape: torch.Size) -> None:
    p, k, _, n = shape
    matrix, target = rows
    if matrix.ndim != 3 or matrix.shape[::2] != (p, k * n) or target.shape != matrix.shape[:2]:
        raise DataError(
            f"rows have the shapes {tuple(matrix.shape)} and {tuple(target.shape)}; expected (P, L, K N) = "
            f"({p}, L, {k * n}) and (P, L)."
        )

"""What a weak form needs of a space of test functions."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class FunctionSpace(Protocol):
    """A space of J test functions v_j, e.g. ``HatSpace`` and ``WendlandSpace``.

    ``dim``: components of a flux; ``points (Q, ...)``: where fluxes and sources are wanted; ``weights (Q,)``: of
    integrals over the domain; ``n_tests``: J. ``test(flux (B, Q, dim), source (B, Q))`` gives the residuals r_j = int
    flux . grad v_j + source v_j, ``(B, J)``; with K_ij the energy product of v_i and v_j, ``dual(r)`` is K^-1 r ``(B,
    J)`` and ``dual_square(r)`` r^T K^-1 r ``(B,)``, the square of the dual norm on this space.
    """

    @property
    def dim(self) -> int: ...
    @property
    def points(self) -> Tensor: ...
    @property
    def weights(self) -> Tensor: ...
    @property
    def n_tests(self) -> int: ...
    def test(self, flux: Tensor | None, source: Tensor | None) -> Tensor: ...
    def dual(self, r: Tensor) -> Tensor: ...
    def dual_square(self, r: Tensor) -> Tensor: ...

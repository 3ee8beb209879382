"""A Poisson solver for the box with solid blocks in it: fast diagonalisation and a small dense correction.

The fast solver knows boxes only. That nothing flows through the closed faces of a solid is K linear conditions more:
with the extra flux lambda on these faces, L p = f + D lambda and lambda = G p, so (I - G L^-1 D) lambda = G L^-1 f
(the Woodbury formula, or capacitance matrix: Buzbee, Dorr, George and Golub, SIAM J. Numer. Anal. 8 (1971) 722).
The K x K matrix is inverted once; a solve is two fast solves and one small product, all batched.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.physics.fast_diagonalisation import Eigenbasis, FastDiagonalisation, eigenbasis
from sciml.physics.grid import uniform_axis
from sciml.solvers.two_phase.domain import Domain, Faces
from sciml.solvers.two_phase.operators import divergence, gradient


@dataclass(frozen=True, eq=False)
class _Capacitance:
    """Which faces are closed, as places in the flattened x and y faces ``(B, K)`` (padded: ``used`` is 0 there), and
    the pseudo-inverse of I - G L^-1 D ``(B, K, K)``: constants inside a solid are in the null space."""

    places: Tensor
    used: Tensor
    inverse: Tensor


class SplitPoisson:
    """Solver of div grad p = f in the fluid, nothing through walls and solids, p = 0 on open sides."""

    def __init__(self, domain: Domain) -> None:
        dtype = domain.spacing.dtype
        exact = _as_float64(domain)
        self.domain = domain
        self._bases = _bases(domain)
        self._fast = _fast_solver(self._bases, domain)
        self._capacitance = _capacitance(exact, _fast_solver(self._bases, exact), dtype)

    def select(self, cases: Tensor, domain: Domain) -> SplitPoisson:
        """The solver of some cases only; ``domain``: theirs."""
        other = copy.copy(self)
        other.domain = domain
        other._fast = _fast_solver(self._bases, domain)
        if self._capacitance is not None:
            other._capacitance = _Capacitance(*(values[cases] for values in vars(self._capacitance).values()))
        return other

    def solve(self, rhs: Tensor) -> Tensor:
        """p ``(B, nx, ny)``."""
        p = self._fast.solve_poisson(rhs)
        if self._capacitance is None:
            return p
        c = self._capacitance
        through = _flat(gradient(p, self.domain)).gather(1, c.places) * c.used
        extra = torch.einsum("bkl,bl->bk", c.inverse, through)
        return self._fast.solve_poisson(rhs + _spread(extra, c.places, self.domain))


def _bases(domain: Domain) -> tuple[Eigenbasis, ...]:
    """Eigenvectors of the reference axes: 0 on open sides, no gradient at walls."""
    return tuple(
        eigenbasis(uniform_axis(n), "cell", *("dirichlet" if is_open else "neumann" for is_open in domain.is_open(j)))
        for j, n in enumerate(domain.cells)
    )


def _fast_solver(bases: tuple[Eigenbasis, ...], domain: Domain) -> FastDiagonalisation:
    """For the box sizes of ``domain``; cheap."""
    spacing = domain.spacing
    lengths = spacing * torch.tensor(domain.cells).to(spacing)
    return FastDiagonalisation(bases, lengths, dtype=spacing.dtype, device=spacing.device)


def _as_float64(domain: Domain) -> Domain:
    double = domain.select(torch.arange(len(domain.spacing), device=domain.spacing.device))
    pairs = (tuple(v.double() for v in pair) for pair in (domain.free, domain.given, domain.shear, domain.links))
    return Domain(double.spacing.double(), domain.sides, domain.fluid.double(), *pairs)


def _capacitance(domain: Domain, fast: FastDiagonalisation, dtype: torch.dtype) -> _Capacitance | None:
    closed = _flat(_solid_faces(domain)) > 0
    count = int(closed.sum(1).max())
    if count == 0:
        return None
    used, places = closed.to(torch.float64).topk(count, dim=1)
    batch = len(places)
    columns = torch.eye(count, dtype=torch.float64, device=places.device).expand(batch, -1, -1)
    matrix = columns.clone()
    for k in range(count):
        p = fast.solve_poisson(_spread(columns[:, k] * used, places, domain))
        matrix[:, :, k] -= _flat(gradient(p, domain)).gather(1, places) * used
    inverse = torch.linalg.pinv(0.5 * (matrix + matrix.mT), hermitian=True, rtol=1e-9)
    return _Capacitance(places, used.to(dtype), inverse.to(dtype))


def _solid_faces(domain: Domain) -> Faces:
    """1.0 on the faces between a fluid and a solid cell; what the pressure does inside a solid does not matter."""
    solid = 1 - domain.fluid
    x, y = (torch.zeros_like(free) for free in domain.free)
    x[:, 1:-1] = torch.diff(solid, dim=1).abs()
    y[..., 1:-1] = torch.diff(solid, dim=2).abs()
    return x, y


def _flat(faces: Faces) -> Tensor:
    return torch.cat([values.flatten(1) for values in faces], 1)


def _spread(extra: Tensor, places: Tensor, domain: Domain) -> Tensor:
    """The divergence of the flux ``extra (B, K)`` on the closed faces."""
    x, y = domain.free
    flat = extra.new_zeros(len(x), x[0].numel() + y[0].numel()).scatter_add(1, places, extra)
    fx, fy = flat.split([x[0].numel(), y[0].numel()], 1)
    return divergence((fx.reshape(x.shape), fy.reshape(y.shape)), domain)

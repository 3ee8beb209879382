"""Wendland functions as test functions: smooth, radial, zero outside a ball around their centre.

Each support has its own quadrature. A ball inside the box has the rule of ``ball_rule``, order^d points, exact for
every test function and its gradient times polynomials of the degree 2 order - 10 (in 3D 2 order - 11) and at most
order - 2: with the order 8 in 2D of the degree 6. A ball that a side cuts has Gauss points on the part of its bounding
box that is in the box, split at the centre (2 order points an axis, fewer where the centre is on the side): in 1D exact
to the degree 2 order - 8, else within 1e-5 of the integral of the function at the order 8 for the degrees 0 to 2 and
1e-3 at the order 6. The authors of DGNO (arXiv:2502.06250) take 45 equal weights on a grid in balls of the radius 1e-4:
these see the equation at points, and their residuals say little about the solution between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.physics.weak.box import Box, checked_box, checked_mass
from sciml.physics.weak.centres import room_for_centres, shown
from sciml.physics.weak.quadrature import ball_rule, interval_rule, tensor_product
from sciml.physics.weak.wendland_energy import energy_factor
from sciml.physics.weak.wendland_function import wendland


class WendlandSpace:
    """Wendland functions of one ``radius`` around ``centres (J, d)`` in a box of 1 to 3 dimensions.

    ``lengths``, ``origin``, ``dirichlet`` and ``mass`` as in ``HatSpace``; centres keep the radius from Dirichlet
    sides (``grid_centres`` and ``random_centres`` place them so). Take the radius at the scale of the mesh, or of the
    finest feature that the fields shall resolve, and the distance of the centres below it.

    ``points (Q, d)``: those of all supports, one support after the other; ``weights (Q,)`` are those of integrals over
    the union of the supports: a point that lies in several counts in each with its share v_j / sum_k v_k.

    Raises ``ConfigError`` for centres outside the box, too near to Dirichlet sides or not ``(J, d)``, and other
    arguments that make no space; ``SolverError`` for test functions that are nearly linearly dependent.
    """

    def __init__(
        self,
        centres: Tensor,
        radius: float,
        lengths: Sequence[float],
        *,
        origin: Sequence[float] | None = None,
        dirichlet: Iterable[str] | None = None,
        order: int = 8,
        mass: float = 0.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        box = checked_box(lengths, origin, dirichlet)
        self.radius, self.mass, self.order = float(radius), checked_mass(mass), order
        exact = _checked_centres(centres, self.radius, box)
        self.dim, self.dtype, self.device = box.dim, dtype, torch.device(device)
        factor = energy_factor(exact, self.radius, box, self.mass)
        rules = [_support_rule(centre, self.radius, box, order) for centre in exact]
        sizes = torch.tensor([len(weights) for _, weights in rules])
        # supports with as many points form a block of a plain tensor
        in_blocks = sizes.argsort(stable=True)
        sizes = sizes[in_blocks]
        self._blocks = [(int(n), int(k)) for n, k in zip(*sizes.unique_consecutive(return_counts=True), strict=True)]
        points = torch.cat([rules[j][0] for j in in_blocks])
        weights = torch.cat([rules[j][1] for j in in_blocks])
        owner = in_blocks.repeat_interleave(sizes)
        value, gradient = wendland(points - exact[owner], self.radius)
        share = _shares(points, value, owner, exact, self.radius)

        def kept(matrix: Tensor) -> Tensor:
            return matrix.to(self.device, dtype)

        self.centres, self.points, self.weights = kept(exact), kept(points), kept(weights * share)
        self._weighted_values, self._weighted_gradients = kept(weights * value), kept(weights[:, None] * gradient)
        self._place = in_blocks.argsort().to(self.device)
        # r^T K^-1 r = |L^-1 r|^2 with K = L L^T
        self._root = kept(torch.linalg.solve_triangular(factor, torch.eye(len(exact)).double(), upper=False))

    @property
    def n_tests(self) -> int:
        """J, the number of test functions."""
        return len(self.centres)

    def test(self, flux: Tensor | None, source: Tensor | None) -> Tensor:
        """r_j = int flux . grad v_j + source v_j, ``(B, J)``, of ``flux (B, Q, d)`` and ``source (B, Q)``."""
        n_points, density = len(self.weights), None
        if flux is not None:
            self._check("flux", flux, (n_points, self.dim))
            density = (flux * self._weighted_gradients).sum(-1)
        if source is not None:
            self._check("source", source, (n_points,))
            part = source * self._weighted_values
            density = part if density is None else density + part
        if density is None:
            raise ConfigError("neither flux nor source is given; expected at least one")
        blocks = density.split([size * count for size, count in self._blocks], 1)
        sums = [block.unflatten(1, (-1, size)).sum(-1) for block, (size, _) in zip(blocks, self._blocks, strict=True)]
        return sums[0] if len(sums) == 1 else torch.cat(sums, 1)[:, self._place]

    def dual_square(self, r: Tensor) -> Tensor:
        """r^T K^-1 r ``(B,)``: the square of the dual norm of the residual ``r (B, J)`` on this space."""
        self._check("r", r, (self.n_tests,))
        return (r @ self._root.T).square().sum(1)

    def dual(self, r: Tensor) -> Tensor:
        """K^-1 r ``(B, J)``: coefficients of the Riesz representative of the residual ``r (B, J)``."""
        self._check("r", r, (self.n_tests,))
        return r @ self._root.T @ self._root

    def evaluate(self, coefficients: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """sum_j c_j v_j ``(B, P)`` and its gradient ``(B, P, d)`` at ``points (P, d)``, of ``coefficients (B, J)``."""
        self._check("coefficients", coefficients, (self.n_tests,))
        value, gradient = wendland(points[:, None] - self.centres, self.radius)
        return coefficients @ value.T, torch.einsum("bj,pjd->bpd", coefficients, gradient)

    @staticmethod
    def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if value.ndim != len(shape) + 1 or tuple(value.shape[1:]) != shape:
            expected = ", ".join(str(n) for n in shape)
            raise DataError(f"{name} has shape {tuple(value.shape)}; expected (B, {expected})")


def _checked_centres(centres: Tensor, radius: float, box: Box) -> Tensor:
    centres = torch.as_tensor(centres).detach().to("cpu", torch.float64)
    if centres.ndim != 2 or centres.shape[1] != box.dim or len(centres) == 0:
        raise ConfigError(f"centres have shape {tuple(centres.shape)}; expected (J, {box.dim}), one at least")
    if not bool(centres.isfinite().all()):
        raise ConfigError("centres hold NaN or infinity; expected coordinates in the box")
    low, high = torch.tensor(room_for_centres(box, radius), dtype=torch.float64).T
    slack = 1e-6 * torch.tensor(box.lengths, dtype=torch.float64)  # centres may come in float32
    wrong = ((centres < low - slack) | (centres > high + slack)).any(1).nonzero().flatten()
    if len(wrong):
        raise ConfigError(
            f"{len(wrong)} of {len(centres)} centres, e.g. {shown(centres[wrong[0]])}, lie outside the box or nearer "
            f"than the radius {radius} to a Dirichlet side; expected {shown(low)} to {shown(high)}: move them, "
            "take a smaller radius, or place them by grid_centres or random_centres"
        )
    return torch.minimum(torch.maximum(centres, low), high)


def _support_rule(centre: Tensor, radius: float, box: Box, order: int) -> tuple[Tensor, Tensor]:
    """Points ``(q, d)`` and weights ``(q,)`` of the part of a support that is in the box."""
    start = torch.tensor(box.origin, dtype=torch.float64)
    low = torch.maximum(start - centre, torch.full_like(centre, -radius))
    high = torch.minimum(
        start + torch.tensor(box.lengths, dtype=torch.float64) - centre, torch.full_like(centre, radius)
    )
    # the slack: a ball that touches a side is not cut
    if box.dim > 1 and bool((high - low > 2 * radius * (1 - 1e-9)).all()):
        points, weights = ball_rule(box.dim, order)
        return centre + radius * points, radius**box.dim * weights
    ends = zip(low.tolist(), high.tolist(), strict=True)
    points, weights = tensor_product([interval_rule(a, b, order) for a, b in ends])
    inside = torch.linalg.vector_norm(points, dim=-1) < radius
    return centre + points[inside], weights[inside]


def _shares(points: Tensor, value: Tensor, owner: Tensor, centres: Tensor, radius: float) -> Tensor:
    """v_j / sum_k v_k ``(Q,)`` at the points of each support j: a partition of unity on the union of the supports."""
    near = torch.cdist(centres, centres) < 2 * radius
    sums = []
    numbers, counts = owner.unique_consecutive(return_counts=True)
    for j, block in zip(numbers.tolist(), points.split(counts.tolist()), strict=True):
        sums.append(wendland(block[:, None] - centres[near[j]], radius)[0].sum(1))
    return value / torch.cat(sums)

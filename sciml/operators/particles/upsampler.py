"""Many points from few: any points of the material are carried along by the sparse particles around them.

At an *anchor*, where the positions of both are known, every point takes its K nearest sparse particles and weights that
reproduce its position from theirs (``reproducing_weights``). Later

    x_q(t) = sum_j w_j x_j(t) + R_q(t) (X_q - sum_j w_j X_j) + sum_j t_j r_j(t).

The second term is zero except for points that their neighbours do not surround: what the weights do not reproduce turns
with the best-fitting rotation of the neighbourhood (``rotations``). The third is learned: r_j is what the motion of
neighbour j has beyond the affine fit of the neighbourhood (``affine_residuals``), t_j a bounded number from a network.
So translations and rotations are exact for every point, affine maps for every point inside, whatever the network says;
and at the place of a sparse particle the point follows that particle. The network sees invariants only: turning or
shifting either configuration, scaling both or mirroring both does the same to the result.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError
from sciml.operators.particles.affine_residuals import affine_basis, residuals
from sciml.operators.particles.neighbourhoods import neighbourhoods
from sciml.operators.particles.reproducing_weights import kernel_weights, reproducing_weights
from sciml.operators.particles.rotations import best_rotation
from sciml.operators.stored import Stored, check_positive

CHUNK = 4096  # points at a time: what they need stays in the cache
SMALL = 0.01  # of h: residuals below it count as their square, so that the features are smooth at zero


@dataclass(frozen=True)
class Anchor:
    """Where the points are among the sparse particles; the neighbours come before the points, nearest first."""

    count: int
    """Number of sparse particles."""
    index: Tensor
    """``(K, M)``, the neighbours' numbers; where a scene has fewer particles the nearest again, without weight."""
    weights: Tensor
    """``(K, M)``, w_j."""
    scale: Tensor
    """``(M,)``, h: the distance of the farthest neighbour."""
    basis: Tensor
    """``(dim + 1, K, M)``, orthonormal: the affine functions of the neighbours' positions."""
    geometry: Tensor
    """``(G, M)``, invariants of the neighbours' offsets; after ``prepared`` what the first layer makes of them."""
    ready: bool
    """Whether ``geometry`` is that of ``prepared``."""
    held: bool
    """Whether ``weights`` contain the correction (``KernelUpsampler.held``)."""
    fade: Tensor
    """``(M,)``, from 0 at a sparse particle to 1: how much of the correction counts."""
    clamped: Tensor
    """``(m,)``, the points whose position the weights do not reproduce."""
    remainder: Tensor
    """``(dim, m)``, X_q - sum_j w_j X_j of these."""
    arms: Tensor
    """``(dim, K, m)``, v_j (X_j - mean): A = sum_j x_j arms_j^T has the rotation of the neighbourhood."""


class KernelUpsampler(Stored):
    """Positions of any points from those of sparse particles, see the module.

    Args:
        dim: 1 to 3.
        neighbours: K; by default 8, in three dimensions 12 (quadratic functions, which the network can learn to
            reproduce, have 6 and 10 coefficients). Fewer where a scene has fewer particles; with one particle all its
            points translate with it.
        hidden_channels: width of the two hidden layers of the network.
        correction: whether there is a network at all; without one it is moving least squares.
        width: of the kernel, in units of the distance of the farthest neighbour.
        reach: how far outside its neighbours a point may be extrapolated, in standard deviations of theirs.
        bound: of |t_j|.

    The last layer starts at zero: untrained it is moving least squares.

    Raises:
        ConfigError: an argument is out of range.
    """

    name = "kernel-upsampler"

    def __init__(
        self,
        dim: int,
        *,
        neighbours: int | None = None,
        hidden_channels: int = 32,
        correction: bool = True,
        width: float = 0.7,
        reach: float = 3.0,
        bound: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive(self.name, dim=dim, hidden_channels=hidden_channels)
        neighbours = (12 if dim == 3 else 8) if neighbours is None else neighbours
        check_positive(self.name, neighbours=neighbours)
        if dim > 3:
            raise ConfigError(f"{self.name}: dim is {dim}; expected 1, 2 or 3")
        for name, value in (("width", width), ("reach", reach), ("bound", bound)):
            if not value > 0:
                raise ConfigError(f"{self.name}: {name} is {value}; expected a number above 0")
        self.dim = dim
        self.neighbours = neighbours
        self.width = width
        self.reach = reach
        self.bound = bound
        self.network: nn.ModuleList | None = None
        if correction:
            features = neighbours * (neighbours + 1) // 2 + neighbours + 3 * neighbours
            widths = (features, hidden_channels, hidden_channels, neighbours)
            self.network = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
            nn.init.zeros_(self.network[-1].weight)
            nn.init.zeros_(self.network[-1].bias)

    @torch.no_grad()
    def anchor(
        self, sparse: Tensor, queries: Tensor, batch: Tensor | None = None, query_batch: Tensor | None = None
    ) -> Anchor:
        """Neighbours and weights of ``queries (M, dim)`` among ``sparse (n, dim)``, which may be of several scenes.

        Computed in float64, kept in the type of ``sparse``; has no gradient.

        Raises:
            ConfigError: a wrong shape or type.
            DataError: positions that are not finite, or a scene with points and without particles.
        """
        for name, points in (("sparse", sparse), ("queries", queries)):
            if points.ndim != 2 or points.shape[1] != self.dim:
                raise ConfigError(f"{self.name}: {name} has shape {tuple(points.shape)}; expected (N, {self.dim})")
        index, present = neighbourhoods(sparse, queries, self.neighbours, batch, query_batch)
        parts = []
        for start in range(0, max(len(queries), 1), CHUNK):
            part = slice(start, start + CHUNK)
            parts.append(self._anchored(sparse, queries[part], index[:, part], present[:, part], start))
        return _joined(parts)

    def _anchored(self, sparse: Tensor, queries: Tensor, index: Tensor, present: Tensor, start: int) -> Anchor:
        offsets = gathered(sparse.double(), index) - queries.double().T[:, None]
        kernel, scale = kernel_weights(offsets, present, self.width)
        scaled = offsets / scale
        weights, clamped = reproducing_weights(scaled, kernel, self.reach)
        offsets, near = offsets[:, :, clamped], kernel[:, clamped]
        closest = scaled.square().sum(0)[0]
        kept = {
            "weights": weights,
            "scale": scale,
            "basis": affine_basis(scaled, present),
            "geometry": torch.cat([gram(scaled), weights]),
            "fade": closest / (closest + SMALL),
            "remainder": -(weights[:, clamped] * offsets).sum(1),
            "arms": near * (offsets - (near * offsets).sum(1, keepdim=True)),
        }
        kept = {name: value.to(sparse.dtype) for name, value in kept.items()}
        return Anchor(count=len(sparse), index=index, ready=False, held=False, clamped=clamped + start, **kept)

    def prepared(self, anchor: Anchor) -> Anchor:
        """The same anchor for many frames: the part of the network that sees only the anchor is done once.

        It belongs to the weights of now, so it is not for training them.
        """
        if self.network is None or anchor.ready:
            return anchor
        with torch.no_grad():
            parts = [self._of_geometry(part) for part in anchor.geometry.split(CHUNK, 1)]
        return replace(anchor, geometry=torch.cat(parts, 1), ready=True)

    def held(self, anchor: Anchor, sparse: Tensor) -> Anchor:
        """The same anchor with the correction of now for the next frames as well: as cheap as moving least squares.

        The bounded numbers t_j change slowly. With them fixed the correction is linear in the positions, so it is added
        to the weights: w_j + t_j - its affine part. Exact at ``sparse (n, dim)`` itself, and for rotations and affine
        maps always.
        """
        if self.network is None or anchor.held:
            return anchor
        total = anchor.index.shape[1]
        parts = []
        for k in range(0, max(total, 1), CHUNK):
            part = slice(k, min(k + CHUNK, total))
            near = gathered(sparse, anchor.index[:, part])
            learned, _ = self._learned(anchor, near - near[:, :1], part)
            parts.append(anchor.weights[:, part] + residuals(learned[None], anchor.basis[:, :, part])[0])
        return replace(anchor, weights=torch.cat(parts, 1), held=True)

    def forward(self, anchor: Anchor, sparse: Tensor) -> Tensor:
        """Positions ``(M, dim)`` of the anchored points from those of the particles ``(n, dim)``.

        Several frames ``(T, n, dim)`` give ``(T, M, dim)``.

        Raises:
            ConfigError: not the particles, or not the dimension, of the anchor.
        """
        if sparse.ndim == 3:
            return torch.stack([self(anchor, frame) for frame in sparse])
        if sparse.shape != (anchor.count, self.dim):
            raise ConfigError(
                f"{self.name}: sparse has shape {tuple(sparse.shape)}; expected ({anchor.count}, {self.dim}), the "
                "particles that the points were anchored at"
            )
        total = anchor.index.shape[1]
        parts = [self._moved(anchor, sparse, slice(k, min(k + CHUNK, total))) for k in range(0, max(total, 1), CHUNK)]
        positions = torch.cat(parts, 1)
        if len(anchor.clamped):
            offsets = gathered(sparse, anchor.index[:, anchor.clamped])
            offsets = offsets - offsets[:, :1]
            moment = (offsets[:, None] * anchor.arms).sum(2)
            carried = (best_rotation(moment) * anchor.remainder).sum(1)
            positions = positions.index_add(1, anchor.clamped, carried)
        return positions.T.contiguous()

    def _moved(self, anchor: Anchor, sparse: Tensor, part: slice) -> Tensor:
        """The first and the third term of the module's docstring, ``(dim, m)``."""
        near = gathered(sparse, anchor.index[:, part])
        nearest = near[:, 0]
        near = near - nearest[:, None]  # differences of near positions are exact, so float32 keeps its digits
        moved = nearest + (near * anchor.weights[:, part]).sum(1)
        if self.network is None or anchor.held:
            return moved
        learned, beyond = self._learned(anchor, near, part)
        return moved + (beyond * learned).sum(1)

    def _learned(self, anchor: Anchor, near: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """t_j ``(K, m)`` and r_j ``(dim, K, m)``, from the neighbours relative to the nearest of them."""
        scale = anchor.scale[part]
        beyond = residuals(near, anchor.basis[:, :, part])  # zero for a neighbour that only repeats the nearest
        first = anchor.geometry[:, part] if anchor.ready else self._of_geometry(anchor.geometry[:, part])
        learned = self._of_motion(first, motion_features(near / scale, beyond / scale))
        return learned * (self.bound * anchor.fade[part]), beyond

    def _of_geometry(self, geometry: Tensor) -> Tensor:
        """What the first layer makes of the features of the anchor, ``(hidden, M)``."""
        assert self.network is not None
        first = self.network[0]
        weight = first.weight[:, : len(geometry)]
        return torch.addmm(first.bias[:, None], weight, geometry.to(weight.dtype))

    def _of_motion(self, geometry: Tensor, motion: Tensor) -> Tensor:
        """t_j over its bound, ``(K, m)`` in [-1, 1], from the above and the features of now."""
        assert self.network is not None
        first, *others = self.network
        weight = first.weight[:, -len(motion) :]
        x = torch.addmm(geometry, weight, motion.to(weight.dtype))
        for layer in others:
            x = torch.addmm(layer.bias[:, None], layer.weight, nn.functional.silu(x))
        return torch.tanh(x).to(motion.dtype)


def motion_features(near: Tensor, beyond: Tensor) -> Tensor:
    """Invariants ``(3 K, M)`` of the present configuration, in units of h.

    |r_j|, smooth at zero; r_j . (x_j - x_1); |x_j - x_1|^2.
    """
    size = (beyond.square().sum(0) + SMALL**2).sqrt() - SMALL
    return torch.cat([size, (beyond * near).sum(0), near.square().sum(0)])


def gram(offsets: Tensor) -> Tensor:
    """All scalar products of the K offsets ``(dim, K, M)``, each pair once: ``(K (K + 1) / 2, M)``."""
    k = offsets.shape[1]
    return torch.cat([(offsets[:, i, None] * offsets[:, i:]).sum(0) for i in range(k)])


def gathered(points: Tensor, index: Tensor) -> Tensor:
    """Coordinates ``(dim, K, M)`` of points ``(n, dim)`` with numbers ``(K, M)``."""
    flat = index.reshape(-1)
    return torch.stack([row.index_select(0, flat) for row in points.T.contiguous()]).view(points.shape[1], *index.shape)


def _joined(parts: list[Anchor]) -> Anchor:
    """The anchors of consecutive points as one."""
    together = {"count": parts[0].count, "ready": False, "held": False}
    names = [field.name for field in fields(Anchor) if field.name not in together]
    return Anchor(**together, **{name: torch.cat([getattr(part, name) for part in parts], -1) for name in names})


def follow(
    upsampler: KernelUpsampler,
    sparse: Iterable[Tensor],
    queries: Tensor,
    every: int | None = None,
    *,
    batch: Tensor | None = None,
    query_batch: Tensor | None = None,
) -> Iterator[Tensor]:
    """Positions ``(M, dim)`` of the points in every frame, one after the other: memory does not grow with the frames.

    Args:
        sparse: frames ``(n, dim)``, e.g. a tensor ``(T, n, dim)`` or a generator.
        queries: the points ``(M, dim)`` in the first frame.
        every: anchor anew every so many frames, at the positions found so far: for fluids, whose neighbours change.
            Without, the first frame stays the reference: for solids, where nothing then accumulates.
        batch, query_batch: scene numbers, as in ``KernelUpsampler.anchor``.

    Raises:
        ConfigError: ``every`` is not a whole number above 0; wrong shapes.
        DataError: positions that are not finite, at an anchor.
    """
    if every is not None:
        check_positive("follow", every=every)
    anchor, before = None, None
    for frame, now in enumerate(sparse):
        if before is None or (every is not None and frame > 1 and (frame - 1) % every == 0):
            anchor = upsampler.anchor(now if before is None else before, queries, batch, query_batch)
            if not torch.is_grad_enabled():
                anchor = upsampler.prepared(anchor)
        queries = upsampler(anchor, now)
        before = now
        yield queries

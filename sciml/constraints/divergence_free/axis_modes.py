"""The modes of one axis in which the projection of cell velocities is diagonal.

A cell-centred component is u = M f, the mean of the two faces of each cell, and D f = diff(f) / width its part of the
divergence. Along one axis, with cell widths W, the singular value decomposition

    W^1/2 D M^-1 W^-1/2 = S diag(t) N^T

gives orthonormal modes N of the component normal to the faces and S of everything that lives at the cells, and the
symbol t of the divergence. On uniform axes these are sines and cosines with t_k = (2 / h) tan(k pi / 2 n), on periodic
ones Fourier modes; on stretched axes there is no formula. M^-1 is taken on the range of M: what the mean of two faces
cannot represent (between two walls and on a periodic axis with an even number of cells: the alternating field) has no
mode. Where M has a null vector (the alternating faces of an even periodic axis, or between two open ends), these
*hidden* faces can cancel any divergence of the shape D z without being seen in u, so that shape is the last mode of S,
and no constraint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sciml.physics import Axis

Ends = tuple[bool, bool]
"""Whether the low and the high boundary face of an axis are open: unknown, not prescribed."""


@dataclass(frozen=True, eq=False)
class AxisModes:
    """Matrices into (``forward``) and out of the modes of a reference axis, float64, all ``(n, n)`` but ``faces``.

    Attributes:
        scalar_forward, scalar_inverse: of what lives at the cells along this axis.
        normal_forward, normal_inverse: of the velocity component along this axis. The inverse times the forward is the
            projection onto the range of M; a mode of S without partner is a zero row and column.
        faces: from the modes to the stored faces ``(n_faces, n)``, zero at prescribed ends.
        symbol: t ``(n,)``, exactly 0 for the constant.
        hidden: stored faces z ``(n_faces,)`` with M z = 0, or None.
        hidden_symbol: ``(n,)``, zero but for the last: what D makes of z.
    """

    scalar_forward: Tensor
    scalar_inverse: Tensor
    normal_forward: Tensor
    normal_inverse: Tensor
    faces: Tensor
    symbol: Tensor
    hidden: Tensor | None
    hidden_symbol: Tensor


def axis_modes(axis: Axis, open_ends: Ends, device: torch.device | str) -> AxisModes:
    """The modes of an axis; computed once and kept."""
    return _kept(axis.faces.numpy().tobytes(), axis.periodic, open_ends, str(device))


def hides(axis: Axis, open_ends: Ends) -> bool:
    """Whether M has a null vector on this axis."""
    return (axis.periodic and axis.n % 2 == 0) or (not axis.periodic and all(open_ends))


@lru_cache(maxsize=64)
def _kept(faces: bytes, periodic: bool, open_ends: Ends, device: str) -> AxisModes:
    with torch.inference_mode(False), torch.no_grad():  # a kept inference tensor could not be trained with later
        modes = _modes(Axis(torch.from_numpy(np.frombuffer(faces).copy()), periodic), open_ends)
        moved = {k: None if v is None else v.to(device) for k, v in vars(modes).items()}
    return AxisModes(**moved)


def _modes(axis: Axis, open_ends: Ends) -> AxisModes:
    n, m = axis.n, axis.n_faces
    mean, slope = _incidence(axis)
    free = torch.arange(m)
    if not axis.periodic:
        free = free[int(not open_ends[0]) : m - int(not open_ends[1])]
    root = axis.widths.sqrt()[:, None]
    mean, slope, spread = root * mean[:, free], root * slope[:, free], torch.eye(m, dtype=torch.float64)[:, free]
    z = d = None
    hidden_symbol = torch.zeros(n, dtype=torch.float64)
    shapes = torch.eye(n, dtype=torch.float64)  # of divergences that must vanish
    if hides(axis, open_ends):
        z = torch.ones(len(free), dtype=torch.float64)
        z[1::2] = -1
        d = slope @ z
        hidden_symbol[-1] = d.norm()
        d = d / d.norm()
        visible, shapes = _complement(z), _complement(d)
        # faces that differ by z are one velocity; take those whose divergence has no part along d
        visible = visible - torch.outer(z, d @ slope @ visible) / hidden_symbol[-1]
        mean, slope, spread, z = mean @ visible, slope @ visible, spread @ visible, spread @ z
    q, r = torch.linalg.qr(mean)
    tangent = torch.linalg.solve_triangular(r, shapes.T @ slope, upper=True, left=False)
    s, t, vt = torch.linalg.svd(tangent, full_matrices=True)
    s = shapes @ s
    if d is not None:
        s = torch.cat([s, d[:, None]], 1)
    if axis.periodic:
        t[-1] = 0.0  # the constant
    count = vt.shape[0]  # modes of the normal component, at most n
    normal, faces = torch.zeros(n, n, dtype=torch.float64), torch.zeros(m, n, dtype=torch.float64)
    normal[:, :count] = q @ vt.T
    faces[:, :count] = spread @ torch.linalg.solve_triangular(r, vt.T, upper=True)
    symbol = torch.zeros(n, dtype=torch.float64)
    symbol[: len(t)] = t
    return AxisModes(s.T * root.T, s / root, normal.T * root.T, normal / root, faces, symbol, z, hidden_symbol)


def _incidence(axis: Axis) -> tuple[Tensor, Tensor]:
    """M and D ``(n, n_faces)`` of a reference axis."""
    low = torch.eye(axis.n, axis.n_faces, dtype=torch.float64)
    high = low.roll(1, 1)
    return 0.5 * (low + high), (high - low) / axis.widths[:, None]


def _complement(vector: Tensor) -> Tensor:
    """Orthonormal basis ``(n, n - 1)`` of what is orthogonal to a vector."""
    return torch.linalg.qr(vector[:, None], mode="complete")[0][:, 1:]

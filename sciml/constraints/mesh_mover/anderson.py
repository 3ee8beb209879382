"""Anderson's acceleration of a batch of fixed-point iterations, each with its own history.

s_new = s + r f - sum_k gamma_k (ds_k + r df_k) with the gamma that minimises |f - sum_k gamma_k df_k|, where f = G(s) -
s, r is the share of a step that is taken, and ds, df are the changes over the last few iterations (Anderson, J. ACM 12
(1965) 547; Walker & Ni, SIAM J. Numer. Anal. 49 (2011) 1715). A sample whose f has grown forgets its history, and so
takes one plain step: on hard monitors that converges more often, and sooner, than to remember.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Anderson:
    """The histories of B samples of N unknowns. ``depth``: how many changes are kept; 0: plain iteration."""

    def __init__(self, depth: int, relax: float) -> None:
        self.depth, self.relax = depth, relax
        self._changes: list[tuple[Tensor, Tensor]] = []  # ds, df; zero in samples that have forgotten them
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def step(self, s: Tensor, f: Tensor) -> Tensor:
        """The next s ``(B, N)``, after f = G(s) - s."""
        size = f.norm(dim=1, keepdim=True)
        if self._last is not None and self.depth:
            last_s, last_f, last_size = self._last
            changes = [*self._changes, (s - last_s, f - last_f)][-self.depth :]
            if (size > last_size).any():
                shrunk = size <= last_size
                changes = [(torch.where(shrunk, ds, 0.0), torch.where(shrunk, df, 0.0)) for ds, df in changes]
            self._changes = changes
        self._last = s, f, size
        s = s + self.relax * f
        if not self._changes:
            return s
        ds, df = (torch.stack(change, 1) for change in zip(*self._changes, strict=True))
        gram = df @ df.mT
        scale = gram.diagonal(dim1=1, dim2=2).sum(1).reshape(-1, 1, 1)
        scale = torch.where(scale > 0, scale, 1.0)
        # changes become parallel, and forgotten ones are zero: a shift at rounding level keeps the system solvable
        gram = gram + 1e-12 * scale * torch.eye(gram.shape[1], dtype=s.dtype, device=s.device)
        gamma = torch.linalg.solve(gram, df @ f.unsqueeze(-1))
        return s - ((ds + self.relax * df) * gamma).sum(1)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the samples; ``rows``: their indices."""
        self._changes = [(ds[rows], df[rows]) for ds, df in self._changes]
        if self._last is not None:
            s, f, size = self._last
            self._last = s[rows], f[rows], size[rows]

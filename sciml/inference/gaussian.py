"""Gaussians given by mean and Cholesky factor: what approximates a posterior, and preconditions its samplers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.inference.density import standard_normal


@dataclass(frozen=True)
class Gaussian:
    """N(mean, scale_tril scale_tril^T): ``mean (L,)``, ``scale_tril (L, L)`` lower triangular, positive diagonal.

    Raises ``ConfigError`` for anything else.
    """

    mean: Tensor
    scale_tril: Tensor

    def __post_init__(self) -> None:
        size = self.mean.numel()
        if self.mean.ndim != 1 or self.scale_tril.shape != (size, size):
            raise ConfigError(
                f"A Gaussian has a mean (L,) and a scale_tril (L, L), not {tuple(self.mean.shape)} and "
                f"{tuple(self.scale_tril.shape)}."
            )
        finite = bool(torch.isfinite(self.mean).all()) and bool(torch.isfinite(self.scale_tril).all())
        triangular = bool((self.scale_tril.diagonal() > 0).all()) and not bool(self.scale_tril.triu(1).any())
        if not finite or not triangular:
            raise ConfigError(
                "A Gaussian has a finite mean and a finite scale_tril, lower triangular with a positive diagonal; give "
                "torch.linalg.cholesky of the covariance."
            )

    @classmethod
    def standard(cls, like: Tensor) -> Gaussian:
        """N(0, I) of the dimension ``like.shape[-1]``, the type and the device of ``like``."""
        size = like.shape[-1]
        return cls(like.new_zeros(size), torch.eye(size, dtype=like.dtype, device=like.device))

    @property
    def covariance(self) -> Tensor:
        return self.scale_tril @ self.scale_tril.T

    @property
    def standard_deviation(self) -> Tensor:
        return torch.linalg.vector_norm(self.scale_tril, dim=1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` draws ``(n, L)``."""
        return self.colour(standard_normal((n, len(self.mean)), self.mean, generator))

    def log_density(self, z: Tensor) -> Tensor:
        """``(n,)`` at ``z (n, L)``."""
        square = self.whiten(z).square().sum(1)
        return -0.5 * (square + len(self.mean) * math.log(2 * math.pi)) - self.scale_tril.diagonal().log().sum()

    def colour(self, w: Tensor) -> Tensor:
        """z = mean + scale_tril w, of ``w (n, L)``: standard normal w give draws of this Gaussian."""
        return self.mean + w @ self.scale_tril.T

    def whiten(self, z: Tensor) -> Tensor:
        """The inverse of ``colour``."""
        return torch.linalg.solve_triangular(self.scale_tril, (z - self.mean).T, upper=False).T

    def check_vectors(self, z: Tensor) -> None:
        """Refuse vectors ``z (n, L)`` of another length, type or device than this Gaussian's."""
        mine, theirs = (self.mean.shape[0], self.mean.dtype, self.mean.device), (z.shape[1], z.dtype, z.device)
        if mine != theirs:
            raise ConfigError(
                f"The Gaussian has dimension, type and device {mine} and the vectors {theirs}; make them the same."
            )

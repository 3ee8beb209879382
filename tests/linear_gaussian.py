"""A problem whose posterior is known: y = A z + noise, z ~ N(0, I)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.inference import Gaussian, GaussianNoise, effective_sample_size


@dataclass(frozen=True)
class LinearGaussian:
    """The posterior is N(C A^T y / s^2, C), C = (I + A^T A / s^2)^-1, and the evidence N(y; 0, A A^T + s^2 I)."""

    matrix: Tensor
    observed: Tensor
    noise: float

    def log_likelihood(self, z: Tensor) -> Tensor:
        return GaussianNoise(self.noise).log_likelihood(z @ self.matrix.T.to(z) - self.observed.to(z))

    @property
    def precision(self) -> Tensor:
        return torch.eye(self.matrix.shape[1]).double() + self.matrix.T @ self.matrix / self.noise**2

    @property
    def posterior(self) -> Gaussian:
        covariance = torch.linalg.inv(self.precision)
        mean = covariance @ self.matrix.T @ self.observed / self.noise**2
        return Gaussian(mean, torch.linalg.cholesky(covariance))

    @property
    def log_evidence(self) -> float:
        covariance = self.matrix @ self.matrix.T + self.noise**2 * torch.eye(len(self.observed)).double()
        zero = torch.zeros(len(self.observed)).double()
        return float(torch.distributions.MultivariateNormal(zero, covariance).log_prob(self.observed))


def linear_gaussian(size: int, n_observed: int, noise: float, seed: int = 0) -> LinearGaussian:
    generator = torch.Generator().manual_seed(seed)
    matrix, z, error = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((n_observed, size), (size,), (n_observed,))
    )
    return LinearGaussian(matrix, matrix @ z + noise * error, noise)


def standard_errors(draws: Tensor, posterior: Gaussian) -> tuple[Tensor, Tensor]:
    """How many Monte-Carlo standard errors the means ``(L,)`` and covariances (500 of them at most) of ``draws
    (chains, draws, L)`` are away from the posterior's. In whitened coordinates the posterior is N(0, I): the products
    w_i w_j have mean delta_ij and variance 1 + delta_ij; the effective number of draws is that of each quantity."""
    w = posterior.whiten(draws.double().flatten(0, 1)).reshape(draws.shape)
    i, j = torch.tril_indices(w.shape[2], w.shape[2])
    some = torch.randperm(len(i), generator=torch.Generator().manual_seed(0))[:500]
    i, j = i[some], j[some]
    product = w[..., i] * w[..., j]
    same = (i == j).double()
    mean_error = w.mean((0, 1)) * effective_sample_size(w).sqrt()
    product_error = (product.mean((0, 1)) - same) * (effective_sample_size(product) / (1 + same)).sqrt()
    return mean_error, product_error

"""Moments of a mixture of predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError


def mixture_moments(means: Tensor, variances: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance ``(...)`` of an equal mixture of members ``(K, ...)``, by the law of total variance.

    mean = E[means], variance = E[variances] + E[(means - mean)^2]; ``variances`` None stands for members without any.
    Linear equations that every member satisfies hold for the mean too, and bounds as well. Raises ``ConfigError`` for
    different shapes.
    """
    if variances is not None and variances.shape != means.shape:
        raise ConfigError(
            f"The members have means of shape {tuple(means.shape)} and variances of shape {tuple(variances.shape)}; "
            "expected the same, members first."
        )
    if means.ndim < 1 or means.shape[0] < 1:
        raise ConfigError("A mixture needs at least one member along the first axis.")
    mean = means.mean(0)
    variance = (means - mean).square().mean(0)
    return mean, variance if variances is None else variance + variances.mean(0)


def mixture_covariance(means: Tensor, covariances: Tensor) -> Tensor:
    """The full covariance ``(..., n, n)`` of members with means ``(K, ..., n)`` and covariances ``(K, ..., n, n)``."""
    if covariances.shape != (*means.shape, means.shape[-1]):
        raise ConfigError(
            f"The members have means of shape {tuple(means.shape)} and covariances of shape "
            f"{tuple(covariances.shape)}; expected {(*means.shape, means.shape[-1])}."
        )
    apart = means - means.mean(0)
    return covariances.mean(0) + torch.einsum("k...i,k...j->...ij", apart, apart) / len(means)

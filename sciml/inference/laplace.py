"""The Gaussian that the log posterior looks like at its maximum."""

from __future__ import annotations

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.inference.density import LogDensity, check_vectors, log_posterior
from sciml.inference.gaussian import Gaussian


def laplace(log_likelihood: LogDensity, point: Tensor) -> Gaussian:
    """N(point, H^-1), H the Hessian ``(L, L)`` of -log posterior at ``point (L,)``, usually a maximum (MacKay,
    Information Theory, Inference, and Learning Algorithms, ch. 27). Exact for a linear problem with Gaussian noise.
    Directions in which the log likelihood is not concave get the width of the prior, 1: no direction a larger one.

    The log likelihood must be differentiable twice; it is evaluated once, at L copies of the point. (A custom
    ``autograd.Function`` marked ``once_differentiable`` counts as linear: torch does not tell.)

    Raises ``ConfigError`` for a wrong shape, ``SolverError`` when the log likelihood cannot be differentiated twice or
    is not finite, nor its Hessian.
    """
    if point.ndim != 1:
        raise ConfigError(f"The point has shape {tuple(point.shape)}; expected one vector, (L,).")
    copies = check_vectors("point", point[None]).expand(len(point), -1).clone().requires_grad_()
    with torch.enable_grad():
        value = log_posterior(log_likelihood)(copies)
        # Row i of the gradient of sum_i g_i(z_i) is row i of the Hessian, as every row is a function of its own.
        try:
            (gradient,) = torch.autograd.grad(value.sum(), copies, create_graph=True)
            (hessian,) = torch.autograd.grad(-gradient.diagonal().sum(), copies)
        except RuntimeError as error:
            raise SolverError(
                f"The log likelihood cannot be differentiated twice ({error}); give fit_gaussian a "
                "Gaussian(point, scale_tril) of a guessed width to start from instead."
            ) from error
    if not bool(torch.isfinite(hessian).all() & torch.isfinite(value).all()):
        raise SolverError("The log posterior or its Hessian is not finite at the point; give one near a maximum.")
    # In float64: a posterior may be 10^4 times narrower than its prior, its precision 10^8 times larger.
    precision = hessian.double()
    eigenvalues, vectors = torch.linalg.eigh((precision + precision.T) / 2)
    half = vectors / eigenvalues.clamp(min=1).sqrt()
    # R^T R of the QR decomposition of half^T is the covariance: no squaring of its condition.
    upper = torch.linalg.qr(half.T).R
    lower = upper.T * torch.sign(upper.diagonal())
    return Gaussian(point.detach(), lower.tril().to(point.dtype))

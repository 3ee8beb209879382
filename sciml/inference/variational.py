"""Gaussian variational inference: the Gaussian nearest to the posterior, as the evidence lower bound measures it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.inference.chains import check_counts
from sciml.inference.density import LogDensity, log_posterior, standard_normal
from sciml.inference.gaussian import Gaussian
from sciml.inference.laplace import laplace
from sciml.progress import Progress


@dataclass(frozen=True)
class GaussianFit:
    """``gaussian``: the fit. ``elbo``: its evidence lower bound E_q[log likelihood + log prior - log q], at most the
    log evidence, with its Monte-Carlo standard error ``elbo_error``. ``history (steps,)``: the bound, estimated by the
    few draws of each step."""

    gaussian: Gaussian
    elbo: float
    elbo_error: float
    history: Tensor

    @property
    def mean(self) -> Tensor:
        return self.gaussian.mean

    @property
    def scale_tril(self) -> Tensor:
        return self.gaussian.scale_tril

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` draws ``(n, L)`` of the fit."""
        return self.gaussian.sample(n, generator)


def fit_gaussian(
    log_likelihood: LogDensity,
    start: Gaussian | Tensor,
    *,
    generator: torch.Generator,
    full_rank: bool = True,
    steps: int = 500,
    samples: int = 8,
    learning_rate: float = 0.03,
    elbo_samples: int = 512,
    progress: Progress | None = None,
) -> GaussianFit:
    """q = N(m, C C^T) that maximises the evidence lower bound, C lower triangular, or diagonal (mean field) without
    ``full_rank`` (Kucukelbir et al., JMLR 18 (2017) 14, arXiv 1603.00788).

    ``start``: a Gaussian of about the right widths, or a point ``(L,)``, a maximum: then ``laplace`` there. Every one
    of ``steps`` steps of Adam, whose rate falls to 0 along a cosine, draws ``samples`` vectors in antithetic pairs and
    leaves out the score term of the gradient ("sticking the landing", Roeder, Wu and Duvenaud, NIPS 2017, arXiv
    1703.09194): no noise is left where q is the posterior. Parameters are measured in the start's scale; the mean field
    of a Gaussian start begins with its conditional standard deviations, 1 / sqrt(diagonal of the precision).

    Raises ``ConfigError`` for wrong arguments, ``SolverError`` when the log posterior is not finite at more than half
    of the draws of a step, or when the fit ends worse than it started or where the posterior vanishes.
    """
    check_counts(steps=steps, samples=samples, elbo_samples=elbo_samples)
    if not 0 < learning_rate < math.inf:
        raise ConfigError(f"learning_rate is {learning_rate}; expected a positive number.")
    if samples % 2 or elbo_samples < 2:
        raise ConfigError(
            f"samples is {samples} and elbo_samples {elbo_samples}; draws come in pairs: give an even number of "
            "samples and at least 2 of elbo_samples."
        )
    start = _start(log_likelihood, start, full_rank)
    like = start.mean
    size = len(like)
    progress = progress or Progress()
    density = log_posterior(log_likelihood)
    advice = f"Lower the learning_rate ({learning_rate}), or start from laplace at a maximum."
    # q in the coordinates w of z = start.mean + start.scale_tril w: mean, lower triangle, log of the diagonal
    shift, below, log_diagonal = like.new_zeros(size), like.new_zeros(size, size), like.new_zeros(size)
    parameters = [shift, log_diagonal, *([below] if full_rank else [])]
    for parameter in parameters:
        parameter.requires_grad_()
    groups = [{"params": [shift, log_diagonal], "rate": learning_rate}]
    if full_rank:
        # L^2 / 2 entries that move at random by d each move the matrix by d sqrt(L).
        groups.append({"params": [below], "rate": learning_rate / math.sqrt(size)})
    # In these coordinates gradients are of order 1 away from the optimum; smaller ones are not to be blown up.
    optimiser = torch.optim.Adam(groups, lr=learning_rate, betas=(0.9, 0.99), eps=0.1)
    history = like.new_empty(steps)
    with progress.phase("variational inference", steps):
        for k in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 0.5 * group["rate"] * (1 + math.cos(math.pi * k / steps))
            half = standard_normal((samples // 2, size), like, generator)
            epsilon = torch.cat([half, -half])
            with torch.enable_grad():
                scale = _triangle(below, log_diagonal)
                w = shift + epsilon @ scale.T
                value = density(start.colour(w))
                good = torch.isfinite(value)
                if 2 * int(good.sum()) < samples:
                    raise SolverError(
                        f"The log posterior is finite at {int(good.sum())} of {samples} draws in step {k + 1} of the "
                        "variational fit; start from laplace at a maximum, or lower the learning_rate."
                    )
                # -log q with its parameters held: its gradient with respect to w is C^-T epsilon.
                pull = torch.linalg.solve_triangular(scale.detach().T, epsilon.T, upper=True).T
                bound = torch.where(good, value + (w * pull).sum(1), 0.0).sum() / good.sum()
                gradients = torch.autograd.grad(-bound, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            with torch.no_grad():
                minus_log_q = 0.5 * epsilon.square().sum(1) + _log_volume(start.scale_tril @ scale)
                history[k] = (value + minus_log_q)[good].mean()
            optimiser.step()
            progress.advance()
    with torch.no_grad():
        mean, scale = start.colour(shift[None])[0], start.scale_tril @ _triangle(below, log_diagonal)
        if not bool(torch.isfinite(mean).all() & torch.isfinite(scale).all() & (scale.diagonal() > 0).all()):
            raise SolverError(f"The variational fit diverged: its widths are no numbers. {advice}")
        fit = Gaussian(mean, scale)
        epsilon = standard_normal((elbo_samples, size), like, generator)
        terms, before = (
            density(q.colour(epsilon)) + 0.5 * epsilon.square().sum(1) + _log_volume(q.scale_tril) for q in (fit, start)
        )
    # The same draws for both. Where the posterior vanishes at a draw the bound is -inf.
    elbo, error = float(terms.mean()), float(terms.std() / math.sqrt(elbo_samples))
    loss = before - terms
    if not elbo > -math.inf or float(loss.mean()) > 5 * float(loss.std()) / math.sqrt(elbo_samples) + 1:
        raise SolverError(
            f"The variational fit diverged: its evidence lower bound is {elbo:.6g}, that of its start "
            f"{float(before.mean()):.6g}. {advice}"
        )
    return GaussianFit(fit, elbo, error, history)


def _triangle(below: Tensor, log_diagonal: Tensor) -> Tensor:
    return below.tril(-1) + torch.diag(log_diagonal.exp())


def _log_volume(scale: Tensor) -> Tensor:
    """log det C + L / 2 log(2 pi)."""
    return scale.diagonal().log().sum() + 0.5 * len(scale) * math.log(2 * math.pi)


def _start(log_likelihood: LogDensity, start: Gaussian | Tensor, full_rank: bool) -> Gaussian:
    if isinstance(start, Tensor):
        if start.ndim != 1:
            raise ConfigError(f"The start has shape {tuple(start.shape)}; expected one vector, (L,), or a Gaussian.")
        start = laplace(log_likelihood, start)
    if full_rank:
        return start
    identity = torch.eye(len(start.mean), dtype=start.mean.dtype, device=start.mean.device)
    inverse = torch.linalg.solve_triangular(start.scale_tril, identity, upper=False)
    # The precision is inverse^T inverse: its diagonal are the squared columns.
    return Gaussian(start.mean, torch.diag(1 / torch.linalg.vector_norm(inverse, dim=0)))

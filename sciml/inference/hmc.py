"""Hamiltonian Monte Carlo: Markov chains that follow the gradient, all chains in one batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.errors import ConfigError, SolverError
from sciml.inference.chains import Chains, check_counts, check_starts
from sciml.inference.density import (
    LogDensity,
    check_vectors,
    log_posterior,
    log_prior,
    standard_normal,
    value_and_gradient,
)
from sciml.inference.gaussian import Gaussian
from sciml.progress import Progress

DIVERGENCE = 1000.0
"""Energy error above which a trajectory has left the level set, as in Stan."""

WINDOWS = (0.1, 0.25, 0.5, 0.8)
"""Parts of the warm-up. The draws between one and the next give the diagonal of the mass; after the last, and at the
beginning, only the step size is adapted."""


def sample_hmc(
    log_likelihood: LogDensity,
    starts: Tensor,
    *,
    draws: int,
    generator: torch.Generator,
    warmup: int = 500,
    trajectory: float = 1.5,
    max_steps: int = 64,
    step: float | None = None,
    acceptance: float = 0.9,
    mass: Gaussian | None = None,
    adapt_mass: bool = True,
    progress: Progress | None = None,
) -> Chains:
    """Chains of Hamiltonian trajectories by leapfrog steps, accepted with min(1, exp(-energy error)) (Neal, Handbook of
    Markov Chain Monte Carlo, 2011, ch. 5).

    ``starts (chains, L)``; ``draws`` kept of each chain. Lengths are measured in the coordinates w of z = C (s w):
    C is ``scale_tril`` of ``mass``, a Gaussian like the posterior (Laplace or variational; without one the identity),
    i.e. the mass matrix is (C s^2 C^T)^-1. Its diagonal part s starts at 1 and, with ``adapt_mass``, becomes in the
    ``warmup`` the standard deviations within the chains. ``step``, one for all chains, is brought to the mean
    ``acceptance`` by dual averaging (Hoffman and Gelman, JMLR 15 (2014) 1593, section 3.2), from L^(-1/4) unless given;
    with ``warmup=0`` it stays. A trajectory lasts ``trajectory`` times a uniform number between 1/2 and 3/2, the same
    for all chains, and at most ``max_steps`` steps. (An acceptance of 0.8 is quicker where the posterior is nearly
    Gaussian; on curved ones chains get stuck with the step that belongs to it.)

    Raises ``ConfigError`` for wrong arguments, ``SolverError`` for starts whose log likelihood or gradient is not
    finite.
    """
    z = check_vectors("starts", starts).clone()
    check_counts(draws=draws, max_steps=max_steps, warmup=warmup)
    step = z.shape[1] ** -0.25 if step is None else step
    if not 0 < acceptance < 1 or not 0 < trajectory < math.inf or not 0 < step < math.inf:
        raise ConfigError(
            f"step is {step}, trajectory {trajectory} and acceptance {acceptance}; expected positive numbers, the "
            "acceptance below 1."
        )
    if mass is not None:
        mass.check_vectors(z)
    factor = None if mass is None else mass.scale_tril
    scale = z.new_ones(z.shape[1])
    progress = progress or Progress()
    density = log_posterior(log_likelihood)
    value, gradient = value_and_gradient(density, z)
    check_starts(torch.where(torch.isfinite(gradient).all(1), value, torch.nan))

    adaptation = _DualAveraging(step, acceptance)
    windows = {int(part * warmup) for part in WINDOWS}
    window: list[Tensor] = []
    kept, kept_value = z.new_empty(draws, *z.shape), z.new_empty(draws, len(z))
    accepted, divergences = z.new_zeros(len(z)), torch.zeros(len(z), dtype=torch.int64, device=z.device)

    with progress.phase("HMC", warmup + draws):
        for k in range(warmup + draws):
            if k < warmup:
                step = adaptation.step
                if adapt_mass and k in windows:
                    if k > min(windows):
                        scale = scale * _spread(window)
                        adaptation = _DualAveraging(step, acceptance)
                    window = []
            elif warmup and k == warmup:
                step = adaptation.averaged
            jitter = 0.5 + float(torch.rand((), generator=generator, device=generator.device))
            n_steps = min(max(round(jitter * trajectory / step), 1), max_steps)

            momentum = standard_normal(tuple(z.shape), z, generator)
            moved, new_value, new_gradient = z, value, gradient
            p = momentum + 0.5 * step * _force(gradient, factor, scale)
            for i in range(n_steps):
                moved = moved + step * _velocity(p, factor, scale)
                new_value, new_gradient = value_and_gradient(density, moved)
                p = p + (step if i + 1 < n_steps else 0.5 * step) * _force(new_gradient, factor, scale)
            error = (new_value - value) - 0.5 * (p.square() - momentum.square()).sum(1)
            error = torch.where(torch.isfinite(error), error, -torch.inf)
            probability = error.clamp(max=0).exp()
            uniform = torch.rand(len(z), generator=generator, dtype=z.dtype, device=generator.device).to(z.device)
            accept = uniform < probability
            z, gradient = (
                torch.where(accept[:, None], new, old) for new, old in ((moved, z), (new_gradient, gradient))
            )
            value = torch.where(accept, new_value, value)
            if k < warmup:
                adaptation.update(float(probability.mean()))
                if adapt_mass:
                    window.append(_coordinates(z, factor) / scale)
            else:
                accepted += probability
                divergences += error < -DIVERGENCE
                kept[k - warmup], kept_value[k - warmup] = z, value - log_prior(z)
            progress.advance()
    return Chains(kept.transpose(0, 1).contiguous(), kept_value.T.contiguous(), accepted / draws, step, divergences)


def _velocity(momentum: Tensor, factor: Tensor | None, scale: Tensor) -> Tensor:
    """C s p: how z moves."""
    return scale * momentum if factor is None else (scale * momentum) @ factor.T


def _force(gradient: Tensor, factor: Tensor | None, scale: Tensor) -> Tensor:
    """s C^T g: how the momentum of w changes."""
    return scale * (gradient if factor is None else gradient @ factor)


def _coordinates(z: Tensor, factor: Tensor | None) -> Tensor:
    """C^-1 z."""
    return z if factor is None else torch.linalg.solve_triangular(factor, z.T, upper=False).T


def _spread(window: list[Tensor]) -> Tensor:
    """Standard deviation ``(L,)`` of the draws about the mean of their own chain, their variance shrunk a little
    towards 0.001 as in Stan. Chains in different modes do not make it large."""
    draws = torch.stack(window)
    count = draws.shape[0] * draws.shape[1]
    variance = (draws - draws.mean(0)).square().mean((0, 1))
    spread = ((count * variance + 5 * 1e-3) / (count + 5)).sqrt()
    if not bool(torch.isfinite(spread).all()):
        raise SolverError(
            "The draws of the warm-up overflow; the log likelihood grows faster than the prior falls. Bound it."
        )
    return spread


class _DualAveraging:
    """Step size whose mean acceptance probability tends to ``target`` (algorithm 5 of Hoffman and Gelman, with their
    constants)."""

    def __init__(self, step: float, target: float) -> None:
        self.centre, self.target = math.log(10 * step), target
        self.count, self.deficit, self.log_averaged = 0, 0.0, math.log(step)
        self.step = step

    def update(self, probability: float) -> None:
        self.count += 1
        t = self.count
        self.deficit += (self.target - probability - self.deficit) / (t + 10)
        log_step = self.centre - math.sqrt(t) / 0.05 * self.deficit
        log_step = min(max(log_step, -30.0), 5.0)
        weight = t**-0.75
        self.log_averaged += weight * (log_step - self.log_averaged)
        self.step = math.exp(log_step)

    @property
    def averaged(self) -> float:
        return math.exp(self.log_averaged)

"""Normalising flow: an invertible map whose image of N(0, I) has a density in closed form; learned from samples, it is
the prior of whatever they are samples of."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, DataError, SolverError
from sciml.inference.chains import check_counts
from sciml.inference.density import log_prior, standard_normal
from sciml.progress import Progress


class Flow(nn.Module):
    """Affine coupling layers (RealNVP; Dinh, Sohl-Dickstein and Bengio, ICLR 2017, arXiv 1605.08803), an elementwise
    scale and shift before each (as actnorm of Glow), and one affine map at the end that ``fit_flow`` takes from the
    mean and covariance of the samples. Begins as that Gaussian: the last layer of every coupling network is zero.

    A layer permutes its vector, by a random permutation of ``seed`` and by exchange of the halves in turn (in 2 or 3
    dimensions always by exchange); the first
    half then scales and shifts the other, by at most exp(+-``scale_limit``). ``options`` (plain numbers) and
    ``state_dict()`` make the same flow again: ``Flow(**options)``.

    Raises ``ConfigError`` for fewer than 2 dimensions and for options that are not positive.
    """

    def __init__(
        self,
        dim: int,
        *,
        n_layers: int = 6,
        hidden_channels: int = 128,
        scale_limit: float = 2.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_counts(n_layers=n_layers, hidden_channels=hidden_channels)
        if not isinstance(dim, int) or dim < 2:
            raise ConfigError(
                f"dim is {dim!r}; a coupling layer needs at least 2 dimensions, one to condition the other."
            )
        if not 0 < scale_limit < math.inf:
            raise ConfigError(f"scale_limit is {scale_limit}; expected a positive number.")
        self.options = {
            "dim": dim,
            "n_layers": n_layers,
            "hidden_channels": hidden_channels,
            "scale_limit": scale_limit,
            "seed": seed,
        }
        self.kept, self.scale_limit = dim // 2, scale_limit
        generator = torch.Generator().manual_seed(seed)
        exchange = torch.arange(dim).roll(-self.kept)
        # Of 2 or 3 dimensions a random permutation would often leave the halves as they are.
        order = [exchange if i % 2 or dim < 4 else torch.randperm(dim, generator=generator) for i in range(n_layers)]
        self.register_buffer("order", torch.stack(order))
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("factor", torch.eye(dim))
        self.log_scale = nn.Parameter(torch.zeros(n_layers, dim))
        self.shift = nn.Parameter(torch.zeros(n_layers, dim))
        self.networks = nn.ModuleList(
            _network(self.kept, hidden_channels, 2 * (dim - self.kept), generator) for _ in range(n_layers)
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """x ``(n, L)`` and log |det dx/dz| ``(n,)`` of ``z (n, L)``."""
        volume = self.log_scale.sum() + self._log_factor()
        x, log_det = z, volume.expand(len(z))
        for order, log_scale, shift, network in zip(self.order, self.log_scale, self.shift, self.networks, strict=True):
            x = (x * log_scale.exp() + shift)[:, order]
            given, changed = x[:, : self.kept], x[:, self.kept :]
            log_stretch, move = self._coupling(network, given)
            x = torch.cat([given, changed * log_stretch.exp() + move], 1)
            log_det = log_det + log_stretch.sum(1)
        return self.centre + x @ self.factor.T, log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z ``(n, L)`` and log |det dz/dx| ``(n,)`` of ``x (n, L)``."""
        volume = self.log_scale.sum() + self._log_factor()
        z, log_det = torch.linalg.solve_triangular(self.factor, (x - self.centre).T, upper=False).T, -volume
        log_det = log_det.expand(len(x))
        for i in reversed(range(len(self.networks))):
            given, changed = z[:, : self.kept], z[:, self.kept :]
            log_stretch, move = self._coupling(self.networks[i], given)
            z = torch.cat([given, (changed - move) * (-log_stretch).exp()], 1)[:, self.order[i].argsort()]
            z = (z - self.shift[i]) * (-self.log_scale[i]).exp()
            log_det = log_det - log_stretch.sum(1)
        return z, log_det

    def log_density(self, x: Tensor) -> Tensor:
        """log of the density of the image of N(0, I) at ``x (n, L)``: ``(n,)``."""
        z, log_det = self.inverse(x)
        return log_prior(z) + log_det

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` draws ``(n, L)``."""
        return self(standard_normal((n, len(self.centre)), self.centre, generator))[0]

    def _coupling(self, network: nn.Module, given: Tensor) -> tuple[Tensor, Tensor]:
        log_stretch, move = network(given).chunk(2, 1)
        return self.scale_limit * torch.tanh(log_stretch / self.scale_limit), move

    def _log_factor(self) -> Tensor:
        return self.factor.diagonal().log().sum()


@dataclass(frozen=True)
class FlowFit:
    """``flow``: of the best epoch. Mean log densities of the samples kept for validation: ``validation`` under it,
    ``gaussian`` under the Gaussian it began as; ``history`` of every epoch."""

    flow: Flow
    validation: float
    gaussian: float
    history: tuple[float, ...]


def fit_flow(
    samples: Tensor,
    *,
    generator: torch.Generator,
    flow: Flow | None = None,
    validation: float = 0.15,
    epochs: int = 300,
    patience: int = 30,
    batch_size: int = 128,
    learning_rate: float = 5e-3,
    weight_decay: float = 1e-4,
    progress: Progress | None = None,
) -> FlowFit:
    """A flow of the greatest mean log density of ``samples (N, L)``, by AdamW at a rate that falls to 0 along a cosine.

    A part ``validation`` of the samples, drawn at random, decides which epoch is kept; after ``patience`` epochs
    without a better one it ends. As the flow begins as the Gaussian fit, it is never worse there than that.
    ``flow``: one with other options than the defaults; it is changed in place.

    Raises ``DataError`` for samples that are too few, not finite or constant, ``ConfigError`` for wrong arguments,
    ``SolverError`` when the training diverges at once.
    """
    _check_samples(samples)
    check_counts(epochs=epochs, patience=patience, batch_size=batch_size)
    if not 0 < validation < 1 or not 0 < learning_rate < math.inf or not 0 <= weight_decay < math.inf:
        raise ConfigError(
            f"validation is {validation}, learning_rate {learning_rate} and weight_decay {weight_decay}; expected a "
            "part between 0 and 1, a positive and a non-negative number."
        )
    samples = samples.detach()
    if flow is None:
        flow = Flow(samples.shape[1])
    if len(flow.centre) != samples.shape[1]:
        raise ConfigError(f"The flow has {len(flow.centre)} dimensions and the samples {samples.shape[1]}.")
    flow.to(samples)
    progress = progress or Progress()
    shuffled = samples[_permutation(len(samples), samples, generator)]
    n_test = min(max(round(validation * len(samples)), 1), len(samples) - 2)
    test, train = shuffled[:n_test], shuffled[n_test:]
    _begin_as_gaussian(flow, train)
    optimiser = torch.optim.AdamW(flow.parameters(), lr=learning_rate, weight_decay=weight_decay)
    gaussian = best = _mean_log_density(flow, test)
    state, waited, history = copy.deepcopy(flow.state_dict()), 0, []
    with progress.phase("normalising flow", epochs):
        for epoch in range(epochs):
            for group in optimiser.param_groups:
                group["lr"] = 0.5 * learning_rate * (1 + math.cos(math.pi * epoch / epochs))
            for rows in _permutation(len(train), samples, generator).split(batch_size):
                optimiser.zero_grad()
                (-flow.log_density(train[rows]).mean()).backward()
                nn.utils.clip_grad_norm_(flow.parameters(), 10.0 * math.sqrt(samples.shape[1]))
                optimiser.step()
            history.append(_mean_log_density(flow, test))
            progress.advance(note=f"log density {history[-1]:.3f}")
            if history[-1] > best:
                best, state, waited = history[-1], copy.deepcopy(flow.state_dict()), 0
            else:
                waited += 1
            if waited == patience or not math.isfinite(history[-1]):
                break
    if not math.isfinite(history[-1]) and best == gaussian:
        raise SolverError(
            f"The flow diverged in epoch {len(history)} before it was any better than a Gaussian; lower the "
            f"learning_rate ({learning_rate})."
        )
    flow.load_state_dict(state)
    return FlowFit(flow, best, gaussian, tuple(history))


def _network(inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> nn.Module:
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    network = nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last)
    for layer in (network[0], network[2]):
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(layer.bias)
    return network


@torch.no_grad()
def _begin_as_gaussian(flow: Flow, samples: Tensor) -> None:
    """The mean and covariance of the samples, the correlations shrunk towards 0 by the oracle approximating estimator
    (Chen, Wiesel, Eldar and Hero, IEEE Trans. Signal Process. 58 (2010) 5016) as there may be few samples."""
    x = samples.double()
    n, size = x.shape
    centre, width = x.mean(0), x.std(0)
    if not bool((width > 1e-6 * width.max()).all()):
        flat = (width <= 1e-6 * width.max()).nonzero().flatten().tolist()
        raise DataError(f"Components {flat[:5]} of the samples are constant; leave them out or use more samples.")
    scaled = (x - centre) / width
    correlation = scaled.T @ scaled / n
    square, trace = float(correlation.square().sum()), float(correlation.trace())
    excess = (n + 1 - 2 / size) * (square - trace**2 / size)
    shrinkage = min(((1 - 2 / size) * square + trace**2) / excess, 1.0) if excess > 0 else 1.0
    correlation = (1 - shrinkage) * correlation + shrinkage * torch.eye(size, dtype=x.dtype, device=x.device)
    # Directions without variance get a thousandth of the width of the others: the density stays finite.
    correlation.diagonal().add_(1e-6)
    flow.centre.copy_(centre)
    flow.factor.copy_(width[:, None] * torch.linalg.cholesky(correlation))


@torch.no_grad()
def _mean_log_density(flow: Flow, x: Tensor) -> float:
    return float(flow.log_density(x).mean())


def _permutation(n: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator, device=generator.device).to(like.device)


def _check_samples(samples: Tensor) -> None:
    if not isinstance(samples, Tensor) or not samples.is_floating_point() or samples.ndim != 2 or samples.shape[1] < 2:
        given = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
        raise ConfigError(f"The samples are {given}; expected floating-point vectors (N, L), L at least 2.")
    if len(samples) < 20:
        raise DataError(f"A flow is to be fitted to {len(samples)} samples; give at least 20, better thousands.")
    bad = (~torch.isfinite(samples).all(1)).nonzero().flatten()
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(samples)} samples are not finite, the first is number {int(bad[0])}; leave them out."
        )

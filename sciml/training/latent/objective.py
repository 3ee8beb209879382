"""The negative evidence lower bound of input functions, with residuals of the equation as virtual observations.

For an input function a, latent vector beta ~ q(beta | a) and standard normal prior

    -ELBO = E_q[ -log p(a | beta) - log p(r = 0 | beta) - log p(u | beta) ] + KL(q(beta | a) || N(0, I))

with r ~ N(0, s_r^2 K) the weak residuals (K^-1 their natural norm: ``WeakProblem.residual_square``), and, of labelled
cases, u normal with deviation s_u. The deviations are those of the greatest likelihood for the batch (Rybkin,
Daniilidis and Levine, arXiv:2006.13202), which turns -log p into half the number of observations times the logarithm
of the mean square: no weights are to be chosen between a, r and u.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciml.surrogate.latent import LatentSurrogate
from sciml.training.latent.config import LatentTaskConfig
from sciml.training.latent.data import LatentBatch

FLOOR = 1e-12
"""Of a mean square: a logarithm needs one, where everything is met exactly."""


class EvidenceBound(nn.Module):
    """Negative evidence lower bound of a batch per observation of the input function, in nats.

    Args:
        surrogate: the model.
        task: what is learned from, and the weights (all 1 for the bound itself).
    """

    def __init__(self, surrogate: LatentSurrogate, task: LatentTaskConfig) -> None:
        super().__init__()
        self.surrogate, self.task = surrogate, task
        self.latest: dict[str, Tensor] = {}
        self.share = 1.0

    def begin(self, fraction: float) -> None:
        """Before each step: the share of the budget that is spent, from which the divergence's weight follows."""
        self.share = min(1.0, fraction / self.task.anneal) if self.task.anneal else 1.0

    def forward(self, batch: LatentBatch, generator: torch.Generator) -> Tensor:
        """The bound of a batch; ``generator`` draws latent vectors and random points."""
        surrogate, task = self.surrogate, self.task
        problem, operator = surrogate.problem, surrogate.operator
        x = surrogate.standardised(batch.inputs)
        found = operator.encode(x)
        latent = found.sample(generator) if operator.variational else found.mean
        reconstruction = surrogate.reconstruction(operator.coefficient(latent, surrogate.input_points), x)
        total = reconstruction
        if operator.variational:
            divergence = found.divergence().mean()
            total = total + self.share * task.divergence * divergence
            self.latest["divergence"] = divergence.detach()
        if task.learn != "data":
            points = problem.collocation(generator, batch.inputs)
            candidate = surrogate.candidate(latent, points, batch.inputs)
            square = problem.residual_square(points, candidate, batch.inputs).mean()
            total = total + task.physics * 0.5 * problem.n_residuals * (square + FLOOR).log()
            self.latest["residual"] = square.detach().sqrt()
        if task.learn != "physics" and bool(batch.labelled.any()):
            mine = batch.labelled
            made = surrogate.values(latent[mine], surrogate.points, batch.inputs[mine])
            square = relative_square(made, batch.solutions[mine], [f.components for f in problem.fields]).mean()
            # As many observations as in a batch in which every case has its solution.
            total = total + task.data * mine.float().mean() * 0.5 * len(surrogate.points) * (square + FLOOR).log()
            self.latest["labels"] = square.detach().sqrt()
        return total / x.shape[1]

    def numbers(self) -> dict[str, float]:
        """Relative residual, relative error on labelled cases, and divergence (nats) of the last batch."""
        return {name: float(value) for name, value in self.latest.items()}


def relative_square(made: Tensor, truth: Tensor, components: list[int]) -> Tensor:
    """Squared relative L2 error ``(B, fields)`` of ``(B, C, N)``, the components of a field together."""
    errors = [
        (mine - true).square().sum((1, 2)) / true.square().sum((1, 2))
        for mine, true in zip(made.split(components, 1), truth.split(components, 1), strict=True)
    ]
    return torch.stack(errors, 1)

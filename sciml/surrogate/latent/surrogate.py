"""What the user carries away of a weak problem: input function -> solution at any points, and back from a few noisy
observations.

    surrogate = sciml.load(RUN)
    fields = surrogate.solve(permeability)                    # {"pressure": (B, 1, N)} at surrogate.problem.points
    found = surrogate.invert(observations, noise=0.01)        # see sciml.surrogate.latent.inversion
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sciml.errors import DataError
from sciml.operators.dgno import DGNO
from sciml.operators.multionet.core import Basis
from sciml.physics.weak import Fields
from sciml.problems.weak import Ansatz, WeakProblem

if TYPE_CHECKING:
    from sciml.inference import Flow
    from sciml.surrogate.latent.inversion import Inversion, Observations


class LatentSurrogate(nn.Module):
    """Operator, problem and units.

    Args:
        operator: made for the problem's points and fields.
        problem: what it solves.
        mean, std: of the training inputs (of their logarithm, with the link ``log``); not used for two values.
        errors: root mean square error of each solution channel on the validation cases, in the field's unit.
        input_deviation: root mean square error of the decoded input function there, standardised.
        consistency: mean and deviation of ``log_residual`` there: how well solution and input function that one latent
            vector decodes to belong together; None: not known.
        ranges: name -> (low, high) of the training cases.
        prior: transport from the standard normal distribution to that of the latent vectors; None: none.
        provenance: anything worth keeping about the training.
    """

    kind: ClassVar[str] = "latent"

    def __init__(
        self,
        operator: DGNO,
        problem: WeakProblem,
        *,
        mean: float = 0.0,
        std: float = 1.0,
        errors: Sequence[float] = (),
        input_deviation: float = 0.0,
        consistency: Sequence[float] | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
        prior: Flow | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.operator, self.problem, self.prior = operator, problem, prior
        self.mean, self.std, self.errors = float(mean), float(std), tuple(map(float, errors))
        self.input_deviation = float(input_deviation)
        self.consistency = None if consistency is None else (float(consistency[0]), float(consistency[1]))
        self.fields = {field.name: field for field in problem.fields}
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in (ranges or {}).items()}
        self.provenance = dict(provenance or {})
        self.register_buffer("input_points", problem.input_points.float(), persistent=False)
        self.register_buffer("points", problem.points.float(), persistent=False)

    input_points: Tensor
    points: Tensor

    # -------------------------------------------------------------------------------------------- input and its units

    def standardised(self, inputs: Tensor) -> Tensor:
        """What the operator reads of input functions in physical units ``(B, P)``."""
        if self.problem.link == "two_values":
            low, high = self.problem.levels
            return 2 * (inputs - low) / (high - low) - 1
        return ((inputs.log() if self.problem.link == "log" else inputs) - self.mean) / self.std

    def input_from(self, output: Tensor) -> Tensor:
        """The input function in physical units, of a decoder's output; with two values its mean under their
        probabilities, high having that of a logistic function of the output.
        """
        if self.problem.link == "two_values":
            low, high = self.problem.levels
            return low + (high - low) * output.sigmoid()
        value = self.mean + self.std * output
        return value.exp() if self.problem.link == "log" else value

    def reconstruction(self, output: Tensor, standardised: Tensor) -> Tensor:
        """Negative log likelihood in nats, mean over the batch, of inputs given the decoder's output ``(B, P)``.

        Two values: Bernoulli. Otherwise normal with the deviation that suits the batch best.
        """
        if self.problem.link == "two_values":
            return F.binary_cross_entropy_with_logits(output, (standardised + 1) / 2, reduction="none").sum(1).mean()
        return 0.5 * output.shape[1] * (output - standardised).square().mean().log()

    # ------------------------------------------------------------------------ what training and inversion differentiate

    def candidate(self, latent: Tensor, points: Tensor, inputs: Tensor) -> Fields | Tensor:
        """Solution fields in physical units at ``points``: values ``(B, C, Q)``, or with gradients where the problem
        reads them.
        """
        ansatz = self.problem.ansatz(points, inputs, self.problem.needs_gradient)
        if self.problem.needs_gradient:
            return ansatz.fields(*self.operator.solution_with_gradient(latent, points))
        return ansatz.value(self.operator.solution(latent, points))

    def values(self, latent: Tensor, points: Tensor, inputs: Tensor, basis: Basis | None = None) -> Tensor:
        """Solution fields ``(B, C, Q)`` in physical units; ``basis``: the operator's there, if it is known."""
        basis = self.operator.basis(points) if basis is None else basis
        ansatz: Ansatz = self.problem.ansatz(points, inputs)
        return ansatz.value(self.operator.solution_decoder.combine(basis, latent))

    def decoded_input(self, latent: Tensor, points: Tensor | None = None) -> Tensor:
        """The input function ``(B, Q)`` in physical units, by default at the problem's ``input_points``."""
        return self.input_from(self.operator.coefficient(latent, self.input_points if points is None else points))

    def log_residual(self, latent: Tensor) -> Tensor:
        """log of the squared relative residual ``(n,)`` of what latent vectors ``(n, L)`` decode to: their solution in
        the equation with their input function.
        """
        points = self.problem.collocation(None, latent)
        inputs = self.decoded_input(latent)
        return self.problem.residual_square(points, self.candidate(latent, points, inputs), inputs).log()

    def latent_from(self, z: Tensor) -> Tensor:
        """Latent vectors ``(n, L)`` of standard normal ones."""
        return z if self.prior is None else self.prior(z)[0]

    def normal_from(self, latent: Tensor) -> Tensor:
        """The inverse of ``latent_from``."""
        return latent if self.prior is None else self.prior.inverse(latent)[0]

    # --------------------------------------------------------------------------------------------- what users call

    @torch.no_grad()
    def solve(self, inputs: Tensor, points: Tensor | None = None) -> dict[str, Tensor]:
        """The solution fields of input functions ``(B, P)``: name -> ``(B, components, N)``, float32.

        ``points (N, d)``: by default those of the problem. Raises ``DataError`` for inputs of another shape, that are
        not finite, or that the equation does not allow, and for points outside the domain.
        """
        inputs = self.problem.check_inputs(torch.as_tensor(inputs)).to(self.input_points)
        points = self.points if points is None else self.check_points(points)
        latent = self.operator.encode(self.standardised(inputs)).mean
        return self.by_name(self.values(latent, points, inputs))

    def by_name(self, channels: Tensor) -> dict[str, Tensor]:
        """Channels ``(B, C, N)`` as fields."""
        parts = channels.split([field.components for field in self.fields.values()], 1)
        return dict(zip(self.fields, parts, strict=True))

    def check_points(self, points: Tensor) -> Tensor:
        """Points on this device.

        Raises ``DataError`` unless they are ``(N, d)``, finite and inside the domain.
        """
        axes = self.problem.axes
        points = torch.as_tensor(points, dtype=torch.float64)
        if points.ndim != 2 or points.shape[1] != len(axes) or len(points) < 1:
            raise DataError(f"points have shape {tuple(points.shape)}; expected (N, {len(axes)}) of {', '.join(axes)}")
        if not bool(torch.isfinite(points).all()):
            raise DataError(
                f"point {int((~torch.isfinite(points)).nonzero()[0, 0])} is not finite: {points.tolist()[0]}"
            )
        outside = ~self.problem.inside(points)
        if bool(outside.any()):
            first = int(outside.nonzero()[0, 0])
            low, high = self.problem.box
            raise DataError(
                f"{int(outside.sum())} of {len(points)} points lie outside the domain of {self.problem.name}, the "
                f"first is point {first} at {tuple(points[first].tolist())}; its box is from {low} to {high}"
            )
        return points.to(self.points)

    def invert(self, observations: Observations, noise: float | None = None, **options: Any) -> Inversion:
        """The input function that fits noisy observations; see ``sciml.surrogate.latent.inversion.invert``."""
        from sciml.surrogate.latent.inversion import invert

        return invert(self, observations, noise, **options)

    def save(self, directory: Path | str) -> Path:
        """Write the surrogate without pickles; return the directory."""
        from sciml.surrogate.latent.storage import save

        return save(self, directory)

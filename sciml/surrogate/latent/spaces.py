"""What the numbers are that an inversion draws, and how input function and solution follow from them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sciml.errors import ConfigError
from sciml.surrogate.latent.surrogate import LatentSurrogate


class Space(Protocol):
    """Vectors z ~ N(0, I) a priori."""

    size: int

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The latent vector ``(n, L)`` that belongs to ``z (n, size)``, and the input function ``(n, P)``."""

    def inputs(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        """The input function ``(n, Q)`` at points, by default the problem's."""


class LatentSpace:
    """beta = T(z), T the surrogate's prior: what decodes from a latent vector."""

    def __init__(self, surrogate: LatentSurrogate) -> None:
        self.surrogate, self.size = surrogate, surrogate.operator.latent

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.surrogate.latent_from(z)
        return latent, self.surrogate.decoded_input(latent)

    def inputs(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        return self.surrogate.decoded_input(self.surrogate.latent_from(z), points)


class InputSpace:
    """The input function's own prior, as the problem states it; beta is the encoder's mean for it. Nothing is lost in a
    decoder of the input function, and jumps stay sharp.

    Raises ``ConfigError`` for a problem that does not say how input functions follow from normal numbers.
    """

    def __init__(self, surrogate: LatentSurrogate) -> None:
        self.surrogate, self.size = surrogate, surrogate.problem.n_normals
        if not self.size:
            problem = surrogate.problem
            raise ConfigError(
                f"method 'field' draws from the prior of the {problem.input.name}, and problem {problem.name!r} does "
                "not say how it follows from normal numbers (n_normals, inputs_from_normals); use method 'hmc', 'pcn' "
                "or 'vi'"
            )

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        inputs = self.inputs(z)
        return self.surrogate.operator.encode(self.surrogate.standardised(inputs)).mean, inputs

    def inputs(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        return self.surrogate.problem.inputs_from_normals(z, points)

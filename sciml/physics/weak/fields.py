"""Values and gradients of fields at quadrature points: what a weak form is made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciml.errors import DataError


@dataclass(frozen=True, eq=False)
class Fields:
    """``value (B, C, Q)`` and ``gradient (B, C, Q, d)`` of C fields at Q points in d coordinates, in physical units.

    In forms that go on in time it is the last coordinate. Raises ``DataError`` for shapes that do not fit.
    """

    value: Tensor
    gradient: Tensor

    def __post_init__(self) -> None:
        if self.value.ndim != 3 or self.gradient.ndim != 4 or self.gradient.shape[:3] != self.value.shape:
            raise DataError(
                f"value has shape {tuple(self.value.shape)} and gradient {tuple(self.gradient.shape)}; expected "
                "(B, C, Q) and (B, C, Q, d)"
            )

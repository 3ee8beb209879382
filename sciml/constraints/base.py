"""What a constraint is, and what it is told beside the field that it acts on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, did_you_mean
from sciml.physics import Grid


@dataclass(frozen=True, eq=False)
class Context:
    """The surroundings of a field ``u (B, C, *grid)`` in physical units.

    Attributes:
        grid: axes, periodic or not, and the box of each case.
        channels: name of a field -> its channels in ``u``.
        boundaries: name of a field -> side (``x_low`` ...) -> its condition. Of a velocity those of
            ``sciml.physics.boundary`` (``Wall``, ``Inlet`` ...), of other fields ``Dirichlet``, ``Neumann``, ``Robin``
            or ``Periodic``.
        fluid: where there is fluid, ``(1 or B, *grid)`` bool; None: everywhere.
        before: the field one step earlier, ``(B, C, *grid)``, and ``interval (B,)`` the step in seconds, for
            constraints on what changes.
        parameters: the problem's parameters, ``(B,)`` each.
        corners: axes in the order in which their sides own the corners where values of two sides disagree (``"x"``).
    """

    grid: Grid
    channels: Mapping[str, slice] = field(default_factory=dict)
    boundaries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fluid: Tensor | None = None
    before: Tensor | None = None
    interval: Tensor | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    corners: str = ""

    def slice_of(self, name: str) -> slice:
        """The channels of a field. Raises ``ConfigError`` if there is no such field."""
        try:
            return self.channels[name]
        except KeyError:
            known = did_you_mean(name, self.channels)
            raise ConfigError(f"there is no field {name!r}; the fields are {', '.join(self.channels)}{known}") from None

    def conditions(self, name: str) -> Mapping[str, Any]:
        """The conditions of a field. Raises ``ConfigError`` if none are declared."""
        try:
            return self.boundaries[name]
        except KeyError:
            raise ConfigError(
                f"no boundary conditions of the field {name!r} are declared"
                f"{'; declared are those of ' + ', '.join(self.boundaries) if self.boundaries else ''}"
            ) from None


class Constraint(nn.Module, ABC):
    """A layer that makes a field obey.

    ``forward`` returns the nearest field (in a norm that the subclass names) that obeys, and is differentiable.
    ``residual`` says how far a field is from obeying: one relative, dimensionless number for each case, ``(B,)``, 0 for
    a field that obeys. A subclass names in its docstring the *discrete* operator that it makes zero.

    ``options`` are the constructor's arguments, which a saved surrogate keeps.
    """

    name: ClassVar[str]
    """Its key in ``CONSTRAINTS``."""
    affine: ClassVar[bool] = False
    """Whether ``forward`` is the orthogonal projection onto an affine space, so that several of them can be
    imposed together."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def forward(self, u: Tensor, context: Context) -> Tensor:
        """The field that obeys, ``(B, C, *grid)``, from ``u (B, C, *grid)``."""

    @abstractmethod
    def residual(self, u: Tensor, context: Context) -> Tensor:
        """How far each case is from obeying, ``(B,)`` float64."""

    def applies(self, channels: Mapping[str, slice]) -> bool:
        """Whether there is anything to act on among these fields."""
        return True


def replace_channels(u: Tensor, channels: slice, values: Tensor) -> Tensor:
    """``u (B, C, *grid)`` with some of its channels replaced, without writing into it."""
    return torch.cat([u[:, : channels.start], values, u[:, channels.stop :]], 1)

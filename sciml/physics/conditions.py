"""Boundary conditions of a scalar field, one for each side of a box (those of a velocity are in ``boundary``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sciml.physics.boundary import Periodic, Value


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """``u = value`` on the side: a number, ``(B,)``, or ``(B, *side)`` with the cells along the side."""

    value: Value = 0.0


@dataclass(frozen=True, eq=False)
class Neumann:
    """``du/dn = value`` with n the outward normal; values as in ``Dirichlet``."""

    value: Value = 0.0


@dataclass(frozen=True, eq=False)
class Robin:
    """``a u + b du/dn = value`` with n the outward normal; ``a``, ``b`` and the value as in ``Dirichlet``."""

    a: Value
    b: Value
    value: Value = 0.0


Condition: TypeAlias = Dirichlet | Neumann | Robin | Periodic

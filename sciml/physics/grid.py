"""Tensor-product grids on boxes: reference axes on [0, 1] and a physical size per case."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sciml.errors import ConfigError, did_you_mean

Ends = Literal["both", "low", "high"]


@dataclass(frozen=True, eq=False)
class Axis:
    """One reference axis: ``faces (n + 1,)`` float64, rising from 0 to 1, and whether it is periodic.

    Raises ``ConfigError`` when the faces are not one rising row from 0 to 1 or fewer than two cells are
    given.
    """

    faces: Tensor
    periodic: bool = False

    def __post_init__(self) -> None:
        faces = torch.as_tensor(self.faces, dtype=torch.float64).detach().cpu()
        if faces.ndim != 1 or len(faces) < 3:
            raise ConfigError(f"An axis needs at least two cells (three faces), got faces of {tuple(faces.shape)}.")
        if not (faces.diff() > 0).all() or abs(faces[0]) > 1e-12 or abs(faces[-1] - 1) > 1e-12:
            raise ConfigError("The faces of an axis must rise strictly from 0 to 1.")
        object.__setattr__(self, "faces", faces)

    @property
    def n(self) -> int:
        """Number of cells."""
        return len(self.faces) - 1

    @property
    def n_faces(self) -> int:
        """Number of stored faces: n + 1, or n when periodic (face k is the low face of cell k)."""
        return self.n if self.periodic else self.n + 1

    @property
    def centres(self) -> Tensor:
        """Cell centres ``(n,)``."""
        return 0.5 * (self.faces[1:] + self.faces[:-1])

    @property
    def widths(self) -> Tensor:
        """Cell widths ``(n,)``."""
        return self.faces.diff()

    @property
    def centre_distances(self) -> Tensor:
        """Distance of the two cell centres beside each face ``(n + 1,)``.

        At the ends of a wall-bounded axis the neighbour is the mirrored ghost cell, on a periodic axis the
        cell of the other end.
        """
        widths = self.widths
        if self.periodic:
            extended = torch.cat([widths[-1:], widths, widths[:1]])
        else:
            extended = torch.cat([widths[:1], widths, widths[-1:]])
        return 0.5 * (extended[1:] + extended[:-1])

    @property
    def uniform(self) -> bool:
        """Whether all cells have the same width (to round-off)."""
        return bool((self.widths * self.n - 1).abs().max() < 1e-10)


def uniform_axis(n: int, *, periodic: bool = False) -> Axis:
    """``n`` equal cells."""
    return Axis(torch.linspace(0, 1, n + 1, dtype=torch.float64), periodic)


def stretched_axis(n: int, strength: float, *, ends: Ends = "both") -> Axis:
    """``n`` cells clustered by a hyperbolic tangent at both ends, the low end or the high end.

    Both ends: x = (1 + tanh(s (2 k / n - 1)) / tanh(s)) / 2; low end: x = 1 + tanh(s (k / n - 1)) / tanh(s)
    (Vinokur, J. Comput. Phys. 50 (1983) 215). ``strength`` s > 0; 1 to 3 is usual, larger clusters more.
    """
    if not strength > 0 or not math.isfinite(strength):
        raise ConfigError(f"The stretching strength must be positive, got {strength}; use uniform_axis instead of 0.")
    k = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    if ends == "both":
        faces = 0.5 * (1 + torch.tanh(strength * (2 * k - 1)) / math.tanh(strength))
    elif ends == "low":
        faces = 1 + torch.tanh(strength * (k - 1)) / math.tanh(strength)
    elif ends == "high":
        faces = torch.tanh(strength * k) / math.tanh(strength)
    else:
        raise ConfigError(
            f"Unknown ends {ends!r} of a stretched axis{did_you_mean(str(ends), ['both', 'low', 'high'])}"
        )
    faces[0], faces[-1] = 0.0, 1.0  # round-off of tanh/tanh
    return Axis(faces)


@dataclass(frozen=True, eq=False)
class Grid:
    """The product of 1 to 3 axes and the box size of each case: ``lengths (B, dim)``, the physical length per
    axis.

    Raises ``ConfigError`` for a wrong shape or a length that is not positive (naming the case).
    """

    axes: tuple[Axis, ...]
    lengths: Tensor

    def __post_init__(self) -> None:
        axes = tuple(self.axes)
        lengths = torch.as_tensor(self.lengths)
        if not lengths.is_floating_point():
            lengths = lengths.to(torch.float64)
        if not 1 <= len(axes) <= 3:
            raise ConfigError(f"A grid has 1 to 3 axes, got {len(axes)}.")
        if lengths.ndim != 2 or lengths.shape[1] != len(axes):
            raise ConfigError(
                f"lengths must be (batch, {len(axes)}), one length per case and axis; got {tuple(lengths.shape)}."
            )
        check_positive("length", lengths)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "lengths", lengths)

    @property
    def dim(self) -> int:
        return len(self.axes)

    @property
    def batch(self) -> int:
        return self.lengths.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells per axis."""
        return tuple(axis.n for axis in self.axes)

    def face_shape(self, component: int) -> tuple[int, ...]:
        """Shape, without the batch, of velocity component ``component`` on the faces normal to its axis."""
        return tuple(axis.n_faces if i == component else axis.n for i, axis in enumerate(self.axes))

    def centres(self, axis: int) -> Tensor:
        """Cell-centre coordinates of every case ``(B, n)``."""
        return self.lengths[:, axis, None] * self.axes[axis].centres.to(self.lengths)

    def faces(self, axis: int) -> Tensor:
        """Coordinates of the stored faces of every case ``(B, n + 1)``, periodic ``(B, n)``."""
        reference = self.axes[axis].faces[: self.axes[axis].n_faces]
        return self.lengths[:, axis, None] * reference.to(self.lengths)


def box(shape: tuple[int, ...], lengths: Tensor, *, periodic: tuple[bool, ...] | bool = False) -> Grid:
    """A uniform grid: ``box((64, 64), torch.ones(8, 2))`` is 8 unit squares of 64 x 64 cells."""
    flags = (periodic,) * len(shape) if isinstance(periodic, bool) else periodic
    if len(flags) != len(shape):
        raise ConfigError(f"periodic has {len(flags)} entries for {len(shape)} axes.")
    return Grid(tuple(uniform_axis(n, periodic=p) for n, p in zip(shape, flags, strict=True)), lengths)


def check_positive(name: str, values: Tensor) -> None:
    """``ConfigError`` naming the first case whose value is not a positive finite number."""
    good = torch.isfinite(values) & (values > 0)
    if not bool(good.all()):
        bad = (~good).nonzero()[0].tolist()
        raise ConfigError(
            f"The {name} of case {bad[0]} is {values[tuple(bad)].item():g}; it must be positive and finite."
        )

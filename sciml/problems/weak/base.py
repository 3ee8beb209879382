"""A problem in its weak form: an input function a is given, fields u follow, and a residual in the natural norm of the
equation says how far any candidate u is from solving it. No solution is needed to learn from it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.errors import ConfigError, DataError
from sciml.physics.weak import Fields
from sciml.problems.cases import CaseFamily, ParameterValues

Link = Literal["identity", "log", "two_values"]


@dataclass(frozen=True)
class Ansatz:
    """Candidates that obey the boundary conditions whatever N is: u = offset + factor N, at points.

    ``offset (B or 1, C, Q)``, ``factor (C, Q)``, in physical units; with gradients ``(B or 1, C, Q, d)``,
    ``(C, Q, d)`` or None.
    """

    offset: Tensor
    factor: Tensor
    offset_gradient: Tensor | None = None
    factor_gradient: Tensor | None = None

    def value(self, network: Tensor) -> Tensor:
        """u ``(B, C, Q)`` of the network's ``(B, C, Q)``."""
        return self.offset + self.factor * network

    def fields(self, network: Tensor, gradient: Tensor) -> Fields:
        """u and its gradient, of the network's ``(B, C, Q)`` and ``(B, C, Q, d)``."""
        assert self.offset_gradient is not None and self.factor_gradient is not None
        slope = (
            self.offset_gradient + self.factor.unsqueeze(-1) * gradient + self.factor_gradient * network.unsqueeze(-1)
        )
        return Fields(self.value(network), slope)


class WeakProblem(CaseFamily):
    """One input function -> solution fields, on one mesh, for one subset of cases.

    Args:
        subset: of the cases, by default the first.
        resolution: of the mesh (what it counts, the problem says), by default the problem's.

    A subclass sets in its constructor ``input_points (P, d_in)``, ``input_shape`` (their grid, or None) and
    ``points (N, d)`` (where solutions are stored and compared) and ``box``, and defines the methods below. Coordinates
    are in physical units, in the order of ``axes``; a coordinate of time is the last.

    Raises:
        ConfigError: no such subset, or a resolution that is too low.
    """

    input: ClassVar[FieldInfo]
    fields: ClassVar[tuple[FieldInfo, ...]]
    axes: ClassVar[tuple[str, ...]] = ("x", "y")
    input_axes: ClassVar[tuple[str, ...]] = ("x", "y")
    least_resolution: ClassVar[int] = 4
    needs_gradient: ClassVar[bool] = False
    """Whether ``residual_square`` reads gradients of the candidate, or its values alone."""
    link: Link = "identity"
    """How a decoder's output z becomes the input function: a = z, a = exp(z), or ``levels[0]`` where z < 0 and
    ``levels[1]`` elsewhere."""
    levels: tuple[float, float] = (0.0, 1.0)

    n_normals: int = 0
    """Independent standard normal numbers from which ``inputs_from_normals`` makes an input function of the subset; 0:
    the problem does not say how."""

    input_points: Tensor
    input_shape: tuple[int, ...] | None = None
    points: Tensor
    box: tuple[tuple[float, ...], tuple[float, ...]]
    """Lowest and highest coordinates of the domain."""

    def __init__(self, subset: str | None = None, resolution: int | None = None) -> None:
        super().__init__()
        self.subset = self.subsets[0] if subset in (None, "all") else subset
        self.check_subset(1, self.subset)
        self.cells = type(self).resolution if resolution is None else resolution
        if self.cells < self.least_resolution:
            raise ConfigError(
                f"problem {self.name!r}: resolution is {resolution}; expected at least {self.least_resolution}"
            )

    @property
    def n_residuals(self) -> int:
        """Numbers that ``residual_square`` sums, the observations that a residual of zero counts for; by default as
        many as points.
        """
        return len(self.points)

    def draw_cases(self, n: int, seed: int) -> dict[str, Tensor]:
        """Parameters ``(n,)`` of cases of this subset; case i depends on the seed and i only."""
        return self.sample(n, self.subset, seed, self.cells).parameters

    def recipe(self) -> dict[str, Any]:
        """The default training configuration (``sciml.training.latent.config.LatentConfig``) as a plain dictionary."""
        return {"budget": {"minutes": 5.0}}

    @abstractmethod
    def inputs(self, parameters: ParameterValues, refine: int = 1) -> Tensor:
        """The input function of cases at ``input_points``, ``(B, P)`` float64; on a mesh ``refine`` times finer."""

    def inputs_from_normals(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        """Input functions ``(B, P)``, distributed as ``inputs`` is where ``z (B, n_normals)`` ~ N(0, I), by default at
        ``input_points``. The first numbers matter most.

        Raises ``ConfigError`` for a problem that does not say how.
        """
        raise ConfigError(
            f"problem {self.name!r}, subset {self.subset!r}, does not say how its input functions follow from normal "
            "numbers (n_normals, inputs_from_normals)"
        )

    @abstractmethod
    def solve(self, inputs: Tensor, refine: int = 1) -> Tensor:
        """The reference solution ``(B, C, N)`` float64 at ``points``, on a mesh ``refine`` times finer.

        ``inputs``: as from ``inputs``, of this mesh (then the same function on the finer one) or of the finer one.
        Raises ``DataError`` for inputs of another shape or that the equation does not allow, ``SolverError`` where the
        solver does not converge.
        """

    @abstractmethod
    def collocation(self, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Points ``(Q, d)`` at which ``residual_square`` needs the candidate; ``generator``: where they are random."""

    @abstractmethod
    def residual_square(self, points: Tensor, candidate: Fields | Tensor, inputs: Tensor) -> Tensor:
        """Squared natural norm of the residual ``(B,)``, relative: about the squared relative error of the candidate.

        ``points``: from ``collocation``; ``candidate``: values ``(B, C, Q)`` there, or ``Fields`` where
        ``needs_gradient``; ``inputs (B, P)``. Differentiable in candidate and inputs.
        """

    @abstractmethod
    def ansatz(self, points: Tensor, inputs: Tensor, gradient: bool = False) -> Ansatz:
        """How a network's output becomes a candidate at ``points (Q, d)`` for ``inputs (B, P)``."""

    @abstractmethod
    def inside(self, points: Tensor) -> Tensor:
        """Whether each of the points ``(N, d)`` lies in the domain."""

    def check_inputs(self, inputs: Tensor, count: int | None = None) -> Tensor:
        """``inputs`` as float64; ``count``: of their points, by default that of ``input_points``.

        Raises ``DataError`` for another shape than ``(B, count)``, or values that are not finite (and, where a
        logarithm is taken or both of two values are positive, positive).
        """
        count = len(self.input_points) if count is None else count
        if inputs.ndim != 2 or inputs.shape[1] != count:
            raise DataError(f"{self.input.name} has shape {tuple(inputs.shape)}; expected (cases, {count})")
        positive = self.link == "log" or (self.link == "two_values" and min(self.levels) > 0)
        bad = ~(torch.isfinite(inputs) & (inputs > 0)) if positive else ~torch.isfinite(inputs)
        if bad.any():
            case, place = bad.nonzero()[0].tolist()
            kind = "positive and finite" if positive else "finite"
            raise DataError(
                f"{self.input.name} of case {case} is {float(inputs[case, place])} at point {place}; it must be {kind}"
            )
        return inputs.double()

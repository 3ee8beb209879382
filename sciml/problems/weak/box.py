"""A scalar steady equation on a box, in the few lines that the user writes: its weak form and the law of its input.

class Reaction(BoxProblem):                              # -div(a grad u) + u^3 = 50 in the unit square, u = 0
    name, link = "reaction", "log"

    def flux(self, x, u, du, a):
        return a.unsqueeze(-1) * du[:, 0]

    def source(self, x, u, du, a):
        return u[:, 0] ** 3 - 50

    def draw_input(self, generator, points):
        slope = torch.randn(2, generator=generator, dtype=points.dtype)
        return torch.exp(points @ slope)

run = train_latent(config, problem=Reaction())
surrogate = sciml.load(run.directory, problem=Reaction())
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.datasets import FieldInfo
from sciml.errors import ConfigError, SolverError
from sciml.physics.weak import Fields, HatSpace, WeakForm
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import draw_number
from sciml.problems.weak.base import Ansatz, WeakProblem

MOST_NODES = {1: 1_000_000, 2: 300_000, 3: 30_000}
"""Unknowns that ``solve`` takes on, by the number of axes: a direct solve of more takes minutes or all memory."""


class BoxProblem(WeakProblem):
    """-div F(x, u, grad u, a) + G(x, u, grad u, a) = 0 on a box of 1 to 3 axes; a is given, one value a cell.

    Candidates are multilinear finite elements (their nodal values), test functions the hats of the nodes that are not
    on a Dirichlet side. The natural norm of the residual is the dual one, ``r^T K^-1 r`` with the Laplacian K, here
    relative to that of the lift (u = 0 where there is none). ``resolution`` counts the cells of the first axis; on the
    others they are about as long.

    A subclass sets ``name``, defines ``flux`` (F), ``source`` (G) and ``draw_input``, and may set:

    - ``lengths`` and ``origin`` of the box (default: the unit square; the origin);
    - ``dirichlet``: sides (``x_low``, ...) on which u is that of ``lift`` (default 0), by default all; on the others
      F . n = 0. ``mass``: see ``HatSpace``; necessary where there is no Dirichlet side;
    - ``link``, ``levels``: of a (default ``identity``; ``log`` where a is positive);
    - ``unit``: about the largest ``|u - lift|``, by default that of the solution of the first case;
    - ``input``, ``fields`` (one of one component), ``title``: names and units.

    Raises:
        ConfigError: as ``WeakProblem`` and ``HatSpace``.
    """

    title = "A problem of one's own"
    resolution: ClassVar[int] = 32
    static = True
    input = FieldInfo("coefficient", 1, "1", order=0)
    fields = (FieldInfo("solution", 1, "1", order=0),)
    parameters = (Parameter("draw", "1", "selects the input function", draw=True, default=0.0),)
    subsets = ("own",)
    lengths: ClassVar[tuple[float, ...]] = (1.0, 1.0)
    origin: ClassVar[tuple[float, ...] | None] = None
    dirichlet: ClassVar[tuple[str, ...] | None] = None
    mass: ClassVar[float] = 0.0
    unit: float | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.dims = (len(cls.lengths),)
        cls.axes = cls.input_axes = ("x", "y", "z")[: len(cls.lengths)]

    def __init__(self, subset: str | None = None, resolution: int | None = None) -> None:
        super().__init__(subset, resolution)
        self._spaces: dict[tuple[int, torch.dtype, torch.device], HatSpace] = {}
        low = self.origin or (0.0,) * len(self.lengths)
        self.box = (tuple(low), tuple(a + length for a, length in zip(low, self.lengths, strict=True)))
        self.input_shape = self.shape(1)
        self.input_points = self.centres(1)
        self.points = self.space(self.input_points).nodes

    # --------------------------------------------------------------------------------------- what the user writes

    @abstractmethod
    def flux(self, x: Tensor, u: Tensor, du: Tensor, a: Tensor) -> Tensor:
        """F ``(B, Q, d)`` at points x ``(Q, d)`` of u ``(B, 1, Q)``, its gradient ``(B, 1, Q, d)``, a ``(B, Q)``."""

    @abstractmethod
    def source(self, x: Tensor, u: Tensor, du: Tensor, a: Tensor) -> Tensor:
        """G ``(B, Q)`` or, where it depends on x alone, ``(Q,)``."""

    def draw_input(self, generator: torch.Generator, points: Tensor) -> Tensor:
        """One random input function at ``points (P, d)`` float64: ``(P,)``.

        A function of the points: what it takes from the generator must not depend on how many there are.
        """
        raise NotImplementedError(f"{type(self).__name__} has no draw_input")

    def lift(self, points: Tensor) -> Tensor:
        """A function ``(N,)`` on the whole box whose values on the Dirichlet sides are those of u."""
        return points.new_zeros(len(points))

    # ---------------------------------------------------------------------------------------------------- the mesh

    def shape(self, refine: int) -> tuple[int, ...]:
        """Cells of each axis, on a mesh ``refine`` times finer."""
        size = self.lengths[0] / self.cells
        return tuple(refine * max(2, round(length / size)) for length in self.lengths)

    def centres(self, refine: int) -> Tensor:
        """Centres of the cells ``(P, d)`` float64, C order."""
        axes = [
            low + (torch.arange(n, dtype=torch.float64) + 0.5) * (length / n)
            for n, low, length in zip(self.shape(refine), self.box[0], self.lengths, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)

    def space(self, like: Tensor, refine: int = 1) -> HatSpace:
        """The hats in the dtype and on the device of ``like``."""
        key = (refine, like.dtype, like.device)
        if key not in self._spaces:
            self._spaces[key] = HatSpace(
                self.shape(refine),
                self.lengths,
                origin=self.origin,
                dirichlet=self.dirichlet,
                mass=self.mass,
                dtype=like.dtype,
                device=like.device,
            )
        return self._spaces[key]

    # -------------------------------------------------------------------------------------------- cases, solutions

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """A number that selects the input function."""
        return {"draw": draw_number(generator)}

    def inputs(self, parameters: ParameterValues, refine: int = 1) -> Tensor:
        """The input function at the centres of the cells ``(B, P)``, C order."""
        points = self.centres(refine)
        draws = self.as_parameters(parameters)["draw"].tolist()
        drawn = [self.draw_input(torch.Generator().manual_seed(int(number)), points) for number in draws]
        for values in drawn:
            if values.shape != points.shape[:1]:
                raise ConfigError(f"draw_input returns the shape {tuple(values.shape)}; expected ({len(points)},)")
        return torch.stack(drawn).double()

    def solve(self, inputs: Tensor, refine: int = 1) -> Tensor:
        """Nodal values ``(B, 1, N)`` of the finite-element solution, by Newton's method from the lift.

        Raises ``SolverError`` for a mesh of more nodes than a direct solve takes on, as well.
        """
        nodal = self.solve_finely(inputs, refine).unflatten(1, [n + 1 for n in self.shape(refine)])
        for axis in range(len(self.lengths)):
            nodal = nodal.index_select(axis + 1, torch.arange(0, nodal.shape[axis + 1], refine))
        return nodal.flatten(1).unsqueeze(1)

    def solve_finely(self, inputs: Tensor, refine: int) -> Tensor:
        """The solution at all nodes ``(B, N)`` of the finer mesh."""
        from sciml.solvers.galerkin import solve_galerkin

        cells = self.cellwise(inputs, refine)
        count, most = math.prod(n + 1 for n in self.shape(refine)), MOST_NODES[len(self.lengths)]
        if count > most:
            raise SolverError(
                f"problem {self.name!r}: a mesh of {count:,} nodes is too fine for a direct solve (at most {most:,}); "
                "use a lower resolution"
            )
        space = self.space(cells, refine)
        form, lift = WeakForm(space, self.flux, self.source), self.lift(space.nodes)
        solutions = []
        for part in cells.split(max(1, 3_200_000 // len(space.weights))):
            coefficient = space.at_points(part)

            def residual(nodal: Tensor, coefficient: Tensor = coefficient) -> Tensor:
                return form.residual(space.interpolate(nodal.unsqueeze(1)), coefficient)[:, 0]

            solutions.append(solve_galerkin(residual, space, lift.expand(len(part), -1)))
        return torch.cat(solutions)

    def cellwise(self, inputs: Tensor, refine: int) -> Tensor:
        """Input functions of this mesh or of the finer one, on the cells of the finer one ``(B, *cells)`` float64.

        Raises ``DataError`` as ``solve`` does.
        """
        count = math.prod(self.shape(refine))
        if inputs.ndim == 2 and inputs.shape[1] == count:
            return self.check_inputs(inputs, count).unflatten(1, self.shape(refine))
        cells = self.check_inputs(inputs).unflatten(1, self.shape(1))
        for axis in range(len(self.lengths)):
            cells = cells.repeat_interleave(refine, axis + 1)
        return cells

    # --------------------------------------------------------------------------------------------- what is learned

    def collocation(self, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """The nodes."""
        return self.space(like).nodes

    def residual_square(self, points: Tensor, candidate: Fields | Tensor, inputs: Tensor) -> Tensor:
        """``r^T K^-1 r`` of the candidate over that of the lift."""
        assert isinstance(candidate, Tensor)
        space = self.space(candidate)
        coefficient = space.at_points(inputs.unflatten(1, self.shape(1)))
        square = WeakForm(space, self.flux, self.source).square(space.interpolate(candidate), coefficient)
        return square / self.lift_square(space, coefficient)

    def lift_square(self, space: HatSpace, coefficient: Tensor) -> Tensor:
        """``r^T K^-1 r`` of the lift, ``(B,)``."""
        fields = space.interpolate(self.lift(space.nodes).expand(len(coefficient), 1, -1))
        return WeakForm(space, self.flux, self.source).square(fields, coefficient)

    def ansatz(self, points: Tensor, inputs: Tensor, gradient: bool = False) -> Ansatz:
        """u = lift + unit N times, of each axis (s from 0 to 1), sin(pi s) between two Dirichlet sides, sin(pi s / 2)
        or cos(pi s / 2) where one is, 1 where none.
        """
        if self.unit is None:
            self.unit = self._typical_size()
        factors = [self._vanishing(axis, points[:, axis]) for axis in range(points.shape[1])]
        factor = self.unit * math.prod((value for value, _ in factors), start=torch.ones_like(points[:, 0]))
        offset = self.lift(points)
        if not gradient:
            return Ansatz(offset.expand(1, 1, -1), factor.unsqueeze(0))
        slopes = [
            self.unit * math.prod((pair[int(other == axis)] for other, pair in enumerate(factors)))
            for axis in range(points.shape[1])
        ]
        (rise,) = torch.func.vjp(self.lift, points)[1](torch.ones_like(offset))
        return Ansatz(
            offset.expand(1, 1, -1), factor.unsqueeze(0), rise[None, None], torch.stack(slopes, -1).unsqueeze(0)
        )

    def inside(self, points: Tensor) -> Tensor:
        """Within the box, sides included."""
        low, high = points.new_tensor(self.box)
        return ((points >= low) & (points <= high)).all(-1)

    def _vanishing(self, axis: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """A function of one coordinate that is 0 on the Dirichlet sides of its axis alone, and its derivative."""
        name, length = self.axes[axis], self.lengths[axis]
        sides = self.space(x).dirichlet
        low, high = f"{name}_low" in sides, f"{name}_high" in sides
        s = (x - self.box[0][axis]) / length
        if low and high:
            return torch.sin(math.pi * s), math.pi / length * torch.cos(math.pi * s)
        rate = math.pi / (2 * length)
        if low:
            return torch.sin(math.pi / 2 * s), rate * torch.cos(math.pi / 2 * s)
        if high:
            return torch.cos(math.pi / 2 * s), -rate * torch.sin(math.pi / 2 * s)
        return torch.ones_like(s), torch.zeros_like(s)

    def _typical_size(self) -> float:
        """Largest ``|u - lift|`` of the first case.

        Raises ``ConfigError`` where the lift solves the equation.
        """
        inputs = self.inputs(self.draw_cases(1, seed=0))
        space = self.space(inputs)
        if not float(self.lift_square(space, space.at_points(self.cellwise(inputs, 1)))) > 0:
            raise ConfigError(
                f"problem {self.name!r}: its lift (u = 0 unless you define another) solves the equation, so there is "
                "nothing to learn; check flux and source (a right-hand side f is - f in the source)"
            )
        return float((self.solve(inputs)[0, 0] - self.lift(space.nodes)).abs().max())

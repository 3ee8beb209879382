"""Mixture-of-experts constraint: weights of basis fields, tile by tile, that make a PDE's residual vanish.

PI-HC-MoE (Chalapathi, Du, Krishnapriyan, arXiv:2402.13412): an operator gives N basis fields on the space-time grid;
in every tile of the grid an expert finds the weights of its own combination of them by non-linear least squares; the
gradient of the result flows back to the basis by implicit differentiation. There tiles know nothing of one another,
and then a small residual does not make a solution (measured: 1e-5 beside an error of 0.3); by default they are coupled
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sciml.collectives import Group, own_share, shared, spread
from sciml.constraints.least_squares import Options, PointwiseProblem, least_squares, least_squares_of_shares
from sciml.constraints.mixture_of_experts.equation import Equation
from sciml.constraints.mixture_of_experts.report import ExpertReport
from sciml.constraints.mixture_of_experts.rows import (
    agreement_rows,
    condition_rows,
    gather,
    gather_terms,
    gathered_coefficients,
    sampled,
    stacked_rows,
)
from sciml.constraints.mixture_of_experts.tilings import Tiling, tiling_of
from sciml.errors import ConfigError, DataError, did_you_mean

Mode = Literal["coupled", "overlap", "independent"]
DAMPING = 1e-8
"""First damping: the equations are nearly linear in the weights, and more of it doubles the iterations."""
EQUATIONS_PER_WEIGHT = 2
"""Equations at the faces between two tiles for each difference of their weights: more cost time and change little."""


class MixtureOfExpertsConstraint(nn.Module):
    """Basis fields ``(B, N, *shape)`` to the field ``(B, *shape)`` whose residual is least, for any ``Equation``.

    Args:
        tiles: experts along each axis of the equation's rows: ``(time, x[, y])``, or ``(x, y)`` for a static equation;
            None: one expert for the whole grid (PI-HC). Axes that the tiles do not divide get tiles of two sizes.
        tiling: what neighbours share. "coupled": their fields and what the equation needs beside (normal derivative or
            flux) agree at the faces between them, all tiles of a case are solved at once. "overlap": tiles reach
            ``overlap`` rows into their neighbours, agree at both ends of the overlap, are solved at once and blended
            by a smooth partition of unity. "independent": nothing, as in the paper; every expert has the boundary
            conditions of the whole grid in addition to its own rows.
        interface_weight, condition_weight: of the disagreement at faces and of the conditions, beside a residual of 1.
        overlap: rows (see above).
        samples: rows that each expert is solved on, drawn at random; None: all.
        seed: of the draw.
        ridge: of the weights, in units of the mean square residual.
        options, gradient, on_failure: of ``least_squares``; options None: its own with less damping at first.

    ``expert_group``: ranks that share the experts of every case (``sciml.collectives``), all of
    which have the same basis and call the layer alike; None: this process solves all. Training sets it
    (``parallel.expert``).

    The solution's quality is in ``report`` (``ExpertReport``) after each call. Everything is computed in float64; the
    result has that type. Raises ``ConfigError`` for a tiling that does not fit the grid, ``DataError`` for a basis that
    does not fit the equation, is not finite or has fields that depend on one another.
    """

    name = "mixture-of-experts"

    def __init__(
        self,
        tiles: Sequence[int] | None = None,
        *,
        tiling: Mode = "coupled",
        interface_weight: float = 10.0,
        condition_weight: float = 10.0,
        overlap: int = 2,
        samples: int | None = None,
        seed: int = 0,
        ridge: float = 1e-10,
        options: Options | None = None,
        gradient: str = "full",
        on_failure: str = "warn",
    ) -> None:
        super().__init__()
        if tiling not in get_args(Mode):
            raise ConfigError(f"unknown tiling {tiling!r}{did_you_mean(str(tiling), get_args(Mode))}")
        if tiling == "overlap" and overlap < 1:
            raise ConfigError(f"the overlap is {overlap} rows; tiling='overlap' needs at least 1")
        if samples is not None and samples < 1:
            raise ConfigError(f"samples is {samples}; expected a number of rows, or None for all")
        for label, value in (("interface_weight", interface_weight), ("condition_weight", condition_weight)):
            if not value > 0:
                raise ConfigError(f"{label} is {value}; expected a positive number")
        self.tiles = None if tiles is None else tuple(tiles)
        self.tiling, self.overlap, self.samples, self.seed = tiling, overlap, samples, seed
        self.interface_weight, self.condition_weight, self.ridge = interface_weight, condition_weight, ridge
        self.solver = options if options is not None else Options(damping=DAMPING)
        self.gradient, self.on_failure = gradient, on_failure
        self.report: ExpertReport | None = None
        self.expert_group: Group = None

    def forward(self, basis: Tensor, equation: Equation, *, draw: int = 0) -> Tensor:
        """The field ``(B, *shape)`` float64 in physical units; ``draw``: number of the random draw of rows."""
        equation.check_basis(basis)
        lifted = equation.lift(basis.double())
        tiling = self._tiling(equation, basis.shape[1])
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
        rows, valid = sampled(tiling, self.samples, generator)
        if rows.shape[1] < basis.shape[1]:
            raise ConfigError(
                f"a tile has {rows.shape[1]} rows for the weights of {basis.shape[1]} basis fields; use fewer tiles or "
                "basis fields, or more samples"
            )
        check_rank(lifted)
        terms = equation.terms(shared(lifted, self.expert_group), homogeneous=True)
        known = equation.terms(equation.offset.unsqueeze(1), homogeneous=False)
        neighbours = lifted.detach() if self.tiling == "independent" else lifted
        agreement = agreement_rows(equation, neighbours, tiling)
        problem = self._problem(equation, tiling, lifted, terms, known, agreement, rows, valid)
        how = {"options": self.solver, "gradient": self.gradient, "on_failure": self.on_failure}
        near = nearest_weights(lifted.detach(), equation)
        if self.tiling == "independent":
            start = near.repeat_interleave(problem.shape[0] // equation.batch, 0)
            solution = least_squares_of_shares(problem, start, tiles=tiling.count, group=self.expert_group, **how)
        else:
            solution = least_squares(problem, self._start(problem, near), **how)
        weights = solution.weights.reshape(equation.batch, tiling.count, -1)
        field = equation.offset + blended(lifted, weights, equation, tiling)
        with torch.no_grad():
            self.report = self._describe(
                equation, tiling, weights, terms, known, agreement, rows, valid, field, solution.report
            )
        return field

    def residual(self, field: Tensor, equation: Equation) -> Tensor:
        """Root mean square ``(B,)`` of the residual rows of a field ``(B, *shape)``, which are of order 1."""
        return equation.rows(field.double()).flatten(1).square().mean(1).sqrt()

    def _start(self, problem: PointwiseProblem, start: Tensor) -> Tensor:
        """First weights of all tiles: those of one expert for all rows, found from ``start (B, N)``.

        They satisfy all agreement. From others the stiff agreement holds many coupled tiles back: each step can move
        them little.
        """
        _, experts, _, functions = problem.shape
        if experts == 1:
            return start
        tensors = [tensor.detach() for tensor in problem.parameters]
        terms, tensors = tensors[: problem.n_terms], tensors[problem.n_terms :]
        coefficients, linear = tensors[: problem.n_coefficients], tensors[problem.n_coefficients :]
        if linear:  # rows that every expert is to meet by itself; agreement says nothing here
            linear = [linear[0].unflatten(2, (experts, functions)).sum(2), linear[1]]
        one = PointwiseProblem(
            terms,
            problem.function,
            coefficients,
            rows=(linear[0], linear[1]) if linear else None,
            ridge=self.ridge,
            common=True,
            group=self.expert_group,
            tiles=experts,
        )
        found = least_squares(one, start, options=self.solver, gradient="none", on_failure="mask").weights
        return found.repeat(1, experts)

    def _tiling(self, equation: Equation, functions: int) -> Tiling:
        tiles = (1,) * len(equation.row_shape) if self.tiles is None else self.tiles
        overlap = self.overlap if self.tiling == "overlap" else 0
        axes = range(len(equation.row_shape))
        faces = tuple(math.ceil(EQUATIONS_PER_WEIGHT * functions / equation.quantities(axis)) for axis in axes)
        return tiling_of(equation.row_shape, tiles, equation.periodic, overlap, faces)

    def _problem(
        self,
        equation: Equation,
        tiling: Tiling,
        lifted: Tensor,
        terms: Sequence[Tensor],
        known: Sequence[Tensor],
        agreement: Tensor | None,
        rows: Tensor,
        valid: Tensor,
    ) -> PointwiseProblem:
        independent = self.tiling == "independent"
        batch, count = equation.batch, tiling.count
        axes = len(equation.row_shape)
        group = self.expert_group
        own = own_share(count, group)
        rows = rows[own]
        taken = [gather_terms(term, rows, axes) for term in terms]
        total = valid[own].sum(1, keepdim=True) if independent else valid.sum()
        weight = (valid[own] / total.sqrt()).to(lifted).expand(batch, -1, -1)
        coefficients = [
            *(gather(shared(term[:, 0], group), rows, axes) for term in known),
            weight,
            *(shared(value, group) for value in gathered_coefficients(equation, rows)),
        ]
        blocks: list[tuple[Tensor, Tensor | None]] = []
        if agreement is not None and not independent:
            scale = self.interface_weight / count**0.5
            blocks.append((scale * agreement.flatten(2), None))
        if independent or not equation.conditions_in_rows:
            found = condition_rows(equation, lifted, tiling, everywhere=independent)
            if found is not None:
                values, sides = (self.condition_weight * part for part in found)
                if independent:
                    blocks.append((spread(values, 1, group).flatten(0, 1), spread(sides, 1, group).flatten(0, 1)))
                else:
                    whole = torch.eye(count).to(lifted)[None, :, None, :, None] * values[:, :, :, None]
                    blocks.append((whole.flatten(1, 2).flatten(2), sides.flatten(1)))
        if independent:
            taken = [term.flatten(0, 1).unsqueeze(1) for term in taken]
            coefficients = [value.expand(-1, len(rows), -1).reshape(-1, 1, value.shape[2]) for value in coefficients]
        known_count = len(known)

        def function(values: Sequence[Tensor], *given: Tensor) -> Tensor:
            whole = [value + offset for value, offset in zip(values, given[:known_count], strict=True)]
            return given[known_count] * equation.function(whole, given[known_count + 1 :])

        coupled = {} if independent or count == 1 else {"group": group, "tiles": count}
        return PointwiseProblem(
            tuple(taken), function, tuple(coefficients), rows=stacked_rows(blocks), ridge=self.ridge, **coupled
        )

    def _describe(
        self,
        equation: Equation,
        tiling: Tiling,
        weights: Tensor,
        terms: Sequence[Tensor],
        known: Sequence[Tensor],
        agreement: Tensor | None,
        rows: Tensor,
        valid: Tensor,
        field: Tensor,
        report: Any,
    ) -> ExpertReport:
        # Of every row its owner's expert, also where tiles overlap.
        owner = tiling.owner.flatten()
        local = weights[:, owner].transpose(1, 2)
        values = [
            (term.flatten(2) * local).sum(1) + offset.flatten(1) for term, offset in zip(terms, known, strict=True)
        ]
        coefficients = [value.flatten(1) for value in gathered_coefficients(equation, torch.arange(len(owner))[None])]
        square = equation.function(values, coefficients).square()
        inside = torch.zeros(tiling.count, len(owner), dtype=torch.bool)
        for part, (places, counts) in enumerate(zip(rows, valid, strict=True)):
            inside[part, places[counts]] = True
        chosen = inside[owner, torch.arange(len(owner))].to(square.device)
        jump = equation.scale.new_zeros(equation.batch)
        if agreement is not None:
            jump = value_jumps(equation, agreement, tiling, weights)
        return ExpertReport(
            least_squares=report,
            sampled=square[:, chosen].mean(1).sqrt(),
            held_out=square[:, ~chosen].mean(1).sqrt(),
            stitched=self.residual(field.detach(), equation),
            jump=jump,
            failed=report.failed.reshape(equation.batch, -1),
        )


def blended(lifted: Tensor, weights: Tensor, equation: Equation, tiling: Tiling) -> Tensor:
    """The experts' fields put together, ``(B, *shape)``, from ``lifted (B, N, *shape)`` and ``weights (B, K, N)``.

    A frame of an evolution belongs to the tile of the interval before it, the first frame to that of the first.
    """
    row_count = tiling.owner.numel()
    numbers = torch.arange(row_count).reshape(tiling.row_shape)
    if equation.shape[0] == tiling.row_shape[0] + 1:
        numbers = torch.cat([numbers[:1], numbers])
    if tiling.count == 1:
        return torch.einsum("bn...,bn->b...", lifted, weights[:, 0])
    if tiling.blend is None:
        local = weights[:, tiling.owner.flatten()[numbers.flatten()]]
    else:
        local = tiling.blend[numbers.flatten()].to(weights) @ weights
    return (lifted.flatten(2) * local.transpose(1, 2)).sum(1).unflatten(1, equation.shape)


def nearest_weights(lifted: Tensor, equation: Equation) -> Tensor:
    """The weights ``(B, N)`` of ``lifted (B, N, *shape)`` that come nearest to the equation's first guess."""
    guess = equation.guess
    if guess is None:
        return lifted.new_zeros(lifted.shape[:2])
    columns = lifted.flatten(2).transpose(1, 2)
    wanted = (guess - equation.offset).flatten(1).unsqueeze(2)
    return torch.linalg.lstsq(columns, wanted).solution.squeeze(2)


def value_jumps(equation: Equation, agreement: Tensor, tiling: Tiling, weights: Tensor) -> Tensor:
    """Largest difference of two neighbours' values at their faces, ``(B,)``."""
    differences = torch.einsum("blkn,bkn->bl", agreement, weights).abs()
    largest = weights.new_zeros(len(weights))
    start = 0
    for interface in tiling.interfaces:
        faces = len(interface.low)  # of each quantity, one after another, the value first
        values = differences[:, start : start + faces] / interface.share.sqrt().to(weights)
        largest = torch.maximum(largest, values.amax(1))
        start += equation.quantities(interface.axis) * faces
    return largest


def check_rank(lifted: Tensor) -> None:
    """Raises ``DataError`` where basis fields are zero or depend on one another to round-off."""
    fields = lifted.detach().flatten(2)
    norms = fields.norm(dim=2)
    if bool((norms == 0).any()):
        case, number = (norms == 0).nonzero()[0].tolist()
        raise DataError(
            f"basis field {number} of case {case} is zero everywhere (or uniform, where the mean is removed); every "
            "basis field has to add something"
        )
    fields = fields / norms[:, :, None]
    values = torch.linalg.eigvalsh(fields @ fields.transpose(1, 2))
    # The squares of the singular values: what is lost in them is looked at more closely.
    suspect = (values[:, 0] <= 8 * torch.finfo(torch.float64).eps * values[:, -1]).nonzero().flatten()
    for case in suspect.tolist():
        rank = int(torch.linalg.matrix_rank(torch.linalg.qr(fields[case].T, mode="r").R))
        if rank < fields.shape[1]:
            raise DataError(
                f"the {fields.shape[1]} basis fields of case {case} depend on one another: only {rank} are "
                "independent; use fewer output channels, or a wider last layer of the operator"
            )

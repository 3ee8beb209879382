"""The surrogate itself: states in physical units in, states in physical units out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciml.constraints import Constraint, impose
from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.operators import Operator
from sciml.operators.layers.scattered import nearest_values
from sciml.problems.base import Problem, detached
from sciml.problems.cases import ParameterValues
from sciml.surrogate.conditions import at_time, check_blocks, observed_ranges, reference_interval
from sciml.surrogate.constraining import Imposed, check_applies, constraint_context
from sciml.surrogate.geometry import ZeroInSolid, geometry_of
from sciml.surrogate.normaliser import Normaliser
from sciml.surrogate.ranges import OutOfRangeWarning, warn_out_of_range

Fields = Mapping[str, Tensor]


class Surrogate(nn.Module):
    """An operator between physical fields of a problem: one step ahead in time, or a map from some to others.

    Of a problem with obstacles the operator also reads the geometry, which follows from the parameters; what a state
    holds in solid cells is taken for 0, and predictions are exactly 0 there.

    Args:
        operator: network between the channels of ``channel_names(...)``, conditioned on the problem's
            ``conditions``.
        problem: gives fields, units, scales and conditions.
        normaliser: statistics of the scaled fields.
        fields: names of the fields in the state, in channel order.
        kind: "step" (use ``step`` and ``rollout``) or "map" (use ``solve``).
        inputs: names of the fields that a map reads, in channel order; none: it reads the parameters alone.
        points: whether a map reads values at scattered points instead of whole fields; the number it was trained with.
        history: frames that a step reads.
        target: whether the operator's output is the increment or the next state.
        interval: seconds between frames in the training data, the default of ``step``; None if it differed between
        cases.
        time_scale: of an operator that is conditioned on the lead time, the seconds that count as time 1: it is given
        ``interval / time_scale``, and ``conditions`` of a step of ``time_scale`` seconds whatever the interval. None
        for other operators, and for static problems, where the time is always 1.
        pairs: which frames it learned to step between: "successive" ones, or "all" pairs of a trajectory, so that
        one step may be of any length between ``interval`` and ``time_scale``.
        grid: cells of the training grid; None if unknown.
        ranges: name -> (low, high) of the training cases' parameters, conditions and interval.
        constraints: what every prediction is made to obey, in this order, and when.
        provenance: anything worth keeping about the training (shown in the model card).
    """

    def __init__(
        self,
        operator: Operator,
        problem: Problem,
        normaliser: Normaliser,
        *,
        fields: Sequence[str] = ("velocity",),
        kind: Literal["step", "map"] = "step",
        inputs: Sequence[str] = (),
        points: int | None = None,
        history: int = 1,
        target: Literal["increment", "state"] = "increment",
        interval: float | None = None,
        time_scale: float | None = None,
        pairs: Literal["successive", "all"] = "successive",
        grid: Sequence[int] | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
        constraints: Sequence[Imposed] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.operator = operator
        self.problem = problem
        self.normaliser = normaliser
        known = {field.name: field for field in problem.fields}
        for name in (*fields, *inputs):
            if name not in known:
                raise ConfigError(f"problem {problem.name!r} has no field {name!r}{did_you_mean(name, known)}")
        self.fields = {name: known[name] for name in fields}
        self.kind = kind
        self.inputs = {name: known[name] for name in inputs} if kind == "map" else self.fields
        self.points = points
        self.history = history
        self.target = target
        self.interval = interval
        self.time_scale = time_scale
        self.pairs = pairs
        self._check_lead_time()
        self.grid = None if grid is None else tuple(grid)
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in (ranges or {}).items()}
        self.imposed = tuple(constraints)
        self.constraints = nn.ModuleList(imposed.constraint for imposed in constraints)
        check_applies(self.imposed, problem, self.fields)
        self.provenance = dict(provenance or {})

    def _check_lead_time(self) -> None:
        if not self.operator.time_conditioning:
            if self.time_scale is not None or self.pairs == "all":
                raise ConfigError(
                    "time_scale and pairs='all' are for operators that are conditioned on the lead time; make the "
                    "operator with time_conditioning=True"
                )
        elif self.problem.static != (self.time_scale is None):
            wanted = (
                "none: the problem has no time" if self.problem.static else "seconds: the operator needs lead times"
            )
            raise ConfigError(f"time_scale is {self.time_scale}; expected {wanted}")
        elif self.time_scale is not None and not 0 < self.time_scale < math.inf:
            raise ConfigError(f"time_scale is {self.time_scale}; it must be positive and finite")
        if self.pairs == "all" and (self.kind != "step" or self.history != 1):
            raise ConfigError("pairs='all' goes with kind='step' and history=1")
        if self.temporal > 1 and (self.kind != "step" or self.pairs == "all"):
            raise ConfigError(
                f"the operator gives {self.temporal} frames at once (temporal), which goes with kind='step' and "
                "pairs='successive'"
            )

    # ------------------------------------------------------------------ the step that training differentiates through

    @property
    def temporal(self) -> int:
        """Frames that one call of the operator gives; rollouts go on from the last."""
        return self.operator.temporal

    @property
    def channels(self) -> int:
        """Channels of a state."""
        return sum(field.components for field in self.fields.values())

    def field_scales(self, parameters: Mapping[str, Tensor], names: Iterable[str] | None = None) -> Tensor:
        """Natural unit of each channel of the predicted (or the named) fields, ``(B, C)``."""
        scales = self.problem.scales(parameters)
        units = torch.cat([scales[name] for name in (self.fields if names is None else names)], -1)
        return units.to(self.normaliser.mean.dtype)

    def forward(
        self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor, points: Tensor | None = None
    ) -> Tensor:
        """The predicted fields ``(B, C, *grid)`` from ``state (B, history, C, *grid)``, parameters ``(B,)`` and
        seconds ``(B,)``.

        With ``points (B, N, dim)``, as fractions of the box, ``state`` is ``(B, 1, C, N)``. Unchecked and
        differentiable; ``step`` and ``solve`` are the friendly forms.
        """
        return self.denormalise(*self.predict(state, parameters, interval, points))

    def advance(self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """All frames that one call of the operator gives, ``(B, temporal, C, *grid)``; frame k is ``k + 1`` intervals
        ahead. As ``forward`` unchecked and differentiable.
        """
        scaled, scale = self.predict_frames(state, parameters, interval)
        return scaled * scale.unsqueeze(1)

    def predict(
        self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor, points: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As ``forward`` in scaled units ``(B, C, *grid)`` (physical / scale), and the scale ``(B, C, 1...)``."""
        frames, scale = self.predict_frames(state, parameters, interval, points)
        return frames[:, 0], scale

    def predict_frames(
        self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor, points: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As ``advance`` in scaled units ``(B, temporal, C, *grid)``, and the scale ``(B, C, 1...)``."""
        scaled, scale = self._unconstrained(state, parameters, interval, points)
        constraints = self.active_constraints()
        if not constraints:
            return scaled, scale
        # Constraints see every frame as a case of its own.
        count = self.temporal
        every = {name: values.repeat_interleave(count, 0) for name, values in parameters.items()}
        ahead = interval.unsqueeze(1) * torch.arange(1, count + 1, dtype=interval.dtype, device=interval.device)
        before = state[:, -1].repeat_interleave(count, 0) if self.kind == "step" else None
        context = constraint_context(self, every, tuple(scaled.shape[3:]), before, ahead.flatten())
        column = scale.repeat_interleave(count, 0)
        solids = [] if context.fluid is None else [ZeroInSolid()]
        imposed = impose([*constraints, *solids], self.denormalise(scaled.flatten(0, 1), column), context)
        # Of several together the last digits are left over: exact zeros again.
        for constraint in solids:
            imposed = constraint(imposed, context)
        return (imposed / column).unflatten(0, (-1, count)), scale

    def active_constraints(self) -> list[Constraint]:
        """The constraints that act now: in training, in evaluation, or in both."""
        now = "training" if self.training else "evaluation"
        return [imposed.constraint for imposed in self.imposed if imposed.when in ("both", now)]

    def unconstrained(
        self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor, points: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As ``predict``, before any constraint is imposed."""
        frames, scale = self._unconstrained(state, parameters, interval, points)
        return frames[:, 0], scale

    def _unconstrained(
        self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor, points: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        norm, dim = self.normaliser, self.problem.dim
        scale = self._columns(self.field_scales(parameters).to(state.device), dim)
        mean, std = self._columns(norm.mean, dim), self._columns(norm.std, dim)
        grid = tuple(state.shape[3:]) if points is None and self.inputs else self._known_grid()
        geometry = geometry_of(self.problem, parameters, grid, state)
        if geometry is not None and points is None and self.inputs:
            state = geometry.masked(state)
        x, scaled = self._standard_input(state, parameters, points)
        if geometry is not None:
            x = torch.cat([x, geometry.inputs], 1)
        conditions = None
        if self.problem.condition_names:
            raw = self.conditions(parameters, interval).to(state.device, norm.mean.dtype)
            conditions = (raw - norm.condition_mean) / norm.condition_std
        time = self.lead_time(interval)
        if time is not None:
            time = time.to(state.device, norm.mean.dtype)
        output = self.operator(x, time=time, parameters=conditions).to(scaled.dtype)
        output = output.unflatten(1, (self.temporal, -1))
        if self.target == "increment":
            # Frame k is k + 1 steps away: the output is the mean change of a step.
            ahead = self.operator.stride * torch.arange(1, self.temporal + 1, dtype=scaled.dtype, device=scaled.device)
            step = self._columns(norm.increment_std, dim) * self._columns(ahead, dim + 1)
            made = scaled[:, -1:] + output * step
        else:
            made = output * std + mean
        return made if geometry is None else geometry.masked(made), scale

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """The dimensionless numbers ``(B, P)`` that the operator is conditioned on, before they are standardised.

        Those of the step; where the lead time is an input of its own, those of a step of ``time_scale`` seconds: many
        hold the logarithm of the interval, which a pair of a frame with itself does not have. An operator whose frames
        are several intervals apart (``stride``) was trained with those of one.
        """
        one = interval / self.operator.stride
        return self.problem.conditions(parameters, reference_interval(one, self.time_scale))

    def lead_time(self, interval: Tensor) -> Tensor | None:
        """What the operator is told of the interval ``(B,)``; None for one that is not conditioned on it."""
        if not self.operator.time_conditioning:
            return None
        one = interval / self.operator.stride
        return torch.ones_like(one) if self.time_scale is None else one / self.time_scale

    def _standard_input(
        self, state: Tensor, parameters: Mapping[str, Tensor], points: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What the operator reads ``(B, channels, *grid)``, and the state in scaled units."""
        if not self.inputs:
            grid = self._known_grid()
            return state.new_ones(state.shape[0], 1, *grid), state
        norm, axes = self.normaliser, state.ndim - 3
        scaled = state / self._columns(self.field_scales(parameters, self.inputs).to(state.device), axes).unsqueeze(1)
        mean, std = self._columns(norm.input_mean, axes), self._columns(norm.input_std, axes)
        standard = ((scaled - mean) / std).flatten(1, 2)
        if points is None:
            return standard, scaled
        values, distance = nearest_values(standard, points.to(standard), self._known_grid(), self._periodic())
        return torch.cat([values, distance], 1), scaled

    def _known_grid(self) -> tuple[int, ...]:
        if self.grid is None:
            raise ConfigError("this surrogate has no grid of its own: give it grid=(nx, ...)")
        return self.grid

    def _periodic(self) -> tuple[bool, ...]:
        boundaries = self.problem.boundaries()
        return tuple(boundaries[f"{axis}_low"] == "periodic" for axis in "xyz"[: self.problem.dim])

    @staticmethod
    def _columns(values: Tensor, axes: int) -> Tensor:
        """``(..., C)`` as ``(..., C, 1, ...)`` beside a grid of so many axes."""
        return values.reshape(*values.shape, *(1,) * axes)

    @staticmethod
    def denormalise(scaled: Tensor, scale: Tensor) -> Tensor:
        """Back to physical units."""
        return scaled * scale

    # --------------------------------------------------------------------------------------- what users call

    def step(
        self, state: Tensor | Fields, parameters: ParameterValues, interval: float | Tensor | None = None
    ) -> Tensor | dict[str, Tensor]:
        """One frame ahead, in physical units.

        ``state``: a tensor ``(B, C, *grid)`` with the channels of ``fields`` (``(B, history, C, *grid)`` for a
        surrogate with history), or a dictionary ``{"velocity": (B, 2, nx, ny)}`` as ``problem.solve`` returns for one
        time. The answer has the form of the question. ``interval`` is the step in seconds, by default the one of the
        training data; a surrogate that learned all pairs of frames jumps as far as ``time_scale`` at once.

        Raises ``DataError`` for a wrong shape or non-finite values, ``ConfigError`` for wrong parameters; warns
        (``OutOfRangeWarning``) when a parameter leaves the training range.
        """
        frames = self.rollout(state, parameters, 1, interval)
        if isinstance(frames, dict):
            return {name: values[:, -1] for name, values in frames.items()}
        return frames[:, -1]

    def rollout(
        self,
        state: Tensor | Fields,
        parameters: ParameterValues,
        steps: int,
        interval: float | Tensor | None = None,
        *,
        gradients: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """``steps`` frames ahead: ``(B, steps, C, *grid)`` or a dictionary of fields; the initial state is not
        repeated.

        A parameter of shape ``(B, steps)`` changes in time (of an operator that gives several frames at once only from
        one call to the next). ``interval`` may be a number, ``(B,)`` or ``(B, steps)``. Otherwise as ``step``.

        ``gradients=True``: the frames can be differentiated with respect to the state, to parameters that are tensors,
        and to the weights (``surrogate.requires_grad_(False)`` spares these): optimal control, inverse problems. Memory
        grows with the steps.
        """
        with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
            return self._rollout(state, parameters, steps, interval)

    def _rollout(
        self, state: Tensor | Fields, parameters: ParameterValues, steps: int, interval: float | Tensor | None
    ) -> Tensor | dict[str, Tensor]:
        if self.kind != "step":
            raise ConfigError("this surrogate is a map, it has no steps: use surrogate.solve(inputs, parameters)")
        if steps < 1:
            raise ConfigError(f"steps is {steps}; at least 1 is needed")
        window = self._as_window(state)
        batch = window.shape[0]
        values = self.problem.as_parameters(parameters, batch, draws=False)
        intervals = self._as_intervals(interval, batch, steps)
        check_blocks(values, intervals, self.temporal)
        self._warn_out_of_range(values, intervals, tuple(window.shape[3:]))
        window = window.to(self.normaliser.mean.device)
        training = self.training
        self.eval()
        frames: list[Tensor] = []
        for index in range(0, steps, self.temporal):
            now = at_time(values, index, steps)
            following = self.advance(window, now, intervals[:, index])[:, : steps - index]
            frames.append(following)
            window = torch.cat([window, following], 1)[:, -self.history :]
        self.train(training)
        return self._in_form_of(state, torch.cat(frames, 1))

    @torch.no_grad()
    def solve(
        self,
        inputs: Tensor | Fields,
        parameters: ParameterValues,
        points: Tensor | None = None,
        interval: float | Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The output fields of a map, in physical units.

        ``inputs``: a tensor ``(B, C, *grid)`` with the channels of ``inputs``, or a dictionary ``{"permeability":
        (B, 1, nx, ny)}``; for a surrogate that reads points ``(B, C, N)`` with ``points (N, dim)`` or ``(B, N, dim)``
        in metres; ``{}`` for one that reads the parameters alone. The answer ``(B, C, *grid)`` has the form of the
        question.

        Raises ``DataError`` for a wrong shape, non-finite values or points outside the box, ``ConfigError`` for wrong
        parameters; warns (``OutOfRangeWarning``) when a parameter leaves the training range.
        """
        if self.kind != "map":
            raise ConfigError("this surrogate steps in time: use surrogate.step or surrogate.rollout")
        if self.inputs:
            state = self._as_inputs(inputs, points)
            values = self.problem.as_parameters(parameters, state.shape[0], draws=False)
        else:
            values = self.problem.as_parameters(parameters, draws=False)
            state = torch.empty(len(next(iter(values.values()))), 1, 0)
        batch, device = state.shape[0], self.normaliser.mean.device
        seconds = torch.zeros(batch, 1).double() if self.problem.static else self._as_intervals(interval, batch, 1)
        grid = self._known_grid() if points is not None or not self.inputs else tuple(state.shape[3:])
        self._warn_out_of_range(values, seconds, grid)
        where = None if points is None else self._as_fractions(points, values, batch, state.shape[-1])
        training = self.training
        self.eval()
        answer = self(state.to(device), at_time(values, 0, 1), seconds[:, 0], where)
        self.train(training)
        if not isinstance(inputs, Mapping):
            return answer
        parts = answer.split([field.components for field in self.fields.values()], 1)
        return dict(zip(self.fields, parts, strict=True))

    def _as_inputs(self, inputs: Tensor | Fields, points: Tensor | None) -> Tensor:
        axes = self.problem.dim if self.points is None else 1
        if (points is None) != (self.points is None):
            reads = "whole fields, without points" if self.points is None else "values at points: give points (N, dim)"
            raise DataError(f"this surrogate reads {reads}")
        names, channels = list(self.inputs), sum(field.components for field in self.inputs.values())
        if isinstance(inputs, Mapping):
            missing = [name for name in names if name not in inputs]
            if missing:
                raise DataError(f"the inputs lack the field {missing[0]!r}; this surrogate reads {', '.join(names)}")
            inputs = torch.cat([torch.as_tensor(inputs[name]) for name in names], -axes - 1)
        state = torch.as_tensor(inputs, dtype=self.normaliser.mean.dtype)
        if state.ndim != axes + 2 or state.shape[1] != channels:
            where = "*grid" if self.points is None else "points"
            raise DataError(
                f"the inputs have shape {tuple(state.shape)}; expected (batch, {channels}, {where}) with the channels "
                f"of {', '.join(names)}"
            )
        self._check_finite(state, "the input")
        return state.unsqueeze(1)

    @staticmethod
    def _check_finite(state: Tensor, what: str) -> None:
        if not torch.isfinite(state).all():
            case = int((~torch.isfinite(state)).reshape(len(state), -1).any(1).nonzero()[0, 0])
            raise DataError(f"{what} of case {case} holds NaN or infinite values")

    def _as_fractions(self, points: Tensor, values: Mapping[str, Tensor], batch: int, count: int) -> Tensor:
        """Points in metres as fractions of the box, ``(B, N, dim)``."""
        where = torch.as_tensor(points, dtype=torch.float64)
        dim = self.problem.dim
        if where.shape[-2:] != (count, dim) or where.ndim > 3 or (where.ndim == 3 and len(where) != batch):
            raise DataError(
                f"points have shape {tuple(where.shape)}; expected ({count}, {dim}) or ({batch}, {count}, {dim}), one "
                "for each value"
            )
        low = torch.tensor(self.problem.origin(), dtype=torch.float64)
        fractions = (where - low) / self.problem.lengths(at_time(values, 0, 1)).unsqueeze(1)
        if not ((fractions >= -1e-6) & (fractions <= 1 + 1e-6)).all():
            raise DataError("a point lies outside the box (or is not finite); points are in metres")
        return fractions

    def _as_window(self, state: Tensor | Fields) -> Tensor:
        if isinstance(state, Mapping):
            missing = [name for name in self.fields if name not in state]
            if missing:
                raise DataError(
                    f"the state lacks the field {missing[0]!r}; this surrogate needs {', '.join(self.fields)}, "
                    f"and was given {', '.join(state) or 'nothing'}"
                )
            state = torch.cat([torch.as_tensor(state[name]) for name in self.fields], -self.problem.dim - 1)
        state = torch.as_tensor(state, dtype=self.normaliser.mean.dtype)
        given = tuple(state.shape)
        expected = f"(batch, {self.channels}, *grid)"
        if self.history > 1:
            expected = f"(batch, {self.history}, {self.channels}, *grid)"
        elif state.ndim == self.problem.dim + 2:
            state = state.unsqueeze(1)
        if state.ndim != self.problem.dim + 3 or tuple(state.shape[1:3]) != (self.history, self.channels):
            raise DataError(
                f"the state has shape {given}; expected {expected} with the channels of "
                f"{', '.join(f'{field.name} ({field.components})' for field in self.fields.values())}"
            )
        self._check_finite(state, "the state")
        return state

    def _in_form_of(self, state: Tensor | Fields, frames: Tensor) -> Tensor | dict[str, Tensor]:
        if not isinstance(state, Mapping):
            return frames
        parts = frames.split([field.components for field in self.fields.values()], 2)
        return dict(zip(self.fields, parts, strict=True))

    def _as_intervals(self, interval: float | Tensor | None, batch: int, steps: int) -> Tensor:
        if interval is None:
            if self.interval is None:
                raise ConfigError("this surrogate was trained on several frame intervals: give interval= in seconds")
            interval = self.interval
        values = torch.as_tensor(interval, dtype=torch.float64).cpu()
        if values.ndim == 1:
            values = values.unsqueeze(1)
        try:
            values = values.expand(batch, steps)
        except RuntimeError:
            raise ConfigError(
                f"interval has shape {tuple(values.shape)}; expected a number, ({batch},) or ({batch}, {steps})"
            ) from None
        if not (torch.isfinite(values) & (values > 0)).all():
            raise ConfigError("interval must be positive and finite")
        return values

    def _warn_out_of_range(self, values: Mapping[str, Tensor], intervals: Tensor, grid: tuple[int, ...]) -> None:
        if self.grid not in (None, grid):
            warnings.warn(
                f"the state has {cells(grid)} cells; the surrogate was trained on {cells(self.grid)} and its error "
                "is unknown on another grid",
                OutOfRangeWarning,
                stacklevel=4,
            )
        observed = observed_ranges(self.problem, detached(values), intervals / self.operator.stride, self.time_scale)
        warn_out_of_range(observed, self.ranges, stacklevel=5)

    def coarse(self, phase: Sequence[int] | None = None, frames: str = "all") -> Surrogate:
        """The simulation on one of the coarse grids of a ``NeuralStagger``: ``sciml.surrogate.coarse.coarse``."""
        from sciml.surrogate.coarse import coarse

        return coarse(self, phase, frames)

    def save(self, directory: Path | str) -> Path:
        """Write the surrogate, as ``storage.save``; return the directory."""
        from sciml.surrogate.storage import save

        return save(self, directory)


def cells(grid: Sequence[int]) -> str:
    return "x".join(str(n) for n in grid)

"""What a user carries away: an operator with its normaliser, units and range of validity.

    surrogate = sciml.load("runs/cavity/unet/.../surrogate")
    state = surrogate.step(state, parameters)
    trajectory = surrogate.rollout(state, parameters, steps=20)

One step travels: physical state -> divided by the problem's scales -> standardised -> operator(conditions) ->
increment or state ->
back to physical units. Training differentiates through exactly this path.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciml.errors import CheckpointError, ConfigError, DataError, did_you_mean
from sciml.operators import Operator
from sciml.problems import get_problem
from sciml.problems.base import ParameterValues, Problem
from sciml.version import __version__

Fields = Mapping[str, Tensor]


class Normaliser(nn.Module):
    """Mean and standard deviation of scaled fields, increments and conditions, pooled over the training cases."""

    def __init__(self, statistics: Mapping[str, Sequence[float]]) -> None:
        super().__init__()
        for name in ("mean", "std", "increment_std", "condition_mean", "condition_std"):
            self.register_buffer(name, torch.tensor(statistics[name], dtype=torch.float32))

    mean: Tensor
    std: Tensor
    increment_std: Tensor
    condition_mean: Tensor
    condition_std: Tensor

    def as_dict(self) -> dict[str, list[float]]:
        """The statistics as plain lists, for ``config.json``."""
        return {name: buffer.tolist() for name, buffer in self.named_buffers()}


class OutOfRangeWarning(UserWarning):
    """A parameter lies outside the range that the surrogate was trained on."""


class Surrogate(nn.Module):
    """An operator that steps physical fields of a problem.

    Args:
        operator: network from ``history * channels`` to ``channels``, conditioned on the problem's ``conditions``.
        problem: gives fields, units, scales and conditions.
        normaliser: statistics of the scaled fields.
        fields: names of the fields in the state, in channel order.
        history: frames that a step reads.
        target: whether the operator's output is the increment or the next state.
        interval: seconds between frames in the training data, the default of ``step``; None if it differed between
        cases.
        grid: cells of the training grid; None if unknown.
        ranges: name -> (low, high) of the training cases' parameters, conditions and interval.
        provenance: anything worth keeping about the training (shown in the model card).
    """

    def __init__(
        self,
        operator: Operator,
        problem: Problem,
        normaliser: Normaliser,
        *,
        fields: Sequence[str] = ("velocity",),
        history: int = 1,
        target: Literal["increment", "state"] = "increment",
        interval: float | None = None,
        grid: Sequence[int] | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.operator = operator
        self.problem = problem
        self.normaliser = normaliser
        known = {field.name: field for field in problem.fields}
        for name in fields:
            if name not in known:
                raise ConfigError(f"problem {problem.name!r} has no field {name!r}{did_you_mean(name, known)}")
        self.fields = {name: known[name] for name in fields}
        self.history = history
        self.target = target
        self.interval = interval
        self.grid = None if grid is None else tuple(grid)
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in (ranges or {}).items()}
        self.provenance = dict(provenance or {})

    # ------------------------------------------------------------------ the step that training differentiates through

    @property
    def channels(self) -> int:
        """Channels of a state."""
        return sum(field.components for field in self.fields.values())

    def field_scales(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Natural unit of each channel, ``(B, C)`` float32."""
        scales = self.problem.scales(parameters)
        return torch.cat([scales[name] for name in self.fields], -1).to(torch.float32)

    def forward(self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """The next state ``(B, C, *grid)`` from ``state (B, history, C, *grid)``, parameters ``(B,)`` and seconds
        ``(B,)``.

        Unchecked and differentiable; ``step`` is the friendly form.
        """
        return self.denormalise(*self.predict(state, parameters, interval))

    def predict(self, state: Tensor, parameters: Mapping[str, Tensor], interval: Tensor) -> tuple[Tensor, Tensor]:
        """The next state in scaled units ``(B, C, *grid)`` (physical / scale), and the scale ``(B, C, 1...)``."""
        norm, grid = self.normaliser, (1,) * (state.ndim - 3)
        scale = self.field_scales(parameters).to(state.device)
        scale = scale.reshape(*scale.shape, *grid)
        column = (1, -1, *grid)
        scaled = state / scale.unsqueeze(1)
        mean, std = norm.mean.reshape(column), norm.std.reshape(column)
        standard = ((scaled - mean.unsqueeze(1)) / std.unsqueeze(1)).flatten(1, 2)
        raw = self.problem.conditions(parameters, interval).to(state.device, torch.float32)
        conditions = (raw - norm.condition_mean) / norm.condition_std
        output = self.operator(standard, parameters=conditions).to(scaled.dtype)
        if self.target == "increment":
            return scaled[:, -1] + output * norm.increment_std.reshape(column), scale
        return output * std + mean, scale

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
        training data.

        Raises ``DataError`` for a wrong shape or non-finite values, ``ConfigError`` for wrong parameters; warns
        (``OutOfRangeWarning``) when a parameter leaves the training range.
        """
        frames = self.rollout(state, parameters, 1, interval)
        if isinstance(frames, dict):
            return {name: values[:, -1] for name, values in frames.items()}
        return frames[:, -1]

    @torch.no_grad()
    def rollout(
        self,
        state: Tensor | Fields,
        parameters: ParameterValues,
        steps: int,
        interval: float | Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """``steps`` frames ahead: ``(B, steps, C, *grid)`` or a dictionary of fields; the initial state is not
        repeated.

        A parameter of shape ``(B, steps)`` changes in time. ``interval`` may be a number, ``(B,)`` or ``(B, steps)``.
        Otherwise as ``step``.
        """
        if steps < 1:
            raise ConfigError(f"steps is {steps}; at least 1 is needed")
        window = self._as_window(state)
        batch = window.shape[0]
        values = self.problem.as_parameters(parameters, batch)
        intervals = self._as_intervals(interval, batch, steps)
        self._warn_out_of_range(values, intervals, tuple(window.shape[3:]))
        window = window.to(self.normaliser.mean.device)
        training = self.training
        self.eval()
        frames = []
        for index in range(steps):
            now = at_time(values, index, steps)
            following = self(window, now, intervals[:, index])
            frames.append(following)
            window = torch.cat([window[:, 1:], following.unsqueeze(1)], 1)
        self.train(training)
        return self._in_form_of(state, torch.stack(frames, 1))

    def _as_window(self, state: Tensor | Fields) -> Tensor:
        if isinstance(state, Mapping):
            missing = [name for name in self.fields if name not in state]
            if missing:
                raise DataError(
                    f"the state lacks the field {missing[0]!r}; this surrogate needs {', '.join(self.fields)}, "
                    f"and was given {', '.join(state) or 'nothing'}"
                )
            state = torch.cat([torch.as_tensor(state[name]) for name in self.fields], -self.problem.dim - 1)
        state = torch.as_tensor(state, dtype=torch.float32)
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
        if not torch.isfinite(state).all():
            case = int((~torch.isfinite(state)).reshape(len(state), -1).any(1).nonzero()[0, 0])
            raise DataError(f"the state of case {case} holds NaN or infinite values")
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
                f"the state has {_cells(grid)} cells; the surrogate was trained on {_cells(self.grid)} and its error "
                "is unknown on another grid",
                OutOfRangeWarning,
                stacklevel=4,
            )
        steps = intervals.shape[1]
        observed = observed_ranges(self.problem, values, intervals, steps)
        for name, (low, high) in self.ranges.items():
            least, most = observed[name]
            slack = 1e-6 * max(abs(low), abs(high))
            if least < low - slack or most > high + slack:
                given = f"{least:.4g}" if math.isclose(least, most) else f"{least:.4g} to {most:.4g}"
                warnings.warn(
                    f"{name} is {given}; the surrogate was trained on {low:.4g} to {high:.4g} and its error is "
                    f"unknown outside",
                    OutOfRangeWarning,
                    stacklevel=4,
                )

    # ------------------------------------------------------------------------------------------- on disk

    def save(self, directory: Path | str) -> Path:
        """Write ``surrogate.json``, the operator's two files and the model card ``README.md``; return the directory."""
        directory = Path(directory)
        config = {
            "sciml_version": __version__,
            "problem": self.problem.name,
            "fields": {name: {"components": f.components, "unit": f.unit} for name, f in self.fields.items()},
            "parameters": {parameter.name: parameter.unit for parameter in self.problem.parameters},
            "history": self.history,
            "target": self.target,
            "interval": self.interval,
            "grid": self.grid,
            "normaliser": self.normaliser.as_dict(),
            "ranges": self.ranges,
            "provenance": self.provenance,
        }
        self.operator.save_pretrained(directory)
        (directory / "surrogate.json").write_text(json.dumps(config, indent=2) + "\n")
        (directory / "README.md").write_text(model_card(self))
        return directory


def _cells(grid: Sequence[int]) -> str:
    return "x".join(str(n) for n in grid)


def at_time(values: Mapping[str, Tensor], index: int, steps: int) -> dict[str, Tensor]:
    """The parameters ``(B,)`` acting on step ``index``; those of shape (B, T) must cover all ``steps``."""
    now = {}
    for name, value in values.items():
        if value.ndim == 2:
            if value.shape[1] < steps:
                raise ConfigError(f"parameter {name!r} is given for {value.shape[1]} steps; {steps} are asked for")
            value = value[:, index]
        now[name] = value
    return now


def observed_ranges(
    problem: Problem, values: Mapping[str, Tensor], intervals: Tensor, steps: int
) -> dict[str, tuple[float, float]]:
    """Least and greatest parameter, interval and dimensionless condition over all cases and steps."""
    observed = {name: (float(value.min()), float(value.max())) for name, value in values.items()}
    observed["interval"] = (float(intervals.min()), float(intervals.max()))
    conditions = torch.stack(
        [problem.conditions(at_time(values, index, steps), intervals[:, index]) for index in range(steps)]
    ).flatten(0, 1)
    for column, name in enumerate(problem.condition_names):
        observed[name] = (float(conditions[:, column].min()), float(conditions[:, column].max()))
    return observed


def load(path: Path | str, device: torch.device | str = "cpu") -> Surrogate:
    """Load a surrogate from its directory, or from the run directory that holds it.

    Raises ``CheckpointError`` if the directory is missing, is not a surrogate, or is damaged.
    """
    directory = Path(path)
    if (directory / "surrogate" / "surrogate.json").is_file():
        directory = directory / "surrogate"
    file = directory / "surrogate.json"
    try:
        config = json.loads(file.read_text())
    except OSError:
        what = "is not there" if not directory.exists() else "holds no surrogate (no surrogate.json)"
        raise CheckpointError(f"{path} {what}; give a run directory or the surrogate directory inside it") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    try:
        surrogate = Surrogate(
            Operator.from_pretrained(directory),
            get_problem(config["problem"]),
            Normaliser(config["normaliser"]),
            fields=list(config["fields"]),
            history=config["history"],
            target=config["target"],
            interval=config["interval"],
            grid=config["grid"],
            ranges=config["ranges"],
            provenance=config["provenance"],
        )
    except KeyError as error:
        raise CheckpointError(
            f"{file} lacks the key {error}; it was written by sciml "
            f"{config.get('sciml_version', 'of unknown version')}, this is {__version__}"
        ) from None
    return surrogate.to(device).eval()


def model_card(surrogate: Surrogate) -> str:
    """What the surrogate is, takes, returns and was trained on, as Markdown."""
    names = ", ".join(f"`{f.name}` ({f.components}, {f.unit})" for f in surrogate.fields.values())
    count = sum(parameter.numel() for parameter in surrogate.operator.parameters())
    rows = "\n".join(f"| `{name}` | {low:.6g} | {high:.6g} |" for name, (low, high) in surrogate.ranges.items())
    provenance = "\n".join(f"- {key}: {value}" for key, value in surrogate.provenance.items())
    length = "a given time" if surrogate.interval is None else f"{surrogate.interval:g} s"
    on = f" on {_cells(surrogate.grid)} cells" if surrogate.grid else ""
    return f"""# Surrogate: {surrogate.problem.title}

{type(surrogate.operator).__name__} with {count:,} parameters; steps {names} by {length}{on}.

        surrogate = sciml.load("path/to/this/directory")
    state = surrogate.step(state, parameters)   # state: (batch, {surrogate.channels}, nx, ny) in physical units

Parameters: {", ".join(f"`{p.name}` ({p.unit})" for p in surrogate.problem.parameters)}.

## Range of the training data
Outside this range the surrogate warns, and its error is unknown.

| quantity | from | to |
|---|---|---|
{rows}

## Provenance
{provenance or "- not recorded"}
"""

"""What is learned: the next state from the last ``history`` states, unrolled over several steps; or pairs: jumps
between two frames of a trajectory, and maps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sciml.surrogate import Surrogate
from sciml.training.data import Batch, Pairs
from sciml.training.losses import Loss


class UnrolledLoss(nn.Module):
    """Mean loss of the surrogate's own steps along a window of true frames.

    One module with one ``forward`` per training step, so that ``DistributedDataParallel`` can wrap it.

    Args:
        surrogate: the model.
        loss: from ``sciml.training.losses``.
        pushforward: if true only the last step is differentiated and scored, its input being the model's own prediction
            (Brandstetter, Worrall, Welling 2022, "Message passing neural PDE solvers").
        noise: standard deviation of Gaussian noise added to the input, in units of each channel's increments
            (Sanchez-Gonzalez et al. 2020).
    """

    def __init__(self, surrogate: Surrogate, loss: Loss, *, pushforward: bool = False, noise: float = 0.0) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.loss = loss
        self.pushforward = pushforward
        self.noise = noise

    def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """The loss of a batch; ``generator`` draws the noise."""
        surrogate = self.surrogate
        state, history, temporal = batch.state, surrogate.history, surrogate.temporal
        calls = (state.shape[1] - history) // temporal
        groups = [field.components for field in surrogate.fields.values()]
        window = state[:, :history]
        losses = []
        for call in range(calls):
            index = call * temporal
            parameters, interval = transition(batch, index, history)
            if call == 0 and self.noise > 0:
                window = self._with_noise(window, parameters, generator)
            scored = not self.pushforward or call == calls - 1
            with torch.set_grad_enabled(scored and torch.is_grad_enabled()):
                frames, scale = surrogate.predict_frames(window, parameters, interval)
            weight = common_units(scale, groups)
            if scored:
                cells = _cells(fluid_beside(surrogate, parameters, state))
                truth = state[:, history + index : history + index + temporal]
                losses += [
                    self.loss(made * weight, true / scale * weight, groups, *cells)
                    for made, true in zip(frames.unbind(1), truth.unbind(1), strict=True)
                ]
            following = surrogate.denormalise(frames, scale.unsqueeze(1))
            window = torch.cat([window, following], 1)[:, -history:]
        return torch.stack(losses).mean()

    def _with_noise(self, window: Tensor, parameters: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        column = (1, 1, -1, *(1,) * (window.ndim - 3))
        amplitude = self.surrogate.field_scales(parameters).to(window.device).unsqueeze(1)
        amplitude = amplitude.reshape(*amplitude.shape, *column[3:])
        amplitude = self.noise * amplitude * self.surrogate.normaliser.increment_std.reshape(column)
        # Drawn on the CPU: the same noise on every device.
        return window + amplitude * torch.randn(window.shape, generator=generator).to(window.device)


class PairLoss(nn.Module):
    """Loss of pairs of fields: of a map, or of one step between two frames, however far apart.

    Args:
        surrogate: the model; if it reads points, new ones are drawn for every batch, at cell centres.
        loss: from ``sciml.training.losses``.
    """

    def __init__(self, surrogate: Surrogate, loss: Loss) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.loss = loss

    def forward(self, batch: Pairs, generator: torch.Generator) -> Tensor:
        """The loss of a batch; ``generator`` draws the points."""
        surrogate = self.surrogate
        groups = [field.components for field in surrogate.fields.values()]
        # One set of points for the batch: their nearest cells are then found once.
        state, points = observed(surrogate, batch.input, generator, shared=True)
        prediction, scale = surrogate.predict(state, batch.parameters, batch.interval, points)
        weight = common_units(scale, groups)
        cells = _cells(fluid_beside(surrogate, batch.parameters, batch.target))
        return self.loss(prediction * weight, batch.target / scale * weight, groups, *cells)


def fluid_beside(surrogate: Surrogate, parameters: Mapping[str, Tensor], fields: Tensor) -> Tensor | None:
    """The cells ``(B, *grid)`` that count in ``fields (B, ..., C, *grid)`` of cases with parameters ``(B,)``, on their
    device; None: all.
    """
    fluid = surrogate.problem.fluid_cells(parameters, tuple(fields.shape[-surrogate.problem.dim :]))
    return None if fluid is None else fluid.to(fields.device)


def _cells(fluid: Tensor | None) -> tuple[Tensor, ...]:
    """The last argument of a loss: a loss of one's own need not know of obstacles where there are none."""
    return () if fluid is None else (fluid,)


def observed(
    surrogate: Surrogate, fields: Tensor, generator: torch.Generator, shared: bool = False
) -> tuple[Tensor, Tensor | None]:
    """What a map reads of ``fields (B, C, *grid)``: ``(B, 1, C, *grid)``, or values ``(B, 1, C, N)`` at random cell
    centres and these as fractions of the box ``(B, N, dim)``, or ``(1, N, dim)`` where the cases share them.
    """
    if surrogate.points is None:
        return fields.unsqueeze(1), None
    grid = fields.shape[2:]
    sets = 1 if shared else fields.shape[0]
    # Drawn on the CPU: the same points on every device.
    order = torch.rand(sets, math.prod(grid), generator=generator).argsort(1)[:, : surrogate.points]
    cells = order.to(fields.device)
    index = cells.unsqueeze(1).expand(fields.shape[0], fields.shape[1], -1)
    values = fields.flatten(2).gather(2, index)
    places = torch.unravel_index(cells, grid)
    points = torch.stack([(place + 0.5) / n for place, n in zip(places, grid, strict=True)], -1)
    return values.unsqueeze(1), points


def common_units(scale: Tensor, groups: Sequence[int]) -> Tensor:
    """What turns the components of a field from units of their own into the unit of the field's first component.

    The loss then weighs the components of a velocity as the metrics do, which work in m/s.
    """
    parts = [part / part[:, :1] for part in scale.split(list(groups), 1)]
    return torch.cat(parts, 1)


def transition(batch: Batch, index: int, history: int = 1) -> tuple[dict[str, Tensor], Tensor]:
    """Parameters ``(B,)`` and interval ``(B,)`` of the step from frame ``history - 1 + index`` of a batch to the
    next.
    """
    frame = history - 1 + index
    interval = batch.time[:, frame + 1] - batch.time[:, frame]
    return {name: values[:, index] for name, values in batch.parameters.items()}, interval

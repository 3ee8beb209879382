"""Monitors to learn from: of bumps, fronts, rings and random fields, in boxes of many shapes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciml.constraints.mesh_mover import Box, curvature_monitor, gradient_monitor, smooth


def random_box(dim: int, generator: torch.Generator) -> Box:
    """Longest side 1 m; half of the boxes are cubes, and an axis in four is periodic."""
    u = torch.rand(2 * dim + 1, generator=generator).tolist()
    lengths = [1.0] * dim if u[-1] < 0.5 else [0.4 + 0.6 * value for value in u[:dim]]
    longest = max(lengths)
    return Box(tuple(length / longest for length in lengths), tuple(value < 0.25 for value in u[dim : 2 * dim]))


def random_monitors(
    batch: int, cells: tuple[int, ...], box: Box, generator: torch.Generator, *, largest_share: float = 0.85
) -> Tensor:
    """Monitors ``(batch, *cells)`` of random fields: three in four of curvature, the others of gradients."""
    u = torch.stack([random_field(cells, box, generator) for _ in range(batch)]).unsqueeze(1)
    width, kind = torch.rand(2, generator=generator).tolist()
    monitor = curvature_monitor if kind < 0.75 else gradient_monitor
    smoothing = (1 + width) * max(box.spacing(cells))
    made = monitor(u, box, share=0.5, smoothing=smoothing, rough="ignore")
    # The share enters linearly: each sample can have its own.
    shares = 0.1 + (largest_share - 0.1) * torch.rand(batch, generator=generator)
    return 1 + (made - 1) * (2 * shares).reshape(-1, *(1,) * box.dim)


def random_field(cells: tuple[int, ...], box: Box, generator: torch.Generator) -> Tensor:
    """One field ``(*cells)``: bumps, fronts, rings (shells) or a random field with plateaus."""

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    kinds = [_bumps, _rings, _plateaus] if any(box.periodic) else [_bumps, _rings, _plateaus, _fronts]
    made = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    return made(box.centres(cells), box, generator, draw)


def _offsets(places: Tensor, box: Box, draw: Callable[[float, float], float]) -> list[Tensor]:
    """Of the places from a random centre, the nearest way round periodic axes."""
    offsets = []
    for axis, (length, periodic) in enumerate(zip(box.lengths, box.periodic, strict=True)):
        offset = places[..., axis] - draw(0.1, 0.9) * length
        offsets.append(offset - length * torch.round(offset / length) if periodic else offset)
    return offsets


def _rotation(dim: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator))[0]


def _bumps(places: Tensor, box: Box, generator: torch.Generator, draw: Callable[[float, float], float]) -> Tensor:
    total = torch.zeros(places.shape[:-1])
    for _ in range(1 + int(draw(0, 3))):
        offset = torch.stack(_offsets(places, box, draw), -1) @ _rotation(box.dim, generator)
        widths = torch.tensor([draw(0.04, 0.16) for _ in range(box.dim)])
        total += draw(-1, 1) * torch.exp(-0.5 * (offset / widths).square().sum(-1))
    return total


def _rings(places: Tensor, box: Box, generator: torch.Generator, draw: Callable[[float, float], float]) -> Tensor:
    total = torch.zeros(places.shape[:-1])
    for _ in range(1 + int(draw(0, 2))):
        stretch = torch.tensor([draw(0.7, 1.4) for _ in range(box.dim)])
        distance = (torch.stack(_offsets(places, box, draw), -1) * stretch).norm(dim=-1)
        radius, width = draw(0.1, 0.4), draw(0.03, 0.09)
        total += draw(0.3, 1.3) * torch.exp(-(((distance - radius) / width) ** 2))
    return total


def _fronts(places: Tensor, box: Box, generator: torch.Generator, draw: Callable[[float, float], float]) -> Tensor:
    total = torch.zeros(places.shape[:-1])
    for _ in range(1 + int(draw(0, 2))):
        turned = torch.stack(_offsets(places, box, draw), -1) @ _rotation(box.dim, generator)
        bent = draw(0, 0.15) * torch.sin(2 * math.pi * draw(1, 3) * turned[..., 1] + draw(0, 2 * math.pi))
        total += draw(0.3, 1.3) * torch.tanh((turned[..., 0] + bent) / draw(0.03, 0.1))
    return total


def _plateaus(places: Tensor, box: Box, generator: torch.Generator, draw: Callable[[float, float], float]) -> Tensor:
    noise = torch.randn(1, 1, *places.shape[:-1], generator=generator)
    smoothed = smooth(noise, box, draw(0.04, 0.12), "even")[0, 0]
    return torch.tanh(draw(1, 5) * smoothed / smoothed.std())

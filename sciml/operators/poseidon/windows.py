"""Windows of tokens: how large, how they are cut out and put back, and which tokens a shift brings together."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]
MASKED = -200.0
"""Added to the logits of pairs that only a shift has made neighbours. The published value: -100, added twice."""


def window_and_shift(tokens: Size, largest: Size) -> tuple[Size, Size]:
    """Size of the windows on a level of ``tokens``, and by how much every second block shifts them.

    An axis that fits into one window is not shifted.
    """
    window = tuple(min(n, w) for n, w in zip(tokens, largest, strict=True))
    shift = tuple(0 if n <= w else w // 2 for n, w in zip(tokens, largest, strict=True))
    return window, shift  # type: ignore[return-value]


def padded(grid: Size, window: Size) -> Size:
    """The grid filled up to whole windows."""
    height, width = (-(-n // w) * w for n, w in zip(grid, window, strict=True))
    return height, width


def partition(x: Tensor, window: Size, shift: Size) -> Tensor:
    """``(B, height, width, C)`` to windows ``(B, count, tokens, C)``, rows first; zeros fill the last windows."""
    batch, height, width, channels = x.shape
    high, wide = padded((height, width), window)
    if (high, wide) != (height, width):
        x = F.pad(x, (0, 0, 0, wide - width, 0, high - height))
    if any(shift):
        x = x.roll((-shift[0], -shift[1]), (1, 2))
    if (high, wide) == window:
        return x.reshape(batch, 1, high * wide, channels)
    x = x.reshape(batch, high // window[0], window[0], wide // window[1], window[1], channels)
    return x.transpose(2, 3).reshape(batch, -1, window[0] * window[1], channels)


def unpartition(windows: Tensor, grid: Size, window: Size, shift: Size) -> Tensor:
    """The inverse of ``partition``: ``(B, *grid, C)``."""
    batch, channels = windows.shape[0], windows.shape[-1]
    high, wide = padded(grid, window)
    x = windows
    if (high, wide) != window:
        x = x.reshape(batch, high // window[0], wide // window[1], window[0], window[1], channels).transpose(2, 3)
    x = x.reshape(batch, high, wide, channels)
    if any(shift):
        x = x.roll(shift, (1, 2))
    return x[:, : grid[0], : grid[1]]


def shift_mask(grid: Size, window: Size, shift: Size, like: Tensor) -> Tensor | None:
    """``MASKED`` for pairs of tokens of one window that were apart before the shift, ``(count, 1, tokens, tokens)``.

    None where nothing is shifted.
    """
    if not any(shift):
        return None
    made = _shift_mask if torch.compiler.is_compiling() else _kept_shift_mask
    return made(padded(grid, window), window, shift, like.device, like.dtype)


def _shift_mask(grid: Size, window: Size, shift: Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    regions = []
    for n, w, s in zip(grid, window, shift, strict=True):
        position = torch.arange(n, device=device)
        regions.append((position >= n - w).long() + (position >= n - s).long() if s else torch.zeros_like(position))
    region = 3 * regions[0][:, None] + regions[1]
    parts = partition(region[None, :, :, None], window, (0, 0))[0, :, :, 0]
    apart = parts.unsqueeze(1) != parts.unsqueeze(2)
    return (MASKED * apart.to(dtype)).unsqueeze(1)


_kept_shift_mask = functools.lru_cache(maxsize=32)(_shift_mask)

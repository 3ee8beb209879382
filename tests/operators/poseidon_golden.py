"""Golden cases of Poseidon: what the reference computed (tests/golden/README.md), and the recipe of seeded weights."""

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden" / "poseidon"
STORED = sorted(path.parent.name for path in GOLDEN.glob("*/model.safetensors"))
"""Cases with their weights; the others, the published T, have them by ``seeded_weights``."""

SEED = 2024


@dataclass(frozen=True)
class GoldenCase:
    """Inputs of one case and what the reference makes of them.

    ``expected``: ``out64`` and ``gin64`` (output and input gradient at the rows and columns ``pixels`` and
    ``pixels_in``), ``loss64``, ``gradnorm64`` of ``param_names``, all in float64; ``largest`` output; ``rounding`` and
    ``gradient_rounding``: how far the reference's own float32 is from them, relative.
    """

    directory: Path
    config: dict[str, Any]
    fields: Tensor
    labels: Tensor
    time: Tensor
    pixel_mask: Tensor | None
    expected: dict[str, np.ndarray]


def golden_case(name: str) -> GoldenCase:
    directory = GOLDEN / name
    config = json.loads((directory / "config.json").read_text())
    with np.load(directory / "io.npz") as file:
        stored = dict(file)
    grid = (2, config["num_channels"], config["image_size"], config["image_size"])
    fields, labels = stored.pop("pixel_values", None), stored.pop("labels", None)
    mask = stored.pop("pixel_mask", None)
    return GoldenCase(
        directory,
        config,
        seeded_field("pixel_values", grid) if fields is None else torch.from_numpy(fields),
        seeded_field("labels", grid) if labels is None else torch.from_numpy(labels),
        torch.from_numpy(stored.pop("time")),
        None if mask is None else torch.from_numpy(mask),
        stored,
    )


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Mean zero, deviation one, bounded by sqrt(3): made of whole numbers only, so the same on every machine."""
    generator = torch.Generator().manual_seed(SEED + zlib.crc32(name.encode()))
    return math.sqrt(3) * (2 * torch.rand(shape, generator=generator) - 1)


def seeded_field(name: str, shape: tuple[int, ...]) -> Tensor:
    """Noise in steps of 1/32."""
    return torch.round(0.7 * 32 * uniform(name, shape)) / 32


def seeded_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A tensor for each published name; nothing is zero, every branch counts, some attention is beyond the clamp."""
    return {name: _seeded_tensor(name, shape) for name, shape in shapes.items()}


def _seeded_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    u = uniform(name, shape)
    if name.endswith("logit_scale"):
        return 2.2 + 1.5 * u  # -0.4 to 4.8: a few beyond the clamp, ln 100
    if "continuous_position_bias_mlp" in name and u.ndim == 2:
        return u if name.endswith("mlp.0.weight") else 0.066 * u
    if "norm" in name:
        if name.endswith(("weight.weight", "bias.weight")):
            return 0.25 * u
        return 1 + 0.1 * u if name.endswith(("weight.bias", "norm.weight")) else 0.1 * u
    if name.startswith("residual_blocks") and name.count(".") == 3:
        return 0.7 + 0.1 * u  # layer scale
    if u.ndim == 1:
        return 0.1 * u
    return u / math.sqrt(math.prod(shape[1:]))

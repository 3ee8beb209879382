"""A small Poseidon with weights away from zero and from symmetry, for the tests of what is ours."""

from typing import Any

import torch
from torch import Tensor

from sciml.operators import Poseidon
from sciml.operators.poseidon import PoseidonConfig

SMALL: dict[str, Any] = {
    "image_size": 16,
    "patch_size": 2,
    "num_channels": 4,
    "num_out_channels": 4,
    "embed_dim": 4,
    "depths": (2, 2),
    "num_heads": (1, 2),
    "skip_connections": (1, 1),
    "window_size": 4,
    "norm_gain": 1.0,
    "resize": "native",
}


def small(dtype: torch.dtype = torch.float64, **changes: Any) -> Poseidon:
    """In evaluation mode."""
    torch.manual_seed(0)
    operator = Poseidon(PoseidonConfig(**{**SMALL, **changes}))
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return operator.to(dtype).eval()


def field(batch: int = 2, channels: int = 4, grid: tuple[int, int] = (16, 16), dtype=torch.float64) -> Tensor:
    return torch.randn(batch, channels, *grid, dtype=dtype, generator=torch.Generator().manual_seed(1))


def lead(batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(0.2, 0.7, batch, dtype=dtype)


def vector(batch: int = 2, length: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(batch, length, dtype=dtype, generator=torch.Generator().manual_seed(2))


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    """To a part of the largest value."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def gradients(operator: Poseidon) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in operator.named_parameters()}

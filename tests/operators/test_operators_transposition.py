"""Transpose the input and the weights: the output transposes. Swapped axes anywhere break it.

The weights are transposed by what they mean, not by what the layer does with them: kernels by their last
two axes, patch channels by their offsets, coordinates by their order, spectral weights through the full
multiplier.
"""

import copy
import itertools

import pytest
import torch
from torch import Tensor

from sciml.operators import FNO, DeepONet, Poseidon, UNet
from sciml.operators.poseidon import PoseidonConfig

GRID = (12, 10)


def field(channels: int = 2) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, channels, *GRID, dtype=torch.float64)


def shaken(operator):
    """Weights away from zero and from symmetry."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return operator


def patch_channels(channels: int, p: int, coordinates: int = 0) -> list[int]:
    """Where channel (c, i, j) of a patched field goes when x and y are swapped; coordinates x, y trail."""
    order = [c * p * p + j * p + i for c, i, j in itertools.product(range(channels), range(p), range(p))]
    return order + [len(order) + k for k in reversed(range(coordinates))]


def assert_transposes(operator, twin, x: Tensor, parameters: Tensor) -> None:
    y = operator(x, parameters=parameters)
    torch.testing.assert_close(twin(x.mT, parameters=parameters), y.mT, rtol=0, atol=1e-10 * y.abs().max().item())
    # The check has teeth: without the transposed weights the outputs differ.
    assert (operator(x.mT, parameters=parameters) - y.mT).abs().max() > 1e-3 * y.abs().max()


@pytest.mark.parametrize("p", [1, 2])
def test_unet(p):
    operator = shaken(UNet(2, 3, n_parameters=2, hidden_channels=(4, 6), patch_size=p).double())
    twin = copy.deepcopy(operator)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.ndim == 4:
                parameter.copy_(parameter.mT.clone())
        twin.stem.weight.copy_(twin.stem.weight[:, patch_channels(2, p, coordinates=2)])
        twin.head.weight.copy_(twin.head.weight[patch_channels(3, p)])
        twin.head.bias.copy_(twin.head.bias[patch_channels(3, p)])
    assert_transposes(operator, twin, field(), torch.randn(3, 2, dtype=torch.float64))


def full_multiplier(weight: Tensor, n_modes) -> dict[tuple[int, int], Tensor]:
    """The matrix that acts on frequency (kx, ky) of a real field, both half planes, from the stored half.

    The stored half fixes W(-k) = conj W(k). On ky = 0 both members of a pair are stored, and a real output
    sees their mean.
    """
    stored = torch.view_as_complex(weight)
    rows = range(-(n_modes[0] // 2), n_modes[0] // 2 + 1)
    half = {(kx, ky): stored[i, ky] for i, kx in enumerate(rows) for ky in range(n_modes[1] // 2 + 1)}
    full = {}
    for (kx, ky), matrix in half.items():
        full[kx, ky] = (matrix + half[-kx, 0].conj()) / 2 if ky == 0 else matrix
        full[-kx, -ky] = full[kx, ky].conj()
    return full


@pytest.mark.parametrize("block", ["residual", "postactivation"])
@pytest.mark.parametrize("p, padding", [(1, 0.0), (2, 0.3)])
def test_fno(p, padding, block):
    def make(n_modes):
        sizes = {"hidden_channels": 4, "n_layers": 2, "n_modes": n_modes}
        return FNO(2, 3, n_parameters=2, patch_size=p, padding=padding, block=block, **sizes).double()

    operator, twin = shaken(make((5, 3))), make((3, 5))
    state = {key: value for key, value in operator.state_dict().items() if "spectral" not in key}
    twin.load_state_dict(state, strict=False)
    with torch.no_grad():
        for layer, other in zip(operator.blocks, twin.blocks, strict=True):
            full = full_multiplier(layer.spectral.weight, (5, 3))
            for i, ky in itertools.product(range(3), range(3)):
                other.spectral.weight[i, ky] = torch.view_as_real(full[ky, i - 1].resolve_conj())
        twin.lifting[0].weight.copy_(twin.lifting[0].weight[:, patch_channels(2, p, coordinates=2)])
        twin.projection[2].weight.copy_(twin.projection[2].weight[patch_channels(3, p)])
        twin.projection[2].bias.copy_(twin.projection[2].bias[patch_channels(3, p)])
    assert_transposes(operator, twin, field(), torch.randn(3, 2, dtype=torch.float64))


def test_deeponet():
    torch.manual_seed(0)
    operator = DeepONet(2, 3, n_parameters=2, hidden_channels=8, n_basis=4, n_sensors=(4, 3)).double()
    twin = DeepONet(2, 3, n_parameters=2, hidden_channels=8, n_basis=4, n_sensors=(3, 4)).double()
    twin.load_state_dict(operator.state_dict())
    with torch.no_grad():
        sensors = operator.branch[0].weight[:, :24].unflatten(1, (2, 4, 3))
        twin.branch[0].weight[:, :24] = sensors.mT.flatten(1)
        twin.trunk[0].weight.copy_(operator.trunk[0].weight.flip(1))
    x, parameters = field(), torch.randn(3, 2, dtype=torch.float64)
    y = operator(x, parameters=parameters)
    torch.testing.assert_close(twin(x.mT, parameters=parameters), y.mT, rtol=0, atol=1e-12)
    twin.trunk[0].weight.data = twin.trunk[0].weight.flip(1)
    assert (twin(x.mT, parameters=parameters) - y.mT).abs().max() > 1e-3


@pytest.mark.parametrize("grid", [(16, 16), (20, 14), (7, 30)])
@pytest.mark.parametrize("skips", ["convnext", "resnet"])
def test_poseidon(skips, grid):
    """Windows of 4 x 2 and 4 x 3 tokens, shifted on one axis or both, filled up, and merges of odd grids."""

    def make(image_size):
        config = PoseidonConfig(
            image_size=image_size,
            patch_size=2,
            num_channels=2,
            num_out_channels=3,
            embed_dim=4,
            depths=(2, 2, 2),
            num_heads=(1, 2, 2),
            skip_connections=(1, 1, 0),
            window_size=4,
            residual_model=skips,
            use_conditioning=False,
            use_absolute_embeddings=grid == (16, 16),
            n_parameters=2,
            resize="pad",
        )
        return Poseidon(config).double().eval()

    size = grid if grid == (16, 16) else (24, 12)
    operator, twin = shaken(make(size)), make(size[::-1])
    with torch.no_grad():
        for name, weight in operator.state_dict().items():
            if weight.ndim == 4:
                weight = weight.mT
            elif name.endswith("continuous_position_bias_mlp.0.weight"):
                weight = weight.flip(1)
            elif name.endswith("reduction.weight"):  # reads (column, row, channel)
                weight = weight.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(1)
            elif name.endswith("upsample.upsample.weight"):  # makes (row, column, channel)
                weight = weight.unflatten(0, (2, 2, -1)).transpose(0, 1).flatten(0, 2)
            elif name.endswith("position_embeddings"):
                weight = weight.unflatten(1, (8, 8)).transpose(1, 2).flatten(1, 2)
            twin.state_dict()[name].copy_(weight)
    x = torch.randn(3, 2, *grid, dtype=torch.float64)
    assert_transposes(operator, twin, x, torch.randn(3, 2, dtype=torch.float64))

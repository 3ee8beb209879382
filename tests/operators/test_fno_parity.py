"""Our FNO against `neuraloperator` 2.0.0 with the same weights: the same numbers to rounding.

It is installed without its dependency tree, outside the environment:

    pip install --no-deps --target DIR neuraloperator==2.0.0 tensorly tensorly-torch opt_einsum
    PYTHONPATH=DIR pytest tests/operators/test_fno_parity.py

Differences that are handled here: its coordinates are i/n, ours (2i + 1)/n - 1, and the lifting takes up the
affine map; its spectral layer works in complex64 whatever the input, and its coordinates have the default
dtype, so for float64 `torch.cfloat` is made to mean complex128 and the default float64. On odd sizes of the
leading axes it shifts the spectrum back by `fftshift`, which is off by one there: they are left out.
"""

import warnings

import pytest
import torch

from sciml.operators import FNO

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    neuralop_models = pytest.importorskip(
        "neuralop.models",
        reason="neuraloperator is not installed; the docstring says how",
        exc_type=ImportError,
    )

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


@pytest.fixture
def reference_dtype(dtype, monkeypatch):
    if dtype == torch.float64:
        monkeypatch.setattr(torch, "cfloat", torch.complex128)
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(torch.float32)


def pair(n_modes, dtype, grid):
    """Their FNO with its defaults and ours with its weights."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = neuralop_models.FNO(n_modes=n_modes, in_channels=3, out_channels=2, hidden_channels=16, n_layers=4)
    ours = FNO(
        3,
        2,
        hidden_channels=16,
        n_layers=4,
        n_modes=n_modes,
        patch_size=1,
        padding=0,
        block="postactivation",
    ).to(dtype)
    dim = len(n_modes)

    def copy_pointwise(target, source):
        target.weight.copy_(source.weight.reshape(target.weight.shape))
        if source.bias is not None:
            target.bias.copy_(source.bias)

    with torch.no_grad():
        for name in ("lifting", "projection"):
            for i in (0, 1):
                copy_pointwise(getattr(ours, name)[2 * i], getattr(theirs, name).fcs[i])
        # i / n = (c + 1 - 1 / n) / 2 with c our coordinate
        coordinates = ours.lifting[0].weight[:, 3:].flatten(1)
        shift = 1 - 1 / torch.tensor(grid, dtype=dtype)
        ours.lifting[0].bias += coordinates @ shift / 2
        ours.lifting[0].weight[:, 3:] *= 0.5
        for layer, block in enumerate(ours.blocks):
            source = theirs.fno_blocks
            weight = source.convs[layer].weight.tensor  # (in, out, *modes), rising frequency
            block.spectral.weight.copy_(torch.view_as_real(weight.permute(*range(2, 2 + dim), 0, 1)))
            copy_pointwise(block.skip, source.fno_skips[layer].conv)
            block.skip.bias.copy_(source.convs[layer].bias.flatten())
            for i in (0, 1):
                copy_pointwise(block.mix[2 * i], source.channel_mlp[layer].fcs[i])
            block.gate.copy_(source.channel_mlp_skips[layer].weight[0])
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    "n_modes, grid",
    [((12, 12), (32, 32)), ((12, 8), (24, 40)), ((7, 9), (16, 15)), ((16,), (33,)), ((6, 4, 6), (8, 10, 12))],
    ids=str,
)
def test_same_weights_same_output(n_modes, grid, dtype, reference_dtype, record_property):
    ours, theirs = pair(n_modes, dtype, grid)
    x = torch.randn(2, 3, *grid, dtype=dtype)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(x)
        difference = (ours(x) - expected).abs().max().item()
    print(f"{n_modes} {grid} {dtype}: max difference {difference:.2e} of {expected.abs().max():.2f}")
    record_property("max_difference", difference)
    assert difference < TOLERANCE[dtype] * max(1.0, expected.abs().max().item())

"""Known answers of the layers and of single operators."""

import math

import pytest
import torch
from torch.nn import functional as F

from sciml.errors import DataError
from sciml.operators import FNO, DeepONet, UNet
from sciml.operators.layers.condition import Condition
from sciml.operators.layers.coordinates import cell_coordinates
from sciml.operators.layers.linear import Linear, linear, linear_gelu
from sciml.operators.layers.patches import crop, from_patches, pad_to_multiple, to_patches
from sciml.operators.layers.spectral import SpectralConv


def test_patches_are_pixel_unshuffle_and_invert():
    x = torch.randn(2, 3, 8, 6)
    assert torch.equal(to_patches(x, 2), F.pixel_unshuffle(x, 2))
    assert torch.equal(from_patches(to_patches(x, 2), 2), x)
    for grid in [(6,), (6, 9), (3, 6, 9)]:
        x = torch.randn(2, 3, *grid)
        assert torch.equal(from_patches(to_patches(x, 3), 3), x)
        padded = pad_to_multiple(x, 4)
        assert all(n % 4 == 0 for n in padded.shape[2:])
        assert torch.equal(crop(padded, grid), x)
        assert padded.max() == x.max()


def test_coordinates_are_cell_centres():
    c = cell_coordinates((4, 2), like=torch.zeros(1, dtype=torch.float64))
    assert c.shape == (1, 2, 4, 2)
    assert torch.equal(c[0, 0, :, 0], torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64))
    assert torch.equal(c[0, 1, 0], torch.tensor([-0.5, 0.5], dtype=torch.float64))
    # 5 cells in patches of 2: the third patch reaches beyond the domain, the others keep their place.
    c = cell_coordinates((3,), like=torch.zeros(1), extent=[2.5])
    torch.testing.assert_close(c[0, 0], torch.tensor([-0.6, 0.2, 1.0]))


def test_condition_concatenates_parameters_and_time():
    condition = Condition(2, True, octaves=2)
    c = condition(torch.zeros(1), torch.tensor([[5.0, 6.0]]), torch.tensor([0.5]))
    assert c.shape == (1, condition.features) == (1, 7)
    torch.testing.assert_close(c[0], torch.tensor([5.0, 6.0, 0.5, 1.0, 0.0, 0.0, -1.0]), atol=1e-6, rtol=0)
    assert Condition(0, False)(torch.zeros(1), None, None) is None


@pytest.mark.parametrize("grid", [(9,), (8,), (12, 9), (7, 10), (8, 6, 10), (5, 7, 9)])
def test_spectral_convolution_with_unit_weights_is_a_low_pass_filter(grid):
    """Frequencies at or below 2 pass, higher ones vanish; a wrong order of frequencies would mix them."""
    layer = SpectralConv(1, 1, [5] * len(grid)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.0]).expand_as(layer.weight))
    axes = [torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) for n in grid]
    points = torch.meshgrid(*axes, indexing="ij")
    for axis, x in enumerate(points):
        for frequency in range(grid[axis] // 2 + 1):
            wave = torch.cos(frequency * x + 0.4)
            if 2 * frequency == grid[axis]:
                wave = torch.cos(frequency * x)
            expected = wave if frequency <= 2 else torch.zeros_like(wave)
            torch.testing.assert_close(layer(wave[None, None])[0, 0], expected, rtol=0, atol=1e-12)
    mixed = sum(torch.cos((-1) ** i * 2 * x) for i, x in enumerate(points))
    torch.testing.assert_close(layer(mixed[None, None])[0, 0], mixed, rtol=0, atol=1e-12)


def test_spectral_convolution_shifts_a_wave():
    """W(k) = exp(-i k s) moves a field by s, also diagonally: signs of both frequencies are right."""
    layer = SpectralConv(1, 1, (5, 5)).double()
    shift = (0.7, -0.4)
    kx = torch.arange(-2, 3, dtype=torch.float64)[:, None]
    ky = torch.arange(0, 3, dtype=torch.float64)[None]
    phase = torch.polar(torch.ones(5, 3, dtype=torch.float64), -(kx * shift[0] + ky * shift[1]))
    with torch.no_grad():
        layer.weight.copy_(torch.view_as_real(phase)[:, :, None, None])
    x, y = torch.meshgrid(
        torch.arange(12).double() * math.pi / 6, torch.arange(9).double() * math.tau / 9, indexing="ij"
    )

    def wave(x, y):
        return torch.cos(2 * x - y + 0.3) + torch.sin(x + 2 * y) + torch.cos(2 * x)

    moved = layer(wave(x, y)[None, None])[0, 0]
    torch.testing.assert_close(moved, wave(x - shift[0], y - shift[1]), rtol=0, atol=1e-12)


def test_spectral_convolution_does_not_depend_on_the_resolution():
    layer = SpectralConv(2, 3, (5, 5)).double()

    def sample(n):
        x, y = torch.meshgrid(*[torch.arange(n).double() * math.tau / n] * 2, indexing="ij")
        return torch.stack([torch.cos(x + 2 * y), torch.sin(2 * x) * torch.cos(y)])[None]

    torch.testing.assert_close(layer(sample(24))[..., ::2, ::2], layer(sample(12)), rtol=0, atol=1e-12)


def test_more_modes_than_the_grid_has():
    layer = SpectralConv(2, 2, (23, 23)).double()
    assert layer(torch.randn(1, 2, 6, 5, dtype=torch.float64)).shape == (1, 2, 6, 5)
    x = torch.randn(1, 2, 8, 7, dtype=torch.float64)
    large, small = SpectralConv(2, 2, (23, 23)).double(), SpectralConv(2, 2, (8, 7)).double()
    with torch.no_grad():
        small.weight.copy_(large.weight[11 - 4 : 11 + 4, :4])
    torch.testing.assert_close(large(x), small(x), rtol=0, atol=1e-14)


def test_default_sizes():
    def count(operator):
        return sum(p.numel() for p in operator.parameters())

    assert count(UNet(2, 2, n_parameters=3)) == 1_113_672
    assert count(FNO(2, 2, n_parameters=3)) == 2_275_048
    assert [b[0].conv1.in_channels for b in UNet(2, 2, hidden_channels=48).down_blocks] == [48, 64, 96, 128]


def test_padding_breaks_periodicity():
    """Without padding and coordinates an FNO commutes with periodic shifts; with padding it must not."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 12, 12, dtype=torch.float64)
    for padding, commutes in [(0.0, True), (0.25, False)]:
        operator = FNO(2, 2, hidden_channels=4, n_modes=(5, 5), patch_size=1, padding=padding, coordinates=False)
        operator.double()
        difference = (operator(x.roll(3, 2)) - operator(x).roll(3, 2)).abs().max()
        assert (difference < 1e-12) == commutes


def test_an_untrained_unet_does_not_depend_on_the_parameters():
    operator = UNet(2, 2, n_parameters=3, hidden_channels=(4, 6))
    x = torch.randn(2, 2, 8, 8)
    assert torch.equal(operator(x, parameters=torch.zeros(2, 3)), operator(x, parameters=torch.ones(2, 3)))


def test_deeponet_at_points_agrees_with_the_grid():
    torch.manual_seed(0)
    operator = DeepONet(2, 3, hidden_channels=8, n_basis=4, n_sensors=(4, 4)).double()
    x = torch.randn(2, 2, 6, 5, dtype=torch.float64)
    points = cell_coordinates((6, 5), like=x)[0].flatten(1).mT
    expected = operator(x).flatten(2)
    torch.testing.assert_close(operator(x, coordinates=points), expected)
    torch.testing.assert_close(operator(x, coordinates=points.expand(2, -1, -1)), expected)
    with pytest.raises(DataError, match=r"coordinates have shape \(30, 3\); expected \(N, 2\) or \(2, N, 2\)"):
        operator(x, coordinates=torch.zeros(30, 3))


def test_deeponet_sees_the_same_field_at_two_resolutions():
    torch.manual_seed(0)
    operator = DeepONet(1, 1, hidden_channels=8, n_basis=4, n_sensors=(4, 4)).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    points = torch.rand(5, 2, dtype=torch.float64)
    fine = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(operator(fine, coordinates=points), operator(x, coordinates=points))


@pytest.fixture(params=[True, False], ids=["intel", "other"])
def processor(request, monkeypatch):
    """Of either kind: one takes MKL, the other oneDNN."""
    monkeypatch.setattr("sciml.operators.layers.linear.MADE_BY_INTEL", request.param)


@pytest.mark.usefixtures("processor")
def test_linear_is_that_of_torch():
    """By either library: values and first and second derivatives, any leading axes, transposed operands."""
    torch.manual_seed(0)
    for shape, width in (((7, 5), 9), ((2, 3, 4, 16), 5), ((1, 8), 8), ((6,), 3)):
        x = torch.randn(shape, requires_grad=True)
        weight = torch.randn(width, shape[-1], requires_grad=True)
        bias = torch.randn(width, requires_grad=True)
        for operands in ((x, weight, bias), (x, weight, None)):
            wanted = [t for t in operands if t is not None]
            found, expected = linear(*operands), F.linear(*operands)
            torch.testing.assert_close(found, expected)
            first, plain = (torch.autograd.grad(y.square().sum(), wanted, create_graph=True) for y in (found, expected))
            torch.testing.assert_close(first, plain)
            again, twice = (torch.autograd.grad(sum(g.square().sum() for g in gs), wanted) for gs in (first, plain))
            for one, other in zip(again, twice, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * float(other.abs().max()))
        with torch.no_grad():
            torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))


@pytest.mark.usefixtures("processor")
def test_linear_and_gelu_in_one_is_that_of_torch():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 7, 16), torch.randn(9, 16, requires_grad=True), torch.randn(9)
    for given in (bias, None):
        expected = F.gelu(F.linear(x, weight, given))
        torch.testing.assert_close(linear_gelu(x, weight, given), expected)
        with torch.no_grad():
            torch.testing.assert_close(linear_gelu(x, weight, given), expected)
            double = linear_gelu(x.double(), weight.double(), None if given is None else given.double())
            torch.testing.assert_close(double.float(), expected)
    (found,) = torch.autograd.grad(linear_gelu(x, weight, bias).sum(), weight)
    (plain,) = torch.autograd.grad(F.gelu(F.linear(x, weight, bias)).sum(), weight)
    torch.testing.assert_close(found, plain)


@pytest.mark.usefixtures("processor")
def test_linear_falls_back_where_the_other_library_does_not_do():
    layer = Linear(4, 3)
    x = torch.randn(2, 4)
    assert layer.double()(x.double()).dtype == torch.float64
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer(x[:0]).shape == (0, 3)
    assert torch.func.vmap(layer)(x).shape == (2, 3)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x))
    layer(x).sum().backward()
    assert layer.weight.grad.is_contiguous() and layer.weight.grad.shape == (3, 4)
    with pytest.raises(RuntimeError):
        layer(torch.randn(2, 5))

"""The U-Net and the FNO of CFDBench [Luo et al. 2023, arXiv:2310.05963] as baselines, with its settings.

Written from the published description and sizes, not from the reference code (which has no licence). What
pins them down is the number of real parameters for the cavity, complex counted as 2; both meet it exactly:

- U-Net 1,095,038: base 12 and 4 levels; 8 input channels (u, v, mask, 5 parameters); 3x3 convolutions and
  transposed 2x2 convolutions with bias, batch norm after each 3x3; a pointwise head with bias. Without bias
  in the 3x3 convolutions or with other input channels the count is another.
- FNO 2,368,354: 4 layers of width 32 with 2 x 12 x 12 complex modes; lifting 10 -> 32 (u, v, mask, x, y, 5
  parameters), pointwise bypass, projection 32 -> 128 -> 2.

What a count cannot say, and is our choice: the FNO neither pads its domain nor predicts an increment, the
order of its channels, and its initial weights (uniform, 1 / width^2). The U-Net adds its output to the
input ("residual").

Both take the field in m/s and the raw parameters (lid speed, density, viscosity, height, width), normalise
the parameters as CFDBench does, and return the next frame in m/s, times the mask.

    python benchmarks/baselines/cfdbench.py        # prints the parameter counts
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEARNING_RATE = 1e-3  # Adam, no weight decay
STEP_EPOCHS = 20  # StepLR: times STEP_FACTOR every STEP_EPOCHS epochs
STEP_FACTOR = 0.9
BATCH_SIZE = 128
EPOCHS = 100
VALIDATE_EVERY_EPOCHS = 10  # the checkpoint with the best validation loss is kept
N_PARAMETERS = 5
PARAMETER_COUNTS = {"unet": 1_095_038, "fno": 2_368_354}


def normalise_parameters(parameters: Tensor) -> Tensor:
    """``(B, 5)`` speed, density, viscosity, height, width to CFDBench's numbers; lengths stay in metres."""
    shift = parameters.new_tensor([25.0, 5.0, 0.00238, 0.0, 0.0])
    scale = parameters.new_tensor([50.0, 4.0, 0.005, 1.0, 1.0])
    return (parameters - shift) / scale


def nmse(prediction: Tensor, target: Tensor) -> Tensor:
    """The training loss: mean square error over mean square of the target, over batch, u and v together."""
    return (prediction - target).square().mean() / target.square().mean()


def optimiser(model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam and its schedule; ``scheduler.step()`` is called once per epoch."""
    adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    return adam, torch.optim.lr_scheduler.StepLR(adam, step_size=STEP_EPOCHS, gamma=STEP_FACTOR)


def input_channels(x: Tensor, mask: Tensor, parameters: Tensor) -> Tensor:
    """u, v, mask and the normalised parameters as constant channels: ``(B, 8, X, Y)``."""
    constants = normalise_parameters(parameters)[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, mask, constants], dim=1)


def all_fluid(x: Tensor) -> Tensor:
    """The mask of the cavity: ones, ``(B, 1, X, Y)``."""
    return torch.ones_like(x[:, :1])


class DoubleConv(nn.Sequential):
    """Twice 3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
            ]
        super().__init__(*layers)


class CFDBenchUNet(nn.Module):
    """``x (B, 2, X, Y)`` in m/s, ``parameters (B, 5)`` to the next frame ``(B, 2, X, Y)``."""

    def __init__(self, base: int = 12, levels: int = 4) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(levels + 1)]
        fine, coarse = widths[:-1], widths[1:]
        self.stem = DoubleConv(3 + N_PARAMETERS, base)
        self.down = nn.ModuleList(DoubleConv(f, c) for f, c in zip(fine, coarse, strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, stride=2) for f, c in zip(fine, coarse, strict=True))
        self.merge = nn.ModuleList(DoubleConv(2 * f, f) for f in fine)
        self.head = nn.Conv2d(base, 2, 1)

    def forward(self, x: Tensor, *, parameters: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = all_fluid(x) if mask is None else mask
        h = self.stem(input_channels(x, mask, parameters))
        skips = []
        for block in self.down:
            skips.append(h)
            h = block(F.max_pool2d(h, 2))
        for up, merge, skip in zip(reversed(self.up), reversed(self.merge), reversed(skips), strict=True):
            h = up(h)
            missing_x, missing_y = skip.shape[2] - h.shape[2], skip.shape[3] - h.shape[3]
            h = F.pad(h, (0, missing_y, 0, missing_x))  # a size that does not halve
            h = merge(torch.cat([skip, h], dim=1))
        return (x + self.head(h)) * mask


class FourierLayer(nn.Module):
    """``irfft2(W rfft2(x))`` on the lowest modes, both signs along x, plus a pointwise bypass."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.rand(2, modes, modes, width, width, 2) / width**2)
        self.bypass = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        m = self.modes
        low, high = torch.view_as_complex(self.weight)
        spectrum = torch.fft.rfft2(x)
        out = torch.zeros_like(spectrum)
        out[:, :, :m, :m] = torch.einsum("bixy,xyio->boxy", spectrum[:, :, :m, :m], low)
        out[:, :, -m:, :m] = torch.einsum("bixy,xyio->boxy", spectrum[:, :, -m:, :m], high)
        return torch.fft.irfft2(out, s=x.shape[-2:]) + self.bypass(x)


class CFDBenchFNO(nn.Module):
    """``x (B, 2, X, Y)`` in m/s, ``parameters (B, 5)`` to the next frame ``(B, 2, X, Y)``."""

    def __init__(self, width: int = 32, modes: int = 12, n_layers: int = 4) -> None:
        super().__init__()
        self.lifting = nn.Conv2d(3 + 2 + N_PARAMETERS, width, 1)
        self.layers = nn.ModuleList(FourierLayer(width, modes) for _ in range(n_layers))
        self.projection = nn.Sequential(nn.Conv2d(width, 128, 1), nn.GELU(), nn.Conv2d(128, 2, 1))

    def forward(self, x: Tensor, *, parameters: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = all_fluid(x) if mask is None else mask
        axes = [torch.linspace(0, 1, n, dtype=x.dtype, device=x.device) for n in x.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(x.shape[0], -1, -1, -1)
        h = self.lifting(torch.cat([input_channels(x, mask, parameters), grid], dim=1))
        for i, layer in enumerate(self.layers):
            h = layer(h)
            if i < len(self.layers) - 1:
                h = F.gelu(h)
        return self.projection(h) * mask


MODELS: dict[str, type[nn.Module]] = {"unet": CFDBenchUNet, "fno": CFDBenchFNO}


def main() -> None:
    for name, model in MODELS.items():
        count = sum(parameter.numel() for parameter in model().parameters())
        print(f"{name}: {count:,} real parameters, expected {PARAMETER_COUNTS[name]:,}")


if __name__ == "__main__":
    main()

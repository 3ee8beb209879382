"""Poseidon (the scalable operator transformer, scOT) [Herde et al. 2024, arXiv:2405.19101] as published: the plain
arithmetic, without any shortcut, as an oracle of values and as a peer in speed.

Written from a description of the published checkpoints, not from the reference code (which has no licence). It
does what the reference does and in its order, because the time that takes is what our operator is compared with:

- every block evaluates its bias network on the whole table of offsets in every call, gathers the pairs of
  tokens, and only then applies 16 sigmoid;
- attention is normalise, matmul, scale, add bias, add mask, add mask again (twice -100), softmax, matmul, with
  separate query, key and value;
- windows are always cut and put back by copies, also where one window is the whole grid; masks stay in main
  memory and travel to the device in every call;
- norms take the variance as E[x^2] - E[x]^2 in separate passes; gain and shift are linear layers of the time.

Beside the original, in turns on one thread, size tiny at 128 x 128 took as much CPU time: 0.97 to 1.03 of it (forward,
batch 1 and 8; training, batch 1) and 0.90 (training, batch 8; least of three to seven).

Left out: stochastic depth (``drop_path_rate``) and dropout are never applied, in training either, and there is no
mask token. Square grids only.

    python benchmarks/baselines/poseidon_plain.py        # prints the parameter counts
"""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

DEFAULTS: dict[str, Any] = {  # what a published config.json may leave out
    "num_channels": 3,
    "num_out_channels": 1,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "use_absolute_embeddings": False,
    "layer_norm_eps": 1e-5,
    "p": 1,
    "channel_slice_list_normalized_loss": None,
    "residual_model": "convnext",
    "use_conditioning": False,
    "learn_residual": False,
}
SIZES = {"tiny": (48, 4), "base": (96, 8), "large": (192, 8)}  # embed_dim, blocks per level
PARAMETER_COUNTS = {"tiny": 20_774_444, "base": 157_729_988, "large": 628_575_524}


def published_config(size: str) -> dict[str, Any]:
    """Config of the published checkpoint ``tiny``, ``base`` or ``large``."""
    width, depth = SIZES[size]
    return {
        "image_size": 128,
        "patch_size": 4,
        "num_channels": 4,
        "num_out_channels": 4,
        "embed_dim": width,
        "depths": [depth] * 4,
        "num_heads": [3, 6, 12, 24],
        "skip_connections": [2, 2, 2, 0],
        "window_size": 16,
        "channel_slice_list_normalized_loss": [0, 1, 3, 4],
        "use_conditioning": True,
    }


class ConditionedNorm(nn.Module):
    """``(x - mean) / sqrt(var + eps) * g(t) + b(t)`` over the last axis; g and b are linear in the lead time."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Linear(1, dim)
        self.bias = nn.Linear(1, dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = (x**2).mean(dim=-1, keepdim=True) - mean**2
        x = (x - mean) / torch.sqrt(variance + self.eps)
        time = time.reshape(-1, 1).to(x.dtype)
        each_sample = (x.shape[0],) + (1,) * (x.ndim - 2) + (x.shape[-1],)
        return self.weight(time).view(each_sample) * x + self.bias(time).view(each_sample)


class PlainNorm(nn.LayerNorm):
    """Layer norm that takes a time and ignores it."""

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        return super().forward(x)


def norm(config: dict[str, Any], dim: int, eps: float = 1e-5) -> nn.Module:
    return ConditionedNorm(dim, eps) if config["use_conditioning"] else PlainNorm(dim, eps=eps)


def offset_table(window: int) -> Tensor:
    """Offsets of two tokens in a window, ``((2w - 1)^2, 2)``, scaled to sign(z) log2(1 + |z|) / 3, |z| <= 8."""
    offsets = torch.arange(1 - window, window, dtype=torch.float32)
    table = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=-1).reshape(-1, 2)
    if window > 1:
        table = table / (window - 1)
    table = table * 8
    return torch.sign(table) * torch.log2(table.abs() + 1.0) / math.log2(8)


def offset_index(window: int) -> Tensor:
    """Row of the table of each pair (query, key) of a window's tokens, ``(w^4,)``."""
    y, x = (c.flatten() for c in torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return ((dy + window - 1) * (2 * window - 1) + dx + window - 1).flatten()


def shift_mask(size: int, window: int, shift: int) -> Tensor:
    """-100 between tokens of a window that the roll made neighbours, ``(windows, w^2, w^2)``."""
    position = torch.arange(size)
    side = (position >= size - window).long() + (position >= size - shift).long()
    region = (3 * side[:, None] + side[None, :]).to(torch.float32)
    of_token = cut_windows(region[None, :, :, None], window).squeeze(-1)
    return torch.where(of_token[:, None, :] == of_token[:, :, None], 0.0, -100.0)


def cut_windows(x: Tensor, window: int) -> Tensor:
    """``(B, H, W, C)`` to ``(B * windows, w^2, C)``, row by row."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, window**2, c)


def join_windows(x: Tensor, window: int, h: int, w: int) -> Tensor:
    """The inverse of ``cut_windows``."""
    x = x.view(-1, h // window, w // window, window, window, x.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, h, w, x.shape[-1])


class WindowAttention(nn.Module):
    """Cosine attention with a bias that is a network of the offset."""

    def __init__(self, config: dict[str, Any], dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))
        self.continuous_position_bias_mlp = nn.Sequential(
            nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False)
        )
        self.query = nn.Linear(dim, dim, bias=config["qkv_bias"])
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=config["qkv_bias"])
        self.register_buffer("table", offset_table(window), persistent=False)
        self.register_buffer("index", offset_index(window), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, tokens, dim = x.shape

        def split(projected: Tensor) -> Tensor:
            return projected.view(n, tokens, self.heads, dim // self.heads).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        logits = logits * torch.clamp(self.logit_scale, max=math.log(100.0)).exp()
        bias = self.continuous_position_bias_mlp(self.table)[self.index]
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1).contiguous()
        logits = logits + (16 * torch.sigmoid(bias)).unsqueeze(0)
        if mask is not None:
            logits = logits.view(n // len(mask), len(mask), self.heads, tokens, tokens)
            logits = logits + mask[None, :, None]
            logits = logits + mask[None, :, None]
            logits = logits.view(n, self.heads, tokens, tokens)
        mixed = torch.softmax(logits, dim=-1) @ value
        return mixed.transpose(1, 2).contiguous().view(n, tokens, dim)


class Block(nn.Module):
    """Shifted window attention and MLP, each with its norm after it, then added."""

    def __init__(self, config: dict[str, Any], level: int, grid: int, shifted: bool) -> None:
        super().__init__()
        dim, size = config["embed_dim"] * 2**level, config["image_size"] // config["patch_size"] // 2**level
        self.grid = grid
        self.window = min(size, config["window_size"])
        self.shift = config["window_size"] // 2 if shifted and size > config["window_size"] else 0
        self.missing = -grid % self.window
        self.mask = shift_mask(grid + self.missing, self.window, self.shift) if self.shift else None
        hidden, eps = int(config["mlp_ratio"] * dim), config["layer_norm_eps"]
        self.attention = nn.ModuleDict(
            {
                "self": WindowAttention(config, dim, config["num_heads"][level], self.window),
                "output": nn.ModuleDict({"dense": nn.Linear(dim, dim)}),
            }
        )
        self.layernorm_before = norm(config, dim, eps)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(dim, hidden)})
        self.output = nn.ModuleDict({"dense": nn.Linear(hidden, dim)})
        self.layernorm_after = norm(config, dim, eps)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        b, _, dim = x.shape
        h = F.pad(x.view(b, self.grid, self.grid, dim), (0, 0, 0, self.missing, 0, self.missing))
        if self.shift:
            h = torch.roll(h, shifts=(-self.shift, -self.shift), dims=(1, 2))
        mask = None if self.mask is None else self.mask.to(h)
        h = self.attention["output"]["dense"](self.attention["self"](cut_windows(h, self.window), mask))
        h = join_windows(h, self.window, self.grid + self.missing, self.grid + self.missing)
        if self.shift:
            h = torch.roll(h, shifts=(self.shift, self.shift), dims=(1, 2))
        h = h[:, : self.grid, : self.grid].contiguous().view(b, -1, dim)
        x = x + self.layernorm_before(h, time)
        h = self.output["dense"](F.gelu(self.intermediate["dense"](x)))
        return x + self.layernorm_after(h, time)


class Merge(nn.Module):
    """2 x 2 tokens to one of twice the width."""

    def __init__(self, config: dict[str, Any], level: int, grid: int) -> None:
        super().__init__()
        dim = config["embed_dim"] * 2**level
        self.grid = grid
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = norm(config, 2 * dim)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        b, _, dim = x.shape
        odd = self.grid % 2
        x = F.pad(x.view(b, self.grid, self.grid, dim), (0, 0, 0, odd, 0, odd))
        x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
        return self.norm(self.reduction(x.view(b, -1, 4 * dim)), time)


class Unmerge(nn.Module):
    """One token to 2 x 2 of half the width, cropped to the finer grid."""

    def __init__(self, config: dict[str, Any], level: int, grid: int, finer: int) -> None:
        super().__init__()
        dim = config["embed_dim"] * 2**level
        self.grid, self.finer = grid, finer
        self.upsample = nn.Linear(dim, 2 * dim, bias=False)
        self.norm = norm(config, dim // 2)
        self.mixup = nn.Linear(dim // 2, dim // 2, bias=False)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        b, _, dim = x.shape
        x = self.upsample(x).view(b, self.grid, self.grid, 2, 2, dim // 2)
        x = x.permute(0, 1, 3, 2, 4, 5).contiguous().view(b, 2 * self.grid, 2 * self.grid, dim // 2)
        x = x[:, : self.finer, : self.finer].contiguous().view(b, -1, dim // 2)
        return self.mixup(self.norm(x, time))


class Stage(nn.Module):
    """The blocks of one level, and the merge or unmerge behind them."""

    def __init__(self, config: dict[str, Any], level: int, grids: list[int], decoder: bool) -> None:
        super().__init__()
        depth = config["depths"][level]
        shifts = [j % 2 == 1 for j in range(depth)]
        self.blocks = nn.ModuleList(
            Block(config, level, grids[level], shifted) for shifted in (reversed(shifts) if decoder else shifts)
        )
        if decoder and level > 0:
            self.upsample = Unmerge(config, level, grids[level], grids[level - 1])
        if not decoder and level + 1 < len(grids):
            self.downsample = Merge(config, level, grids[level])

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, time)
        return x


class ConvNeXt(nn.Module):
    """Depthwise 7 x 7, norm, MLP, layer scale, added."""

    def __init__(self, config: dict[str, Any], dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = norm(config, dim, config["layer_norm_eps"])
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.weight = nn.Parameter(torch.full((dim,), 1e-6))

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.norm(self.dwconv(x).permute(0, 2, 3, 1).contiguous(), time)
        h = self.weight * self.pwconv2(F.gelu(self.pwconv1(h)))
        return x + h.permute(0, 3, 1, 2).contiguous()


class ResNet(nn.Module):
    """Twice 3 x 3 convolution and batch norm, added; the time is not used."""

    def __init__(self, config: dict[str, Any], dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = F.leaky_relu(self.bn1(self.conv1(x)))
        return x + self.bn2(self.conv2(h))


class PatchEmbedding(nn.Module):
    """One token per patch, and its norm."""

    def __init__(self, config: dict[str, Any], tokens: int) -> None:
        super().__init__()
        dim, patch = config["embed_dim"], config["patch_size"]
        self.patch_embeddings = nn.ModuleDict(
            {"projection": nn.Conv2d(config["num_channels"], dim, patch, stride=patch)}
        )
        self.norm = norm(config, dim)
        self.position_embeddings = (
            nn.Parameter(torch.zeros(1, tokens, dim)) if config["use_absolute_embeddings"] else None
        )

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = self.patch_embeddings["projection"](x).flatten(2).transpose(1, 2)
        x = self.norm(x, time)
        return x if self.position_embeddings is None else x + self.position_embeddings


class PatchRecovery(nn.Module):
    """Tokens back to patches, then a 5 x 5 convolution over the seams."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        dim, out, patch = config["embed_dim"], config["num_out_channels"], config["patch_size"]
        self.projection = nn.ConvTranspose2d(dim, out, patch, stride=patch)
        self.mixup = nn.Conv2d(out, out, 5, padding=2, bias=False)

    def forward(self, x: Tensor, grid: int) -> Tensor:
        x = x.transpose(1, 2).contiguous().view(x.shape[0], -1, grid, grid)
        return self.mixup(self.projection(x))


def resample(x: Tensor, size: int) -> Tensor:
    """A square grid to ``size`` points by its centred spectrum, cut or padded with zeros."""
    n = x.shape[-1]
    if n == size:
        return x
    spectrum = torch.fft.fftshift(torch.fft.fft2(x, norm="forward"), dim=(-2, -1))
    if size < n:
        low = n // 2 - size // 2
        spectrum = spectrum[..., low : low + size, low : low + size]
    else:
        edge = (size - n) // 2
        spectrum = F.pad(spectrum, (edge, edge, edge, edge))
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), norm="forward").real


class PoseidonPlain(nn.Module):
    """``x (B, C, N, N)`` and lead time ``(B,)`` to ``(B, C', N, N)``; with labels, to output and loss.

    State-dict names and shapes are the published ones.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config = DEFAULTS | config
        if config["image_size"] % config["patch_size"]:
            raise ValueError(
                f"image_size {config['image_size']} must be a multiple of patch_size {config['patch_size']}"
            )
        levels = range(len(config["depths"]))
        self.grids = [config["image_size"] // config["patch_size"]]
        for _ in levels[1:]:
            self.grids.append((self.grids[-1] + 1) // 2)
        self.embeddings = PatchEmbedding(config, self.grids[0] ** 2)
        skip = {"convnext": ConvNeXt, "resnet": ResNet}[config["residual_model"]]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Stage(config, i, self.grids, False) for i in levels)})
        self.decoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Stage(config, i, self.grids, True) for i in reversed(levels))}
        )
        self.residual_blocks = nn.ModuleList(
            nn.ModuleList(skip(config, config["embed_dim"] * 2**i) for _ in range(int(config["skip_connections"][i])))
            for i in levels
        )
        self.patch_recovery = PatchRecovery(config)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> PoseidonPlain:
        """From ``config.json`` and ``model.safetensors``."""
        model = cls(json.loads((Path(directory) / "config.json").read_text()))
        model.load_state_dict(load_file(Path(directory) / "model.safetensors"))
        return model.eval()

    def forward(
        self,
        x: Tensor,
        *,
        time: Tensor | None = None,
        labels: Tensor | None = None,
        pixel_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        n, size = x.shape[-1], self.config["image_size"]
        x = resample(x, size)
        h = self.embeddings(x, time)
        skips = []
        for stage in self.encoder["layers"]:
            start = h
            h = stage(h, time)
            skips.append(h)
            if hasattr(stage, "downsample"):
                h = stage.downsample(h + start, time)
        for level, blocks in enumerate(self.residual_blocks):
            skips[level] = self.skip(blocks, skips[level], self.grids[level], time)
        h = skips.pop()
        for stage in self.decoder["layers"]:
            h = stage(h, time)
            if hasattr(stage, "upsample"):
                h = stage.upsample(h, time) + skips.pop()
        out = self.patch_recovery(h, self.grids[0])
        if self.config["learn_residual"] and self.config["use_conditioning"]:
            out = out + x[:, : out.shape[1]]
        out = resample(out, n)
        if labels is None:
            return out
        if pixel_mask is not None:
            pixel_mask = pixel_mask.view(*pixel_mask.shape, *(1,) * (4 - pixel_mask.ndim))
            out = torch.where(pixel_mask, labels.to(out.dtype), out)
        return out, self.loss(out, labels)

    @staticmethod
    def skip(blocks: nn.ModuleList, x: Tensor, grid: int, time: Tensor | None) -> Tensor:
        x = x.transpose(1, 2).contiguous().view(x.shape[0], -1, grid, grid)
        for block in blocks:
            x = block(x, time)
        return x.flatten(2).transpose(1, 2).contiguous()

    def loss(self, out: Tensor, labels: Tensor) -> Tensor:
        """L1 (p = 1) or mean square error; relative and averaged over groups of channels if these are given."""

        def size(x: Tensor) -> Tensor:
            return x.abs().mean() if self.config["p"] == 1 else x.square().mean()

        bounds = self.config["channel_slice_list_normalized_loss"]
        if bounds is None:
            return size(out - labels)
        groups = [slice(low, high) for low, high in pairwise(bounds)]
        return torch.stack([size(out[:, g] - labels[:, g]) / (size(labels[:, g]) + 1e-10) for g in groups]).mean()


def main() -> None:
    for name, expected in PARAMETER_COUNTS.items():
        with torch.device("meta"):
            model = PoseidonPlain(published_config(name))
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name}: {count:,} parameters, expected {expected:,}")


if __name__ == "__main__":
    main()

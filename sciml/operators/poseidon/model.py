"""Poseidon: a multiscale transformer from fields at one time to fields at another."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sciml.errors import ConfigError, DataError
from sciml.operators.base import Operator
from sciml.operators.layers.linear import under_func
from sciml.operators.layers.patches import crop, pad_to_multiple
from sciml.operators.poseidon import weights
from sciml.operators.poseidon.attention import WindowAttention
from sciml.operators.poseidon.blocks import (
    EMBEDDED_PARAMETERS,
    RESIDUAL_BLOCKS,
    TOKEN_NORM_EPS,
    PatchMerging,
    PatchUnmerging,
    ResNetBlock,
    SwinBlock,
    convolution,
    make_norm,
)
from sciml.operators.poseidon.config import PoseidonConfig
from sciml.operators.poseidon.loss import grouped_loss
from sciml.operators.poseidon.norms import Condition, ConditionedNorm, PlainNorm
from sciml.operators.poseidon.resampling import resample
from sciml.operators.poseidon.windows import Size
from sciml.operators.stored import ParameterGroup
from sciml.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Self

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 48, "depths": (4, 4, 4, 4)},
    "base": {"embed_dim": 96, "depths": (8, 8, 8, 8)},
    "large": {"embed_dim": 192, "depths": (8, 8, 8, 8)},
}
"""The published sizes, on four channels: density, velocity (2), pressure."""


class PoseidonOutput(NamedTuple):
    """What ``forward`` returns when it is given labels."""

    output: Tensor
    loss: Tensor


class Poseidon(Operator):
    """A U of shifted-window transformers, conditioned on the lead time by its norms [Herde et al. 2024,
    arXiv:2405.19101].

    Patches become tokens; on every level of the encoder Swin V2 blocks, then 2 x 2 tokens merge into one; the decoder
    mirrors it, reading what the residual blocks on the skips made of each level. Reads and writes the published
    checkpoints and computes what their code computes; beyond it takes rectangular grids of any size
    (``config.resize``), physical parameters beside the time, other sets of channels (``from_pretrained``), and
    periodic boxes.

    Args:
        config: a ``PoseidonConfig``.

    Shapes: ``x (B, num_channels, nx, ny)``, ``time (B,)``, ``parameters (B, n_parameters)``,
    ``labels (B, num_out_channels, nx, ny)``, ``pixel_mask`` bool of that shape or ``(B, num_out_channels)``.

    Raises:
        ConfigError: the configuration is inconsistent.
        DataError: an input has another shape, time or parameters are missing, or the grid needs a choice of ``resize``.
    """

    name = "poseidon"
    dims = (2,)
    records_arguments = False

    def __init__(self, config: PoseidonConfig) -> None:
        if not isinstance(config, PoseidonConfig):
            raise ConfigError(
                f"poseidon: config is {type(config).__name__}; expected a PoseidonConfig, e.g. "
                "Poseidon(PoseidonConfig(image_size=64, embed_dim=48))"
            )
        super().__init__(
            config.num_channels,
            config.num_out_channels,
            dim=2,
            n_parameters=config.n_parameters,
            time_conditioning=config.use_conditioning,
        )
        self.settings = config
        self.config = config.as_dict()
        c, p = config, config.patch_size
        self.embeddings = nn.Module()
        self.embeddings.patch_embeddings = nn.Module()
        self.embeddings.patch_embeddings.projection = nn.Conv2d(c.num_channels, c.embed_dim, p, stride=p)
        self.embeddings.norm = make_norm(c, c.embed_dim, TOKEN_NORM_EPS)
        if c.use_absolute_embeddings:
            tokens = c.grid[0] // p * (c.grid[1] // p)
            self.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, tokens, c.embed_dim))
        self.dropout = nn.Dropout(c.hidden_dropout_prob)
        if c.n_parameters:
            self.parameter_embedding = nn.Sequential(
                nn.Linear(c.n_parameters, EMBEDDED_PARAMETERS),
                nn.GELU(),
                nn.Linear(EMBEDDED_PARAMETERS, EMBEDDED_PARAMETERS),
            )
        self.encoder, self.decoder = nn.Module(), nn.Module()
        levels = range(c.levels)
        drops = iter(torch.linspace(0, c.drop_path_rate, 2 * sum(c.depths), device="cpu").tolist())
        self.encoder.layers = nn.ModuleList(self._stage(level, drops, decodes=False) for level in levels)
        self.decoder.layers = nn.ModuleList(self._stage(level, drops, decodes=True) for level in reversed(levels))
        self.residual_blocks = nn.ModuleList(
            nn.ModuleList(
                RESIDUAL_BLOCKS[c.residual_model](c, c.width(level)) for _ in range(c.skip_connections[level])
            )
            for level in levels
        )
        self.patch_recovery = nn.Module()
        self.patch_recovery.projection = nn.ConvTranspose2d(c.embed_dim, c.num_out_channels, p, stride=p)
        self.patch_recovery.mixup = convolution(c, c.num_out_channels, 5, bias=False)
        self._initialise()

    def _stage(self, level: int, drops: Iterator[float], decodes: bool) -> nn.Module:
        config, stage = self.settings, nn.Module()
        depth, channels = config.depths[level], config.width(level)
        nominal = self._tokens(config.grid, level)
        largest = (min(nominal[0], config.window_size), min(nominal[1], config.window_size))
        # Every second block is shifted; the decoder runs through the order of the encoder backwards.
        order = reversed(range(depth)) if decodes else range(depth)
        stage.blocks = nn.ModuleList(
            SwinBlock(config, level, shifted=j % 2 == 1, reference=largest, drop=next(drops)) for j in order
        )
        if not decodes and level < config.levels - 1:
            stage.downsample = PatchMerging(config, channels)
        if decodes and level > 0:
            stage.upsample = PatchUnmerging(config, channels)
        return stage

    def _initialise(self) -> None:
        """As published: weights normal with a small deviation, biases zero, norms by their ``reset``."""
        deviation = self.settings.initializer_range
        for module in self.modules():
            if isinstance(module, ConditionedNorm | PlainNorm):
                module.reset(deviation)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    # ---------------------------------------------------------------------------------------------------- the network

    def forward(
        self,
        x: Tensor,
        *,
        time: Tensor | None = None,
        parameters: Tensor | None = None,
        labels: Tensor | None = None,
        pixel_mask: Tensor | None = None,
    ) -> Tensor | PoseidonOutput:
        """The fields at the lead time ``time``, or ``(output, loss)`` where ``labels`` are given.

        ``pixel_mask`` is true where the answer is known and not to be learned, a boundary or an obstacle (cells), or a
        channel that a data set lacks: the output takes the labels' values there or, without labels, those of the input,
        so neither loss nor gradient comes from there.
        """
        config = self.settings
        if time is not None and time.ndim == 2 and time.shape[1] == 1:
            time = time[:, 0]
        self.check_input(x, parameters, time)
        self._check_targets(x, labels, pixel_mask)
        grid = (x.shape[2], x.shape[3])
        fields = self._fit(x)
        made = self._network(fields, self._condition(x, time, parameters))
        if config.learn_residual and (config.use_conditioning or config.n_parameters):  # published: with conditioning
            made = made + fields[:, : config.num_out_channels]
        output = resample(made, grid) if config.resize == "spectral" else crop(made, grid)
        if pixel_mask is not None:
            known = x[:, : config.num_out_channels] if labels is None else labels
            where = pixel_mask.view(*pixel_mask.shape, *(1,) * (4 - pixel_mask.ndim))
            output = torch.where(where, known.to(output.dtype), output)
        if labels is None:
            return output
        loss = grouped_loss(output, labels, config.p, config.channel_slice_list_normalized_loss)
        return PoseidonOutput(output, loss)

    def _network(self, x: Tensor, condition: Condition) -> Tensor:
        tokens = self._embed(x, condition)
        grid = (x.shape[2], x.shape[3])
        skips = []
        for level, stage in enumerate(self.encoder.layers):
            entered = tokens
            tokens = self._blocks(stage, tokens, condition, self._tokens(grid, level))
            skips.append(tokens)
            if hasattr(stage, "downsample"):
                tokens = stage.downsample(tokens + entered, condition)
        for number, blocks in enumerate(self.residual_blocks):
            for block in blocks:
                skips[number] = self._run(block, skips[number], condition)
        tokens = skips.pop()
        for number, stage in enumerate(self.decoder.layers):
            if number:
                tokens = tokens + skips.pop()
            tokens = self._blocks(stage, tokens, condition, self._tokens(grid, len(skips)))
            if skips:
                tokens = stage.upsample(tokens, condition, (skips[-1].shape[1], skips[-1].shape[2]))
        made = self.patch_recovery.projection(tokens.permute(0, 3, 1, 2))
        return self.patch_recovery.mixup(made)

    def _blocks(self, stage: nn.Module, tokens: Tensor, condition: Condition, nominal: Size) -> Tensor:
        for block in stage.blocks:
            tokens = self._run(block, tokens, condition, nominal)
        return tokens

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        # Once more would be one batch too many for running statistics.
        again = self.settings.gradient_checkpointing and not isinstance(block, ResNetBlock)
        if again and self.training and torch.is_grad_enabled():
            if under_func():
                raise ConfigError(
                    "poseidon: gradient_checkpointing recomputes nothing under torch.func (NeuralStagger with mode "
                    "independent is); leave it out"
                )
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)

    def _embed(self, x: Tensor, condition: Condition) -> Tensor:
        tokens = self.embeddings.patch_embeddings.projection(x).permute(0, 2, 3, 1)
        tokens = self.embeddings.norm(tokens, condition)
        if self.settings.use_absolute_embeddings:
            table, shape = self.embeddings.position_embeddings, tokens.shape
            expected = tuple(n // self.settings.patch_size for n in self.settings.grid)
            if shape[1:3] != expected:
                raise DataError(
                    f"poseidon: a grid of {tuple(x.shape[2:])} has {tuple(shape[1:3])} patches; the table of positions "
                    f'(use_absolute_embeddings) has {expected}: use resize="spectral", or give image_size'
                )
            tokens = tokens + table.view(1, *shape[1:])
        return self.dropout(tokens)

    def _condition(self, x: Tensor, time: Tensor | None, parameters: Tensor | None) -> Condition:
        lead = None if time is None else time.to(x.dtype).unsqueeze(1)
        embedded = None
        if self.n_parameters and parameters is not None:
            embedded = self.parameter_embedding(parameters.to(x.dtype))
        return Condition(lead, embedded)

    def _fit(self, x: Tensor) -> Tensor:
        """The input on a grid that the network takes."""
        config, grid = self.settings, (x.shape[2], x.shape[3])
        if config.resize == "spectral":
            return resample(x, config.grid)
        if config.periodic and not config.whole(grid):
            raise DataError(
                f"poseidon: the periodic grid {grid} is not filled by whole windows of {config.window_size} tokens on "
                f"{config.levels} levels of patches of {config.patch_size}, and padding would cut the box open; use a "
                'grid that is, or resize="spectral"'
            )
        if config.resize == "pad":
            return pad_to_multiple(x, config.patch_size)
        if any(n % config.patch_size for n in grid):
            raise DataError(
                f"poseidon: the grid {grid} is not a multiple of patch_size {config.patch_size} along each axis; "
                'choose how to fit it: resize="pad" or resize="spectral"'
            )
        return x

    def _tokens(self, grid: Size, level: int) -> Size:
        """Tokens of a level, halves dropped, at least one."""
        p = self.settings.patch_size
        height, width = (max(n // p // 2**level, 1) for n in grid)
        return height, width

    def _check_targets(self, x: Tensor, labels: Tensor | None, pixel_mask: Tensor | None) -> None:
        if torch.compiler.is_compiling():
            return
        expected = (x.shape[0], self.out_channels, *x.shape[2:])
        if labels is not None and tuple(labels.shape) != expected:
            raise DataError(f"poseidon: labels have shape {tuple(labels.shape)}; expected {expected}")
        if pixel_mask is None:
            return
        if pixel_mask.dtype != torch.bool or tuple(pixel_mask.shape) not in (expected, expected[:2]):
            raise DataError(
                f"poseidon: pixel_mask is {pixel_mask.dtype} of shape {tuple(pixel_mask.shape)}; expected bool of "
                f"{expected} or {expected[:2]}"
            )
        if labels is None and self.out_channels > self.in_channels:
            raise DataError(
                "poseidon: a pixel_mask without labels keeps the input, which has fewer channels; give labels"
            )

    def forget_bias(self) -> None:
        """Drop the position biases that evaluation keeps: needed only after writing through ``weight.data``."""
        for module in self.modules():
            if isinstance(module, WindowAttention):
                module.forget()

    # ---------------------------------------------------------------------------------------- making, saving, loading

    @classmethod
    def tiny(cls, **changes: Any) -> "Self":
        """Poseidon-T, 21 million parameters; ``changes`` to its configuration."""
        return cls(PoseidonConfig(**{**_published("tiny"), **changes}))

    @classmethod
    def base(cls, **changes: Any) -> "Self":
        """Poseidon-B, 158 million parameters."""
        return cls(PoseidonConfig(**{**_published("base"), **changes}))

    @classmethod
    def large(cls, **changes: Any) -> "Self":
        """Poseidon-L, 629 million parameters."""
        return cls(PoseidonConfig(**{**_published("large"), **changes}))

    @classmethod
    def create(cls, options: dict[str, Any]) -> "Self":
        return cls(PoseidonConfig.from_options(options))

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        return {"dim": dim, "periodic": periodic}

    @classmethod
    def options_for_names(cls, inputs: Any, outputs: Any, parameters: Any) -> dict[str, Any]:
        return {
            "channel_names": list(inputs),
            "out_channel_names": list(outputs),
            "parameter_names": list(parameters),
        }

    def saved_config(self) -> dict[str, Any]:
        """The published layout with our fields beside it."""
        return {**self.settings.published(), "operator": self.name, "sciml_version": __version__}

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        source: str | Path,
        *,
        channels: weights.Channels | None = None,
        out_channels: weights.Channels | None = None,
        parameters: weights.Channels | None = None,
        device: torch.device | str = "cpu",
        **changes: Any,
    ) -> "Self":
        """Read a checkpoint: a directory in the published layout (one or several ``.safetensors`` or
        ``pytorch_model.bin``), or the id of one on the Hugging Face hub.

        Args:
            source: the directory, or a hub id such as "camlab-ethz/Poseidon-T" (needs ``huggingface_hub``).
            channels: for each channel of the input that is wanted the name or number of the checkpoint's channel that
                it continues; a name that the checkpoint does not have, or None, is a new channel. As many names as a
                checkpoint without names has channels are taken in order. Default: as they are.
            out_channels: the same for the output; default: ``channels`` where the checkpoint has as many output as
                input channels.
            parameters: the same for the physical parameters.
            device: where to put it.
            changes: fields of the configuration that do not touch the shape of a tensor, e.g. ``resize="pad"``.

        What is shared keeps its weights: rows of the patch embedding and of the recovery. What is new is initialised:
        input channels and parameters to zero, so the output does not change before training; output channels at random.

        Raises:
            CheckpointError: nothing there, another family, tensors missing or of other shapes (named).
            ConfigError: an unknown channel number or a change that does not fit the weights.
        """
        return weights.load(
            cls, source, channels=channels, out_channels=out_channels, parameters=parameters, changes=changes
        ).to(device)

    @classmethod
    def fine_tuned_from(
        cls,
        source: str | Path,
        *,
        inputs: Any,
        outputs: Any,
        parameters: Any = (),
        options: dict[str, Any] | None = None,
    ) -> "Self":
        """As ``from_pretrained`` with channels by name; ``resize`` is "pad" unless the options say otherwise."""
        changes = {key: value for key, value in (options or {}).items() if key != "dim"}
        return cls.from_pretrained(
            source,
            channels=list(inputs),
            out_channels=list(outputs),
            parameters=list(parameters),
            **{"resize": "pad", **changes},
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """The groups of the published fine-tuning: embedding and recovery; conditioned norms; what is not decayed."""
        conditioned = {
            id(p) for module in self.modules() if isinstance(module, ConditionedNorm) for p in module.parameters()
        }
        plain = {id(p) for m in self.modules() if isinstance(m, PlainNorm) for p in m.parameters()}
        groups: dict[str, list[nn.Parameter]] = {
            name: [] for name in ("embedding_recovery", "time_embedding", "no_decay", "rest")
        }
        for name, parameter in self.named_parameters():
            if name.startswith(("embeddings.", "patch_recovery.")):
                groups["embedding_recovery"].append(parameter)
            elif id(parameter) in conditioned or name.startswith("parameter_embedding."):
                groups["time_embedding"].append(parameter)
            elif "bias" in name or id(parameter) in plain:
                groups["no_decay"].append(parameter)
            else:
                groups["rest"].append(parameter)
        decayed = ("embedding_recovery", "rest")
        return [ParameterGroup(name, found, name in decayed) for name, found in groups.items()]


def _published(size: str) -> dict[str, Any]:
    return {
        **SIZES[size],
        "channel_slice_list_normalized_loss": (0, 1, 3, 4),
        "channel_names": weights.PUBLISHED_CHANNELS,
        "out_channel_names": weights.PUBLISHED_CHANNELS,
    }

"""What a Poseidon is made of: the published ``config.json``, and what this package adds to it."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sciml.errors import CheckpointError, ConfigError, did_you_mean

RESIZE = ("spectral", "native", "pad")
ALIASES = {
    "in_channels": "num_channels",
    "out_channels": "num_out_channels",
    "time_conditioning": "use_conditioning",
}
"""Names of every operator of this package -> the published names."""


@dataclass(frozen=True)
class PoseidonConfig:
    """The fields of the published ``config.json``, then ours. Defaults are those of the published models.

    Args:
        image_size: cells along each axis of the grid that the windows are laid out for, a number or one for each axis.
        patch_size: cells along the side of a patch (one token).
        num_channels, num_out_channels: channels of input and output.
        embed_dim: width C of the finest level; level i has ``C 2^i``.
        depths: Swin blocks of each level, in the encoder and again in the decoder.
        num_heads: attention heads of each level.
        skip_connections: residual blocks on the skip of each level; 0 is a plain skip.
        window_size: tokens along the side of an attention window.
        mlp_ratio: hidden width of the MLPs over their width.
        qkv_bias: whether query and value have a bias (the key has none).
        hidden_dropout_prob, attention_probs_dropout_prob: dropout rates.
        drop_path_rate: largest rate of stochastic depth; it grows along the order of execution.
        hidden_act: activation of the MLPs, "gelu" (the exact one), "relu" or "silu".
        use_absolute_embeddings: a learned table of positions added to the tokens.
        initializer_range: standard deviation of initial weights.
        layer_norm_eps: epsilon of the norms of blocks.
        p: 1 for an L1 loss, 2 for a squared one.
        channel_slice_list_normalized_loss: boundaries of the channel groups of the relative loss; None: a plain loss.
        residual_model: blocks on the skips, "convnext" or "resnet".
        use_conditioning: norms are scaled and shifted by affine functions of the lead time.
        learn_residual: the input is added to the output (published: ignored without conditioning).
        n_parameters: physical parameters that the norms are conditioned on as well.
        resize: what becomes of a grid that is not ``image_size``. "spectral": resampled to it and back, as published.
            "native": taken as it is; each axis has to be a multiple of ``patch_size``. "pad": taken as it is, the high
            ends repeated to a multiple of ``patch_size`` and cut off again.
        periodic: the box is periodic: windows, shifts and convolutions go around it (not published).
        norm_gain: initial gain of the conditioned norms at time 0; published 0, which starts every block near zero.
        gradient_checkpointing: recompute the blocks in the backward pass instead of keeping what they did.
        channel_names, out_channel_names, parameter_names: what the channels and parameters are; used to start from
            weights of another set of channels.
    """

    image_size: int | tuple[int, int] = 128
    patch_size: int = 4
    num_channels: int = 4
    num_out_channels: int = 4
    embed_dim: int = 48
    depths: tuple[int, ...] = (4, 4, 4, 4)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    skip_connections: tuple[int, ...] = (2, 2, 2, 0)
    window_size: int = 16
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    drop_path_rate: float = 0.0
    hidden_act: str = "gelu"
    use_absolute_embeddings: bool = False
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    p: int = 1
    channel_slice_list_normalized_loss: tuple[int, ...] | None = None
    residual_model: str = "convnext"
    use_conditioning: bool = True
    learn_residual: bool = False

    n_parameters: int = 0
    resize: str = "spectral"
    periodic: bool = False
    norm_gain: float = 0.0
    gradient_checkpointing: bool = False
    channel_names: tuple[str, ...] = field(default=())
    out_channel_names: tuple[str, ...] = field(default=())
    parameter_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in _TUPLES:
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                object.__setattr__(self, name, tuple(value))
        self._check()

    @property
    def levels(self) -> int:
        return len(self.depths)

    @property
    def grid(self) -> tuple[int, int]:
        """Cells along each axis that the windows are laid out for."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def width(self, level: int) -> int:
        """Channels of a token of a level."""
        return self.embed_dim * 2**level

    def as_dict(self) -> dict[str, Any]:
        """Every field, tuples as lists: what JSON gives back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def published(self) -> dict[str, Any]:
        """The content of ``config.json``: these fields and those that the published layout derives from them."""
        return {
            "model_type": "swinv2",
            "architectures": ["ScOT"],
            **self.as_dict(),
            "num_layers": self.levels,
            "hidden_size": self.width(self.levels - 1),
            "pretrained_window_sizes": [0] * max(4, self.levels),
        }

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "PoseidonConfig":
        """From published names or this package's (``in_channels`` ...); a wrong name is answered with the nearest.

        Raises ``ConfigError``.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        values = {}
        for key, value in options.items():
            if key == "dim":
                if value != 2:
                    raise ConfigError(f"poseidon: dim is {value}; it exists in 2D only")
                continue
            name = ALIASES.get(key, key)
            if name not in known:
                near = did_you_mean(key, [*known, *ALIASES])
                raise ConfigError(f"operator 'poseidon' has no argument {key!r}{near}")
            if name in values:
                alias = next(alias for alias, published in ALIASES.items() if published == name)
                raise ConfigError(
                    f"poseidon: {alias} and {name} are the same argument, and both are given; leave one out"
                )
            values[name] = value
        return cls(**values)

    @classmethod
    def read(cls, saved: Any, source: str = "config.json") -> "PoseidonConfig":
        """From a published ``config.json``: unknown keys are skipped, missing ones take the defaults of its class.

        Raises ``CheckpointError`` for another family of models or a value that is out of range.
        """
        if not isinstance(saved, Mapping):
            raise CheckpointError(
                f"{source} holds {type(saved).__name__}; expected the keys of a Poseidon configuration"
            )
        family = saved.get("model_type", "swinv2")
        kinds = saved.get("architectures") or ["ScOT"]
        if saved.get("operator", "poseidon") != "poseidon" or family != "swinv2" or "ScOT" not in kinds:
            what = saved.get("operator") or f"{', '.join(map(str, kinds))} of type {family!r}"
            raise CheckpointError(f"{source} describes {what}; expected a Poseidon (ScOT, model_type 'swinv2')")
        fields = {f.name for f in dataclasses.fields(cls)}
        values = {key: value for key, value in saved.items() if key in fields}
        for alias, name in (("num_attention_heads", "num_heads"),):
            if alias in saved:
                values.setdefault(name, saved[alias])
        values = {**_CLASS_DEFAULTS, **values}
        depths, skips = values["depths"], values["skip_connections"]
        levels = len(depths) if isinstance(depths, list | tuple) else 0
        # Booleans count blocks as well; an absent entry is a plain skip.
        skips = list(skips) if isinstance(skips, list | tuple) else [skips] * levels
        skips = [int(n) if isinstance(n, bool) else n or 0 for n in skips]
        values["skip_connections"] = (skips + [0] * levels)[:levels]
        for name in ("window_size", "patch_size"):
            pair = values.get(name)
            if isinstance(pair, list | tuple) and len(pair) == 2 and pair[0] == pair[1]:
                values[name] = pair[0]
        try:
            return cls(**values)
        except ConfigError as error:
            raise CheckpointError(f"{source}: {error}") from error

    def whole(self, grid: Sequence[int]) -> bool:
        """Whether whole patches, merges and windows fill a grid, so that nothing has to be padded."""
        if any(n % (self.patch_size * 2 ** (self.levels - 1)) for n in grid):
            return False
        for level in range(self.levels):
            for n, laid_out in zip(grid, self.grid, strict=True):
                tokens, most = (size // self.patch_size // 2**level for size in (n, laid_out))
                if tokens % min(tokens, most, self.window_size):
                    return False
        return True

    def _check(self) -> None:
        self._check_types()
        for name in ("patch_size", "num_channels", "num_out_channels", "embed_dim", "window_size"):
            _positive(name, getattr(self, name))
        sizes = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,) * 2
        if len(sizes) != 2:
            raise ConfigError(f"poseidon: image_size is {self.image_size!r}; expected a number, or one for each axis")
        for size in sizes:
            _positive("image_size", size)
        levels = len(self.depths)
        if levels == 0:
            raise ConfigError("poseidon: depths is empty; expected the number of blocks of each level")
        for name in ("depths", "num_heads", "skip_connections"):
            values = getattr(self, name)
            if len(values) != levels:
                raise ConfigError(f"poseidon: {name} has {len(values)} entries; expected {levels}, one for each level")
            for level, value in enumerate(values):
                if not _whole(value) or value < (1 if name == "num_heads" else 0):
                    raise ConfigError(f"poseidon: {name}[{level}] is {value!r}; expected a whole number")
        for level, heads in enumerate(self.num_heads):
            if self.width(level) % heads:
                raise ConfigError(
                    f"poseidon: {heads} heads do not divide the {self.width(level)} channels of level {level}; change "
                    "num_heads or embed_dim"
                )
        if min(sizes) // self.patch_size < 2 ** (levels - 1):
            raise ConfigError(
                f"poseidon: image_size {self.image_size} in patches of {self.patch_size} is too small for {levels} "
                f"levels; expected at least {self.patch_size * 2 ** (levels - 1)} cells along each axis"
            )
        if self.resize == "spectral" and any(size % self.patch_size for size in sizes):
            raise ConfigError(
                f"poseidon: image_size {self.image_size} is no multiple of patch_size {self.patch_size}; change it, or "
                'use resize="pad"'
            )
        if self.resize == "spectral" and self.periodic and not self.whole(self.grid):
            raise ConfigError(
                f"poseidon: image_size {self.image_size} is not filled by whole windows of {self.window_size} tokens "
                f"on {levels} levels of patches of {self.patch_size}, and padding would cut the periodic box open; "
                "change one of them"
            )
        for name, choices in (
            ("resize", RESIZE),
            ("residual_model", ("convnext", "resnet")),
            ("hidden_act", ("gelu", "relu", "silu")),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"poseidon: {name} is {value!r}; expected one of {', '.join(choices)}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"):
            if not _number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"poseidon: {name} is {getattr(self, name)!r}; expected 0 <= rate < 1")
        for name in ("mlp_ratio", "layer_norm_eps", "initializer_range"):
            if not _number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ConfigError(f"poseidon: {name} is {getattr(self, name)!r}; expected a positive number")
        if int(self.mlp_ratio * self.embed_dim) < 1:
            raise ConfigError(
                f"poseidon: mlp_ratio {self.mlp_ratio} of {self.embed_dim} channels leaves the MLPs no hidden channel"
            )
        if not _number(self.norm_gain):
            raise ConfigError(f"poseidon: norm_gain is {self.norm_gain!r}; expected a number")
        if self.p not in (1, 2):
            raise ConfigError(f"poseidon: p is {self.p!r}; expected 1 (absolute) or 2 (squared)")
        if not _whole(self.n_parameters) or self.n_parameters < 0:
            raise ConfigError(f"poseidon: n_parameters is {self.n_parameters!r}; expected 0 or more")
        groups = self.channel_slice_list_normalized_loss
        if groups is not None and (
            not all(map(_whole, groups))
            or groups[:1] != (0,)
            or groups[-1] != self.num_out_channels
            or list(groups) != sorted(set(groups))
        ):
            raise ConfigError(
                f"poseidon: channel_slice_list_normalized_loss is {list(groups)}; expected rising boundaries from 0 to "
                f"the {self.num_out_channels} output channels"
            )
        for name, count in (
            ("channel_names", self.num_channels),
            ("out_channel_names", self.num_out_channels),
            ("parameter_names", self.n_parameters),
        ):
            names = getattr(self, name)
            if names and (len(names) != count or len(set(names)) != count):
                raise ConfigError(f"poseidon: {name} is {list(names)}; expected {count} different names, or none")
        if self.learn_residual and self.use_conditioning and self.num_out_channels > self.num_channels:
            raise ConfigError(
                f"poseidon: learn_residual adds the input to the output, but {self.num_out_channels} output channels "
                f"are more than {self.num_channels} input channels"
            )

    def _check_types(self) -> None:
        for name in _TUPLES:
            value = getattr(self, name)
            alone = _whole(value) if name == "image_size" else value is None and name.startswith("channel_slice")
            if not isinstance(value, tuple) and not alone:
                what = "a number, or one for each axis" if name == "image_size" else "a list"
                raise ConfigError(f"poseidon: {name} is {value!r}; expected {what}")
        for name in ("channel_names", "out_channel_names", "parameter_names"):
            if not all(isinstance(item, str) for item in getattr(self, name)):
                raise ConfigError(f"poseidon: {name} is {list(getattr(self, name))}; expected strings")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"poseidon: {name} is {getattr(self, name)!r}; expected true or false")


_TUPLES = (
    "image_size",
    "depths",
    "num_heads",
    "skip_connections",
    "channel_slice_list_normalized_loss",
    "channel_names",
    "out_channel_names",
    "parameter_names",
)
_SWITCHES = (
    "qkv_bias",
    "use_absolute_embeddings",
    "use_conditioning",
    "learn_residual",
    "periodic",
    "gradient_checkpointing",
)
_CLASS_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "num_channels": 3,
    "num_out_channels": 1,
    "embed_dim": 96,
    "depths": (2, 2, 6, 2),
    "num_heads": (3, 6, 12, 24),
    "skip_connections": (1, 1, 1, 0),
    "window_size": 7,
    "drop_path_rate": 0.1,
    "use_conditioning": False,
}
"""What the published class takes for a key that ``config.json`` leaves out (where it differs from the models')."""


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(name: str, value: Any) -> None:
    if not _whole(value) or value < 1:
        raise ConfigError(f"poseidon: {name} is {value!r}; expected a whole number above 0")

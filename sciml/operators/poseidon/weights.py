"""Reading published checkpoints, and fitting their weights to other channels and parameters."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sciml.errors import CheckpointError, ConfigError, did_you_mean
from sciml.operators.poseidon.config import PoseidonConfig
from sciml.operators.stored import CONFIG_FILE, WEIGHTS_FILE, check_tensors

if TYPE_CHECKING:
    from sciml.operators.poseidon.model import Poseidon

Channels = Sequence[str | int | None]
PUBLISHED_CHANNELS = ("density", "velocity_x", "velocity_y", "pressure")
PUBLISHED_GROUPS = (0, 1, 3, 4)
PICKLED_FILE = "pytorch_model.bin"
IGNORED = ("relative_coords_table", "relative_position_index", "mask_token")
"""Ends of names in checkpoints that are constants, or that prediction does not use."""
EMBED = "embeddings.patch_embeddings.projection.weight"
RECOVER, MIX = "patch_recovery.projection", "patch_recovery.mixup.weight"
PARAMETERS = "parameter_embedding."


def load(
    cls: "type[Poseidon]",
    source: str | Path,
    *,
    channels: Channels | None,
    out_channels: Channels | None,
    parameters: Channels | None,
    changes: Mapping[str, Any],
) -> "Poseidon":
    """The model of a checkpoint, on the CPU; see ``Poseidon.from_pretrained``."""
    directory = find(source)
    stored = read_config(directory)
    tensors = read_tensors(directory)
    known = {f.name for f in dataclasses.fields(PoseidonConfig)}
    for key in changes:
        if key not in known:
            raise ConfigError(f"poseidon has no configuration key {key!r}{did_you_mean(key, known)}")
    # First as it was saved: what is damaged or missing is then told from what is new.
    check_tensors(directory, tensors, _expected(cls, stored))
    mapping = _Mapping(stored, channels, out_channels, parameters)
    config = dataclasses.replace(mapping.fit(stored), **changes)
    with torch.random.fork_rng(devices=[]):  # most of these weights are thrown away: draw nothing for them
        model = cls(config).to(tensors[EMBED].dtype)
    fresh = model.state_dict()
    tensors = mapping.fit_tensors(tensors, fresh)
    check_tensors(directory, tensors, fresh)
    model.load_state_dict(tensors, assign=True)
    return model


# ------------------------------------------------------------------------------------------------------------- files


def find(source: str | Path) -> Path:
    """The directory of a checkpoint; a hub id is downloaded into the hub's cache.

    Raises ``CheckpointError``.
    """
    path = Path(source)
    if path.is_dir():
        return path
    parts = str(source).split("/")
    if path.exists() or len(parts) != 2 or not all(parts) or parts[0] in (".", ".."):
        raise CheckpointError(f"{source} is not a directory; expected one with {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{source} is not a directory here; to read it as an id of the Hugging Face hub install huggingface_hub "
            "(pip install huggingface_hub)"
        ) from None
    try:
        return Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors", "*.bin"]))
    except Exception as error:
        raise CheckpointError(f"{source} is neither a directory here nor to be had from the hub: {error}") from error


def read_config(directory: Path) -> PoseidonConfig:
    """``config.json`` of a checkpoint.

    Raises ``CheckpointError``.
    """
    file = directory / CONFIG_FILE
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            f"{directory} holds no {CONFIG_FILE}; expected the layout of a Poseidon checkpoint"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None
    return PoseidonConfig.read(saved, str(file))


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, half precision as float32; no pickle is executed.

    Raises ``CheckpointError`` if a file is missing or damaged.
    """
    for name in (WEIGHTS_FILE, PICKLED_FILE):
        index = directory / f"{name}.index.json"
        if (directory / name).is_file():
            files = [directory / name]
        elif index.is_file():
            files = _shards(index)
        else:
            continue
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors |= _read(file)
        return {key: _as_single(value) for key, value in tensors.items() if not key.endswith(IGNORED)}
    raise CheckpointError(
        f"{directory} holds no weights: expected {WEIGHTS_FILE} or {PICKLED_FILE}, or an index of shards"
    )


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged ({error!r}); expected a weight_map from tensors to files") from None
    if outside:
        raise CheckpointError(f"{index} names the file {outside[0]!r} outside its directory")
    return [index.parent / name for name in names]


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"{file} is missing; the index of shards names it")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the damage leads to
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(f"{file} cannot be read: {first}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{file} holds something else than a dictionary from names to tensors")
    return dict(found)


def _as_single(tensor: Tensor) -> Tensor:
    # A copy: tensors of a file lie where the file has them, and products round differently there.
    half = tensor.is_floating_point() and tensor.dtype.itemsize < 4
    return tensor.float() if half else tensor.clone()


def _expected(cls: "type[Poseidon]", config: PoseidonConfig) -> dict[str, Tensor]:
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return cls(config).state_dict()


# ---------------------------------------------------------------------------------------------------------- channels


class _Mapping:
    """Which channel of the checkpoint each wanted channel continues: its number, or None for a new one."""

    def __init__(
        self,
        stored: PoseidonConfig,
        channels: Channels | None,
        out_channels: Channels | None,
        parameters: Channels | None,
    ) -> None:
        published = (
            not stored.channel_names
            and stored.num_channels == stored.num_out_channels == len(PUBLISHED_CHANNELS)
            and stored.channel_slice_list_normalized_loss == PUBLISHED_GROUPS
        )
        ins = PUBLISHED_CHANNELS if published else stored.channel_names
        outs = PUBLISHED_CHANNELS if published else stored.out_channel_names
        if out_channels is None and channels is not None and stored.num_channels == stored.num_out_channels:
            out_channels = channels
        self.inputs = _Wanted("channels", channels, ins, stored.num_channels)
        self.outputs = _Wanted("out_channels", out_channels, outs, stored.num_out_channels)
        self.parameters = _Wanted("parameters", parameters, stored.parameter_names, stored.n_parameters)

    def fit(self, stored: PoseidonConfig) -> PoseidonConfig:
        """The configuration for the wanted channels."""
        outputs, groups = self.outputs, stored.channel_slice_list_normalized_loss
        if groups is not None and not outputs.same:
            groups = _groups(outputs.names) if outputs.names else tuple(range(len(outputs.rows) + 1))
        residual = self.inputs.rows[: len(outputs.rows)], outputs.rows
        if stored.learn_residual and stored.use_conditioning and residual[0] != residual[1]:
            raise ConfigError(
                "poseidon: this checkpoint adds input channel i to output channel i (learn_residual); ask for the same "
                "channels first in channels and out_channels"
            )
        return dataclasses.replace(
            stored,
            num_channels=len(self.inputs.rows),
            num_out_channels=len(outputs.rows),
            n_parameters=len(self.parameters.rows),
            channel_slice_list_normalized_loss=groups,
            channel_names=self.inputs.names,
            out_channel_names=outputs.names,
            parameter_names=self.parameters.names,
        )

    def fit_tensors(self, tensors: dict[str, Tensor], fresh: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The checkpoint's tensors with the rows of the wanted channels; ``fresh`` gives what is new."""
        fitted = dict(tensors)
        ins, outs = self.inputs, self.outputs
        if not ins.same:
            fitted[EMBED] = ins.pick(tensors[EMBED], 1, torch.zeros_like(fresh[EMBED]))
        if not outs.same:
            for name, axis in ((f"{RECOVER}.weight", 1), (f"{RECOVER}.bias", 0)):
                fitted[name] = outs.pick(tensors[name], axis, fresh[name])
            # What is shared must not change, so it reads nothing of what is new.
            columns = outs.pick(tensors[MIX], 1, tensors[MIX].new_zeros(outs.count, len(outs.rows), 5, 5))
            fitted[MIX] = outs.pick(columns, 0, fresh[MIX])
        if not self.parameters.same:
            self._fit_parameters(fitted, fresh)
        return fitted

    def _fit_parameters(self, tensors: dict[str, Tensor], fresh: Mapping[str, Tensor]) -> None:
        rows, first = self.parameters.rows, f"{PARAMETERS}0.weight"
        linear = [name for name in fresh if name.endswith(".parameters_weight.weight")]
        if not self.parameters.count:  # the checkpoint knows no parameters
            tensors |= {name: value for name, value in fresh.items() if name.startswith(PARAMETERS)}
            tensors |= {name: torch.zeros_like(fresh[name]) for name in linear}
            for norm in (name.removesuffix(".parameters_weight.weight") for name in linear):
                if f"{norm}.weight" in tensors:  # a plain norm
                    tensors[f"{norm}.weight.bias"] = tensors.pop(f"{norm}.weight")
                    tensors[f"{norm}.bias.bias"] = tensors.pop(f"{norm}.bias")
        elif rows:
            tensors[first] = self.parameters.pick(tensors[first], 1, torch.zeros_like(fresh[first]))
        else:
            _fold_parameters(tensors)


def _fold_parameters(tensors: dict[str, Tensor]) -> None:
    """Drop the parameters: what they add when they are 0 (their mean) becomes part of gains and shifts."""
    hidden = torch.nn.functional.gelu(tensors.pop(f"{PARAMETERS}0.bias"))
    tensors.pop(f"{PARAMETERS}0.weight")
    embedded = tensors.pop(f"{PARAMETERS}2.weight") @ hidden + tensors.pop(f"{PARAMETERS}2.bias")
    for name in [name for name in tensors if name.endswith(".parameters_weight.weight")]:
        norm = name.removesuffix(".parameters_weight.weight")
        gain, shift = (tensors.pop(name) @ embedded).chunk(2)
        plain = f"{norm}.weight.weight" not in tensors  # what is left depends on nothing
        for kind, more in (("weight", gain), ("bias", shift)):
            tensors[f"{norm}.{kind}" if plain else f"{norm}.{kind}.bias"] = tensors.pop(f"{norm}.{kind}.bias") + more


class _Wanted:
    """One list of wanted channels: ``rows[i]`` is the checkpoint's channel that i continues, None for a new one."""

    def __init__(self, key: str, wanted: Channels | None, names: tuple[str, ...], count: int) -> None:
        self.count = count
        if wanted is None:
            self.rows: list[int | None] = list(range(count))
            self.names = names
        elif isinstance(wanted, str):
            raise ConfigError(f"poseidon: {key} is {wanted!r}; expected a list of names, numbers or None")
        else:
            if not names and len(wanted) == count and all(isinstance(item, str) for item in wanted):
                names = tuple(wanted)  # type: ignore[arg-type]  # nobody named them before: taken in order
            self.rows = [self._row(key, item, names, count) for item in wanted]
            given = [
                item if isinstance(item, str) else None if item is None or not names else names[item] for item in wanted
            ]
            self.names = tuple(given) if all(given) and len(set(given)) == len(given) else ()  # type: ignore[arg-type]
        self.same = self.rows == list(range(count))

    @staticmethod
    def _row(key: str, item: str | int | None, names: tuple[str, ...], count: int) -> int | None:
        if item is None:
            return None
        if isinstance(item, str):
            if not names and count:
                raise ConfigError(
                    f"poseidon: {key} asks for {item!r}, but the checkpoint does not name its {count}; give numbers"
                )
            return names.index(item) if item in names else None
        if not isinstance(item, int) or not 0 <= item < count:
            raise ConfigError(f"poseidon: {key} asks for number {item!r}; the checkpoint has 0 to {count - 1}")
        return item

    def pick(self, tensor: Tensor, axis: int, new: Tensor) -> Tensor:
        """The rows of a tensor along an axis, those of new channels from ``new``."""
        parts = [
            new.select(axis, i).to(tensor.dtype) if row is None else tensor.select(axis, row)
            for i, row in enumerate(self.rows)
        ]
        return torch.stack(parts, axis)


def _groups(names: Sequence[str]) -> tuple[int, ...]:
    """Boundaries of the loss's groups: neighbouring components of one vector field belong together."""
    stems = [name[:-2] if name[-2:] in ("_x", "_y", "_z") else name for name in names]
    starts = [i for i in range(len(stems)) if i == 0 or stems[i] != stems[i - 1]]
    return (*starts, len(stems))

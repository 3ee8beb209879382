"""Poseidon's checkpoints: which files are read, which are refused, and what becomes of other channels."""

import json
import sys
import types
from pathlib import Path

import pytest
import torch
from poseidon_golden import STORED, golden_case
from poseidon_small import field, lead, small, vector
from safetensors.torch import load_file, save_file

from sciml.errors import CheckpointError, ConfigError, SciMLError
from sciml.operators import Operator, Poseidon, UNet
from sciml.operators.poseidon import PoseidonConfig

NAMES = ("density", "velocity_x", "velocity_y", "pressure")
GROUPS = (0, 1, 3, 4)


def published(**changes):
    """Four channels without names in the groups of the published models."""
    return small(**{"channel_slice_list_normalized_loss": GROUPS, **changes})


def saved(operator, directory: Path) -> Path:
    """As ``operator.save_pretrained``; a directory for each test."""
    return operator.save_pretrained(directory / "checkpoint")


def rewrite(directory: Path, **changes) -> None:
    file = directory / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def same(actual, expected, tolerance=0.0):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


# ----------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"residual_model": "resnet", "skip_connections": (2, 0)},
        {"use_conditioning": False, "use_absolute_embeddings": True, "qkv_bias": False},
        {"n_parameters": 2, "parameter_names": ("a", "b"), "image_size": (16, 24), "resize": "spectral"},
        {"channel_names": NAMES, "out_channel_names": NAMES, "periodic": True, "norm_gain": 0.5},
    ],
    ids=["plain", "resnet", "unconditioned", "parameters", "names"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_and_read_is_bit_equal(changes, dtype, tmp_path):
    operator = small(dtype, **changes)
    grid = operator.settings.grid
    inputs = {
        "time": lead(dtype=dtype) if operator.time_conditioning else None,
        "parameters": vector(dtype=dtype) if operator.n_parameters else None,
    }
    operator.train()(field(grid=grid, dtype=dtype), **inputs)  # running statistics are saved too
    directory = saved(operator.eval(), tmp_path)
    state = torch.get_rng_state()
    for cls in (Poseidon, Operator):
        loaded = cls.from_pretrained(directory).eval()
        assert loaded.settings == operator.settings and loaded.config == operator.config
        x = field(grid=grid, dtype=dtype)
        assert torch.equal(loaded(x, **inputs), operator(x, **inputs))
        assert all(p.requires_grad and p.dtype == dtype for p in loaded.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", STORED)
def test_saved_in_the_published_layout(name, tmp_path):
    case = golden_case(name)
    directory = saved(Poseidon.from_pretrained(case.directory), tmp_path)
    ours, theirs = (load_file(d / "model.safetensors") for d in (directory, case.directory))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    config = json.loads((directory / "config.json").read_text())
    for key, value in case.config.items():
        assert key not in config or config[key] == value, key
    assert {"model_type", "architectures", "num_layers", "hidden_size", "pretrained_window_sizes"} <= set(config)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"residual_model": "resnet"},
        {"use_conditioning": False, "use_absolute_embeddings": True, "qkv_bias": False, "p": 2},
        {"learn_residual": True, "num_channels": 5},
    ],
    ids=["plain", "resnet", "unconditioned", "residual"],
)
def test_what_we_save_runs_elsewhere(changes, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "baselines"))
    from poseidon_plain import PoseidonPlain

    operator = published(resize="spectral", **changes)
    time = lead() if operator.time_conditioning else None
    x, y = field(channels=operator.in_channels, grid=(12, 12)), field(grid=(12, 12)).flip(0)
    plain = PoseidonPlain.from_pretrained(saved(operator, tmp_path)).double()
    theirs = plain(x, time=time, labels=y)
    ours = operator(x, time=time, labels=y)
    same(ours.output, theirs[0], 1e-11)
    assert ours.loss.item() == pytest.approx(theirs[1].item(), rel=1e-11)


def shards(directory: Path, ending: str, *, pickled: bool) -> list[Path]:
    """Replace the weights of a checkpoint by two files and their index."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    stem = "pytorch_model" if pickled else "model"
    names = sorted(tensors)
    files, where = [], {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = directory / f"{stem}-0000{number}-of-00002.{ending}"
        content = {key: tensors[key] for key in part}
        if pickled:
            torch.save(content, file)
        else:
            save_file(content, file)
        where |= dict.fromkeys(part, file.name)
        files.append(file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (directory / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return files


def pickled(directory: Path, content=None) -> Path:
    """Replace the weights of a checkpoint by ``pytorch_model.bin``."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    torch.save(tensors if content is None else content, directory / "pytorch_model.bin")
    return directory / "pytorch_model.bin"


@pytest.mark.parametrize("layout", ["bin", "safetensors shards", "bin shards"])
def test_every_layout_of_the_weights(layout, tmp_path):
    operator = small()
    directory = saved(operator, tmp_path)
    if layout == "bin":
        pickled(directory)
    else:
        shards(directory, layout.split()[0], pickled=layout.startswith("bin"))
    assert torch.equal(Poseidon.from_pretrained(directory).eval()(field(), time=lead()), operator(field(), time=lead()))


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_broken_shards(layout, tmp_path):
    directory = saved(small(), tmp_path)
    first, second = shards(directory, layout, pickled=layout == "bin")
    index = next(directory.glob("*.index.json"))
    where = json.loads(index.read_text())
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(CheckpointError, match=rf"{second.name} is missing; the index"):
        Poseidon.from_pretrained(directory)
    second.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=f"{second.name} cannot be read"):
        Poseidon.from_pretrained(directory)
    second.write_bytes(content)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(where["weight_map"], first.name)}))
    with pytest.raises(CheckpointError, match=r"missing .* more"):
        Poseidon.from_pretrained(directory)
    for outside in ("../model.safetensors", "/etc/passwd", "sub/model.safetensors"):
        index.write_text(json.dumps({"weight_map": {"a": outside}}))
        with pytest.raises(CheckpointError, match=f"names the file '{outside}' outside its directory"):
            Poseidon.from_pretrained(directory)
    for damaged in ("{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": [1]}}'):
        index.write_text(damaged)
        with pytest.raises(CheckpointError, match=r"is damaged .*expected a weight_map"):
            Poseidon.from_pretrained(directory)


def test_a_pickle_is_not_executed(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    directory = saved(small(), tmp_path)
    file = pickled(directory, {"weight": Malicious()})
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read"):
        Poseidon.from_pretrained(directory)
    torch.save({"weight": Malicious()}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Poseidon.from_pretrained(directory)
    assert not (tmp_path / "executed").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have been


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {"a": torch.zeros(1)}}, torch.zeros(3), {"epoch": 3}])
def test_a_pickle_of_something_else(content, tmp_path):
    directory = saved(small(), tmp_path)
    pickled(directory, content)
    with pytest.raises(CheckpointError, match="something else than a dictionary from names to tensors"):
        Poseidon.from_pretrained(directory)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_damaged_weights(layout, tmp_path):
    """Whatever is missing or changed: a message, or the weights."""
    directory = saved(small(torch.float32, depths=(1,), num_heads=(1,), skip_connections=(0,)), tmp_path)
    file = directory / "model.safetensors" if layout == "safetensors" else pickled(directory)
    whole = file.read_bytes()
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="cannot be read"):
            Poseidon.from_pretrained(directory)
    choose = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(60):
        changed = bytearray(whole)
        reach = 2000 if layout == "safetensors" else len(whole)
        for at in torch.randint(reach, (3,), generator=choose).tolist():
            changed[at] = int(torch.randint(256, (), generator=choose))
        file.write_bytes(changed)
        try:
            Poseidon.from_pretrained(directory)
        except CheckpointError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_precision_becomes_single(dtype, tmp_path):
    directory = saved(small(torch.float32), tmp_path)
    tensors = {key: value.to(dtype) for key, value in load_file(directory / "model.safetensors").items()}
    save_file(tensors, directory / "model.safetensors")
    loaded = Poseidon.from_pretrained(directory)
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, tensors[key].float())


def test_constants_and_the_mask_token_are_skipped(tmp_path):
    directory = saved(small(), tmp_path)
    tensors = load_file(directory / "model.safetensors")
    inner = "encoder.layers.0.blocks.0.attention.self"
    more = {
        f"{inner}.relative_coords_table": torch.zeros(1, 7, 7, 2),
        f"{inner}.relative_position_index": torch.zeros(16, 16, dtype=torch.long),
        "embeddings.mask_token": torch.zeros(1, 1, 4),
    }
    save_file(tensors | more, directory / "model.safetensors")
    assert torch.equal(Poseidon.from_pretrained(directory).eval()(field(), time=lead()), small()(field(), time=lead()))
    save_file(tensors | {"embeddings.masked": torch.zeros(1)}, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected embeddings\.masked"):
        Poseidon.from_pretrained(directory)


def test_wrong_tensors_are_named(tmp_path):
    directory = saved(small(), tmp_path)
    tensors = load_file(directory / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "logit_scale" not in k}, directory / "model.safetensors")
    missing = r"checkpoint does not fit .*missing encoder\.layers\.0\.blocks\.0\.attention\.self\.logit_scale"
    with pytest.raises(CheckpointError, match=missing):
        Poseidon.from_pretrained(directory)
    save_file(tensors | {"patch_recovery.projection.bias": torch.zeros(3)}, directory / "model.safetensors")
    for options in ({}, {"channels": [3, 2, 1, 0]}):
        with pytest.raises(CheckpointError, match=r"projection\.bias has shape \(3,\), expected \(4,\)"):
            Poseidon.from_pretrained(directory, **options)
    rewrite(directory, embed_dim=8)
    with pytest.raises(CheckpointError, match=r"shape \(4, 4, 2, 2\), expected \(8, 4, 2, 2\).* more"):
        Poseidon.from_pretrained(directory)


# ------------------------------------------------------------------------------------------------------------ config


def test_unknown_and_missing_keys_of_the_configuration():
    read = PoseidonConfig.read
    # What the published class takes for every key that is missing.
    bare = read({})
    assert (bare.image_size, bare.embed_dim, bare.depths, bare.window_size) == (224, 96, (2, 2, 6, 2), 7)
    assert (bare.num_channels, bare.num_out_channels, bare.drop_path_rate) == (3, 1, 0.1)
    assert not bare.use_conditioning and bare.skip_connections == (1, 1, 1, 0)
    assert bare.resize == "spectral" and not bare.periodic
    given = read({"embed_dim": 12, "torch_dtype": "float32", "nobody_knows": [1], "num_attention_heads": [1, 2, 4, 8]})
    assert (given.embed_dim, given.num_heads) == (12, (1, 2, 4, 8))
    assert read({"skip_connections": [True, False, 2]}).skip_connections == (1, 0, 2, 0)
    assert read({"skip_connections": False}).skip_connections == (0, 0, 0, 0)
    assert read({"skip_connections": None}).skip_connections == (0, 0, 0, 0)
    assert read({"window_size": [7, 7], "patch_size": [4, 4]}) == read({})
    assert read({"image_size": [32, 64]}).grid == (32, 64)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depths": 4}, "depths is 4; expected a list"),
        ({"depths": "2262"}, "depths is '2262'; expected a list"),
        ({"num_heads": None}, "num_heads is None; expected a list"),
        ({"skip_connections": ["a", 1]}, r"skip_connections\[0\] is 'a'"),
        ({"channel_slice_list_normalized_loss": []}, "rising boundaries"),
        ({"embed_dim": "48"}, "embed_dim is '48'"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ({"window_size": [4, 8]}, r"window_size is \[4, 8\]"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None"),
        ({"use_conditioning": "true"}, "use_conditioning is 'true'; expected true or false"),
        ({"operator": "unet"}, "describes unet; expected a Poseidon"),
        ({"operator": ..., "model_type": "bert", "architectures": ["BertModel"]}, "describes BertModel of type 'bert'"),
        ({"operator": ..., "architectures": ["Swinv2Model"]}, "describes Swinv2Model of type 'swinv2'"),
    ],
)
def test_a_configuration_out_of_range_is_named(changes, message, tmp_path):
    directory = saved(small(), tmp_path)
    rewrite(directory, **changes)
    with pytest.raises(CheckpointError, match=message):
        Poseidon.from_pretrained(directory)


def test_what_is_no_checkpoint_is_named(tmp_path):
    UNet(1, 1).save_pretrained(tmp_path / "unet")
    with pytest.raises(CheckpointError, match="describes unet; expected a Poseidon"):
        Poseidon.from_pretrained(tmp_path / "unet")
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        Poseidon.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file is not a directory"):
        Poseidon.from_pretrained(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        Poseidon.from_pretrained(tmp_path)
    directory = saved(small(), tmp_path)
    (directory / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no weights: expected model\.safetensors or pytorch_model\.bin"):
        Poseidon.from_pretrained(directory)
    for damaged, message in (("{", "is damaged"), ("[1]", "holds list"), ("\0", "is damaged")):
        (directory / "config.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=message):
            Poseidon.from_pretrained(directory)
    (directory / "config.json").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CheckpointError, match="is damaged"):
        Poseidon.from_pretrained(directory)


def test_changes_to_the_configuration(tmp_path):
    directory = saved(small(), tmp_path)
    changed = Poseidon.from_pretrained(directory, resize="pad", gradient_checkpointing=True, drop_path_rate=0.1)
    assert (changed.settings.resize, changed.settings.gradient_checkpointing) == ("pad", True)
    assert changed.encoder.layers[1].blocks[0].drop > 0
    with pytest.raises(ConfigError, match="no configuration key 'resise'; did you mean 'resize'"):
        Poseidon.from_pretrained(directory, resise="pad")
    with pytest.raises(ConfigError, match="resize is 'bilinear'"):
        Poseidon.from_pretrained(directory, resize="bilinear")
    with pytest.raises(CheckpointError, match=r"has shape .*expected \(8, 4, 2, 2\)"):
        Poseidon.from_pretrained(directory, embed_dim=8)


# --------------------------------------------------------------------------------------------------------------- hub


def test_a_hub_id_without_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"nobody/Poseidon-T is not a directory here; .*pip install"):
        Poseidon.from_pretrained("nobody/Poseidon-T")


def test_a_hub_id(monkeypatch, tmp_path):
    directory = saved(small(), tmp_path)
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append(name)
        if name != "camlab-ethz/Poseidon-T":
            raise OSError("404 not found")
        assert "*.json" in allow_patterns and "*.safetensors" in allow_patterns
        return str(directory)

    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    loaded = Poseidon.from_pretrained("camlab-ethz/Poseidon-T")
    assert torch.equal(loaded.eval()(field(), time=lead()), small()(field(), time=lead()))
    with pytest.raises(CheckpointError, match=r"neither a directory here nor to be had from the hub: 404 not found"):
        Poseidon.from_pretrained("camlab-ethz/Poseidon-X")
    assert asked == ["camlab-ethz/Poseidon-T", "camlab-ethz/Poseidon-X"]
    # Paths are not asked for.
    for path in ("./Poseidon-T", "Poseidon-T", "a/b/c", "/a"):
        with pytest.raises(CheckpointError, match="is not a directory"):
            Poseidon.from_pretrained(path)
    assert len(asked) == 2


# ---------------------------------------------------------------------------------------------------------- channels


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> Path:
    """A checkpoint as published: four channels, no names."""
    directory = saved(published(), tmp_path_factory.mktemp("four"))
    rewrite(directory, channel_names=..., out_channel_names=..., parameter_names=..., operator=..., n_parameters=...)
    return directory


def output(directory: Path, x, time=None, *, parameters_given=None, **options):
    operator = Poseidon.from_pretrained(directory, **options).eval()
    return operator(x, time=lead() if operator.time_conditioning else None, parameters=parameters_given)


@pytest.mark.parametrize("as_names", [True, False])
def test_permuted_channels_permute_the_output(four, as_names):
    order = [3, 1, 0, 2]
    wanted = [NAMES[i] for i in order] if as_names else order
    x = field()
    same(output(four, x[:, order], channels=wanted), output(four, x)[:, order], 1e-12)
    # Inputs and outputs are independent of each other.
    same(output(four, x[:, order], channels=wanted, out_channels=NAMES), output(four, x), 1e-12)
    same(output(four, x, out_channels=wanted), output(four, x)[:, order], 1e-12)


def test_a_subset_of_the_channels(four):
    x = field()
    absent = x.clone()
    absent[:, [0, 3]] = 0
    names = ["velocity_y", "velocity_x"]
    same(output(four, x[:, [2, 1]], channels=names, out_channels=NAMES), output(four, absent), 1e-12)
    # A missing output takes its part of the 5 x 5 convolution with it.
    part = Poseidon.from_pretrained(four)
    with torch.no_grad():
        part.patch_recovery.mixup.weight[:, [0, 3]] = 0
    expected = part.eval()(absent, time=lead())[:, [2, 1]]
    same(output(four, x[:, [2, 1]], channels=names), expected, 1e-12)


@pytest.mark.parametrize("new", ["smoke", None])
def test_new_channels_leave_the_shared_ones_alone(four, new):
    x = field()
    expected = output(four, x)
    wanted = ["velocity_x", new, "pressure", "density", "velocity_y"]
    more = torch.stack([x[:, 1], 1e3 * x[:, 0], x[:, 3], x[:, 0], x[:, 2]], 1)
    operator = Poseidon.from_pretrained(four, channels=wanted).eval()
    made = operator(more, time=lead())
    same(made[:, [3, 0, 4, 2]], expected, 1e-12)
    assert made.isfinite().all() and made[:, 1].std() > 1e-3
    names = tuple(wanted) if new else ()
    assert (operator.settings.channel_names, operator.settings.out_channel_names) == (names, names)
    made.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in operator.parameters())
    assert operator.embeddings.patch_embeddings.projection.weight.grad[:, 1].abs().min() > 0
    recovery = operator.patch_recovery
    for gradient in (recovery.projection.weight.grad[:, 1], recovery.projection.bias.grad[1]):
        assert gradient.abs().min() > 0
    for gradient in (recovery.mixup.weight.grad[1], recovery.mixup.weight.grad[:, 1]):
        assert gradient.abs().min() > 0


def test_only_new_channels(four):
    operator = Poseidon.from_pretrained(four, channels=["u", "c"], out_channels=["u"]).eval()
    made = operator(field(channels=2), time=lead())
    assert made.shape == (2, 1, 16, 16) and made.isfinite().all()
    assert operator.settings.channel_slice_list_normalized_loss == (0, 1)
    kept = Poseidon.from_pretrained(four).state_dict()
    changed = [k for k, v in operator.state_dict().items() if v.shape != kept[k].shape or not torch.equal(v, kept[k])]
    assert sorted(changed) == [
        "embeddings.patch_embeddings.projection.weight",
        "patch_recovery.mixup.weight",
        "patch_recovery.projection.bias",
        "patch_recovery.projection.weight",
    ]


def test_a_channel_can_be_taken_twice(four):
    x = field()
    twice = Poseidon.from_pretrained(four, channels=[0, 1, 2, 3, 3], out_channels=[3, 3]).eval()
    made = twice(torch.cat([x, torch.zeros_like(x[:, :1])], 1), time=lead())
    assert torch.equal(made[:, 0], made[:, 1])
    assert twice.settings.channel_names == ()


def test_names_of_a_checkpoint_without_names(tmp_path):
    directory = saved(small(num_channels=3, num_out_channels=2), tmp_path)
    named = Poseidon.from_pretrained(directory, channels=["a", "b", "c"], out_channels=["a", "b"])
    assert torch.equal(named.eval()(field(channels=3), time=lead()), output(directory, field(channels=3)))
    assert (named.settings.channel_names, named.settings.out_channel_names) == (("a", "b", "c"), ("a", "b"))
    with pytest.raises(ConfigError, match="channels asks for 'a', but the checkpoint does not name its 3; give number"):
        Poseidon.from_pretrained(directory, channels=["a", "b"])
    again = saved(named, tmp_path / "named")
    reordered = Poseidon.from_pretrained(again, channels=["c", "a"], out_channels=["b"])
    assert reordered.settings.channel_names == ("c", "a")
    x = field(channels=3)
    x[:, 1] = 0
    alone = Poseidon.from_pretrained(again, out_channels=[1]).eval()(x, time=lead())
    same(reordered.eval()(x[:, [2, 0]], time=lead()), alone, 1e-12)


@pytest.mark.parametrize("channels", [[4], [-1], [0, 1.5]])
def test_unknown_numbers_of_channels(four, channels):
    with pytest.raises(ConfigError, match=rf"channels asks for number {channels[-1]}; the checkpoint has 0 to 3"):
        Poseidon.from_pretrained(four, channels=channels)


def test_wrong_lists_of_channels(four):
    with pytest.raises(ConfigError, match="channels is 'pressure'; expected a list"):
        Poseidon.from_pretrained(four, channels="pressure")
    with pytest.raises(ConfigError, match="num_channels is 0"):
        Poseidon.from_pretrained(four, channels=[])


@pytest.mark.parametrize(
    "wanted, groups",
    [
        (None, (0, 1, 3, 4)),
        (["pressure", "velocity_x", "velocity_y", "density"], (0, 1, 3, 4)),
        (["velocity_x", "velocity_y", "smoke"], (0, 2, 3)),
        (["velocity_x", "density", "velocity_y"], (0, 1, 2, 3)),
        (["force_x", "force_y", "velocity_x", "velocity_y"], (0, 2, 4)),
        ([1, 2], (0, 2)),
        ([1, None, 3], (0, 1, 2, 3)),
    ],
)
def test_groups_of_the_loss_follow_the_names(four, wanted, groups):
    operator = Poseidon.from_pretrained(four, channels=wanted)
    assert operator.settings.channel_slice_list_normalized_loss == groups


def test_a_plain_loss_stays_plain(tmp_path):
    directory = saved(small(), tmp_path)
    assert Poseidon.from_pretrained(directory, channels=[0]).settings.channel_slice_list_normalized_loss is None


def test_the_added_input_refuses_to_be_mixed_up(tmp_path):
    directory = saved(published(learn_residual=True), tmp_path)
    x = field()
    two = Poseidon.from_pretrained(directory, channels=[2, 0], out_channels=[2])
    assert two.eval()(x[:, [2, 0]], time=lead()).shape == (2, 1, 16, 16)
    for options in (
        {"out_channels": [1, 0, 2, 3]},
        {"channels": [0, 1], "out_channels": [1, 0]},
        {"channels": ["smoke", "density"], "out_channels": ["density"]},
        {"channels": [0], "out_channels": [0, 1]},
    ):
        with pytest.raises(ConfigError, match="adds input channel i to output channel i"):
            Poseidon.from_pretrained(directory, **options)
    # Without conditioning the published model adds nothing, whatever the configuration says.
    directory = saved(published(learn_residual=True, use_conditioning=False), tmp_path / "unconditioned")
    same(output(directory, x, out_channels=[1, 0, 2, 3]), output(directory, x)[:, [1, 0, 2, 3]], 1e-12)


# -------------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize("timed", [True, False])
def test_parameters_added_to_a_checkpoint_without(timed, tmp_path):
    directory = saved(published(use_conditioning=timed), tmp_path)
    operator = Poseidon.from_pretrained(directory, parameters=["log_reynolds", "angle"]).eval()
    time, x = lead() if timed else None, field()
    made = operator(x, time=time, parameters=100 * vector())
    same(made, output(directory, x), 1e-12)
    assert operator.settings.parameter_names == ("log_reynolds", "angle")
    made.square().sum().backward()
    for name, parameter in operator.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert "parameters_weight" not in name or parameter.grad.abs().max() > 0, name
    again = saved(operator, tmp_path / "again")
    same(output(again, x, parameters_given=vector()), output(directory, x), 1e-12)


@pytest.mark.parametrize("timed", [True, False])
def test_parameters_of_a_checkpoint(timed, tmp_path):
    operator = published(use_conditioning=timed, n_parameters=3, parameter_names=("a", "b", "c"))
    directory = saved(operator, tmp_path)
    time, x, mu = lead() if timed else None, field(), vector(length=3)
    expected = operator(x, time=time, parameters=mu)
    same(output(directory, x, parameters_given=mu.flip(1), parameters=["c", "b", "a"]), expected, 1e-12)
    # One more changes nothing, whatever it is.
    more = torch.cat([50 * vector(length=1), mu], 1)
    same(output(directory, x, parameters_given=more, parameters=["d", "a", "b", "c"]), expected, 1e-12)
    # One that is left out is as at 0.
    part = mu.clone()
    part[:, 1] = 0
    same(
        output(directory, x, parameters_given=mu[:, [0, 2]], parameters=["a", 2]),
        operator(x, time=time, parameters=part),
        1e-12,
    )
    bare = Poseidon.from_pretrained(directory, parameters=[]).eval()
    assert not any("parameters" in name for name, _ in bare.named_parameters())
    same(bare(x, time=time), operator(x, time=time, parameters=torch.zeros(2, 3).double()), 1e-12)
    with pytest.raises(ConfigError, match="parameters asks for number 3"):
        Poseidon.from_pretrained(directory, parameters=[3])


def test_fine_tuned_by_names(four):
    operator = Poseidon.fine_tuned_from(
        four,
        inputs=("velocity_x", "velocity_y", "smoke"),
        outputs=("velocity_x", "velocity_y", "smoke"),
        parameters=("viscosity",),
        options={"dim": 2, "periodic": True, "gradient_checkpointing": True},
    )
    settings = operator.settings
    assert (settings.resize, settings.periodic, settings.gradient_checkpointing) == ("pad", True, True)
    assert settings.out_channel_names == ("velocity_x", "velocity_y", "smoke")
    assert settings.parameter_names == ("viscosity",)
    kept = load_file(four / "model.safetensors")["embeddings.patch_embeddings.projection.weight"]
    weight = operator.embeddings.patch_embeddings.projection.weight
    assert torch.equal(weight[:, :2], kept[:, 1:3]) and weight[:, 2].abs().max() == 0


def test_errors_are_ours(four):
    """Random requests end in a model or in an error that a user can act on."""
    choose = torch.Generator().manual_seed(0)
    items = [*NAMES, "smoke", None, 0, 1, 2, 3, 4, "pressure_x"]

    def draw():
        count = int(torch.randint(6, (), generator=choose))
        return [items[int(i)] for i in torch.randint(len(items), (count,), generator=choose)] or None

    made = 0
    for _ in range(40):
        channels, out_channels = draw(), draw()
        try:
            operator = Poseidon.from_pretrained(four, channels=channels, out_channels=out_channels, parameters=draw())
        except SciMLError:
            continue
        mu = vector(length=operator.n_parameters) if operator.n_parameters else None
        y = operator.eval()(field(channels=operator.in_channels), time=lead(), parameters=mu)
        assert y.isfinite().all() and y.shape[1] == operator.out_channels
        made += 1
    assert made > 3

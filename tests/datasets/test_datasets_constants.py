"""Fields that do not change in time and numbers of each frame: written, read, merged, checked, shown to The Well."""

import json

import h5py
import numpy as np
import pytest
import torch
import yaml
from datasets_helpers import make_coordinates, make_info, make_parameters, make_trajectory, write_file

from sciml.cli.info import describe
from sciml.datasets import (
    Collection,
    DatasetFile,
    DatasetInfo,
    DatasetWriter,
    FieldInfo,
    check_finite,
    export_well,
    field_statistics,
    merge_files,
)
from sciml.errors import DataError

CONSTANTS = (FieldInfo("fluid", 1, "1", 0), FieldInfo("signed_distance", 1, "m", 0))
SERIES = {"drag": "1", "lift": "1"}


def info_with(**changes) -> DatasetInfo:
    return make_info(constant_fields=CONSTANTS, series=SERIES, **changes)


def whole_trajectory(info: DatasetInfo, cases, seed: int = 0) -> dict[str, np.ndarray]:
    """`make_trajectory` with a block in the box and two series, functions of the case alone."""
    result, shape = make_trajectory(info, cases, seed), (1, *info.grid)
    fluid = np.ones((len(cases), *shape), dtype=np.float32)
    for k, case in enumerate(cases):
        fluid[k, 0, 1 + case % 3, 2] = 0
    result["fluid"] = fluid
    result["signed_distance"] = np.stack(
        [np.random.default_rng([case, 7]).standard_normal(shape, dtype=np.float32) for case in cases]
    )
    for k, name in enumerate(info.series):
        result[name] = np.stack([np.random.default_rng([case, k]).standard_normal(info.n_frames) for case in cases])
    return result


def write(path, index: int = 1, count: int = 1, n_cases: int = 5, materialize: bool = False, **changes):
    info = info_with(**{"extra": {"shard": f"{index}/{count}"}, **changes})
    cases = range(index - 1, n_cases, count)
    parameters = {name: values[list(cases)] for name, values in make_parameters(info, n_cases).items()}
    with DatasetWriter(path, info, len(cases), parameters, materialize=materialize) as writer:
        for k, case in enumerate(cases):
            writer.write([k], whole_trajectory(info, [case]), make_coordinates(info, [case]))
        return writer.finish()


def test_what_is_written_is_read(tmp_path):
    file = DatasetFile(write(tmp_path / "a.h5"))
    expected = whole_trajectory(file.info, range(5))
    read = file.trajectory()
    assert set(read) == set(expected)
    for name, values in expected.items():
        assert read[name].shape == values.shape and np.array_equal(read[name].numpy(), values), name
    assert read["fluid"].dtype == torch.float32 and read["lift"].dtype == torch.float64
    some = file.trajectory([3, 1], [4, 0])
    assert np.array_equal(some["fluid"].numpy(), expected["fluid"][[3, 1]])
    assert np.array_equal(some["lift"].numpy(), expected["lift"][[3, 1]][:, [4, 0]])
    assert torch.equal(file.constant("fluid", [2]), read["fluid"][2:3])
    with pytest.raises(DataError, match=r"no constant field 'fluids'.*did you mean 'fluid'"):
        file.constant("fluids")
    with pytest.raises(DataError, match=r"no series 'drags'.*did you mean 'drag'"):
        file.series("drags")


def test_shards_are_merged(tmp_path):
    whole = DatasetFile(write(tmp_path / "whole.h5"))
    shards = [write(tmp_path / f"{i}.h5", i, 2) for i in (2, 1)]
    for copy in (False, True):
        merged = DatasetFile(merge_files(tmp_path / f"merged{copy}.h5", shards, copy=copy))
        one, other = merged.trajectory(), whole.trajectory()
        assert merged.info == whole.info and all(torch.equal(one[name], other[name]) for name in other)
        with h5py.File(merged.path) as raw, h5py.File(whole.path) as expected:
            for path in ("sciml/constants/fluid", "sciml/series/lift", "t0_fields/fluid", "scalars/lift"):
                assert np.array_equal(raw[path][()], expected[path][()]), path
    both = Collection([shards[1], shards[0]]).trajectory([0, 3])
    assert torch.equal(both["fluid"], other["fluid"][[0, 1]]) and torch.equal(both["lift"], other["lift"][[0, 1]])
    bare = write_file(tmp_path / "bare.h5")
    with pytest.raises(DataError, match=r"constant_fields is \['fluid', 'signed_distance'\] and \[\]"):
        Collection([whole, bare])


def test_files_without_them_are_what_they_were(tmp_path):
    """The description of a file without constants has no new keys, so that its fingerprint and older readers hold."""
    text = make_info().to_json()
    assert "constant_fields" not in text and "series" not in text
    assert DatasetInfo.from_json(text) == make_info()
    here = info_with()
    assert DatasetInfo.from_json(here.to_json()) == here
    with h5py.File(write_file(tmp_path / "a.h5")) as file:
        assert "constants" not in file["sciml"] and "series" not in file["sciml"]


@pytest.mark.parametrize("materialize", [False, True])
def test_the_tree_of_the_well(tmp_path, materialize):
    path = write(tmp_path / "a.h5", materialize=materialize)
    expected = whole_trajectory(info_with(), range(5))
    with h5py.File(path) as file:
        scalars = file["t0_fields"]
        assert list(scalars.attrs["field_names"]) == ["pressure", "fluid", "signed_distance"]
        assert scalars["fluid"].is_virtual != materialize
        assert not scalars["fluid"].attrs["time_varying"] and scalars["pressure"].attrs["time_varying"]
        assert np.array_equal(scalars["fluid"][()], expected["fluid"][:, 0])
        assert list(file["scalars"].attrs["field_names"]) == ["drag", "lid_velocity", "lift", "viscosity"]
        assert file["scalars/lift"].attrs["time_varying"] and np.array_equal(file["scalars/lift"][()], expected["lift"])


def test_statistics_for_the_well(tmp_path):
    tree = export_well({"train": [write(tmp_path / "a.h5")]}, tmp_path / "well")
    stats = yaml.safe_load((tree / "stats.yaml").read_text())
    distance = whole_trajectory(info_with(), range(5))["signed_distance"].astype(np.float64)
    for key, expected in (("mean", distance.mean()), ("std", distance.std()), ("rms", (distance**2).mean() ** 0.5)):
        assert stats[key]["signed_distance"] == pytest.approx(expected, rel=1e-9)
    assert "fluid" in stats["mean"] and "fluid" not in stats["mean_delta"]


def test_wells_reader(tmp_path):
    data = pytest.importorskip("the_well.data", reason="the-well is not installed (see test_datasets_well.py)")
    from the_well.data.normalization import ZScoreNormalization

    tree = export_well({"train": [write(tmp_path / "a.h5")]}, tmp_path / "well")
    well = data.WellDataset(path=str(tree), well_split_name="train", n_steps_input=1, n_steps_output=1)
    expected = whole_trajectory(info_with(), range(5))
    sample = well[0]
    fields = np.stack([expected["fluid"][0, 0], expected["signed_distance"][0, 0]], -1)
    assert np.array_equal(sample["constant_fields"], fields)
    options = dict(use_normalization=True, normalization_type=ZScoreNormalization)
    scaled = data.WellDataset(path=str(tree), well_split_name="train", **options)[0]["constant_fields"]
    distance = expected["signed_distance"].astype(np.float64)
    assert np.allclose(scaled[..., 1], (fields[..., 1] - distance.mean()) / distance.std(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fluid", np.nan, r"'fluid' of case 2: the case"),
        ("lift", np.inf, r"'lift' of case 2, frame 0"),
        ("fluid", None, r"entries \[.*got"),
        ("lift", np.zeros((1, 5)), r"'lift' must have the shape \(1, 6\), got \(1, 5\)"),
        ("fluid", np.zeros((1, 7, 5)), r"'fluid' must have the shape \(1, 1, 7, 5\)"),
    ],
)
def test_bad_entries(tmp_path, name, value, message):
    info = info_with()
    bad = whole_trajectory(info, [2])
    if value is None:
        del bad[name]
    elif np.ndim(value):
        bad[name] = value
    else:
        bad[name].flat[0] = value
    with DatasetWriter(tmp_path / "a.h5", info, 5, make_parameters(info, 5)) as writer:
        with pytest.raises(DataError, match=message):
            writer.write([2], bad, make_coordinates(info, [2]))
        assert writer.missing() == [0, 1, 2, 3, 4]
        large = whole_trajectory(info, [2])
        large["lift"][0, 0] = 1e300  # float64 holds it
        writer.write([2], large, make_coordinates(info, [2]))


def test_check_finite_finds_them(tmp_path):
    path = write(tmp_path / "a.h5")
    check_finite(path)
    with h5py.File(path, "r+") as file:
        file["sciml/series/lift"][3, 2] = np.nan
    with pytest.raises(DataError, match=r"NaN in field 'lift' of case 3, frame 2"):
        check_finite(path)
    with h5py.File(path, "r+") as file:
        file["sciml/constants/fluid"][1, 0, 0] = np.inf
    with pytest.raises(DataError, match=r"infinity in constant field 'fluid' of case 1"):
        check_finite(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constant_fields": (FieldInfo("pressure", 1, "1", 0),)}, r"distinct identifiers"),
        ({"constant_fields": (FieldInfo("normal", 2, "1", 1),)}, r"constant fields must be scalars"),
        ({"series": {"time": "s"}}, r"series \['time'\] are called like"),
        ({"series": {"viscosity": "Pa s"}}, r"series \['viscosity'\] are called like"),
        ({"series": {"lift-drag": "1"}}, r"distinct identifiers"),
    ],
)
def test_descriptions_that_do_not_fit(changes, message):
    with pytest.raises(DataError, match=message):
        make_info(**changes)


def test_info_names_them(tmp_path):
    content = describe(write(tmp_path / "a.h5"))
    assert content["fields"]["signed_distance"] == "constant in time, m"
    assert list(content["series"]) == ["drag", "lift"] and " to " in content["series"]["lift"]
    json.dumps(content)


def test_statistics_over_the_cells_that_count(tmp_path):
    """Solid cells, whatever they hold, are not part of the mean; with all cells counted nothing changes."""
    path = write(tmp_path / "a.h5")
    file = DatasetFile(path)
    masks = {float(file.parameters["viscosity"][case]): file.constant("fluid", [case])[:, 0] > 0.5 for case in range(5)}
    found = field_statistics(path, ["velocity"], cells=lambda parameters: masks[float(parameters["viscosity"])])
    velocity = file.trajectory()["velocity"].double().movedim(2, -1)
    inside = torch.stack([*masks.values()])[:, 0, None].expand(velocity.shape[:-1])
    assert np.allclose(found.mean, velocity[inside].mean(0), rtol=1e-12)
    assert np.allclose(found.std, velocity[inside].std(0, correction=0), rtol=1e-12)
    whole = field_statistics(path, ["velocity"])
    everywhere = field_statistics(path, ["velocity"], cells=lambda parameters: torch.ones(1, 7, 5, dtype=torch.bool))
    assert everywhere == whole and whole.mean != found.mean
    with pytest.raises(DataError, match=r"no cell that counts"):
        field_statistics(path, ["velocity"], cells=lambda parameters: torch.zeros(1, 7, 5, dtype=torch.bool))

"""Merged files: the sample again, at their parts' speed, and never fill values for a part that is gone."""

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from datasets_helpers import make_coordinates, make_info, make_parameters, make_trajectory, write_file

from sciml.datasets import (
    Collection,
    DatasetFile,
    DatasetWriter,
    TrajectoryWindows,
    check_finite,
    export_well,
    field_statistics,
    merge_files,
    split_cases,
)
from sciml.errors import DataError

N_CASES = 8


def write_shard(path: Path, index: int, count: int, n_cases: int = N_CASES, **changes) -> Path:
    """The shard of a sample that `make_trajectory` and its companions define case by case."""
    info = make_info(**{"extra": {"subset": "all", "shard": f"{index}/{count}"}, **changes})
    cases = range(index - 1, n_cases, count)
    parameters = {name: values[list(cases)] for name, values in make_parameters(info, n_cases).items()}
    with DatasetWriter(path, info, len(cases), parameters, [("bc", "geo")[c % 2] for c in cases]) as writer:
        writer.write(range(len(cases)), make_trajectory(info, cases), make_coordinates(info, cases))
        return writer.finish()


@pytest.fixture
def whole(tmp_path) -> DatasetFile:
    return DatasetFile(write_shard(tmp_path / "whole.h5", 1, 1))


@pytest.fixture
def shards(tmp_path) -> list[Path]:
    (tmp_path / "parts").mkdir()
    return [write_shard(tmp_path / "parts" / f"{index} 100%b.h5", index, 3) for index in (1, 2, 3)]


def assert_same(a: DatasetFile, b: DatasetFile) -> None:
    assert a.info == b.info and a.subsets == b.subsets and np.array_equal(a.times, b.times)
    one, other = a.trajectory(), b.trajectory()
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
    for group in ("parameters", "coordinates"):
        one, other = getattr(a, group), getattr(b, group)
        assert list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("copy", [False, True])
def test_shards_in_any_order_are_the_sample(tmp_path, whole, shards, copy):
    merged = DatasetFile(merge_files(tmp_path / "m" / "merged.h5", [shards[i] for i in (2, 0, 1)], copy=copy))
    assert_same(merged, whole)
    assert [part.path.name for part in merged.parts] == ([] if copy else [shards[i].name for i in (2, 0, 1)])
    assert merged.memory_mapped and merged.fingerprint == whole.fingerprint
    assert not list(merged.path.parent.glob("*.new"))
    with h5py.File(merged.path) as raw, h5py.File(whole.path) as expected:  # what clients without our reader see
        for path in ("sciml/state", "sciml/faces/face_velocity_y", "t0_fields/pressure", "t1_fields/velocity"):
            assert np.array_equal(raw[path][()], expected[path][()]), path
        for path in ("dimensions/time", "dimensions/y", "scalars/lid_velocity", "sciml/written"):
            assert np.array_equal(raw[path][()], expected[path][()]) and raw[path].dtype == expected[path].dtype
        assert dict(raw["scalars/viscosity"].attrs) == dict(expected["scalars/viscosity"].attrs)
    if copy:
        shutil.rmtree(shards[0].parent)
        assert_same(DatasetFile(merged.path), whole)


def test_a_merged_file_works_everywhere(tmp_path, whole, shards):
    merged = DatasetFile(merge_files(tmp_path / "merged.h5", shards))
    check_finite(merged)
    assert torch.equal(merged.state([7, -6], [4, 0]), whole.state([7, 2], [4, 0]))
    assert field_statistics(merged, ["velocity", "pressure"]) == field_statistics(whole, ["velocity", "pressure"])
    parts = split_cases(merged.subsets, {"train": 0.5, "test": 0.5}, 0)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            parts.values(), split_cases(whole.subsets, {"train": 0.5, "test": 0.5}, 0).values(), strict=True
        )
    )
    one, other = (TrajectoryWindows(f, ("pressure",), 2, 1, cases=[1, 6]) for f in (merged, whole))
    batch, expected = one.__getitems__(range(len(one))), other.__getitems__(range(len(other)))
    assert all(torch.equal(batch[name], expected[name]) for name in expected)
    assert Collection([merged, whole]).n_cases == 2 * N_CASES
    copy = pickle.loads(pickle.dumps(merged))
    assert torch.equal(copy.state([5]), whole.state([5])) and len(pickle.dumps(merged)) < 30000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert torch.equal(pool.apply(merged.state, ([3],)), whole.state([3]))


def test_a_part_may_be_packed(tmp_path, whole, shards):
    with h5py.File(shards[1], "r+") as raw:
        data = raw["sciml/state"][()]
        del raw["sciml/state"]
        raw["sciml"].create_dataset("state", data=data, chunks=True, compression="gzip")
    merged = DatasetFile(merge_files(tmp_path / "merged.h5", shards))
    assert not merged.memory_mapped
    assert_same(merged, whole)


def test_merged_files_merge_again(tmp_path, whole, shards):
    other = write_file(tmp_path / "other.h5", 2, seed=9)
    inner = merge_files(tmp_path / "inner" / "m.h5", shards)
    outer = DatasetFile(merge_files(tmp_path / "outer.h5", [other, inner]))
    assert outer.n_cases == 2 + N_CASES and torch.equal(outer.state()[2:], whole.state())
    with h5py.File(outer.path) as raw:
        assert np.array_equal(raw["t0_fields/pressure"][2:], whole.trajectory()["pressure"][:, :, 0])


def test_other_files_follow_one_another(tmp_path):
    a, b = write_file(tmp_path / "a.h5", 3, 0), write_file(tmp_path / "b.h5", 2, 1, make_info(seed=4, solver="other"))
    merged = DatasetFile(merge_files(tmp_path / "m.h5", [b, a]))
    assert torch.equal(merged.state(), torch.cat([DatasetFile(b).state(), DatasetFile(a).state()]))
    assert merged.info.seed is None and merged.info.solver == "other; made up" and merged.info.extra == {"note": "test"}


def test_constant_and_varying_parameters_join(tmp_path):
    def write(name, lid):
        info = make_info()
        with DatasetWriter(tmp_path / name, info, 1, {"lid_velocity": lid, "viscosity": 1.0}) as writer:
            writer.write([0], make_trajectory(info, [0]), make_coordinates(info, [0]))
            return writer.finish()

    files = [write("a.h5", 2.0), write("b.h5", [[1.0, 2, 3, 4, 5, 6]])]
    lid = DatasetFile(merge_files(tmp_path / "m.h5", files)).parameters["lid_velocity"]
    assert lid.tolist() == [[2.0] * 6, [1, 2, 3, 4, 5, 6]]


def test_the_folder_can_be_moved(tmp_path, whole, shards, monkeypatch):
    folder = tmp_path / "first"
    folder.mkdir()
    for shard in shards:
        shard.rename(folder / shard.name)
    monkeypatch.chdir(folder)
    merge_files("m.h5", [shard.name for shard in shards])
    monkeypatch.chdir(tmp_path)
    folder.rename(tmp_path / "second")
    assert_same(DatasetFile("second/m.h5"), whole)
    (tmp_path / "link.h5").symlink_to(tmp_path / "second" / "m.h5")
    assert_same(DatasetFile("link.h5"), whole)


@pytest.mark.parametrize("move_the_merged_file", [False, True])
def test_a_missing_part_is_named(tmp_path, shards, move_the_merged_file):
    merged = merge_files(tmp_path / "m.h5", shards)
    if move_the_merged_file:
        (tmp_path / "elsewhere").mkdir()
        merged = merged.rename(tmp_path / "elsewhere" / "m.h5")
    else:
        shards[0].rename(tmp_path / "gone.h5")
    with h5py.File(merged) as raw:
        assert raw["sciml/state"][0].sum() == 0, "HDF5 itself says nothing"
    with pytest.raises(
        DataError, match=r"m\.h5 is merged.*parts/1 100%b\.h5 fails: no data-set file .*put the file back"
    ):
        DatasetFile(merged)


def test_a_part_that_is_another_file_now_is_refused(tmp_path, shards):
    merged = merge_files(tmp_path / "m.h5", shards)
    shutil.copy(shards[1], shards[2])
    with pytest.raises(DataError, match=r"3 100%b\.h5 is no longer the one it was"):
        DatasetFile(merged)


def test_disagreement_and_repetition(tmp_path, shards):
    def refuse(match, files, out=tmp_path / "m.h5", **options):
        with pytest.raises(DataError, match=match):
            merge_files(out, files, **options)
        assert not (tmp_path / "m.h5").exists()

    refuse("at least one file", [])
    refuse("shard 2/3 of the sample .* is missing", [shards[0], shards[2]])
    refuse("shard 1/3, 3/3 of the sample .* is missing", shards[1:2])
    again = shutil.copy(shards[1], tmp_path / "again.h5")
    refuse(r"shard 2/3 is given twice: .*2 100%b\.h5 and .*again\.h5", [*shards, again])
    refuse("is given twice; give every file once", [shards[0], os.path.relpath(shards[0])])
    half = write_shard(tmp_path / "half.h5", 1, 2)
    refuse(r"shard 1/3\) and .*half.h5 \(shard 1/2\) divide one sample differently", [*shards, half])
    longer = write_shard(tmp_path / "longer.h5", 2, 2, n_cases=20)
    refuse("different numbers of cases: .*half.h5 .* has 4, .*longer.h5 .* has 10", [half, longer])
    refuse("is one of the files", shards, shards[1], overwrite=True)
    for change, words in (
        ({"n_frames": 5}, "n_frames is 6 and 5"),
        ({"grid": (7, 6)}, "grid is"),
        ({"problem": "tube"}, "problem is 'cavity' and 'tube'"),
        ({"parameters": {"lid_velocity": "m/s", "viscosity": "m^2/s"}}, "parameters is"),
        ({"boundaries": {**make_info().boundaries, "x_low": "inlet"}}, "boundaries is"),
    ):
        other = write_file(tmp_path / f"{'_'.join(change)}.h5", info=make_info(**change))
        refuse(words, [half, other])
    unfinished = tmp_path / "u.h5.partial"
    shutil.copy(shards[0], unfinished)
    refuse("unfinished: run the command that writes it again", [unfinished])
    refuse("unfinished: run what writes it again", [tmp_path / "u.h5"])


@pytest.mark.parametrize("copy", [False, True])
def test_existing_output(tmp_path, shards, whole, copy):
    merge_files(tmp_path / "m.h5", [whole.path])
    with pytest.raises(DataError, match=r"exists already.*--overwrite"):
        merge_files(tmp_path / "m.h5", shards, copy=copy)
    assert_same(DatasetFile(merge_files(tmp_path / "m.h5", shards, copy=copy, overwrite=True)), whole)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot create"):
        merge_files(tmp_path / "file" / "m.h5", shards, copy=copy)


def test_an_interrupted_copy_continues(tmp_path, shards, whole, monkeypatch):
    monkeypatch.setattr("sciml.datasets.merge.COPY_BYTES", 1)
    write, count = DatasetWriter.write, [0]

    def stopping(self, *arguments):
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(DatasetWriter, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        merge_files(tmp_path / "m.h5", shards, copy=True)
    assert_same(DatasetFile(merge_files(tmp_path / "m.h5", shards, copy=True)), whole)
    assert count[0] == 4 + N_CASES - 3


@pytest.mark.parametrize("copy", [False, True])
def test_export_for_the_well(tmp_path, whole, shards, copy):
    merged = merge_files(tmp_path / "merged.h5", shards)
    folder = export_well({"train": [merged]}, tmp_path / "well", copy=copy)
    assert_same(DatasetFile(folder / "data" / "train" / "merged.hdf5"), whole)
    with h5py.File(folder / "data" / "train" / "merged.hdf5") as raw:
        assert np.array_equal(raw["t0_fields/pressure"][()], whole.trajectory()["pressure"][:, :, 0])
    expected = export_well({"train": [whole.path]}, tmp_path / "expected")
    assert (folder / "stats.yaml").read_text() == (expected / "stats.yaml").read_text()

"""Data other than two-dimensional flow: 1D and 3D grids, one frame, several scalars, signed parameters."""

from dataclasses import dataclass

import h5py
import numpy as np
import pytest
import torch
import yaml
from datasets_helpers import make_trajectory

from sciml.datasets import (
    Collection,
    DatasetFile,
    DatasetInfo,
    DatasetWriter,
    FieldInfo,
    TrajectoryWindows,
    check_finite,
    export_well,
    field_statistics,
    merge_files,
)
from sciml.errors import DataError

N_CASES = 4


@dataclass(frozen=True)
class Kind:
    """Grid, frames and fields of a data set."""

    grid: tuple[int, ...]
    n_frames: int
    fields: tuple[FieldInfo, ...]


def scalar(name: str) -> FieldInfo:
    return FieldInfo(name, 1, "1", order=0)


KINDS = {
    "burgers 1D": Kind((16,), 5, (FieldInfo("velocity", 1, "m/s", order=1),)),
    "sorption 1D": Kind((9,), 3, (scalar("concentration"),)),
    "two species": Kind((6, 5), 4, (scalar("u"), scalar("v"))),
    "static 2D": Kind((6, 5), 1, (scalar("coefficient"), scalar("source"), scalar("solution"))),
    "static 1D": Kind((7,), 1, (scalar("coefficient"), scalar("solution"))),
    "flow 3D": Kind((4, 3, 5), 3, (FieldInfo("velocity", 3, "m/s", order=1), scalar("pressure"))),
    "static 3D": Kind((4, 3, 5), 1, (scalar("coefficient"), scalar("solution"))),
}


def info_of(kind: Kind) -> DatasetInfo:
    sides = {f"{axis}_{end}": "periodic" for axis in "xyz"[: len(kind.grid)] for end in ("low", "high")}
    return DatasetInfo(
        problem="made_up",
        fields=kind.fields,
        parameters={"forcing": "m/s^2", "draw": "1"},
        grid=kind.grid,
        n_frames=kind.n_frames,
        boundaries=sides,
    )


def coordinates_of(kind: Kind) -> dict[str, np.ndarray]:
    """Boxes from -1 to 1 + case, which differ between cases and do not start at 0."""
    return {
        axis: np.stack([-1 + (np.arange(n) + 0.5) * (2 + case) / n for case in range(N_CASES)])
        for axis, n in zip("xyz", kind.grid, strict=False)
    }


def write(path, kind: Kind, seed: int = 0):
    info = info_of(kind)
    parameters = {"forcing": [-2.0, 0.0, 1.5, -0.5], "draw": [0, 1, 2**52, 3]}
    with DatasetWriter(path, info, N_CASES, parameters) as writer:
        writer.write(range(N_CASES), make_trajectory(info, range(N_CASES), seed), coordinates_of(kind))
        return writer.finish()


@pytest.fixture(params=KINDS, ids=lambda name: name.replace(" ", "_"))
def kind(request) -> Kind:
    return KINDS[request.param]


@pytest.mark.parametrize("merged", [False, True])
def test_storage(tmp_path, kind, merged):
    path = write(tmp_path / "a.h5", kind)
    if merged:
        path = merge_files(tmp_path / "m.h5", [path])
    file = DatasetFile(path)
    check_finite(file)
    expected, got = make_trajectory(info_of(kind), range(N_CASES)), file.trajectory()
    assert list(got) == [*(f.name for f in kind.fields), "time"]
    assert all(np.array_equal(got[name].numpy(), expected[name]) for name in expected)
    assert all(np.array_equal(file.coordinates[axis], values) for axis, values in coordinates_of(kind).items())
    assert file.parameters["forcing"].tolist() == [-2.0, 0.0, 1.5, -0.5] and file.parameters["draw"][2] == 2**52
    with h5py.File(path) as raw:
        for f in kind.fields:
            seen = raw[f"t{f.order}_fields/{f.name}"][()]
            values = np.moveaxis(expected[f.name], 2, -1)
            assert np.array_equal(seen, values if f.order else values[..., 0])


def test_windows(tmp_path, kind):
    path = write(tmp_path / "a.h5", kind)
    names = [f.name for f in reversed(kind.fields)]
    horizon = kind.n_frames - 1
    windows = TrajectoryWindows(path, names, history=1, horizon=horizon)
    batch = windows.__getitems__(range(len(windows)))
    expected = make_trajectory(info_of(kind), range(N_CASES))
    assert len(windows) == N_CASES and batch["parameters"].shape == (N_CASES, horizon, 2)
    assert np.array_equal(batch["state"].numpy(), np.concatenate([expected[name] for name in names], axis=2))
    assert np.array_equal(batch["time"].numpy(), expected["time"])
    if horizon:
        assert (batch["parameters"][0, :, windows.parameter_names.index("forcing")] == -2.0).all()
    assert windows[2]["parameters"].shape == (horizon, 2) and int(windows[2]["case"]) == 2


def test_parameters_that_act_at_a_frame(tmp_path):
    """Where there is one frame nothing acts from it to a next: the collection has the parameters of the case."""
    data = Collection(write(tmp_path / "a.h5", KINDS["static 2D"]))
    assert data.parameters([3, 0])["forcing"].tolist() == [-0.5, -2.0]
    info = info_of(KINDS["two species"])
    forcing = np.arange(-8.0, 8.0).reshape(N_CASES, 4)
    with DatasetWriter(tmp_path / "b.h5", info, N_CASES, {"forcing": forcing, "draw": 0}) as writer:
        cases = range(N_CASES)
        writer.write(cases, make_trajectory(info, cases), coordinates_of(KINDS["two species"]))
        writer.finish()
    data = Collection(tmp_path / "b.h5")
    assert np.array_equal(data.parameters([2, 1])["forcing"], forcing[[2, 1]])
    windows = TrajectoryWindows(tmp_path / "b.h5", ["u"], history=1, horizon=2)
    assert windows[0]["parameters"][:, windows.parameter_names.index("forcing")].tolist() == [-8.0, -7.0]
    alone = TrajectoryWindows(tmp_path / "b.h5", ["u"], history=1, horizon=0)
    assert len(alone) == 4 * N_CASES and alone[5]["parameters"].shape == (0, 2)


def test_one_frame_has_no_longer_windows(tmp_path):
    path = write(tmp_path / "a.h5", KINDS["static 1D"])
    with pytest.raises(DataError, match=r"no window of 1 \+ 1 frames.*4 cases of 1 frames"):
        TrajectoryWindows(path, ["solution"])


def test_statistics(tmp_path, kind):
    names = [f.name for f in kind.fields]
    statistics = field_statistics(write(tmp_path / "a.h5", kind), names)
    expected = make_trajectory(info_of(kind), range(N_CASES))
    values = np.concatenate([expected[name] for name in names], axis=2).astype(np.float64)  # (N, T, C, *grid)
    values = np.moveaxis(values, 2, 0)
    assert len(statistics.channels) == len(values)
    assert np.allclose(statistics.mean, values.reshape(len(values), -1).mean(1), rtol=1e-12)
    assert np.allclose(statistics.std, values.reshape(len(values), -1).std(1), rtol=1e-12)
    if kind.n_frames == 1:
        assert statistics.increment_std == (1.0,) * len(values) and statistics.constant_increment == statistics.channels
    else:
        steps = np.diff(values, axis=2).reshape(len(values), -1)
        assert np.allclose(statistics.increment_std, steps.std(1), rtol=1e-12)


def test_export(tmp_path, kind):
    folder = export_well({"train": [write(tmp_path / "a.h5", kind)]}, tmp_path / "well")
    stats = yaml.safe_load((folder / "stats.yaml").read_text())
    for f in kind.fields:
        assert isinstance(stats["std"][f.name], list if f.order else float)
        if kind.n_frames == 1:
            assert np.all(np.asarray(stats["std_delta"][f.name]) == 0)
    with h5py.File(folder / "data" / "train" / "a.hdf5") as raw:
        assert raw.attrs["n_spatial_dims"] == len(kind.grid)
        assert raw["dimensions/x"][1, 0] == np.float32(coordinates_of(kind)["x"][1, 0])


def test_non_finite_values_are_named(tmp_path, kind):
    path = write(tmp_path / "a.h5", kind)
    file = DatasetFile(path)
    slot = file._slots["/sciml/state"]
    last = slot.offset + slot.case_bytes * 3 - 4  # the last number of case 2
    with open(path, "r+b") as raw:
        raw.seek(last)
        raw.write(np.float32(np.nan).tobytes())
    place = f"NaN in field '{kind.fields[-1].name}' of case 2, frame {kind.n_frames - 1}"
    for each in (path, merge_files(tmp_path / "m.h5", [path])):
        with pytest.raises(DataError, match=place):
            check_finite(each)
    with pytest.raises(DataError, match="non-finite values in case 2"):
        field_statistics(path, [kind.fields[-1].name])
    assert torch.isfinite(file.state([0, 1, 3])).all()

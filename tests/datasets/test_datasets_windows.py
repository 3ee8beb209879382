"""Windows over several files against a slow plain reference."""

import atexit
import functools
import multiprocessing
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets_helpers import make_info, make_trajectory, write_file
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sciml.datasets import Collection, DatasetFile, DatasetWriter, FieldInfo, TrajectoryWindows, keep_batch
from sciml.errors import DataError

N_FRAMES = (6, 9)


@functools.cache
def two_files() -> tuple[Path, Path]:
    """3 cases of 6 frames and 2 cases of 9 frames; the lid velocity varies in time."""
    temporary = tempfile.TemporaryDirectory(prefix="sciml_test_")
    atexit.register(temporary.cleanup)
    folder = Path(temporary.name)
    return (
        write_file(folder / "a.hdf5", 3, 0, make_info(n_frames=N_FRAMES[0])),
        write_file(folder / "b.hdf5", 2, 1, make_info(n_frames=N_FRAMES[1])),
    )


def reference(fields, history, horizon, cases, first_frame, stride):
    """Every window, one by one, from the files' whole arrays."""
    files = [DatasetFile(p) for p in two_files()]
    owners = [(f, c) for f in files for c in range(f.n_cases)]
    for case in range(len(owners)) if cases is None else cases:
        file, local = owners[case]
        trajectory = file.trajectory()
        for frame in range(first_frame, file.n_frames):
            frames = [frame + k * stride for k in range(history + horizon)]
            if frames[-1] >= file.n_frames:
                continue
            state = torch.cat([trajectory[name][local, frames] for name in fields], dim=1)
            acting = []
            for start in frames[history - 1 : -1]:
                lid = file.parameters["lid_velocity"][local, start : start + stride].mean()
                acting.append([lid, file.parameters["viscosity"][local]])
            yield state, acting, file.times[local, frames], case, frame


@settings(max_examples=40, deadline=None)
@given(
    history=st.integers(1, 3),
    horizon=st.integers(0, 3),
    stride=st.integers(1, 2),
    first_frame=st.integers(0, 2),
    fields=st.sampled_from([("velocity",), ("pressure",), ("velocity", "pressure"), ("pressure", "velocity")]),
    cases=st.one_of(st.none(), st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True)),
)
def test_windows_equal_the_reference(history, horizon, stride, first_frame, fields, cases):
    expected = list(reference(fields, history, horizon, cases, first_frame, stride))
    arguments = (two_files(), fields, history, horizon, cases, first_frame, stride)
    if not expected:
        with pytest.raises(DataError, match="no window of"):
            TrajectoryWindows(*arguments)
        return
    windows = TrajectoryWindows(*arguments)
    assert len(windows) == len(expected)
    order = np.random.default_rng(0).permutation(len(windows))
    batch = windows.__getitems__(order.tolist())
    assert batch["state"].shape == (len(order), history + horizon, len(windows.channels), 7, 5)
    for k, i in enumerate(order):
        state, acting, time, case, frame = expected[i]
        assert torch.equal(batch["state"][k], state)
        assert np.allclose(batch["parameters"][k], np.reshape(acting, (horizon, 2)), rtol=1e-15)
        assert np.array_equal(batch["time"][k], time)
        assert (int(batch["case"][k]), int(batch["frame"][k])) == (case, frame)
    single = windows[-1]
    assert torch.equal(single["state"], expected[-1][0]) and single["case"] == expected[-1][3]


def test_batch_is_one_channels_last_buffer():
    state = TrajectoryWindows(two_files(), ("velocity", "pressure"), 2, 1).__getitems__([0, 3, 5])["state"]
    assert state.movedim(2, -1).is_contiguous() and state.dtype == torch.float32
    assert state[:, 0].contiguous(memory_format=torch.channels_last).shape == (3, 3, 7, 5)


def test_names():
    windows = TrajectoryWindows(two_files(), ("pressure", "velocity"))
    assert windows.channel_names == ("pressure", "velocity_x", "velocity_y")
    assert windows.parameter_names == ("lid_velocity", "viscosity") and windows.window == 2


def test_collection_numbers_cases_through():
    data = Collection(two_files())
    assert data.n_cases == 5 and data.subsets == ["bc", "geo", "bc", "bc", "geo"]
    assert data.n_frames([0, 4]).tolist() == [6, 9]
    expected = make_trajectory(make_info(n_frames=9), [1, 0], 1)
    for name, values in data.trajectory([4, 3]).items():
        assert np.array_equal(values, expected[name]), name
    assert data.parameters([4])["lid_velocity"].shape == (1, 9)
    assert data.coordinates([2, 3])["x"][:, 0].tolist() == pytest.approx([0.5 * 3 / 7, 0.5 / 7])
    with pytest.raises(DataError, match=r"have \[6, 9\] frames"):
        data.trajectory([0, 4])
    with pytest.raises(DataError, match="from 0 to 4, got 0 to 5"):
        data.trajectory([0, 5])


def test_constant_and_varying_parameter_of_two_files_agree(tmp_path):
    """A parameter that is constant in one file and varies in another is one parameter."""
    info = make_info()
    paths = [tmp_path / "a.hdf5", tmp_path / "b.hdf5"]
    for path, lid in zip(paths, ([2.0], [[1.0, 2, 3, 4, 5, 6]]), strict=True):
        with DatasetWriter(path, info, 1, {"lid_velocity": lid, "viscosity": 1}) as writer:
            writer.write([0], make_trajectory(info, [0]), {"x": np.arange(7), "y": np.arange(5)})
            writer.finish()
    windows = TrajectoryWindows(paths, history=2, horizon=2)
    parameters = windows.__getitems__([0, 3, 5])["parameters"][..., 0]
    assert parameters.tolist() == [[2, 2], [2, 3], [4, 5]]
    assert Collection(paths).parameters()["lid_velocity"].tolist() == [[2.0] * 6, [1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (dict(grid=(8, 5)), r"grid is \(7, 5\) and \(8, 5\)"),
        (dict(problem="channel"), "problem is 'cavity' and 'channel'"),
        (
            dict(fields=(FieldInfo("velocity", 2, "m/s", 1),)),
            r"fields is \['velocity', 'pressure'\] and \['velocity'\]",
        ),
        (dict(fields=(FieldInfo("velocity", 2, "cm/s", 1), FieldInfo("pressure", 1, "Pa", 0))), "cm/s"),
    ],
)
def test_files_that_do_not_agree(tmp_path, changes, key):
    other = write_file(tmp_path / "other.hdf5", info=make_info(**changes))
    with pytest.raises(DataError, match=rf"a\.hdf5 and .*other\.hdf5 are not one data set: .*{key}"):
        TrajectoryWindows([two_files()[0], other])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(fields=("velocty",)), "did you mean 'velocity'"),
        (dict(fields="velocity"), "a list of names"),
        (dict(history=0), "history must be at least 1, got 0"),
        (dict(horizon=9), r"no window of 1 \+ 9 frames"),
        (dict(cases=[7]), "cases must be from 0 to 4"),
        (dict(cases=[]), "no window"),
        (dict(files=[]), "at least one file"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(DataError, match=message):
        TrajectoryWindows(**(dict(files=two_files()) | arguments))


def test_out_of_range():
    windows = TrajectoryWindows(two_files())
    for bad in (len(windows), -len(windows) - 1):
        with pytest.raises(IndexError):
            windows[bad]
        with pytest.raises(IndexError):
            windows.__getitems__([0, bad])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_see_the_same(method):
    windows = TrajectoryWindows(two_files(), history=2)
    expected = windows.__getitems__(range(len(windows)))  # the maps are open when the workers start
    context = multiprocessing.get_context(method)
    batches = list(DataLoader(windows, 5, num_workers=1, collate_fn=keep_batch, multiprocessing_context=context))
    assert torch.equal(torch.cat([b["state"] for b in batches]), expected["state"])
    assert torch.equal(torch.cat([b["parameters"] for b in batches]), expected["parameters"])


def test_pickled_windows_stay_small():
    windows = TrajectoryWindows(two_files())
    state = windows.__getitems__([0, 1])["state"]
    copy = pickle.loads(pickle.dumps(windows))
    assert torch.equal(copy.__getitems__([0, 1])["state"], state) and len(pickle.dumps(windows)) < 20_000

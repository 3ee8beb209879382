"""Writing and reading: same bits, same axes, and errors that say what to do."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch
from datasets_helpers import make_coordinates, make_info, make_parameters, make_trajectory, write_file

from sciml.datasets import DatasetFile, DatasetInfo, DatasetWriter, FaceFieldInfo, FieldInfo, check_finite
from sciml.datasets import writer as writer_module
from sciml.errors import DataError


def test_round_trip_is_bit_equal(tmp_path):
    info = make_info()
    file = DatasetFile(write_file(tmp_path / "a.hdf5"))
    assert file.info == info and DatasetInfo.from_json(info.to_json()) == info
    assert (file.n_cases, file.n_frames, file.subsets) == (3, 6, ["bc", "geo", "bc"])
    expected, got = make_trajectory(info, range(3)), file.trajectory()
    assert set(got) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(got[name].numpy(), values), name
    for name, values in make_parameters(info, 3).items():
        assert np.array_equal(file.parameters[name], values)
    for axis, values in make_coordinates(info, range(3)).items():
        assert np.array_equal(file.coordinates[axis], values)
    assert not (tmp_path / "a.hdf5.partial").exists()


def test_reads_chosen_cases_and_frames(tmp_path):
    file = DatasetFile(write_file(tmp_path / "a.hdf5"))
    everything = file.state()
    assert everything.shape == (3, 6, 3, 7, 5)
    assert torch.equal(file.state([2, 0], [5, 1, 2]), everything[[2, 0]][:, [5, 1, 2]])
    assert torch.equal(file.state([-1], slice(1, 4)), everything[[2], 1:4])
    with pytest.raises(DataError, match="case index out of range"):
        file.state([3])


def test_torch_input_and_other_dtypes(tmp_path):
    info = make_info()
    trajectory = {k: torch.from_numpy(v).double() for k, v in make_trajectory(info, [0]).items()}
    trajectory["velocity"].requires_grad_()
    with DatasetWriter(tmp_path / "a.hdf5", info, 1, {"lid_velocity": 2, "viscosity": [0.1]}) as writer:
        writer.write([0], trajectory, {"x": torch.arange(7), "y": range(5)})
        writer.finish()
    file = DatasetFile(tmp_path / "a.hdf5")
    assert torch.equal(file.trajectory()["velocity"].double(), trajectory["velocity"])
    assert file.parameters["lid_velocity"].tolist() == [2.0] and file.subsets == ["all"]


def fill(path, values, grid):
    """One case, one frame, one scalar field."""
    info = make_info(grid, 1, fields=(FieldInfo("pressure", 1, "Pa", 0),), face_fields=())
    with DatasetWriter(path, info, 1, {"lid_velocity": 1, "viscosity": 1}) as writer:
        coordinates = {"x": np.arange(grid[0]), "y": np.arange(grid[1])}
        writer.write([0], {"pressure": values[None, None, None], "time": [[0.0]]}, coordinates)
        writer.finish()
    return DatasetFile(path)


def test_axis_order(tmp_path):
    """x + 10 y is at index [x, y], on disk too; transposed data give a transposed reading."""
    f = np.arange(7)[:, None] + 10.0 * np.arange(5)[None, :]
    file = fill(tmp_path / "a.hdf5", f, (7, 5))
    assert file.state()[0, 0, 0, 6, 2] == 26
    turned = fill(tmp_path / "b.hdf5", f.T, (5, 7))
    assert torch.equal(turned.state()[0, 0, 0], file.state()[0, 0, 0].T)
    with h5py.File(file.path) as raw:
        assert raw["sciml/state"].shape == (1, 1, 7, 5, 1) and raw["t0_fields/pressure"][0, 0, 6, 2] == 26


def test_three_dimensions_and_periodic_faces(tmp_path):
    sides = {f"{a}_{e}": "periodic" if a == "x" else "wall" for a in "xyz" for e in ("low", "high")}
    info = make_info(
        (4, 3, 2),
        2,
        fields=(FieldInfo("velocity", 3, "m/s", 1),),
        boundaries=sides,
        boundary_parameters={},
        face_fields=(FaceFieldInfo("fx", "m/s", "x"), FaceFieldInfo("fz", "m/s", "z")),
    )
    assert info.face_shape("fx") == (4, 3, 2) and info.face_shape("fz") == (4, 3, 3)
    file = DatasetFile(write_file(tmp_path / "a.hdf5", info=info))
    assert np.array_equal(file.trajectory()["velocity"].numpy(), make_trajectory(info, range(3))["velocity"])
    assert np.array_equal(file.trajectory()["fz"].numpy(), make_trajectory(info, range(3))["fz"])


def test_memory_map_equals_h5py_and_compressed_copies_read_alike(tmp_path):
    file = DatasetFile(write_file(tmp_path / "a.hdf5"))
    packed = tmp_path / "packed.hdf5"
    shutil.copy(file.path, packed)
    with h5py.File(packed, "r+") as raw:
        data = raw["sciml/state"][()]
        assert np.array_equal(data, file.array())
        del raw["sciml/state"]
        raw["sciml"].create_dataset("state", data=data, chunks=(1, 1, 7, 5, 3), compression="gzip")
    other = DatasetFile(packed)
    assert file.memory_mapped and not other.memory_mapped
    assert torch.equal(other.state([1, 2], [0, 4]), file.state([1, 2], [0, 4]))
    check_finite(other)


@pytest.mark.parametrize("packed", [False, True])
def test_pickles_without_its_handles(tmp_path, packed):
    file = DatasetFile(write_file(tmp_path / "a.hdf5"))
    if packed:
        with h5py.File(file.path, "r+") as raw:
            data = raw["sciml/state"][()]
            del raw["sciml/state"]
            raw["sciml"].create_dataset("state", data=data, chunks=True)
        file = DatasetFile(file.path)
    state = file.state()
    copy = pickle.loads(pickle.dumps(file))
    assert torch.equal(copy.state(), state) and len(pickle.dumps(file)) < 10_000


# The generation that is killed.

GENERATE = """
import sys
sys.path.insert(0, {folder!r})
from datasets_helpers import *
info = make_info()
with DatasetWriter(sys.argv[1], info, 40, make_parameters(info, 40)) as writer:
    for case in writer.missing():
        writer.write([case], make_trajectory(info, [case]), make_coordinates(info, [case]))
        print(case, flush=True)
        if case == int(sys.argv[2]):
            import time
            fd, place = writer._fd, writer._slots["/sciml/state"]
            import os
            half = b"x" * (place.case_bytes // 2)
            os.pwrite(fd, half, place.offset + (case + 1) * place.case_bytes)
            print("half", flush=True)
            time.sleep(60)
    writer.finish()
"""


def test_killed_generation_continues(tmp_path):
    path = tmp_path / "a.hdf5"
    code = GENERATE.format(folder=os.path.dirname(__file__))
    process = subprocess.Popen([sys.executable, "-c", code, path, "17"], stdout=subprocess.PIPE, text=True)
    with process:
        for line in process.stdout:
            if line == "half\n":
                with pytest.raises(DataError, match="written by another process"):
                    DatasetWriter(path, make_info(), 40, make_parameters(make_info(), 40))
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(DataError, match=r"18 of 40 cases are written.*continues"):
        DatasetFile(f"{path}.partial")
    with pytest.raises(DataError, match=r"a\.hdf5\.partial is unfinished"):
        DatasetFile(path)
    with DatasetWriter(path, make_info(), 40, make_parameters(make_info(), 40)) as writer:
        assert writer.missing() == list(range(18, 40))
        with pytest.raises(DataError, match="22 of 40 cases are missing"):
            writer.finish()
    finish(path)
    straight = write_file(tmp_path / "straight.hdf5", 40)
    a, b = DatasetFile(path), DatasetFile(straight)
    for name, values in b.trajectory().items():
        assert torch.equal(a.trajectory()[name], values)
    for axis, values in b.coordinates.items():
        assert np.array_equal(a.coordinates[axis], values)


def finish(path):
    """What the command that writes the file does when it is run again."""
    info = make_info()
    with DatasetWriter(path, info, 40, make_parameters(info, 40)) as writer:
        if missing := writer.missing():
            writer.write(missing, make_trajectory(info, missing), make_coordinates(info, missing))
        writer.finish()


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.03])
def test_killed_at_any_time_leaves_a_file_that_continues(tmp_path, delay):
    path = tmp_path / "a.hdf5"
    code = GENERATE.format(folder=os.path.dirname(__file__))
    with subprocess.Popen([sys.executable, "-c", code, path, "-1"], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    if not path.exists():  # else it was quicker than the signal
        finish(path)
    expected, got = make_trajectory(make_info(), range(40)), DatasetFile(path).trajectory()
    assert all(np.array_equal(got[name].numpy(), expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(info=make_info(seed=4)), r"seed: 3 and 4 \(there and here\); remove .*partial"),
        (
            dict(parameters={"lid_velocity": 1.0, "viscosity": 2.0}),
            "its parameters, subsets, number of cases or materialize",
        ),
        (dict(n_cases=3), "its parameters, subsets, number of cases or materialize"),
        (dict(materialize=True), "its parameters, subsets, number of cases or materialize"),
        (dict(subsets=["a", "b"]), "its parameters, subsets, number of cases or materialize"),
    ],
)
def test_unfinished_file_of_another_data_set_is_refused(tmp_path, change, message):
    arguments = dict(info=make_info(), n_cases=2, parameters={"lid_velocity": 1.0, "viscosity": 1.0}, subsets=None)
    DatasetWriter(tmp_path / "a.hdf5", **arguments).close()
    with pytest.raises(DataError, match=message):
        DatasetWriter(tmp_path / "a.hdf5", **(arguments | change))
    assert DatasetWriter(tmp_path / "a.hdf5", **arguments).missing() == [0, 1]


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_damaged_unfinished_file(tmp_path, keep):
    info = make_info()
    DatasetWriter(tmp_path / "a.hdf5", info, 2, make_parameters(info, 2)).close()
    partial = tmp_path / "a.hdf5.partial"
    partial.write_bytes(partial.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"damaged.*remove .*a\.hdf5\.partial to start again"):
        DatasetWriter(tmp_path / "a.hdf5", info, 2, make_parameters(info, 2))


# What the writer refuses.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["velocity", "face_velocity_y", "time"])
def test_non_finite_is_refused(tmp_path, value, field):
    info = make_info()
    trajectory = make_trajectory(info, [4, 7])
    trajectory[field][(1, 3) + (0,) * (trajectory[field].ndim - 2)] = value
    with DatasetWriter(tmp_path / "a.hdf5", info, 9, make_parameters(info, 9)) as writer:
        with pytest.raises(DataError, match=f"'{field}' of case 7, frame 3"):
            writer.write([4, 7], trajectory, make_coordinates(info, [4, 7]))
        assert len(writer.missing()) == 9


def test_float64_beyond_float32_is_refused(tmp_path):
    info = make_info()
    trajectory = make_trajectory(info, [0])
    trajectory["pressure"] = trajectory["pressure"].astype(np.float64) * 1e300
    with (
        DatasetWriter(tmp_path / "a.hdf5", info, 1, make_parameters(info, 1)) as writer,
        pytest.raises(DataError, match="infinity in 'pressure'"),
    ):
        writer.write([0], trajectory, make_coordinates(info, [0]))


def broken(entry, value):
    def change(cases, trajectory, coordinates):
        target = coordinates if entry in "xy" else trajectory
        if value is None:
            del target[entry]
        else:
            target[entry] = value(target[entry]) if entry in target else value(None)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken("pressure", None), "has the entries"),
        (broken("speed", lambda v: 1), "has the entries"),
        (
            broken("velocity", lambda v: v.swapaxes(-1, -2)),
            r"'velocity' must have the shape \(2, 6, 2, 7, 5\), got",
        ),
        (broken("time", lambda v: v[:, ::-1]), "must increase"),
        (broken("x", None), "coordinates are needed"),
        (broken("x", lambda v: v[:, :-1]), "coordinate 'x' must be finite with the shape"),
        (lambda cases, *_: cases.__setitem__(1, 5), "distinct indices from 0 to 4"),
        (lambda cases, *_: cases.__setitem__(1, 0), "distinct indices from 0 to 4"),
    ],
)
def test_writer_says_what_does_not_fit(tmp_path, change, message):
    info, cases = make_info(), [0, 1]
    trajectory, coordinates = make_trajectory(info, cases), make_coordinates(info, cases)
    change(cases, trajectory, coordinates)
    with DatasetWriter(tmp_path / "a.hdf5", info, 5, make_parameters(info, 5)) as writer:
        with pytest.raises(DataError, match=message):
            writer.write(cases, trajectory, coordinates)
        assert len(writer.missing()) == 5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lid_velocity": 1}, "'viscosity' is missing"),
        ({"lid_velocity": 1, "viscosity": 1, "viscocity": 1}, "did you mean 'viscosity'"),
        ({"lid_velocity": [1, 2, 3], "viscosity": 1}, r"must have shape \(2,\)"),
        ({"lid_velocity": [1, np.nan], "viscosity": 1}, "not finite in case 1"),
    ],
)
def test_writer_checks_parameters(tmp_path, parameters, message):
    with pytest.raises(DataError, match=message):
        DatasetWriter(tmp_path / "a.hdf5", make_info(), 2, parameters)
    assert not list(tmp_path.iterdir())


def test_existing_file_is_not_overwritten_unasked(tmp_path):
    path = write_file(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="exists already"):
        write_file(path)
    write_file(path, seed=1, overwrite=True)
    assert np.array_equal(
        DatasetFile(path).trajectory()["pressure"], make_trajectory(make_info(), range(3), 1)["pressure"]
    )


def test_full_disk_while_creating(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer_module.os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"a\.hdf5\.partial: No space left on device; free space"):
        DatasetWriter(tmp_path / "a.hdf5", make_info(), 2, make_parameters(make_info(), 2))
    assert not list(tmp_path.iterdir())


def test_full_disk_while_writing_leaves_what_was_written(tmp_path, monkeypatch):
    info = make_info()

    def write(writer, case):
        writer.write([case], make_trajectory(info, [case]), make_coordinates(info, [case]))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with DatasetWriter(tmp_path / "a.hdf5", info, 2, make_parameters(info, 2)) as writer:
        write(writer, 0)
        with monkeypatch.context() as patch:
            patch.setattr(writer_module.os, "pwrite", full)
            with pytest.raises(DataError, match=r"cases \[1\].*No space left on device"):
                write(writer, 1)
        assert writer.missing() == [1]
        write(writer, 1)
        writer.finish()
    assert np.array_equal(
        DatasetFile(tmp_path / "a.hdf5").trajectory()["velocity"], make_trajectory(info, [0, 1])["velocity"]
    )


def test_full_disk_while_finishing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    info, path = make_info(), tmp_path / "a.hdf5"
    with DatasetWriter(path, info, 2, make_parameters(info, 2)) as writer:
        writer.write([0, 1], make_trajectory(info, [0, 1]), make_coordinates(info, [0, 1]))
        with monkeypatch.context() as patch:
            patch.setattr(writer_module.os, "replace", full)
            with pytest.raises(DataError, match=r"cannot finish.*No space left on device"):
                writer.finish()
        assert not path.exists()
        writer.finish()
    check_finite(path)
    with pytest.raises(DataError, match="closed; open a new DatasetWriter"):
        writer.missing()


@pytest.mark.slow
def test_file_size_limit_is_a_full_disk(tmp_path):
    """The same with a limit that the operating system enforces."""
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from datasets_helpers import *\nfrom sciml.errors import DataError\n"
        "info = make_info()\n"
        "try:\n    DatasetWriter(sys.argv[1], info, 50, make_parameters(info, 50))\n"
        "except DataError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.hdf5"], capture_output=True, text=True, check=True)
    assert "cannot create" in done.stdout and "run again" in done.stdout and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot create .*file/a\.hdf5\.partial: Not a directory"):
        DatasetWriter(tmp_path / "file" / "a.hdf5", make_info(), 2, make_parameters(make_info(), 2))


# What the reader refuses.


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no data-set file .*nowhere\.hdf5; check the path"):
        DatasetFile(tmp_path / "nowhere.hdf5")


def test_not_hdf5(tmp_path):
    (tmp_path / "a.hdf5").write_text("hello")
    with pytest.raises(DataError, match="is not an HDF5 file"):
        DatasetFile(tmp_path / "a.hdf5")


def test_foreign_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as raw:
        raw["u"], raw["grid"] = [1.0], [2.0]
    with pytest.raises(DataError, match=r"top level holds \['grid', 'u'\], expected a group 'sciml'"):
        DatasetFile(tmp_path / "a.hdf5")


def test_newer_schema(tmp_path):
    path = write_file(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as raw:
        raw["sciml"].attrs["schema"] = "sciml/2"
    with pytest.raises(DataError, match="install a newer sciml"):
        DatasetFile(path)


@pytest.mark.parametrize("key", ["sciml/info", "sciml/time", "sciml/state", "scalars/viscosity"])
def test_damaged_file(tmp_path, key):
    path = write_file(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as raw:
        del raw[key]
    with pytest.raises(DataError, match="damaged"):
        DatasetFile(path)


def test_state_of_another_shape(tmp_path):
    path = write_file(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as raw:
        del raw["sciml/state"]
        raw["sciml/state"] = np.zeros((3, 6, 5, 7, 3), np.float32)
    with pytest.raises(DataError, match=r"must hold numbers of shape \(3, 6, 7, 5, 3\), has \(3, 6, 5, 7, 3\)"):
        DatasetFile(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_truncated_file(tmp_path, keep):
    path = write_file(tmp_path / "a.hdf5")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=r"cut short|not an HDF5 file"):
        DatasetFile(path)


def test_memory_map_never_runs_past_the_end(tmp_path, monkeypatch):
    """HDF5 itself notices truncation by the superblock; were it not to, the bytes are counted again."""
    path = write_file(tmp_path / "a.hdf5")
    original = DatasetFile._read_description

    def cut(self, file):
        original(self, file)
        os.truncate(path, 3000)

    monkeypatch.setattr(DatasetFile, "_read_description", cut)
    with pytest.raises(DataError, match=r"cut short: /sciml/\w+.* ends at byte \d+, the file has 3000"):
        DatasetFile(path)


def test_check_finite_names_the_place(tmp_path):
    path = write_file(tmp_path / "a.hdf5")
    check_finite(path)
    with h5py.File(path, "r+") as raw:
        raw["sciml/faces/face_velocity_y"][1, 2, 3, 4] = np.inf
    with pytest.raises(DataError, match="infinity in field 'face_velocity_y' of case 1, frame 2"):
        check_finite(path)
    with h5py.File(path, "r+") as raw:
        raw["sciml/state"][2, 5, 3, 4, 1] = np.nan
    with pytest.raises(DataError, match=rf"NaN in field 'velocity' of case 2, frame 5 \(file {path}\)"):
        check_finite(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(grid=()), "grid must be"),
        (dict(n_frames=0), "n_frames"),
        (dict(fields=()), "at least one entry"),
        (dict(fields=(FieldInfo("velocity", 3, "m/s", 1),)), "one of order 1 has 2 here"),
        (dict(face_fields=(FaceFieldInfo("f", "m/s", "z"),)), "axis must be one of"),
        (dict(boundaries={"x_low": "wall"}), "boundaries must name the sides"),
        (
            dict(boundaries=dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), "wal")),
            "did you mean 'wall'",
        ),
        (dict(boundary_parameters={"y_high": "lid_velocty"}), "did you mean 'lid_velocity'"),
    ],
)
def test_info_is_checked(changes, message):
    with pytest.raises(DataError, match=message):
        make_info(**changes)


def test_info_from_foreign_json():
    with pytest.raises(DataError, match="not JSON"):
        DatasetInfo.from_json("{")
    with pytest.raises(DataError, match="unknown keys"):
        DatasetInfo.from_dict(make_info().to_dict() | {"colour": "red"})

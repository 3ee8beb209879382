"""The Well's own reader opens our files.

The tree's structure is checked always; the-well 1.2.0 itself is run where it is installed (pure Python;
pinned to an old fsspec, so without its dependencies)::

    python -m pip install --no-deps --target .peers the-well==1.2.0
    PYTHONPATH=.peers python -m pytest tests/datasets/test_datasets_well.py -v
"""

import h5py
import numpy as np
import pytest
import torch
import yaml
from datasets_helpers import make_coordinates, make_info, make_parameters, make_trajectory, write_file

from sciml.datasets import DatasetFile, DatasetWriter, TrajectoryWindows, export_well
from sciml.errors import DataError

CHANNEL = {"x_low": "inlet", "x_high": "outlet", "y_low": "wall", "y_high": "wall"}
TUBE = {"x_low": "periodic", "x_high": "periodic", "y_low": "wall", "y_high": "moving_wall"}


def write_split(folder, boundaries=None, materialize=False):
    """A train and a valid file, exported; times and box sizes differ by case."""
    info = make_info() if boundaries is None else make_info(boundaries=boundaries, boundary_parameters={})
    files = {
        "train": [write_file(folder / "a.hdf5", 3, 0, info, materialize=materialize)],
        "valid": [write_file(folder / "b.hdf5", 2, 1, info, materialize=materialize)],
    }
    return export_well(files, folder / "well")


@pytest.mark.parametrize("materialize", [False, True])
def test_tree(tmp_path, materialize):
    path = write_file(tmp_path / "a.hdf5", materialize=materialize)
    expected = make_trajectory(make_info(), range(3))
    with h5py.File(path) as file:
        assert file["t1_fields/velocity"].is_virtual != materialize
        assert np.array_equal(file["t1_fields/velocity"][()], np.moveaxis(expected["velocity"], 2, -1))
        assert np.array_equal(file["t0_fields/pressure"][()], expected["pressure"][:, :, 0])
        assert [list(file[f"t{k}_fields"].attrs["field_names"]) for k in range(3)] == [
            ["pressure"],
            ["velocity"],
            [],
        ]
        assert list(file["dimensions"].attrs["spatial_dims"]) == ["x", "y"]
        for name in ("time", "x", "y"):
            assert file["dimensions"][name].attrs["sample_varying"] and file["dimensions"][name].dtype == np.float32
        lid = file["boundary_conditions/y_high"]
        assert lid.attrs["bc_type"] == "WALL" and lid.attrs["sciml_kind"] == "moving_wall"
        assert lid.attrs["sciml_parameter"] == "lid_velocity" and lid["mask"][()].tolist() == [False] * 4 + [True]
        assert (
            file["scalars/lid_velocity"].attrs["time_varying"] and not file["scalars/viscosity"].attrs["time_varying"]
        )
        assert file["sciml/faces/face_velocity_x"].attrs["location"] == "face"
    assert TrajectoryWindows(path).collection.files[0].memory_mapped


def test_common_times_and_constant_parameters(tmp_path):
    """Times and coordinates have an axis of cases even where cases agree; constants are root attributes."""
    info = make_info()
    trajectory = make_trajectory(info, range(2))
    trajectory["time"] = np.tile(np.arange(6.0), (2, 1))
    with DatasetWriter(tmp_path / "a.hdf5", info, 2, {"lid_velocity": 1, "viscosity": [1, 2]}) as writer:
        writer.write([0, 1], trajectory, {"x": np.arange(7), "y": np.arange(5)})
        writer.finish()
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert np.array_equal(file["dimensions/time"][()], trajectory["time"])
        assert np.array_equal(file["dimensions/x"][()], np.tile(np.arange(7), (2, 1)))
        assert list(file.attrs["simulation_parameters"]) == ["lid_velocity"] and file.attrs["lid_velocity"] == 1


def test_export_writes_statistics(tmp_path):
    folder = write_split(tmp_path)
    stats = yaml.safe_load((folder / "stats.yaml").read_text())
    velocity = make_trajectory(make_info(), range(3))["velocity"].astype(np.float64)
    steps = np.diff(velocity, axis=1)
    assert np.allclose(stats["mean"]["velocity"], velocity.mean(axis=(0, 1, 3, 4)))
    assert np.allclose(stats["rms"]["velocity"], np.sqrt((velocity**2).mean(axis=(0, 1, 3, 4))))
    assert np.allclose(stats["std_delta"]["velocity"], steps.std(axis=(0, 1, 3, 4)))
    assert isinstance(stats["mean"]["pressure"], float)
    assert {p.name for p in (folder / "data").iterdir()} == {"train", "valid"}


def test_export_errors(tmp_path):
    path = write_file(tmp_path / "a.hdf5")
    with pytest.raises(DataError, match="did you mean 'train'"):
        export_well({"trian": [path]}, tmp_path / "well")
    with pytest.raises(DataError, match="at least one file"):
        export_well({"valid": [path]}, tmp_path / "well")
    with pytest.raises(DataError, match="distinct names"):
        export_well({"train": [path, path]}, tmp_path / "well")


def well_dataset(*arguments, **options):
    data = pytest.importorskip("the_well.data", reason="the-well is not installed (see this file's docstring)")
    return data.WellDataset(*arguments, **options)


@pytest.mark.parametrize("materialize", [False, True])
def test_well_dataset_reads_the_same_bits(tmp_path, materialize):
    pytest.importorskip("the_well", reason="the-well is not installed (see this file's docstring)")
    data = well_dataset(
        path=str(write_split(tmp_path, materialize=materialize)),
        well_split_name="train",
        n_steps_input=2,
        n_steps_output=1,
        normalize_time_grid=False,
    )
    info = make_info()
    expected, parameters = make_trajectory(info, range(3)), make_parameters(info, 3)
    coordinates = make_coordinates(info, range(3))
    fields = np.concatenate([expected["pressure"], expected["velocity"]], axis=2)  # t0 first, then t1
    assert len(data) == 3 * 4 and data.metadata.dataset_name == "cavity"
    assert data.metadata.field_names == {0: ["pressure"], 1: ["velocity_x", "velocity_y"], 2: []}
    for index in range(len(data)):
        case, frame = divmod(index, 4)
        sample = data[index]
        window = np.moveaxis(fields[case, frame : frame + 3], 1, -1)
        assert np.array_equal(sample["input_fields"], window[:2]) and np.array_equal(
            sample["output_fields"], window[2:]
        )
        assert np.array_equal(sample["constant_scalars"], parameters["viscosity"][case, None])
        assert np.array_equal(sample["input_scalars"][:, 0], parameters["lid_velocity"][case, frame : frame + 2])
        assert np.array_equal(sample["output_scalars"][:, 0], parameters["lid_velocity"][case, frame + 2 : frame + 3])
        assert np.array_equal(sample["input_time_grid"], expected["time"][case, frame : frame + 2].astype(np.float32))
        grid = np.stack(np.meshgrid(coordinates["x"][case], coordinates["y"][case], indexing="ij"), axis=-1)
        assert np.array_equal(sample["space_grid"], grid.astype(np.float32))
        assert sample["boundary_conditions"].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("boundaries", "codes"), [(CHANNEL, [[1, 1], [0, 0]]), (TUBE, [[2, 2], [0, 0]])])
def test_well_dataset_reads_boundary_conditions(tmp_path, boundaries, codes):
    pytest.importorskip("the_well", reason="the-well is not installed (see this file's docstring)")
    data = well_dataset(path=str(write_split(tmp_path, boundaries)), well_split_name="valid")
    assert data[0]["boundary_conditions"].tolist() == codes


def test_well_dataset_normalises_with_our_statistics(tmp_path):
    pytest.importorskip("the_well", reason="the-well is not installed (see this file's docstring)")
    from the_well.data.normalization import ZScoreNormalization

    options = dict(use_normalization=True, normalization_type=ZScoreNormalization)
    data = well_dataset(path=str(write_split(tmp_path)), well_split_name="train", full_trajectory_mode=True, **options)
    values = np.concatenate([np.concatenate([s["input_fields"], s["output_fields"]]) for s in data])
    assert np.allclose(values.mean(axis=(0, 1, 2)), 0, atol=1e-5) and np.allclose(
        values.std(axis=(0, 1, 2)), 1, atol=1e-5
    )


def test_well_dataset_reads_a_generated_cavity(cavity_file, tmp_path):
    tree = export_well({"train": [cavity_file]}, tmp_path / "cavity")
    well = well_dataset(path=str(tree), well_split_name="train", n_steps_input=1, n_steps_output=2)
    ours = DatasetFile(cavity_file)
    for index in (0, 5, len(well) - 1):
        sample = well[index]
        case, start = divmod(index, ours.n_frames - 2)
        theirs = torch.cat([sample["input_fields"], sample["output_fields"]]).permute(0, 3, 1, 2)
        velocity_pressure = ours.state([case], range(start, start + 3))[0]
        assert torch.equal(theirs, velocity_pressure[:, [2, 0, 1]]), "The Well puts scalars before vectors"
        expected = [ours.parameters[name][case] for name in sorted(ours.parameters)]
        assert sample["constant_scalars"].tolist() == expected
        assert sample["boundary_conditions"].tolist() == [[0, 0], [0, 0]], "walls all round"

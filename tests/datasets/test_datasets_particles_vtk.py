"""VTU series: read back by meshio and by the package; series of other programs."""

import xml.etree.ElementTree as ElementTree

import meshio
import numpy as np
import pytest
import torch
from datasets_particles_helpers import make_trajectory

from sciml.datasets.particles import ParticleFile, open_source, write_vtk_case, write_vtk_series
from sciml.errors import ConfigError, DataError


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_meshio_reads_back_what_was_written(tmp_path, dim):
    position = make_trajectory(0, dim, 5, 7).position
    data = {
        "constant": np.arange(7),
        "flag": np.arange(7) % 2 == 0,
        "speed": torch.rand(5, 7),
        "velocity": torch.rand(5, 7, dim),
        "pair": np.random.default_rng(0).random((7, 2)),
    }
    path = write_vtk_series(tmp_path / "out", "drop", position, np.linspace(0, 0.4, 5), data)
    assert path == tmp_path / "out" / "drop.pvd"
    entries = [each.attrib for each in ElementTree.parse(path).getroot().iter("DataSet")]
    assert [float(each["timestep"]) for each in entries] == np.linspace(0, 0.4, 5).tolist()
    assert ElementTree.parse(path).getroot().attrib["type"] == "Collection"
    for frame, entry in enumerate(entries):
        mesh = meshio.read(tmp_path / "out" / entry["file"])
        assert np.array_equal(mesh.points[:, :dim], position[frame]) and not mesh.points[:, dim:].any()
        assert mesh.cells[0].type == "vertex" and mesh.cells[0].data[:, 0].tolist() == list(range(7))
        assert mesh.point_data["constant"].tolist() == list(range(7))
        assert mesh.point_data["flag"].tolist() == [1, 0, 1, 0, 1, 0, 1]
        assert np.array_equal(mesh.point_data["speed"], data["speed"][frame])
        velocity = mesh.point_data["velocity"]
        if dim > 1:  # vectors for ParaView's glyphs
            assert velocity.shape == (7, 3) and np.array_equal(velocity[:, :dim], data["velocity"][frame])
            assert not velocity[:, dim:].any()
        assert mesh.point_data["pair"].shape == ((7, 3) if dim == 2 else (7, 2))


@pytest.mark.parametrize(
    ("positions", "times", "data", "message"),
    [
        (np.zeros((3, 5)), np.zeros(3), {}, r"positions must be \(frames, particles, 1 to 3\)"),
        (np.zeros((3, 5, 4)), np.zeros(3), {}, "positions must be"),
        (np.zeros((3, 5, 2)), np.zeros(2), {}, "positions must be"),
        (
            np.zeros((3, 5, 2)),
            np.zeros(3),
            {"a": np.zeros(4)},
            r"point data 'a' must be \(5,\), \(5, c\) or \(3, 5, ...\)",
        ),
    ],
)
def test_wrong_shapes(tmp_path, positions, times, data, message):
    with pytest.raises(DataError, match=message):
        write_vtk_series(tmp_path, "a", positions, times, data)


@pytest.mark.parametrize("dim", [2, 3])
def test_out_and_in(tmp_path, dim):
    wanted = make_trajectory(1, dim)
    path = write_vtk_case(tmp_path / "vtk", "case1", wanted, 0.01)
    for each in (path, tmp_path / "vtk"):
        source = open_source(each)
        got = source.load(0)
        assert source.info.interval == pytest.approx(0.01) and source.info.dim == dim and source.cases == 1
        assert source.info.kinds == ("type 0", "type 1")
        for name in ("position", "velocity", "kind", "fixed", "mass", "volume"):
            assert torch.equal(getattr(got, name), getattr(wanted, name)), name
    file = ParticleFile(source.write(tmp_path / "a.h5"))
    assert torch.equal(file.positions(0), wanted.position)


@pytest.mark.parametrize("suffix", ["ply", "vtk", "vtu"])
def test_numbered_files_of_other_programs(tmp_path, suffix):
    position = make_trajectory(0, 3, 12, 7).position.numpy().astype(np.float64)
    cells = [("vertex", np.arange(7, dtype=np.int32)[:, None])]
    for frame in range(12):  # 10 comes after 9
        meshio.Mesh(position[frame], cells).write(tmp_path / f"frame{frame}.{suffix}")
    with pytest.raises(ConfigError, match="give interval"):
        open_source(tmp_path)
    source = open_source(tmp_path, interval=0.1, kind="honey", bounds=[(0, 1), (0, 1), (0, 1)])
    assert source.info.kinds == ("honey",) and source.info.bounds == ((0, 1),) * 3
    np.testing.assert_allclose(source.load(0).position, position, rtol=1e-6)


def test_ascii_ply(tmp_path):
    for frame in range(2):
        header = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
        (tmp_path / f"{frame}.ply").write_text(f"{header}end_header\n0 0 1\n1 {frame} 0.5\n")
    trajectory = open_source(tmp_path, interval=0.1).load(0)
    assert trajectory.position.tolist() == [[[0, 0, 1], [1, 0, 0.5]], [[0, 0, 1], [1, 1, 0.5]]]


def test_series_that_are_none(tmp_path):
    path = write_vtk_case(tmp_path / "a", "a", make_trajectory(0, 2, 4, 7), 0.01)
    mesh = meshio.read(tmp_path / "a" / "a_000002.vtu")
    text = path.read_text()

    meshio.Mesh(mesh.points[:5], [("vertex", np.arange(5)[:, None])]).write(tmp_path / "a" / "a_000002.vtu")
    with pytest.raises(DataError, match=r"a_000002.vtu has 5 points, the first frame 7: a trajectory has the same"):
        open_source(path)
    (tmp_path / "a" / "a_000002.vtu").write_text("<VTKFile>")
    with pytest.raises(DataError, match=r"a_000002.vtu is missing or damaged"):
        open_source(path)
    (tmp_path / "a" / "a_000002.vtu").unlink()
    with pytest.raises(DataError, match=r"a_000002.vtu is missing or damaged"):
        open_source(path)
    path.write_text(text.replace("0.02", "0.025"))
    with pytest.raises(DataError, match="not equally far apart in time"):
        open_source(path)
    path.write_text(text[:100])
    with pytest.raises(DataError, match="no PVD collection"):
        open_source(path)
    path.write_text("<VTKFile/>")
    with pytest.raises(DataError, match="names no files"):
        open_source(path)

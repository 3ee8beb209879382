"""Pictures and VTU files of moved meshes."""

import meshio
import numpy as np
import pytest
from matplotlib.collections import LineCollection, QuadMesh
from moved_meshes import BOXES, wavy

from sciml.errors import DataError
from sciml.plotting import moved_mesh, write_mesh

CELLS = {2: (9, 7), 3: (5, 6, 4)}


def mesh_of(name):
    box = BOXES[name]
    return box, wavy(box, CELLS[box.dim], 1)[0].numpy()


def parts(axes, kind):
    return [part for part in axes.collections if isinstance(part, kind)]


def test_fields_on_both_meshes(tmp_path):
    box, corners = mesh_of("walls")
    fixed, moved = np.random.default_rng(0).random((2, 9, 7))
    path = tmp_path / "deep" / "mesh.png"
    figure = moved_mesh(corners, lengths=box.lengths, fixed=fixed, moved=moved, name="u", unit="m/s", path=path)
    assert path.stat().st_size > 10_000
    left, middle, right = figure.axes[:3]
    (drawn,) = parts(middle, QuadMesh)
    np.testing.assert_allclose(drawn.get_coordinates(), corners, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(drawn.get_array(), moved)
    np.testing.assert_array_equal(parts(left, QuadMesh)[0].get_array(), fixed)
    # 10 lines along y, 8 along x, each through the corners of its own family
    (lines,) = parts(middle, LineCollection)
    segments = lines.get_segments()
    assert len(segments) == 10 + 8
    np.testing.assert_allclose(segments[3], corners[3])
    np.testing.assert_allclose(segments[10 + 2], corners[:, 2])
    size = parts(right, QuadMesh)[0].get_array()
    area = 2.0**size * 1.7 / 63
    assert area.sum() == pytest.approx(1.7, rel=1e-12)
    assert middle.get_xlim() == (0, 1.0) and middle.get_ylim() == (0, 1.7)
    assert any("u (m/s)" in axes.get_ylabel() for axes in figure.axes)


def test_lines_alone_and_fine_meshes_thinned():
    box = BOXES["walls"]
    corners = box.corners((130, 12)).numpy()
    figure = moved_mesh(corners, lengths=box.lengths)
    segments = parts(figure.axes[1], LineCollection)[0].get_segments()
    # every third of 131, and the wall; all 13 of the other family
    assert len(segments) == 44 + 1 + 13
    np.testing.assert_allclose(segments[44], corners[-1])
    assert not parts(figure.axes[0], QuadMesh)


def test_periodic_meshes_fill_the_box():
    box, corners = mesh_of("periodic")
    corners = corners + np.array([0.4, 0.0])
    figure = moved_mesh(corners, lengths=box.lengths, periodic=box.periodic, moved=np.ones((9, 7)))
    covered = [part.get_coordinates() for part in parts(figure.axes[1], QuadMesh)]
    assert len(covered) == 9
    assert min(c[..., 0].min() for c in covered) < 0 < box.lengths[0] < max(c[..., 0].max() for c in covered)


def test_a_folded_mesh_says_so():
    box, corners = mesh_of("walls")
    corners = box.corners((9, 7)).numpy().copy()
    corners[4, 3, 0] += 0.5
    figure = moved_mesh(corners, lengths=box.lengths)
    assert "turned over" in figure.axes[2].get_title(loc="left")
    assert np.ma.getmaskarray(parts(figure.axes[2], QuadMesh)[0].get_array()).sum() > 0


def test_three_planes_of_three_dimensions():
    box, corners = mesh_of("walls 3d")
    field = np.random.default_rng(0).random((5, 6, 4))
    figure = moved_mesh(corners, lengths=box.lengths, fixed=field, moved=field + 1)
    axes = figure.axes[:9]
    np.testing.assert_array_equal(parts(axes[1], QuadMesh)[0].get_array(), field[:, :, 2] + 1)
    np.testing.assert_array_equal(parts(axes[4], QuadMesh)[0].get_array(), field[:, 3, :] + 1)
    np.testing.assert_array_equal(parts(axes[7], QuadMesh)[0].get_array(), field[2] + 1)
    expected = 0.5 * (corners[2] + corners[3])[..., 1:]
    np.testing.assert_allclose(parts(axes[7], QuadMesh)[0].get_coordinates(), expected)


def test_what_a_picture_refuses():
    box, corners = mesh_of("walls")
    with pytest.raises(DataError, match=r"corners have shape \(10, 8\)"):
        moved_mesh(corners[..., 0], lengths=box.lengths)
    with pytest.raises(DataError, match=r"needs 2 lengths"):
        moved_mesh(corners, lengths=(1.0,))
    with pytest.raises(DataError, match=r"on the moved mesh has shape \(10, 8\); expected \(9, 7\)"):
        moved_mesh(corners, lengths=box.lengths, moved=np.ones((10, 8)))


@pytest.mark.parametrize("name", ["walls", "periodic", "walls 3d"])
def test_vtu_comes_back(name, tmp_path):
    box, corners = mesh_of(name)
    dim, cells = box.dim, CELLS[box.dim]
    draw = np.random.default_rng(0)
    fields = {
        "at cells": draw.random(cells),
        "flow": draw.random((dim, *cells)),
        "single": draw.random(cells).astype(np.float32),
        "at corners": draw.random(corners.shape[:-1]),
        "force": draw.random((dim, *corners.shape[:-1])),
    }
    path = write_mesh(tmp_path / "deep" / "mesh.vtu", corners, fields)
    mesh = meshio.read(path)
    np.testing.assert_array_equal(mesh.points[:, :dim].reshape(corners.shape), corners)
    assert mesh.points.shape[1] == 3 and (dim == 3 or not mesh.points[:, 2].any())
    (block,) = mesh.cells
    assert block.type == ("quad" if dim == 2 else "hexahedron") and len(block.data) == np.prod(cells)
    np.testing.assert_array_equal(mesh.cell_data["at cells"][0].reshape(cells), fields["at cells"])
    assert mesh.cell_data["single"][0].dtype == np.float32
    flow = mesh.cell_data["flow"][0]
    assert flow.shape[1] == 3
    np.testing.assert_array_equal(flow.T[:dim].reshape(fields["flow"].shape), fields["flow"])
    np.testing.assert_array_equal(mesh.point_data["at corners"].reshape(corners.shape[:-1]), fields["at corners"])
    force = mesh.point_data["force"].T[:dim].reshape(fields["force"].shape)
    np.testing.assert_array_equal(force, fields["force"])


@pytest.mark.parametrize("name", ["walls", "walls 3d"])
def test_vtu_cells_are_turned_the_right_way(name, tmp_path):
    """VTK's own order: the first corners go round the low side, anticlockwise seen from the high one."""
    box, corners = mesh_of(name)
    mesh = meshio.read(write_mesh(tmp_path / "mesh.vtu", corners))
    at = mesh.points[mesh.cells[0].data]
    # cell (1, 2[, 3]) has its own eight corners
    index = (1, 2, 3)[: box.dim]
    number = np.ravel_multi_index(index, CELLS[box.dim])
    np.testing.assert_array_equal(at[number, 0, : box.dim], corners[index])
    np.testing.assert_array_equal(at[number, 1, : box.dim], corners[(2, *index[1:])])
    np.testing.assert_array_equal(at[number, 2, : box.dim], corners[(2, 3, *index[2:])])
    np.testing.assert_array_equal(at[number, 3, : box.dim], corners[(1, 3, *index[2:])])
    if box.dim == 3:
        np.testing.assert_array_equal(at[number, 4], corners[1, 2, 4])
        np.testing.assert_array_equal(at[number, 6], corners[2, 3, 4])
    edges = [at[:, j] - at[:, 0] for j in ((1, 3, 4) if box.dim == 3 else (1, 3))]
    normal = np.cross(edges[0], edges[1])
    assert ((normal * edges[2]).sum(1) > 0).all() if box.dim == 3 else (normal[:, 2] > 0).all()


def test_what_a_file_refuses(tmp_path):
    _, corners = mesh_of("walls")
    with pytest.raises(DataError, match=r"mesh.vtk: a mesh is written as .vtu"):
        write_mesh(tmp_path / "mesh.vtk", corners)
    with pytest.raises(DataError, match=r"field 'u' has shape \(9, 8\); expected \(9, 7\) \(at cells\) or \(10, 8\)"):
        write_mesh(tmp_path / "mesh.vtu", corners, {"u": np.ones((9, 8))})
    with pytest.raises(DataError, match=r"corners have shape \(10, 8\)"):
        write_mesh(tmp_path / "mesh.vtu", corners[..., 0])

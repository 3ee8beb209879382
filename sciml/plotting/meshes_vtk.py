"""Moved meshes with their fields as VTU files for ParaView: quadrilaterals in 2D, hexahedra in 3D."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError

AROUND = {
    "quad": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "hexahedron": ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
}
"""Corners of a cell in VTK's order, the last axis slowest."""


def write_mesh(path: str | os.PathLike[str], corners: ArrayLike, fields: Mapping[str, ArrayLike] | None = None) -> Path:
    """Write one mesh, ``corners (*(n + 1), d)`` in metres, and ``fields`` on it to ``path`` (``.vtu``, binary).

    A field is a scalar or a vector of c components, at cells ``(*n)``, ``(c, *n)`` or at corners ``(*(n + 1))``,
    ``(c, *(n + 1))``; its shape says which. Points lie in the file with the last axis fastest, cells too; points and
    vectors of 2 components are filled up with 0 to 3.

    Returns the path. Raises DataError for shapes that do not fit, or another suffix.
    """
    import meshio

    path = Path(path)
    if path.suffix != ".vtu":
        raise DataError(f"{path.name}: a mesh is written as .vtu; give a name with this suffix")
    mesh = np.asarray(corners)
    dim = mesh.shape[-1] if mesh.ndim else 0
    if dim not in (2, 3) or mesh.ndim != dim + 1 or min(mesh.shape[:-1]) < 2:
        raise DataError(f"corners have shape {mesh.shape}; expected (nx + 1, ny + 1, 2) or (nx + 1, ny + 1, nz + 1, 3)")
    kind = "quad" if dim == 2 else "hexahedron"
    at_points: dict[str, NDArray] = {}
    at_cells: dict[str, list[NDArray]] = {}
    cells = tuple(n - 1 for n in mesh.shape[:-1])
    for name, given in (fields or {}).items():
        values = np.asarray(given)
        grid = values.shape[values.ndim - dim :]
        if values.ndim not in (dim, dim + 1) or grid not in (cells, mesh.shape[:-1]):
            raise DataError(
                f"field {name!r} has shape {values.shape}; expected {cells} (at cells) or {mesh.shape[:-1]} (at "
                "corners), with the components, if any, in front"
            )
        column = values.reshape(-1) if values.ndim == dim else _filled(values.reshape(len(values), -1).T)
        if grid == cells:
            at_cells[name] = [column]
        else:
            at_points[name] = column
    path.parent.mkdir(parents=True, exist_ok=True)
    points = _filled(mesh.reshape(-1, dim))
    meshio.Mesh(points, [(kind, _connectivity(cells, kind))], point_data=at_points, cell_data=at_cells).write(path)
    return path


def _connectivity(cells: tuple[int, ...], kind: str) -> NDArray[np.int64]:
    number = np.arange(np.prod([n + 1 for n in cells])).reshape([n + 1 for n in cells])
    corners = []
    for offset in AROUND[kind]:
        corners.append(number[tuple(slice(o, o + n) for o, n in zip(offset, cells, strict=True))].reshape(-1))
    return np.stack(corners, 1)


def _filled(rows: NDArray) -> NDArray:
    """Rows of 2 numbers with a third one, 0; others as they are."""
    return np.pad(rows, ((0, 0), (0, 1))) if rows.shape[1] == 2 else np.ascontiguousarray(rows)

"""Moved meshes: a field on the fixed mesh beside the same field on the moved one, and the size of its cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.panels import Limits, colours_of, drawable, scale_of
from sciml.plotting.planes import AXES, PLANES
from sciml.plotting.sheet import Box, make_sheet, readable_length

Array = NDArray[np.float64]

LINES = 64
"""Cells along an axis up to which every line of a mesh is drawn; of finer ones every second, third, …"""


def moved_mesh(
    corners: ArrayLike,
    *,
    lengths: Sequence[float],
    periodic: Sequence[bool] = (),
    fixed: ArrayLike | None = None,
    moved: ArrayLike | None = None,
    name: str = "field",
    unit: str = "",
    length_unit: str = "m",
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw a field on the fixed mesh | on the moved mesh | the size of its cells against those of the fixed one.

    ``corners (*(n + 1), d)`` of a moved mesh of the box of sides ``lengths`` (``constraints.mesh_mover``); ``fixed``
    and ``moved (*n)`` are the field at the cells of the fixed and of the moved mesh, with one colour scale. Without
    them the lines of both meshes are drawn alone. A row for 2D; in 3D one for each pair of axes: the middle layer of
    cells along the third, seen along it. ``periodic``: axes on which the parts of the mesh that lie outside the box
    come in again. Cells that are turned over are grey in the last column, and counted over it.

    Returns the figure, written to ``path`` when given. Raises DataError for shapes that do not fit.
    """
    mesh = np.asarray(corners, dtype=np.float64)
    cells, dim = _cells(mesh, lengths, periodic)
    fields = [_field(given, cells, what) for given, what in ((fixed, "fixed"), (moved, "moved"))]
    known = [field for field in fields if field is not None]
    limits = scale_of(np.concatenate([field.ravel() for field in known])) if known else None
    size, turned = _size(mesh, lengths)
    span = max(1.0, float(np.abs(size[np.isfinite(size)]).max(initial=0.0)))
    rows = [(0, 1)] if dim == 2 else list(PLANES)
    largest, _, readable = readable_length(max(lengths), min(lengths), length_unit)
    factor = largest / max(lengths)
    boxes = [Box(factor * lengths[a], factor * lengths[b], names=(AXES[a], AXES[b]), unit=readable) for a, b in rows]
    uniform = _uniform(cells, lengths)
    wraps = tuple(periodic) or (False,) * dim
    with style.style():
        sheet = make_sheet(boxes, (2, 1), 2.6 if dim == 2 else 2.2, bool(title))
        for row, (plane, box) in enumerate(zip(rows, boxes, strict=True)):
            around = (wraps[plane[0]], wraps[plane[1]])
            panels = ((uniform, fields[0]), (mesh, fields[1]))
            for axes, (positions, field) in zip(sheet.axes[row], panels, strict=False):
                net = factor * _layer(positions, plane, corners=True)
                if field is not None and limits is not None:
                    main = _fill(axes, net, _layer(field, plane), box, around, limits, colours_of(limits))
                _lines(axes, net, box, around, over=field is not None)
            net = factor * _layer(mesh, plane, corners=True)
            sizes = _fill(sheet.axes[row][2], net, _layer(size, plane), box, around, (-span, span), style.DIVERGING)
            folds = f", {turned} turned over" if turned and row == 0 else ""
            note = "" if dim == 2 else f"middle in {AXES[3 - sum(plane)]}"
            sheet.label_row(row, ("fixed mesh", "moved mesh", f"cell size{folds}"), note)
            for axes in sheet.axes[row]:
                _frame(axes, box)
        if limits is not None:
            sheet.colour_bar(0, main, name, unit)
        else:
            sheet.bars[0].remove()
        sheet.colour_bar(1, sizes, "log₂(size / fixed size)", "")
        if title:
            sheet.heading(title)
        style.save(sheet.figure, path)
    return sheet.figure


def _cells(mesh: Array, lengths: Sequence[float], periodic: Sequence[bool]) -> tuple[tuple[int, ...], int]:
    dim = mesh.shape[-1] if mesh.ndim else 0
    if dim not in (2, 3) or mesh.ndim != dim + 1 or min(mesh.shape[:-1]) < 2:
        raise DataError(f"corners have shape {mesh.shape}; expected (nx + 1, ny + 1, 2) or (nx + 1, ny + 1, nz + 1, 3)")
    if len(lengths) != dim or len(periodic) not in (0, dim):
        raise DataError(f"a mesh of {dim} dimensions needs {dim} lengths and periodic axes, not {lengths}, {periodic}")
    return tuple(n - 1 for n in mesh.shape[:-1]), dim


def _field(given: ArrayLike | None, cells: tuple[int, ...], what: str) -> Array | None:
    if given is None:
        return None
    field = np.asarray(given, dtype=np.float64)
    if field.shape != cells:
        raise DataError(f"the field on the {what} mesh has shape {field.shape}; expected {cells}, a value a cell")
    return field


def _size(mesh: Array, lengths: Sequence[float]) -> tuple[Array, int]:
    """Binary logarithm of the volumes of the cells over that of a fixed one, NaN where turned over; how many are."""
    import torch

    from sciml.constraints.mesh_mover import cell_volumes

    volumes = cell_volumes(torch.from_numpy(mesh)[None])[0].numpy()
    bad = ~(volumes > 0)
    relative = volumes / np.prod(lengths) * volumes.size
    return np.where(bad, np.nan, np.log2(np.where(bad, 1.0, relative))), int(bad.sum())


def _uniform(cells: tuple[int, ...], lengths: Sequence[float]) -> Array:
    axes = [length * np.arange(n + 1) / n for n, length in zip(cells, lengths, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1)


def _layer(values: Array, plane: tuple[int, int], corners: bool = False) -> Array:
    """Of a 3D mesh the middle layer of cells along the axis that is not in the plane: its values, or the corners of
    the surface through the middle of its cells, seen along that axis. 2D meshes have one layer.
    """
    dim = values.ndim - corners
    if dim == 3:
        normal = 3 - sum(plane)
        n = values.shape[normal] - corners
        middle = values.take(n // 2, normal)
        values = 0.5 * (middle + values.take(n // 2 + 1, normal)) if corners else middle
    return values[..., list(plane)] if corners else values


def _images(box: Box, around: tuple[bool, bool]) -> list[Array]:
    """Shifts by which a mesh comes in again on periodic axes."""
    turns = [(-1, 0, 1) if periodic else (0,) for periodic in around]
    return [np.array([i * box.width, j * box.height]) for i, j in itertools.product(*turns)]


def _fill(
    axes: Axes, net: Array, values: Array, box: Box, around: tuple[bool, bool], limits: Limits, colours: str
) -> QuadMesh:
    """Cells ``(nx + 1, ny + 1, 2)`` in the colours of their values ``(nx, ny)``."""
    cmap = matplotlib.colormaps[colours].with_extremes(bad=style.NOT_FINITE)
    for shift in _images(box, around):
        x, y = np.moveaxis(net + shift, -1, 0)
        shown = axes.pcolormesh(
            x, y, drawable(values, limits), cmap=cmap, norm=Normalize(*limits), shading="flat", rasterized=True
        )
    return shown


def _lines(axes: Axes, net: Array, box: Box, around: tuple[bool, bool], over: bool) -> None:
    """Both families of lines; over a field in a grey that is seen on light and dark."""
    lines: list[Array] = []
    for family in (net, net.swapaxes(0, 1)):
        step = -(-(len(family) - 1) // LINES)
        lines += [*family[:-1:step], family[-1]]
    for shift in _images(box, around):
        look = {"colors": "#8a8a8a" if over else style.INK, "linewidths": 0.35 if over else 0.4}
        axes.add_collection(LineCollection([line + shift for line in lines], **look))


def _frame(axes: Axes, box: Box) -> None:
    axes.set(xlim=box.extent[:2], ylim=box.extent[2:], aspect="equal")
    largest = max(box.width, box.height)
    for axis, side in ((axes.xaxis, box.width), (axes.yaxis, box.height)):
        axis.set_major_locator(MaxNLocator(4 if side > 0.6 * largest else 2, steps=[1, 2, 5, 10]))

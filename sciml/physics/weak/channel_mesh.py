"""Meshes of a channel, with or without a disc in it: graded rings around the disc, a regular lattice elsewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.physics.weak.mesh import TriangleMesh

SMOOTHINGS = 12
"""Rounds in which free points move to the mean of their neighbours; more change nothing visible."""


def channel_mesh(
    h: float,
    *,
    lengths: tuple[float, float] = (2.0, 1.0),
    centre: tuple[float, float] | None = None,
    radius: float = 0.1,
    h_disc: float | None = None,
    growth: float = 0.2,
    wake: float | None = None,
) -> TriangleMesh:
    """Triangles of the size ``h`` in the rectangle [0, lengths_x] x [0, lengths_y], finer around a disc.

    ``centre``: of the disc of ``radius`` that is cut out, or None for none; it becomes the polygon of its points, whose
    edges have the length ``h_disc`` (default h / 3). From there the size grows by ``growth`` a unit of length up to h,
    on rings around the disc. Elsewhere the points are those of equilateral triangles, rows along x; the Delaunay
    triangulation of all is smoothed. ``wake``: only up to that distance from the line from the centre to the outflow do
    triangles have the size h; elsewhere twice that. Boundaries: ``inflow`` (x = 0), ``outflow`` (x = lengths_x),
    ``wall`` (y = 0 and lengths_y) and ``disc``.

    Raises ``ConfigError`` for sizes that are not positive or too large for the channel, a disc that is less than
    its radius from a side, and a wake that is not positive or without a disc.
    """
    width, height = lengths
    h_disc = h / 3 if h_disc is None else h_disc
    _check_sizes(h, lengths, centre, radius, h_disc, growth)
    if wake is None:
        fixed, free = [_rectangle(h, lengths)], _lattice(h, lengths)
    elif centre is None or not wake > 0:
        raise ConfigError(
            f"wake is {wake} behind a disc at {centre}; expected a positive width and the centre of a disc"
        )
    else:
        side, free = _two_sizes(h, lengths, centre, wake)
        fixed = [side]
    if centre is not None:
        middle = torch.tensor(centre, dtype=torch.float64)
        room = min(centre[0], width - centre[0], centre[1], height - centre[1])
        rings, reach = _rings(radius, h_disc, h, growth, room - 0.75 * h)
        fixed.append(middle + rings[0])
        keep = (free - middle).norm(dim=1) > reach
        free = torch.cat([*(middle + ring for ring in rings[1:]), free[keep]])
    points = torch.cat([*fixed, free])
    n_fixed = len(points) - len(free)
    for _ in range(SMOOTHINGS):
        triangles = _triangulate(points, centre, radius)
        points = torch.cat([points[:n_fixed], _mean_of_neighbours(points, triangles)[n_fixed:]])
    slack = 1e-9 * max(lengths)
    boundaries = {
        "inflow": lambda x: x[:, 0] < slack,
        "outflow": lambda x: x[:, 0] > width - slack,
        "wall": lambda x: (x[:, 1] < slack) | (x[:, 1] > height - slack),
    }
    if centre is not None:
        boundaries["disc"] = lambda x: (x - middle).norm(dim=1) < radius
    return TriangleMesh(points, _triangulate(points, centre, radius), boundaries)


def channel_with_disc(
    h: float = 0.04, *, centre: tuple[float, float] = (0.5, 0.6), radius: float = 0.1, **options: float
) -> TriangleMesh:
    """``channel_mesh`` of [0, 2] x [0, 1] with the disc of Zang and Koutsourelakis; about 1700 vertices by default."""
    return channel_mesh(h, centre=centre, radius=radius, **options)


def _rows(h: float, height: float) -> int:
    return max(2, round(height / (h * math.sqrt(0.75))))


def _rectangle(h: float, lengths: tuple[float, float]) -> Tensor:
    """Points on the sides: every h along x, every row of the lattice along y."""
    nx, ny = max(2, round(lengths[0] / h)), _rows(h, lengths[1])
    x = torch.arange(nx + 1, dtype=torch.float64) * (lengths[0] / nx)
    y = torch.arange(1, ny, dtype=torch.float64) * (lengths[1] / ny)
    along_x = [torch.stack([x, torch.full_like(x, value)], 1) for value in (0.0, lengths[1])]
    along_y = [torch.stack([torch.full_like(y, value), y], 1) for value in (0.0, lengths[0])]
    return torch.cat(along_x + along_y)


def _lattice(h: float, lengths: tuple[float, float]) -> Tensor:
    """Inner points of equilateral triangles (stretched to fit); every second row is shifted by h / 2."""
    nx, ny = max(2, round(lengths[0] / h)), _rows(h, lengths[1])
    step = lengths[0] / nx
    rows = []
    for row in range(1, ny):
        x = torch.arange(1, nx, dtype=torch.float64) if row % 2 == 0 else torch.arange(nx, dtype=torch.float64) + 0.5
        rows.append(torch.stack([x * step, torch.full_like(x, row * lengths[1] / ny)], 1))
    return torch.cat(rows)


def _two_sizes(
    h: float, lengths: tuple[float, float], centre: tuple[float, float], wake: float
) -> tuple[Tensor, Tensor]:
    """Points on the sides and inner points: those of the lattice of size h within ``wake`` of the line behind
    ``centre``, elsewhere those of every second row that make the lattice of size 2 h."""
    nx, ny = (2 * max(2, round(n / 2)) for n in (lengths[0] / h, _rows(h, lengths[1])))
    half, row = torch.meshgrid(torch.arange(2 * nx + 1), torch.arange(ny + 1), indexing="ij")  # x in half steps
    end, wall = (half == 0) | (half == 2 * nx), (row == 0) | (row == ny)
    fine = end | torch.where(wall, half % 2 == 0, (half - row) % 2 == 0)
    inner = (row % 2 == 0) & (half % 2 == 0) & ((half - row) % 4 == 0)
    coarse = torch.where(end, row % 2 == 0, torch.where(wall, half % 4 == 0, inner))
    points = torch.stack([half.double() * (lengths[0] / (2 * nx)), row.double() * (lengths[1] / ny)], -1)
    x, y = (points[..., k] - centre[k] for k in (0, 1))
    keep = coarse | (fine & (torch.hypot(x.clamp(max=0.0), y) <= wake))
    on_side = end | wall
    return points[keep & on_side], points[keep & ~on_side]


def _rings(radius: float, first: float, last: float, growth: float, room: float) -> tuple[list[Tensor], float]:
    """Points on rings around 0, and the radius from which on the lattice takes over.

    Rings lie so far apart that their triangles are equilateral; every second one is turned by half a step.
    """
    rings, r, turn = [], radius, 0.0
    size = first
    while True:
        count = max(8, round(2 * math.pi * r / size))
        turn += math.pi / count
        angle = turn + torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
        rings.append(r * torch.stack([angle.cos(), angle.sin()], 1))
        size = min(last, first + growth * (r - radius))
        step = size * math.sqrt(0.75)
        if r + step > room or (size == last and len(rings) > 1):
            return rings, r + 0.7 * size
        r += step


def _triangulate(points: Tensor, centre: tuple[float, float] | None, radius: float) -> Tensor:
    from scipy.spatial import Delaunay  # here: its import takes longer than that of all problems

    triangles = torch.as_tensor(Delaunay(points.numpy()).simplices).to(torch.int64)
    a, b, c = points[triangles].unbind(1)
    keep = torch.linalg.det(torch.stack([b - a, c - a], -1)).abs() > 1e-12  # not the flat ones along straight sides
    if centre is not None:
        middle = torch.tensor(centre, dtype=torch.float64)
        on_disc = (points[triangles] - middle).norm(dim=-1) < radius * (1 + 1e-9)
        keep &= ~on_disc.all(1)
    return triangles[keep]


def _mean_of_neighbours(points: Tensor, triangles: Tensor) -> Tensor:
    # Delaunay's triangles are anticlockwise: the edges a -> b, b -> c, c -> a meet every inner neighbour once
    first, second = triangles.flatten(), triangles.roll(-1, 1).flatten()
    total = torch.zeros_like(points).index_add(0, first, points[second])
    return total / first.bincount(minlength=len(points)).unsqueeze(1)


def _check_sizes(
    h: float,
    lengths: tuple[float, float],
    centre: tuple[float, float] | None,
    radius: float,
    h_disc: float,
    growth: float,
) -> None:
    if not (min(lengths) > 0 and 0 < h <= min(lengths) / 4):
        raise ConfigError(
            f"h is {h} in a channel of {lengths}; expected positive lengths and 0 < h <= a quarter of each"
        )
    if centre is None:
        return
    if not (0 < h_disc <= min(h, radius) and growth > 0):
        raise ConfigError(
            f"h_disc is {h_disc} and growth {growth}; expected 0 < h_disc <= h and the radius {radius}, and growth > 0"
        )
    room = min(centre[0], lengths[0] - centre[0], centre[1], lengths[1] - centre[1])
    if not (radius > 0 and room >= 2 * radius):
        raise ConfigError(
            f"the disc at {tuple(centre)} of radius {radius} comes within {room - radius:.3g} of a side of the channel "
            f"{lengths}; expected a positive radius and at least as much room"
        )

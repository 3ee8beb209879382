"""The classical mesh mover: closed forms, symmetries, interpolation gain, and what it says when it cannot."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.tri import LinearTriInterpolator, Triangulation

from sciml.constraints.mesh_mover import (
    Box,
    MeshNotConvergedWarning,
    MovedMesh,
    curvature_monitor,
    equidistribution_spread,
    folded,
    interpolate,
    mass,
    monge_ampere,
)
from sciml.constraints.mesh_mover.anderson import Anderson
from sciml.errors import ConfigError, DataError, SolverError

F64 = torch.float64
SQUARE, CUBE = Box((1.0, 1.0)), Box((1.0, 1.0, 1.0))
Function = Callable[[torch.Tensor], torch.Tensor]


def peak(height: float, centre: float, width: float) -> Function:
    return lambda x: 1 + height * torch.exp(-(((x - centre) / width) ** 2))


PEAKS = [peak(4, 0.35, 0.1), peak(2, 0.6, 0.15), peak(2, 0.5, 0.2)]


def separable(factors: list[Function], lengths: tuple[float, ...]) -> Function:
    def monitor(points: torch.Tensor) -> torch.Tensor:
        values = [f(x / length) for f, x, length in zip(factors, points.unbind(-1), lengths, strict=True)]
        return torch.stack(values).prod(0)

    return monitor


def equidistributed(m: Function, n: int) -> torch.Tensor:
    """The 1D mesh of n cells on [0, 1] with equal integrals of m, by inverting the cumulative integral."""
    s = torch.linspace(0, 1, 20001, dtype=F64)
    values = m(s)
    total = torch.cat((torch.zeros(1, dtype=F64), ((values[1:] + values[:-1]) / 2).cumsum(0)))
    return torch.from_numpy(np.interp(np.linspace(0, 1, n + 1), (total / total[-1]).numpy(), s.numpy()))


def separable_error(box: Box, n: int) -> float:
    """Largest distance of a corner from the product of 1D equidistributions, over the side."""
    factors = PEAKS[: box.dim]
    mesh = monge_ampere(separable(factors, box.lengths), (n,) * box.dim, box, tolerance=1e-6)
    exact = torch.stack(torch.meshgrid(*(equidistributed(f, n) for f in factors), indexing="ij"), -1)
    return float((mesh.corners / torch.tensor(box.lengths, dtype=F64) - exact).abs().max())


def fields(box: Box, cells: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: f(*box.centres(cells, dtype=F64).unbind(-1))[None, None] for name, f in EXACT.items()}


EXACT = {
    "bump": lambda x, y: torch.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.02),
    "front": lambda x, y: torch.tanh((x - 0.5 + 0.15 * torch.sin(2 * math.pi * y)) / 0.05),
    "ring": lambda x, y: torch.exp(-(((torch.hypot(x - 0.5, y - 0.5) - 0.25) / 0.04) ** 2)),
}


def lopsided(cells: tuple[int, ...]) -> torch.Tensor:
    """A field without any symmetry."""
    x = SQUARE.centres(cells, dtype=F64) - torch.tensor([0.3, 0.6], dtype=F64)
    return torch.exp(-(x[..., 0] ** 2 / 0.01 + (x[..., 1] + 0.5 * x[..., 0]) ** 2 / 0.03))[None, None]


def test_separable_monitor_2d_second_order() -> None:
    errors = [separable_error(SQUARE, n) for n in (16, 32, 64, 128)]
    assert errors[-1] <= 1.2e-4
    assert all(3.2 < coarse / fine < 4.8 for coarse, fine in pairwise(errors))


def test_separable_monitor_3d_second_order() -> None:
    errors = [separable_error(CUBE, n) for n in (16, 32, 64)]
    assert errors[-1] <= 5e-4
    assert all(3.0 < coarse / fine < 5.0 for coarse, fine in pairwise(errors))


@pytest.mark.parametrize("box", [Box((3.0, 0.5)), Box((0.2, 0.1, 0.1))])
def test_boxes_of_other_sides(box: Box) -> None:
    assert separable_error(box, 32) <= (4e-3 if box.dim == 2 else 2e-3)


@pytest.mark.parametrize("box", [SQUARE, CUBE, Box((2.0, 1.0), (True, False))])
def test_a_constant_monitor_gives_the_identity(box: Box) -> None:
    cells = (12,) * box.dim
    mesh = monge_ampere(torch.full((2, *cells), 3.7, dtype=F64), cells, box)
    assert float((mesh.corners - box.corners(cells, dtype=F64)).abs().max()) < 1e-12
    assert mesh.iterations.tolist() == [1, 1] and mesh.converged.all()


@pytest.mark.parametrize("name", EXACT)
def test_interpolation_gain_at_equal_nodes(name: str) -> None:
    """48 x 48 nodes, curvature monitor with its defaults, linear interpolation on triangles, 400 x 400 probe."""
    mesh = monge_ampere(curvature_monitor(fields(SQUARE, (48, 48))[name], SQUARE), (47, 47), SQUARE)
    uniform = SQUARE.corners((47, 47), dtype=F64)
    assert mesh.converged.all() and folded(mesh.corners).tolist() == [0]
    gain = interpolation_error(name, uniform) / interpolation_error(name, mesh.corners[0])
    assert gain >= {"bump": 2.0, "front": 3.0, "ring": 3.0}[name]


def interpolation_error(name: str, corners: torch.Tensor) -> float:
    n = len(corners)
    index = np.arange(n * n).reshape(n, n)
    low, right, up, far = index[:-1, :-1], index[1:, :-1], index[:-1, 1:], index[1:, 1:]
    triangles = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((low, right, far), (low, far, up))])
    nodes = corners.reshape(-1, 2)
    mesh = Triangulation(*nodes.numpy().T, triangles)
    probe = SQUARE.centres((400, 400), dtype=F64)
    values = LinearTriInterpolator(mesh, EXACT[name](*nodes.unbind(-1)).numpy())(*probe.numpy().transpose(2, 0, 1))
    assert not np.ma.is_masked(values)  # the mesh covers the box
    return float(np.sqrt(np.mean((values - EXACT[name](*probe.unbind(-1)).numpy()) ** 2)))


def test_a_spherical_shell_in_3d() -> None:
    """No folds, a tenth of the uniform mesh's spread, and trilinear interpolation 1.5 times better."""

    def shell(points: torch.Tensor) -> torch.Tensor:
        return torch.exp(-((((points - 0.5).norm(dim=-1) - 0.25) / 0.05) ** 2))

    cells = (24, 24, 24)
    monitor = curvature_monitor(shell(CUBE.centres(cells, dtype=F64))[None, None], CUBE)
    mesh = monge_ampere(monitor, cells, CUBE)
    both = torch.cat((CUBE.corners(cells, dtype=F64)[None], mesh.corners))
    assert mesh.converged.all() and folded(mesh.corners).tolist() == [0]
    spread = equidistribution_spread(both, monitor.repeat(2, 1, 1, 1), CUBE)
    assert spread[1] < 0.1 * spread[0]
    probe = CUBE.centres((50, 50, 50), dtype=F64)
    values = interpolate(shell(both)[:, None], both, probe[None], CUBE, location="node")[:, 0]
    error = (values - shell(probe)).flatten(1).norm(dim=1)
    assert error[0] / error[1] > 1.5


@pytest.mark.parametrize("name", EXACT)
def test_symmetric_fields_give_symmetric_meshes(name: str) -> None:
    corners = monge_ampere(curvature_monitor(fields(SQUARE, (40, 40))[name], SQUARE), (40, 40), SQUARE).corners
    if name == "front":  # point symmetry
        torch.testing.assert_close(corners, 1 - corners.flip(1, 2), rtol=0, atol=1e-9)
    else:
        torch.testing.assert_close(corners, corners.transpose(1, 2).flip(-1), rtol=0, atol=1e-9)
        for axis in (1, 2):
            mirrored = corners.flip(axis).clone()
            mirrored[..., axis - 1] = 1 - mirrored[..., axis - 1]
            torch.testing.assert_close(corners, mirrored, rtol=0, atol=1e-9)


def test_a_transposed_field_gives_the_transposed_mesh() -> None:
    box = Box((1.0, 2.0), (False, True))
    monitor = curvature_monitor(lopsided((32, 40)), box)
    corners = monge_ampere(monitor, (24, 36), box).corners
    turned = monge_ampere(monitor.mT, (36, 24), Box((2.0, 1.0), (True, False))).corners
    torch.testing.assert_close(turned.transpose(1, 2).flip(-1), corners, rtol=0, atol=1e-9)
    assert float((corners - box.corners((24, 36), dtype=F64)).abs().max()) > 0.05


def test_axes_of_three_dimensions_can_be_exchanged() -> None:
    x = CUBE.centres((12, 12, 12), dtype=F64) - torch.tensor([0.3, 0.5, 0.6], dtype=F64)
    u = torch.exp(-(x * (x + 0.4 * x.roll(1, -1))).sum(-1) / 0.08)[None, None]
    corners = monge_ampere(curvature_monitor(u, CUBE), (10, 11, 12), CUBE).corners
    turned = monge_ampere(curvature_monitor(u.permute(0, 1, 3, 4, 2), CUBE), (11, 12, 10), CUBE).corners
    torch.testing.assert_close(turned.permute(0, 3, 1, 2, 4).roll(1, -1), corners, rtol=0, atol=1e-9)


@pytest.mark.parametrize("periodic", [(True, False), (True, True), (True, False, True)])
def test_on_a_periodic_axis_a_shifted_field_gives_the_shifted_mesh(periodic: tuple[bool, ...]) -> None:
    dim = len(periodic)
    box, cells = Box((1.0, 1.0, 2.0)[:dim], periodic), (24, 16, 12)[:dim]
    x = box.centres(cells, dtype=F64)
    u = torch.exp(-((x - torch.tensor([0.45, 0.3, 0.7][:dim])) ** 2).sum(-1) / 0.03)[None, None]
    monitor = curvature_monitor(u, box)
    uniform = box.corners(cells, dtype=F64)
    first, moved = (monge_ampere(m, cells, box).corners - uniform for m in (monitor, monitor.roll(9, 1)))
    torch.testing.assert_close(first[:, -1], first[:, 0])  # the last corners are the first, a length further
    torch.testing.assert_close(first[:, :-1].roll(9, 1), moved[:, :-1], rtol=0, atol=1e-9)
    assert float(first[:, 0].abs().max()) > 1e-3 and float(first[..., 0].abs().max()) > 0.01


@pytest.mark.parametrize("box", [SQUARE, CUBE])
def test_corners_slide_on_the_walls_exactly(box: Box) -> None:
    m = separable(PEAKS[: box.dim], box.lengths)
    corners = monge_ampere(m, (16,) * box.dim, box).corners
    for axis in range(box.dim):
        assert (corners.select(axis + 1, 0)[..., axis] == 0).all()
        assert (corners.select(axis + 1, -1)[..., axis] == 1).all()
    assert float((corners - box.corners((16,) * box.dim, dtype=F64))[:, 0].abs().max()) > 0.01


def test_a_batch_is_its_samples_and_stops_one_by_one() -> None:
    u = torch.cat([*fields(SQUARE, (32, 32)).values(), torch.ones(1, 1, 32, 32, dtype=F64)])
    monitor = curvature_monitor(u, SQUARE)
    together = monge_ampere(monitor, (32, 32), SQUARE)
    for i in range(4):
        alone = monge_ampere(monitor[i : i + 1], (32, 32), SQUARE)
        torch.testing.assert_close(alone.corners[0], together.corners[i], rtol=0, atol=1e-10)
        assert alone.iterations[0] == together.iterations[i]
    assert together.iterations[3] == 1 < together.iterations[:3].min()
    assert together.iterations.max() <= 30


def test_single_precision_gives_the_same_mesh() -> None:
    monitor = curvature_monitor(lopsided((32, 32)), SQUARE)
    double, single = monge_ampere(monitor, (32, 32), SQUARE), monge_ampere(monitor.float(), (32, 32), SQUARE)
    assert single.corners.dtype == single.potential.dtype == torch.float32
    torch.testing.assert_close(single.corners.double(), double.corners, rtol=0, atol=1e-6)


def test_the_potential_is_that_of_the_mesh_and_a_start() -> None:
    """A second solve from the potential needs one iteration; from that of a similar field fewer than from nothing."""
    monitor = curvature_monitor(lopsided((32, 32)), SQUARE)
    mesh = monge_ampere(monitor, (32, 32), SQUARE)
    psi, moved = mesh.potential, mesh.corners - SQUARE.corners((32, 32), dtype=F64)
    torch.testing.assert_close((psi[:, 2:] - psi[:, :-2]) * 16, moved[:, 1:-1, :, 0])
    again = monge_ampere(monitor, (32, 32), SQUARE, start=psi + 5)
    assert again.iterations.tolist() == [1]
    torch.testing.assert_close(again.corners, mesh.corners)
    similar = monge_ampere(0.99 * monitor + 0.01, (32, 32), SQUARE, start=psi)
    assert int(similar.iterations) < int(mesh.iterations)
    box = Box((1.0, 1.0), (True, True))
    periodic = monge_ampere(monitor, (20, 24), box)
    assert monge_ampere(monitor, (20, 24), box, start=periodic.potential).iterations.tolist() == [1]


def test_a_function_of_points_may_bring_its_own_batch() -> None:
    heights = torch.tensor([0.0, 2.0, 5.0], dtype=F64).reshape(3, 1, 1)

    def monitor(points: torch.Tensor) -> torch.Tensor:
        return 1 + heights.reshape(3, *(1,) * (points.ndim - 2)) * torch.exp(-((points[..., 0] - 0.4) ** 2) / 0.02)

    mesh = monge_ampere(monitor, (24, 24), SQUARE)
    assert mesh.corners.shape == (3, 25, 25, 2) and mesh.iterations[0] == 1
    exact = equidistributed(lambda x: 1 + 5 * torch.exp(-((x - 0.4) ** 2) / 0.02), 24)
    torch.testing.assert_close(mesh.corners[2, :, 7, 0], exact, rtol=0, atol=5e-3)
    assert float(equidistribution_spread(mesh.corners, monitor, SQUARE).max()) < 0.02


def hard() -> torch.Tensor:
    """A front of one cell with nine tenths of the mesh."""
    x = SQUARE.centres((32, 32), dtype=F64)
    return curvature_monitor(torch.tanh((x[..., 0] - 0.5) / 0.03)[None, None], SQUARE, share=0.9)


@pytest.mark.parametrize(("box", "share"), [(SQUARE, 0.8), (CUBE, 0.7)])
def test_large_shares_converge_without_folds(box: Box, share: float) -> None:
    x = box.centres((24,) * box.dim, dtype=F64)
    u = torch.stack([torch.exp(-((((x - c).norm(dim=-1) - 0.2) / 0.08) ** 2)) for c in (0.3, 0.5, 0.6)])[:, None]
    mesh = monge_ampere(curvature_monitor(u, box, share=share), (24,) * box.dim, box)
    assert mesh.converged.all() and not folded(mesh.corners).any()
    assert float(mesh.residual.max()) < 1e-4


def test_not_converged_is_said() -> None:
    with pytest.warns(MeshNotConvergedWarning, match="1 of 1 meshes did not converge in 3 iterations"):
        mesh = monge_ampere(hard(), (32, 32), SQUARE, iterations=3)
    assert not mesh.converged.any() and mesh.residual.isfinite().all()
    with pytest.raises(SolverError, match="Allow more iterations"):
        monge_ampere(hard(), (32, 32), SQUARE, iterations=3, on_failure="raise")
    silent = monge_ampere(hard(), (32, 32), SQUARE, iterations=3, on_failure="ignore")
    assert isinstance(silent, MovedMesh) and silent.iterations.tolist() == [3]


def test_acceleration_solves_a_linear_problem_in_as_many_steps_as_unknowns() -> None:
    """Plain iteration of this map contracts by 0.99 only."""
    rates = torch.tensor([0.99, 0.5, -0.3, 0.1], dtype=F64)
    s, goal = torch.zeros(2, 4, dtype=F64), torch.tensor([[1.0, 2, 3, 4], [4.0, 3, 2, 1]], dtype=F64)
    history = Anderson(depth=5, relax=1.0)
    for _ in range(6):
        s = history.step(s, (rates - 1) * (s - goal))
    torch.testing.assert_close(s, goal)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 2, 4, generator=generator, dtype=F64)
    second *= torch.tensor([[10.0], [0.1]], dtype=F64)
    history = Anderson(depth=5, relax=1.0)
    s = history.step(first, first)
    following = history.step(s, second)
    torch.testing.assert_close(following[0], (s + second)[0])  # its f has grown: a plain step
    assert not torch.allclose(following[1], (s + second)[1])
    plain, s = Anderson(depth=0, relax=0.5), torch.zeros(2, 4, dtype=F64)
    torch.testing.assert_close(plain.step(s, s + 1), s + 0.5)
    mesh = monge_ampere(curvature_monitor(fields(SQUARE, (48, 48))["ring"], SQUARE, share=0.8), (48, 48), SQUARE)
    assert mesh.converged.all() and int(mesh.iterations) <= 50  # 80 without


def test_a_monitor_stays_positive_up_to_the_walls() -> None:
    """Extrapolation from the outermost centres, 1.5 - 0.5 * 10, would be negative at the wall."""
    values = torch.full((1, 16, 16), 10.0, dtype=F64)
    values[:, 0] = 1.0
    masses = mass(SQUARE.corners((64, 16), dtype=F64)[None], values, SQUARE)
    torch.testing.assert_close(masses[:, :2], torch.full((1, 2, 16), 1 / 1024, dtype=F64))
    assert monge_ampere(values, (16, 16), SQUARE).residual.isfinite().all()


def test_bad_monitors_are_refused() -> None:
    good = curvature_monitor(lopsided((16, 16)), SQUARE)
    for value, text in ((torch.nan, "NaN or infinite"), (0.0, "must be positive"), (-1.0, "must be positive")):
        bad = good.clone()
        bad[0, 3, 4] = value
        with pytest.raises(DataError, match=text):
            monge_ampere(bad, (16, 16), SQUARE)
    with pytest.raises(DataError, match="zero everywhere"):
        monge_ampere(0 * good, (16, 16), SQUARE)
    with pytest.raises(DataError, match="2D box"):
        monge_ampere(good[None], (16, 16), SQUARE)
    noise = 0.05 + torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="too rough for its grid of 16 x 16 cells"):
        monge_ampere(noise, (16, 16), SQUARE)
    with pytest.raises(DataError, match="must be positive"):
        monge_ampere(lambda p: p[..., 0] - 0.5, (16, 16), SQUARE)
    with pytest.raises(DataError, match="The monitor gave"):
        monge_ampere(lambda p: p, (16, 16), SQUARE)


def test_wrong_options_are_refused() -> None:
    good = curvature_monitor(lopsided((16, 16)), SQUARE)
    for options, text in (
        ({"iterations": 0}, "iterations=0"),
        ({"tolerance": 0.0}, r"tolerance=0\.0"),
        ({"relax": 1.5}, r"relax=1\.5"),
        ({"on_failure": "cry"}, "on_failure='cry'"),
        ({"start": torch.zeros(1, 16, 16)}, r"\(1, 17, 17\), expected"),
    ):
        with pytest.raises(ConfigError, match=text):
            monge_ampere(good, (16, 16), SQUARE, **options)
    with pytest.raises(DataError, match="begin without it"):
        monge_ampere(good, (16, 16), SQUARE, start=torch.full((1, 17, 17), torch.nan))
    with pytest.raises(ConfigError, match="3 whole numbers"):
        monge_ampere(good, (16, 16), CUBE)


def test_a_ramp_ends_at_the_same_mesh():
    box = Box((1.0, 1.0))
    x, y = box.centres((24, 24), dtype=torch.float64).unbind(-1)
    ring = torch.exp(-(((torch.hypot(x - 0.5, y - 0.5) - 0.25) / 0.05) ** 2))[None, None]
    monitor = curvature_monitor(ring, box, share=0.9, rough="ignore")
    straight = monge_ampere(monitor, (24, 24), box)
    ramped = monge_ampere(monitor, (24, 24), box, ramp=3)
    assert ramped.converged.all() and ramped.iterations[0] < straight.iterations[0]
    assert torch.allclose(straight.corners, ramped.corners, atol=1e-5)
    with pytest.raises(ConfigError, match="ramp=0"):
        monge_ampere(monitor, (24, 24), box, ramp=0)

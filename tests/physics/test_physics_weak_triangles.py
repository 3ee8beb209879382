"""Meshes of triangles, and finite elements on them as test functions."""

import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics.weak import TaylorHood, TriangleMesh, TriangleSpace, channel_mesh, channel_with_disc, stokes_form
from sciml.physics.weak.elements import shape_functions, triangle_quadrature
from sciml.physics.weak.sparse import DenseEnergy, SparseEnergy, SparseMap

SQUARE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
HALVES = torch.tensor([[0, 1, 2], [0, 3, 2]])  # the second is clockwise

SIDES = ["inflow", "outflow", "wall"]


@pytest.fixture(scope="module")
def channel():
    return channel_mesh(0.2)


@pytest.fixture(scope="module")
def disc():
    return channel_with_disc(0.1)


# ------------------------------------------------------------------------------------------------------------- meshes


@pytest.mark.parametrize("h", [0.1, 0.06, 0.04])
def test_mesh_around_a_disc_fills_the_domain_without_slivers(h):
    mesh = channel_with_disc(h)
    corners = len(mesh.boundary_edges["disc"])
    polygon = corners / 2 * 0.1**2 * math.sin(2 * math.pi / corners)
    assert float(mesh.areas.sum()) == pytest.approx(2 - polygon, rel=1e-12)
    assert float(mesh.angles.min()) > 25
    assert float(mesh.areas.min()) > 0
    assert abs(polygon - math.pi * 0.01) < 0.02 * math.pi * 0.01
    on_disc = mesh.vertices[mesh.boundary_nodes("disc", 1)] - torch.tensor([0.5, 0.6])
    assert torch.allclose(on_disc.norm(dim=1), torch.tensor(0.1, dtype=torch.float64))


def test_default_mesh_has_about_as_many_vertices_as_the_published_one():
    mesh = channel_with_disc()
    assert 1650 < len(mesh.vertices) < 1850
    edges = (mesh.vertices[mesh.boundary_edges["disc"]].diff(dim=1)).norm(dim=-1)
    assert 0.012 < float(edges.max()) < 0.015  # a third of 0.04


def test_named_boundaries_are_the_whole_boundary(disc):
    named = torch.cat(list(disc.boundary_edges.values()))
    assert len(named) == int((disc.edge_counts == 1).sum()) == len(named.unique(dim=0))
    for name, axis, value in (("inflow", 0, 0.0), ("outflow", 0, 2.0)):
        nodes = disc.nodes(2)[disc.boundary_nodes(name, 2)]
        assert torch.equal(nodes[:, axis], torch.full_like(nodes[:, axis], value))
        assert len(nodes) == 2 * len(disc.boundary_edges[name]) + 1
    assert int(disc.edge_counts.max()) == 2
    # Euler: one hole
    assert len(disc.vertices) - len(disc.edges) + len(disc.triangles) == 0


def test_triangles_become_anticlockwise():
    mesh = TriangleMesh(SQUARE, HALVES, {"low": lambda x: x[:, 1] == 0})
    assert mesh.areas.tolist() == [0.5, 0.5]
    assert mesh.boundary_edges["low"].tolist() == [[0, 1]]
    assert mesh.boundary_nodes(["low"], 2).tolist() == [0, 1, 4]
    assert mesh.nodes(2)[4].tolist() == [0.5, 0.0]


def test_edge_nodes_of_triangles_lie_on_their_edges(disc):
    nodes = disc.nodes(2)[disc.triangle_nodes(2)]
    corners, middles = nodes.split(3, 1)
    assert torch.allclose(middles, (corners + corners.roll(-1, 1)) / 2, rtol=0, atol=1e-15)


def test_find_gives_the_point_back(disc):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(3000, 2, generator=generator, dtype=torch.float64) * torch.tensor([2.4, 1.4]) - 0.2
    triangles, local = disc.find(points)
    values, _ = shape_functions(1, local)
    found = triangles >= 0
    back = (disc.vertices[disc.triangles[triangles]] * values.unsqueeze(-1)).sum(1)
    assert torch.allclose(back[found], points[found], rtol=0, atol=1e-12)
    in_box = ((points > 0) & (points < torch.tensor([2.0, 1.0]))).all(1)
    r = (points - torch.tensor([0.5, 0.6])).norm(dim=1)
    assert bool(found[in_box & (r > 0.1)].all())
    assert not bool(found[~in_box | (r < 0.095)].any())
    everywhere, _ = disc.find(disc.nodes(2).float())
    assert bool((everywhere >= 0).all())
    assert disc.find(points[:0])[0].shape == (0,)


def test_a_long_triangle_far_from_its_centroid_is_found():
    """Its point is nearer to the centroids of a cluster of small triangles than to its own."""
    n = 12
    x = torch.arange(n + 1, dtype=torch.float64) / n
    fan = torch.stack([x, torch.full_like(x, 0.05)], 1)
    vertices = torch.cat([fan, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.stack([x, x * 0 + 0.06], 1)])
    below = [[n + 1, n + 2, n // 2]]
    strip = [[i, i + 1, n + 3 + i] for i in range(n)]
    mesh = TriangleMesh(vertices, torch.tensor(below + strip))
    triangles, _ = mesh.find(torch.tensor([[0.5, 0.045]]))
    assert triangles.tolist() == [0]


def test_bad_meshes():
    with pytest.raises(DataError, match=r"vertices have shape \(4, 3\)"):
        TriangleMesh(torch.zeros(4, 3), HALVES)
    with pytest.raises(DataError, match=r"finite coordinates"):
        TriangleMesh(SQUARE * math.nan, HALVES)
    with pytest.raises(DataError, match=r"vertex numbers 0 to 4; there are 4"):
        TriangleMesh(SQUARE, HALVES + torch.tensor([0, 1, 2]) * torch.tensor([[0], [1]]).clamp(max=1))
    with pytest.raises(DataError, match=r"triangle 1 has no area"):
        TriangleMesh(SQUARE, torch.tensor([[0, 1, 2], [0, 0, 2]]))
    with pytest.raises(DataError, match=r"three triangles or more"):
        TriangleMesh(torch.cat([SQUARE, torch.tensor([[2.0, 0.5]])]), torch.tensor([[0, 1, 2], [0, 2, 3], [0, 2, 4]]))
    with pytest.raises(ConfigError, match=r"boundary 'hole' has none of the 4 edges"):
        TriangleMesh(SQUARE, HALVES, {"hole": lambda x: x[:, 0] > 5})
    with pytest.raises(ConfigError, match=r"no boundary 'inflo'; did you mean 'inflow'"):
        channel_mesh(0.25).boundary_nodes(["inflo"], 1)
    with pytest.raises(ConfigError, match=r"degree of the elements is 3"):
        channel_mesh(0.25).nodes(3)


@pytest.mark.parametrize("points", [[[2.1, 0.5]], [[0.5, 0.6]], [[1.0, 0.5], [0.5, 1.01]]])
def test_points_outside_are_named(disc, points):
    with pytest.raises(DataError, match=r"1 of \d points lie outside the domain"):
        disc.locate(torch.tensor(points))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"h": 0.0}, r"h is 0\.0"),
        ({"h": 0.3}, r"h is 0\.3"),
        ({"h": 0.1, "centre": (0.5, 0.85)}, r"comes within 0\.05 of a side"),
        ({"h": 0.1, "centre": (0.5, 0.5), "h_disc": 0.2}, r"h_disc is 0\.2"),
        ({"h": 0.1, "centre": (0.5, 0.5), "growth": 0.0}, r"growth 0\.0"),
    ],
)
def test_bad_channels(arguments, message):
    with pytest.raises(ConfigError, match=message):
        channel_mesh(**arguments)


# ----------------------------------------------------------------------------------------------------------- elements


@pytest.mark.parametrize("exact", range(1, 10))
def test_quadrature_is_exact_up_to_its_degree(exact):
    points, weights = triangle_quadrature(exact)
    for a in range(exact + 1):
        for b in range(exact + 1 - a):
            integral = float((weights * points[:, 0] ** a * points[:, 1] ** b).sum())
            truth = math.factorial(a) * math.factorial(b) / math.factorial(a + b + 2)
            assert integral == pytest.approx(truth, rel=1e-12)
    assert float(weights.min()) > 0
    assert float(points.min()) > 0
    assert float(points.sum(1).max()) < 1


def test_bad_quadrature():
    with pytest.raises(ConfigError, match=r"expected a whole number, 1 or more"):
        triangle_quadrature(0)


@pytest.mark.parametrize("degree", [1, 2])
def test_shape_functions_are_nodal_and_their_gradients_those_of_autograd(degree):
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    nodes = corners if degree == 1 else torch.cat([corners, (corners + corners.roll(-1, 0)) / 2])
    values, _ = shape_functions(degree, nodes)
    assert torch.allclose(values, torch.eye(len(nodes), dtype=torch.float64), atol=1e-15)
    local = torch.rand(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, gradients = shape_functions(degree, local)
    jacobian = torch.autograd.functional.jacobian(lambda x: shape_functions(degree, x)[0], local)
    assert torch.allclose(gradients, torch.einsum("qnqk->qnk", jacobian), atol=1e-14)


# -------------------------------------------------------------------------------------------------------------- space


@pytest.mark.parametrize("degree", [1, 2])
def test_interpolation_of_a_polynomial_is_exact(disc, degree):
    space = TriangleSpace(disc, degree, dirichlet=["wall"], dtype=torch.float64)
    x, y = space.nodes.unbind(1)
    p, q = space.points.unbind(1)
    nodal = torch.stack([1 + 2 * x - 3 * y, x * y - y**2 if degree == 2 else x])
    fields = space.interpolate(nodal.unsqueeze(0))
    truth = torch.stack([1 + 2 * p - 3 * q, p * q - q**2 if degree == 2 else p])
    assert torch.allclose(fields.value[0], truth, atol=1e-13)
    slope = torch.stack([q, p - 2 * q] if degree == 2 else [torch.ones_like(p), torch.zeros_like(p)], -1)
    assert torch.allclose(fields.gradient[0, 1], slope, atol=1e-12)
    assert float(space.weights.sum()) == pytest.approx(float(disc.areas.sum()))


@pytest.mark.parametrize("degree", [1, 2])
def test_test_is_the_integral_against_each_function(channel, degree):
    space = TriangleSpace(channel, degree, dirichlet=["inflow"], order=5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    flux = torch.rand(3, len(space.weights), 2, generator=generator, dtype=torch.float64)
    source = torch.rand(3, len(space.weights), generator=generator, dtype=torch.float64)
    functions = space.interpolate(torch.eye(len(space.nodes), dtype=torch.float64)[space.free].unsqueeze(0))
    from_flux = torch.einsum("q,bqd,jqd->bj", space.weights, flux, functions.gradient[0])
    from_source = torch.einsum("q,bq,jq->bj", space.weights, source, functions.value[0])
    assert torch.allclose(space.test(flux, None), from_flux, atol=1e-13)
    assert torch.allclose(space.test(None, source), from_source, atol=1e-13)
    assert torch.allclose(space.test(flux, source), from_flux + from_source, atol=1e-13)
    stiffness = torch.einsum("q,iqd,jqd->ij", space.weights, functions.gradient[0], functions.gradient[0])
    r = torch.rand(4, space.n_tests, generator=generator, dtype=torch.float64)
    solved = torch.linalg.solve(stiffness, r.T).T
    assert torch.allclose(space.dual(r), solved, rtol=1e-9)
    assert torch.allclose(space.dual_square(r), (r * solved).sum(1), rtol=1e-9)


def test_the_elements_solve_poisson_to_their_order():
    """-Laplacian u = f by the space's own residual: r(u) = test(grad u, -f), e = dual(r), u - e is the solution."""

    def error(h: float, degree: int) -> float:
        space = TriangleSpace(channel_mesh(h), degree, dirichlet=SIDES, order=6, dtype=torch.float64)
        x, y = space.points.unbind(1)
        truth = torch.sin(math.pi * x / 2) * torch.sin(math.pi * y)
        load = 1.25 * math.pi**2 * truth
        nodal = torch.zeros(1, 1, len(space.nodes), dtype=torch.float64)
        nodal[0, 0, space.free] = space.dual(space.test(None, load.unsqueeze(0)))[0]
        found = space.interpolate(nodal)
        residual = space.test(found.gradient[:, 0], -load.unsqueeze(0))
        assert float(residual.abs().max()) < 1e-13
        return float((space.weights * (found.value[0, 0] - truth) ** 2).sum().sqrt())

    for degree in (1, 2):
        order = math.log2(error(0.1, degree) / error(0.05, degree))
        assert order == pytest.approx(degree + 1, abs=0.2)


def test_dual_norms_of_sparse_and_dense_agree_with_their_derivatives(channel):
    space = TriangleSpace(channel, 1, dirichlet=["inflow"], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    r = torch.rand(2, space.n_tests, generator=generator, dtype=torch.float64, requires_grad=True)
    sparse = space._energy
    assert isinstance(sparse, SparseEnergy)
    inverse = space.dual(torch.eye(space.n_tests, dtype=torch.float64))
    dense = DenseEnergy(torch.linalg.inv((inverse + inverse.T) / 2), dtype=torch.float64)
    for name in ("dual", "dual_square"):
        assert torch.allclose(getattr(sparse, name)(r), getattr(dense, name)(r), rtol=1e-8)
    small = r[:, :]
    assert torch.autograd.gradcheck(sparse.dual_square, small, fast_mode=True)
    assert torch.autograd.gradgradcheck(sparse.dual_square, small, fast_mode=True)
    assert torch.autograd.gradgradcheck(sparse.dual, small, fast_mode=True)


def test_residuals_are_differentiable(channel):
    space = TriangleSpace(channel, 2, dirichlet=["inflow"], dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    nodal = torch.rand(1, 2, len(space.nodes), generator=generator, dtype=torch.float64, requires_grad=True)

    def residual(nodal):
        fields = space.interpolate(nodal)
        return space.test(fields.value[:, 1, :, None] ** 2 * fields.gradient[:, 0], fields.value[:, 1] ** 3)

    assert torch.autograd.gradcheck(residual, nodal, fast_mode=True)
    assert torch.autograd.gradgradcheck(residual, nodal, fast_mode=True)


def test_single_precision_is_near_double(disc):
    spaces = [TriangleSpace(disc, 2, dirichlet=["wall", "disc"], dtype=kind) for kind in (torch.float32, torch.float64)]
    nodal = torch.rand(2, 1, len(spaces[0].nodes), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    norms = []
    for space in spaces:
        fields = space.interpolate(nodal.to(space.dtype))
        assert fields.value.dtype == space.dtype
        norms.append(space.dual_square(space.test(fields.gradient[:, 0], fields.value[:, 0])).double())
    assert torch.allclose(*norms, rtol=1e-4)


def test_a_sparse_map_and_its_transpose():
    from scipy.sparse import csr_array

    dense = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    each = SparseMap(csr_array(dense.numpy()), dtype=torch.float64)
    x = torch.rand(4, 5, 3, dtype=torch.float64)
    assert torch.allclose(each(x), x @ dense.double().T)
    assert each(x).shape == (4, 5, 2)


def test_bad_spaces(channel):
    with pytest.raises(ConfigError, match=r"0 lie on the Dirichlet boundaries \[\]; expected at least one"):
        TriangleSpace(channel, 1, dirichlet=[])
    with pytest.raises(ConfigError, match=r"degree of the elements is 3"):
        TriangleSpace(channel, 3, dirichlet=["wall"])
    with pytest.raises(ConfigError, match=r"no boundary 'disc'"):
        TriangleSpace(channel, 1, dirichlet=["disc"])
    space = TriangleSpace(channel, 1, dirichlet=["wall"])
    q, n, j = len(space.weights), len(space.nodes), space.n_tests
    with pytest.raises(ConfigError, match=r"neither flux nor source"):
        space.test(None, None)
    with pytest.raises(DataError, match=rf"flux has shape \(2, {q}\); expected \(B, {q}, 2\)"):
        space.test(torch.zeros(2, q), None)
    with pytest.raises(DataError, match=rf"source has shape .* expected \(B, {q}\)"):
        space.test(None, torch.zeros(2, q + 1))
    with pytest.raises(DataError, match=rf"r has shape .* expected \(B, {j}\)"):
        space.dual_square(torch.zeros(2, n))
    with pytest.raises(DataError, match=rf"nodal has shape .* expected \(B, C, {n}\)"):
        space.interpolate(torch.zeros(2, n))


# -------------------------------------------------------------------------------------------------------- Taylor-Hood


def test_taylor_hood_is_the_stokes_form_on_its_spaces(disc):
    """The assembled rows are those of ``stokes_form`` and of int q div u by quadrature."""
    fixed = ["inflow", "wall", "disc"]
    system = TaylorHood(disc, 0.3, dirichlet=fixed, dtype=torch.float64)
    quadratic = TriangleSpace(disc, 2, dirichlet=fixed, dtype=torch.float64)
    linear = TriangleSpace(disc, 1, dirichlet=["disc"], order=4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(6)
    velocity = torch.rand(2, 2, len(system.points), generator=generator, dtype=torch.float64)
    pressure = torch.rand(2, system.n_pressures, generator=generator, dtype=torch.float64)
    momentum, mass = system.residual(velocity, pressure)

    u, p = quadratic.interpolate(velocity), linear.interpolate(pressure.unsqueeze(1))
    fields = type(u)(torch.cat([u.value, p.value], 1), torch.cat([u.gradient, p.gradient], 1))
    assert torch.allclose(0.3 * momentum, stokes_form(quadratic, 0.3).residual(fields), atol=1e-12)
    divergence = u.gradient[:, 0, :, 0] + u.gradient[:, 1, :, 1]
    assert torch.allclose(mass[:, linear.free], linear.test(None, divergence), atol=1e-12)


def test_taylor_hood_norm_bounds_the_energy_of_the_error():
    """(3 -+ sqrt 5) / 2 times the energy of any error: no candidate with a small residual is far off."""
    mesh = channel_with_disc(0.15)
    system = TaylorHood(mesh, 0.01, dtype=torch.float64)
    space = TriangleSpace(mesh, 2, dirichlet=["inflow", "wall", "disc"], dtype=torch.float64)
    n2, n1, free = len(system.points), system.n_pressures, space.free
    eye = torch.eye(2 * len(free) + n1, dtype=torch.float64)
    velocity = torch.zeros(len(eye), 2, n2, dtype=torch.float64)
    velocity[:, :, free] = eye[:, : 2 * len(free)].unflatten(1, (2, -1))
    momentum, mass = system.residual(velocity, 0.01 * eye[:, 2 * len(free) :])  # pressure errors in units of mu
    rows = torch.cat([momentum.flatten(1), -mass], 1)  # errors -> residuals: the Stokes matrix, made symmetric
    assert torch.allclose(rows, rows.T, atol=1e-12)
    k, d = rows[: len(free), : len(free)], rows[: 2 * len(free), 2 * len(free) :]
    kk = torch.block_diag(k, k)
    energy = torch.block_diag(kk, d.T @ torch.linalg.solve(kk, d))

    def square(errors):
        momentum, mass = (errors @ rows).split([2 * len(free), n1], 1)
        norm = system._energy.dual_square(momentum.unflatten(1, (2, -1)).flatten(0, 1)).unflatten(0, (-1, 2)).sum(1)
        return norm + system._schur.dual_square(mass)

    # the largest and the smallest ratio: eigenvalues of rows P^-1 rows^T against P = energy
    values = torch.linalg.eigvals(torch.linalg.solve(energy, rows)).real.square()
    assert float(values.min()) == pytest.approx((3 - math.sqrt(5)) / 2, rel=1e-6)
    assert float(values.max()) == pytest.approx((3 + math.sqrt(5)) / 2, rel=1e-6)
    errors = torch.randn(20, len(eye), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    ratio = square(errors) / (errors @ energy * errors).sum(1)
    assert float(ratio.min()) >= (3 - math.sqrt(5)) / 2 * (1 - 1e-9)
    assert float(ratio.max()) <= (3 + math.sqrt(5)) / 2 * (1 + 1e-9)
    pressure = 0.01 * errors[:, 2 * len(free) :]
    filled = torch.zeros(20, 2, n2, dtype=torch.float64)
    filled[:, :, free] = errors[:, : 2 * len(free)].unflatten(1, (2, -1))
    assert torch.allclose(system.square(filled, pressure), square(errors), rtol=1e-8)


def test_bad_taylor_hood(channel):
    with pytest.raises(ConfigError, match=r"viscosity is 0"):
        TaylorHood(channel, 0, dirichlet=["wall"])
    with pytest.raises(ConfigError, match=r"no node of the velocity is fixed"):
        TaylorHood(channel, 1.0, dirichlet=[])
    system = TaylorHood(channel, 1.0, dirichlet=["wall"])
    with pytest.raises(DataError, match=r"velocity has shape \(1, 3, 4\)"):
        system.residual(torch.zeros(1, 3, 4), torch.zeros(1, system.n_pressures))

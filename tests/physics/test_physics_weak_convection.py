"""The convective term on triangles, and meshes that are finer in the wake of a disc."""

import pytest
import torch

from sciml.errors import ConfigError
from sciml.physics.weak import channel_mesh
from sciml.physics.weak.convection import Convection
from sciml.physics.weak.elements import Elements


@pytest.fixture(scope="module")
def mesh():
    return channel_mesh(0.25, lengths=(2.0, 1.0))


@pytest.fixture(scope="module")
def convection(mesh):
    return Convection(mesh.triangle_nodes(2), mesh.jacobians, len(mesh.nodes(2)))


def quadratic(points):
    """A quadratic flow, which the elements hold exactly, and its gradient ``(n, c, d)``."""
    x, y = points.unbind(-1)
    value = torch.stack([1 + x * y - y**2, 2 * x - x**2 + 3 * y], -1)
    rows = [torch.stack([y, x - 2 * y], -1), torch.stack([2 - 2 * x, torch.full_like(x, 3.0)], -1)]
    return value, torch.stack(rows, -2)


def integral(mesh, values):
    """int v_i f of f ``(T, q, 2)`` by a rule that is exact for the degree 5."""
    elements = Elements(mesh, 2, 5)
    local = torch.einsum("tq,qi,tqc->tic", elements.weights, elements.values, values(elements.points))
    return torch.zeros(elements.n_nodes, 2).double().index_add(0, elements.numbers.flatten(), local.flatten(0, 1))


def test_the_convective_term_is_exact(mesh, convection):
    def term(points):
        value, gradient = quadratic(points)
        return (gradient @ value.unsqueeze(-1)).squeeze(-1)

    found = torch.as_tensor(convection(quadratic(mesh.nodes(2))[0].numpy()))
    assert torch.allclose(found, integral(mesh, term), atol=1e-13)
    assert float(found.abs().max()) > 0.01


def test_a_background_is_taken_off_and_transport_adds_it_again(mesh, convection):
    nodal = quadratic(mesh.nodes(2))[0].numpy()
    background = 0.3 * nodal + 0.5
    carriers = convection.carriers(background)
    whole = convection(nodal, carriers) + convection.transport(carriers, nodal)
    assert torch.allclose(torch.as_tensor(whole), torch.as_tensor(convection(nodal)), atol=1e-13)


def test_local_matrices_are_the_transport(mesh, convection):
    nodal = quadratic(mesh.nodes(2))[0]
    carriers = convection.carriers(0.7 * nodal.numpy() - 0.2)
    numbers = mesh.triangle_nodes(2)
    local = torch.as_tensor(convection.local_matrices(carriers)) @ nodal[numbers]
    total = torch.zeros_like(nodal).index_add(0, numbers.flatten(), local.flatten(0, 1))
    assert torch.allclose(total, torch.as_tensor(convection.transport(carriers, nodal.numpy())), atol=1e-13)


def test_rates_are_those_of_crossing_a_triangle(mesh, convection):
    uniform = torch.tensor([3.0, 0.0]).double().expand(len(mesh.nodes(2)), 2)
    rates = torch.as_tensor(convection.rates(convection.carriers(uniform.numpy())))
    corners = mesh.vertices[mesh.triangles]
    # a barycentric coordinate falls from 1 to 0 over the height of its corner: its slope along x is dy of the far side
    # over twice the area
    across = (corners[:, [1, 2, 0], 1] - corners[:, [2, 0, 1], 1]).abs().amax(1)
    assert torch.allclose(rates, 3 * across / (2 * mesh.areas))


def test_triangles_are_small_in_the_wake_only():
    mesh = channel_mesh(0.3, lengths=(16.0, 8.0), centre=(4.0, 4.0), radius=0.5, h_disc=0.12, wake=1.5)
    fine = channel_mesh(0.3, lengths=(16.0, 8.0), centre=(4.0, 4.0), radius=0.5, h_disc=0.12)
    middle = mesh.vertices[mesh.triangles].mean(1)
    size = (4 * mesh.areas / 3**0.5).sqrt()
    behind = (middle[:, 0] > 6) & ((middle[:, 1] - 4).abs() < 1.2)
    away = ((middle[:, 1] - 4).abs() > 2.5) | (middle[:, 0] < 2)
    assert float(size[behind].mean()) == pytest.approx(0.3, rel=0.1)
    assert float(size[away].mean()) == pytest.approx(0.6, rel=0.1)
    assert len(mesh.triangles) < 0.6 * len(fine.triangles)
    assert float(mesh.areas.sum()) == pytest.approx(float(fine.areas.sum()), rel=1e-3)
    assert float(mesh.angles.min()) > 20
    ends = mesh.boundary_nodes(["inflow"], 1)
    assert float(mesh.vertices[ends, 1].max()) == 8
    for lengths, centre in (((8.0, 3.0), (1.5, 1.2)), ((22.0, 4.1), (2.0, 2.0)), ((10.0, 10.0), (3.0, 6.0))):
        mesh = channel_mesh(0.35, lengths=lengths, centre=centre, radius=0.5, h_disc=0.1, wake=1.5)
        assert float(mesh.angles.min()) > 15
        assert sum(len(edges) for edges in mesh.boundary_edges.values()) == int((mesh.edge_counts == 1).sum())
        area = lengths[0] * lengths[1] - 3.14159 / 4
        assert float(mesh.areas.sum()) == pytest.approx(area, rel=1e-3)


def test_a_wake_needs_a_disc():
    with pytest.raises(ConfigError, match=r"wake is 1\.0 behind a disc at None"):
        channel_mesh(0.2, wake=1.0)
    with pytest.raises(ConfigError, match=r"wake is -1\.0 behind"):
        channel_mesh(0.2, centre=(0.5, 0.5), wake=-1.0)

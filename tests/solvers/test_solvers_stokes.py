"""Stokes flow by Taylor-Hood elements against exact flows, another program, and its own residual."""

import math

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.physics.weak import TaylorHood, TriangleSpace, channel_mesh, channel_with_disc
from sciml.solvers import StokesSolver

PI = math.pi


def profile(points):
    y = points[:, 1]
    return (2 * torch.sin(PI * y) * (1 + torch.sin(1.5 * y) + torch.cos(4 * y))).unsqueeze(0)


def l2(mesh, degree, nodal, truth=lambda x: 0):
    """L2 norm of nodal (C, N) minus a function of points, by a quadrature of degree 8."""
    space = TriangleSpace(mesh, degree, dirichlet=["wall"], order=8, dtype=torch.float64)
    error = space.interpolate(nodal.unsqueeze(0)).value[0] - truth(space.points)
    return (space.weights * error**2).sum(-1).sqrt()


@pytest.fixture(scope="module")
def solver():
    return StokesSolver(channel_with_disc(0.08), 0.01)


@pytest.fixture(scope="module")
def flow(solver):
    return solver.solve(profile)


def test_poiseuille_is_exact():
    solver = StokesSolver(channel_mesh(0.2), 0.3, walls=["wall"])
    velocity, pressure = solver.solve(lambda x: (4 * x[:, 1] * (1 - x[:, 1])).unsqueeze(0))
    y = solver.velocity_points[:, 1]
    assert torch.allclose(velocity[0, 0], 4 * y * (1 - y), atol=1e-13)
    assert float(velocity[0, 1].abs().max()) < 1e-13
    assert torch.allclose(pressure[0, 0], 0.3 * 8 * (2 - solver.pressure_points[:, 0]), atol=1e-12)


def test_orders_three_and_two():
    """psi = g(x) sin^2(pi y) with g' = x (1 - x)^2: no slip, no stress at x = 1; any p that is 0 there, and the force
    that belongs to them."""
    mu = 0.7

    def velocity(x):
        x, y = x.unbind(1)
        g = 1 + x**2 / 2 - 2 / 3 * x**3 + x**4 / 4
        return torch.stack([g * PI * torch.sin(2 * PI * y), -x * (1 - x) ** 2 * torch.sin(PI * y) ** 2])

    def pressure(x):
        x, y = x.unbind(1)
        return ((1 - x) * torch.cos(3 * x) * torch.cos(2 * PI * y)).unsqueeze(0)

    def force(points):
        points = points.clone().requires_grad_()

        def slopes(values):
            return torch.autograd.grad(values.sum(), points, create_graph=True)[0].unbind(1)

        laplacians = []
        for component in velocity(points):
            u_x, u_y = slopes(component)
            laplacians.append(slopes(u_x)[0] + slopes(u_y)[1])
        return (-mu * torch.stack(laplacians) + torch.stack(slopes(pressure(points)))).detach()

    errors = []
    for h in (0.1, 0.05, 0.025):
        mesh = channel_mesh(h, lengths=(1.0, 1.0))
        u, p = StokesSolver(mesh, mu, walls=["wall"]).solve(lambda x: velocity(x)[:1], force)
        errors.append([float(l2(mesh, 2, u[0], velocity).norm()), float(l2(mesh, 1, p[0], pressure))])
    order_u, order_p = (math.log2(errors[0][k] / errors[2][k]) / 2 for k in range(2))
    assert order_u > 2.8
    assert order_p > 1.9
    assert errors[2][0] < 1e-4
    assert errors[2][1] < 1e-3


def test_agrees_with_scikit_fem(solver, flow):
    """Golden numbers of ``tests/golden/stokes_scikit_fem.py``, which says how they are made; 15 digits agree."""
    velocity, pressure = flow
    norms = torch.cat([l2(solver.mesh, 2, velocity[0]), l2(solver.mesh, 1, pressure[0])])
    golden = torch.tensor([2.7603394989980625, 0.43553068258381955, 0.6601539078380824], dtype=torch.float64)
    assert torch.allclose(norms, golden, rtol=1e-10)
    u, p = solver.evaluate(velocity, pressure, torch.tensor([[0.3, 0.5], [0.5, 0.8], [1.2, 0.4]], dtype=torch.float64))
    golden_u = [
        [1.629763381395856, 1.9686767846252358, 2.570436957772688],
        [-0.807062928039872, 0.0006898042474194656, 0.23111616283669026],
    ]
    assert torch.allclose(u[0], torch.tensor(golden_u, dtype=torch.float64), atol=1e-9)
    golden_p = [0.9628484397257028, 0.5801408004781231, 0.16953446733633587]
    assert torch.allclose(p[0, 0], torch.tensor(golden_p, dtype=torch.float64), atol=1e-9)


def test_weak_residual_of_the_solution_is_round_off(solver, flow):
    velocity, pressure = flow
    system = TaylorHood(solver.mesh, solver.viscosity, dtype=torch.float64)
    assert float(system.square(velocity, pressure[:, 0]).sqrt()) < 1e-11
    assert float(system.square(1.001 * velocity, 1.001 * pressure[:, 0]).sqrt()) < 1e-11  # the equation is linear
    bent = velocity.clone()
    bent[0, 0, 300] += 1e-3
    assert float(system.square(bent, pressure[:, 0]).sqrt()) > 1e-4


def test_what_flows_in_flows_out(solver, flow):
    velocity, _ = flow
    edges = {"inflow": [], "outflow": []}
    for name in edges:
        nodes = solver.mesh.boundary_nodes([name], 2)
        order = nodes[solver.velocity_points[nodes, 1].argsort()]
        u, y = velocity[0, 0, order], solver.velocity_points[order, 1]
        edges[name] = float(((y[2::2] - y[:-2:2]) / 6 * (u[:-2:2] + 4 * u[1::2] + u[2::2])).sum())  # Simpson: exact
    assert edges["inflow"] == pytest.approx(edges["outflow"], rel=1e-10)
    assert abs(edges["inflow"]) > 0.1


def test_no_slip_and_the_inflow(solver, flow):
    velocity, _ = flow
    walls = solver.mesh.boundary_nodes(["wall", "disc"], 2)
    assert float(velocity[0, :, walls].abs().max()) == 0
    inflow = solver.mesh.boundary_nodes(["inflow"], 2)
    assert torch.allclose(velocity[0, 0, inflow], profile(solver.inflow_points)[0], atol=1e-14)
    assert float(velocity[0, 1, inflow].abs().max()) == 0


def test_many_inflows_are_each_solved_alone(solver):
    generator = torch.Generator().manual_seed(0)
    inflow = torch.rand(3, len(solver.inflow_points), generator=generator, dtype=torch.float64)
    together = solver.solve(inflow)
    for case in range(3):
        alone = solver.solve(inflow[case : case + 1])
        assert all(torch.allclose(a[case], b[0], atol=1e-12) for a, b in zip(together, alone, strict=True))
    mixed = solver.solve(inflow[:1] + 2 * inflow[1:2])
    assert torch.allclose(mixed[0][0], together[0][0] + 2 * together[0][1], atol=1e-12)


def test_evaluate_at_nodes_gives_the_nodal_values(solver, flow):
    velocity, pressure = flow
    u, p = solver.evaluate(velocity, pressure, solver.pressure_points)
    assert torch.allclose(u, velocity[..., : len(solver.pressure_points)], atol=1e-12)
    assert torch.allclose(p, pressure, atol=1e-12)
    u, _ = solver.evaluate(velocity, pressure, solver.velocity_points.float())
    assert torch.allclose(u, velocity, atol=1e-5)


def test_mesh_twice_as_fine_agrees():
    vertices = channel_with_disc(0.1).vertices
    found = []
    for h in (0.1, 0.06, 0.035):
        solver = StokesSolver(channel_with_disc(h), 0.01)
        found.append(solver.evaluate(*solver.solve(profile), vertices)[0])
    coarse, fine = ((a - found[2]).norm() / found[2].norm() for a in found[:2])
    assert float(coarse) < 0.005
    assert float(fine) < 0.6 * float(coarse)  # a finer mesh cuts less off the disc


def test_bad_input(solver, flow):
    n = len(solver.inflow_points)
    with pytest.raises(ConfigError, match=r"viscosity is 0\.0"):
        StokesSolver(solver.mesh, 0.0)
    with pytest.raises(ConfigError, match=r"no boundary 'cylinder'"):
        StokesSolver(solver.mesh, 1.0, walls=["cylinder"])
    with pytest.raises(ConfigError, match=r"are the whole boundary; leave an outflow"):
        StokesSolver(solver.mesh, 1.0, walls=["wall", "disc", "outflow"])
    with pytest.raises(DataError, match=rf"inflow has shape \(2, 3\); expected \(cases, {n}\)"):
        solver.solve(torch.zeros(2, 3))
    bad = torch.zeros(2, n)
    bad[1, 4] = math.nan
    with pytest.raises(DataError, match=r"inflow of case 1 is not finite"):
        solver.solve(bad)
    with pytest.raises(DataError, match=r"force gives \(1, 4\)"):
        solver.solve(torch.zeros(2, n), lambda x: torch.zeros(1, 4))
    for outside in ([[0.5, 0.6]], [[-0.1, 0.5]], [[1.0, 2.0]]):
        with pytest.raises(DataError, match=r"outside the domain"):
            solver.evaluate(*flow, torch.tensor(outside))
    with pytest.raises(DataError, match=r"expected \(P, 2\)"):
        solver.evaluate(*flow, torch.zeros(3))

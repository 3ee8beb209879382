"""BoundaryValues against a dense projection with rows written down independently, exact fields, and bad input."""

import itertools

import pytest
import torch

from sciml.constraints import impose, residuals
from sciml.constraints.base import Context
from sciml.constraints.boundary_values import BoundaryValues
from sciml.constraints.divergence_free import DivergenceFree
from sciml.errors import ConfigError, DataError
from sciml.physics import (
    Dirichlet,
    Grid,
    Inlet,
    MovingWall,
    Neumann,
    Outlet,
    Periodic,
    Robin,
    Wall,
    box,
    sides,
    stretched_axis,
    uniform_axis,
)

F64 = torch.float64


def by_polynomials(**options):
    """The layer with rows on every component of a velocity too."""
    return BoundaryValues(**{"components": "all", **options})


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def random(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def scalar(grid, conditions):
    return Context(grid, {"u": slice(0, 1)}, {"u": dict(zip(sides(grid.dim), conditions, strict=True))})


def flow(grid, conditions):
    return Context(
        grid, {"velocity": slice(0, grid.dim)}, {"velocity": dict(zip(sides(grid.dim), conditions, strict=True))}
    )


def lengths(dim, batch=2):
    return 0.5 + torch.rand(batch, dim, generator=torch.Generator().manual_seed(3), dtype=F64)


def cavity(shape=(9, 7), batch=2, lid=(3.0, -1.0)):
    return flow(box(shape, lengths(2, batch)), [Wall(), Wall(), Wall(), MovingWall((tensor(*lid), 0.0))])


def mixed(shape=(8, 9), batch=2):
    """Dirichlet, Robin, Neumann and a profile, on boxes of different sizes."""
    profile = 1.0 + 0.1 * random(batch, shape[0])
    conditions = [Dirichlet(1.0), Robin(tensor(1.0, 2.0), tensor(0.5, 0.1), 0.3), Neumann(0.0), Neumann(profile)]
    return scalar(box(shape, lengths(2, batch)), conditions)


# ---------------------------------------------------------------------------------------------- a dense projection


def stencil(grid, axis, end, order, case, a, b, nodes):
    """Weights of a u + b du/dn on all points of a line, from the monomials."""
    coordinates = grid.axes[axis].faces if nodes else grid.axes[axis].centres
    distance = (coordinates if end == 0 else 1 - coordinates.flip(0)) * grid.lengths[case, axis]
    powers = distance[: order + 1] ** torch.arange(order + 1)[:, None]
    wanted = torch.zeros(order + 1, dtype=F64)
    wanted[0], wanted[1] = a, -b
    line = torch.zeros(len(coordinates), dtype=F64)
    line[: order + 1] = torch.linalg.solve(powers, wanted)
    return line if end == 0 else line.flip(0)


def dense(u, grid, sides_of_case, order, left_out, nodes=False):
    """Nearest point of one case and component to ``u (*grid)`` by the pseudo-inverse.

    ``sides_of_case``: (axis, end) -> a, b, value (a number or along the side); ``left_out(axis, end, position)``.
    """
    shape, case = u.shape, sides_of_case["case"]
    rows, values = [], []
    for (axis, end), (a, b, value) in sides_of_case["sides"].items():
        line = stencil(grid, axis, end, order, case, a, b, nodes)
        others = [range(n) for k, n in enumerate(shape) if k != axis]
        for position in itertools.product(*others):
            if left_out(axis, end, position):
                continue
            row = torch.zeros(shape, dtype=F64)
            index = list(position)
            index.insert(axis, slice(None))
            row[tuple(index)] = line
            rows.append(row.flatten())
            values.append(float(value[position] if torch.is_tensor(value) and value.ndim else value))
    rows, values = torch.stack(rows), torch.tensor(values, dtype=F64)
    step = torch.linalg.pinv(rows, rtol=1e-12) @ (values - rows @ u.flatten())
    found = u + step.reshape(shape)
    assert (rows @ found.flatten() - values).abs().max() < 1e-9 * (1 + rows.abs().max())  # the rows do agree
    return found


def nothing(axis, end, position):
    return False


@pytest.mark.parametrize("order", [1, 2])
def test_one_dimension_is_the_dense_projection(order):
    grid = Grid((stretched_axis(9, 1.5),), tensor([2.0], [0.3]))
    a, b, value = tensor(1.0, 0.0), tensor(0.2, 3.0), tensor(-1.0, 5.0)
    context = scalar(grid, [Dirichlet(tensor(4.0, 5.0)), Robin(a, b, value)])
    u = random(2, 1, 9)
    found = by_polynomials(order=order)(u, context)
    for case in range(2):
        given = {(0, 0): (1, 0, [4.0, 5.0][case]), (0, 1): (float(a[case]), float(b[case]), float(value[case]))}
        expected = dense(u[case, 0], grid, {"case": case, "sides": given}, order, nothing)
        torch.testing.assert_close(found[case, 0], expected, rtol=0, atol=1e-12)


def test_walls_in_one_dimension():
    """The velocity of Burgers' equation between walls."""
    context = flow(box((8,), lengths(1)), [Wall(), Wall()])
    found = by_polynomials(order=1)(random(2, 1, 8), context)
    torch.testing.assert_close(3 * found[:, 0, 0], found[:, 0, 1])
    torch.testing.assert_close(3 * found[:, 0, -1], found[:, 0, -2])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("owner", ["x", "y"])
def test_cavity_is_the_dense_projection_without_the_corner_rows_of_the_other_axis(order, owner):
    context = cavity()
    u = random(2, 2, 9, 7)
    found = by_polynomials(order=order, corners=owner)(u, context)
    for case, component in itertools.product(range(2), range(2)):
        lid = (3.0, -1.0)[case] if component == 0 else 0.0
        given = {(0, 0): (1, 0, 0.0), (0, 1): (1, 0, 0.0), (1, 0): (1, 0, 0.0), (1, 1): (1, 0, lid)}

        def left_out(axis, end, position, component=component):
            if component == 1:
                return False  # both are 0: both hold
            if owner == "x":
                return (axis, end) == (1, 1) and position[0] in (0, 8)
            return axis == 0 and position[0] == 6

        expected = dense(u[case, component], context.grid, {"case": case, "sides": given}, order, left_out)
        torch.testing.assert_close(found[case, component], expected, rtol=0, atol=1e-12)


def test_cavity_with_a_gap_is_the_dense_projection_without_the_rows_in_it():
    """In the case whose lid rests nothing disagrees, so every row holds."""
    context = cavity((10, 9), lid=(3.0, 0.0))
    u = random(2, 2, 10, 9)
    found = by_polynomials(gap=4)(u, context)
    for case, component in itertools.product(range(2), range(2)):
        lid = 3.0 if (case, component) == (0, 0) else 0.0
        given = {(0, 0): (1, 0, 0.0), (0, 1): (1, 0, 0.0), (1, 0): (1, 0, 0.0), (1, 1): (1, 0, lid)}

        def left_out(axis, end, position, case=case):
            beside = position[0] >= 5 if axis == 0 else end == 1 and (position[0] < 4 or position[0] >= 6)
            return case == 0 and beside

        expected = dense(u[case, component], context.grid, {"case": case, "sides": given}, 2, left_out)
        torch.testing.assert_close(found[case, component], expected, rtol=0, atol=1e-12)
    assert torch.equal(found[0, :, :4, 6:][:, 3:], u[0, :, :4, 6:][:, 3:])
    assert float(by_polynomials(gap=4).residual(found, context).max()) < 1e-14
    assert float(by_polynomials(corners="x").residual(found, context)[0]) > 1e-2


@pytest.mark.parametrize("options", [{"corners": "x"}, {"corners": "y"}, {"gap": 3}])
def test_tangential_components_only(options):
    """The owner of a corner, whose normal component has no rows, takes the other side's row there all the same."""
    context = cavity((9, 8))
    u = random(2, 2, 9, 8)
    layer = by_polynomials(components="tangential", **options)
    found = layer(u, context)
    for case, component in itertools.product(range(2), range(2)):
        across = 1 - component
        lid = (3.0, -1.0)[case] if component == 0 else 0.0
        given = {(across, 0): (1, 0, 0.0), (across, 1): (1, 0, lid)}

        def left_out(axis, end, position, component=component):
            if "gap" in options:
                return position[0] >= 5 if component == 1 else end == 1 and not 3 <= position[0] < 6
            return component == 0 and end == 1 and options["corners"] == "x" and position[0] in (0, 8)

        expected = dense(u[case, component], context.grid, {"case": case, "sides": given}, 2, left_out)
        torch.testing.assert_close(found[case, component], expected, rtol=0, atol=1e-12)
    assert float(layer.residual(found, context).max()) < 1e-14
    with pytest.raises(ConfigError, match="conflicting values"):
        by_polynomials(components="tangential")(u, context)


def test_tangential_components_in_three_dimensions():
    """Of the component along the lid, the rows of lid and side walls meet on the edges along its own axis."""
    context = flow(box((6, 7, 6), lengths(3, 1)), [*[Wall()] * 5, MovingWall((tensor(2.0), tensor(0.5), 0.0))])
    u = random(1, 3, 6, 7, 6)
    found = by_polynomials(corners="xy", components="tangential")(u, context)
    for component, value in enumerate((2.0, 0.5, 0.0)):
        given = {(k // 2, k % 2): (1, 0, value if k == 5 else 0.0) for k in range(6) if k // 2 != component}

        def left_out(axis, end, position, component=component):
            return component < 2 and (axis, end) == (2, 1) and (position[0] in (0, 5) or position[1] in (0, 6))

        expected = dense(u[0, component], context.grid, {"case": 0, "sides": given}, 2, left_out)
        torch.testing.assert_close(found[0, component], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_tangential_components_hold_together_with_the_divergence(dtype):
    context = cavity((16, 16))
    u = random(2, 2, 16, 16, dtype=dtype)
    both = [DivergenceFree(), by_polynomials(gap=4, components="tangential")]
    found = impose(both, u, context)
    for residual in residuals(both, found, context).values():
        assert float(residual.max()) < (2e-6 if dtype == torch.float32 else 1e-12)


def test_values_derivatives_and_mixed_conditions_at_once_are_the_dense_projection():
    """A value owns the corner against a derivative; Robin meets Neumann with an owner."""
    context = mixed()
    u = random(2, 1, 8, 9)
    found = by_polynomials(corners="x")(u, context)
    conditions = context.boundaries["u"]
    for case in range(2):
        given = {
            (0, 0): (1, 0, 1.0),
            (0, 1): (float(conditions["x_high"].a[case]), float(conditions["x_high"].b[case]), 0.3),
            (1, 0): (0, 1, 0.0),
            (1, 1): (0, 1, conditions["y_high"].value[case]),
        }

        def left_out(axis, end, position):
            return axis == 1 and position[0] in (0, 7)

        expected = dense(u[case, 0], context.grid, {"case": case, "sides": given}, 2, left_out)
        torch.testing.assert_close(found[case, 0], expected, rtol=0, atol=1e-11)


def test_three_dimensions_are_the_dense_projection():
    """A lid that slides between four walls, and a periodic axis in another box."""
    lid = MovingWall((tensor(2.0), tensor(0.5), 0.0))
    context = flow(box((6, 7, 6), lengths(3, 1)), [*[Wall()] * 5, lid])
    u = random(1, 3, 6, 7, 6)
    found = by_polynomials(corners="xy")(u, context)
    for component, value in enumerate((2.0, 0.5, 0.0)):
        given = {(k // 2, k % 2): (1, 0, value if k == 5 else 0.0) for k in range(6)}

        def left_out(axis, end, position, component=component):
            return component < 2 and (axis, end) == (2, 1) and (position[0] in (0, 5) or position[1] in (0, 6))

        expected = dense(u[0, component], context.grid, {"case": 0, "sides": given}, 2, left_out)
        torch.testing.assert_close(found[0, component], expected, rtol=0, atol=1e-11)

    grid = box((6, 4, 6), lengths(3, 1), periodic=(False, True, False))
    profile = random(1, 4, 6)
    context = scalar(grid, [Dirichlet(profile), Dirichlet(0.5), Periodic(), Periodic(), Neumann(), Neumann()])
    u = random(1, 1, 6, 4, 6)
    found = by_polynomials()(u, context)
    given = {(0, 0): (1, 0, profile[0]), (0, 1): (1, 0, 0.5), (2, 0): (0, 1, 0.0), (2, 1): (0, 1, 0.0)}

    def edges(axis, end, position):
        return axis == 2 and position[0] in (0, 5)

    expected = dense(u[0, 0], grid, {"case": 0, "sides": given}, 2, edges)
    torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-11)


def test_nodes_are_the_dense_projection_and_keep_the_bits_of_values():
    grid = box((7, 8), lengths(2, 1))
    profile = random(1, 9)
    context = scalar(grid, [Dirichlet(profile), Neumann(0.7), Robin(1.0, 0.5, 2.0), Dirichlet(profile[:, -1])])
    u = random(1, 1, 8, 9)
    given = {(0, 0): (1, 0, profile[0]), (0, 1): (0, 1, 0.7), (1, 0): (1, 0.5, 2.0), (1, 1): (1, 0, profile[0, -1])}

    def left_out(axis, end, position):
        """Values own corners; Neumann at x_high and Robin at y_low disagree, which corners="x" would settle."""
        return (axis, end, position[0]) in {(0, 1, 8), (1, 0, 0), (1, 0, 7)}

    with pytest.raises(ConfigError, match="conflicting derivatives"):
        by_polynomials(location="nodes")(u, context)
    found = by_polynomials(location="nodes", corners="x")(u, context)
    expected = dense(u[0, 0], grid, {"case": 0, "sides": given}, 2, left_out, nodes=True)
    torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-11)
    assert torch.equal(found[0, 0, 0], profile[0])
    assert torch.equal(found[0, 0, :, -1], profile[0, -1].expand(8))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_ends_of_a_periodic_axis_of_nodes_become_equal(dtype):
    grid = box((7, 8), lengths(2), periodic=(True, False))
    context = scalar(grid, [Periodic(), Periodic(), Dirichlet(0.1), Neumann(tensor(1.0, 2.0))])
    u = random(2, 1, 8, 9, dtype=dtype)
    layer = by_polynomials(location="nodes")
    found = layer(u, context)
    assert torch.equal(found[:, :, 0], found[:, :, -1])
    assert torch.equal(found[..., 0], torch.full_like(found[..., 0], 0.1))
    torch.testing.assert_close(found[:, :, 0, 1:6], (0.5 * (u[:, :, 0] + u[:, :, -1]))[..., 1:6])
    assert float(layer.residual(u, context).min()) > 0.1
    assert float(layer.residual(found, context).max()) < (1e-6 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("owner", ["x", "y"])
def test_the_owner_of_a_corner_keeps_its_bits_at_the_nodes(owner):
    """Also where the other side's value is so much larger that a difference of the two would round."""
    context = scalar(box((7, 7), lengths(2)), [Dirichlet(0.1), Neumann(), Dirichlet(0.1), Dirichlet(1e9)])
    found = by_polynomials(location="nodes", corners=owner)(random(2, 1, 8, 8), context)
    assert bool((found[:, 0, 0, :-1] == 0.1).all())
    assert bool((found[:, 0, 1:, -1] == 1e9).all())
    assert bool((found[:, 0, 0, -1] == (0.1 if owner == "x" else 1e9)).all())


def test_gap_and_outlet_at_the_nodes():
    context = channel(1.0, (9, 9))
    u = random(1, 2, 10, 10)
    found = by_polynomials(location="nodes", gap=3)(u, context)
    assert torch.equal(found[0, 0, 0, 3:-3], torch.ones(4, dtype=F64))
    assert torch.equal(found[0, :, :3, :3], u[0, :, :3, :3])
    assert torch.equal(found[0, :, 3:, 0], torch.zeros(2, 7, dtype=F64))
    torch.testing.assert_close(
        3 * found[..., -1, :] - 4 * found[..., -2, :] + found[..., -3, :], torch.zeros(1, 2, 10, dtype=F64)
    )
    assert float(found[0, 0, -1, 1:-1].abs().min()) > 1e-3  # an outlet prescribes no value


# ------------------------------------------------------------------------------------------------- exact fields


@pytest.mark.parametrize("location", ["cells", "nodes"])
def test_fields_of_second_degree_that_obey_are_left_alone(location):
    """On stretched axes too; every kind of condition, with values that vary along the side."""
    axes = (stretched_axis(8, 1.2), uniform_axis(9))
    grid = Grid(axes, lengths(2))
    points = [axis.faces if location == "nodes" else axis.centres for axis in axes]
    x = (grid.lengths[:, :1] * points[0])[:, :, None]
    y = (grid.lengths[:, 1:] * points[1])[:, None, :]
    lx, ly = grid.lengths[:, :1], grid.lengths[:, 1:]
    u = 1 + 2 * x - y + x * y - 3 * x**2 + 2 * y**2
    low = 1 - y[:, 0] + 2 * y[:, 0] ** 2
    high = 1 + 2 * lx - y[:, 0] + lx * y[:, 0] - 3 * lx**2 + 2 * y[:, 0] ** 2
    slope_high = 2 + y[:, 0] - 6 * lx
    slope_low, slope_top = 1 - x[..., 0], -1 + x[..., 0] + 4 * ly  # du/dn, n pointing outwards
    robin = Robin(tensor(2.0, 3.0), 0.5, tensor(2.0, 3.0)[:, None] * high + 0.5 * slope_high)
    context = scalar(grid, [Dirichlet(low), robin, Neumann(slope_low), Neumann(slope_top)])
    layer = by_polynomials(location=location)
    found = layer(u.unsqueeze(1), context)
    torch.testing.assert_close(found, u.unsqueeze(1), rtol=0, atol=1e-11)
    assert float(layer.residual(u.unsqueeze(1), context).max()) < 1e-13
    assert float(layer.residual(u.unsqueeze(1) + 0.01, context).min()) > 1e-4


def test_residual_is_the_relative_distance_from_the_rows():
    """A uniform field against a side with another value: |u - g| / |w| on one of two sides."""
    grid = box((8,), torch.ones(1, 1))
    u = torch.full((1, 1, 8), 3.0, dtype=F64)
    square = (15**2 + 10**2 + 3**2) / 64
    expected = ((1.0 / square) / 2 / (9 + (9 + 4) / 2 / square)) ** 0.5
    found = by_polynomials().residual(u, scalar(grid, [Dirichlet(3.0), Dirichlet(2.0)]))
    assert found.dtype == F64
    assert float(found) == pytest.approx(expected, rel=1e-12)
    ends = scalar(box((6,), torch.ones(1, 1), periodic=True), [Periodic(), Periodic()])
    v = torch.tensor([[[2.0, 1, 1, 1, 1, 1, 0]]], dtype=F64)
    found = by_polynomials(location="nodes").residual(v, ends)
    assert float(found) == pytest.approx(2**0.5 / (9 / 7) ** 0.5, rel=1e-12)  # both ends are 1 away from their mean
    zero = scalar(grid, [Dirichlet(), Neumann()])
    assert float(by_polynomials().residual(0 * u, zero)) == 0
    assert float(by_polynomials().residual(0 * u, scalar(grid, [Dirichlet(1e-9), Neumann()]))) > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("make", [cavity, mixed])
@pytest.mark.parametrize("order", [1, 2])
def test_holds_to_round_off_and_twice_is_once(make, order, dtype):
    context = make((33, 20))
    channels = next(iter(context.channels.values())).stop
    u = 5 + 10 * random(2, channels, 33, 20, dtype=dtype)
    layer = by_polynomials(order=order, corners="x")
    found = layer(u, context)
    assert found.dtype == dtype
    bound = 1e-6 if dtype == torch.float32 else 1e-13
    assert float(layer.residual(u, context).min()) > 0.05
    assert float(layer.residual(found, context).max()) < bound
    assert float((layer(found, context) - found).abs().max()) < 10 * bound
    inside = (..., slice(order + 1, -order - 1), slice(order + 1, -order - 1))
    assert torch.equal(found[inside], u[inside])


# ------------------------------------------------------------------------------------------------------ profiles


def channel(profile, shape=(10, 9), batch=1):
    grid = box(shape, torch.ones(batch, 2, dtype=F64))
    return flow(grid, [Inlet((profile, 0.0)), Outlet(), Wall(), Wall()])


def test_a_profile_that_ends_at_the_walls_needs_no_owner_and_a_plug_does():
    y = (torch.arange(9, dtype=F64) + 0.5) / 9
    u = random(1, 2, 10, 9)
    for profile in (4 * y * (1 - y), torch.sin(torch.pi * y)):
        context = channel(profile[None])
        found = by_polynomials()(u, context)
        assert float(by_polynomials().residual(found, context)) < 1e-14
        wall = (15 * found[0, 0, 0] - 10 * found[0, 0, 1] + 3 * found[0, 0, 2]) / 8
        torch.testing.assert_close(wall, profile, rtol=0, atol=1e-12)
    for plug in (1.0, tensor(1.0), torch.ones(1, 9, dtype=F64)):
        with pytest.raises(ConfigError, match=r"x_low and y_low .* 'velocity': 1 from x_low and .*0 from y_low"):
            by_polynomials()(u, channel(plug))
        assert (
            float(by_polynomials(corners="x").residual(by_polynomials(corners="x")(u, channel(plug)), channel(plug)))
            < 1e-14
        )


def test_an_inlets_profiles_are_given_at_the_faces():
    """The component along the side at n + 1 faces, as the solver takes it, the normal one at the cells."""
    shape = (8, 7)
    grid = box(shape, torch.ones(1, 2, dtype=F64))
    faces = torch.linspace(0, 1, 8, dtype=F64)
    inlet = Inlet((torch.zeros(1, 7, dtype=F64), (faces * (1 - faces))[None]))
    context = flow(grid, [inlet, Outlet(), Wall(), Wall()])
    expected = (faces * (1 - faces))[:-1] / 2 + (faces * (1 - faces))[1:] / 2
    for options in ({"gap": 3}, {"corners": "y", "components": "tangential"}):
        found = by_polynomials(**options)(random(1, 2, 8, 7), context)
        side = (15 * found[0, 1, 0] - 10 * found[0, 1, 1] + 3 * found[0, 1, 2]) / 8
        torch.testing.assert_close(side, expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------- batches, symmetry, gradients


def test_each_case_is_on_its_own():
    context = mixed()
    u = random(2, 1, 8, 9)
    both = by_polynomials(corners="x")(u, context)
    given = context.boundaries["u"]
    for case in range(2):
        robin, top = given["x_high"], given["y_high"]
        one = slice(case, case + 1)
        alone = scalar(
            Grid(context.grid.axes, context.grid.lengths[one]),
            [Dirichlet(1.0), Robin(robin.a[one], robin.b[one], 0.3), Neumann(0.0), Neumann(top.value[one])],
        )
        torch.testing.assert_close(by_polynomials(corners="x")(u[one], alone), both[one], rtol=0, atol=1e-14)


def test_only_the_named_fields_change():
    grid = box((8, 8), torch.ones(1, 2, dtype=F64))
    zero = dict.fromkeys(sides(2), Dirichlet())
    context = Context(grid, {"a": slice(0, 1), "v": slice(1, 3), "b": slice(3, 4)}, {"a": zero, "b": zero})
    u = random(1, 4, 8, 8)
    found = by_polynomials(fields=["b"])(u, context)
    assert torch.equal(found[:, :3], u[:, :3])
    assert not torch.equal(found[:, 3], u[:, 3])
    both = by_polynomials()(u, context)
    assert torch.equal(both[:, 1:3], u[:, 1:3])
    torch.testing.assert_close(both[:, 3], found[:, 3])
    assert not torch.equal(both[:, 0], u[:, 0])
    assert by_polynomials(fields=["b"]).applies(context.channels)
    assert not by_polynomials(fields=["c"]).applies(context.channels)


@pytest.mark.parametrize("options", [({"corners": "x"}, {"corners": "y"}), ({"gap": 3}, {"gap": 3})])
def test_transposition(options):
    """Transposing field, grid, conditions and the owner transposes the result."""
    context = cavity()
    u = random(2, 2, 9, 7)
    lid = context.boundaries["velocity"]["y_high"].velocity[0]
    turned = flow(box((7, 9), context.grid.lengths.flip(1)), [Wall(), MovingWall((0.0, lid)), Wall(), Wall()])
    expected = by_polynomials(**options[0])(u, context).flip(1).transpose(2, 3)
    found = by_polynomials(**options[1])(u.flip(1).transpose(2, 3), turned)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("location", ["cells", "nodes"])
def test_gradients(location):
    """With respect to the field, the values, the coefficients and the box, once and twice."""
    n = 1 if location == "nodes" else 0

    def run(u, size, value, a, b, slope):
        context = scalar(box((6, 6), size), [Dirichlet(value), Robin(a, b, value), Neumann(slope), Neumann(0.0)])
        return by_polynomials(location=location, corners="x")(u, context).square()

    inputs = (
        random(2, 1, 6 + n, 6 + n),
        lengths(2),
        tensor(1.0, 2.0),
        tensor(1.0, 0.5),
        tensor(0.3, 0.4),
        random(2, 6 + n, seed=5),
    )
    for each in inputs:
        each.requires_grad_()
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("options", [{"corners": "x"}, {"gap": 3}, {"gap": 3, "components": "tangential"}])
def test_gradients_of_a_flow(options):
    grid = box((6, 6), lengths(2))

    def run(u, lid):
        context = flow(grid, [Wall(), Wall(), Wall(), MovingWall((lid, 0.0))])
        return by_polynomials(**options)(u, context).square()

    inputs = (random(2, 2, 6, 6).requires_grad_(), tensor(1.0, 2.0).requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


# ------------------------------------------------------------------------------------------------------- bad input


def refused(context, match, channels=1, error=ConfigError, **options):
    u = random(context.grid.batch, channels, *(n + (options.get("location") == "nodes") for n in context.grid.shape))
    with pytest.raises(error, match=match):
        by_polynomials(**options)(u, context)


def square(*conditions, shape=(8, 8), batch=2, **kwargs):
    return scalar(box(shape, torch.ones(batch, 2, dtype=F64), **kwargs), conditions)


ZERO = [Dirichlet()] * 4


def test_sides_and_kinds_are_checked():
    missing = {"u": dict(zip(sides(2)[:3], ZERO, strict=False))}
    grid = box((8, 8), torch.ones(2, 2))
    refused(Context(grid, {"u": slice(0, 1)}, missing), "lack the side.s. y_high")
    unknown = {"u": dict(zip([*sides(2), "top"], [*ZERO, Dirichlet()], strict=True))}
    refused(Context(grid, {"u": slice(0, 1)}, unknown), "unknown side 'top'")
    refused(square(*[Periodic()] * 2, *ZERO[:2]), "Periodic but that axis of the grid is not periodic")
    refused(square(*ZERO, periodic=True), "Dirichlet but that axis of the grid is periodic")
    refused(square(*ZERO[:3], None), "is a NoneType; expected Dirichlet")
    refused(square(*[Wall()] * 4), r"has 1 component\(s\) on a 2D grid")
    refused(flow(grid, [Wall(), Wall(), Dirichlet(), Wall()]), "is a Dirichlet", channels=2)
    refused(Context(grid, {"u": slice(0, 1)}, {}), "no boundary conditions of u are declared")
    refused(square(*ZERO), "no field 'w'", fields=["w"])


def test_values_are_checked():
    refused(
        square(Dirichlet(torch.zeros(2, 7)), *ZERO[1:]), r"'u' on x_low has shape \(2, 7\); expected a number, \(2,\)"
    )
    refused(square(Dirichlet(torch.zeros(3)), *ZERO[1:]), r"has shape \(3,\)")
    refused(square(Dirichlet(tensor(0.0, float("nan"))), *ZERO[1:]), "not finite in case 1")
    refused(square(Robin(torch.ones(2, 8), 1.0), *ZERO[1:]), "a of the Robin .* must be the same all along the side")
    refused(square(Robin(0.0, 0.0), *ZERO[1:]), "case 0 cancel on the first point")
    refused(square(Robin(tensor(1.0, 1.0), tensor(1.0, -0.1171875)), *ZERO[1:]), "case 1 cancel")
    refused(square(*ZERO, shape=(5, 8)), "x axis has 5 cells; .* order 2 .* at least 6: use a finer grid or order=1")
    by_polynomials(order=1)(random(2, 1, 5, 8), square(*ZERO, shape=(5, 8)))
    grid = box((8, 7), torch.ones(1, 2, dtype=F64))
    inlet = Inlet((torch.zeros(1, 6), 0.0))
    refused(flow(grid, [inlet, Outlet(), Wall(), Wall()]), r"shape \(1, 6\); expected", channels=2)


def test_conflicting_corners_are_refused_with_both_sides_and_values():
    message = r"x_low and y_high claim .* values of 'u': 2 from x_low and 5 from y_high \(case 1, component 0\)"
    context = square(Dirichlet(2.0), Dirichlet(5.0), Neumann(), Dirichlet(tensor(2.0, 5.0)))
    context.boundaries["u"]["x_high"] = Neumann()
    refused(context, message)
    refused(cavity((8, 8)), r"\(corners='x' or corners='y'\), or leave out", channels=2)
    refused(square(Robin(1.0, 1.0, 2.0), Neumann(), Robin(1.0, 1.0, 3.0), Neumann()), "conflicting derivatives")
    by_polynomials()(random(2, 1, 8, 8), square(Neumann(1.0), Neumann(), Dirichlet(0.1), Neumann()))  # a value owns it
    lid = MovingWall((1.0, 0.0, 0.0))
    three = flow(box((6, 6, 6), torch.ones(1, 3, dtype=F64)), [*[Wall()] * 5, lid])
    refused(three, "y_low and z_high", channels=3, corners="x")
    by_polynomials(corners="xy")(random(1, 3, 6, 6, 6), three)


def test_options_and_shapes_are_checked():
    for options, match in [
        ({"order": 3}, "order is 3"),
        ({"location": "faces"}, "unknown location 'faces'"),
        ({"corners": "xx"}, "different axes"),
        ({"corners": "w"}, "different axes"),
        ({"gap": 2}, "expected 0 or at least 3"),
        ({"gap": -1}, "expected 0 or at least 3"),
        ({"components": "tangent"}, "did you mean 'tangential'"),
    ]:
        with pytest.raises(ConfigError, match=match):
            by_polynomials(**options)
    context = square(*ZERO)
    refused(context, "gap is 6 on a grid of 8x8 cells; expected at most 5", gap=6)
    for shape in [(2, 1, 8, 9), (1, 1, 8, 8), (2, 1, 8)]:
        with pytest.raises(DataError, match="the field has shape"):
            by_polynomials()(random(*shape), context)
    with pytest.raises(DataError, match=r"\(2, channels, 9, 9\): the values at the nodes"):
        by_polynomials(location="nodes")(random(2, 1, 8, 8), context)


def test_it_can_be_made_again_from_its_options():
    layer = by_polynomials(fields=("u",), order=1, corners="yx", gap=2)
    assert by_polynomials(**layer.options).options == layer.options
    assert layer.options == {
        "fields": ["u"],
        "order": 1,
        "location": "cells",
        "corners": "yx",
        "gap": 2,
        "components": "all",
    }
    assert BoundaryValues.name == "boundary-values"
    assert BoundaryValues.affine


# ------------------------------------------------------------------------------------ normal velocities at the faces


def duct(shape=(6, 5), batch=2):
    """An inlet with a profile, an outlet, and a wall that slides, on boxes of different sizes."""
    profile = 1.0 + 0.1 * random(batch, shape[1])
    conditions = [Inlet((profile, 0.0)), Inlet((profile.flip(1), 0.0)), Wall(), MovingWall((tensor(1.0, 2.0), 0.0))]
    return flow(box(shape, lengths(2, batch)), conditions)


def dense_normal(u, context, axis, low, high):
    """The nearest component whose faces, marched from the low side, end at the high one: written down line by line."""
    component = u[:, axis].movedim(axis + 1, -1)
    n = component.shape[-1]
    basis = torch.eye(n, dtype=u.dtype)
    ends = []
    for k in range(-1, n):
        face = 0.0 if k >= 0 else 1.0
        for m in range(n):
            face = 2 * (basis[k, m] if k >= 0 else 0.0) - face
        ends.append(float(face))
    start, row = ends[0], tensor(*ends[1:])
    rest = high - low * start - (component * row).sum(-1)
    return (component + row * rest.unsqueeze(-1) / row.square().sum()).movedim(-1, axis + 1)


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (7, 8)])
def test_normal_velocities_are_those_of_marched_faces(shape):
    context, u = duct(shape), random(2, 2, *shape)
    found = BoundaryValues()(u, context)
    profile = context.boundaries["velocity"]["x_low"].velocity[0]
    torch.testing.assert_close(found[:, 0], dense_normal(u, context, 0, profile, profile.flip(1)), rtol=0, atol=1e-13)
    zero = torch.zeros(2, shape[0], dtype=F64)
    torch.testing.assert_close(found[:, 1], dense_normal(u, context, 1, zero, zero), rtol=0, atol=1e-13)
    assert float(BoundaryValues().residual(found, context).max()) < 1e-14 < 1e-2
    assert float(BoundaryValues().residual(u, context).min()) > 1e-2
    torch.testing.assert_close(BoundaryValues()(found, context), found, rtol=0, atol=1e-14)


def test_normal_velocities_turn_with_the_axes():
    context, u = duct(), random(2, 2, 6, 5)
    sides_of = context.boundaries["velocity"]
    turned = {
        "x_low": Wall(),
        "x_high": MovingWall((0.0, tensor(1.0, 2.0))),
        **{f"y_{end}": Inlet((0.0, sides_of[f"x_{end}"].velocity[0])) for end in ("low", "high")},
    }
    other = Context(box((5, 6), context.grid.lengths.flip(1)), context.channels, {"velocity": turned})
    found = BoundaryValues()(u.transpose(2, 3).flip(1), other).flip(1).transpose(2, 3)
    torch.testing.assert_close(found, BoundaryValues()(u, context))


def test_gradients_of_normal_velocities():
    context, u = duct(), random(2, 2, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: BoundaryValues()(u, context), u)
    assert torch.autograd.gradgradcheck(lambda u: BoundaryValues()(u, context).square(), u)
    assert torch.autograd.gradcheck(lambda u: BoundaryValues().residual(u, context), u)


def test_an_outlet_prescribes_no_normal_velocity():
    conditions = [Inlet((1.0, 0.0)), Outlet(), Wall(), Wall()]
    context, u = flow(box((6, 5), lengths(2)), conditions), random(2, 2, 6, 5)
    found = BoundaryValues()(u, context)
    assert torch.equal(found[:, 0], u[:, 0]) and not torch.equal(found[:, 1], u[:, 1])


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_normal_velocities_hold_under_the_divergence(dtype):
    """Velocities of ``DivergenceFree`` obey already, so that both together are that one."""
    context, u = cavity((8, 7)), random(2, 2, 8, 7, dtype=dtype)
    free = DivergenceFree()(u, context)
    tolerance = 1e-13 if dtype == F64 else 1e-6
    assert float(BoundaryValues().residual(free, context).max()) < tolerance
    both = impose([DivergenceFree(), BoundaryValues()], u, context)
    torch.testing.assert_close(both, free, rtol=0, atol=10 * tolerance)


def test_the_solvers_cavity_obeys():
    from sciml.problems import get_problem

    problem = get_problem("cavity")
    sample = problem.sample(2, seed=1, resolution=24)
    made = problem.solve(sample.parameters, 24, [0.0, 2e-3], dtype=F64)["velocity"][:, 1]
    conditions = problem.conditions_on_sides(sample.parameters, (24, 24))
    context = Context(problem.physics_grid(sample.parameters, (24, 24)), {"velocity": slice(0, 2)}, conditions)
    assert float(BoundaryValues().residual(made, context).max()) < 1e-13


def test_normal_velocities_belong_to_cells():
    with pytest.raises(ConfigError, match="'normal' is of velocities at cells"):
        BoundaryValues(components="normal", location="nodes")

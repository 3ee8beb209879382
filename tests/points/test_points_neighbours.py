"""Neighbour search against comparing all with all, by the k-d tree and by the cell list."""

import pytest
import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError
from sciml.points import farthest_points, nearest, propose_radius, radius_pairs, sinkhorn
from sciml.points.cells import cell_pairs, nearest_in_cells

SETS = ("random", "clustered", "duplicate", "collinear", "lattice", "far")


def make(kind: str, n: int, dim: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    if kind == "random":
        x = uniform(n, dim)
    elif kind == "clustered":
        centres = uniform(5, dim)
        x = centres[torch.randint(5, (n,), generator=generator)] + 0.02 * uniform(n, dim) ** 3
    elif kind == "duplicate":
        x = uniform(max(n // 4, 1), dim)[torch.randint(max(n // 4, 1), (n,), generator=generator)]
    elif kind == "collinear":
        x = uniform(n, 1) * torch.linspace(1, 2, dim).double() + 0.3
    elif kind == "lattice":
        side = int(n ** (1 / dim)) + 1
        x = torch.cartesian_prod(*[torch.arange(side)] * dim).reshape(-1, dim)[:n].double() / 8
    else:  # one point has run away
        x = uniform(n, dim) - 5
        x[n // 2] = 3e9
    return x.to(dtype)


def brute_pairs(points, radius, queries=None, batch=None, query_batch=None, include_self=False):
    x = points.double()
    y, scenes = (x, batch) if queries is None else (queries.double(), query_batch)
    near = (y[:, None] - x).square().sum(2) <= radius * radius  # receiver, source
    if batch is not None:
        near &= scenes[:, None] == batch
    if queries is None and not include_self:
        near &= ~torch.eye(len(x), dtype=torch.bool)
    return near.nonzero().T.flip(0)


def assert_both_find(expected, points, radius, queries=None, batch=None, query_batch=None, include_self=False):
    found = radius_pairs(
        points, radius, queries=queries, batch=batch, query_batch=query_batch, include_self=include_self
    )
    assert found.dtype == torch.int64 and torch.equal(found, expected)
    for block in (1 << 22, 97):  # in one go and in many
        cells = cell_pairs(points, radius, queries, batch, query_batch, include_self=include_self, block=block)
        assert cells.dtype == torch.int64 and torch.equal(cells, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", SETS)
def test_pairs_are_those_of_brute_force(kind, dim, dtype):
    x = make(kind, 150, dim, dtype=dtype)
    for radius in (1e-3, 0.05, 0.125, 0.3, 10.0):
        for include_self in (False, True):
            expected = brute_pairs(x, radius, include_self=include_self)
            assert_both_find(expected, x, radius, include_self=include_self)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", SETS)
def test_pairs_of_points_and_queries_of_several_scenes(kind, dim):
    generator = torch.Generator().manual_seed(1)
    x, y = make(kind, 120, dim, seed=2), make("random", 80, dim, seed=3)
    batch = torch.randint(4, (120,), generator=generator).sort().values
    query_batch = torch.randint(5, (80,), generator=generator)  # unsorted, and scene 4 has no points
    for radius in (0.05, 0.125, 0.4, 20.0):
        expected = brute_pairs(x, radius, y, batch, query_batch)
        assert_both_find(expected, x, radius, y, batch, query_batch)
        assert_both_find(brute_pairs(x, radius, batch=batch), x, radius, batch=batch)


def test_a_batch_is_its_scenes_side_by_side():
    scenes = [make("random", n, 2, seed=n) for n in (70, 1, 33)]
    batch = torch.cat([torch.full((len(scene),), k) for k, scene in enumerate(scenes)])
    first = torch.tensor([0, 70, 71])
    alone = torch.cat([radius_pairs(s, 0.2) + f for s, f in zip(scenes, first, strict=True)], 1)
    assert torch.equal(radius_pairs(torch.cat(scenes), 0.2, batch=batch), alone)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_points_at_exactly_the_radius_are_neighbours(dim):
    side = 6
    x = torch.cartesian_prod(*[torch.arange(side)] * dim).reshape(-1, dim).double() / 4
    pairs = dim * (side - 1) * side ** (dim - 1)  # of next neighbours on the lattice
    for spacing in (1.0, 1e-3, 1e5):
        near, far = radius_pairs(x * spacing, spacing / 4), cell_pairs(x * spacing, spacing / 4)
        assert torch.equal(near, far)
    assert radius_pairs(x, 0.25).shape == (2, 2 * pairs)
    assert radius_pairs(x, 0.25 * (1 - 1e-15)).shape == (2, 0)
    assert cell_pairs(x, 0.25 * (1 - 1e-15)).shape == (2, 0)


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e7])
def test_cells_are_wide_enough_for_rounded_coordinates(shift):
    """Points one radius apart along a line, at places where the division by the radius rounds."""
    x = (torch.arange(4000, dtype=torch.float64) * 0.1 + shift)[:, None]
    assert_both_find(radius_pairs(x, 0.1), x, 0.1)
    exact = ((x[1:] - x[:-1]).square() <= 0.1 * 0.1).sum()
    assert radius_pairs(x, 0.1).shape[1] == 2 * int(exact)


@pytest.mark.parametrize(
    ("radius", "far", "near", "other"),
    [
        (0.8614492531773726, -8614492531.773726, 232.58291625976554, 233.4443655129429),
        (0.951070470400988, -9510704704009.88, 434.63671874999983, 435.5877892204008),
    ],
)
def test_cells_are_wide_enough_beside_a_point_that_has_run_away(radius, far, near, other):
    """Two neighbours whose cells, counted from the far point, are two apart if a cell is not wider than the radius."""
    x = torch.tensor([[far], [near], [other]], dtype=torch.float64)
    assert_both_find(torch.tensor([[2, 1], [1, 2]]), x, radius)


def test_the_number_of_cells_may_be_astronomic():
    """Points far apart by 1e12 radii in three dimensions: more cells than int64 can number, but for the gaps."""
    x = torch.cat([make("random", 50, 3, dtype=torch.float64) * 1e-3 + k * 1e12 for k in range(3)])
    expected = brute_pairs(x, 0.5)
    assert expected.shape[1] >= 3 * 50 * 49 * 0.9
    assert_both_find(expected, x, 0.5)


def test_more_cells_than_numbers():
    """2^20 points with a gap after each take 2^21 numbers along each of three axes, even with short gaps."""
    x = (torch.arange(1 << 20, dtype=torch.float64) * 3)[:, None].expand(-1, 3)
    with pytest.raises(DataError, match=r"more cells than can be numbered"):
        cell_pairs(x, 1.0)


def test_no_points_and_no_queries():
    none, some = torch.empty(0, 2), torch.rand(5, 2)
    assert radius_pairs(none, 0.1).shape == (2, 0)
    assert radius_pairs(none, 0.1, include_self=True, batch=torch.empty(0, dtype=torch.int64)).shape == (2, 0)
    assert radius_pairs(none, 0.1, queries=some).shape == radius_pairs(some, 0.1, queries=none).shape == (2, 0)
    assert radius_pairs(some[:1], 0.1).shape == (2, 0)
    assert torch.equal(radius_pairs(some[:1], 0.1, include_self=True), torch.zeros(2, 1, dtype=torch.int64))
    index, distance = nearest(some, none, 3)
    assert index.shape == distance.shape == (0, 3) and index.dtype == torch.int64 and distance.dtype == some.dtype


def check_nearest(index, distance, points, queries, k, batch=None, query_batch=None):
    """Distances are those of brute force; the indices have these distances, and no point comes twice."""
    square = (queries.double()[:, None] - points.double()).square().sum(2)
    if batch is not None:
        square = square.masked_fill(query_batch[:, None] != batch, torch.inf)
    expected = square.topk(k, largest=False).values.sqrt()
    torch.testing.assert_close(distance.double(), expected, rtol=2e-7, atol=0)
    torch.testing.assert_close(square.gather(1, index).sqrt(), expected, rtol=1e-14, atol=0)
    assert (distance.diff(dim=1) >= 0).all()
    assert all(len(row.unique()) == k for row in index)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kind", SETS)
def test_nearest_are_those_of_brute_force(kind, dim):
    x, y = make(kind, 90, dim, seed=4), make("random", 60, dim, seed=5) * 1.5
    batch, query_batch = torch.arange(90) % 2, (torch.arange(60) // 20) % 2
    for k in (1, 7, 45):
        check_nearest(*nearest(x, y, k, batch=batch, query_batch=query_batch), x, y, k, batch, query_batch)
        check_nearest(*nearest(x, y, k), x, y, k)
        index, distance = nearest_in_cells(x, y, k, batch, query_batch, block=50)
        done = index[:, 0] >= 0
        assert (distance[~done] == torch.inf).all() and (index[~done] == -1).all()
        assert bool(done.all()) or kind == "far"
        check_nearest(index[done], distance[done], x, y[done], k, batch, query_batch[done])


def test_nearest_without_ties_are_the_same_by_tree_and_cells():
    x, y = make("random", 3000, 3, seed=6), make("random", 500, 3, seed=7)
    index, distance = nearest(x, y, 12)
    cells = nearest_in_cells(x, y, 12)
    assert torch.equal(cells[0], index)
    torch.testing.assert_close(cells[1].float(), distance, rtol=1e-7, atol=0)


def test_nearest_in_scenes_that_lie_upon_each_other():
    """The farthest point of the same scene is nearer than the one of another scene at the same place."""
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    x, batch = square.repeat(3, 1), torch.arange(3).repeat_interleave(4)
    index, _ = nearest(x, x, 4, batch=batch, query_batch=batch)
    assert (batch[index] == batch[:, None]).all()
    index, _ = nearest_in_cells(x, x, 4, batch, batch)
    assert (batch[index] == batch[:, None]).all()


def test_ties_by_cells_go_by_index():
    index, distance = nearest_in_cells(torch.zeros(6, 2), torch.ones(3, 2), 4)
    assert index.tolist() == [[0, 1, 2, 3]] * 3
    torch.testing.assert_close(distance, torch.full((3, 4), 2.0**0.5, dtype=torch.float64))


def test_queries_in_a_crowd_are_left_to_the_tree():
    """Far from a dense cluster all of it is a candidate; the cell list says so instead of comparing with all."""
    cluster, alone = make("random", 5000, 2, seed=8) * 1e-3, make("random", 200, 2, seed=9) + 2
    index, _ = nearest_in_cells(cluster, alone, 1)
    assert (index == -1).all()
    index, distance = nearest_in_cells(torch.cat([cluster, alone]), torch.cat([cluster, alone]), 3)
    done = index[:, 0] >= 0
    assert done.float().mean() > 0.9
    both = torch.cat([cluster, alone])
    expected = nearest(both, both, 3)
    torch.testing.assert_close(distance[done].float(), expected[1][done])


def test_where_the_cells_do_not_pay_the_tree_answers(monkeypatch):
    """What ``nearest`` does on a device, with a CPU tensor that is sent there."""
    import sciml.points.neighbours as room

    x, y = make("random", 400, 2, seed=10), torch.cat([make("random", 50, 2, seed=11), torch.full((3, 2), 40.0)])
    batch, query_batch = torch.arange(400) % 3, torch.arange(53) % 3
    expected = nearest(x, y, 5, batch=batch, query_batch=query_batch)
    left = []

    def counted(*arguments):
        found = nearest_in_cells(*arguments)
        left.append(int((found[0][:, 0] < 0).sum()))
        return found

    monkeypatch.setattr(room, "nearest_in_cells", counted)
    found = room._nearest_on_device(x, y, 5, batch, query_batch)
    assert torch.equal(found[0], expected[0]) and left[0] >= 0
    monkeypatch.setattr(room, "nearest_in_cells", lambda *a: nearest_in_cells(*a, crowd=2))
    found = room._nearest_on_device(x, y, 5, batch, query_batch)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1].float(), expected[1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_coordinates_that_are_not_finite(bad):
    x = torch.rand(9, 3)
    x[4, 1] = x[7, 0] = bad
    with pytest.raises(DataError, match=r"points: 2 of 9 points .* first is point 4"):
        radius_pairs(x, 0.1)
    with pytest.raises(DataError, match=r"queries: 2 of 9"):
        nearest(torch.rand(9, 3), x, 1)


def test_too_few_points_for_k():
    x = torch.rand(5, 2)
    with pytest.raises(DataError, match=r"6 nearest points are asked for and there are 5"):
        nearest(x, x, 6)
    batch = torch.tensor([0, 0, 0, 1, 1])
    with pytest.raises(DataError, match=r"scene 1 has 2"):
        nearest(x, x, 3, batch=batch, query_batch=batch)
    assert nearest(x, x[:2], 3, batch=batch, query_batch=batch[:2])[0].max() == 2  # no query in the small scene
    with pytest.raises(DataError, match=r"scene 2 has 0"):
        nearest(x, x[:1], 1, batch=batch, query_batch=torch.tensor([2]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: radius_pairs(x, 0.0), r"radius is 0\.0"),
        (lambda x: radius_pairs(x, float("nan")), r"radius is nan"),
        (lambda x: radius_pairs(x[0], 0.1), r"shape \(2,\)"),
        (lambda x: radius_pairs(torch.rand(3, 4), 0.1), r"shape \(3, 4\)"),
        (lambda x: radius_pairs(x.long(), 0.1), r"int64"),
        (lambda x: radius_pairs(x.numpy(), 0.1), r"ndarray"),
        (lambda x: radius_pairs(x, 0.1, queries=torch.rand(3, 3)), r"2 coordinates and queries 3"),
        (lambda x: radius_pairs(x, 0.1, queries=x, include_self=True), r"include_self"),
        (lambda x: radius_pairs(x, 0.1, query_batch=torch.zeros(5).long()), r"without queries"),
        (lambda x: radius_pairs(x, 0.1, queries=x, batch=torch.zeros(5).long()), r"batch is given without query_batch"),
        (lambda x: radius_pairs(x, 0.1, batch=torch.zeros(4).long()), r"batch is torch.int64 \(4,\)"),
        (lambda x: radius_pairs(x, 0.1, batch=torch.zeros(5)), r"batch is torch.float32"),
        (lambda x: radius_pairs(x, 0.1, batch=torch.arange(5) - 1), r"scene number -1"),
        (lambda x: nearest(x, x, 0), r"k is 0"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ConfigError, match=message):
        call(torch.rand(5, 2))


def test_search_is_not_quadratic():
    """100,000 points in a second or so; comparing all with all would take 80 GB."""
    x = make("random", 100_000, 3, seed=12)
    pairs = radius_pairs(x, 0.03)
    assert 1e6 < pairs.shape[1] < 1.2e6
    key = pairs[1] * len(x) + pairs[0]
    assert (key.diff() > 0).all()
    assert torch.equal(cell_pairs(x, 0.03), pairs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("kind", SETS)
def test_the_same_on_a_cuda_device(kind):
    x, y = make(kind, 2000, 3, seed=13), make("random", 500, 3, seed=14)
    batch, query_batch = torch.arange(2000) % 3, torch.arange(500) % 3
    scenes = {"batch": batch, "query_batch": query_batch}
    there = {name: scene.cuda() for name, scene in scenes.items()}
    pairs = radius_pairs(x.cuda(), 0.05)
    assert pairs.is_cuda and torch.equal(pairs.cpu(), radius_pairs(x, 0.05))
    pairs = radius_pairs(x.cuda(), 0.1, queries=y.cuda(), **there)
    assert torch.equal(pairs.cpu(), radius_pairs(x, 0.1, queries=y, **scenes))
    index, distance = nearest(x.cuda(), y.cuda(), 8, **there)
    assert index.is_cuda
    check_nearest(index.cpu(), distance.cpu(), x, y, 8, batch, query_batch)
    if kind == "random":
        assert torch.equal(farthest_points(x.cuda(), 50).cpu(), farthest_points(x, 50))
        assert propose_radius(x.cuda()) == pytest.approx(propose_radius(x))
        assert float(sinkhorn(x.cuda(), y.cuda())) == pytest.approx(float(sinkhorn(x, y)), rel=1e-5)

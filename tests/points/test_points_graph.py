"""Components of a graph, and the radius that connects it."""

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist

from sciml.errors import ConfigError, DataError
from sciml.points import check_graph, components, propose_radius, radius_pairs
from sciml.points.bridges import bridges


def cloud(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts_of(points: torch.Tensor, radius: float, batch: torch.Tensor | None = None) -> int:
    return int(components(len(points), radius_pairs(points, radius, batch=batch)).max()) + 1


def test_components_are_numbered_by_their_first_point():
    pairs = torch.tensor([[1, 4, 6], [3, 0, 3]])
    assert components(7, pairs).tolist() == [0, 1, 2, 1, 0, 3, 1]
    assert components(3, torch.empty((2, 0), dtype=torch.int64)).tolist() == [0, 1, 2]
    assert components(0, torch.empty((2, 0), dtype=torch.int64)).shape == (0,)


def test_components_agree_with_flooding():
    x = cloud(200, 2)
    pairs = radius_pairs(x, 0.06)
    label = torch.arange(200)
    for _ in range(200):  # the smallest index spreads along the pairs
        label = label.scatter_reduce(0, pairs[1], label[pairs[0]], "amin")
    found = components(200, pairs)
    assert len(label.unique()) == int(found.max()) + 1 > 5
    assert torch.equal(label.unique(return_inverse=True)[1], found)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 5, 60])
def test_bridges_are_the_long_edges_of_the_spanning_tree(dim, parts):
    x = cloud(150, dim, seed=parts).numpy()
    edges = np.sort(minimum_spanning_tree(cdist(x, x)).data)
    cut = edges[-parts] if parts > 1 else edges[-1] + 1  # all edges at least as long as this are missing
    labels = components(150, radius_pairs(torch.from_numpy(x), cut * (1 - 1e-9))).numpy()
    missing = edges[edges >= cut]
    np.testing.assert_allclose(bridges(x, labels), missing, rtol=1e-12)
    np.testing.assert_allclose(bridges(x, np.arange(150)), edges, rtol=1e-12)


def test_bridges_of_a_lattice_where_all_are_equal():
    x = np.stack(np.meshgrid(np.arange(7.0), np.arange(7.0)), -1).reshape(-1, 2)
    np.testing.assert_array_equal(bridges(x, np.arange(49)), np.ones(48))


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("degree", [2.0, 6.0, 20.0])
def test_proposed_radius_connects_and_has_the_degree(dim, degree):
    x = cloud(800, dim, seed=dim)
    radius = propose_radius(x, degree=degree)
    edges = minimum_spanning_tree(cdist(x, x)).data
    mean = radius_pairs(x, radius).shape[1] / len(x)
    assert parts_of(x, radius) == 1
    assert mean >= degree * (1 - 1e-3)
    smaller = radius * (1 - 1e-5)
    if radius > edges.max() * 1.00001:  # then it is the degree that decides, and it is met
        assert mean == pytest.approx(degree, rel=0.03)
        assert radius_pairs(x, smaller).shape[1] < radius_pairs(x, radius).shape[1]
    else:
        assert parts_of(x, smaller) == 2


def test_proposed_radius_of_two_bodies():
    x = torch.cat([cloud(400, 2), cloud(400, 2, seed=1) + 5])
    together, apart = propose_radius(x, degree=12), propose_radius(x, degree=12, parts=2)
    assert parts_of(x, together) == 1 and parts_of(x, apart) == 2
    assert together > 4 * 2**0.5 - 0.2 and apart < 0.3
    one = propose_radius(x[:400], degree=12)
    assert apart == pytest.approx(one, rel=0.2)


def test_proposed_radius_of_several_scenes_connects_each():
    scenes = [cloud(300, 2), cloud(80, 2, seed=1), cloud(1, 2)]
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor([300, 80, 1]))
    radius = propose_radius(torch.cat(scenes), degree=6, batch=batch)
    assert radius >= max(np.max(minimum_spanning_tree(cdist(s, s)).data) for s in scenes[:2])
    assert parts_of(torch.cat(scenes), radius, batch) == 3
    shuffled = torch.randperm(381, generator=torch.Generator().manual_seed(0))
    assert propose_radius(torch.cat(scenes)[shuffled], degree=6, batch=batch[shuffled]) == pytest.approx(radius)


def test_one_far_cluster_costs_no_more_than_its_points():
    """All with all at the connecting radius would be 1e10 pairs."""
    x = torch.cat([cloud(30_000, 2), cloud(3000, 2, seed=1) * 1e-3 + 50])
    assert propose_radius(x, degree=10) == pytest.approx(49 * 2**0.5, rel=0.01)
    assert propose_radius(x, degree=10, parts=2) < 0.05


def test_few_points_are_all_joined():
    x = cloud(6, 3)
    assert radius_pairs(x, propose_radius(x, degree=20)).shape[1] == 6 * 5
    two = torch.tensor([[0.0], [2.0]])
    assert propose_radius(two) == pytest.approx(2.0, rel=1e-5)


def test_no_radius_for_points_at_one_place():
    for x in (torch.zeros(5, 2), torch.zeros(1, 2), torch.zeros(0, 2)):
        with pytest.raises(DataError, match=rf"No radius can be proposed for {len(x)} points"):
            propose_radius(x)


def test_a_connected_graph_passes():
    x = cloud(200, 2)
    radius = propose_radius(x)
    check_graph(x, radius_pairs(x, radius), radius)
    check_graph(x[:1], radius_pairs(x[:1], 0.1), 0.1)
    two = torch.cat([x, x + 9])
    check_graph(two, radius_pairs(two, radius), radius, parts=2)
    batch = torch.arange(2).repeat_interleave(200)
    check_graph(two, radius_pairs(two, radius, batch=batch), radius, batch=batch)


def test_a_disconnected_graph_is_refused_and_the_proposal_mends_it():
    x = torch.cat([cloud(100, 2), cloud(40, 2, seed=1) + 2, torch.tensor([[9.0, 9.0]]).double()])
    with pytest.raises(DataError, match=r"The scene has a graph of 3 components .* 0\.3, at most 1") as caught:
        check_graph(x, radius_pairs(x, 0.3), 0.3)
    message = str(caught.value)
    assert "largest has 100 of 141 points, 1 points have no neighbour" in message
    proposed = float(message.split("Use a radius of ")[1].split(",")[0])
    assert parts_of(x, proposed * 1.001) == 1
    with pytest.raises(DataError, match=r"at most 2 expected"):
        check_graph(x, radius_pairs(x, 0.3), 0.3, parts=2)
    check_graph(x, radius_pairs(x, 0.3), 0.3, parts=3)


def test_the_scene_that_falls_apart_is_named():
    x, batch = torch.cat([cloud(50, 2), cloud(50, 2) * 10]), torch.arange(2).repeat_interleave(50)
    with pytest.raises(DataError, match=r"Scene 1 has a graph of"):
        check_graph(x, radius_pairs(x, 0.4, batch=batch), 0.4, batch=batch)


def test_an_empty_scene():
    none = torch.empty(0, 2)
    with pytest.raises(DataError, match=r"The scene is empty"):
        check_graph(none, radius_pairs(none, 0.1), 0.1)
    x, batch = torch.zeros(4, 2), torch.tensor([0, 0, 2, 2])
    with pytest.raises(DataError, match=r"Scene 1 is empty"):
        check_graph(x, radius_pairs(x, 0.1, batch=batch), 0.1, batch=batch)


def test_wrong_arguments():
    with pytest.raises(ConfigError, match=r"expected integers \(2, E\)"):
        components(3, torch.zeros(2, 3))
    with pytest.raises(ConfigError, match=r"points 0 to 3; there are 3"):
        components(3, torch.tensor([[0], [3]]))
    with pytest.raises(ConfigError, match=r"degree is 0"):
        propose_radius(cloud(5, 2), degree=0)
    with pytest.raises(ConfigError, match=r"parts 0"):
        propose_radius(cloud(5, 2), parts=0)

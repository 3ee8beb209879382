"""Farthest-point and random samples."""

import pytest
import torch

from sciml.errors import ConfigError, DataError
from sciml.points import farthest_points, nearest, random_points


def cloud(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_each_is_the_farthest_from_those_before(dim):
    x = cloud(300, dim)
    chosen = farthest_points(x, 40, start=17)
    assert chosen.dtype == torch.int64 and chosen[0] == 17
    for k in range(1, 40):
        distance = (x[:, None] - x[chosen[:k]]).square().sum(2).amin(1)
        torch.testing.assert_close(distance[chosen[k]], distance.max(), rtol=1e-5, atol=0)


def test_fewer_points_are_the_first_of_more():
    x = cloud(500, 3)
    assert torch.equal(farthest_points(x, 100)[:30], farthest_points(x, 30))


def test_cover_is_at_most_twice_the_best():
    """The centres of 4 x 4 squares of 9 points each cover all to sqrt(2), so any greedy choice does to twice that."""
    x = torch.cartesian_prod(torch.arange(12), torch.arange(12)).double()
    for start in (0, 50, 143):
        cover = nearest(x[farthest_points(x, 16, start=start)], x, 1)[1].max()
        assert cover <= 2 * 2**0.5 + 1e-12


def test_spread_is_far_more_even_than_random():
    x = cloud(4000, 2)
    few = x[farthest_points(x, 100)]
    other = x[random_points(4000, 100, torch.Generator().manual_seed(1))]
    assert nearest(few, few, 2)[1][:, 1].min() > 5 * nearest(other, other, 2)[1][:, 1].min()


def test_rotation_and_shift_do_not_change_the_choice():
    x = cloud(400, 2).double()
    turned = torch.stack([-x[:, 1], x[:, 0]], 1) + 3.0
    assert torch.equal(farthest_points(turned, 50), farthest_points(x, 50))


def test_points_at_one_place_are_chosen_once_each():
    x = torch.zeros(6, 2)
    assert farthest_points(x, 6, start=2).sort().values.tolist() == list(range(6))
    x = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert farthest_points(x, 4).tolist() == [0, 2, 1, 3]


def test_random_points_are_sorted_distinct_and_reproducible():
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    first, second = (random_points(50, 20, generator) for generator in generators)
    assert torch.equal(first, second) and (first.diff() > 0).all()
    assert first[0] >= 0 and first[-1] < 50 and first.dtype == torch.int64
    assert not torch.equal(random_points(50, 20, generators[0]), first)
    assert torch.equal(random_points(7, 7, generators[0]), torch.arange(7))


def test_every_point_is_drawn_as_often():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([random_points(10, 3, generator) for _ in range(2000)]).bincount()
    assert (drawn - 600).abs().max() < 5 * 600**0.5


def test_nothing_is_asked_for():
    assert farthest_points(torch.empty(0, 3), 0).shape == random_points(0, 0).shape == (0,)


def test_more_than_there_are():
    with pytest.raises(DataError, match=r"11 points are asked for and there are 10"):
        farthest_points(cloud(10, 2), 11)
    with pytest.raises(DataError, match=r"11 points are asked for and there are 10"):
        random_points(10, 11)
    with pytest.raises(ConfigError, match=r"-1 points"):
        random_points(10, -1)
    with pytest.raises(ConfigError, match=r"start is 10"):
        farthest_points(cloud(10, 2), 3, start=10)
    with pytest.raises(DataError, match=r"not finite"):
        farthest_points(torch.tensor([[0.0], [torch.nan]]), 1)

"""What must not change the outcome, and what must turn it: places, orders, batches, rotations, reflections, boxes."""

import pytest
import torch
from particle_scenes import NAMES, RADIUS, graph, scene, small, together

from sciml.operators.particles.symmetry import signed_permutations, turned, turned_back

BOTH = pytest.mark.parametrize("name", NAMES)
DIMS = pytest.mark.parametrize("dim", [2, 3])


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach(), b.detach()
    assert a.shape == b.shape
    assert a.isfinite().all()
    return float((a - b).abs().max() / a.abs().max())


@BOTH
@DIMS
@pytest.mark.parametrize("boxed", [True, False])
def test_moving_the_scene_changes_nothing(name, dim, boxed):
    operator, arguments = small(name, dim), scene(40, dim)
    if not boxed:
        arguments["bounds"] = None
    shift = torch.tensor([3.7, -1.3, 0.618][:dim], dtype=torch.float64)
    moved = {"position": arguments["position"] + shift}
    if boxed:
        moved["bounds"] = arguments["bounds"] + shift.unsqueeze(1)
    assert differ(operator(graph(arguments)), operator(graph(arguments, **moved))) < 1e-12


@BOTH
@DIMS
def test_the_order_of_particles_and_pairs_does_not_matter(name, dim):
    operator, arguments = small(name, dim), scene(40, dim)
    data = graph(arguments)
    expected = operator(data)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    permuted = {key: arguments[key][order] for key in ("position", "velocity", "kind", "parameters", "fixed")}
    pairs = order.argsort()[data.edge_index]
    pairs = pairs[:, torch.randperm(pairs.shape[1], generator=torch.Generator().manual_seed(2))]
    assert differ(expected[order], operator(graph(arguments | permuted, edge_index=pairs))) < 1e-12


@BOTH
@DIMS
def test_scenes_of_a_batch_do_not_know_one_another(name, dim):
    operator = small(name, dim)
    scenes = [
        scene(40, dim),
        scene(1, dim, seed=1),
        scene(300, dim, seed=2, low=-0.3, high=1.2, gravity=torch.ones(dim, dtype=torch.float64)),
        scene(0, dim, seed=3),
        scene(25, dim, seed=4, bounds=torch.full((dim, 2), float("inf"), dtype=torch.float64) * torch.tensor([-1, 1])),
    ]
    alone = torch.cat([operator(graph(s)) for s in scenes])
    assert differ(alone, operator(together(*scenes))) < 1e-12


@BOTH
@DIMS
def test_symmetry_all_turns_with_every_element(name, dim):
    """An operator without it does not, so the test can fail; gravity turns along as an input."""
    plain, exact = small(name, dim), small(name, dim, symmetry="all")
    arguments = scene(15, dim)
    expected, loose = exact(graph(arguments)), plain(graph(arguments))
    elements = signed_permutations(dim) if dim == 2 else signed_permutations(dim)[5::14]
    for element in elements:
        turned_arguments = turned_scene(arguments, element)
        assert differ(turned(expected, *element), exact(graph(turned_arguments))) < 1e-12
        if element != signed_permutations(dim)[0]:
            assert differ(turned(loose, *element), plain(graph(turned_arguments))) > 1e-3


@BOTH
@DIMS
def test_symmetry_gravity_keeps_what_gravity_allows(name, dim):
    operator = small(name, dim, symmetry="gravity")
    arguments = scene(15, dim)
    expected = operator(graph(arguments))
    for element in signed_permutations(dim):
        turned_arguments = turned_scene(arguments, element)
        error = differ(turned(expected, *element), operator(graph(turned_arguments)))
        if torch.equal(turned_arguments["gravity"], arguments["gravity"]):
            assert error < 1e-12
        else:
            assert error > 1e-3


@BOTH
def test_each_scene_has_the_symmetries_of_its_own_gravity(name):
    operator = small(name, 2, symmetry="gravity")
    sideways = scene(20, 2, seed=1, gravity=torch.tensor([9.81, 0.0], dtype=torch.float64))
    without = scene(20, 2, seed=2, gravity=torch.zeros(2, dtype=torch.float64))
    alone = torch.cat([operator(graph(s)) for s in (scene(20, 2), sideways, without)])
    assert differ(alone, operator(together(scene(20, 2), sideways, without))) < 1e-12
    quarter = ((1, 0), (-1, 1))
    assert differ(turned(operator(graph(without)), *quarter), operator(graph(turned_scene(without, quarter)))) < 1e-12


@DIMS
def test_signed_permutations_are_the_group(dim):
    group = signed_permutations(dim)
    matrices = {tuple(turned(torch.eye(dim), *element).flatten().tolist()) for element in group}
    assert len(matrices) == len(group) == (8 if dim == 2 else 48)
    x = torch.randn(5, dim)
    for element in group:
        assert torch.equal(turned_back(turned(x, *element), *element), x)
        assert torch.allclose(turned(x, *element).norm(dim=1), x.norm(dim=1))


@BOTH
@DIMS
def test_a_larger_box_changes_nothing_when_walls_are_far(name, dim):
    """Neither do the lattice nodes that it would have: 10^18 of them at the last size."""
    operator, arguments = small(name, dim), scene(40, dim)
    arguments["position"] = 0.3 + 0.4 * arguments["position"]
    sizes = [[-RADIUS, 2.0], [-RADIUS, 50.0], [-5 * RADIUS, 2.0], [-4 * RADIUS, 1e6]]
    first, *others = (operator(graph(arguments, bounds=torch.tensor([size] * dim))) for size in sizes)
    for other in others:
        assert differ(first, other) < 1e-12


@BOTH
def test_a_near_wall_is_seen(name):
    operator, arguments = small(name, 2), scene(40, 2)
    far = torch.tensor([[-9.0, 9.0]] * 2, dtype=torch.float64)
    assert differ(operator(graph(arguments)), operator(graph(arguments, bounds=far))) > 1e-3


@DIMS
def test_the_latent_part_is_continuous_where_nodes_come_and_go(dim):
    """A particle moves on in steps of 1e-3 of the radius: no jumps, while the number of nodes changes."""
    operator = small("giorom", dim, n_layers=(0, 0))
    arguments = scene(12, dim)
    data = graph(arguments)
    outcomes, nodes = [], []
    from sciml.operators.particles.lattice import occupied_lattice

    with torch.no_grad():
        for step in range(400):
            data.pos = arguments["position"].clone()
            data.pos[0] = 0.2 + 1e-3 * RADIUS * step * torch.linspace(1, 0.7, dim, dtype=torch.float64)
            outcomes.append(operator(data))
            low = data.bounds[..., 0]
            nodes.append(len(occupied_lattice(data.pos, data.batch, low, operator.spacing, operator.ball).batch))
    steps = torch.stack(outcomes).diff(dim=0).abs().amax((1, 2))
    assert len(set(nodes)) > 1
    assert steps.max() < 20 * steps.median()


def turned_scene(arguments, element):
    axes, signs = element
    ends = arguments["bounds"][list(axes)] * torch.tensor(signs, dtype=torch.float64).unsqueeze(1)
    return arguments | {
        "position": turned(arguments["position"], *element),
        "velocity": turned(arguments["velocity"], *element),
        "gravity": turned(arguments["gravity"], *element),
        "bounds": ends.sort(dim=1).values,
    }

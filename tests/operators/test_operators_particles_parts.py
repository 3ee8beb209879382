"""The parts of the particle operators against plain formulas."""

import pytest
import torch

from sciml.operators.particles.attention import LinearAttention, SceneChunks, relative_places
from sciml.operators.particles.edges import Edges
from sciml.operators.particles.incidence import Incidence, offsets_of
from sciml.operators.particles.interaction import InteractionLayer
from sciml.operators.particles.latent_grid import FADING, KernelIntegral
from sciml.operators.particles.lattice import occupied_lattice


def random_edges(n: int, pairs: int) -> Edges:
    draw = torch.Generator().manual_seed(0)
    return Edges.of(torch.randint(n, (2, pairs), generator=draw), n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_incidence_is_the_product_with_its_matrix(dtype):
    index = torch.tensor([3, 0, 0, 2, 4, 4])
    offsets = torch.tensor([0, 2, 2, 3, 6])
    matrix = torch.zeros(4, 5, dtype=dtype)
    for row in range(4):
        for column in index[offsets[row] : offsets[row + 1]]:
            matrix[row, column] += 1
    incidence = Incidence(index, offsets, 5)
    x = torch.randn(5, 3, dtype=dtype)
    assert torch.allclose(incidence(x), matrix @ x)
    y = torch.randn(4, 3, dtype=dtype)
    assert torch.allclose(incidence.transpose(y), matrix.T @ y)
    assert torch.equal(torch.func.vmap(incidence)(torch.stack((x, x)))[1], incidence(x))


def test_incidence_is_differentiable_twice():
    edges = random_edges(4, 9)
    x = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(edges.both_ends, (x,))
    assert torch.autograd.gradgradcheck(edges.both_ends, (x,))


def test_incidence_of_nothing():
    empty = Incidence(torch.zeros(0, dtype=torch.int64), torch.zeros(4, dtype=torch.int64), 2)
    x = torch.randn(2, 3, requires_grad=True)
    empty(x).sum().backward()
    assert torch.equal(empty(x), torch.zeros(3, 3))
    assert torch.equal(x.grad, torch.zeros(2, 3))
    assert offsets_of(torch.zeros(0, dtype=torch.int64), 2).tolist() == [0, 0, 0]


def test_the_interaction_layer_is_its_formula():
    """With the concatenation that the layer never makes."""
    torch.manual_seed(0)
    layer, edges = InteractionLayer(6).double(), random_edges(10, 30)
    x, e = torch.randn(10, 6, dtype=torch.float64), torch.randn(30, 6, dtype=torch.float64)
    weight = torch.cat((*layer.ends.weight.chunk(2), layer.pair.weight), 1)
    joined = torch.cat((x[edges.source], x[edges.receiver], e), 1)
    messages = layer.message(joined @ weight.T + layer.pair.bias)
    mean = torch.zeros_like(x)
    for particle in range(10):
        if (edges.receiver == particle).any():
            mean[particle] = messages[edges.receiver == particle].mean(0)
    expected = x + layer.update(layer.node(torch.cat((x, mean), 1)))
    found, pairs = layer(x, e, edges)
    assert (found - expected).abs().max() < 1e-13
    assert (pairs - e - messages).abs().max() < 1e-13


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(("spacing", "radius"), [(0.2, 0.3), (0.2, 0.19), (0.15, 0.42)])
def test_the_lattice_equals_brute_force(dim, spacing, radius):
    draw = torch.Generator().manual_seed(0)
    position = 2 * torch.rand(30, dim, generator=draw, dtype=torch.float64) - 0.5
    batch = torch.tensor([0] * 12 + [2] * 18)
    low = torch.tensor([[-0.5] * dim, [0.0] * dim, [-float("inf")] * dim], dtype=torch.float64)
    lattice = occupied_lattice(position, batch, low, spacing, radius)
    origin = low.clone()
    origin[2] = position[batch == 2].amin(0)
    found = set()
    axis = torch.arange(-5, 20, dtype=torch.float64) * spacing
    cube = torch.cartesian_prod(*[axis] * dim)
    for scene in (0, 2):
        nodes = cube + origin[scene]
        particles = (batch == scene).nonzero()[:, 0]
        near = torch.cdist(nodes, position[particles]) < radius
        found |= {(scene, *(nodes[i] * 1e6).round().tolist(), int(particles[j])) for i, j in near.nonzero()}
    pairs = lattice.to_nodes
    given = {
        (int(lattice.batch[node]), *(lattice.position[node] * 1e6).round().tolist(), int(particle))
        for particle, node in zip(pairs.source, pairs.receiver, strict=True)
    }
    assert given == found
    assert len(pairs.source) == len(found)
    assert torch.equal(lattice.batch, lattice.batch.sort().values)
    apart = (position[pairs.source] - lattice.position[pairs.receiver]) / radius
    assert (apart - lattice.apart).abs().max() < 1e-12
    back = lattice.to_particles
    assert torch.equal(back.receiver, pairs.source.sort().values)
    assert torch.equal(pairs.receiver[lattice.order], back.source)


def test_the_kernel_integral_is_its_formula():
    torch.manual_seed(0)
    layer, edges = KernelIntegral(3, 4, 2).double(), random_edges(7, 25)
    f, relative = torch.randn(7, 3, dtype=torch.float64), torch.randn(25, 2, dtype=torch.float64)
    window = torch.rand(25, 1, dtype=torch.float64)
    expected = torch.zeros(7, 4, dtype=torch.float64)
    for point in range(7):
        total = FADING
        for pair in (edges.receiver == point).nonzero()[:, 0]:
            geometry = torch.cat((relative[pair], relative[pair].square().sum(0, keepdim=True)))
            hidden = layer.feature.weight @ f[edges.source[pair]] + layer.relative(geometry)
            expected[point] += window[pair] * torch.nn.functional.gelu(hidden)
            total = total + window[pair]
        expected[point] /= total
    assert (layer(f, edges, relative, window) - layer.out(expected)).abs().max() < 1e-13


@pytest.mark.parametrize("counts", [(5, 0, 3), (600, 2), (0, 7, 300, 1)])
def test_chunks_lie_in_one_scene_and_waste_little(counts):
    batch = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    chunks = SceneChunks(batch, len(counts))
    x = torch.arange(1.0, len(batch) + 1).unsqueeze(1)
    split = chunks.split(x)
    assert torch.equal(chunks.join(split), x)
    assert split.numel() < len(batch) + len(counts) * chunks.size
    sums = chunks.total(split.sum(1))
    for chunk, scene in enumerate(chunks.scene.tolist()):
        assert sums[chunk] == x[batch == scene].sum()


def test_attention_is_its_formula_in_each_scene():
    torch.manual_seed(0)
    layer = LinearAttention(6, 2).double()
    batch = torch.tensor([0] * 5 + [2] * 300)
    x, y = torch.randn(2, 305, 6, dtype=torch.float64)
    weight = torch.rand(305, 1, dtype=torch.float64)
    found = layer(x, y, weight, SceneChunks(batch, 3))
    for scene in (0, 2):
        rows = batch == scene
        heads = []
        for head in (slice(0, 3), slice(3, 6)):
            query = layer.query(x[rows])[:, head].softmax(1)
            key = layer.key_value(y[rows])[:, :6][:, head].softmax(1)
            value = layer.key_value(y[rows])[:, 6:][:, head]
            scores = (query @ key.T) * weight[rows].T
            heads.append(query + scores @ value / scores.sum(1, keepdim=True))
        assert (found[rows] - layer.out(torch.cat(heads, 1))).abs().max() < 1e-12


def test_places_are_relative_to_the_scene():
    batch = torch.tensor([0, 0, 0, 1, 3, 3])
    position = torch.tensor([[0.0, 0], [1, 0], [5, 5], [7, 7], [1e6, 0], [1e6, 2]], dtype=torch.float64)
    weight = torch.tensor([[1.0], [1], [0], [1], [1], [1]], dtype=torch.float64)
    places = relative_places(position, weight, batch, 4, 1e-9)
    expected = torch.tensor([[-1.0, 0], [1, 0], [9, 10], [0, 0], [0, -1], [0, 1]], dtype=torch.float64)
    assert (places - expected).abs().max() < 1e-8

"""Subtasks of one sample on several processes: outputs and gradients are those of one process."""

import pytest
import torch
import torch.distributed as dist
from gloo_ranks import Ranks

from sciml.errors import ConfigError
from sciml.operators import NeuralStagger
from sciml.training.parallel import World

EXACT = 1e-12
FOURIER = {"hidden_channels": 4, "n_layers": 2, "n_modes": (3, 3)}
POSEIDON = {
    "image_size": 8,
    "patch_size": 2,
    "embed_dim": 4,
    "depths": (1, 1),
    "num_heads": (1, 2),
    "skip_connections": (1, 0),
    "window_size": 2,
    "residual_model": "resnet",
}


@pytest.fixture(scope="module")
def ranks():
    pool = Ranks()
    yield pool
    pool.close()


def stagger(spatial=(2, 2), mode="independent", **changes):
    torch.manual_seed(0)
    values = {"n_parameters": 2, "options": FOURIER, "operator": "fno", **changes}
    return NeuralStagger(in_channels=1, out_channels=2, spatial=spatial, mode=mode, **values).double()


def computed(here, size, spatial, temporal):
    """Two steps, the second of what the first made, and the gradients of weights, input and parameters."""
    group = None
    if here is not None:
        members = dist.new_group(list(range(size)))  # every process makes it, members or not
        group = members if here.rank < size else None
    operator = stagger(spatial, temporal=temporal)
    operator.expert_group = group
    torch.manual_seed(1)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    parameters = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    first = operator(x, parameters=parameters)
    second = operator(first[:, -1:], parameters=parameters)
    loss = (second * torch.linspace(-1, 1, 64, dtype=torch.float64).view(8, 8)).sum() + first.square().mean()
    loss.backward()
    gradients = [p.grad for p in (x, parameters, *operator.parameters())]
    return [t.detach() for t in (first, second, *gradients)]


@pytest.mark.parametrize(
    "size, spatial, temporal", [(2, (2, 2), 1), (3, (2, 2), 1), (3, (1, 3), 1), (4, (2, 1), 3), (3, (2, 2), 2)]
)
def test_outputs_and_gradients_are_those_of_one_process(ranks, size, spatial, temporal):
    wanted = computed(None, 1, spatial, temporal)
    for result in ranks(computed, size, spatial, temporal):
        if isinstance(result, Exception):
            raise result
        for found, expected in zip(result, wanted, strict=True):
            assert found.shape == expected.shape
            assert (found - expected).abs().max() <= EXACT * expected.abs().max()


def shares(here):
    """The number of networks that each call to vmap has."""
    from sciml.operators.neuralstagger import stacked_networks

    counts = []
    plain = stacked_networks.run_networks

    def counted(network, tensors, x, *rest):
        counts.append((x.shape[0], {tensor.shape[0] for tensor in tensors.values()}))
        return plain(network, tensors, x, *rest)

    stacked_networks.run_networks = counted
    try:
        operator = stagger((5, 1), n_parameters=0)
        operator.expert_group = dist.group.WORLD
        operator(torch.randn(1, 1, 10, 4, dtype=torch.float64))
    finally:
        stacked_networks.run_networks = plain
    return counts


def test_each_process_runs_its_share_only(ranks):
    assert ranks(shares) == [[(2, {2})], [(1, {1})], [(1, {1})], [(1, {1})]]


def trained(here):
    """Gradients after a backward pass on four samples, on a mesh of 2 x 2 or alone."""
    here = here or World(0, 1, torch.device("cpu"))
    operator = stagger(temporal=2, n_parameters=0)
    step = here.wrap(operator)
    torch.manual_seed(1)
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)[here.data_rank :: here.data_size]
    with here.spreading_experts(operator):
        assert (operator.expert_group is None) == (here.mesh is None)
        step(x).square().mean().backward()
    assert operator.expert_group is None
    return [p.grad for p in operator.parameters()]


def test_gradients_on_a_mesh_are_those_of_one_process(ranks):
    wanted = trained(None)
    for result in ranks(trained):
        if isinstance(result, Exception):
            raise result
        for found, expected in zip(result, wanted, strict=True):
            assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


def refused(here, what):
    if what == "mode":
        with here.spreading_experts(stagger(mode="stacked")):
            return
    if what == "statistics":
        operator = stagger(operator="poseidon", options=POSEIDON, n_parameters=0)
    else:
        operator = stagger((3, 1), n_parameters=0)
    operator.expert_group = dist.group.WORLD
    operator(torch.randn(1, 1, 12, 8, dtype=torch.float64))


@pytest.mark.parametrize(
    "what, message",
    [
        ("few", "4 ranks share the subtasks of a sample, but there are only 3"),
        ("statistics", "keeps running statistics"),
        ("mode", "the operator neuralstagger with mode independent another"),
    ],
)
def test_what_cannot_be_spread_is_refused_on_every_process(ranks, what, message):
    for error in ranks(refused, what):
        assert isinstance(error, ConfigError) and message in str(error), error

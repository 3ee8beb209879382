"""Many networks of one kind with weights of their own, run as one by ``torch.func``: no loop over them.

``stack_networks`` makes one module whose parameters have a leading axis that counts the networks. It cannot be called
itself; ``run_networks`` can, on any share of them. The names of its tensors, and what it says of its parameters
(``parameter_groups``), are those of one network.
"""

import functools
from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.func import functional_call, vmap

from sciml.collectives import Group, gather, own_share, shared, size_of, spread
from sciml.errors import ConfigError
from sciml.operators.inner_operator import call

Tensors = dict[str, Tensor]


def stack_networks(make: Callable[[], nn.Module], count: int) -> nn.Module:
    """``count`` networks, each made by ``make()``, as one module with tensors ``(count, *shape)``."""
    network = make()
    first = tensors_of(network)
    stacked = {name: tensor.detach().new_empty(count, *tensor.shape) for name, tensor in first.items()}
    for index in range(count):
        made = first if index == 0 else tensors_of(make())
        for name, tensor in made.items():
            stacked[name][index] = tensor.detach()
    for name, tensor in first.items():
        value = stacked[name]
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        for owner in network.modules():  # a weight that two modules share has two places
            for leaf, held in [*owner._parameters.items(), *owner._buffers.items()]:
                if held is tensor:
                    setattr(owner, leaf, value)
    return network


def tensors_of(network: nn.Module) -> Tensors:
    """Parameters and buffers by name."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def run_networks(
    network: nn.Module, tensors: Tensors, x: Tensor, conditions: Mapping[str, Tensor], gives: int
) -> Tensor:
    """``network`` with the weights ``tensors[name][i]`` on ``x[i]``, for all i.

    Args:
        network: what ``stack_networks`` returned.
        tensors: for each name ``(n, *shape)``.
        x: ``(n, B, C, *grid)``.
        conditions: the same ``time (B,)`` and ``parameters (B, P)`` for all.
        gives: channels of each network's output.

    Returns ``(n, B, gives, *grid)``.
    """

    def one(own: Tensors, field: Tensor) -> Tensor:
        return call("neuralstagger", functools.partial(_with_weights, network, own), field, conditions, gives)

    if x.shape[0] == 1:  # not transformed: the faster of its layers are there for this only
        return one({name: tensor[0] for name, tensor in tensors.items()}, x[0]).unsqueeze(0)
    return vmap(one, randomness="different")(tensors, x)


def _with_weights(network: nn.Module, own: Tensors, x: Tensor, **conditions: Tensor) -> Tensor:
    return functional_call(network, own, (x,), conditions)


def run_on_ranks(network: nn.Module, x: Tensor, conditions: Mapping[str, Tensor], gives: int, group: Group) -> Tensor:
    """``run_networks`` of all, each rank of the group its share of them.

    Outputs and gradients are those of one process.

    Raises:
        ConfigError: fewer networks than ranks, or networks that keep running statistics, which the ranks would not
            share.
    """
    tensors, count = tensors_of(network), x.shape[0]
    if size_of(group) == 1:
        return run_networks(network, tensors, x, conditions, gives)
    own_share(count, group, noun="subtasks")
    if network.training and any(getattr(module, "running_mean", None) is not None for module in network.modules()):
        raise ConfigError(
            "neuralstagger: the sub-operator keeps running statistics (batch norm), which ranks that share the "
            "subtasks would each keep for their own; train it with parallel.expert=1, or choose another norm"
        )
    own = {name: spread(tensor, 0, group) for name, tensor in tensors.items()}
    told = {name: shared(value, group) for name, value in conditions.items()}
    return gather(run_networks(network, own, spread(x, 0, group), told, gives).contiguous(), 0, count, group)

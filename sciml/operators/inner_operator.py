"""An operator inside another one: found by name or class, or made by a function of the user's own."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sciml.errors import ConfigError, did_you_mean
from sciml.operators.base import Operator

Factory: TypeAlias = str | type[Operator] | Callable[..., nn.Module]

DECIDED = ("in_channels", "out_channels", "n_parameters", "time_conditioning")
"""Arguments that follow from the ones of the whole operator."""


def grid_operator(
    owner: str, operator: Factory, dim: int, refused: Mapping[str, str]
) -> type[Operator] | Callable[..., nn.Module]:
    """The class or function that makes the networks, found by its name where that was given.

    Args:
        owner: name of the operator that it will be inside of, for messages.
        refused: registered operators that cannot be inside, and why.

    Raises:
        ConfigError: no operator of that name, one of particles, one that cannot be inside or does not exist in ``dim``
            dimensions, or nothing that can be called.
    """
    from sciml.operators import OPERATORS, PARTICLE_OPERATORS  # the registry imports this module

    allowed = {name: found for name, found in OPERATORS.items() if name not in refused}
    if isinstance(operator, str):
        if operator in PARTICLE_OPERATORS:
            raise ConfigError(
                f"{owner}: {operator!r} steps particles, which have no grid to split or move; expected one of "
                f"{', '.join(sorted(allowed))}"
            )
        operator = OPERATORS.get(operator, operator)
        if isinstance(operator, str):
            raise ConfigError(f"{owner}: unknown operator {operator!r}{did_you_mean(operator, allowed)}")
    if not callable(operator) or (isinstance(operator, type) and not issubclass(operator, nn.Module)):
        raise ConfigError(
            f"{owner}: operator is {operator!r}; expected the name or class of a grid operator "
            f"({', '.join(sorted(allowed))}), or a function (in_channels, out_channels, **options) that makes a module"
        )
    if is_operator(operator):
        if operator.name in refused:
            raise ConfigError(f"{owner}: {operator.name} cannot be its sub-operator: {refused[operator.name]}")
        if dim not in operator.dims:
            raise ConfigError(
                f"{owner}: {operator.name} exists in {' and '.join(f'{d}D' for d in operator.dims)} only, and the "
                f"grid has {dim} axes; choose another operator"
            )
    return operator


def is_operator(made_by: Callable[..., nn.Module]) -> bool:
    """Whether it is a class of grid operators, the package's or a user's."""
    return isinstance(made_by, type) and issubclass(made_by, Operator)


def registered_name(made_by: Callable[..., nn.Module]) -> str | None:
    """The name that ``from_pretrained`` finds it by; None for a factory of the user's own."""
    from sciml.operators import OPERATORS  # the registry imports this module

    name = getattr(made_by, "name", None)
    return name if isinstance(name, str) and OPERATORS.get(name) is made_by else None


def name_to_record(made_by: Callable[..., nn.Module], given: Factory) -> str:
    """What the configuration says of it: its registered name, or that of the function."""
    return registered_name(made_by) or getattr(given, "__qualname__", repr(given))


def check_saveable(owner: str, made_by: Callable[..., nn.Module], recorded: str) -> None:
    """Raises ``ConfigError`` for a function or class that is not registered."""
    if registered_name(made_by) is None:
        raise ConfigError(
            f"{owner}: the sub-operator is made by {recorded}, which from_pretrained could not find again; save its "
            "state_dict() and build it anew, or use a registered operator"
        )


def as_json(owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON gives them back. Raises ``ConfigError`` for what cannot be written."""
    try:
        return json.loads(json.dumps(options))
    except TypeError as error:
        raise ConfigError(f"{owner}: an option cannot be written as JSON: {error}") from error


def completed(
    owner: str,
    made_by: Callable[..., nn.Module],
    options: Mapping[str, Any],
    *,
    dim: int,
    periodic: bool,
    defaults: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """The options of a network: those given, before ``defaults`` of its name, before its own ``options_for``.

    Raises:
        ConfigError: an option is one that the whole operator decides.
    """
    for key in DECIDED:
        if key in options:
            raise ConfigError(
                f"{owner}: options has {key!r}, which follows from the arguments of the whole operator; leave it "
                "out there"
            )
    if not is_operator(made_by):
        return dict(options)
    return {**made_by.options_for(dim, periodic), **defaults.get(made_by.name, {}), **options}


def sees_position(made_by: Callable[..., nn.Module], options: Mapping[str, Any]) -> bool:
    """Whether the network appends the coordinates of the cells to its input."""
    if "coordinates" in options:
        return bool(options["coordinates"])
    if not is_operator(made_by):
        return False
    argument = inspect.signature(made_by.__init__).parameters.get("coordinates")
    return argument is not None and argument.default is True


def make_network(
    owner: str,
    made_by: Callable[..., nn.Module],
    in_channels: int,
    out_channels: int,
    options: Mapping[str, Any],
    *,
    dim: int,
    n_parameters: int,
    time_conditioning: bool,
) -> nn.Module:
    """One network. A function is told ``n_parameters`` and ``time_conditioning`` only where there are such.

    Raises:
        ConfigError: an unknown option or a value out of range, a network on a grid of other axes, or no module.
    """
    if is_operator(made_by):
        decided = {"n_parameters": n_parameters, "time_conditioning": time_conditioning}
        network = made_by.create({"in_channels": in_channels, "out_channels": out_channels, **options, **decided})
        if network.dim != dim:
            raise ConfigError(
                f"{owner}: the options make a {network.name} on grids of {network.dim} axes, and dim is {dim}; "
                "give an entry for each axis (n_modes of the fno, n_sensors of deeponet, multionet), or the right dim"
            )
        return network
    conditions: dict[str, Any] = {"n_parameters": n_parameters} if n_parameters else {}
    if time_conditioning:
        conditions["time_conditioning"] = True
    network = made_by(in_channels, out_channels, **options, **conditions)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{owner}: the operator made a {type(network).__name__}; expected a torch.nn.Module")
    return network


def conditions_of(time: Tensor | None, parameters: Tensor | None) -> dict[str, Tensor]:
    """The keyword arguments that were given: a module of the user's own need not know the others."""
    conditions = {"time": time, "parameters": parameters}
    return {name: value for name, value in conditions.items() if value is not None}


def call(owner: str, network: Callable[..., Tensor], x: Tensor, conditions: Mapping[str, Tensor], gives: int) -> Tensor:
    """``network(x, **conditions)``, checked: ``(B, C, *grid)`` to ``(B, gives, *grid)``.

    Raises:
        ConfigError: the output has another shape.
    """
    made = network(x, **conditions)
    expected = (x.shape[0], gives, *x.shape[2:])
    if not torch.compiler.is_compiling() and tuple(made.shape) != expected:
        raise ConfigError(
            f"{owner}: the sub-operator made a tensor of shape {tuple(made.shape)} of one of {tuple(x.shape)}; "
            f"expected {expected}: a grid operator keeps batch and grid, and makes the channels that it is asked for"
        )
    return made

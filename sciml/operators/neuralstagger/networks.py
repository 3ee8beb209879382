"""The network of a subtask: any grid operator of the package by name or class, or whatever a function makes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import nn

from sciml.errors import ConfigError, did_you_mean
from sciml.operators.base import Operator

Factory: TypeAlias = str | type[Operator] | Callable[..., nn.Module]

DEFAULTS: dict[str, dict[str, Any]] = {
    "fno": {"patch_size": 1},
    "unet": {"patch_size": 1},
    "poseidon": {"resize": "pad"},
}
"""Options of the operators on a coarse grid where they differ from their own defaults: patches would be a second space
to depth, and the published Poseidon resamples every grid to the one that it was made for."""
DECIDED = ("in_channels", "out_channels", "n_parameters", "time_conditioning")
"""Arguments that follow from the ones of the whole operator."""


def grid_operator(operator: Factory, dim: int) -> type[Operator] | Callable[..., nn.Module]:
    """The class or function that makes the networks, found by its name where that was given.

    Raises:
        ConfigError: no operator of that name, one of particles, one that does not exist in ``dim`` dimensions, or
            nothing that can be called.
    """
    from sciml.operators import OPERATORS, PARTICLE_OPERATORS  # the registry imports this module

    splits = {name: found for name, found in OPERATORS.items() if name != "neuralstagger"}
    if isinstance(operator, str):
        if operator in PARTICLE_OPERATORS:
            raise ConfigError(
                f"neuralstagger: {operator!r} steps particles, which have no grid to split; expected one of "
                f"{', '.join(sorted(splits))}"
            )
        if operator == "neuralstagger":
            raise ConfigError(
                "neuralstagger: it cannot be its own sub-operator; splitting twice is splitting once by the product of "
                "the factors"
            )
        if operator not in splits:
            raise ConfigError(f"neuralstagger: unknown operator {operator!r}{did_you_mean(operator, splits)}")
        operator = splits[operator]
    if not callable(operator) or (isinstance(operator, type) and not issubclass(operator, nn.Module)):
        raise ConfigError(
            f"neuralstagger: operator is {operator!r}; expected the name or class of a grid operator "
            f"({', '.join(sorted(splits))}), or a function (in_channels, out_channels, **options) that makes a module"
        )
    if isinstance(operator, type) and issubclass(operator, Operator) and dim not in operator.dims:
        raise ConfigError(
            f"neuralstagger: {operator.name} exists in {' and '.join(f'{d}D' for d in operator.dims)} only, and the "
            f"grid has {dim} axes; choose another operator"
        )
    return operator


def registered_name(made_by: Callable[..., nn.Module]) -> str | None:
    """The name that ``from_pretrained`` finds it by; None for a factory of the user's own."""
    from sciml.operators import OPERATORS  # the registry imports this module

    name = getattr(made_by, "name", None)
    return name if isinstance(name, str) and OPERATORS.get(name) is made_by else None


def completed(
    made_by: Callable[..., nn.Module], options: Mapping[str, Any], *, dim: int, periodic: bool, phases: int
) -> dict[str, Any]:
    """The options of a network: those given, before ``DEFAULTS``, before its own ``options_for``.

    Of one phase, which is the fine grid, the operator's own defaults hold.

    Raises:
        ConfigError: an option is one that the whole operator decides.
    """
    for key in DECIDED:
        if key in options:
            raise ConfigError(
                f"neuralstagger: options has {key!r}, which follows from the arguments of the whole operator; leave it "
                "out there"
            )
    if not is_operator(made_by):
        return dict(options)
    defaults = DEFAULTS.get(made_by.name, {}) if phases > 1 else {}
    return {**made_by.options_for(dim, periodic), **defaults, **options}


def is_operator(made_by: Callable[..., nn.Module]) -> bool:
    """Whether it is a class of grid operators, the package's or a user's."""
    return isinstance(made_by, type) and issubclass(made_by, Operator)


def sees_position(made_by: Callable[..., nn.Module], options: Mapping[str, Any]) -> bool:
    """Whether the network appends the coordinates of the cells to its input."""
    if "coordinates" in options:
        return bool(options["coordinates"])
    if not is_operator(made_by):
        return False
    argument = inspect.signature(made_by.__init__).parameters.get("coordinates")
    return argument is not None and argument.default is True


def make_network(
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
                f"neuralstagger: the options make a {network.name} on grids of {network.dim} axes, and dim is {dim}; "
                "give an entry for each axis (n_modes of the fno, n_sensors of deeponet, multionet), or the right dim"
            )
        return network
    conditions: dict[str, Any] = {"n_parameters": n_parameters} if n_parameters else {}
    if time_conditioning:
        conditions["time_conditioning"] = True
    network = made_by(in_channels, out_channels, **options, **conditions)
    if not isinstance(network, nn.Module):
        raise ConfigError(f"neuralstagger: the operator made a {type(network).__name__}; expected a torch.nn.Module")
    return network

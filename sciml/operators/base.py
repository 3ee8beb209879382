"""What every operator shares: the constructor's arguments, checks of the input, saving and loading."""

import functools
import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sciml.errors import CheckpointError, ConfigError, DataError, did_you_mean
from sciml.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
GRID_AXES = {1: "nx", 2: "nx, ny", 3: "nx, ny, nz"}


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, and whether weight decay is for them."""

    name: str
    parameters: list[nn.Parameter]
    decay: bool = True


class Operator(nn.Module):
    """A network from fields to fields on a regular grid.

    A subclass sets ``name`` (its key in ``OPERATORS``), calls ``super().__init__`` first, and defines
    ``forward(x, *, time=None, parameters=None)`` with ``x (B, in_channels, *grid)``, ``time (B,)`` and
    ``parameters (B, n_parameters)``, which returns ``(B, out_channels, *grid)``. ``config`` holds the
    constructor's arguments, defaults included; it is filled in here for every subclass.

    Args:
        dim: number of grid axes, 1 to 3.
        n_parameters: length of the vector that the operator is conditioned on; 0 for none.
        time_conditioning: whether ``forward`` needs the lead time ``time``. An operator without it refuses a
            ``time``, because an input that is silently ignored is a fault that nobody finds.

    Raises:
        ConfigError: an argument is not a positive whole number, or cannot be written as JSON.
    """

    name: ClassVar[str] = ""
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    """Numbers of grid axes that it exists for."""
    records_arguments: ClassVar[bool] = True
    """Whether ``config`` is filled in here with the constructor's arguments; a subclass without sets it itself."""
    config: dict[str, Any]

    @classmethod
    def create(cls, options: dict[str, Any]) -> "Self":
        """The operator from a dictionary of options, as ``config`` holds them."""
        return build(cls, options)

    @classmethod
    def options_for(cls, dim: int, periodic: bool) -> dict[str, Any]:
        """Options that make it an operator on ``dim`` grid axes, all of them periodic or not."""
        return {"dim": dim}

    @classmethod
    def options_for_names(
        cls, inputs: Sequence[str], outputs: Sequence[str], parameters: Sequence[str]
    ) -> dict[str, Any]:
        """Options that tell it what its channels and parameters are, for operators that keep such names."""
        return {}

    @classmethod
    def fine_tuned_from(
        cls,
        source: str | Path,
        *,
        inputs: Sequence[str],
        outputs: Sequence[str],
        parameters: Sequence[str] = (),
        options: dict[str, Any] | None = None,
    ) -> "Self":
        """An operator for these channels and parameters (by name) that starts from the weights in ``source``.

        Here the numbers of channels and parameters have to be those of the source; an operator that knows what its
        channels are may keep what is shared and add what is new. ``options`` are options of the operator that may
        differ from the source's; here none.

        Raises:
            CheckpointError: nothing to load, or it does not fit.
        """
        operator = cls.from_pretrained(source)
        wanted = {"in_channels": len(inputs), "out_channels": len(outputs), "n_parameters": len(parameters)}
        for key, count in wanted.items():
            if getattr(operator, key) != count:
                raise CheckpointError(
                    f"{source}: the operator has {key} = {getattr(operator, key)}, {count} are needed here; "
                    f"a {cls.name} starts from weights of the same channels and parameters only"
                )
        for key, value in (options or {}).items():
            if operator.config.get(key) != value:
                raise CheckpointError(
                    f"{source}: the operator has {key} = {operator.config.get(key)!r}, not {value!r}; leave out what "
                    "the pretrained operator decides"
                )
        return operator

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every parameter once, in groups that may have learning rates of their own."""
        return [ParameterGroup("rest", list(self.parameters()))]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        dim: int,
        n_parameters: int = 0,
        time_conditioning: bool = False,
    ) -> None:
        super().__init__()
        check_positive(self.name, in_channels=in_channels, out_channels=out_channels)
        if dim not in GRID_AXES:
            raise ConfigError(f"{self.name}: the grid has {dim} axes; expected 1, 2 or 3")
        if n_parameters < 0:
            raise ConfigError(f"{self.name}: n_parameters is {n_parameters}; expected 0 or more")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.dim = dim
        self.n_parameters = n_parameters
        self.time_conditioning = time_conditioning

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__ and cls.records_arguments:
            cls.__init__ = _record_arguments(cls.__init__)  # type: ignore[method-assign]

    def check_input(self, x: Tensor, parameters: Tensor | None, time: Tensor | None) -> None:
        """Compare the shapes of the arguments of ``forward`` with what the operator was made for.

        Skipped while compiling or exporting, where shapes are fixed by the trace.

        Raises:
            DataError: a shape is wrong, or an argument is missing or not wanted.
        """
        if torch.compiler.is_compiling():
            return
        expected = f"(batch, {self.in_channels}, {GRID_AXES[self.dim]})"
        if x.ndim != self.dim + 2 or x.shape[1] != self.in_channels:
            raise DataError(f"{self.name}: x has shape {tuple(x.shape)}; expected {expected}")
        batch = x.shape[0]
        if self.n_parameters:
            given = "missing" if parameters is None else f"of shape {tuple(parameters.shape)}"
            if parameters is None or parameters.shape != (batch, self.n_parameters):
                raise DataError(f"{self.name}: parameters are {given}; expected ({batch}, {self.n_parameters})")
        elif parameters is not None and parameters.numel():
            raise DataError(
                f"{self.name}: parameters of shape {tuple(parameters.shape)} were given to an operator "
                "without parameters; construct it with n_parameters, or leave them out"
            )
        if self.time_conditioning:
            given = "missing" if time is None else f"of shape {tuple(time.shape)}"
            if time is None or time.shape != (batch,):
                raise DataError(f"{self.name}: time is {given}; expected ({batch},)")
        elif time is not None:
            raise DataError(
                f"{self.name}: time was given to an operator without lead time; construct it with "
                "time_conditioning=True, or leave it out"
            )

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` into ``directory`` (made if missing) and return it.

        Each file is written aside and renamed, the configuration last: a reader never sees half a file.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        aside = directory / f".{WEIGHTS_FILE}.{os.getpid()}"
        save_file(tensors, aside, metadata={"format": "pt"})
        os.replace(aside, directory / WEIGHTS_FILE)
        text = json.dumps(self.saved_config(), indent=2)
        aside = directory / f".{CONFIG_FILE}.{os.getpid()}"
        aside.write_text(text + "\n", encoding="utf-8")
        os.replace(aside, directory / CONFIG_FILE)
        return directory

    def saved_config(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        return {"operator": self.name, "config": self.config, "sciml_version": __version__}

    @classmethod
    def from_pretrained(cls, directory: str | Path, *, device: torch.device | str = "cpu") -> "Self":
        """Rebuild an operator that ``save_pretrained`` wrote: same arguments, same tensors, same dtype.

        ``Operator.from_pretrained`` finds the class in ``OPERATORS``; a subclass insists on its own.

        Raises:
            CheckpointError: the directory or a file is missing or damaged, or the tensors do not fit.
            ConfigError: no operator of that name or no such constructor argument.
        """
        directory = Path(directory)
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            if not (directory / file).is_file():
                raise CheckpointError(f"{directory} holds no {file}; expected what save_pretrained writes")
        try:
            saved = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
            name, config = saved["operator"], saved.get("config", {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{directory / CONFIG_FILE} is not an operator's configuration ({error!r}); "
                'expected {"operator": ..., "config": {...}}'
            ) from error
        target = find_operator(name) if cls is Operator else cls
        if target is not cls:
            return target.from_pretrained(directory, device=device)
        if target.name != name:
            raise CheckpointError(f"{directory} holds an operator {name!r}; expected {target.name!r}")
        with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: draw nothing for them
            operator = build(target, config)
        try:
            tensors = load_file(directory / WEIGHTS_FILE, device=str(device))
        except SafetensorError as error:
            raise CheckpointError(f"{directory / WEIGHTS_FILE} cannot be read: {error}") from error
        check_tensors(directory / WEIGHTS_FILE, tensors, operator.state_dict())
        operator.load_state_dict(tensors, assign=True)  # assign: keeps a float64 operator in float64
        return operator.to(device)


def check_positive(owner: str, **values: Any) -> None:
    """Raise ConfigError unless each value is a whole number above 0."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{owner}: {name} is {value!r}; expected a whole number above 0")


def find_operator(name: str) -> type[Operator]:
    """The class registered as ``name``.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    from sciml.operators import OPERATORS  # the registry imports this module

    if name not in OPERATORS:
        raise ConfigError(f"unknown operator {name!r}{did_you_mean(str(name), OPERATORS)}")
    return OPERATORS[name]


def create_operator(name: str, **config: Any) -> Operator:
    """An operator by its registered name, e.g. ``create_operator("fno", in_channels=2, out_channels=2)``.

    Raises:
        ConfigError: an unknown name, an unknown or missing constructor argument, or a value out of range.
    """
    return find_operator(name).create(config)


def build(operator: type[Operator], config: dict[str, Any]) -> Any:
    """``operator(**config)`` with misspelt and missing arguments answered by a ConfigError."""
    arguments = inspect.signature(operator.__init__).parameters
    known = [name for name in arguments if name != "self"]
    for key in config:
        if key not in known:
            raise ConfigError(f"operator {operator.name!r} has no argument {key!r}{did_you_mean(key, known)}")
    for key in known:
        if arguments[key].default is inspect.Parameter.empty and key not in config:
            raise ConfigError(f"operator {operator.name!r} needs the argument {key!r}")
    return operator(**config)


def _record_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor so that ``self.config`` holds its arguments: one place, so it cannot drift."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Operator, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        config = {name: value for name, value in bound.arguments.items() if name != "self"}
        try:
            config = json.loads(json.dumps(config))  # tuples become lists, as they will once saved
        except TypeError as error:
            raise ConfigError(f"{type(self).__name__}: an argument cannot be written as JSON: {error}") from error
        init(self, *args, **kwargs)
        self.config = config  # a subclass's constructor ends last, so the outermost arguments stay

    return wrapped


def check_tensors(file: Path, given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise ``CheckpointError`` that names the tensors that are missing, unexpected or of another shape."""
    problems = [f"missing {name}" for name in expected if name not in given]
    problems += [f"unexpected {name}" for name in given if name not in expected]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError(f"{file} does not fit the operator in {CONFIG_FILE}: {'; '.join(problems[:8])}{more}")

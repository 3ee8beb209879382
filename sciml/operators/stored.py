"""What every network of the package shares: its arguments on record, saving and loading without pickles."""

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sciml.errors import CheckpointError, ConfigError, did_you_mean
from sciml.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Self

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, and whether weight decay is for them."""

    name: str
    parameters: list[nn.Parameter]
    decay: bool = True


class Stored(nn.Module):
    """A network whose constructor's arguments are kept in ``config``, defaults included, for every subclass.

    A subclass sets ``name`` (its key in the registry of its family, where it is in one); the class of a whole family
    has none.

    Raises:
        ConfigError: an argument cannot be written as JSON.
    """

    name: ClassVar[str] = ""
    records_arguments: ClassVar[bool] = True
    """Whether ``config`` is filled in here with the constructor's arguments; a subclass without sets it itself."""
    config: dict[str, Any]

    @classmethod
    def family(cls) -> "Mapping[str, type[Stored]]":
        """What ``from_pretrained`` may find: the registry of the family; of a class in none, itself."""
        return {cls.name: cls}

    @classmethod
    def create(cls, options: dict[str, Any]) -> "Self":
        """The operator from a dictionary of options, as ``config`` holds them."""
        return build(cls, options)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Every parameter once, in groups that may have learning rates of their own."""
        return [ParameterGroup("rest", list(self.parameters()))]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__ and cls.name and cls.records_arguments:
            cls.__init__ = _record_arguments(cls.__init__)  # type: ignore[method-assign]

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` into ``directory`` (made if missing) and return it.

        Each file is written aside and renamed, the configuration last: a reader never sees half a file.
        """
        text = json.dumps(self.saved_config(), indent=2)  # first: what cannot be saved leaves no files behind
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        aside = directory / f".{WEIGHTS_FILE}.{os.getpid()}"
        save_file(tensors, aside, metadata={"format": "pt"})
        os.replace(aside, directory / WEIGHTS_FILE)
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

        The class of a family (``Operator``) finds the subclass in its registry; a subclass insists on its own name.

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
        if not cls.name:  # the class of a whole family
            return find(name, cls.family()).from_pretrained(directory, device=device)
        if cls.name != name:
            raise CheckpointError(f"{directory} holds an operator {name!r}; expected {cls.name!r}")
        with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: draw nothing for them
            operator = build(cls, config)
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


def find(name: str, family: "Mapping[str, type[Stored]]") -> Any:
    """The class registered as ``name``.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in family:
        raise ConfigError(f"unknown operator {name!r}{did_you_mean(str(name), family)}")
    return family[name]


def build(operator: type[Stored], config: dict[str, Any]) -> Any:
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
    def wrapped(self: Stored, *args: Any, **kwargs: Any) -> None:
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

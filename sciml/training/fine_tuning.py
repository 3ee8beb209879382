"""Starting from pretrained weights: where they are, which operator they are of, and how they are trained further.

Importing this module is light: a wrong path is answered before torch is loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sciml.errors import CheckpointError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from sciml.operators import Operator
    from sciml.training.config import OptimizerConfig

_HUB_OPERATORS = ("poseidon",)
"""Operators whose ``fine_tuned_from`` takes the id of a repository on the Hugging Face hub."""
_ARCHITECTURES = {"ScOT": "poseidon"}
"""``architectures`` in a published ``config.json`` -> our name."""
_PUBLISHED_TASK = {"pairs": "all", "target": "state", "loss": "relative_l1"}
"""What the published models have learned."""
_INSIDE = ("", "surrogate", "operator")
"""Where a directory holds its operator: in itself, as a run does, as a pretraining run does."""


@dataclass(frozen=True)
class Rates:
    """Learning rates of fine-tuning: the base rate, and those of parameter groups as multiples of it."""

    base: float
    factors: dict[str, float]


RATES: dict[str, Rates] = {
    # Channels and time are what is new in a new problem; the blocks between them change little. The factor 10 is that
    # of the published fine-tuning (base 5e-5 there, for 200 epochs).
    "poseidon": Rates(5e-4, {"embedding_recovery": 10.0, "time_embedding": 10.0}),
}
"""By operator; one that is not named trains on with the rate of the problem's recipe."""


@dataclass(frozen=True)
class Pretrained:
    """Pretrained weights: the absolute path of an operator's directory, or a hub id; the operator's name; what the
    weights have learned to predict, as keys of the section ``task``.
    """

    path: str
    operator: str
    task: dict[str, str] = field(default_factory=dict)


def find_pretrained(given: str, operator: str | None = None) -> Pretrained:
    """The weights that ``given`` means: the directory of an operator, of a surrogate, of a run (``RUN/surrogate``), of
    a pretraining run (``RUN/operator``), or a hub id, which is taken as it is.

    ``operator``: the name that was asked for, by default what the directory says.

    Raises:
        CheckpointError: nothing there, or nothing that can be loaded.
        ConfigError: it holds another operator than ``operator``.
    """
    directory = Path(os.path.abspath(Path(given).expanduser()))
    if not directory.is_dir():
        if directory.exists():
            raise CheckpointError(f"{given} is a file; --from takes the directory that holds it")
        if operator in _HUB_OPERATORS and re.fullmatch(r"[\w.-]+/[\w.-]+", given):
            return Pretrained(given, str(operator), _PUBLISHED_TASK)
        raise CheckpointError(
            f"{given} is not there; --from (pretrained in config.yaml, which a resumed run reads too) takes the "
            f"directory of a run, a surrogate or an operator, or with --operator {' or '.join(_HUB_OPERATORS)} a hub id"
        )
    found = next((place for name in _INSIDE if (place := directory / name) and (place / "config.json").is_file()), None)
    if found is None:
        unfinished = " (the run is unfinished)" if (directory / "config.yaml").is_file() else ""
        raise CheckpointError(
            f"{given} holds no operator{unfinished}: no config.json in it, in surrogate/ or in operator/; --from takes "
            "the directory of a finished run, a surrogate or an operator"
        )
    stored = _operator_in(_json(found / "config.json")) or operator
    if stored is None:
        raise CheckpointError(
            f"{found / 'config.json'} does not say which operator it is of (no key 'operator'); name it with --operator"
        )
    if operator not in (None, stored):
        raise ConfigError(f"{given} holds the operator {stored!r}, not {operator!r}; leave out --operator")
    return Pretrained(str(found), stored, _task(found))


def group_rates(config: OptimizerConfig, operator: Operator) -> dict[str, float]:
    """The peak learning rate of each of the operator's parameter groups.

    Raises ``ConfigError`` if ``optimizer.group_rates`` names another.
    """
    known = [group.name for group in operator.parameter_groups()]
    for name in config.group_rates:
        if name not in known:
            raise ConfigError(
                f"optimizer.group_rates: {operator.name} has no parameter group {name!r}{did_you_mean(name, known)}"
            )
    return {name: config.group_rates.get(name, config.learning_rate) for name in known}


def _task(directory: Path) -> dict[str, str]:
    """How the operator of a directory was trained: its run's configuration says, or its surrogate, or the publication.

    A network that has learned states must not go on as one that learns increments, nor one of lead times without them.
    """
    run, surrogate = directory.parent / "config.yaml", directory / "surrogate.json"
    if run.is_file():
        try:
            return _learned(yaml.safe_load(run.read_text(encoding="utf-8"))["task"])
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise CheckpointError(f"{run} is not the configuration of a run ({error!r})") from None
    if surrogate.is_file():
        return _learned(_json(surrogate))
    config = _json(directory / "config.json")
    timed = _operator_in(config) == "poseidon" and config.get("use_conditioning")
    return dict(_PUBLISHED_TASK) if timed else {}


def _learned(content: Mapping[str, Any]) -> dict[str, str]:
    """The entries that belong to the weights."""
    return {key: content[key] for key in ("pairs", "target", "loss") if content.get(key) is not None}


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds {type(content).__name__}; expected the configuration of an operator")
    return content


def _operator_in(content: Mapping[str, Any]) -> str | None:
    """The name of the operator whose configuration this is, if it says so."""
    if content.get("operator"):
        return str(content["operator"])
    known = [_ARCHITECTURES[name] for name in content.get("architectures") or () if name in _ARCHITECTURES]
    return known[0] if known else None

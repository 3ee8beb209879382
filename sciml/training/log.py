"""Numbers of a run: one JSON object a line in ``metrics.jsonl``, and TensorBoard where it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sciml.errors import ConfigError


class MetricsLog:
    """Appends dictionaries of numbers; every line is on disk before the call returns."""

    def __init__(self, directory: Path, tensorboard: bool = False) -> None:
        self.path = directory / "metrics.jsonl"
        self.writer = _tensorboard(directory / "tensorboard") if tensorboard else None

    def __call__(self, values: dict[str, Any]) -> None:
        with open(self.path, "a") as stream:
            stream.write(json.dumps(values) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                if name != "step":
                    self.writer.add_scalar(name, value, values["step"])


def _tensorboard(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("tensorboard=true needs the package tensorboard: pip install 'sciml[log]'") from None
    return SummaryWriter(str(directory))

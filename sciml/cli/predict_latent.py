"""``sciml predict`` for weak problems: the solutions of a file of input functions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.cli.input_functions import read_input_functions
from sciml.cli.progress import RichProgress
from sciml.errors import ConfigError

if TYPE_CHECKING:
    from sciml.surrogate.latent import LatentSurrogate

CHUNK = 50
"""Cases solved together."""


def predict_latent(
    surrogate: "LatentSurrogate",
    input: Path,
    out: Path,
    steps: int | None,
    frame: int | None,
    progress: RichProgress,
) -> dict[str, Any]:
    """Write ``points``, ``input_points``, the input functions and each solution field of every case as ``.npz``.

    Raises ConfigError for options that a whole solution has no use for, DataError for input functions that do not fit.
    """
    import numpy as np
    import torch

    from sciml.surrogate.ranges import warn_out_of_range

    problem = surrogate.problem
    if steps is not None or frame is not None:
        raise ConfigError("this surrogate gives whole solutions of input functions: leave out --steps and --frame")
    if out.suffix != ".npz":
        raise ConfigError(
            f"--out is {out}; solutions of a weak problem are written as NumPy arrays, give a name in .npz"
        )
    inputs = read_input_functions(input, problem)
    name = problem.input.name
    warn_out_of_range({name: (float(inputs.min()), float(inputs.max()))}, surrogate.ranges, stacklevel=2)
    parts: dict[str, list[Any]] = {field: [] for field in surrogate.fields}
    with progress.phase("predict", len(inputs)):
        for some in inputs.split(CHUNK):
            for field, values in surrogate.solve(some).items():
                parts[field].append(values.cpu())
            progress.advance(len(some))
    arrays = {
        "points": problem.points,
        "input_points": problem.input_points,
        name: inputs.float(),
        **{field: torch.cat(values) for field, values in parts.items()},
    }
    aside = out.with_name(out.name + ".new")  # a file that is replaced stays whole until this one is
    aside.parent.mkdir(parents=True, exist_ok=True)
    with open(aside, "wb") as stream:
        np.savez_compressed(stream, **{key: value.numpy() for key, value in arrays.items()})
    aside.replace(out)
    progress.message(f"wrote {out}: {', '.join(parts)} of {len(inputs)} cases at {len(problem.points)} points")
    return {"file": str(out), "cases": len(inputs), "points": len(problem.points), "fields": list(parts)}

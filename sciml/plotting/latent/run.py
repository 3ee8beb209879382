"""The pictures of a run on a weak problem, and of an inversion with its surrogate."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from sciml.errors import ConfigError, DataError
from sciml.plotting.latent.cases import Named, latent_case
from sciml.plotting.latent.layout import Layout, make_layout
from sciml.plotting.latent.posterior import Uncertain, posterior_figure
from sciml.progress import Progress

if TYPE_CHECKING:
    from sciml.problems.weak import WeakProblem
    from sciml.surrogate.latent import Inversion, Posterior
    from sciml.surrogate.latent.posterior import Summary

Array = NDArray[np.float64]
KEYS = ("input", "input_decoded", "solution", "solution_predicted")


def is_latent(run: Path) -> bool:
    """Whether a run directory is of a weak problem, as its configuration says."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        return config["task"]["kind"] == "latent"
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return False


def latent_figures(run: Path, figures: Path, progress: Progress) -> list[Callable[[], Path]]:
    """What draws ``case_<number>.png``: the test cases of ``predictions.npz``; nothing, and a message why, of a problem
    of the user's own or one with three coordinates.

    Raises DataError when the file is damaged, lacks an array, or does not fit the surrogate's problem.
    """
    from sciml.surrogate import load

    predictions = run / "predictions.npz"
    try:
        with open(predictions, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], dtype=np.float64) for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {predictions}: {error}; train the run again, which writes it") from None
    if missing := [name for name in KEYS if name not in arrays]:
        raise DataError(f"{predictions} lacks {', '.join(missing)}; train the run again, which writes it")
    try:
        problem = load(run).problem
    except ConfigError as error:
        progress.message(f"the cases are not drawn: {error}")
        return []
    if max(len(problem.axes), len(problem.input_axes)) > 2:
        progress.message(f"the cases are not drawn: {problem.name} has the coordinates {', '.join(problem.axes)}")
        return []
    layouts, channels = _layouts(problem), _channels(problem)
    inputs, decoded, truth, made = (arrays[name] for name in KEYS)
    name = (problem.input.name, problem.input.unit)

    def draw(number: int) -> Path:
        path = figures / f"case_{number}.png"
        title = f"{problem.title}, {problem.subset}, test case {number}"
        of_case = (inputs[number], decoded[number], truth[number], made[number])
        latent_case(*layouts, *of_case, input_name=name, channels=channels, title=title, path=path)
        return path

    return [partial(draw, number) for number in range(len(inputs))]


def inversion_figures(
    found: Inversion, directory: str | Path, *, posterior: Posterior | None = None, truth: Array | None = None
) -> list[Path]:
    """Draw ``posterior.png`` of an inversion into a directory; return its path in a list.

    ``posterior``: its summary, where it is known already; ``truth (P,)``: the true input function at the problem's
    ``input_points``, where it is known. Raises DataError where the problem's points have more than two coordinates.
    """
    from sciml.surrogate.latent import summarise

    problem, observed = found.surrogate.problem, found.observations
    posterior = posterior or summarise(found)
    path = Path(directory) / "posterior.png"
    posterior_figure(
        *_layouts(problem),
        _uncertain(posterior.input),
        [_uncertain(posterior.solution, number) for number in range(len(posterior.solution.mean))],
        input_name=(problem.input.name, problem.input.unit),
        channels=_channels(problem),
        sensors=observed.points.numpy(),
        observed={name: observed.values[:, number].numpy() for number, name in enumerate(observed.channels)},
        samples=posterior.samples.numpy() if found.method != "map" else None,
        truth=truth,
        title=f"{problem.title}, {problem.subset}: {problem.input.name} from {len(observed.points)} sensors",
        path=path,
    )
    return [path]


def _layouts(problem: WeakProblem) -> tuple[Layout, Layout]:
    def inside(points: Array) -> NDArray[np.bool_]:
        import torch

        return problem.inside(torch.as_tensor(points)).numpy()

    return (
        make_layout(problem.input_points.numpy(), problem.input_axes),
        make_layout(problem.points.numpy(), problem.axes, problem.box, inside),
    )


def _channels(problem: WeakProblem) -> list[Named]:
    from sciml.surrogate.latent import channel_units

    return list(channel_units(problem).items())


def _uncertain(summary: Summary, channel: int | None = None) -> Uncertain:
    parts: list[Any] = [summary.mean, summary.deviation, summary.low, summary.high]
    return Uncertain(*((part if channel is None else part[channel]).double().numpy() for part in parts))

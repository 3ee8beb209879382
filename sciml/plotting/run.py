"""All pictures of a run directory, from what the run wrote; only the steady flows are solved anew, in seconds."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from sciml.errors import CheckpointError, DataError
from sciml.plotting.choices import pictures_of
from sciml.plotting.curves import loss_curves, rollout_error
from sciml.plotting.latent.curves import bound_curves
from sciml.plotting.latent.run import is_latent, latent_figures
from sciml.plotting.maps import error_distribution
from sciml.plotting.particles.predictions import has_particles
from sciml.plotting.particles.run import particle_figures
from sciml.plotting.predictions import Arrays, cases_of, kind_of, problem_of, read_predictions
from sciml.plotting.static import static_figures
from sciml.plotting.steady import steady_profiles
from sciml.progress import Progress


def run_figures(run_directory: str | Path, progress: Progress | None = None) -> list[Path]:
    """Draw the pictures of a run into its ``figures/`` and return their paths.

    From ``metrics.jsonl``: ``training.png``. From ``predictions.npz``, when the problem has a time:
    ``rollout_error.png`` over all held-out cases, and for each case in the file what ``sciml.plotting.choices`` lists
    for its dimension and its problem (``fields_<case>.png``, ``space_time_<case>.png``, ``spectrum_<case>.png`` ...);
    for the first case ``rollout_<case>.gif``. When it is static: ``case_errors.png`` and ``fields_<subset>.png``.
    Of a particle run: ``rollout_error.png``, and for each case ``rollout_<case>.gif`` and ``frames_<case>.png``.
    Of a run on a weak problem: ``case_<number>.png``, whose layout the problem in ``surrogate/`` says.
    From ``surrogate/``, for a cavity: ``profiles_steady_re<Re>.png``, the rollout to steady flow against Ghia's table.
    What a run has not written (it was stopped, say) is left out with a message.

    ``predictions.npz`` holds, for n cases, ``truth`` and ``prediction (n, frames, channels, *grid)``, ``time (n,
    frames)``; if it likes ``problem``, ``kind`` ("step", "map", "trajectory"), ``fields`` (their names), ``units`` and
    ``components`` of each, ``lengths (n, dim)`` and ``origin (dim,)`` of the box in metres, ``subset`` and ``case
    (n,)``, physical parameters ``parameter_<name>``, ``(n,)`` or ``(n, frames)``; ``fluid (n, *grid)``, 0 in bodies;
    the names ``series`` of numbers of each frame with ``series_units``, and of each ``solver_<name>``, ``truth_<name>``
    and ``prediction_<name> (n, frames)``, the latter two from the fields; and the errors
    ``rollout_relative_l2``, ``persistence_rollout_relative_l2`` and ``lookup_rollout_relative_l2 (cases, steps)`` of
    all test cases, ``direct_relative_l2`` of one jump to each step. For ``kind`` "map", with one frame: ``input (n,
    channels, *grid)``, ``inputs`` and ``input_units``, ``points (n, N, dim)`` if it learned from points, and the errors
    ``relative_l2``, ``mean_relative_l2`` and ``lookup_relative_l2 (cases,)``. That of a particle run is described in
    ``sciml.plotting.particles.predictions``.

    Raises CheckpointError when the directory holds neither file, DataError when one of them is damaged.
    """
    run, progress = Path(run_directory), progress or Progress()
    figures = run / "figures"
    metrics, predictions = run / "metrics.jsonl", run / "predictions.npz"
    if not metrics.is_file() and not predictions.is_file():
        what = "holds neither metrics.jsonl nor predictions.npz" if run.is_dir() else "is not a directory"
        raise CheckpointError(f"{run} {what}: nothing to draw; give the directory that 'sciml train' wrote")
    operator = str(_summary(run / "summary.json")["operator"])
    particles, latent = has_particles(predictions), is_latent(run)
    arrays = read_predictions(predictions) if predictions.is_file() and not (particles or latent) else {}
    if not predictions.is_file():
        progress.message(f"no {predictions.name} in {run}: the run was not evaluated, its fields are not drawn")
    written: list[Path] = []
    if (run / "surrogate" / "surrogate.json").is_file() and _problem(run, arrays) == "cavity":
        from sciml.surrogate import load

        written += steady_profiles(load(run), figures, progress)
    tasks: list[Callable[[], Path | None]] = (
        [partial(_training, metrics, figures, operator, latent)] if metrics.is_file() else []
    )
    tasks += _predictions(arrays, figures, operator) if arrays else []
    tasks += particle_figures(predictions, figures, operator) if particles else []
    if latent and predictions.is_file():
        tasks += latent_figures(run, figures, progress)
    with progress.phase("figures", len(tasks)):
        for task in tasks:
            if (path := task()) is not None:
                written.append(path)
            progress.advance(note=path.name if path else "")
    return written


def _problem(run: Path, arrays: Arrays) -> str:
    """The name of the problem from the predictions, of a run without them from its configuration."""
    if arrays or not (run / "config.yaml").is_file():
        return problem_of(arrays)
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return problem_of(arrays)
    return str(config["problem"]) if isinstance(config, dict) and "problem" in config else problem_of(arrays)


def _training(metrics: Path, figures: Path, operator: str, latent: bool) -> Path | None:
    if not (records := read_records(metrics)):
        return None
    path = figures / "training.png"
    (bound_curves if latent else loss_curves)(records, title=f"Training of {operator}", path=path)
    return path


def _predictions(arrays: Arrays, figures: Path, operator: str) -> list[Callable[[], Path]]:
    tasks: list[Callable[[], Path]] = []
    if kind_of(arrays) == "map":
        if "relative_l2" in arrays:
            tasks.append(partial(_case_errors, arrays, figures / "case_errors.png", operator))
        return tasks + static_figures(arrays, figures)
    if "rollout_relative_l2" in arrays:
        tasks.append(partial(_rollout_errors, arrays, figures / "rollout_error.png", operator))
    for number, case in enumerate(cases_of(arrays)):
        tasks += [partial(draw, case, figures) for draw in pictures_of(case, animate=number == 0)]
    return tasks


def _case_errors(arrays: Arrays, path: Path, operator: str) -> Path:
    contenders = {"mean": arrays.get("mean_relative_l2"), "lookup": arrays.get("lookup_relative_l2")}
    error_distribution(arrays["relative_l2"], name=operator, path=path, **contenders)
    return path


def _rollout_errors(arrays: Arrays, path: Path, operator: str) -> Path:
    contenders = {name: arrays.get(f"{name}_rollout_relative_l2") for name in ("persistence", "lookup")}
    direct = arrays.get("direct_relative_l2")
    words = {}
    if kind_of(arrays) == "trajectory":  # nothing is rolled out: all frames are given at once
        words = {"along": "frame", "title": f"Error over {len(arrays['subsets'])} held-out cases"}
    rollout_error(arrays["rollout_relative_l2"], name=operator, direct=direct, path=path, **contenders, **words)
    return path


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; a last line that was cut off when the run was killed is dropped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines) - 1:
                raise DataError(f"{path} line {number + 1} is not JSON ({error.msg}): the file is damaged") from None
    return [record for record in records if isinstance(record, dict)]


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    return {"operator": "operator", **(summary if isinstance(summary, dict) else {})}

"""All pictures of a run directory, from what the run wrote: nothing is solved or predicted again."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml.errors import CheckpointError, DataError
from sciml.plotting.animation import animate_rollout
from sciml.plotting.curves import loss_curves, rollout_error
from sciml.plotting.profiles import centreline_profiles
from sciml.plotting.triptych import triptych
from sciml.progress import Progress

REQUIRED = ("truth", "prediction", "time", "width", "height")


@dataclass(frozen=True)
class Case:
    """One held-out case of ``predictions.npz``; ``truth`` and ``prediction`` are ``(frames, channels, nx,
    ny)``.
    """

    name: str
    title: str
    truth: NDArray[Any]
    prediction: NDArray[Any]
    time: NDArray[Any]
    width: float
    height: float
    unit: str
    channel: str
    reynolds: float | None
    lid_velocity: float | None


def run_figures(run_directory: str | Path, progress: Progress | None = None) -> list[Path]:
    """Draw the pictures of a run into its ``figures/`` and return their paths.

    From ``metrics.jsonl``: ``training.png``. From ``predictions.npz``: ``rollout_error.png`` over all
    held-out cases; for each case in it ``fields_<case>.png`` and ``profiles_<case>.png``; for the first case
    ``rollout_<case>.gif``. What a run has not written (it was stopped, say) is left out with a message.

    ``predictions.npz`` holds, for n cases, ``truth`` and ``prediction (n, frames, channels, nx, ny)``, ``time
    (n, frames)``, ``width`` and ``height (n,)``, and if it likes ``names`` (of the channels), ``unit``,
    ``labels``, ``reynolds`` and ``lid_velocity (n,)``, and the errors ``rollout_relative_l2``,
    ``persistence_rollout_relative_l2`` and ``lookup_rollout_relative_l2 (cases, steps)`` of all test cases.

    Raises CheckpointError when the directory holds neither file, DataError when one of them is damaged.
    """
    run, progress = Path(run_directory), progress or Progress()
    figures = run / "figures"
    metrics, predictions = run / "metrics.jsonl", run / "predictions.npz"
    if not metrics.is_file() and not predictions.is_file():
        what = "holds neither metrics.jsonl nor predictions.npz" if run.is_dir() else "is not a directory"
        raise CheckpointError(f"{run} {what}: nothing to draw; give the directory that 'sciml train' wrote")
    summary = _summary(run / "summary.json")
    arrays = _arrays(predictions) if predictions.is_file() else {}
    if not arrays:
        progress.message(
            f"no {predictions.name} in {run}: the run was not evaluated, its fields are not drawn"
        )
    cases = list(_cases(arrays)) if arrays else []
    written: list[Path] = []
    with progress.phase("figures", 2 + 2 * len(cases) + min(len(cases), 1)):
        if metrics.is_file() and (records := read_records(metrics)):
            written.append(figures / "training.png")
            loss_curves(records, title=f"Training of {summary['operator']}", path=written[-1])
        progress.advance(note="training")
        if "rollout_relative_l2" in arrays:
            written.append(figures / "rollout_error.png")
            rollout_error(
                arrays["rollout_relative_l2"],
                persistence=arrays.get("persistence_rollout_relative_l2"),
                lookup=arrays.get("lookup_rollout_relative_l2"),
                name=str(summary["operator"]),
                path=written[-1],
            )
        progress.advance(note="rollout error")
        for number, case in enumerate(cases):
            for path in _case_figures(case, figures, animate=number == 0):
                written.append(path)
                progress.advance(note=path.name)
    return written


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; a last line that was cut off when the run was killed is dropped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    records = []
    for number, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines) - 1:
                raise DataError(
                    f"{path} line {number + 1} is not JSON ({error.msg}): the file is damaged"
                ) from None
    return [record for record in records if isinstance(record, dict)]


def _case_figures(case: Case, figures: Path, animate: bool) -> Iterator[Path]:
    box: dict[str, Any] = {"width": case.width, "height": case.height}
    last = len(case.truth) - 1
    velocity = case.truth.shape[1] == 2
    truth, prediction = (a if velocity else a[:, 0] for a in (case.truth, case.prediction))
    labels = {"unit": case.unit, "name": None if velocity else case.channel, "title": case.title}
    if animate:
        path = figures / f"rollout_{case.name}.gif"
        yield animate_rollout(truth, prediction, times=case.time, path=path, **labels, **box)
    path = figures / f"fields_{case.name}.png"
    # Early, middle and last: where a rollout goes wrong is seen late, how it starts is seen early.
    rows = sorted({min(2, last), last // 2, last})
    times = case.time[rows]
    triptych(truth[rows], prediction[rows], times=times, streamlines=velocity, path=path, **labels, **box)
    yield path
    if velocity:
        path = figures / f"profiles_{case.name}.png"
        centreline_profiles(
            truth[last],
            prediction[last],
            lid_velocity=case.lid_velocity,
            reynolds=case.reynolds,
            time=float(case.time[last]),
            velocity_unit=case.unit,
            title=case.title,
            path=path,
            **box,
        )
        yield path


def _cases(arrays: Mapping[str, NDArray[Any]]) -> Iterator[Case]:
    truth, prediction, time = arrays["truth"], arrays["prediction"], arrays["time"]
    if truth.ndim != 5 or prediction.shape != truth.shape or time.shape != truth.shape[:2]:
        raise DataError(
            f"predictions.npz: truth {truth.shape}, prediction {prediction.shape} and time {time.shape} do not fit; "
            "expected (cases, frames, channels, nx, ny) twice and (cases, frames)"
        )
    names = [str(name) for name in arrays.get("names", ())] or ["velocity_x", "velocity_y"]
    # A velocity is shown as a vector wherever it stands among the channels; without one, the first channel.
    picked = [index for index, name in enumerate(names) if name.startswith("velocity")][: truth.ndim - 3] or [
        0
    ]
    for number in range(len(truth)):
        reynolds, lid = (_number(arrays, key, number) for key in ("reynolds", "lid_velocity"))
        label = str(arrays["labels"][number]) if "labels" in arrays else f"case {number}"
        yield Case(
            name="".join(c if c.isalnum() else "_" for c in label),
            title=label if reynolds is None else f"{label}, Re {reynolds:.4g}",
            truth=truth[number][:, picked],
            prediction=prediction[number][:, picked],
            time=time[number],
            width=float(arrays["width"][number]),
            height=float(arrays["height"][number]),
            unit=str(arrays["unit"]) if "unit" in arrays else "m/s",
            channel=names[picked[0]],
            reynolds=reynolds,
            lid_velocity=lid,
        )


def _number(arrays: Mapping[str, NDArray[Any]], key: str, case: int) -> float | None:
    """A parameter of a case; None where it is not given, not finite or changes in time (no single value
    then).
    """
    if key not in arrays or arrays[key].ndim != 1 or not np.isfinite(arrays[key][case]):
        return None
    return float(arrays[key][case])


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}; run 'sciml evaluate' to write it again") from None
    if missing := [name for name in REQUIRED if name not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}; run 'sciml evaluate' to write it again")
    return arrays


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    return {"operator": "operator", **(summary if isinstance(summary, dict) else {})}

"""The table of a run: the operator beside what needs no learning, over all held-out cases and by subset."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

from sciml.cli.console import console, make_table
from sciml.cli.latent_report import latent_next_steps, latent_table
from sciml.cli.particle_report import particle_next_steps, particle_tables

STEP_COLUMNS = (
    ("one-step\nNMSE", "nmse"),
    ("one-step\nVRMSE", "vrmse"),
    ("rollout\nmean", "rollout_mean"),
    ("rollout\nlast", "rollout_last"),
    ("worst\nlast", "rollout_worst_last"),
    ("direct\nlast", "direct_last"),
)
MAP_COLUMNS = (
    ("NMSE", "nmse"),
    ("VRMSE", "vrmse"),
    ("rel. L2", "relative_l2"),
    ("worst\nrel. L2", "relative_l2_worst"),
    ("PDE\nresidual", "residual"),
)
CONTENDERS = (
    ("", ""),
    ("look-up", "lookup_"),
    ("persistence", "persistence_"),
    ("training mean", "mean_"),
)


def results_table(operator: str, test: Mapping[str, Any]) -> "Table":
    """A rich table of a ``test`` entry: one row for each contender over all cases, then for each subset."""
    is_map = judged_as_map(test)
    columns = MAP_COLUMNS if is_map else STEP_COLUMNS
    rows = list(_rows(operator, "all", test, columns))
    for subset, values in (test.get("per_subset") or {}).items():
        rows += _rows(operator, subset, values, columns)
    judged = "rollouts and direct jumps" if "direct_last" in test else "rollouts"
    title = f"Held-out cases; {'' if is_map else f'{judged}: relative L2; '}less is better\n"
    # A column that nobody fills would only take room.
    used = [n for n in range(2 + len(columns)) if n < 2 or any(row[n] != "–" for row in rows)]
    headings = ["cases", "method", *(heading for heading, _ in columns)]
    shown = [[row[n] for n in used] for row in rows]
    return make_table([headings[n] for n in used], shown, title, numbers_from=2)


def constraints_table(test: Mapping[str, Any]) -> "Table | None":
    """A rich table of how far predictions are from each constraint; None where none is watched."""
    found = test.get("constraints") or []
    kinds = [kind for kind in ("before", "after", "rollout", "truth") if any(kind in row for row in found)]
    if not kinds:
        return None
    if all(row["imposed"] == "no" for row in found):
        kinds.remove("before")  # the same as after
    rows = [
        [row["constraint"], row["imposed"], *(f"{row[kind]:.2g}" if kind in row else "–" for kind in kinds)]
        for row in found
    ]
    title = "Constraints: largest relative residual of any case and frame\n"
    return make_table(["constraint", "imposed", *kinds], rows, title, numbers_from=2)


def series_table(operator: str, test: Mapping[str, Any]) -> "Table | None":
    """A rich table of a problem's series: the solver's own, and what the true and the predicted fields say of them;
    None where there are none.

    Errors are against the solver, or against the true fields where the files have no series.
    """
    labels = {"solver": "solver", "truth": "true fields", "prediction": operator}
    rows = []
    for name, found in (test.get("series") or {}).items():
        head = f"{name} ({found['unit']})"
        for source, label in labels.items():
            if source not in found:
                continue
            own = found[source]
            errors = own.get("against_solver") or own.get("against_truth") or {}
            numbers = [own.get(key) for key in ("mean", "range", "frequency")]
            numbers += [errors.get(f"{key}_error") for key in ("mean", "range", "frequency")]
            rows.append([head, label, *("–" if number is None else f"{number:.3g}" for number in numbers)])
            head = ""
    if not rows:
        return None
    title = "Series of the rollouts: means over the cases; errors are medians, of mean and range in units of the rms\n"
    headings = [
        "series",
        "from",
        "mean",
        "range",
        "frequency\n(Hz)",
        "error\nof mean",
        "error\nof range",
        "error of\nfreq.",
    ]
    used = [n for n in range(len(headings)) if n < 2 or any(row[n] != "–" for row in rows)]
    return make_table([headings[n] for n in used], [[row[n] for n in used] for row in rows], title, numbers_from=2)


def print_results(operator: str, test: Mapping[str, Any], *, stderr: bool = False) -> None:
    """The tables of a ``test`` entry."""
    if test.get("kind") == "particles":
        for table in particle_tables(operator, test):
            console(stderr=stderr).print(table)
        return
    if test.get("kind") == "latent":
        console(stderr=stderr).print(latent_table(operator, test))
        return
    console(stderr=stderr).print(results_table(operator, test))
    for extra in (constraints_table(test), series_table(operator, test)):
        if extra is not None:
            console(stderr=stderr).print(extra)


def judged_as_map(test: Mapping[str, Any]) -> bool:
    """Whether a ``test`` entry is that of a map: maps have no rollouts."""
    return "relative_l2_worst" in test


def _rows(
    operator: str, subset: str, values: Mapping[str, Any], columns: Sequence[tuple[str, str]]
) -> Iterator[list[str]]:
    head = f"{subset} ({values['cases']})" if "cases" in values else subset
    for label, prefix in CONTENDERS:
        numbers = [_value(values, prefix, key) for _, key in columns]
        if any(number is not None for number in numbers):
            cells = ("–" if number is None else f"{number:.3g}" for number in numbers)
            yield [head, label or operator, *cells]
            head = ""


def _value(values: Mapping[str, Any], prefix: str, key: str) -> float | None:
    found = values.get(prefix + key)
    if found is None and key in ("rollout_mean", "rollout_last"):
        # The curve itself is always there: its mean and its end need no entry of their own.
        curve = values.get(f"{prefix}rollout_relative_l2")
        if curve:
            found = sum(curve) / len(curve) if key == "rollout_mean" else curve[-1]
    return None if found is None else float(found)


def operator_name(run: Path) -> str:
    """The operator's name from a run's ``summary.json``, or just "operator"."""
    try:
        return str(json.loads((run / "summary.json").read_text(encoding="utf-8"))["operator"])
    except (OSError, ValueError, KeyError, TypeError):
        return "operator"


def timing(seconds: Mapping[str, float]) -> str:
    """``"generate 28 s, train 240 s, evaluate 9 s"``."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


def next_steps(directory: Path, test: Mapping[str, Any]) -> str:
    """What to do with a finished run, to copy and paste."""
    if test.get("kind") == "particles":
        return particle_next_steps(directory)
    if test.get("kind") == "latent":
        return latent_next_steps(directory)
    calls = "surrogate.solve" if judged_as_map(test) else "surrogate.step, .rollout"
    last = f"sciml predict {directory} --input cases.h5 --out predicted.h5"
    if test.get("kind") == "trajectory":  # it starts from parameters, not from a file
        last = f"sciml evaluate {directory}"
    return f"""Next:
  python -c "import sciml; print(sciml.load('{directory}'))"      your own code: {calls}
  sciml plot {directory}
  {last}"""

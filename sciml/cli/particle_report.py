"""The table of a particle run: the surrogate beside extrapolation, over all held-out scenes and by subset."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

from sciml.cli.console import make_table

BALANCE = (
    ("one-step\nNMSE", "nmse"),
    ("Chamfer", "chamfer"),
    ("Sinkhorn", "sinkhorn"),
    ("momentum\ndrift", "momentum_drift"),
    ("energy\ndrift", "energy_drift"),
    ("volume\ndrift", "volume_drift"),
)
PATHS = (
    ("dense", "all particles"),
    ("sparse", "stepped particles"),
    ("upsampled_truth", "all, from true sparse points"),
    ("constant_velocity", "constant velocity"),
    ("constant_velocity_contained", "… stopped by the walls"),
    ("constant_acceleration", "constant acceleration"),
    ("constant_acceleration_contained", "… stopped by the walls"),
)


def particle_tables(operator: str, test: Mapping[str, Any]) -> "list[Table]":
    """Rich tables of a ``test`` entry: rollout errors by method and subset, then what a rollout should keep."""
    subsets = test.get("per_subset") or {}
    headings = ["method", f"all ({test['cases']})", "at the end"]
    headings += [f"{name} ({values['cases']})" for name, values in subsets.items()]
    rows = []
    for key, label in PATHS:
        if key not in test:
            continue
        name = f"{operator}: {label}" if key in ("dense", "sparse") else label
        rows.append([name, *(_text(v.get(k)) for v, k in ((test, key), (test, f"{key}_last")))])
        rows[-1] += [_text(values.get(key)) for values in subsets.values()]
    title = "Held-out scenes: rollout error relative to displacement; less is better\n"
    tables = [make_table(headings, rows, title, numbers_from=1)]
    kept = [(heading, test[key]) for heading, key in BALANCE if key in test]
    row = [operator, *(_text(value) for _, value in kept), _text(test.get("seconds_per_step"))]
    title = "Distances are relative to displacement, drifts to the truth's scale\n"
    tables.append(
        make_table(["method", *(heading for heading, _ in kept), "seconds\na step"], [row], title, numbers_from=1)
    )
    return tables


def particle_next_steps(directory: Path) -> str:
    """What to do with a finished run, to copy and paste."""
    return f"""Next:
  python -c "import sciml; print(sciml.load('{directory}'))"      your own code: surrogate.dense_rollout
  sciml plot {directory} --vtk paraview
  sciml predict {directory} --input scenes.h5 --out predicted.h5"""


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
